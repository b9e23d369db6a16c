"""Whether a learner may go on in its folder: what the ledger knows against what lies beside it. Writes nothing, deletes nothing.

Owns that comparison and the refusal, which names what was found and says what can be done. Does not own the ledger's own soundness
(`asyncppo_runtime.ledger`) nor the restoring (`publication.py`).

A version's files are written before its row, so a crash may leave the files of one version more than the ledger has. Anything newer
than that was written by a run that went on further than this ledger: the ledger is an older one, or its log was lost.

`python -m asyncppo_runtime.learner.resumption DIRECTORY --job-uid UID` asks the same beforehand: exit code 0 yes, 2 no, with the
reason on stderr.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from asyncppo_runtime.learner.layout import (
    CHECKPOINTS,
    LEDGER,
    METRICS,
    MODEL,
    SNAPSHOTS,
    WEIGHTS,
    checkpoint_path,
    checkpoint_version,
)
from asyncppo_runtime.ledger.errors import LedgerUnusableError
from asyncppo_runtime.ledger.page_sums import log_path, sums_path
from asyncppo_runtime.ledger.standing import Standing, standing
from asyncppo_runtime.weights.files import file_name, version_of

YES, NO = 0, 2
LONGEST_LINE = 1 << 20
ANOTHER = "or leave this folder as it is and start the job anew in another one (--output, or another volume)"


class _Line(msgspec.Struct):
    """Of a line of metrics.jsonl, what is needed here."""

    version: int


def refuse_unknown(directory: Path, job_uid: str, *, adopt: bool = False) -> None:
    """Raises LedgerUnusableError when going on here would start over or go back unasked, or on another job's ledger (unless `adopt`:
    it is to be taken over). A folder without a run is fine."""
    path, found = directory / LEDGER, versions_found(directory)
    if path.exists():
        known = standing(path)
        if known.job_uid != job_uid and not adopt:
            raise LedgerUnusableError(
                f"{path} holds the run of another job (uid {known.job_uid}, this one is {job_uid}). Nothing was changed. "
                "Choose another folder, or go on with that run by learner.adoptStorage: true"
            )
        _refuse_older(path, known, found)
        _refuse_without_checkpoint(directory, known)
        return
    log, sums = log_path(path), sums_path(path)
    left = [name for name, versions in found.items() if versions]
    left += [beside.name for beside in (log, sums, directory / MODEL) if beside.exists()]
    if left:
        raise LedgerUnusableError(
            f"{path} is missing, but this folder holds what a run has left: {_in_words(directory, found, left)}. Nothing was changed. "
            f"Put the ledger back, with {log.name} and {sums.name} if they were there; or move all of that out of the folder to start "
            f"at update 0; {ANOTHER}"
        )


def versions_found(directory: Path) -> Mapping[str, frozenset[int]]:
    """Versions by the place that speaks of them: whole checkpoints and weights files by name, lines of metrics.jsonl."""
    return {
        CHECKPOINTS: _named(directory / CHECKPOINTS, checkpoint_version),
        WEIGHTS: _named(directory / WEIGHTS, version_of),
        SNAPSHOTS: _named(directory / SNAPSHOTS, version_of),
        METRICS: frozenset(_measured(directory / METRICS)),
    }


def _refuse_older(path: Path, known: Standing, found: Mapping[str, frozenset[int]]) -> None:
    newer = {
        # A line of metrics follows its version's row; files come before it, and those of one version may be a crash's.
        name: frozenset(version for version in versions if version > known.newest + (name != METRICS))
        for name, versions in found.items()
    }
    if not any(newer.values()):
        return
    newest = f"its newest version is {known.newest}" if known.newest >= 0 else "it has no version yet"
    left = [name for name, versions in newer.items() if versions]
    raise LedgerUnusableError(
        f"{path} is older than what lies beside it: {newest}, but there is {_in_words(path.parent, newer, left)}. Nothing was changed. "
        f"Put back the newer ledger with its log ({log_path(path).name}); or, to go on from version {max(known.newest, 0)} and lose what "
        f"came after, move these newer files out of the folder; {ANOTHER}"
    )


def _refuse_without_checkpoint(directory: Path, known: Standing) -> None:
    root = directory / CHECKPOINTS
    if known.versions and not any(checkpoint_path(root, version).is_dir() for version in known.checkpoints):
        wanted = ", ".join(str(version) for version in sorted(known.checkpoints)) or "none"
        raise LedgerUnusableError(
            f"none of the checkpoints in the ledger is left in {root} (it knows those of versions {wanted}). Nothing was changed. "
            f"Put one back; {ANOTHER}"
        )


def _named(folder: Path, version_in: Callable[[str], int | None]) -> frozenset[int]:
    if not folder.is_dir():
        return frozenset()
    return frozenset(version for path in folder.iterdir() if (version := version_in(path.name)) is not None)


def _measured(path: Path) -> Iterable[int]:
    """Versions that metrics.jsonl has lines of. It is made anew from the ledger at every start, so a line cut short is no matter."""
    try:
        with path.open("rb") as file:
            while line := file.readline(LONGEST_LINE):
                try:
                    yield msgspec.json.decode(line, type=_Line).version
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue
    except FileNotFoundError:
        return


def _in_words(directory: Path, found: Mapping[str, frozenset[int]], left: Iterable[str]) -> str:
    words = []
    for name in left:
        versions = sorted(found.get(name, ()))
        if not versions:
            words.append(f"{name}/" if (directory / name).is_dir() else name)
        elif name == METRICS:
            words.append(f"{METRICS} up to version {versions[-1]}")
        else:
            shown = [checkpoint_path(Path(), v).name if name == CHECKPOINTS else file_name(v) for v in versions]
            some = shown if len(shown) <= 4 else [*shown[:2], "…", shown[-1]]
            words.append(f"{name}/ with {', '.join(some)}")
    return "; ".join(words)


def main(argv: list[str] | None = None) -> int:
    """Ask from outside, before anything is started."""
    parser = argparse.ArgumentParser("python -m asyncppo_runtime.learner.resumption", description=__doc__)
    parser.add_argument("directory", type=Path, help="the learner's folder")
    parser.add_argument("--job-uid", required=True, help="whose run it must be")
    parser.add_argument(
        "--adopt", action="store_true", help="another job's run is to be taken over (learner.adoptStorage)"
    )
    options = parser.parse_args(argv)
    try:
        refuse_unknown(options.directory, options.job_uid, adopt=options.adopt)
    except (LedgerUnusableError, OSError) as error:
        print(error, file=sys.stderr)
        return NO
    return YES


if __name__ == "__main__":
    sys.exit(main())
