"""What an environment raises, answers or does to the event loop costs its own episode; what can only fail is refused at start."""

import importlib.util
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.cases.drive import HERE, Outcome, asyncppo, run_case
from tests.cases.models import make

pytestmark = pytest.mark.cases


def endings(outcome: Outcome) -> dict[int, set[tuple[str, str]]]:
    """Task index → the endings of its trajectories (by the ledger) and what the rollout said of them."""
    told = dict(re.findall(r"lease (\d+) ended as \w+: (.*)", outcome.logs()))
    with sqlite3.connect(outcome.folder / "ledger.db") as db:
        rows = db.execute("SELECT lease_id, group_id, end_reason FROM trajectories").fetchall()
    found: dict[int, set[tuple[str, str]]] = {}
    for lease_id, index, end_reason in rows:
        found.setdefault(index, set()).add((end_reason, told.get(str(lease_id), "")))
    return found


def world_of(case: str) -> Any:
    specification = importlib.util.spec_from_file_location(f"world_of_{case}", HERE / case / "world.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_odd_environments_cost_their_own_episodes_only(tmp_path: Path) -> None:
    outcome = run_case("odd-environment", tmp_path / "run")
    assert outcome.code == 0, outcome.output
    assert outcome.summary["updates"] == 9
    world = world_of("odd-environment")
    found = endings(outcome)
    for place, (name, (says, *_)) in enumerate(world.FAILS.items()):
        for end_reason, error in found.get(2 * place + 1, {("never ended", "")}):
            if error == "ValueError: once is enough":
                continue
            assert end_reason in ("environment_error", "environment_timeout"), name
            assert says in error, name
    for place, name in enumerate(world.COUNTS):
        for end_reason, error in found.get(2 * place, {("never ended", "")}):
            assert end_reason in ("done", "max_turns", "overlong"), f"{name}: {error}"
    assert "Traceback" not in outcome.output


def run_changed(case: str, folder: Path, *changes: tuple[str, str]) -> Outcome:
    """The case, copied to `folder`, with its manifest changed."""
    shutil.copytree(HERE / case, folder / "case", dirs_exist_ok=True)
    manifest = folder / "case" / "job.yaml"
    text = manifest.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    manifest.write_text(text)
    return asyncppo("run", "job.yaml", "--output", str(folder / "run"), folder=folder / "run", cwd=folder / "case")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("Plain", "must define reset, step with `async def`"),
        ("Exits", "Exits cannot be made (SystemExit: 2"),
    ],
)
def test_an_environment_that_can_only_fail_is_refused_at_start(tmp_path: Path, kind: str, says: str) -> None:
    outcome = run_changed("refused-environment", tmp_path, ("world:Plain", f"world:{kind}"))
    assert outcome.code == 2, outcome.output
    assert says in outcome.output + outcome.logs()
    assert "starting it again" not in outcome.output


def test_modules_beside_the_manifest_hide_nobodys(tmp_path: Path) -> None:
    outcome = run_case("beside-the-manifest", tmp_path / "run")
    assert outcome.code == 0, outcome.output + outcome.logs()
    assert outcome.summary["updates"] == 2
    shown = asyncppo("show", str(tmp_path / "run"), folder=tmp_path / "run", cwd=HERE / "beside-the-manifest")
    assert shown.code == 0, shown.output


@pytest.mark.parametrize(("model", "says"), [("tied and padded", "messages"), ("dropout", "text")])
def test_models_as_they_really_are_train_exactly(tmp_path: Path, model: str, says: str) -> None:
    folder = make(model, tmp_path / "model")
    outcome = run_changed(
        "odd-models",
        tmp_path,
        ("./model", str(folder)),
        ("maxTurns: 3", f"parameters: {{says: {says}}}\n    maxTurns: 3"),
    )
    assert outcome.code == 0, outcome.output + outcome.logs()
    assert (outcome.summary["updates"], outcome.summary["oldLogits"]["exactCoverage"]) == (2, 1.0)
    if says == "messages":  # of the odd tasks, whose conversation holds None, none is trained on as the word None
        odd = [ending for index, ones in endings(outcome).items() if index % 2 for ending in ones]
        assert odd
        assert {reason for reason, _ in odd} == {"environment_error"}
        assert all("a message's content is a str, not None (NoneType)" in error for _, error in odd)


def test_a_tokenizer_that_does_not_fit_is_refused_at_start(tmp_path: Path) -> None:
    outcome = run_changed("odd-models", tmp_path, ("./model", str(make("tokenizer too large", tmp_path / "model"))))
    assert outcome.code == 2, outcome.output
    assert "has 265 token ids, its model rows for 260" in outcome.output + outcome.logs()
    assert "starting it again" not in outcome.output
