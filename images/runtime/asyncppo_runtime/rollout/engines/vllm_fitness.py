"""Whether vLLM can serve a job's model with the memory it is given. Owns these checks, made before a process is started for it.

The engine core is another process: what it raises is only in the log. So whatever can be known from the configuration is said
here, with the manifest's field. `config` is vLLM's VllmConfig throughout.
"""

import re
from typing import Any

from asyncppo_runtime.rollout.engines.interface import EngineError

KV_FIELD = "spec.rollout.engine.kvCacheBytes"
LINE = re.compile(r"\s*\n\s*")


def refusal(error: Exception) -> EngineError:
    """What vLLM's refusal of the engine arguments means in the manifest's words."""
    text = LINE.sub(" ", str(error)).strip()[:500]
    if "architecture" in text.lower():
        return EngineError(
            f"spec.model: vLLM does not support this model: {text}; use another, or spec.rollout.engine.type Torch"
        )
    if isinstance(error, TypeError):
        return EngineError(f"spec.rollout.engine.options: {text}; see vLLM's engine arguments")
    if "max_model_len" in text or "maximum model length" in text:
        return EngineError(f"spec.sampling.contextLength: {text}")
    return EngineError(f"spec.rollout.engine: vLLM refuses these settings: {text}")


def check_devices(tensor_parallel: int, devices: int) -> None:
    """devices: GPUs this process sees; 0 runs on the CPU. Raises EngineError when the replica does not fit on them."""
    if tensor_parallel > max(devices, 1):
        raise EngineError(
            f"spec.rollout.engine.tensorParallel: {tensor_parallel} GPUs are asked for, {devices} are here; "
            "lower it, or ask for GPUs in spec.rollout.resources.limits"
        )


def check_memory(config: Any, available: int) -> None:
    """The KV cache holds at least one whole context, and the machine holds the KV cache; else raises EngineError.

    available: bytes of free memory, 0 where that is not known. Models that do not keep every token of every layer need less than
    this formula says and are left to vLLM's own check.
    """
    given = config.cache_config.kv_cache_memory_bytes
    if available and given > available:
        raise EngineError(f"{KV_FIELD}: {given} bytes are more than the {available} that are free; lower it")
    model = config.model_config
    if getattr(model, "use_mla", False) or getattr(model, "is_hybrid", False) or model.get_sliding_window():
        return
    parallel = config.parallel_config
    block = config.cache_config.block_size or 16
    layers = model.get_num_layers(parallel)
    token = 2 * layers * model.get_num_kv_heads(parallel) * model.get_head_size() * model.dtype.itemsize
    needed = token * block * -(-model.max_model_len // block)
    if needed > given:
        raise EngineError(
            f"{KV_FIELD}: {given} bytes hold no sequence of {model.max_model_len} tokens ({token} bytes each, in blocks of "
            f"{block}); give at least {needed}, or lower spec.sampling.contextLength"
        )


def check_attention(config: Any) -> None:
    """The CPU backend has kernels for some head sizes only; it would accept others and die at the first request."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() or getattr(config.model_config, "use_mla", False):
        return
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    sizes = CPUAttentionBackend.get_supported_head_sizes()
    size = config.model_config.get_head_size()
    if size not in sizes:
        raise EngineError(
            f"spec.model: heads of size {size} (hiddenSize / heads) cannot be run by vLLM on the CPU, only "
            f"{', '.join(map(str, sizes))}; change spec.model.builtin, or use spec.rollout.engine.type Torch"
        )


def free_memory() -> int:
    """Bytes the kernel thinks can be had without swapping; 0 where it does not say."""
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0
