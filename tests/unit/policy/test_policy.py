"""Models and tokenizers of a job: the same in every program, exportable, and clear about what cannot be had."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.rollout.builders import job_spec
from tests.unit.rollout.test_torch_engine import ARCHITECTURES, save_folder
from transformers import AutoModelForCausalLM, AutoTokenizer

from asyncppo.errors import UserError
from asyncppo_runtime.environments.interface import Observation
from asyncppo_runtime.policy import (
    EncodingError,
    build_architecture,
    build_model,
    build_tokenizer,
    policy_tensors,
    save_pretrained,
    tied_names,
)
from asyncppo_runtime.policy.errors import TooLongError


def test_weights_come_from_the_seed_alone_and_leave_the_global_one() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (build_model(job_spec(), seed, torch.float32) for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    pairs = zip(policy_tensors(first).values(), policy_tensors(again).values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_every_precision_starts_from_the_same_numbers() -> None:
    single, double, half = (
        build_model(job_spec(), 3, dtype) for dtype in (torch.float32, torch.float64, torch.bfloat16)
    )
    for name, tensor in policy_tensors(single).items():
        assert torch.equal(tensor.double(), policy_tensors(double)[name])
        assert torch.equal(tensor.bfloat16(), policy_tensors(half)[name])


def test_learner_and_rollout_have_the_same_architecture() -> None:
    model, shape = build_model(job_spec(), 3, torch.float64), build_architecture(job_spec(), torch.float64)
    described = [{name: (t.shape, t.dtype) for name, t in policy_tensors(m).items()} for m in (model, shape)]
    assert described[0] == described[1]
    buffers = zip(model.named_buffers(), shape.named_buffers(), strict=True)
    assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in buffers)
    assert not model.training
    assert not shape.training


def test_the_symbols_are_the_vocabulary() -> None:
    tokenizer = build_tokenizer(job_spec())
    assert tokenizer.vocab_size == 3 + 16 + 4
    assert build_model(job_spec(), 1, torch.float32).config.vocab_size == tokenizer.vocab_size
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.stop_token_ids) == (0, 1, 2, [2])
    assert tokenizer.first(Observation(text="")) == [1]
    assert tokenizer.first(Observation(text="12 <")) == [1, 15, 19]
    assert tokenizer.following(Observation(text="< 12"), [5]) == [19, 15]
    assert tokenizer.action([15, 19, 2]) == "12 <"
    assert tokenizer.action([2, 5]) == "<eos> 2"
    assert tokenizer.action([]) == ""


@pytest.mark.parametrize("text", ["12<", "zebra", "<unk>"])
def test_a_word_that_is_no_symbol_is_refused(text: str) -> None:
    with pytest.raises(EncodingError, match="cannot encode"):
        build_tokenizer(job_spec()).first(Observation(text=text))


@pytest.mark.parametrize("token_ids", [[23], [-1], [0, 1, 99]])
def test_ids_outside_the_vocabulary_are_refused(token_ids: list[int]) -> None:
    with pytest.raises(EncodingError, match="token_ids"):
        build_tokenizer(job_spec()).first(Observation(token_ids=token_ids))


def test_what_is_remembered_cannot_be_changed_by_its_user() -> None:
    tokenizer = build_tokenizer(job_spec())
    tokenizer.first(Observation(text="12")).append(7)
    assert tokenizer.first(Observation(text="12")) == [1, 15]


def test_the_export_is_a_hugging_face_folder(tmp_path: Path) -> None:
    model, tokenizer = build_model(job_spec(), 3, torch.float32), build_tokenizer(job_spec())
    save_pretrained(model, tokenizer, tmp_path / "model")
    save_pretrained(model, tokenizer, tmp_path / "model")
    loaded, words = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "model"),
        AutoTokenizer.from_pretrained(tmp_path / "model"),
    )
    ids = words("12 <", return_tensors="pt")["input_ids"]
    assert ids.tolist() == [[1, 15, 19]]
    assert words.decode([15, 19]) == "12 <"
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_the_export_is_a_pretrained_model(tmp_path: Path) -> None:
    model = build_model(job_spec(), 3, torch.float32)
    save_pretrained(model, build_tokenizer(job_spec()), tmp_path / "model")
    spec = job_spec(model={"pretrained": str(tmp_path / "model")})
    again = build_model(spec, 99, torch.float32)
    pairs = zip(policy_tensors(model).values(), policy_tensors(again).values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert build_tokenizer(spec).stop_token_ids == [2]
    shape = build_architecture(spec, torch.float64)
    assert {n: t.shape for n, t in policy_tensors(shape).items()} == {
        n: t.shape for n, t in policy_tensors(again).items()
    }


def test_tied_tensors_are_named_once(tmp_path: Path) -> None:
    model = ARCHITECTURES["tied embeddings and biases"]()
    assert "lm_head.weight" not in policy_tensors(model)
    assert tied_names(model)["lm_head.weight"] == "model.embed_tokens.weight"
    assert len(policy_tensors(model)) == len(list(model.parameters()))
    untied = build_model(job_spec(), 1, torch.float32)
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= policy_tensors(untied).keys()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"pretrained": "/no/such/folder"}, "does not exist"),
        ({"pretrained": "./no/such"}, "does not exist"),
        ({"pretrained": "some/model.gguf"}, "does not exist"),
        ({"builtin": {"hiddenSize": 30, "heads": 4}}, "even multiple"),
        ({"builtin": {"hiddenSize": 12, "heads": 4}}, "even multiple"),
    ],
)
def test_models_that_cannot_be_had(model: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=r"spec\.model") as caught:
        build_model(job_spec(model=model), 1, torch.float32)
    assert says in str(caught.value)


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    for name, content in (("empty", None), ("broken", "{"), ("foreign", '{"model_type": "no-such-type"}')):
        folder = tmp_path / name
        folder.mkdir()
        if content:
            (folder / "config.json").write_text(content)
        for build in (build_model, lambda s, _, d: build_architecture(s, d)):
            with pytest.raises(UserError, match=r"spec\.model\.pretrained"):
                build(job_spec(model={"pretrained": str(folder)}), 1, torch.float32)
    (tmp_path / "file.bin").write_text("x")
    with pytest.raises(UserError, match=r"not a \.gguf"):
        build_tokenizer(job_spec(model={"pretrained": str(tmp_path / "file.bin")}))


def test_a_context_longer_than_the_models_positions_is_refused(tmp_path: Path) -> None:
    save_folder(ARCHITECTURES["learned positions"](), tmp_path / "model")
    spec = job_spec(model={"pretrained": str(tmp_path / "model")}, sampling={"contextLength": 65})
    with pytest.raises(UserError, match="contextLength"):
        build_model(spec, 1, torch.float32)


def test_an_environment_without_symbols_needs_a_pretrained_model() -> None:
    environment = {"type": "Custom", "entrypoint": "tests.unit.rollout.builders:Scripted"}
    with pytest.raises(UserError, match=r"declares no symbols\(\)"):
        build_tokenizer(job_spec(environment=environment))


@pytest.mark.parametrize("extra", [0, 5])
def test_a_tokenizer_with_more_ids_than_the_model_has_rows_is_refused(tmp_path: Path, extra: int) -> None:
    model, tokenizer = build_model(job_spec(), 3, torch.float32), build_tokenizer(job_spec())
    tokenizer.hf.add_tokens([f"<extra_{number}>" for number in range(extra)])
    save_pretrained(model, tokenizer, tmp_path / "model")
    spec = job_spec(model={"pretrained": str(tmp_path / "model")})
    rows = tokenizer.vocab_size
    if extra:
        with pytest.raises(UserError, match=rf"{rows + extra} token ids, its model rows for {rows}"):
            build_tokenizer(spec)
    else:
        assert build_tokenizer(spec).vocab_size == rows


def test_a_model_that_ends_turns_with_an_id_it_has_no_row_for_is_refused(tmp_path: Path) -> None:
    model, tokenizer = build_model(job_spec(), 3, torch.float32), build_tokenizer(job_spec())
    save_pretrained(model, tokenizer, tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text('{"eos_token_id": [2, 999]}')
    with pytest.raises(UserError, match=r"ends a turn with token id 999"):
        build_tokenizer(job_spec(model={"pretrained": str(tmp_path / "model")}))


def test_a_tokenizer_without_an_end_of_sequence_is_refused(tmp_path: Path) -> None:
    model, tokenizer = build_model(job_spec(), 3, torch.float32), build_tokenizer(job_spec())
    save_pretrained(model, tokenizer, tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").unlink(missing_ok=True)
    for name, key in (("tokenizer_config.json", "eos_token"), ("config.json", "eos_token_id")):
        path = tmp_path / "model" / name
        content = json.loads(path.read_text())
        del content[key]
        path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="has no end-of-sequence token"):
        build_tokenizer(job_spec(model={"pretrained": str(tmp_path / "model")}))


def test_a_text_of_more_characters_than_can_fit_is_not_encoded() -> None:
    tokenizer = build_tokenizer(job_spec())
    assert len(tokenizer.following(Observation(text="12 " * 48), [])) == 48
    with pytest.raises(TooLongError):
        tokenizer.first(Observation(text=" " * 10_000_000))


class Mumbling:
    """Its symbols cannot be had."""

    async def reset(self, task: object) -> None: ...
    async def step(self, action: str, token_ids: list[int]) -> None: ...
    async def close(self) -> None: ...

    @classmethod
    def symbols(cls, parameters: dict[str, Any]) -> Any:
        if parameters.get("as") == "exit":
            raise SystemExit(1)
        return {"numbers": [1, 2], "generator": (word for word in ("a", "b"))}[parameters["as"]]


@pytest.mark.parametrize(
    ("kind", "says"), [("exit", "symbols fails (SystemExit: 1"), ("numbers", "the symbol 1 is no str")]
)
def test_symbols_that_are_none_are_bad_input(kind: str, says: str) -> None:
    environment = {"type": "Custom", "entrypoint": f"{__name__}:Mumbling", "parameters": {"as": kind}}
    with pytest.raises(UserError, match=r"spec\.environment") as caught:
        build_tokenizer(job_spec(environment=environment))
    assert says in str(caught.value)


def test_symbols_may_come_from_a_generator() -> None:
    environment = {"type": "Custom", "entrypoint": f"{__name__}:Mumbling", "parameters": {"as": "generator"}}
    assert build_tokenizer(job_spec(environment=environment)).vocab_size == 5
