"""The output folder of one run: what lies where, whose it is, and who may write in it.

Owns the layout, the lock, and the refusals that keep one job's data from another's. Does not own what the roles write there
(ledger.db, weights/, checkpoints/, metrics.jsonl and model/ are the learner's).
"""

import fcntl
import os
import re
import secrets
import tempfile
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from asyncppo.api.changes import changes_refused
from asyncppo.api.job import NAME_PATTERN, AsyncPPOJob
from asyncppo.api.manifest import dump_manifest, load_manifest
from asyncppo.api.problems import ManifestError
from asyncppo.errors import UserError, storage_remedy
from asyncppo.report.measures import Summary
from asyncppo.wire.tokens import Role, token_of

HOME_FILE = "home.txt"
"""In a run's folder: the manifest's folder, where a Custom environment is imported from."""
REMAINS = ("ledger.db", "ledger.db-wal", "checkpoints", "weights")
"""What a run cannot be without: where one of these lies, a run does."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run. Making one touches no disk."""

    root: Path

    @property
    def job_file(self) -> Path:
        """The manifest as the roles read it: overrides applied, paths absolute, uid filled in."""
        return self.root / "job.json"

    @property
    def token_file(self) -> Path:
        """The job's control token, mode 0600."""
        return self.root / "token"

    def member_token_file(self, name: str) -> Path:
        """A member's own token, made from the control token, mode 0600."""
        return self.root / "tokens" / name

    @property
    def learner_url_file(self) -> Path:
        """Written by the learner once it listens."""
        return self.root / "learner.url"

    @property
    def metrics_file(self) -> Path:
        """One UpdateMetrics per line, by the learner."""
        return self.root / "metrics.jsonl"

    @property
    def summary_file(self) -> Path:
        """The run's figures, written at the end."""
        return self.root / "summary.json"

    @property
    def picture_file(self) -> Path:
        """The run's picture, written at the end."""
        return self.root / "report.png"

    @property
    def choice_file(self) -> Path:
        """Which strategy Auto took for this run, and why; not there for any other strategy."""
        return self.root / "choice.txt"

    @property
    def model_directory(self) -> Path:
        """The trained model in Hugging Face format, exported by the learner at the end."""
        return self.root / "model"

    def log_file(self, role: str) -> Path:
        """What a role prints."""
        return self.root / "logs" / f"{role}.log"

    def rollout_directory(self, name: str) -> Path:
        """A rollout's own files (its outbox)."""
        return self.root / "rollouts" / name

    def old_logit_directory(self, name: str) -> Path:
        """An old-logit worker's own."""
        return self.root / "old-logits" / name


class FolderLock:
    """Held while a runner works in a folder; the kernel frees it when the runner dies, however it dies."""

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.root / ".lock"
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UserError(
                f"{self._path.parent}: cannot be written ({error.strerror}); {storage_remedy(error)}, or choose another --output"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise UserError(
                f"{self._path.parent}: another `asyncppo run` is working in this folder; "
                "wait for it, stop it, or choose another --output"
            ) from error
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write `content` so that a reader sees all of it or the file before it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(
            descriptor, "wb", buffering=0
        ) as file:  # no buffer that a full disk would leave to be written again
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def check(folder: RunFolder, job: AsyncPPOJob, resume: bool) -> AsyncPPOJob | None:
    """Whether `job` may run in `folder`; changes nothing.

    Returns the job that ran here before (when resuming), else None. Raises UserError that says what to do instead.
    """
    root = folder.root
    try:
        empty = _readable_and_empty(root)
        known = folder.job_file.exists()
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error.strerror}); choose another --output") from error
    if not known:
        if left := [name for name in REMAINS if (root / name).exists()]:
            raise UserError(
                f"{root}: this folder holds a run ({', '.join(left)}) whose {folder.job_file.name} is missing: put it back to go on with "
                "that run, or choose another --output"
            )
        if not empty:
            raise UserError(f"{root}: holds files that are not a run's; choose another --output, or empty it")
        if resume:
            raise UserError(f"{root}: holds no run to resume; leave out --resume to start one")
        return None
    before = _read_job(folder.job_file)
    # A name that is refused by now may be changed: the run could not be resumed under any.
    if before.metadata.name != job.metadata.name and re.fullmatch(NAME_PATTERN, before.metadata.name):
        raise UserError(
            f"{root}: holds the run of another job, `{before.metadata.name}` (this one is `{job.metadata.name}`); "
            "choose another --output"
        )
    refused = changes_refused(before.spec, job.spec)
    if refused:
        listing = "".join(f"\n  {problem}" for problem in refused)
        raise UserError(
            f"{root}: holds a run of `{job.metadata.name}` with other settings; choose another --output, "
            f"or put them back:{listing}"
        )
    phase = finished_phase(folder)
    grows = job.spec.algorithm.updates > before.spec.algorithm.updates
    if phase == "Complete" and not (resume and grows):
        raise UserError(
            f"{root}: this run is complete ({before.spec.algorithm.updates} updates): see `asyncppo show {root}`; "
            "choose another --output to run again, or --resume with more --updates to train on"
        )
    if not resume:
        raise UserError(
            f"{root}: holds an unfinished run of this job; add --resume to go on with it, or choose another --output"
        )
    return before


