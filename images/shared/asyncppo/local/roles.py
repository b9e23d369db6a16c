"""What a local run starts: the job's roles as programs with their addresses. Pure but for asking the kernel for free ports.

Owns command lines and ports. Does not own when they run (`supervisor.py`).
"""

import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.training import EnvironmentType
from asyncppo.errors import UserError
from asyncppo.local.folder import RunFolder
from asyncppo.local.process import RoleProgram
from asyncppo.programs import IMPORTS_VARIABLE, MODULE

HOST = "127.0.0.1"
LEARNER = "learner"


@dataclass(frozen=True)
class Programs:
    """The argv prefix of each role program. resumption: what says beforehand whether a learner may go on in a folder; () asks nobody."""

    learner: Sequence[str] = (*MODULE, "asyncppo_runtime.learner")
    rollout: Sequence[str] = (*MODULE, "asyncppo_runtime.rollout")
    old_logit: Sequence[str] = (*MODULE, "asyncppo_runtime.old_logit")
    resumption: Sequence[str] = (*MODULE, "asyncppo_runtime.learner.resumption")


@dataclass(frozen=True)
class Addresses:
    """Where the roles listen, for the whole run: a restarted role is found where it was."""

    learner: int
    rollouts: Mapping[str, int] = field(default_factory=dict)
    old_logits: Mapping[str, int] = field(default_factory=dict)

    @property
    def learner_url(self) -> str:
        """Base URL of the learner."""
        return url(self.learner)

    def of(self, role: str) -> str:
        """Base URL of any role."""
        return url(self.learner if role == LEARNER else {**self.rollouts, **self.old_logits}[role])


def url(port: int) -> str:
    """Base URL of a port on this machine."""
    return f"http://{HOST}:{port}"


def rollout_names(job: AsyncPPOJob) -> list[str]:
    """rollout-0, rollout-1, … as the cluster's pods are called."""
    return [f"rollout-{index}" for index in range(job.spec.rollout.replicas)]


def old_logit_names(job: AsyncPPOJob) -> list[str]:
    """old-logit-0, … ; none unless the strategy has such workers."""
    return [f"old-logit-{index}" for index in range(job.spec.old_logit.replicas)]


def choose_addresses(job: AsyncPPOJob, port: int) -> Addresses:
    """Free ports on loopback; `port` is the learner's, 0 for any. Raises UserError when it is in use."""
    with ExitStack() as held:
        learner = held.enter_context(_bound(port))
        rollouts = {name: held.enter_context(_bound(0)) for name in rollout_names(job)}
        old_logits = {name: held.enter_context(_bound(0)) for name in old_logit_names(job)}
        return Addresses(learner.getsockname()[1], _ports(rollouts), _ports(old_logits))


def _ports(sockets: Mapping[str, socket.socket]) -> dict[str, int]:
    return {name: taken.getsockname()[1] for name, taken in sockets.items()}


def _bound(port: int) -> socket.socket:
    taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # As the role's server will do: a port in TIME_WAIT is free, one that is listened on is not.
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((HOST, port))
        # Two sockets of which none listens may share a port under SO_REUSEADDR; listening makes the check a true one.
        taken.listen(1)
    except (OSError, OverflowError) as error:
        taken.close()
        reason = "is not a port number (1 to 65535)" if isinstance(error, OverflowError) else f"cannot be had ({error})"
        raise UserError(
            f"--port {port} on {HOST} {reason}; choose another, or leave --port out to take any free one"
        ) from error
    return taken


def learner_program(
    folder: RunFolder, addresses: Addresses, programs: Programs, environment: Mapping[str, str]
) -> RoleProgram:
    """The learner's command line. The same for a start and a restart: a learner goes on from what its folder holds."""
    command = [
        *programs.learner,
        *("--job", str(folder.job_file)),
        *("--directory", str(folder.root)),
        *("--listen", f"{HOST}:{addresses.learner}"),
        *("--token-file", str(folder.token_file)),
    ]
    return RoleProgram(LEARNER, command, folder.log_file(LEARNER), environment)


def rollout_program(
    folder: RunFolder, addresses: Addresses, programs: Programs, environment: Mapping[str, str], name: str
) -> RoleProgram:
    """A rollout's command line."""
    return _worker(programs.rollout, folder, addresses, environment, name, folder.rollout_directory(name))


def old_logit_program(
    folder: RunFolder, addresses: Addresses, programs: Programs, environment: Mapping[str, str], name: str
) -> RoleProgram:
    """An old-logit worker's command line."""
    return _worker(programs.old_logit, folder, addresses, environment, name, folder.old_logit_directory(name))


def _worker(
    program: Sequence[str],
    folder: RunFolder,
    addresses: Addresses,
    environment: Mapping[str, str],
    name: str,
    directory: Path,
) -> RoleProgram:
    own = addresses.of(name)
    command = [
        *program,
        *("--job", str(folder.job_file)),
        *("--learner", addresses.learner_url),
        *("--listen", own.removeprefix("http://")),
        *("--advertise", own),
        *("--name", name),
        *("--token-file", str(folder.member_token_file(name))),
        *("--directory", str(directory)),
    ]
    return RoleProgram(name, command, folder.log_file(name), environment)


def role_environment(job: AsyncPPOJob, imports: Path) -> dict[str, str]:
    """Environment variables of every role: unbuffered logs, and where a Custom environment is imported from: beside the manifest."""
    variables = {"PYTHONUNBUFFERED": "1"}
    if job.spec.environment.type is EnvironmentType.CUSTOM:
        variables[IMPORTS_VARIABLE] = str(imports)
    return variables
