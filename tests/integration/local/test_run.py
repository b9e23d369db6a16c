"""The local runner with real processes: restarts, failures, stops, and nothing left running however it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.local.drive import make_job

from asyncppo.errors import UserError
from asyncppo.local.roles import choose_addresses

HERE = Path(__file__).parent
LIMIT = 60.0
ENDLESS = {"updates": 1_000_000}


class Driven:
    """A runner as a process of its own."""

    def __init__(self, output: Path, settings: dict[str, Any]) -> None:
        self.output = output
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "drive.py"), str(output), json.dumps(settings)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def end(self) -> tuple[int, dict[str, Any], str]:
        """(exit code, the JSON the driver prints last, everything it said)."""
        out, err = self.process.communicate(timeout=LIMIT)
        lines = [line for line in out.splitlines() if line.startswith("{")]
        return self.process.returncode, json.loads(lines[-1]) if lines else {}, out + err

    def updates(self) -> int:
        """Updates trained so far."""
        metrics = self.output / "metrics.jsonl"
        return metrics.read_text().count("\n") if metrics.exists() else 0

    def summary(self) -> dict[str, Any]:
        """summary.json."""
        return dict(json.loads((self.output / "summary.json").read_text()))

    def starts(self) -> list[str]:
        """How each learner process was started."""
        return (self.output / "learner-starts").read_text().split()


DRIVEN: list[Driven] = []


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    """An output folder; whatever works in it must be gone at the end, and is."""
    output = tmp_path / "run"
    yield output
    while DRIVEN:
        with DRIVEN.pop().process as process:
            process.kill()
    left = processes_of(output)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"left running: {left}"


def drive(output: Path, settings: dict[str, Any]) -> Driven:
    """Start a runner on the fakes."""
    driven = Driven(output, settings)
    DRIVEN.append(driven)
    return driven


def processes_of(output: Path) -> dict[int, str]:
    """Living processes that work in `output`, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(output) in command and "drive.py" not in command and alive(int(entry.name)):
                found[int(entry.name)] = command
    return found


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition with a generous limit."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.02)


def test_a_run_completes_and_leaves_its_results(output: Path) -> None:
    driven = drive(output, {"updates": 20})
    code, told, _ = driven.end()
    assert (code, told["phase"]) == (0, "Complete")
    assert driven.summary()["phase"] == "Complete"
    assert driven.summary()["updates"] == 20
    spent = driven.summary()["time"]["rollout-1"]
    assert (spent["sampling"], spent["environment"]) == (30.0 / 32, 10.0 / 32)  # per slot of 32 at once
    assert (output / "report.png").read_bytes().startswith(b"\x89PNG")
    assert driven.starts() == ["fresh"]


def test_the_token_is_private_and_in_no_log(output: Path) -> None:
    _, _, said = drive(output, {"updates": 5}).end()
    token = (output / "token").read_text().strip()
    assert (output / "token").stat().st_mode & 0o777 == 0o600
    assert token not in said
    assert all(token not in log.read_text() for log in (output / "logs").iterdir())


def test_a_killed_learner_is_started_again_and_goes_on(output: Path) -> None:
    driven = drive(output, {"updates": 20, "learner": ["--crash-once-at", "7"]})
    code, _, said = driven.end()
    assert code == 0
    assert driven.starts() == ["fresh", "again"]
    assert driven.summary()["restarts"] == {"learner": 1}
    assert "killed by SIGKILL" in said


def test_a_crash_loop_fails_the_job_with_the_last_words(output: Path) -> None:
    driven = drive(output, {**ENDLESS, "backoffLimit": 2, "rollouts": 1, "rollout": ["--crash-always"]})
    code, told, _ = driven.end()
    assert (code, told["phase"]) == (3, "Failed")
    assert told["message"] == "rollout-0 failed (exit status 1) and backoffLimit (2) is used up"
    assert told["words"] == ["cannot load the engine"]
    assert driven.summary()["restarts"] == {"rollout-0": 2}
    assert driven.summary()["phase"] == "Failed"


def test_after_a_rollouts_crash_loop_the_learner_still_saves(output: Path) -> None:
    driven = Driven(
        output,
        {**ENDLESS, "backoffLimit": 6, "rollouts": 1, "rollout": ["--crash-always"], "learner": ["--grandchild"]},
    )
    code, _, _ = driven.end()
    assert code == 3
    if driven.updates():  # the learner may not have begun when the limit was used up
        assert (output / "stopped-cleanly").exists()


def test_a_learner_that_refuses_its_input_is_not_started_again(output: Path) -> None:
    driven = drive(output, {"updates": 20, "learner": ["--bad-input"]})
    code, told, _ = driven.end()
    assert code == 2
    assert told["words"] == ["the checkpoint does not match spec.model"]
    assert driven.starts() == ["fresh"]


def test_a_job_that_fails_by_itself_says_why(output: Path) -> None:
    driven = drive(output, {"updates": 20, "learner": ["--fail-at", "5"]})
    code, told, _ = driven.end()
    assert (code, told["phase"], told["message"]) == (3, "Failed", "a loss that is not a number")
    assert told["words"][-1] == "NaN in the loss"
    assert driven.summary()["updates"] == 5


@pytest.mark.parametrize(("when", "patience"), [("serving", {"hang": 1.5}), ("starting", {"start": 15.0})])
def test_a_role_that_hangs_is_killed_and_started_again(when: str, patience: dict[str, float], output: Path) -> None:
    settings = {"rollouts": 1, "rollout": ["--hang-once", when], "patience": patience, **ENDLESS}
    driven = drive(output, settings)
    pid_file = output / "rollouts" / "rollout-0" / "pid"
    until(lambda: (pid_file.parent / "hung-once").exists(), "the rollout hangs")
    hung = int(pid_file.read_text())
    until(lambda: pid_file.read_text() not in ("", str(hung)), "another rollout process is there")
    assert not alive(hung)
    driven.process.send_signal(signal.SIGINT)
    assert driven.end()[0] == 130
    assert driven.summary()["restarts"] == {"rollout-0": 1}


