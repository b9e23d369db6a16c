"""The shared root's exceptions.

AsyncPPOError
├── UserError                 bad input; message is all the user sees (exit 2)
├── RefusedError              the peer answered 4xx/5xx with a Refused body; `.status`, `.reason`
└── UnreachableError          no answer: connection refused, reset, timed out
"""


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
