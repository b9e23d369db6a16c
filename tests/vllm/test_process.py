"""vLLM's core process: what happens when it dies, when we die, and when it is closed."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from tests.engine_contract.builders import make_spec, prompt_of, publish, request

from asyncppo_runtime.rollout.engines.interface import EngineError, GenerateResult
from asyncppo_runtime.rollout.engines.vllm_engine import VllmEngine

LONG = 1024  # tokens; nobody samples so many before what a test does to the engine has happened


async def _running(tmp_path: Path) -> tuple[VllmEngine, psutil.Process]:
    """An engine that samples, and its core; cores of engines closed before may still be ending."""
    spec = make_spec({"type": "VLLM"}, context=LONG)
    engine = VllmEngine(spec)
    before = _cores(os.getpid())
    await engine.start()
    (core,) = set(_cores(os.getpid())) - set(before)
    version = publish(spec, tmp_path, 0)
    await engine.load(version.path, version.record)
    await engine.resume()
    return engine, core


async def _sampling(engine: VllmEngine, count: int) -> list[asyncio.Task[GenerateResult]]:
    """`count` long requests, the first of which has begun."""
    calls = [asyncio.create_task(engine.generate(request(prompt_of(i), LONG - 8))) for i in range(count)]
    async with asyncio.timeout(60):
        while engine.kv_usage == 0.0:  # noqa: ASYNC110 - an engine announces nothing
            await asyncio.sleep(0.001)
    return calls


def _cores(pid: int) -> list[psutil.Process]:
    """Cores below a process that have not ended; vLLM renames its processes."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if child.status() != psutil.STATUS_ZOMBIE and "EngineCore" in " ".join([child.name(), *child.cmdline()]):
                found.append(child)
    return found


async def test_a_killed_core_is_an_error_of_every_call_at_once(tmp_path: Path) -> None:
    engine, core = await _running(tmp_path)
    try:
        calls = await _sampling(engine, 16)
        pausing = asyncio.create_task(engine.pause())
        core.send_signal(signal.SIGKILL)
        outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert all(isinstance(error, EngineError) for error in failed)
        assert "died" in str(await asyncio.wait_for(engine.lost(), 30))
        with pytest.raises(EngineError, match="died"):
            await asyncio.wait_for(engine.resume(), 30)
        with pytest.raises(EngineError, match="died"):
            await engine.generate(request(prompt_of(50)))
        with pytest.raises(EngineError, match="died"):
            await engine.pause()
        await asyncio.wait_for(asyncio.gather(pausing, return_exceptions=True), 30)
    finally:
        await asyncio.wait_for(engine.close(), 60)


async def test_closing_ends_running_calls_and_the_core(tmp_path: Path) -> None:
    engine, core = await _running(tmp_path)
    calls = await _sampling(engine, 16)
    await asyncio.wait_for(engine.close(), 60)
    outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)
    assert all(isinstance(outcome, EngineError) for outcome in outcomes)
    with pytest.raises(EngineError, match="closed"):
        await engine.generate(request(prompt_of(50)))
    psutil.wait_procs([core], timeout=30)
    assert not core.is_running() or core.status() == psutil.STATUS_ZOMBIE
    await engine.close()


async def test_later_turns_find_their_prefix_in_the_cache_and_a_load_drops_it(tmp_path: Path) -> None:
    spec = make_spec({"type": "VLLM"})
    engine = VllmEngine(spec)
    await engine.start()
    try:
        for number in range(2):
            version = publish(spec, tmp_path, number)
            await engine.pause()
            await engine.load(version.path, version.record)
            await engine.resume()
            before = engine.cached_tokens
            first = await engine.generate(request(prompt_of(1, 70), 40))
            assert engine.cached_tokens == before
            await engine.generate(request(prompt_of(1, 70) + first.token_ids + prompt_of(2, 10), 4))
            assert engine.cached_tokens - before == 96  # 110 tokens in blocks of 32
    finally:
        await engine.close()


@pytest.mark.parametrize("sign", ["AN ENGINE IS STARTING", "AN ENGINE IS UP"])
def test_when_the_rollout_is_killed_its_core_goes_too(tmp_path: Path, sign: str) -> None:
    program = tmp_path / "rollout.py"
    program.write_text(
        textwrap.dedent(
            """
            import asyncio
            import psutil
            from asyncppo_runtime.rollout.engines.vllm_engine import VllmEngine
            from tests.engine_contract.builders import make_spec

            async def main() -> None:
                engine = VllmEngine(make_spec({"type": "VLLM"}))
                asyncio.create_task(tell())
                await engine.start()
                print("AN ENGINE IS UP", flush=True)
                await asyncio.sleep(600)

            async def tell() -> None:
                while not any("EngineCore" in child.name() for child in psutil.Process().children()):
                    await asyncio.sleep(0.05)
                print("AN ENGINE IS STARTING", flush=True)

            if __name__ == "__main__":
                asyncio.run(main())
            """
        )
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, str(program)], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stdout=-1
    ) as rollout:
        try:
            assert rollout.stdout is not None
            assert any(sign.encode() in line for line in rollout.stdout)
            cores = _cores(rollout.pid)
            assert cores
        finally:
            rollout.kill()
    gone, alive = psutil.wait_procs(cores, timeout=30)
    assert not alive
    assert gone
