"""Which groups make the next batch, and how many more may be opened. Pure; owns the staleness bound's arithmetic.

The bound is hard and per token: a step at resident version v trains no token older than v - maxVersions. Two rules hold it:
- admission: at most (maxVersions + 1) x batchGroups groups are live (opened, not yet trained or discarded);
- selection: a group whose oldest version is v - maxVersions or less is *due*: the step at v must take it, since the step at v + 1
  may not. A due group that is not complete is waited for (Wait) or discarded as `stale` (Discard).
Due groups may exceed batchGroups when stragglers come in together; then the batch is larger, never older.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from asyncppo.api.correction import StalenessAction


@dataclass(frozen=True)
class GroupState:
    """One live group. oldest_version: no token of it is, or can become, older than this."""

    group_id: int
    complete: bool
    oldest_version: int


@dataclass(frozen=True)
class Selection:
    """The answer. `batch` is empty while there is something to wait for.

    stragglers: due groups that are waited for. stale: groups to discard now. missing: complete groups still lacking.
    """

    batch: tuple[int, ...]
    stragglers: tuple[int, ...]
    stale: tuple[int, ...]
    missing: int


def live_groups_allowed(batch_groups: int, max_versions: int, still_needed: int, lag: int = 0) -> int:
    """How many groups may be live (opened, neither trained nor discarded) at once.

    still_needed: groups the remaining updates will consume, live ones included, so that a job does not sample what it will never
    train. lag: versions that the sampler is behind the resident one (a step is published, its sync not over): its tokens have that
    much less time left.
    """
    return max(0, min((max_versions - lag + 1) * batch_groups, still_needed))


def select_batch(
    groups: Sequence[GroupState], version: int, batch_groups: int, max_versions: int, action: StalenessAction
) -> Selection:
    """Choose the batch of the step at resident `version`.

    Oldest versions first, then lowest group id. A group already beyond the bound (possible only after a restore) is stale under
    either action.
    """
    beyond = {g.group_id for g in groups if g.oldest_version < version - max_versions}
    due = [g for g in groups if g.group_id not in beyond and g.oldest_version <= version - max_versions]
    late = [g for g in due if not g.complete]
    if late and action is StalenessAction.DISCARD:
        beyond |= {g.group_id for g in late}
        late = []
    stale = tuple(sorted(beyond))
    ready = sorted(
        (g for g in groups if g.complete and g.group_id not in beyond), key=lambda g: (g.oldest_version, g.group_id)
    )
    missing = max(0, batch_groups - len(ready))
    if missing:
        return Selection((), tuple(g.group_id for g in late), stale, missing)
    if late:
        return Selection((), tuple(g.group_id for g in late), stale, 0)
    forced = sum(1 for g in ready if g.oldest_version <= version - max_versions)
    return Selection(tuple(g.group_id for g in ready[: max(batch_groups, forced)]), (), stale, 0)
