"""`asyncppo estimate MANIFEST`: what each old-logits strategy would cost this job, before anything is started.

Owns the options and the order of what is printed. Does not own the model (`asyncppo.estimate`) nor measuring (the runtime's
`calibrate` program, in a process of its own).
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from asyncppo.cli.command import Subparsers
from asyncppo.cli.exit_codes import ExitCode
from asyncppo.errors import AsyncPPOError, UserError

DESCRIPTION = """
What each strategy would cost: seconds of an update, stall, extra forwards, bytes of versions kept, further devices. Speeds are assumed
from the devices the manifest asks for, measured here with --calibrate, or read from a file of measured ones.
"""
CALIBRATE = (sys.executable, "-m", "asyncppo_runtime.calibrate")


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser("estimate", help="what each strategy would cost", description=DESCRIPTION)
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="a YAML or JSON file")
    parser.add_argument(
        "--sweep", metavar="FIELD=a,b,c", help="a field of spec and its values: staleness.maxVersions=1,2,4"
    )
    parser.add_argument("--calibrate", action="store_true", help="measure the speeds here, with the manifest's model")
    parser.add_argument(
        "--speeds", metavar="FILE", type=Path, help="measured speeds: read, or with --calibrate written"
    )
    parser.add_argument("--parameters", metavar="N", type=_number, help="parameters of the model, such as 4e9")
    parser.add_argument(
        "--tokens", metavar="N", type=_number, help="mean tokens of a trajectory (default: half the context)"
    )
    parser.add_argument(
        "--tool-seconds", metavar="S", type=_seconds, default=0.0, help="an episode waits for its tools"
    )
    parser.add_argument("--picture", metavar="FILE", type=Path, help="draw it into this PNG file")
    parser.add_argument("-o", dest="form", choices=("table", "json"), default="table", help="how it is printed")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the estimate. Raises UserError for bad input."""
    import msgspec

    from asyncppo.api.implemented import not_built
    from asyncppo.api.manifest import load_manifest
    from asyncppo.api.sweep import parse_sweep, with_fields
    from asyncppo.estimate.choice import choose
    from asyncppo.estimate.costs import estimate
    from asyncppo.estimate.speeds import Speeds, assumed, read_speeds
    from asyncppo.estimate.words import assumptions, table
    from asyncppo.estimate.workload import Known, workload

    job = load_manifest(arguments.manifest, lenient=True)
    sweep = parse_sweep(arguments.sweep) if arguments.sweep is not None else None
    known = Known(arguments.parameters, arguments.tokens, arguments.tool_seconds)
    measured: Speeds | None = None
    if arguments.calibrate:
        measured = msgspec.json.decode(_calibrated(arguments.manifest), type=Speeds)
        if arguments.speeds is not None:
            _write(arguments.speeds, msgspec.json.format(msgspec.json.encode(measured), indent=1) + b"\n")
    elif arguments.speeds is not None:
        measured = read_speeds(arguments.speeds)
    if sweep is None:
        jobs: list[tuple[Any, Any]] = [(None, job)]
    else:
        jobs = [
            (v, with_fields(job, {sweep.path: v}, f"{arguments.manifest} with {sweep.path} {v}", lenient=True))
            for v in sweep.values
        ]
    found, blocks, plain = [], [], []
    for value, each in jobs:
        load = workload(each.spec, known)
        speeds = measured or assumed(load)
        costs, choice = estimate(load, speeds), choose(each.spec)
        found.append((value, costs))
        missing = [str(problem) for problem in not_built(each.spec.model_dump(mode="json", by_alias=True))]
        head = [f"{sweep.path} = {value}"] if sweep is not None else []
        tail = ["", "This job does not run yet:", *(f"  {problem}" for problem in missing)] if missing else []
        blocks.append(
            "\n".join(
                [*head, assumptions(load, speeds), "", table(costs), "", f"strategy Auto: {choice.reason}.", *tail]
            )
        )
        plain.append(
            {
                "value": value,
                "workload": load,
                "speeds": speeds,
                "estimates": costs,
                "auto": choice,
                "notImplemented": missing,
            }
        )
    if arguments.picture is not None:
        from asyncppo.cli.run import require
        from asyncppo.estimate.picture import draw

        require("estimate --picture", ("matplotlib",), "local")
        _write(arguments.picture, draw(job.metadata.name, found, sweep.path if sweep is not None else ""))
    if arguments.form == "json":
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(plain), indent=1).decode() + "\n")
    else:
        print("\n\n".join(blocks))
    return ExitCode.DONE


def _calibrated(manifest: Path) -> bytes:
    from asyncppo.cli.run import require

    require("estimate --calibrate", ("torch", "transformers"), "runtime")
    ended = subprocess.run([*CALIBRATE, str(manifest)], capture_output=True, check=False)
    words = ended.stderr.decode(errors="replace").strip()
    if ended.returncode == ExitCode.BAD_INPUT:
        raise UserError(words)
    if ended.returncode:
        raise AsyncPPOError(f"measuring ended with {ended.returncode}: {words}")
    return ended.stdout


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another file") from error


def _number(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError("must not be negative")
    return number
