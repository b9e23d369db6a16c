"""Names of files: which version a weights file holds, and what a file is called that no ledger knows.

Owns the names; does not own the files (`store.py`). Knows no tensors.
"""

from pathlib import Path

SUFFIX = ".safetensors"
DRAFT_SUFFIX = ".draft"


def file_name(version: int) -> str:
    """Name of a version's file; sorts as versions do."""
    return f"v{version:08d}{SUFFIX}"


def version_of(name: str) -> int | None:
    """The version a file name stands for; None when it is not a version's file."""
    digits = name.removeprefix("v").removesuffix(SUFFIX)
    if name.endswith(SUFFIX) and digits.isascii() and digits.isdecimal() and file_name(int(digits)) == name:
        return int(digits)
    return None


def set_aside(path: Path) -> Path:
    """Rename a file or folder so that it counts no more and nothing of it is lost: `NAME.unknown`, numbered from the second on."""
    target, number = path.with_name(f"{path.name}.unknown"), 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.unknown-{number}")
    path.rename(target)
    return target
