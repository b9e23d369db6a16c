"""Manifests against the ledger: a comparison of sets, by (lease, index, digest). Owns what counts as a gap.

Does not own what a gap leads to (`epochs.py` refuses the seal; the learner asks for uploads and scores).
"""

from collections.abc import Iterable

from asyncppo.wire.experience import Manifest
from asyncppo_runtime.ledger.database import Database, ids
from asyncppo_runtime.ledger.records import LeaseState, ManifestGaps, SegmentKey, SegmentState

REFUSED_FOR_GOOD = (LeaseState.EXPIRED, LeaseState.RETURNED)


def gaps(db: Database, manifests: Iterable[Manifest]) -> ManifestGaps:
    """What stands in the way of a seal. An entry of a lease that has expired, was returned or never existed is no gap: every
    upload for it is refused, so no token of it can come in later."""
    listed = {
        SegmentKey(entry.lease_id, entry.index, entry.digest) for manifest in manifests for entry in manifest.entries
    }
    wanted = ids({key.lease_id for key in listed})
    states: dict[int, str] = dict(
        db.rows("SELECT lease_id, state FROM leases WHERE lease_id IN (SELECT value FROM json_each(?))", wanted)
    )
    recorded = {
        (lease, index): (digest, state)
        for lease, index, digest, state in db.rows(
            "SELECT lease_id, position, digest, state FROM segments WHERE lease_id IN (SELECT value FROM json_each(?))",
            wanted,
        )
    }
    unrecorded, unscored, conflicting = [], [], []
    for key in sorted(listed):
        lease = states.get(key.lease_id)
        digest, state = recorded.get((key.lease_id, key.index), (None, None))
        if lease is None or lease in REFUSED_FOR_GOOD:
            continue
        if digest is None:
            unrecorded.append(key)
        elif digest != key.digest:
            conflicting.append(key)
        elif state == SegmentState.UNSCORED:
            unscored.append(key)
    return ManifestGaps(unrecorded, unscored, conflicting)
