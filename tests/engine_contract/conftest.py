"""The two engines of the contract, each started once for all its tests. Owns their start and end."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from tests.engine_contract.builders import Version, make_spec, publish

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo_runtime.rollout.engines.interface import Engine

NEEDS_VLLM = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed here; make setup-vllm adds it"
)


def torch_engine(spec: AsyncPPOJobSpec) -> Engine:
    from asyncppo_runtime.rollout.engines.torch_engine import TorchEngine

    return TorchEngine(spec)


def vllm_engine(spec: AsyncPPOJobSpec) -> Engine:
    from asyncppo_runtime.rollout.engines.vllm_engine import VllmEngine

    return VllmEngine(spec)


FACTORIES: dict[str, Callable[[AsyncPPOJobSpec], Engine]] = {"Torch": torch_engine, "VLLM": vllm_engine}


class Subject:
    """An engine under test and the versions it can be given. Every test finds it on some version, running nothing, resumed."""

    def __init__(self, spec: AsyncPPOJobSpec, engine: Engine, folder: Path) -> None:
        self.spec = spec
        self.engine = engine
        self.folder = folder
        self.versions: dict[int, Version] = {}

    def new_version(self) -> Version:
        """A version with weights unlike all before."""
        number = len(self.versions)
        self.versions[number] = publish(self.spec, self.folder, number)
        return self.versions[number]

    async def swap(self) -> Version:
        """Pause, load a new version, resume."""
        version = self.new_version()
        await self.engine.pause()
        assert await self.engine.load(version.path, version.record) == version.record.published_hash
        await self.engine.resume()
        return version

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that comes within moments."""
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 - an engine announces nothing
                await asyncio.sleep(0.001)

    @property
    def current(self) -> Version:
        """The version loaded."""
        return self.versions[self.engine.version]


@pytest_asyncio.fixture(
    scope="package",
    loop_scope="package",
    params=[
        pytest.param("Torch", id="torch"),
        pytest.param("VLLM", id="vllm", marks=[pytest.mark.vllm, NEEDS_VLLM, pytest.mark.filterwarnings("ignore")]),
    ],
)
async def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Subject]:
    """The engine, on version 0."""
    spec = make_spec({"type": request.param})
    subject = Subject(spec, FACTORIES[request.param](spec), tmp_path_factory.mktemp(request.param))
    await subject.engine.start()
    first = subject.new_version()
    await subject.engine.load(first.path, first.record)
    await subject.engine.resume()
    yield subject
    await subject.engine.close()


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """The reference forwards share the machine with the engine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
