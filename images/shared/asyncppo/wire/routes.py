"""Every path of the programs' HTTP surface, in one place, and whose it is.

/healthz, /readyz and /metrics are open; all others need `Authorization: Bearer TOKEN`. A member may call the routes of its role, for
itself; control may call any.
"""

from asyncppo.wire.tokens import Role

HEALTHZ = "/healthz"
READYZ = "/readyz"
METRICS = "/metrics"

# learner: experience
LEASES = "/v1/leases"  # POST LeaseRequest -> LeaseReply
GIVE_BACK = "/v1/leases/give-back"  # POST GiveBack -> UploadReply
TRAJECTORIES = "/v1/trajectories"  # POST Upload (finished) -> UploadReply
SEGMENTS = "/v1/segments"  # POST Upload (partial, at a Flush) -> UploadReply

# learner: membership
JOIN = "/v1/members/join"  # POST Join -> Joined
READY = "/v1/members/ready"  # POST Ready -> HeartbeatReply
HEARTBEAT = "/v1/members/heartbeat"  # POST Heartbeat -> HeartbeatReply
LEAVE = "/v1/members/leave"  # POST Leave -> HeartbeatReply
DRAIN = "/v1/members/drain"  # POST Envelope -> HeartbeatReply (operator: scale-down)

# learner: weights
WEIGHTS = "/v1/weights/{version}"  # GET, ranged; the published safetensors file

# learner: old-logit workers (strategy Dedicated)
TRAIN_WEIGHTS = "/v1/train-weights/{version}"  # GET, ranged; the train-side safetensors file
WORKER_JOIN = "/v1/old-logits/join"  # POST WorkerJoin -> WorkerJoined
WORKER_TAKE = "/v1/old-logits/take"  # POST TakeWork -> Work; waits for work
WORKER_SCORES = "/v1/old-logits/scores"  # POST Scored -> ScoredReply
WORKER_GIVE_BACK = "/v1/old-logits/give-back"  # POST GiveBackWork -> ScoredReply

# learner: sync
SYNC = "/v1/sync"  # GET ?wait=seconds -> SyncView; answers at once when a sync is wanted or open
SYNC_BEGIN = "/v1/sync/begin"  # POST Begin -> SyncView
SYNC_SCORE = "/v1/sync/score"  # POST SyncCall -> SyncView
SYNC_SEAL = "/v1/sync/seal"  # POST Seal -> SyncView
SYNC_STEP = "/v1/sync/step"  # POST SyncCall -> SyncView
SYNC_PUBLISH = "/v1/sync/publish"  # POST SyncCall -> SyncView (record and canary of the target)
SYNC_FINISH = "/v1/sync/finish"  # POST Finish -> SyncView

# learner: the job
STATUS = "/v1/status"  # GET -> JSON: progress, reward, staleness, ledger, exactness (report.status.LearnerStatus)
STOP = "/v1/stop"  # POST {} -> JSON: checkpoint, then stop cleanly

# rollout: sync
PAUSE = "/v1/sync/pause"  # POST Pause -> Paused
FLUSH = "/v1/sync/flush"  # POST Flush -> Manifest
LOAD = "/v1/sync/load"  # POST Load -> Loaded
RESUME = "/v1/sync/resume"  # POST Resume -> Resumed

ALLOWED: dict[Role, frozenset[str]] = {
    Role.ROLLOUT: frozenset({LEASES, GIVE_BACK, TRAJECTORIES, SEGMENTS, JOIN, READY, HEARTBEAT, LEAVE, WEIGHTS}),
    Role.OLD_LOGIT: frozenset({TRAIN_WEIGHTS, WORKER_JOIN, WORKER_TAKE, WORKER_SCORES, WORKER_GIVE_BACK}),
}
"""What the members of a role may call on the learner; all else is control's."""


def may_call(role: Role, path: str) -> bool:
    """Whether a caller of this role may call a route, named by its path here."""
    return role is Role.CONTROL or path in ALLOWED[role]
