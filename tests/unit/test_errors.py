"""What is advised when a file cannot be written is what helps."""

import errno

import pytest

from asyncppo.errors import storage_remedy


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "free space on its volume"),
        (OSError(errno.EMFILE, "Too many open files"), "allow more open files (ulimit -n)"),
        (OSError(errno.EROFS, "Read-only file system"), "make it writable"),
        (OSError(errno.EIO, "Input/output error"), "check its volume"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "free space on its volume"),
        (RuntimeError("invalid header"), "check its volume"),
    ],
)
def test_the_remedy_is_of_the_cause(error: Exception, remedy: str) -> None:
    assert storage_remedy(error) == remedy
