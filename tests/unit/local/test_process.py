"""Logs, exit statuses, restarts' delays, the warden's list."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asyncppo.local.process import exit_in_words, last_words
from asyncppo.local.supervisor import LONGEST_DELAY, Backoff
from asyncppo.local.warden import watch


def test_last_words_are_of_the_newest_start(tmp_path: Path) -> None:
    log = tmp_path / "learner.log"
    assert last_words(log) == []
    log.write_text("--- started 1 ---\nold words\n--- started 2 ---\n" + "".join(f"line {n}\n\n" for n in range(30)))
    assert last_words(log, lines=2) == ["line 28", "line 29"]
    log.write_text("--- started 1 ---\nold words\n--- started 2 ---\n")
    assert last_words(log) == []


def test_last_words_of_a_huge_log_with_broken_bytes(tmp_path: Path) -> None:
    log = tmp_path / "learner.log"
    log.write_bytes(b"x" * 1_000_000 + b"\n\xff\xfe broken\nthe end\n")
    assert last_words(log, lines=1) == ["the end"]


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit status 0"), (3, "exit status 3"), (-9, "killed by SIGKILL"), (-200, "killed by signal 200")],
)
def test_exit_in_words(status: int, words: str) -> None:
    assert exit_in_words(status) == words


def test_backoff_doubles_up_to_a_limit() -> None:
    assert [Backoff(1.0).delay(n) for n in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert Backoff(1.0).delay(10**6) == LONGEST_DELAY


def test_the_warden_remembers_what_is_alive() -> None:
    assert watch(["+12\n", "+13\n", "-12\n", "-99\n"]) == {13}


def test_a_leashed_program_refuses_a_parent_that_is_gone() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "asyncppo.local.leash", "1", sys.executable, "-c", "print('ran')"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode != 0
    assert "the runner is gone" in ended.stderr
    assert "ran" not in ended.stdout


def test_a_leashed_program_runs_with_its_arguments() -> None:
    command = [sys.executable, "-c", "import sys; print(sys.argv[1:])", "--a", "b c"]
    ended = subprocess.run(
        [sys.executable, "-m", "asyncppo.local.leash", str(os.getpid()), *command],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.strip() == "['--a', 'b c']"
