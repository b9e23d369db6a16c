"""Each version is written once, or the places that must repeat it agree."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CONSTRAINTS = ("constraints.txt", "constraints-vllm.txt")


def _versions(file: str) -> dict[str, str]:
    lines = (re.split(r"[ #;\\]", line)[0] for line in (ROOT / file).read_text().splitlines())
    return dict(line.split("==") for line in lines if "==" in line)


def test_vllm_changes_no_version_of_the_environment_it_is_added_to() -> None:
    everywhere, for_vllm = _versions("constraints.txt"), _versions("constraints-vllm.txt")
    shared = everywhere.keys() & for_vllm.keys()
    assert {"transformers", "numpy"} <= shared
    assert {name: for_vllm[name] for name in shared} == {name: everywhere[name] for name in shared}


@pytest.mark.parametrize("lock", ["dev", "operator", "runtime", "compiled", "vllm"])
def test_locks_hold_the_versions_of_the_constraints(lock: str) -> None:
    locked, pinned = _versions(f"locks/{lock}.txt"), {}
    for file in CONSTRAINTS:
        pinned |= _versions(file)
    assert locked
    assert {name: found for name, found in locked.items() if pinned.get(name, found) != found} == {}


@pytest.mark.parametrize(
    ("locks", "extras"),
    [
        (["dev"], ["runtime", "local", "operator", "reasoning-gym", "dev"]),
        (["operator"], ["operator"]),
        (["runtime", "compiled"], ["runtime", "reasoning-gym"]),
    ],
)
def test_locks_hold_every_direct_dependency_but_pytorch(locks: list[str], extras: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(need for extra in extras for need in project["optional-dependencies"][extra])]
    locked = {name for lock in locks for name in _versions(f"locks/{lock}.txt")}
    assert {re.split(r"[<>=\[ ]", need)[0] for need in wanted} - locked == ({"torch"} if "runtime" in extras else set())


@pytest.mark.parametrize("lock", ["dev", "operator", "runtime", "compiled", "vllm"])
def test_every_locked_package_has_a_hash(lock: str) -> None:
    entries = re.split(r"\n(?=[a-z0-9])", (ROOT / f"locks/{lock}.txt").read_text().strip())
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_chart_has_the_packages_version() -> None:
    chart = yaml.safe_load((ROOT / "charts/asyncppo/Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"] == version("asyncppo")


def test_no_other_file_repeats_the_packages_version() -> None:
    """Image tags come from the installed package and the chart's appVersion; docs and comments say VERSION."""
    found = version("asyncppo")
    files = [*(ROOT / "docs").glob("*.md"), *(ROOT / "images").rglob("Dockerfile"), *(ROOT / "operator").rglob("*.py")]
    assert len(files) > 50
    assert [str(file) for file in files if f":{found}" in file.read_text()] == []
