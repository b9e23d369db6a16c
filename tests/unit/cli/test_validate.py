"""`asyncppo validate`: the verdict says what the job would do, and how exact it would be."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.api.builders import document

from asyncppo.api.correction import OldLogitsSpec, OnUnavailable, Strategy
from asyncppo.api.generated import repository_root
from asyncppo.cli import main
from asyncppo.cli.validate import HOW, exactness


def validate(tmp_path: Path, changes: dict[str, Any]) -> int:
    """The exit code for a manifest."""
    file = tmp_path / "m.yaml"
    file.write_text(yaml.safe_dump(document(changes)), encoding="utf-8")
    return main(["validate", str(file)])


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(repository_root() / "examples" / "guess-number.yaml")]) == 0
    text = capsys.readouterr().out
    for words in ("is valid: job guess-number", "Interruption, scoring Barrier", "exact          Yes: ", "GuessNumber"):
        assert words in text


def test_numbers_come_from_the_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {
        "algorithm": {"updates": 7, "batchGroups": 3, "groupSize": 5},
        "staleness.maxVersions": 4,
        "model": {"pretrained": "a/b"},
    }
    assert validate(tmp_path, changes) == 0
    text = capsys.readouterr().out
    for words in ("7 updates of 3 groups of 5: 105 trajectories", "at most 4 versions", "a/b"):
        assert words in text


def test_synchronous_training_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(tmp_path, {"staleness.maxVersions": 0}) == 0
    assert "synchronous" in capsys.readouterr().out


def test_an_inexact_strategy_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(tmp_path, {"oldLogits.strategy": "Recompute"}) == 0
    assert "exact          No: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rate", "precision", "warned"),
    [(2e-6, "BFloat16", True), (9e-5, "BFloat16", True), (1e-4, "BFloat16", False), (2e-6, "Float32", False)],
)
def test_small_steps_in_bfloat16_are_warned_about(
    rate: float, precision: str, warned: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate(tmp_path, {"optimizer": {"learningRate": rate, "precision": precision}}) == 0
    text = capsys.readouterr().out
    assert ("warning: spec.optimizer.precision" in text) == warned
    assert ("2 % of the way" in text) == warned


def test_an_invalid_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(tmp_path, {"seed": -1, "algorithm.groupSize": 1}) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "m.yaml: 2 problems" in captured.err
    assert "spec.seed" in captured.err
    assert "spec.algorithm.groupSize" in captured.err


@pytest.mark.parametrize("strategy", list(Strategy))
def test_each_strategy_is_labelled(strategy: Strategy) -> None:
    words = exactness(OldLogitsSpec(strategy=strategy))
    assert words.startswith("Yes: " if strategy.exact else "No: ")
    assert HOW[strategy] in words


def test_a_fallback_is_not_called_exact_without_a_word() -> None:
    words = exactness(OldLogitsSpec(strategy=Strategy.SNAPSHOT, on_unavailable=OnUnavailable.FALLBACK))
    assert "fall back to Recompute" in words
