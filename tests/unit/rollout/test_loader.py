"""Loading a version: the canary decides, and whatever fails leaves the version before it serving."""

import math
from pathlib import Path

import pytest
from tests.unit.rollout.builders import brute_force, job_spec, model_of, write_version

from asyncppo.errors import RefusedError
from asyncppo.wire.versions import Canary, VersionRecord
from asyncppo_runtime.rollout.engines.torch_engine import TorchEngine
from asyncppo_runtime.rollout.loader import Loader
from asyncppo_runtime.rollout.tally import Tally
from asyncppo_runtime.weights.errors import WeightsError, WeightsRefusedError, WeightsUnreachableError

IDS = [1, 5, 9, 4]


class Files:
    """A transport that has the files already, or fails as told."""

    def __init__(self) -> None:
        self.paths: dict[int, Path] = {}
        self.fails: WeightsError | None = None
        self.kept: set[int] = set()

    async def fetch(self, record: VersionRecord) -> Path:
        """The file."""
        if self.fails is not None:
            raise self.fails
        return self.paths[record.version]

    def keep(self, versions: set[int]) -> None:
        """Remember it."""
        self.kept = versions


async def loader_with(tmp_path: Path, versions: int) -> tuple[TorchEngine, Loader, Files, list[VersionRecord], Tally]:
    engine, files, tally = TorchEngine(job_spec()), Files(), Tally()
    await engine.start()
    records = []
    for version in range(versions):
        files.paths[version], record = write_version(tmp_path, model_of(job_spec(), version + 1), version)
        records.append(record)
    return engine, Loader(engine, files, tally), files, records, tally


async def test_a_canary_of_the_right_version_passes(tmp_path: Path) -> None:
    engine, loader, files, records, tally = await loader_with(tmp_path, 2)
    await loader.load(records[0], None)
    loaded = await loader.load(records[1], Canary(IDS, brute_force(model_of(job_spec(), 2), IDS), 1e-9))
    await engine.close()
    assert loaded.canary_error <= 1e-9
    assert loaded.weights_hash == records[1].published_hash == loader.weights_hash
    assert files.kept == {1}
    assert tally.loads == {"loaded": 2}


@pytest.mark.parametrize("wrong", [None, [0.0, 0.0, math.nan], [0.0]])
async def test_a_canary_that_differs_brings_the_old_version_back(tmp_path: Path, wrong: list[float] | None) -> None:
    engine, loader, _, records, tally = await loader_with(tmp_path, 2)
    await loader.load(records[0], None)
    exact = brute_force(model_of(job_spec(), 2), IDS)
    logprobs = (
        brute_force(model_of(job_spec(), 7), IDS)
        if wrong is None
        else [a + b for a, b in zip(exact, wrong, strict=False)]
    )
    with pytest.raises(RefusedError, match="CanaryFailed") as caught:
        await loader.load(records[1], Canary(IDS, logprobs, 1e-3))
    assert caught.value.status == 422
    assert engine.version == 0
    assert loader.weights_hash == records[0].published_hash
    served = await engine.prompt_logprobs(IDS)
    await engine.close()
    assert served == pytest.approx(brute_force(model_of(job_spec(), 1), IDS), abs=1e-9)
    assert tally.loads == {"loaded": 1, "rejected": 1}


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (WeightsRefusedError("wrong bytes"), 422, "WeightsRejected"),
        (WeightsUnreachableError("gone"), 503, "PullFailed"),
    ],
)
async def test_a_pull_that_fails_says_whether_to_ask_again(
    tmp_path: Path, error: WeightsError, status: int, reason: str
) -> None:
    engine, loader, files, records, _ = await loader_with(tmp_path, 2)
    await loader.load(records[0], None)
    files.fails = error
    with pytest.raises(RefusedError, match=reason) as caught:
        await loader.load(records[1], None)
    assert caught.value.status == status
    assert engine.version == 0
    await engine.close()
