"""Who calls, and how that is shown: one secret for each role of a job, one for each member, all derived from one.

    install key ──(job's uid)──> control token ──(role)──> role key ──(member's name)──> the member's own token

HMAC-SHA256 at each arrow, so that nobody comes back up one: whoever has a member's token is that member and nothing else; whoever has a
role key can be every member of the role; whoever has the control token can be anybody in the job.

`python -m asyncppo.wire.tokens` makes a member's own token from its role's key: an init container runs it, so that the container that
runs environment code never sees the key.

Owns the derivation and the form of what is shown. Does not own which route is whose (`routes.py`).
"""

import argparse
import base64
import hashlib
import hmac
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from asyncppo.errors import UserError
from asyncppo.wire.arguments import read_token


class Role(StrEnum):
    """Who a caller is: control (operator, coordinator, local runner), or a member of one of the roles."""

    CONTROL = "control"
    ROLLOUT = "rollout"
    OLD_LOGIT = "old-logit"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a token belongs to. name: of the member; "" for control."""

    role: Role
    name: str = ""


Identify = Callable[[str], Caller | None]
"""Whose a token is; None: nobody's."""


def derive(key: str, *purpose: str) -> str:
    """HMAC-SHA256 of `purpose` under `key`: 43 characters that are safe in URLs, headers and files. ValueError for an empty key."""
    if not key:
        raise ValueError("an empty key would make tokens that anybody can make")
    parts = [part.encode() for part in purpose]
    message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return base64.urlsafe_b64encode(hmac.digest(key.encode(), message, hashlib.sha256)).rstrip(b"=").decode()


def control_token(install_key: str, job_uid: str) -> str:
    """A job's control token."""
    return derive(install_key, "job", job_uid)


@lru_cache(maxsize=64)
def role_key(control: str, role: Role) -> str:
    """The key from which the tokens of a role's members are made."""
    return derive(control, "role", role.value)


def member_token(key: str, role: Role, name: str) -> str:
    """What a member shows: ROLE.NAME.MAC. key: of its role."""
    return f"{role.value}.{name}.{derive(key, 'member', name)}"


@lru_cache(maxsize=8192)
def token_of(control: str, role: Role, name: str) -> str:
    """A member's token, made from the control token."""
    return member_token(role_key(control, role), role, name)


def identify(control: str) -> Identify:
    """What a learner with this control token makes of a token that is shown to it. ValueError for an empty one."""
    if not control:
        raise ValueError("an empty token would let everybody in")

    def whose(shown: str) -> Caller | None:
        if _equal(shown, control):
            return Caller(Role.CONTROL)
        role, _, rest = shown.partition(".")
        name = rest.rpartition(".")[0]
        if role not in (Role.ROLLOUT, Role.OLD_LOGIT) or not 0 < len(name) <= 253:
            return None
        return Caller(Role(role), name) if _equal(shown, token_of(control, Role(role), name)) else None

    return whose


def only(token: str) -> Identify:
    """What a worker makes of a token that is shown to it: who shows it the worker's own speaks for the learner. ValueError for an empty
    one."""
    if not token:
        raise ValueError("an empty token would let everybody in")
    return lambda shown: Caller(Role.CONTROL) if _equal(shown, token) else None


def _equal(shown: str, expected: str) -> bool:
    """In constant time. Bytes that are no UTF-8 came in as surrogates and go out as the bytes they were."""
    return hmac.compare_digest(shown.encode(errors="surrogateescape"), expected.encode())


def write_secret(path: Path, token: str, mode: int) -> None:
    """A file that nobody could read before it had this mode. OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{token}\n")
        os.chmod(draft, mode)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def main(argv: list[str] | None = None) -> int:
    """Write a member's own token. Exit status 2 for a key that cannot be read or a place that cannot be written."""
    parser = argparse.ArgumentParser("python -m asyncppo.wire.tokens", description=main.__doc__)
    parser.add_argument("--key-file", type=Path, required=True, metavar="FILE", help="holds the role's key")
    parser.add_argument("--role", choices=[Role.ROLLOUT.value, Role.OLD_LOGIT.value], required=True)
    parser.add_argument("--name", required=True, help="the member's name")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="where the member's token goes, mode 0440"
    )
    options = parser.parse_args(argv)
    try:
        write_secret(
            options.output, member_token(read_token(options.key_file), Role(options.role), options.name), 0o440
        )
    except (UserError, OSError) as error:
        print(f"the token of {options.name} cannot be made: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
