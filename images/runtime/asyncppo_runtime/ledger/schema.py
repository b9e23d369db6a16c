"""The ledger's tables. Owns their definition and version; does not own what may be written when (one module per concept).

States are stored as the words of the StrEnums in `records.py`; lists of log-probs as little-endian float64; versions that do not exist
as -1.
"""

APPLICATION_ID = 0x41505031
SCHEMA_VERSION = 2
MIGRATIONS: dict[int, str] = {1: ""}
"""What leads from a version to the next. 2: the same tables; the writer keeps `ledger.db.sums` beside the file, which a program of
version 1 would leave behind the file."""

TABLES = """
CREATE TABLE facts (
    name TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- Maintained in the same transaction as the rows they count.
CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    event_id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

-- state: Open, Sealed, RolledBack, Adopted, Finished. target: -1 until published. seconds: msgpack, phase -> seconds.
CREATE TABLE epochs (
    epoch INTEGER PRIMARY KEY,
    coordinator TEXT NOT NULL,
    state TEXT NOT NULL,
    sealed_version INTEGER NOT NULL,
    target INTEGER NOT NULL,
    seconds BLOB NOT NULL
) STRICT;

CREATE TABLE epoch_members (
    epoch INTEGER NOT NULL,
    name TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    fenced INTEGER NOT NULL,
    PRIMARY KEY (epoch, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE members (
    name TEXT PRIMARY KEY,
    incarnation INTEGER NOT NULL,
    url TEXT NOT NULL,
    state TEXT NOT NULL,
    version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- record, canary, metrics: msgpack (metrics: the learner's own bytes).
CREATE TABLE versions (
    version INTEGER PRIMARY KEY,
    lineage INTEGER NOT NULL,
    train_hash TEXT NOT NULL,
    published_hash TEXT NOT NULL,
    abandoned INTEGER NOT NULL,
    announced INTEGER NOT NULL,
    trained_groups INTEGER NOT NULL,
    record BLOB NOT NULL,
    canary BLOB,
    metrics BLOB NOT NULL
) STRICT;

CREATE TABLE checkpoints (
    version INTEGER PRIMARY KEY,
    lineage INTEGER NOT NULL,
    path TEXT NOT NULL,
    abandoned INTEGER NOT NULL
) STRICT;

-- state: Open, Ready, Trained, Discarded. oldest_version, newest_version, tokens: set when it gets ready. pruned: bodies looked at.
CREATE TABLE groups (
    group_id INTEGER PRIMARY KEY,
    seed INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    oldest_version INTEGER NOT NULL,
    newest_version INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    trained_version INTEGER NOT NULL,
    pruned INTEGER NOT NULL
) STRICT;
CREATE INDEX groups_live ON groups (group_id) WHERE state IN ('Open', 'Ready');
CREATE INDEX groups_done ON groups (state, trained_version) WHERE state IN ('Trained', 'Discarded') AND pruned = 0;
CREATE INDEX groups_trained ON groups (trained_version) WHERE state = 'Trained';

-- One place of a group. state: Free, Leased, Filled, Closed. attempts: leases granted for it; losses: those that count against it.
CREATE TABLE slots (
    group_id INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    losses INTEGER NOT NULL,
    PRIMARY KEY (group_id, slot)
) STRICT, WITHOUT ROWID;
CREATE INDEX slots_free ON slots (group_id, slot) WHERE state = 'Free';

-- version: announced when it was granted. spoiled: why its trajectory cannot be trained on any more, '' while it can.
-- length: token ids of the body kept.
CREATE TABLE leases (
    lease_id INTEGER PRIMARY KEY,
    group_id INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    member TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    version INTEGER NOT NULL,
    ttl REAL NOT NULL,
    state TEXT NOT NULL,
    spoiled TEXT NOT NULL,
    length INTEGER NOT NULL
) STRICT;
CREATE INDEX leases_in_flight ON leases (member) WHERE state = 'InFlight';
CREATE INDEX leases_of_group ON leases (group_id);

CREATE TABLE trajectories (
    lease_id INTEGER PRIMARY KEY,
    group_id INTEGER NOT NULL,
    digest TEXT NOT NULL,
    fate TEXT NOT NULL,
    reason TEXT NOT NULL,
    reward REAL NOT NULL,
    end_reason TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    trained_version INTEGER NOT NULL
) STRICT;
CREATE INDEX trajectories_of_group ON trajectories (group_id);

-- msgpack of a wire Trajectory without its segments.
CREATE TABLE bodies (
    lease_id INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE segments (
    lease_id INTEGER NOT NULL,
    position INTEGER NOT NULL,
    digest TEXT NOT NULL,
    first INTEGER NOT NULL,
    past INTEGER NOT NULL,
    version INTEGER NOT NULL,
    weights_hash TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    scorer_version INTEGER NOT NULL,
    scorer_hash TEXT NOT NULL,
    kind TEXT NOT NULL,
    behavior BLOB,
    old BLOB,
    PRIMARY KEY (lease_id, position)
) STRICT;
CREATE INDEX segments_unscored ON segments (version, lease_id, position) WHERE state = 'Unscored';

-- Which step took which group, by lineage: at most one row each.
CREATE TABLE trainings (
    group_id INTEGER NOT NULL,
    lineage INTEGER NOT NULL,
    version INTEGER NOT NULL,
    trajectories INTEGER NOT NULL,
    undone INTEGER NOT NULL,
    PRIMARY KEY (group_id, lineage)
) STRICT, WITHOUT ROWID;
"""
