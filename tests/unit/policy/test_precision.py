"""In every precision a program's module is transformers' own: parameters in that precision, and no buffer that differs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.rollout.builders import job_spec
from tests.unit.rollout.test_torch_engine import save_folder
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.training import Precision
from asyncppo_runtime.learner.trainer import Trainer
from asyncppo_runtime.old_logit.held import HeldModel
from asyncppo_runtime.policy import build_architecture, build_model, policy_tensors, torch_dtype
from asyncppo_runtime.policy.state import buffer_names
from asyncppo_runtime.rollout.engines.torch_engine import TorchEngine
from asyncppo_runtime.weights.cast import published_form

SHAPE: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# rotary of several kinds, a scale of embeddings in a buffer, experts, and a correction of their choice in a *persistent* float32 buffer
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gpt_neox": {},
    "gemma2": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8},
    "mixtral": {"num_local_experts": 4},
    "glm4_moe": {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
        "head_dim": 8,
    },
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 4096},
}
EXPERTS = ("mixtral", "glm4_moe")
PRECISIONS = list(Precision)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A pretrained folder per family."""
    made = {}
    for family, own in FAMILIES.items():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**{**SHAPE, **own}))
        made[family] = tmp_path_factory.mktemp("models") / family
        save_folder(model, made[family])
    return made


def spec_of(folder: Path, precision: Precision) -> AsyncPPOJobSpec:
    return job_spec(
        model={"pretrained": str(folder)},
        optimizer={"precision": precision.value, "learningRate": 1e-4},
        rollout={"concurrency": 1, "engine": {"precision": precision.value}},
        oldLogits={"strategy": "Snapshot"},
        sampling={"maxTokens": 4, "contextLength": 64},
    )


def described(model: torch.nn.Module) -> dict[str, tuple[torch.dtype, list[float]]]:
    """dtype and values of every buffer, persistent or not."""
    return {name: (buffer.dtype, buffer.double().flatten().tolist()) for name, buffer in model.named_buffers()}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", list(FAMILIES))
def test_no_buffer_differs_from_transformers_own(family: str, precision: Precision, folders: dict[str, Path]) -> None:
    dtype, spec = torch_dtype(precision), spec_of(folders[family], precision)
    expected: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folders[family], dtype=dtype).eval()
    trainer = Trainer(spec)
    made = {"trainer": trainer.model, "scorer": HeldModel(spec)._model, "engine": build_architecture(spec, dtype)}
    for who, model in made.items():
        assert described(model) == described(expected), who
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}, who
    if not (family in EXPERTS and precision is Precision.FLOAT64):  # torch's grouped product knows no float64
        ids = torch.randint(3, 40, (1, 600), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            assert torch.equal(trainer.model(input_ids=ids).logits, expected(input_ids=ids).logits)
    # what is published fits what loads it: names and dtypes of the engine's own module, in any pair of precisions
    for engine in PRECISIONS:
        live = policy_tensors(build_architecture(spec, torch_dtype(engine)))
        sent = published_form(policy_tensors(trainer.model), engine, buffer_names(trainer.model))
        assert {name: one.dtype for name, one in sent.items()} == {name: one.dtype for name, one in live.items()}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_builtin_models_rotary_frequencies_are_float32(precision: Precision) -> None:
    spec, dtype = job_spec(), torch_dtype(precision)
    plain = AutoModelForCausalLM.from_config(build_model(spec, 0, torch.float32).config, dtype=dtype)
    for model in (build_model(spec, 0, dtype), build_architecture(spec, dtype)):
        assert described(model) == described(plain)
        assert model.model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt_neox"])
async def test_the_torch_engine_computes_with_them(family: str, precision: Precision, folders: dict[str, Path]) -> None:
    engine = TorchEngine(spec_of(folders[family], precision))
    await engine.start()
    try:
        plain = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(folders[family]), dtype=torch_dtype(precision)
        )
        assert described(engine._model) == described(plain)
    finally:
        await engine.close()


def test_a_persistent_buffer_keeps_its_own_precision_on_the_way(folders: dict[str, Path]) -> None:
    model = build_model(spec_of(folders["glm4_moe"], Precision.BFLOAT16), 0, torch.bfloat16)
    (name,) = buffer_names(model)
    assert name.endswith("e_score_correction_bias")
    sent = published_form(policy_tensors(model), Precision.BFLOAT16, buffer_names(model))
    assert sent[name].dtype == torch.float32
    assert sent["model.embed_tokens.weight"].dtype == torch.bfloat16
