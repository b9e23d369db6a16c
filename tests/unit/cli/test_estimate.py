"""`asyncppo estimate`: table, JSON, picture, sweep, and bad input as exit 2."""

import json
from pathlib import Path

import pytest
from tests.unit.study.builders import job

from asyncppo.api.generated import repository_root
from asyncppo.api.manifest import dump_manifest
from asyncppo.cli.program import main


def call(tmp_path: Path, *options: str) -> int:
    manifest = tmp_path / "job.json"
    manifest.write_text(dump_manifest(job()))
    return main(["estimate", str(manifest), *options])


def test_the_table_has_every_route_and_the_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(tmp_path) == 0
    said = capsys.readouterr().out
    assert all(
        name in said
        for name in ("Interruption/Barrier", "Interruption/Overlapped", "Snapshot/Disk", "Dedicated", "EWMA", "Rollout")
    )
    assert "strategy Auto: Auto took " in said
    assert "speeds (assumed for one CPU core" in said


def test_a_sweep_prints_each_value_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "estimate.png"
    assert call(tmp_path, "--sweep", "staleness.maxVersions=1,8", "--picture", str(picture)) == 0
    said = capsys.readouterr().out
    assert said.index("staleness.maxVersions = 1") < said.index("staleness.maxVersions = 8")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert call(tmp_path, "--picture", str(picture)) == 0


def test_json_has_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(tmp_path, "-o", "json", "--parameters", "4e9", "--tokens", "12", "--tool-seconds", "3") == 0
    [one] = json.loads(capsys.readouterr().out)
    assert one["workload"]["parameters"] == 4e9
    assert one["workload"]["tool_seconds"] == 3.0
    assert len(one["estimates"]) == 10
    assert one["auto"]["route"]["strategy"] in ("Interruption", "Snapshot")


def test_a_job_that_does_not_run_yet_is_estimated_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    example = str(repository_root() / "examples" / "scale.yaml")
    assert main(["validate", example]) == 2
    assert 'spec.learner.resources.limits["nvidia.com/gpu"]' in capsys.readouterr().err
    assert main(["estimate", example, "--sweep", "staleness.maxVersions=2,4"]) == 0
    said = capsys.readouterr().out
    assert "speeds (assumed for 8 GPUs in the learner" in said
    assert said.count('This job does not run yet:\n  spec.learner.resources.limits["nvidia.com/gpu"]: ') == 2
    assert main(["estimate", example, "-o", "json"]) == 0
    [one] = json.loads(capsys.readouterr().out)
    assert len(one["notImplemented"]) == 1


def test_a_job_that_runs_is_not_said_not_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(tmp_path) == 0
    assert "does not run yet" not in capsys.readouterr().out


def test_measured_speeds_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speeds = tmp_path / "speeds.json"
    figures = dict.fromkeys(("forward", "worker", "train", "decode", "prefill", "copy", "disk", "pull"), 1e6)
    speeds.write_text(json.dumps(figures | {"origin": "another day"}))
    assert call(tmp_path, "--speeds", str(speeds)) == 0
    assert "speeds (another day)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sweep", "staleness.maxVersion=1"), "did you mean maxVersions?"),
        (("--sweep", "staleness.maxVersions=-1"), "staleness.maxVersions"),
        (("--speeds", "nowhere.json"), "cannot be read"),
        (("--picture", "nowhere/at/all.png"), "cannot be written"),
    ],
)
def test_bad_input_is_exit_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(tmp_path, *options) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", [("--parameters", "0"), ("--tokens", "-1"), ("--tool-seconds", "-1"), ("-o", "yaml")]
)
def test_options_out_of_range_are_refused(tmp_path: Path, option: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        call(tmp_path, *option)
    assert caught.value.code == 2
