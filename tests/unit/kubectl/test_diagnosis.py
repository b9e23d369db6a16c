"""`kubectl asyncppo status`: what is said to be wrong with a job, and what is not."""

from typing import Any

import pytest

from asyncppo.kubectl.diagnosis import Diagnosis, diagnose


def diagnosis(phase: str, *conditions: tuple[str, str, str, str], **status: Any) -> Diagnosis:
    told = [dict(zip(("type", "status", "reason", "message"), one, strict=True)) for one in conditions]
    return diagnose({"metadata": {"name": "guess"}, "status": {"phase": phase, "conditions": told, **status}}, {}, [])


GONE = ("LearnerReady", "False", "JobComplete", "no learner pods: the job is complete")


@pytest.mark.parametrize("phase", ["Complete", "Failed", "Suspended"])
def test_pods_that_are_gone_by_design_are_no_trouble(phase: str) -> None:
    assert not [found for found in diagnosis(phase, GONE).troubles if "LearnerReady" in found.what]


@pytest.mark.parametrize("phase", ["Complete", "Failed"])
def test_an_edit_that_does_nothing_is_told(phase: str) -> None:
    edit = ("Accepted", "False", "JobFinished", "spec.suspend changed after the job was over, and nothing happens")
    found = [found for found in diagnosis(phase, edit, GONE).troubles if "Accepted" in found.what]
    assert len(found) == 1
    assert "another name" in found[0].advice


def test_a_volume_that_is_not_made_is_not_answered_with_smaller_resources() -> None:
    message = "1/1 learner pods Unschedulable: unbound. Make the job anew with learner.storageClassName"
    (found,) = diagnosis("Pending", ("LearnerReady", "False", "Unschedulable", message)).troubles
    assert "storageclass" in found.advice
    assert "resources" not in found.advice


def test_other_pods_that_cannot_be_scheduled_are() -> None:
    (found,) = diagnosis("Pending", ("RolloutsReady", "False", "Unschedulable", "2/2: no gpu")).troubles
    assert "resources" in found.advice
