"""What worker programs are told on their command lines and check alike: the token's file, the address to listen on.

Owns these two checks and their words. Does not own the parsers, which each program has for itself.
"""

from pathlib import Path

from asyncppo.errors import UserError


def read_token(file: Path) -> str:
    """The job's token. UserError when the file cannot be read or is empty."""
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--token-file {file}: cannot be read ({error}); mount the job's token there") from error
    if not token:
        raise UserError(f"--token-file {file}: is empty; it must hold the job's token")
    return token


METRICS_HELP = "a port of its own for /metrics, which the other then lacks (default: on --listen)"


def parse_metrics(listen: str) -> tuple[str, int] | None:
    """Host and port of --metrics-listen; None when it is not given. UserError for anything else."""
    if not listen:
        return None
    try:
        return parse_address(listen)
    except UserError as error:
        raise UserError(f"--metrics-listen {listen}: give HOST:PORT, e.g. 0.0.0.0:8081") from error


def parse_address(listen: str) -> tuple[str, int]:
    """Host and port of HOST:PORT. UserError for anything else."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UserError(f"--listen {listen}: give HOST:PORT, e.g. 0.0.0.0:8000")
    return host.strip("[]"), int(port)
