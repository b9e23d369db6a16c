"""The command line: errors become one clean message and the documented exit code."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from asyncppo.api.generated import drift, repository_root
from asyncppo.cli import main
from asyncppo.cli.exit_codes import ExitCode
from asyncppo.cli.exit_codes_page import PATH, page
from asyncppo.cli.program import COMMANDS, make_parser
from asyncppo.errors import RefusedError, UnreachableError, UserError

CALL = "import sys; from asyncppo.cli import main; sys.exit(main())"


def outcome_of(behaviour: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code when a command behaves like this."""

    def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
        subparsers.add_parser("act").set_defaults(run=lambda arguments: behaviour())

    module = ModuleType("acting_command")
    module.register = register  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acting_command", module)
    return main(["act"], commands=["acting_command"])


def raising(error: BaseException) -> Callable[[], int]:
    def behaviour() -> int:
        raise error

    return behaviour


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("m.yaml: 1 problem"), 2, "asyncppo: m.yaml: 1 problem\n"),
        (UnreachableError("learner: connection refused"), 3, "asyncppo: learner: connection refused\n"),
        (RefusedError(409, "Sealed", "too late"), 3, "asyncppo: Sealed (409): too late\n"),
        (KeyboardInterrupt(), 130, "asyncppo: interrupted\n"),
    ],
)
def test_errors(
    error: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome_of(raising(error), monkeypatch) == code
    captured = capsys.readouterr()
    assert captured.err == words
    assert captured.out == ""


@pytest.mark.parametrize("code", [0, 3, 130])
def test_a_command_says_its_own_code(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome_of(lambda: code, monkeypatch) == code


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        outcome_of(raising(ZeroDivisionError()), monkeypatch)


@pytest.mark.parametrize("line", [[], ["nonsense"], ["validate"], ["validate", "a", "b"], ["--wrong"]])
def test_a_line_that_is_not_understood(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert ended.value.code == ExitCode.BAD_INPUT
    assert "usage: asyncppo" in capsys.readouterr().err


@pytest.mark.parametrize("line", [["--help"], ["--version"], ["validate", "--help"]])
def test_help_and_version(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert ended.value.code == ExitCode.DONE
    assert "asyncppo" in capsys.readouterr().out


def test_every_command_is_in_the_help() -> None:
    text = make_parser().format_help()
    assert [name for name in COMMANDS if name.rsplit(".", 1)[1] not in text] == []
    assert "2 bad input" in text


def test_the_page_of_exit_codes_is_what_the_code_makes() -> None:
    assert drift(PATH, page) is None
    assert [code for code in ExitCode if f"| {code.value} |" not in page()] == []


def test_the_installed_command_prints_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            CALL,
            "validate",
            str(tmp_path / "no.yaml"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("asyncppo: ")
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_no_error() -> None:
    manifest = repository_root() / "examples" / "guess-number.yaml"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", CALL, "validate", str(manifest)],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.returncode == ExitCode.OUTPUT_CLOSED
    assert done.stderr == ""
