"""How many rollouts a sync needs: `minReady`, and never more than there are to be."""

import pytest
from tests.unit.api.builders import spec

from asyncppo.sync.limits import SyncLimits


@pytest.mark.parametrize(
    ("least", "replicas", "needed"),
    [
        (1, 2, 1),
        (2, 2, 2),
        (3, 2, 2),
        (1024, 1, 1),
        (0, 2, 0),
        (1, 0, 1),
        (5, 0, 1),
        (0, 0, 0),
    ],
)
def test_a_job_scaled_below_min_ready_syncs_with_all_it_has(least: int, replicas: int, needed: int) -> None:
    asked = spec({"weightSync.minReady": least, "rollout.replicas": replicas})
    assert SyncLimits.of(asked).min_ready == needed


def test_the_deadlines_are_the_manifests() -> None:
    limits = SyncLimits.of(spec({"weightSync.pauseTimeoutSeconds": 7, "weightSync.loadTimeoutSeconds": 8.5}))
    assert (limits.pause, limits.load) == (7, 8.5)
