"""What a rollout worker's log lines are, and its last words when its own work is cancelled."""

import argparse
import asyncio
import logging
import sys

import pytest

from asyncppo_runtime.rollout import __main__ as program


def test_a_log_line_is_short_and_plain_whoever_wrote_it() -> None:
    error = ValueError("\x1b[2J" + "x" * 10_000_000)
    record = logging.LogRecord("asyncio", logging.ERROR, "", 0, "Task: %r", (error,), (ValueError, error, None))
    text = program.PlainLines().format(record)
    assert text.startswith(r"Task: ValueError(")
    assert "\x1b" not in text
    assert len(text) < 10_000


def test_a_worker_whose_own_work_is_cancelled_says_whose_doing_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def cancelled(options: argparse.Namespace) -> int:
        raise asyncio.CancelledError

    monkeypatch.setattr(program, "_run", cancelled)
    monkeypatch.setattr(logging, "basicConfig", lambda **settings: None)
    monkeypatch.setattr(sys, "setswitchinterval", lambda seconds: None)
    options = [
        "--job",
        "j",
        "--learner",
        "l",
        "--listen",
        "h:0",
        "--name",
        "n",
        "--token-file",
        "t",
        "--directory",
        "d",
    ]
    assert program.main(options) == program.FAILED
    assert "the environment cancels tasks that are not its own" in caplog.messages[-1]
