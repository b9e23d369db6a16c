"""Text of others on a terminal: what an environment, a model or a cluster wrote is shown, and does nothing there.

Owns the escaping, and that no terminal's encoding ends a command. Does not own what is printed.
"""

import io
from typing import TextIO


def printable(text: str, *, lines: bool = True) -> str:
    """`text` with every character escaped that would not show as itself: control characters (also ESC, and without `lines` line breaks
    too), those that turn the writing direction round, those without width, and what is no character at all."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or (lines and one == "\n") else one.encode("unicode_escape").decode() for one in text
    )


def tolerate(*streams: TextIO) -> None:
    """A character that a stream's encoding does not have is written as its escape, instead of ending the program."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
