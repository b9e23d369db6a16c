"""The exit codes of `asyncppo`. Owns the numbers and what they mean. Does not own when they occur (`program.py` and the commands)."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a shell sees. `meaning` says what happened, `remedy` what to do next."""

    meaning: str
    remedy: str

    def __new__(cls, number: int, meaning: str, remedy: str) -> "ExitCode":
        """An int with words."""
        code = int.__new__(cls, number)
        code._value_ = number
        code.meaning = meaning
        code.remedy = remedy
        return code

    DONE = (0, "Done: the job is complete, the manifest is valid, the page was printed.", "Nothing.")
    BUG = (
        1,
        "A bug: Python's own code for an unexpected exception, with its traceback.",
        "Report it with the traceback.",
    )
    BAD_INPUT = (
        2,
        "Bad input: an unknown option, a manifest with problems, an output folder of another job, a port in use. "
        "Nothing was started and nothing was changed.",
        "Do what the message says; it names every problem and what is allowed.",
    )
    JOB_FAILED = (
        3,
        "The job failed, or a program that it needs does not answer. The message names the first cause "
        "and the last good checkpoint.",
        "Remove the cause, then run the same command with `--resume`.",
    )
    INTERRUPTED = (
        130,
        "Interrupted (Ctrl-C): the job stopped cleanly and wrote a checkpoint; nothing is lost.",
        "Run the same command with `--resume` to go on.",
    )
    OUTPUT_CLOSED = (
        141,
        "Whoever read the output closed it, as in `asyncppo show DIR | head`.",
        "Nothing.",
    )