def test_ctrl_c_stops_cleanly_and_resume_goes_on(output: Path) -> None:
    driven = drive(output, {"updates": 400, "learner": ["--seconds-per-update", "0.1"]})
    rollouts = [output / "rollouts" / name for name in ("rollout-0", "rollout-1")]
    until(lambda: driven.updates() > 3, "some updates")
    until(lambda: all((rollout / "serving").exists() for rollout in rollouts), "rollouts that could drain")
    driven.process.send_signal(signal.SIGINT)
    code, told, _ = driven.end()
    assert (code, told["phase"]) == (130, "Stopped")
    assert all((rollout / "drained").exists() for rollout in rollouts)
    assert 3 < int((output / "stopped-cleanly").read_text()) < 400
    assert driven.summary()["phase"] == "Stopped"
    uid = json.loads((output / "job.json").read_text())["metadata"]["uid"]

    again = drive(output, {"updates": 400, "resume": True})
    assert again.end()[0] == 0
    assert again.starts() == ["fresh", "again"]
    assert again.updates() == 400
    assert json.loads((output / "job.json").read_text())["metadata"]["uid"] == uid


def test_a_stop_whose_save_fails_says_so(output: Path) -> None:
    driven = drive(output, {**ENDLESS, "learner": ["--save-fails"]})
    until(lambda: driven.updates() > 1, "some updates")
    driven.process.send_signal(signal.SIGINT)
    code, told, _ = driven.end()
    assert (code, told["phase"]) == (3, "Failed")
    assert told["message"] == "the learner could not save (exit status 3)"
    assert told["words"] == ["the volume is full"]


def test_a_stop_before_the_learner_serves_claims_no_checkpoint(output: Path) -> None:
    driven = drive(output, {**ENDLESS, "learner": ["--deaf-at-start"]})
    until(lambda: (output / "learner-starts").exists(), "the learner has begun")
    driven.process.send_signal(signal.SIGINT)
    code, told, _ = driven.end()
    assert (code, told["phase"]) == (130, "Stopped")
    assert told["message"].startswith("stopped before the learner could save")


def test_a_termination_signal_stops_cleanly_too(output: Path) -> None:
    driven = drive(output, ENDLESS)
    until(lambda: driven.updates() > 1, "some updates")
    driven.process.send_signal(signal.SIGTERM)
    assert driven.end()[0] == 130
    assert (output / "stopped-cleanly").exists()


def test_a_second_ctrl_c_kills(output: Path) -> None:
    driven = drive(output, {**ENDLESS, "learner": ["--never-saves"], "rollout": ["--ignore-term"]})
    until(lambda: driven.updates() > 1, "some updates")
    driven.process.send_signal(signal.SIGINT)
    assert driven.process.stdout is not None
    for line in driven.process.stdout:
        if "Ctrl-C again" in line:
            break
    driven.process.send_signal(signal.SIGINT)
    code, told, _ = driven.end()
    assert code == 130
    assert "killed in the middle of a stop" in told["message"]
    assert not (output / "stopped-cleanly").exists()


def test_a_stop_does_not_wait_for_ever(output: Path) -> None:
    driven = drive(output, {**ENDLESS, "rollout": ["--ignore-term"], "patience": {"drain": 0.5}})
    until(lambda: driven.updates() > 1, "some updates")
    driven.process.send_signal(signal.SIGINT)
    assert driven.end()[0] == 130
    assert (output / "stopped-cleanly").exists()


def test_a_killed_runner_leaves_nothing_behind(output: Path) -> None:
    driven = drive(output, {"updates": 400, "learner": ["--grandchild", "--seconds-per-update", "0.1"]})
    grandchild = output / "grandchild"
    until(lambda: grandchild.exists() and grandchild.read_text() and driven.updates() > 1, "some updates")
    pid = int(grandchild.read_text())
    until(lambda: len(processes_of(output)) == 3, "learner and rollouts")
    driven.process.kill()
    driven.process.communicate(timeout=LIMIT)
    until(lambda: not processes_of(output), "the roles are gone")
    until(lambda: not alive(pid), "the learner's own child is gone")

    again = drive(output, {"updates": 400, "resume": True})
    assert again.end()[0] == 0
    assert again.starts() == ["fresh", "again"]


def test_a_deadline_ends_the_job(output: Path) -> None:
    for seconds in (
        3,
        30,
    ):  # a busy machine may need the longer one: who has not begun when the time is up saves nothing
        driven = drive(
            output.with_name(f"{output.name}-{seconds}"), {**ENDLESS, "spec": {"activeDeadlineSeconds": seconds}}
        )
        code, told, _ = driven.end()
        assert code == 3
        assert f"activeDeadlineSeconds ({seconds})" in told["message"]
        if driven.updates():
            break
    assert (driven.output / "stopped-cleanly").exists()


def test_two_runners_do_not_share_a_folder(output: Path) -> None:
    first = drive(output, ENDLESS)
    until(lambda: first.updates() > 1, "the first one runs")
    code, _, said = drive(output, {**ENDLESS, "resume": True}).end()
    assert code == 2
    assert "another `asyncppo run` is working in this folder" in said
    first.process.send_signal(signal.SIGINT)
    assert first.end()[0] == 130


def test_a_busy_port_is_refused_before_anything_starts(output: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port} .* cannot be had"):
            choose_addresses(make_job({}), port)
    assert choose_addresses(make_job({}), port).learner == port
