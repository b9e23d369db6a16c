"""What a run leaves: summary.json, report.png, and words on the screen.

Owns the files' making at the end and the closing lines. Does not own the figures (the learner) nor their drawing (`asyncppo.report`).
"""

from pathlib import Path

import msgspec
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from asyncppo.api.job import AsyncPPOJob
from asyncppo.errors import AsyncPPOError, storage_remedy
from asyncppo.local.folder import RunFolder, write_atomically
from asyncppo.local.outcome import Outcome
from asyncppo.printable import printable
from asyncppo.report.history import read_history
from asyncppo.report.measures import Summary
from asyncppo.report.picture import Reference, draw
from asyncppo.report.remarks import unlearnt
from asyncppo.report.summary import encode_summary, summarize
from asyncppo.report.wording import duration
from asyncppo.report.words import render_summary

ANNOTATION = "asyncppo.io/reward-reference"
"""An annotation such as `perfect play 0.763`: a line in the picture to read the reward against."""
STYLES = {"Complete": "bold green", "Failed": "bold red", "Stopped": "bold yellow"}


class ResultsError(AsyncPPOError):
    """A run has ended, but its results could not be written."""


def write_results(job: AsyncPPOJob, folder: RunFolder, outcome: Outcome) -> Summary:
    """Write summary.json and report.png; the summary. ResultsError when the disk does not take them."""
    summary = summarize(job, outcome.status, outcome.phase, outcome.message, outcome.rollout_time, outcome.restarts)
    try:
        if outcome.status is None and (earlier := read_history(folder.metrics_file)):
            # The learner never answered: what it did before is what there is.
            summary = msgspec.structs.replace(summary, updates=earlier[-1].update)
        if folder.choice_file.exists():
            summary = msgspec.structs.replace(summary, strategy_reason=folder.choice_file.read_text().strip())
        write_atomically(folder.picture_file, draw(summary, read_history(folder.metrics_file), reference(job)))
        # The last one: it is what says that the run has ended, and a run that was cut short before makes both anew.
        write_atomically(folder.summary_file, encode_summary(summary))
    except OSError as error:
        raise ResultsError(
            f"{folder.root}: the summary and the picture could not be written ({error.strerror}); {storage_remedy(error)}, then "
            f"resume: the ledger keeps what it has. The job is {outcome.phase.lower()}: {outcome.message}"
        ) from error
    return summary


def tell(console: Console, summary: Summary, folder: RunFolder, outcome: Outcome, again: str) -> None:
    """The closing words. again: the command that resumes this run."""
    head = Text.assemble((summary.job, "bold"), ": ", (outcome.phase.lower(), STYLES.get(outcome.phase, "bold")))
    if outcome.status is not None:
        head.append(f" · {summary.updates:,} updates in {duration(summary.wall_seconds)}")
    elif summary.updates:
        head.append(f" · before the learner answered; {summary.updates:,} updates are done")
    console.print()
    console.print(head)
    if outcome.phase != "Complete" and outcome.message:
        console.print(Text(printable(outcome.message)))
    if outcome.words:
        console.print(Text(f"the last words of {outcome.log_file}:", style="bright_black"))
        for line in outcome.words:
            console.print(Text(f"  | {line}"), soft_wrap=True)
    if summary.updates and outcome.status is not None:
        console.print(Padding(render_summary(summary), (1, 0, 1, 2)))
    for note in [*summary.notes, *([nothing] if (nothing := unlearnt(summary.learning)) else [])]:
        console.print(Text(f"Note: {note}", style="yellow"), soft_wrap=True)
    if summary.strategy_reason:
        console.print(Text(summary.strategy_reason), soft_wrap=True)
    console.print(_files(folder))
    if outcome.phase == "Complete":
        console.print(Text(f"To see what the agent does: asyncppo show {folder.root}"), soft_wrap=True)
    else:
        console.print(Text(f"To go on: {again}"), soft_wrap=True)


def _files(folder: RunFolder) -> Text:
    made = [
        path.name + ("/" if path.is_dir() else "")
        for path in (folder.picture_file, folder.summary_file, folder.metrics_file, folder.model_directory)
        if path.exists()
    ]
    return Text.assemble(f"In {_shown(folder.root)}: ", ", ".join(made))


def _shown(path: Path) -> str:
    return f"{path}/"


def reference(job: AsyncPPOJob) -> Reference | None:
    """The reward to compare with, when the manifest's annotation names one (its last word is the number)."""
    annotations = (job.metadata.model_extra or {}).get("annotations")
    words = annotations.get(ANNOTATION, "") if isinstance(annotations, dict) else ""
    label, _, number = str(words).rpartition(" ")
    try:
        return Reference(label or "reference", float(number))
    except ValueError:
        return None
