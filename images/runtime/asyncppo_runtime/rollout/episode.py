"""One lease in the making: exact ids, segments, reward. Owns the state of an episode; does not own the loop that drives it.

Segments are never changed once appended: what a Flush has shown to the learner stays as it was.
"""

from asyncppo.wire.experience import Lease, Segment, Trajectory
from asyncppo_runtime.rollout.engines.interface import GenerateResult


class Episode:
    """The growing trajectory of `lease`.

    recorded: indices of segments the learner has acknowledged in a partial upload. dropped: nobody wants it any more; set before its
    task is cancelled, so that every other cancellation is known to be the environment's own. Seconds are wall time.
    """

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.session = f"lease-{lease.lease_id}"
        self.token_ids: list[int] = []
        self.segments: list[Segment] = []
        self.recorded: set[int] = set()
        self.dropped = False
        self.reward = 0.0
        self.turns = 0
        self.end_reason = ""
        self.error = ""
        self.sampling_seconds = 0.0
        self.environment_seconds = 0.0
        self.paused_seconds = 0.0

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return bool(self.end_reason)

    @property
    def sampled_tokens(self) -> int:
        """Tokens the model sampled."""
        return sum(segment.tokens for segment in self.segments)

    def append_environment(self, token_ids: list[int]) -> None:
        """Tokens the model did not sample."""
        self.token_ids += token_ids

    def append_sampled(self, result: GenerateResult) -> None:
        """Tokens of one generate(), one segment per span."""
        base = len(self.token_ids)
        self.token_ids += result.token_ids
        for span in result.spans:
            self.segments.append(
                Segment(
                    index=len(self.segments),
                    start=base + span.start,
                    end=base + span.end,
                    version=span.version,
                    weights_hash=span.weights_hash,
                    logprobs=result.logprobs[span.start : span.end],
                )
            )

    def end(self, reason: str, error: str = "") -> None:
        """It is over: done, max_turns, overlong, environment_timeout or environment_error."""
        self.end_reason = reason
        self.error = error

    def trajectory(self) -> Trajectory:
        """What there is of it now; the partial form (no reward) until it has ended."""
        return Trajectory(
            lease_id=self.lease.lease_id,
            group_id=self.lease.group_id,
            token_ids=list(self.token_ids),
            segments=list(self.segments),
            finished=self.finished,
            reward=self.reward if self.finished else 0.0,
            end_reason=self.end_reason,
            turns=self.turns,
            error=self.error,
            sampling_seconds=self.sampling_seconds,
            environment_seconds=self.environment_seconds,
            paused_seconds=self.paused_seconds,
        )
