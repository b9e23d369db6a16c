"""Where a pretrained model comes from: a folder, a GGUF file, or a Hugging Face id. Owns that question and its clear errors.

Does not own loading (`model.py`, `tokenizer.py`).
"""

import os
from pathlib import Path

import msgspec

from asyncppo.errors import UserError

FIELD = "spec.model.pretrained"


class Source(msgspec.Struct, frozen=True):
    """What transformers' `from_pretrained` takes: a folder or hub id, and the name of a GGUF file inside the folder ("" for none)."""

    name: str
    gguf_file: str = ""

    @property
    def keywords(self) -> dict[str, str]:
        """Keyword arguments of `from_pretrained` beside the name."""
        return {"gguf_file": self.gguf_file} if self.gguf_file else {}


def resolve(pretrained: str) -> Source:
    """Find what `pretrained` names. Raises UserError for a path that is not there or a folder that holds no model."""
    path = Path(pretrained).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(
                f"{FIELD}: {pretrained} is a file, but not a .gguf one; name a model folder, a .gguf file or a hub id"
            )
        return Source(str(path.parent), path.name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(
                f"{FIELD}: the folder {pretrained} holds no config.json; name a folder in Hugging Face format"
            )
        return Source(str(path))
    if _is_path(pretrained):
        raise UserError(f"{FIELD}: {pretrained} does not exist; name a model folder, a .gguf file or a Hugging Face id")
    return Source(pretrained)


def _is_path(pretrained: str) -> bool:
    """A hub id is `name` or `owner/name`; whatever cannot be one was meant as a path."""
    return (
        os.path.isabs(pretrained)
        or pretrained.startswith((".", "~"))
        or pretrained.count("/") > 1
        or pretrained.endswith((".gguf", "/"))
    )
