"""What vLLM cannot serve is refused at start, in the manifest's words, before a process is started for it."""

from pathlib import Path
from typing import Any

import pytest
from tests.engine_contract.builders import make_spec
from tests.integration.rollout.learner_double import TOKEN, UID, LearnerDouble
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

from asyncppo.api.job import AsyncPPOJob, AsyncPPOJobSpec
from asyncppo.errors import UserError
from asyncppo.wire import routes
from asyncppo.wire.client import WireClient
from asyncppo.wire.server import serve
from asyncppo_runtime.policy.symbols import symbol_tokenizer
from asyncppo_runtime.rollout.engines.interface import EngineError
from asyncppo_runtime.rollout.engines.vllm_engine import VllmEngine
from asyncppo_runtime.rollout.worker import Worker

BUILTIN: dict[str, Any] = {"hiddenSize": 64, "layers": 2, "heads": 2, "intermediateSize": 128}


async def _refusal(spec: AsyncPPOJobSpec) -> str:
    engine = VllmEngine(spec)
    with pytest.raises(EngineError) as caught:
        await engine.start()
    with pytest.raises(EngineError, match="not started"):
        await engine.resume()
    await engine.close()
    return str(caught.value)


def _starved() -> AsyncPPOJobSpec:
    return make_spec(
        {"type": "VLLM", "kvCacheBytes": 1 << 20}, {"builtin": {**BUILTIN, "hiddenSize": 256, "heads": 8}}, context=1024
    )


async def test_a_kv_cache_too_small_for_one_sequence() -> None:
    message = await _refusal(_starved())
    assert message.startswith("spec.rollout.engine.kvCacheBytes: 1048576 bytes hold no sequence of 1024 tokens")
    assert "at least 4194304" in message


async def test_a_worker_whose_engine_is_refused_never_joins_and_is_not_ready(tmp_path: Path) -> None:
    job = AsyncPPOJob.model_validate(
        {
            "apiVersion": "asyncppo.io/v1alpha1",
            "kind": "AsyncPPOJob",
            "metadata": {"name": "j", "uid": UID},
            "spec": _starved(),
        }
    )
    async with LearnerDouble(tmp_path / "store") as learner, WireClient(TOKEN) as client:
        worker = Worker(job, VllmEngine(job.spec), client, name="w", learner=learner.url, directory=tmp_path)
        runner, port = await serve(worker.application(TOKEN), "127.0.0.1", 0)
        url = f"http://127.0.0.1:{port}"
        try:
            with pytest.raises(UserError, match=r"the engine cannot start: spec\.rollout\.engine\.kvCacheBytes"):
                await worker.run(url, 5.0)
            async with client.session.get(url + routes.READYZ) as response:
                assert response.status == 503
        finally:
            await runner.cleanup()
        assert not learner.members


async def test_a_kv_cache_larger_than_the_memory() -> None:
    assert "are free; lower it" in await _refusal(make_spec({"type": "VLLM", "kvCacheBytes": 1 << 49}))


async def test_heads_the_cpu_has_no_kernel_for() -> None:
    message = await _refusal(make_spec({"type": "VLLM"}, {"builtin": {**BUILTIN, "heads": 4}}))
    assert "heads of size 16" in message
    assert "spec.model.builtin" in message


async def test_an_architecture_vllm_does_not_have(tmp_path: Path) -> None:
    OpenAIGPTLMHeadModel(
        OpenAIGPTConfig(vocab_size=20, n_positions=256, n_embd=64, n_layer=1, n_head=2)
    ).save_pretrained(tmp_path)
    symbol_tokenizer([f"w{index}" for index in range(17)]).save_pretrained(tmp_path)
    message = await _refusal(make_spec({"type": "VLLM"}, {"pretrained": str(tmp_path)}))
    assert message.startswith("spec.model: vLLM does not support this model")


async def test_more_gpus_than_there_are() -> None:
    message = await _refusal(make_spec({"type": "VLLM", "tensorParallel": 64}))
    assert message.startswith("spec.rollout.engine.tensorParallel: 64 GPUs are asked for")


async def test_an_option_vllm_does_not_know() -> None:
    message = await _refusal(make_spec({"type": "VLLM", "options": {"no_such_option": 1}}))
    assert message.startswith("spec.rollout.engine.options:")
    assert "no_such_option" in message


async def test_an_option_value_vllm_refuses() -> None:
    message = await _refusal(make_spec({"type": "VLLM", "options": {"max_num_batched_tokens": -5}}))
    assert message.startswith("spec.rollout.engine")
