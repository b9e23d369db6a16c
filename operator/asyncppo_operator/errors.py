"""The operator's exceptions.

OperatorError
├── SettingsError             the operator's own configuration is wrong; it does not start
└── ApiError                  the API server did not do what was asked; `.reason` is CamelCase, for conditions and metrics
    ├── ForbiddenError        401, 403: a right is missing; the message names verb, resource and namespace
    ├── NotFoundError         404
    ├── ConflictError         409: exists already, or changed meanwhile
    ├── InvalidError          400, 422: the object itself is refused; retrying cannot help
    └── UnavailableError      429, 5xx or no answer: try again later
"""


class OperatorError(Exception):
    """Base of all errors of the operator."""


class SettingsError(OperatorError):
    """The operator's configuration is wrong: says where and what is allowed."""


class ApiError(OperatorError):
    """A call to the API server failed. status: HTTP status, 0 without an answer."""

    reason = "ApiError"

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class ForbiddenError(ApiError):
    """The operator's ServiceAccount lacks a right."""

    reason = "Forbidden"


class NotFoundError(ApiError):
    """No such object, or no such kind."""

    reason = "NotFound"


class ConflictError(ApiError):
    """The object exists already, or is not the one that was read."""

    reason = "Conflict"


class InvalidError(ApiError):
    """The API server refuses the object as it is."""

    reason = "Rejected"


class UnavailableError(ApiError):
    """No usable answer: overloaded, failing or unreachable."""

    reason = "ApiUnavailable"


def api_error(status: int, message: str) -> ApiError:
    """The error class of an HTTP status; 0 means no answer came.

    Servers of version 1.20 answer 500 to an apply that their schema refuses.
    """
    if status == 500 and "typed patch object" in message:
        return InvalidError(message, status)
    if status in (401, 403):
        return ForbiddenError(message, status)
    if status == 404:
        return NotFoundError(message, status)
    if status == 409:
        return ConflictError(message, status)
    if status in (400, 405, 406, 413, 415, 422):
        return InvalidError(message, status)
    return UnavailableError(message, status)
