"""From what the ledger stores to what the algorithm takes. Pure; owns no field of either side."""

from collections.abc import Sequence

from asyncppo_runtime.algorithm.batch import SegmentInput, TrajectoryInput
from asyncppo_runtime.ledger.records import SegmentState, StoredTrajectory


def trajectory_inputs(groups: Sequence[Sequence[StoredTrajectory]]) -> list[TrajectoryInput]:
    """One TrajectoryInput per trajectory, group by group. Discarded segments have no place in the loss and are left out."""
    inputs = []
    for group in groups:
        for stored in group:
            if stored.trajectory is None:
                raise ValueError(f"trajectory {stored.lease_id} has been pruned; the ledger must not offer it for training")
            segments = [
                SegmentInput(
                    start=segment.start,
                    end=segment.end,
                    version=segment.version,
                    behavior_logprobs=[] if segment.behavior_logprobs is None else segment.behavior_logprobs.tolist(),
                    old_logprobs=None if segment.old_logprobs is None else segment.old_logprobs.tolist(),
                    old_version=segment.scorer_version,
                )
                for segment in stored.segments
                if segment.state is not SegmentState.DISCARDED
            ]
            inputs.append(TrajectoryInput(stored.trajectory.token_ids, segments, stored.reward, stored.group_id))
    return inputs
