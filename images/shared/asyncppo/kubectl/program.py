"""The command line of `kubectl asyncppo`: status, watch, logs, plot, validate.

Owns how a user's words become calls. Exit 0: done, and with `status NAME` healthy. 1: `status NAME` found something wrong. 2: bad
input, or kubectl said no.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from asyncppo.api.manifest import load_manifest
from asyncppo.cli.validate import verdict
from asyncppo.errors import UserError
from asyncppo.kubectl import words
from asyncppo.kubectl.cluster import LABEL_JOB, LABEL_ROLE, Cluster
from asyncppo.kubectl.diagnosis import Diagnosis, diagnose
from asyncppo.printable import printable, tolerate
from asyncppo.report.measures import UpdateMetrics

DONE, UNWELL, BAD = 0, 1, 2
METRICS_FILE = "/var/lib/asyncppo/metrics.jsonl"
ROLES = ("learner", "rollout", "old-logit")
EVENTS = 8
CLEAR = "\x1b[2J\x1b[H"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    tolerate(sys.stdout, sys.stderr)
    options = _parser().parse_args(arguments)
    cluster = Cluster(options.namespace, options.context)
    try:
        result: int = options.run(cluster, options)
        return result
    except UserError as error:
        sys.stderr.write(f"{printable(str(error))}\n")
        return BAD
    except KeyboardInterrupt:
        return DONE


def status(cluster: Cluster, options: argparse.Namespace) -> int:
    """One job in full, or all in a line each."""
    if not options.name:
        jobs = cluster.jobs()
        if options.output == "json":
            _print_json([diagnose(job, {}, []) for job in jobs])
        else:
            print(words.table(jobs) if jobs else "no jobs here")
        return DONE
    job, diagnosis = _look(cluster, options.name)
    if options.output == "json":
        _print_json(diagnosis)
    else:
        print(words.status(job, diagnosis, cluster.events(job["metadata"]["uid"])[-EVENTS:]))
    return DONE if diagnosis.healthy else UNWELL


def watch(cluster: Cluster, options: argparse.Namespace) -> int:
    """The status again and again, until the job is over."""
    while True:
        job, diagnosis = _look(cluster, options.name)
        if options.output == "json":
            _print_json(diagnosis)
        else:
            screen = CLEAR if sys.stdout.isatty() else ""
            print(screen + words.status(job, diagnosis), flush=True)
        if diagnosis.phase in ("Complete", "Failed"):
            return DONE if diagnosis.phase == "Complete" else UNWELL
        time.sleep(options.interval)


def logs(cluster: Cluster, options: argparse.Namespace) -> int:
    """Logs of all pods of a job, or of one role, each line with its pod."""
    selector = f"{LABEL_JOB}={options.name}"
    if options.role:
        selector += f",{LABEL_ROLE}={options.role}"
    arguments = [
        "logs",
        "-l",
        selector,
        "--prefix",
        "--all-containers",
        f"--tail={options.tail}",
        "--max-log-requests=64",
    ]
    arguments += ["--follow"] if options.follow else []
    arguments += ["--previous"] if options.previous else []
    return cluster.follow(*arguments)


def plot(cluster: Cluster, options: argparse.Namespace) -> int:
    """Curves of the updates so far, from the learner's own record."""
    job = cluster.job(options.name)
    learner = _learner(cluster.pods(options.name))
    if learner is None:
        phase = (job.get("status") or {}).get("phase") or "unseen"
        raise UserError(
            f"{options.name} is {phase} and has no learner pod to ask; its record lies on the volume "
            f"{options.name}-learner-data as metrics.jsonl"
        )
    text = cluster.read_file(learner, METRICS_FILE)
    if options.output == "json":
        sys.stdout.write(text)
        return DONE
    print(words.plot([msgspec.json.decode(line, type=UpdateMetrics) for line in text.splitlines() if line]))
    return DONE


def validate(cluster: Cluster, options: argparse.Namespace) -> int:
    """The manifest as the operator will see it, then as the API server does."""
    job = load_manifest(options.manifest)
    said = cluster.server_check(str(options.manifest))
    if options.output == "json":
        _print_json({"valid": True, "name": job.metadata.name, "server": said})
        return DONE
    print(verdict(job, str(options.manifest)))
    print(f"\nthe API server would take it: {said}")
    return DONE


def _look(cluster: Cluster, name: str) -> tuple[dict[str, Any], Diagnosis]:
    job = cluster.job(name)
    pods = cluster.pods(name) if (job.get("status") or {}).get("phase") == "Running" else []
    learner = _learner(pods)
    rollouts = [pod for pod in pods if pod["metadata"]["labels"].get(LABEL_ROLE) == "rollout"]
    samples = cluster.metrics(learner) if learner is not None else {}
    return job, diagnose(job, samples, [cluster.metrics(pod) for pod in rollouts[:4]])


def _learner(pods: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next((pod for pod in pods if pod["metadata"]["labels"].get(LABEL_ROLE) == "learner"), None)


def _print_json(content: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(content), indent=2).decode())


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-n", "--namespace", default="", help="default: the context's")
    common.add_argument("--context", default="", help="of kubectl's configuration; default: the current one")
    common.add_argument("-o", "--output", choices=["text", "json"], default="text")
    parser = argparse.ArgumentParser(
        "kubectl asyncppo", description="AsyncPPOJobs: how they are, and why they are slow."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, parents=[common])
        made.set_defaults(run=run)
        return made

    command("status", status, "is it healthy, why is it slow").add_argument("name", nargs="?", help="default: all jobs")
    watching = command("watch", watch, "the status again and again, until the job is over")
    watching.add_argument("name")
    watching.add_argument("--interval", type=float, default=2.0, help="seconds")
    logging = command("logs", logs, "logs of all pods of a job")
    logging.add_argument("name")
    logging.add_argument("--role", choices=ROLES)
    logging.add_argument("-f", "--follow", action="store_true")
    logging.add_argument("-p", "--previous", action="store_true", help="of the containers before the last restart")
    logging.add_argument("--tail", type=int, default=100, help="lines of each; -1: all")
    command("plot", plot, "curves of a running job").add_argument("name")
    checking = command("validate", validate, "check a manifest here and on the API server")
    checking.add_argument("manifest", type=Path)
    return parser


if __name__ == "__main__":
    sys.exit(main())
