"""The virtual schedule: when each trajectory begins, and how far it gets under each version. Pure; a function of the seed alone.

Update u trains `batchGroups` groups. A group begins `lag` versions before u, lag drawn evenly from 0 to staleness.maxVersions; each
member then goes through 1 + span versions, span drawn evenly from 0 to that lag, and may sample only so many tokens under each but the
last. So staleness runs over the whole bound, within a trajectory too, and no strategy has any influence on it: what differs between
two strategies at one seed is not the schedule. At the start of training, lag is cut to the versions there are.
"""

import random
from dataclasses import dataclass

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.wire.experience import Lease, Task
from asyncppo_runtime.ledger.groups import derived_seed

TTL_SECONDS = 3600.0  # leases of a study are not watched


@dataclass(frozen=True)
class Course:
    """One trajectory. start: the version it begins under. update: the resident version when it is trained.

    allowances: most tokens it may sample under versions start, start + 1, …; under the version after the last of them it ends.
    """

    lease: Lease
    start: int
    update: int
    allowances: tuple[int, ...]

    @property
    def last(self) -> int:
        """The newest version that can have sampled any of it."""
        return self.start + len(self.allowances)

    def allowance(self, version: int) -> int | None:
        """Tokens it may sample under `version`; None: as many as it wants."""
        place = version - self.start
        return self.allowances[place] if place < len(self.allowances) else None


def courses(spec: AsyncPPOJobSpec, update: int) -> list[Course]:
    """The trajectories that update `update` (counted from 0) trains, group by group."""
    algorithm = spec.algorithm
    made = []
    for place in range(algorithm.batch_groups):
        group = update * algorithm.batch_groups + place
        rng = random.Random(derived_seed(spec.seed, "schedule", group))
        lag = min(rng.randint(0, spec.staleness.max_versions), update)
        task = Task(group, derived_seed(spec.seed, "task", group))
        for slot in range(algorithm.group_size):
            span = rng.randint(0, lag)
            highest = max(1, round(2 * longest(spec) / (span + 1)) - 1)
            made.append(
                Course(
                    lease=Lease(
                        lease_id=group * algorithm.group_size + slot,
                        group_id=group,
                        attempt=1,
                        task=task,
                        sampling_seed=derived_seed(spec.seed, "sample", group, slot, 1),
                        ttl_seconds=TTL_SECONDS,
                    ),
                    start=update - lag,
                    update=update,
                    allowances=tuple(rng.randint(1, highest) for _ in range(span)),
                )
            )
    return made


def beginning(spec: AsyncPPOJobSpec, version: int) -> list[Course]:
    """The trajectories that begin under `version`, oldest update first."""
    last = min(version + spec.staleness.max_versions, spec.algorithm.updates - 1)
    return [
        course for update in range(version, last + 1) for course in courses(spec, update) if course.start == version
    ]


def longest(spec: AsyncPPOJobSpec) -> int:
    """Most tokens a trajectory can sample, by the manifest's limits."""
    return min(spec.environment.max_turns * spec.sampling.max_tokens, spec.sampling.context_length)
