"""The measured speeds: every part of a job is really run and gives a figure that the estimate takes."""

from pathlib import Path

import torch
from tests.unit.study.builders import job

from asyncppo.estimate.costs import estimate
from asyncppo.estimate.workload import workload
from asyncppo_runtime.calibrate import measure


def test_all_speeds_are_measured(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    spec = job().spec
    speeds = measure(spec, tmp_path, seconds=0.01)
    for name in ("forward", "worker", "train", "decode", "prefill", "copy", "disk", "pull", "step"):
        assert getattr(speeds, name) > 0.0, name
    assert speeds.origin.startswith("measured here")
    assert all(each.update > 0.0 for each in estimate(workload(spec), speeds))
