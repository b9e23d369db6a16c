"""The learner's metrics: staleness, discrepancy, exactness, ledger, syncs, where its time goes.

Owns the entries. Does not own how they are read (`learner_collector.py`) nor measured (the learner).
"""

from asyncppo.metrics.metric import STALENESS_BUCKETS, counter, gauge, histogram

POLICY_VERSION = gauge("asyncppo_learner_policy_version", "Policy version resident in the learner.")
UPDATES = counter("asyncppo_learner_updates_total", "Optimizer steps done.")
UPDATES_PLANNED = gauge("asyncppo_learner_planned_updates", "Optimizer steps the job asks for.")
TRAINED_TOKENS = counter("asyncppo_learner_trained_tokens_total", "Loss tokens consumed by optimizer steps.")
TRAINED_TRAJECTORIES = counter(
    "asyncppo_learner_trained_trajectories_total", "Trajectories consumed by optimizer steps."
)
REWARD = gauge("asyncppo_learner_reward_mean", "Mean trajectory reward of the newest batch.")
REWARD_STD = gauge("asyncppo_learner_reward_std", "Standard deviation of the trajectory rewards of the newest batch.")

TOKEN_STALENESS = histogram(
    "asyncppo_learner_token_staleness_versions",
    "Staleness of each trained token: versions between its sampling and the step that consumed it.",
    STALENESS_BUCKETS,
)
TOKEN_STALENESS_IN_FLIGHT = histogram(
    "asyncppo_learner_token_staleness_in_flight_versions",
    "The part of a trained token's staleness gathered while its trajectory was still being produced.",
    STALENESS_BUCKETS,
)
TOKEN_STALENESS_QUEUED = histogram(
    "asyncppo_learner_token_staleness_queued_versions",
    "The part of a trained token's staleness gathered while its trajectory waited to be trained on.",
    STALENESS_BUCKETS,
)
TRAJECTORY_STALENESS = histogram(
    "asyncppo_learner_trajectory_staleness_versions",
    "Staleness of the oldest token of each trained trajectory.",
    STALENESS_BUCKETS,
)

DISCREPANCY_TOKENS = counter(
    "asyncppo_learner_discrepancy_tokens_total", "Trained tokens whose discrepancy was measured.", "staleness"
)
DISCREPANCY_ABS = counter(
    "asyncppo_learner_discrepancy_abs_nats_total",
    "Sum of |old - behavior| log-probability over the tokens of discrepancy_tokens; their quotient is the mean.",
    "staleness",
)
DISCREPANCY_K3 = gauge("asyncppo_learner_discrepancy_k3_nats", "KL estimate k3 between old and behavior policy.")
DISCREPANCY_MAX = gauge("asyncppo_learner_discrepancy_abs_max_nats", "Largest |old - behavior| log-probability so far.")
DISCREPANCY_SLOPE = gauge(
    "asyncppo_learner_discrepancy_slope_nats",
    "Slope of the mean |old - behavior| per version of staleness; about 0 when old log-probs are exact.",
)
STALENESS_RATIO = gauge(
    "asyncppo_learner_staleness_ratio_mean", "Mean policy over old probability of the newest batch's tokens."
)
STALENESS_RATIO_MAX = gauge(
    "asyncppo_learner_staleness_ratio_max", "Largest policy over old probability of the newest batch's tokens."
)
CLIPPED = gauge("asyncppo_learner_clipped_tokens_ratio", "Share of the newest batch's tokens the objective clipped.")
MASKED = gauge(
    "asyncppo_learner_masked_tokens_ratio", "Share of the newest batch's tokens the discrepancy control masked."
)
QUADRANT_TOKENS = counter(
    "asyncppo_learner_quadrant_tokens_total",
    "Trained tokens by what the objective did with them: active, masked, clipped, maskedAndClipped.",
    "quadrant",
)
EXACT_COVERAGE = gauge(
    "asyncppo_learner_exact_coverage_ratio",
    "Share of loss tokens whose old log-prob was verified to be of the version that sampled them.",
)
EXACTNESS_VIOLATIONS = counter(
    "asyncppo_learner_exactness_violations_total",
    "Segments whose version, weights hash or discrepancy bound contradicted their label.",
)
FALLBACKS = counter(
    "asyncppo_learner_old_logprob_fallback_tokens_total", "Tokens whose exact old log-prob could not be had."
)
AUDITED = counter(
    "asyncppo_learner_audited_tokens_total",
    "Tokens also scored exactly, by what the old log-probs in use decided on them: all, agree, falseMask, missedMask, falseClip, "
    "missedClip.",
    "decision",
)
AUDIT_ERROR = gauge("asyncppo_learner_audit_error_nats", "Mean |old - exact| log-probability of audited tokens.")
SCORING_QUEUE = gauge(
    "asyncppo_learner_scoring_queue_segments", "Segments that wait for an old-logit worker (strategy Dedicated)."
)
SCORER_LOST = gauge(
    "asyncppo_learner_scorer_lost", "1 while no old-logit worker can be counted on (strategy Dedicated), else 0."
)

