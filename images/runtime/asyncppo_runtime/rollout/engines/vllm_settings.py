"""From a manifest to vLLM's own settings: process environment and engine arguments. Owns that mapping; imports no vLLM.

What the manifest already says elsewhere is not taken from `spec.rollout.engine.options`: two truths about one thing would let the
engine sample from something the learner does not score.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.training import Precision
from asyncppo_runtime.rollout.engines.interface import EngineError

FIELD = "spec.rollout.engine"
WORKER_EXTENSION = "asyncppo_runtime.rollout.engines.vllm_worker.WeightsExtension"
CPU_BLOCK_TOKENS = 32  # vLLM's default on the CPU is 128: no prefix of a short prompt would ever be found again
LEAST_TEMPERATURE = 0.01  # below it vLLM silently samples at 0.01, another distribution than the learner's

DTYPES: Mapping[Precision, str] = {Precision.FLOAT32: "float32", Precision.BFLOAT16: "bfloat16"}

OWNED: Mapping[str, str] = {
    "model": "spec.model",
    "tokenizer": "spec.model",
    "skip_tokenizer_init": "spec.model",
    "hf_overrides": "spec.model",
    "trust_remote_code": "spec.model (code of a model repository is never run)",
    "quantization": "spec.rollout.engine.precision",
    "dtype": "spec.rollout.engine.precision",
    "tensor_parallel_size": "spec.rollout.engine.tensorParallel",
    "kv_cache_memory_bytes": "spec.rollout.engine.kvCacheBytes",
    "max_model_len": "spec.sampling.contextLength",
    "max_num_seqs": "spec.rollout.concurrency",
    "logprobs_mode": "spec.sampling (log-probabilities are those of the distribution sampled from)",
    "generation_config": "spec.sampling",
    "override_generation_config": "spec.sampling",
    "seed": "nothing (workers that share a seed would sample the same episodes)",
    "load_format": "nothing (weights come from the learner)",
    "worker_extension_cls": "nothing (it is how weights are loaded)",
    "weight_transfer_config": "spec.weightSync.transport",
    "speculative_config": "nothing (not implemented yet)",
    "enable_lora": "nothing (not implemented yet)",
}


def environment(spec: AsyncPPOJobSpec, accelerated: bool) -> dict[str, str]:
    """Variables that must stand in the process's environment before vLLM is imported; its children inherit them."""
    common = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    if accelerated:
        return common
    threads = spec.rollout.engine.threads
    return common | {
        # one process less to start, each costs seconds of imports
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # else the sampler's helpers are compiled with a C++ compiler at the first request
        "TORCHDYNAMO_DISABLE": "1",
        # else every engine of a machine is pinned to the same first core
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # the memory of one version's packed weights is taken again for the next one's: else glibc gives every large block back to
        # the kernel, and getting its pages anew costs a load as much time as copying into them
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
        **({"OMP_NUM_THREADS": str(threads)} if threads else {}),
    }


def engine_arguments(spec: AsyncPPOJobSpec, model: Path, accelerated: bool) -> dict[str, Any]:
    """Keyword arguments of vLLM's AsyncEngineArgs for the model in folder `model`.

    Raises EngineError for an option that is not the engine's to set and for a precision vLLM does not compute in.
    """
    engine = spec.rollout.engine
    if engine.precision not in DTYPES:
        raise EngineError(f"{FIELD}.precision: vLLM does not compute in {engine.precision}; use Float32 or BFloat16")
    if spec.sampling.temperature < LEAST_TEMPERATURE:
        raise EngineError(
            f"spec.sampling.temperature: vLLM samples at no less than {LEAST_TEMPERATURE:g}; raise {spec.sampling.temperature:g}"
        )
    options = dict(engine.options or {})
    for name in options:
        if name in OWNED:
            raise EngineError(f"{FIELD}.options.{name}: not an option here; it is governed by {OWNED[name]}")
    by_device: dict[str, Any] = {} if accelerated else {"enforce_eager": True, "block_size": CPU_BLOCK_TOKENS}
    return {
        "max_num_seqs": spec.rollout.concurrency,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "enable_log_requests": False,
        **by_device,
        **options,
        "model": str(model),
        "skip_tokenizer_init": True,
        "dtype": DTYPES[engine.precision],
        "tensor_parallel_size": engine.tensor_parallel,
        "kv_cache_memory_bytes": engine.kv_cache_bytes,
        "max_model_len": spec.sampling.context_length,
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        "load_format": "dummy",
        "worker_extension_cls": WORKER_EXTENSION,
        "seed": secrets.randbits(31),
    }