def claim(folder: RunFolder, job: AsyncPPOJob, before: AsyncPPOJob | None) -> AsyncPPOJob:
    """Write job.json and the token (kept when resuming), remove what an earlier end left. Returns the job with its uid.

    Raises UserError when the folder cannot be written.
    """
    uid = before.metadata.uid if before is not None else job.metadata.uid or str(uuid.uuid4())
    job = job.model_copy(update={"metadata": job.metadata.model_copy(update={"uid": uid}), "status": None})
    try:
        for directory in (folder.root / "logs", folder.root / "rollouts"):
            directory.mkdir(parents=True, exist_ok=True)
        if not folder.token_file.exists():
            write_atomically(folder.token_file, f"{secrets.token_urlsafe(32)}\n".encode(), mode=0o600)
        write_atomically(folder.job_file, dump_manifest(job).encode())
        for leftover in (folder.learner_url_file, folder.summary_file, folder.picture_file):
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder.root}: cannot be written ({error.strerror}); {storage_remedy(error)}, or choose another --output"
        ) from error
    return job


def write_member_tokens(folder: RunFolder, role: Role, names: Iterable[str]) -> None:
    """A token file for each member of a role. UserError when the folder cannot be written."""
    control = folder.token_file.read_text().strip()
    try:
        (folder.root / "tokens").mkdir(mode=0o700, exist_ok=True)
        for name in names:
            write_atomically(folder.member_token_file(name), f"{token_of(control, role, name)}\n".encode(), mode=0o600)
    except OSError as error:
        raise UserError(
            f"{folder.root}: cannot be written ({error.strerror}); {storage_remedy(error)}, or choose another --output"
        ) from error


def _readable_and_empty(root: Path) -> bool:
    """Whether nothing is there but a lock. OSError when that cannot be found out; UserError for a file."""
    if not root.exists():
        return True
    if not root.is_dir():
        raise UserError(f"{root}: is a file; --output names a folder")
    return all(child.name == ".lock" for child in root.iterdir())


def earlier(folder: RunFolder) -> AsyncPPOJob | None:
    """The job that ran here before, None in a new folder. Raises UserError."""
    try:
        known = folder.job_file.exists()
    except OSError as error:
        raise UserError(f"{folder.root}: cannot be read ({error.strerror}); choose another --output") from error
    return _read_job(folder.job_file) if known else None


def finished_phase(folder: RunFolder) -> str:
    """The phase that the last summary of this folder tells; "" without one."""
    try:
        return msgspec.json.decode(folder.summary_file.read_bytes(), type=Summary).phase
    except (FileNotFoundError, msgspec.DecodeError):
        return ""


def _read_job(path: Path) -> AsyncPPOJob:
    try:
        return load_manifest(path, lenient=True)
    except ManifestError as error:
        raise UserError(
            f"{path}: was written by another version of asyncppo, so the run cannot be resumed; choose another --output\n{error}"
        ) from error
