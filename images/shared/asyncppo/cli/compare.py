"""`asyncppo compare MANIFEST --strategies A,B,…`: the same job under several old-logits strategies, and what differs.

Owns the options and the order of what is printed. Does not own the cells, their training nor the figures (`asyncppo.study`).
"""

import argparse
import sys
from pathlib import Path

from asyncppo.cli.command import Subparsers
from asyncppo.cli.exit_codes import ExitCode
from asyncppo.errors import UserError

DESCRIPTION = """
Train the job once for each strategy, seed and value of the swept field, and compare: reward, cost, and what an approximate strategy
decides otherwise than an exact one. In mode virtual (default) one process trains on a schedule drawn from the seed, the same for every
strategy; in mode wall each cell is an `asyncppo run`. Finished cells are kept: the same command again goes on where it stopped.
"""


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "compare", help="train a job under several strategies and compare", description=DESCRIPTION
    )
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="a YAML or JSON file")
    parser.add_argument(
        "--strategies",
        metavar="A,B,…",
        required=True,
        help="two or more, the first is compared with the others; variants: Interruption/Overlapped, Snapshot/Memory",
    )
    parser.add_argument("--seeds", metavar="N", type=_positive, default=3, help="seeds from spec.seed on (default: 3)")
    parser.add_argument(
        "--sweep", metavar="FIELD=a,b,c", help="a field of spec and its values: staleness.maxVersions=1,2,4"
    )
    parser.add_argument("--updates", metavar="N", type=_positive, help="instead of spec.algorithm.updates")
    parser.add_argument(
        "--mode", choices=("virtual", "wall"), default="virtual", help="schedule from the seed, or real runs"
    )
    parser.add_argument("--output", metavar="DIR", type=Path, help="folder of the study (default: studies/NAME)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train what is missing, then tell. Raises UserError when something could not be begun."""
    from asyncppo.api.manifest import load_manifest
    from asyncppo.api.sweep import parse_sweep, with_fields
    from asyncppo.cli.run import require_extras
    from asyncppo.local.folder import write_atomically
    from asyncppo.local.prepare import resolve_model
    from asyncppo.report.wording import duration
    from asyncppo.study.cells import parse_strategies, plan
    from asyncppo.study.driver import Mode, Study, complete, prepare
    from asyncppo.study.picture import draw
    from asyncppo.study.statistics import rows
    from asyncppo.study.words import legend, table

    contenders = parse_strategies(arguments.strategies)
    sweep = parse_sweep(arguments.sweep) if arguments.sweep is not None else None
    job = resolve_model(load_manifest(arguments.manifest), arguments.manifest.parent)
    if arguments.updates is not None:
        job = with_fields(job, {"algorithm.updates": arguments.updates}, f"{arguments.manifest} with --updates")
    cells = plan(job, contenders, arguments.seeds, sweep, str(arguments.manifest))
    require_extras("compare")
    study = Study(arguments.output or Path("studies") / job.metadata.name, cells, Mode(arguments.mode))
    if study.folder.exists() and not study.folder.is_dir():
        raise UserError(f"{study.folder}: is a file; --output names a folder")
    left = len(study.missing())
    prepare(study)
    print(f"{len(cells)} cells, {left} to train, in {study.folder}/", flush=True)

    def told(name: str) -> None:
        print(f"  {name} done, {len(study.missing())} left", flush=True)

    complete(study, lambda seconds: print(f"time budget: about {duration(seconds)}", flush=True), told)
    labels = [contender.label for contender in contenders]
    found = rows(study.results(), labels, sweep.values if sweep is not None else (None,))
    swept = sweep.path if sweep is not None else ""
    text = f"{table(found, swept)}\n\n{legend(found, labels[0])}\n"
    write_atomically(study.folder / "study.txt", text.encode())
    write_atomically(study.folder / "study.png", draw(job.metadata.name, found, swept))
    sys.stdout.write(f"\n{text}\nIn {study.folder}/: study.txt, study.png, cells/ (every cell's figures as JSON)\n")
    return ExitCode.DONE


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
