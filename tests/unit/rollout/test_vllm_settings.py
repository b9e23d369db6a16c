"""A manifest in vLLM's words, without vLLM."""

from pathlib import Path

import pytest
from tests.engine_contract.builders import make_spec

from asyncppo_runtime.rollout.engines.interface import EngineError
from asyncppo_runtime.rollout.engines.vllm_settings import OWNED, engine_arguments, environment

FOLDER = Path("/models/policy")


def test_the_manifest_decides_what_it_names() -> None:
    spec = make_spec({"type": "VLLM", "precision": "BFloat16", "tensorParallel": 2, "kvCacheBytes": 1 << 25})
    arguments = engine_arguments(spec, FOLDER, accelerated=True)
    assert arguments["model"] == "/models/policy"
    assert arguments["dtype"] == "bfloat16"
    assert arguments["tensor_parallel_size"] == 2
    assert arguments["kv_cache_memory_bytes"] == 1 << 25
    assert arguments["max_model_len"] == spec.sampling.context_length
    assert arguments["max_num_seqs"] == spec.rollout.concurrency
    assert arguments["logprobs_mode"] == "processed_logprobs"


def test_options_pass_as_they_are_and_may_replace_defaults() -> None:
    spec = make_spec({"type": "VLLM", "options": {"block_size": 64, "max_num_batched_tokens": 512}})
    arguments = engine_arguments(spec, FOLDER, accelerated=False)
    assert (arguments["block_size"], arguments["max_num_batched_tokens"]) == (64, 512)


@pytest.mark.parametrize("name", sorted(OWNED))
def test_options_cannot_say_what_the_manifest_says_elsewhere(name: str) -> None:
    spec = make_spec({"type": "VLLM", "options": {name: 1}})
    with pytest.raises(EngineError, match=rf"spec\.rollout\.engine\.options\.{name}: .*governed by"):
        engine_arguments(spec, FOLDER, accelerated=False)


def test_workers_do_not_share_a_seed() -> None:
    spec = make_spec({"type": "VLLM"})
    assert len({engine_arguments(spec, FOLDER, accelerated=False)["seed"] for _ in range(8)}) == 8


def test_fp64_and_temperatures_vllm_would_change_are_refused() -> None:
    with pytest.raises(EngineError, match=r"spec\.rollout\.engine\.precision"):
        engine_arguments(make_spec({"type": "VLLM", "precision": "Float64"}), FOLDER, accelerated=False)
    cold = make_spec({"type": "VLLM"})
    cold = cold.model_copy(update={"sampling": cold.sampling.model_copy(update={"temperature": 0.005})})
    with pytest.raises(EngineError, match=r"spec\.sampling\.temperature"):
        engine_arguments(cold, FOLDER, accelerated=False)


def test_the_cpu_gets_an_environment_of_its_own() -> None:
    spec = make_spec({"type": "VLLM", "threads": 3})
    cpu = environment(spec, accelerated=False)
    assert cpu["OMP_NUM_THREADS"] == "3"
    assert cpu["TORCHDYNAMO_DISABLE"] == "1"
    assert cpu["MALLOC_MMAP_MAX_"] == "0"
    assert "TORCHDYNAMO_DISABLE" not in environment(spec, accelerated=True)
    assert "OMP_NUM_THREADS" not in environment(make_spec({"type": "VLLM", "threads": 0}), accelerated=False)
