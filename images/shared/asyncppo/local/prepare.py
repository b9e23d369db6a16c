"""Everything that is checked before anything is started: the manifest's fit for one machine, the output folder, the port.

Owns those refusals, all of them UserError with nothing started and nothing changed. Does not own the manifest's own rules
(`asyncppo.api`) nor the folder's (`folder.py`).
"""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.manifest import dump_manifest, parse_manifest
from asyncppo.errors import UserError
from asyncppo.estimate.choice import reason, settled
from asyncppo.local.folder import (
    HOME_FILE,
    FolderLock,
    RunFolder,
    check,
    claim,
    earlier,
    write_atomically,
    write_member_tokens,
)
from asyncppo.local.roles import Programs, choose_addresses, old_logit_names, rollout_names
from asyncppo.local.runner import Coordinate, LocalRun, Patience
from asyncppo.wire.tokens import Role


@dataclass(frozen=True)
class Request:
    """What the user asked for. output: None means runs/<name>. port: the learner's; 0 takes any free one.

    home: the manifest's folder; a relative model path starts there, and Custom environments are imported from there.
    """

    job: AsyncPPOJob
    home: Path
    output: Path | None = None
    resume: bool = False
    port: int = 0
    programs: Programs = field(default_factory=Programs)
    patience: Patience = field(default_factory=Patience)


@contextlib.contextmanager
def prepared(request: Request, coordinate: Coordinate) -> Iterator[LocalRun]:
    """A run that may start; its folder is locked while the block runs. Raises UserError."""
    job = resolve_model(request.job, request.home)
    fit_for_one_machine(job)
    folder = RunFolder(Path(request.output) if request.output is not None else Path("runs") / job.metadata.name)
    ran = earlier(folder)
    why, job = reason(job, ran), settled(job, ran)
    check(folder, job, request.resume)
    addresses = choose_addresses(job, request.port)
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder.root}: cannot be made ({error.strerror}); choose another --output") from error
    with FolderLock(folder):
        before = check(folder, job, request.resume)  # again: another runner may have come in between
        if before is not None:
            ask_learner(folder, job, before.metadata.uid, request.programs)
        job = claim(folder, job, before)
        write_atomically(folder.root / HOME_FILE, f"{request.home.resolve()}\n".encode())
        write_member_tokens(folder, Role.ROLLOUT, rollout_names(job))
        write_member_tokens(folder, Role.OLD_LOGIT, old_logit_names(job))
        if why and not folder.choice_file.exists():
            write_atomically(folder.choice_file, f"{why}\n".encode())
        yield LocalRun(
            job=job,
            folder=folder,
            addresses=addresses,
            token=folder.token_file.read_text().strip(),
            imports=request.home.resolve(),
            programs=request.programs,
            coordinate=coordinate,
            patience=request.patience,
        )


def ask_learner(folder: RunFolder, job: AsyncPPOJob, uid: str, programs: Programs) -> None:
    """Whether the learner of `job`, as `uid`, would go on with what lies in the folder. Raises UserError with its reason; nothing is
    changed then.

    The learner asks the same when it starts; here it is asked before job.json is written and old results are removed.
    """
    if not programs.resumption:
        return
    command = [*programs.resumption, str(folder.root), "--job-uid", uid]
    if job.spec.learner.adopt_storage:
        command.append("--adopt")
    asked = subprocess.run(command, capture_output=True, check=False)
    if asked.returncode != 0:
        words = asked.stderr.decode(errors="replace").strip()
        raise UserError(words or f"{folder.root}: the learner's check of it ended with {asked.returncode}")


def fit_for_one_machine(job: AsyncPPOJob) -> None:
    """Raises UserError for a job that could never go on here."""
    if job.spec.suspend:
        raise UserError("spec.suspend: the job is suspended; set it to false to run it")
    if job.spec.rollout.replicas < 1:
        raise UserError("spec.rollout.replicas: 0 leaves nobody to sample; a local run needs at least 1")


def resolve_model(job: AsyncPPOJob, home: Path) -> AsyncPPOJob:
    """The job with a model path made absolute; a Hugging Face id stays. Raises UserError for a path that does not exist."""
    named = job.spec.model.pretrained
    if named is None:
        return job
    path = home / Path(named).expanduser()
    if path.exists():
        return with_spec(job, {"model": {"pretrained": str(path.resolve())}}, named)
    if looks_like_a_path(named):
        raise UserError(
            f"spec.model.pretrained: {named} does not exist (looked for {path.absolute()}); "
            "name a folder or .gguf file, or a Hugging Face id such as owner/name"
        )
    return job


def looks_like_a_path(named: str) -> bool:
    """A Hugging Face id is `name` or `owner/name`; whatever cannot be one was meant as a path."""
    return named.startswith(("/", ".", "~")) or named.endswith(("/", ".gguf")) or named.count("/") > 1


def with_spec(job: AsyncPPOJob, changes: dict[str, Any], where: str) -> AsyncPPOJob:
    """The job with some fields (by their manifest names, nested) set; every rule is asked again. Raises ManifestError."""
    document = json.loads(dump_manifest(job))
    _merge(document["spec"], changes)
    return parse_manifest(document, where)


def _merge(into: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value
