"""The health check that docs/kubernetes.md gives to Flux, judged on statuses as the operator writes them."""

import re
from typing import Any

import celpy
import pytest
import yaml
from celpy.adapter import json_to_cel
from tests.cluster.kubernetes import ROOT
from tests.unit.operator.test_status import checked
from tests.unit.operator.test_verdicts import TABLE, at, before

from asyncppo.api.status import Phase
from asyncppo_operator.views import PodView


def expressions() -> dict[str, str]:
    """The checks as documented."""
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    found = re.search(r"```yaml\n(healthCheckExprs:\n.*?)```", page, re.DOTALL)
    assert found, "docs/kubernetes.md has no healthCheckExprs"
    (check,) = yaml.safe_load(found.group(1))["healthCheckExprs"]
    return {key: str(check[key]) for key in ("current", "failed")}


def holds(expression: str, status: dict[str, Any]) -> bool:
    environment = celpy.Environment()
    program = environment.program(environment.compile(expression))
    return bool(program.evaluate({"status": json_to_cel(status)}))


@pytest.mark.parametrize(("phase", "pods"), [(phase, pods) for phase, pods, _ in TABLE])
def test_a_job_is_current_failed_or_on_its_way(phase: Phase, pods: tuple[PodView, ...]) -> None:
    status = checked(at(phase, pods), before(phase))
    checks = expressions()
    assert holds(checks["current"], status) is (phase in (Phase.RUNNING, Phase.SUSPENDED, Phase.COMPLETE))
    assert holds(checks["failed"], status) is (phase in (Phase.FAILED, Phase.INVALID))