LOSS = gauge("asyncppo_learner_loss", "Loss of the newest step.")
GRADIENT_NORM = gauge("asyncppo_learner_gradient_norm", "Global gradient norm of the newest step before clipping.")
LEARNING_RATE = gauge("asyncppo_learner_learning_rate", "Learning rate of the newest step.")
ENTROPY = gauge("asyncppo_learner_entropy_nats", "Mean token entropy of the newest batch.")
KL = gauge("asyncppo_learner_reference_kl_nats", "KL estimate against the initial policy of the newest batch.")
EFFECTIVE_SAMPLE_SIZE = gauge(
    "asyncppo_learner_effective_sample_ratio", "Effective sample size of the newest batch over its tokens."
)
VALUE_LOSS = gauge("asyncppo_learner_value_loss", "Loss of the critic at the newest step (GAE).")
EXPLAINED_VARIANCE = gauge(
    "asyncppo_learner_explained_variance_ratio",
    "Share of the newest batch's variance of returns that the critic explained (GAE).",
)

LEDGER_TRAJECTORIES = gauge(
    "asyncppo_learner_ledger_trajectories",
    "Trajectory attempts by fate: leased, inFlight, received, expired, returned, trained, waiting, undone.",
    "fate",
)
LEDGER_DISCARDED_TRAJECTORIES = gauge(
    "asyncppo_learner_ledger_discarded_trajectories", "Received trajectories that were discarded.", "reason"
)
LEDGER_REFUSED = gauge("asyncppo_learner_ledger_refused_messages", "Uploads the ledger refused.", "reason")
LEDGER_TOKENS = gauge(
    "asyncppo_learner_ledger_tokens", "Sampled tokens by fate: sampled, scored, unscored, trained.", "fate"
)
LEDGER_DISCARDED_TOKENS = gauge(
    "asyncppo_learner_ledger_discarded_tokens", "Sampled tokens that were discarded.", "reason"
)
LEDGER_BALANCED = gauge("asyncppo_learner_ledger_balanced", "1 while every ledger equation holds, else 0.")

SYNCS = counter("asyncppo_learner_syncs_total", "Version syncs finished.")
FENCED = counter("asyncppo_learner_fenced_members_total", "Members fenced: nothing from that incarnation is accepted.")
MEMBERS = gauge("asyncppo_learner_members", "Rollouts the learner knows, by state.", "state")
MEMBER_SKEW = gauge(
    "asyncppo_learner_member_skew_versions", "Resident version minus the oldest version a ready rollout is on."
)
BATCH_PROGRESS = gauge("asyncppo_learner_batch_progress_ratio", "How full the next batch is.")
ACTIVITY = counter(
    "asyncppo_learner_activity_seconds_total",
    "Where the learner's time went: Batch (starved), Straggler, Training, Sync, and the like.",
    "activity",
)
BUILT = (
    POLICY_VERSION, UPDATES, UPDATES_PLANNED, TRAINED_TOKENS, TRAINED_TRAJECTORIES, REWARD, REWARD_STD,
    TOKEN_STALENESS, TOKEN_STALENESS_IN_FLIGHT, TOKEN_STALENESS_QUEUED, TRAJECTORY_STALENESS,
    DISCREPANCY_TOKENS, DISCREPANCY_ABS, DISCREPANCY_K3, DISCREPANCY_MAX, DISCREPANCY_SLOPE,
    STALENESS_RATIO, STALENESS_RATIO_MAX, CLIPPED, MASKED, QUADRANT_TOKENS, EXACT_COVERAGE, EXACTNESS_VIOLATIONS, FALLBACKS,
    AUDITED, AUDIT_ERROR, SCORING_QUEUE, SCORER_LOST,
    LOSS, GRADIENT_NORM, LEARNING_RATE, ENTROPY, KL, EFFECTIVE_SAMPLE_SIZE, VALUE_LOSS, EXPLAINED_VARIANCE,
    LEDGER_TRAJECTORIES, LEDGER_DISCARDED_TRAJECTORIES, LEDGER_REFUSED, LEDGER_TOKENS, LEDGER_DISCARDED_TOKENS,
    LEDGER_BALANCED, SYNCS, FENCED, MEMBERS, MEMBER_SKEW, BATCH_PROGRESS, ACTIVITY,
)  # fmt: skip
"""All of them, in the order of docs/metrics.md."""
