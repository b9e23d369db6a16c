"""Files of the repository that are made from code: written by `--write`, compared by `--check`.

Owns the command line that those makers share and where the repository's root is. Does not own any content.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


def repository_root() -> Path:
    """The checkout that this module lies in: the nearest folder above it with a pyproject.toml."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "pyproject.toml").is_file():
            return folder
    sys.exit("this file is made inside a checkout of the repository; the installed package has none")


def drift(path: str, make: Callable[[], str]) -> str | None:
    """None when the file at `path` (relative to the root) is what `make` makes, else what is wrong with it."""
    file = repository_root() / path
    if not file.is_file():
        return f"{path} is missing"
    if file.read_text(encoding="utf-8") != make():
        return f"{path} differs from what the code makes"
    return None


def generated_file_main(path: str, make: Callable[[], str]) -> NoReturn:
    """The `__main__` of a module that makes one file: exits 0 when written or in step, 1 when it drifted."""
    parser = argparse.ArgumentParser(description=f"Makes {path} from the code.")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="write the file")
    mode.add_argument("--check", action="store_true", help="exit 1 if the file is not what the code makes")
    arguments = parser.parse_args()
    if arguments.write:
        file = repository_root() / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(make(), encoding="utf-8")
        print(f"{path} written")
        sys.exit(0)
    problem = drift(path, make)
    if problem:
        print(f"{problem}; run the same command with --write", file=sys.stderr)
        sys.exit(1)
    print(f"{path} is what the code makes")
    sys.exit(0)
