"""Many runs under faults at once: the zygote's life, a folder per run, and the verdict on each. Owns those; `drive.py` owns one run."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tests.faults.audit import Audit, audit
from tests.faults.drive import Drive, Driven, through_zygote

from asyncppo.api.correction import Strategy
from asyncppo.api.job import AsyncPPOJob

ROOT = Path(__file__).parents[2]
LONGEST_RUN = 240.0
LARGEST_DISCREPANCY = 1e-3
"""Nats, |old - behavior| of a trained token that has the label of its version: engine and learner both compute in Float32."""


@dataclass(frozen=True)
class Case:
    """name: also of its folder. victims: see Drive. must_meet: whether a fault that did not happen is a failure. resume: go on in the
    folder that a case of this name has left. blows, seconds: see Drive."""

    name: str
    job: dict[str, object]
    plan: str
    victims: dict[int, tuple[str, str]]
    must_meet: bool = True
    resume: bool = False
    blows: tuple[tuple[float, str, str], ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """problems: empty when everything that must hold does. audit: None when the run left no ledger to read."""

    case: Case
    driven: Driven | None
    audit: Audit | None
    problems: tuple[str, ...]


class Fleet:
    """Runs cases. Use as a context manager; nothing it started outlives it."""

    def __init__(self, folder: Path, at_once: int, longest: float = LONGEST_RUN) -> None:
        self._longest = longest
        self._folder = folder
        self._socket = folder / "zygote"
        self._pool = ThreadPoolExecutor(at_once)
        self._zygote: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Fleet":
        self._folder.mkdir(parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote", str(self._socket)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._zygote.stdout is not None
        if self._zygote.stdout.readline() != "ready\n":
            raise RuntimeError("the zygote did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._zygote is not None:
            self._zygote.terminate()  # what it has started dies with it
            self._zygote.wait()
            assert self._zygote.stdout is not None
            self._zygote.stdout.close()

    def submit(self, case: Case) -> "Future[Verdict]":
        """Run it when there is room."""
        return self._pool.submit(self._run, case)

    def all(self, cases: Iterable[Case]) -> Iterator[Verdict]:
        """Run them; verdicts as they come."""
        futures = [self.submit(case) for case in cases]
        for future in futures:
            yield future.result()

    def home(self, case: Case) -> Path:
        """Where a case's run is, in `run`."""
        return self._folder / case.name

    def passed(self, case: Case) -> Verdict | None:
        """What the case came to when it was last run in this folder; None when it was not, or something was wrong."""
        if not (self.home(case) / "request.result.json").exists():
            return None
        verdict = _verdict(case, self.home(case))
        return verdict if verdict.audit is not None and not verdict.problems else None

    def _run(self, case: Case) -> Verdict:
        home = self.home(case)
        if not case.resume:
            shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True, exist_ok=True)
        request = home / "request.json"
        request.with_suffix(".result.json").unlink(missing_ok=True)
        drive = Drive(
            str(home / "run"),
            str(self._socket),
            case.job,
            case.plan,
            case.victims,
            case.resume,
            case.blows,
            case.seconds,
        )
        request.write_bytes(msgspec.json.encode(drive))
        with (home / "driver.log").open("wb") as log:
            process = subprocess.Popen(
                [*through_zygote(str(self._socket), "tests.faults.drive"), str(request)],
                cwd=ROOT, stdout=log, stderr=log,
            )  # fmt: skip
            try:
                process.wait(self._longest)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        verdict = _verdict(case, home)
        if not verdict.problems:
            for heavy in ("weights", "checkpoints", "model", "rollouts"):
                shutil.rmtree(home / "run" / heavy, ignore_errors=True)
        return verdict


def _verdict(case: Case, home: Path) -> Verdict:
    result = home / "request.result.json"
    if not result.exists():
        said = (home / "driver.log").read_text(errors="replace")[-2000:]
        return Verdict(case, None, None, (f"no result: {said}",))
    driven = msgspec.json.decode(result.read_bytes(), type=Driven)
    found = None
    problems = []
    strategy = AsyncPPOJob.model_validate(case.job).spec.old_logits.strategy
    with contextlib.suppress(FileNotFoundError):
        found = audit(home / "run" / "ledger.db", strategy)
        problems += judge(found, driven, strategy)
    if driven.phase != ("Stopped" if case.seconds else "Complete"):
        problems.append(f"{driven.phase}: {driven.message} {driven.words[-3:]}")
    if driven.missed and case.must_meet:
        problems.append(f"did not happen: {', '.join(driven.missed)}")
    return Verdict(case, driven, found, tuple(problems))


def judge(found: Audit, driven: Driven, strategy: Strategy) -> list[str]:
    """What is wrong with a run of `strategy` that has come to its end. An approximation must say that it is one; how far it is off is
    its own affair."""
    problems = []
    said, coverage = driven.old_logits, 1.0 if strategy.exact else 0.0
    for what, count in (("lost", found.lost), ("mislabelled", found.mislabelled), ("trained twice", found.twice)):
        if count:
            problems.append(f"{count} {what}")
    if found.uncovered:
        problems.append(f"{found.uncovered} trained tokens without the old log-prob that {strategy} promises")
    if found.drift:
        problems.append(found.drift)
    if said.violations or (driven.updates and said.exact_coverage != coverage):
        problems.append(f"coverage {said.exact_coverage}, {said.violations} violations")
    if driven.updates and (said.strategy, said.exact) != (strategy, strategy.exact):
        problems.append(f"{strategy} says it is {said.strategy}, exact: {said.exact}")
    if strategy.exact and driven.discrepancy > LARGEST_DISCREPANCY:
        problems.append(f"a trained token's old and behavior log-probs differ by {driven.discrepancy:.3g}")
    return problems
