"""Making the policy's module: the built-in tiny Llama, or a pretrained decoder. Owns architecture and initial weights.

Does not own versions: what a rollout or scorer computes with is loaded over `build_architecture`'s module.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.training import BuiltinModel, Precision
from asyncppo.errors import UserError
from asyncppo_runtime.policy.source import FIELD, resolve
from asyncppo_runtime.policy.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

DTYPES = {
    Precision.FLOAT64: torch.float64,
    Precision.FLOAT32: torch.float32,
    Precision.BFLOAT16: torch.bfloat16,
}


def torch_dtype(precision: Precision) -> torch.dtype:
    """The torch dtype of a manifest's precision."""
    return DTYPES[precision]


def build_model(spec: AsyncPPOJobSpec, seed: int, dtype: torch.dtype) -> "PreTrainedModel":
    """The policy with its initial weights, parameters in `dtype`, on the CPU, in eval mode.

    builtin: weights drawn from `seed` in fp32 and then cast, so that every precision starts from the same numbers; the global
    random state is left as it was. pretrained: its own weights, cast. Raises UserError when the model cannot be had.
    """
    if spec.model.builtin is not None:
        return cast_parameters(_builtin(spec, spec.model.builtin, seed), dtype).eval()
    from transformers import AutoModelForCausalLM

    source = resolve(_pretrained(spec))
    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(source.name, dtype=dtype, **source.keywords)
            if source.gguf_file:
                model = _dequantized(model)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise UserError(f"{FIELD}: {source.name} cannot be loaded as a causal language model: {error}") from error
    _check_context(spec, model.config)
    return cast_parameters(model, dtype).eval()


def build_architecture(spec: AsyncPPOJobSpec, dtype: torch.dtype) -> "PreTrainedModel":
    """The very module `build_model` makes, same names, shapes and buffers, with arbitrary weights; reads no weights file."""
    if spec.model.builtin is not None:
        return cast_parameters(_builtin(spec, spec.model.builtin, 0), dtype).eval()
    from transformers import AutoConfig, AutoModelForCausalLM

    source = resolve(_pretrained(spec))
    try:
        with quiet(), torch.random.fork_rng():
            config = AutoConfig.from_pretrained(source.name, **source.keywords)
            model = _fresh(AutoModelForCausalLM.from_config(config, dtype=dtype))
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise UserError(f"{FIELD}: {source.name} is not a causal language model transformers knows: {error}") from error
    _check_context(spec, config)
    return cast_parameters(model, dtype).eval()


def cast_parameters(model: "PreTrainedModel", dtype: torch.dtype) -> "PreTrainedModel":
    """`model` with its parameters in `dtype` and its buffers as transformers made them.

    `Module.to(dtype)` would cast buffers too, and they are no weights: rotary frequencies are float32 in every precision, in transformers
    as in vLLM; in bfloat16 position 512 would turn by 0.7 rad too much or too little.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
    return model


def _pretrained(spec: AsyncPPOJobSpec) -> str:
    if spec.model.pretrained is None:
        raise UserError("spec.model: name exactly one of builtin and pretrained")
    return spec.model.pretrained


def _builtin(spec: AsyncPPOJobSpec, shape: BuiltinModel, seed: int) -> "PreTrainedModel":
    """A Llama with untied output head (engines that pack weights mishandle tied ones), its vocabulary the environment's symbols.

    Weights are drawn wider than the usual 0.02, which is made for models a hundred times as wide and costs a tiny one its first updates.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    if shape.hidden_size % shape.heads or (shape.hidden_size // shape.heads) % 2:
        raise UserError(
            f"spec.model.builtin: hiddenSize {shape.hidden_size} must be an even multiple of heads {shape.heads} "
            "(rotary positions need an even head size)"
        )
    tokenizer = build_tokenizer(spec)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=spec.sampling.context_length,
        initializer_range=0.64 / shape.hidden_size**0.5,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def _dequantized(model: "PreTrainedModel") -> "PreTrainedModel":
    """The same numbers in a module that does not think itself quantized, and so can be trained and saved."""
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = _fresh(AutoModelForCausalLM.from_config(config, dtype=model.dtype))
    plain.load_state_dict(model.state_dict())
    return plain


@torch.no_grad()
def _fresh(model: "PreTrainedModel") -> "PreTrainedModel":
    """A module made from a configuration alone, its buffers as `from_pretrained` would have them.

    `from_config` computes some of them (GPT-J's sines) in the model's own precision; `from_pretrained` fills them in again, in full.
    """
    for module in model.modules():
        if next(module.buffers(recurse=False), None) is not None:
            model._init_weights(module)
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars: a program's log has lines, not bars."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _check_context(spec: AsyncPPOJobSpec, config: "PretrainedConfig") -> None:
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and spec.sampling.context_length > limit:
        raise UserError(
            f"spec.sampling.contextLength: {spec.sampling.context_length} is more than the {limit} positions of the model; lower it"
        )
