"""From a manifest's engine to its class. Owns the names; imports an engine only when it is asked for."""

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.roles import EngineType
from asyncppo_runtime.rollout.engines.interface import Engine


def make_engine(spec: AsyncPPOJobSpec) -> Engine:
    """The engine `spec.rollout.engine.type` names, not started; whether it can run shows at its start."""
    match spec.rollout.engine.type:
        case EngineType.TORCH:
            from asyncppo_runtime.rollout.engines.torch_engine import TorchEngine

            return TorchEngine(spec)
        case EngineType.VLLM:
            from asyncppo_runtime.rollout.engines.vllm_engine import VllmEngine

            return VllmEngine(spec)
