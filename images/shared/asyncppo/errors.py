"""The shared root's exceptions.

AsyncPPOError
├── UserError                 bad input; message is all the user sees (exit 2)
├── RefusedError              the peer answered 4xx/5xx with a Refused body; `.status`, `.reason`
└── UnreachableError          no answer: connection refused, reset, timed out
"""

import errno
import re

# Why a file could not be written → what to do. Not every failure is a full volume.
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free space on its volume"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (ulimit -n)"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable"),
}


def storage_remedy(error: BaseException) -> str:
    """What to do about a failure to write: by its errno, else a look at the volume. Libraries in Rust name it in their text."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (told := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(told[1])
    return REMEDIES.get(number or 0, "check its volume")


class AsyncPPOError(Exception):
    """Base of all errors of the shared root."""


class UserError(AsyncPPOError):
    """Bad input: says what, where, what is allowed and what to do. Printed without a traceback; exit 2."""


class RefusedError(AsyncPPOError):
    """A peer understood and refused.

    status: HTTP status. reason: CamelCase reason of the Refused body. message: for humans.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{reason} ({status}): {message}")
        self.status = status
        self.reason = reason
        self.message = message


class UnreachableError(AsyncPPOError):
    """A peer gave no answer."""
