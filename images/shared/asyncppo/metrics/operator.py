"""The operator's metrics: jobs mirrored at scrape time, syncs it coordinates, and its own health.

Owns the entries. Does not own the collector (`asyncppo_operator.metrics`). Per-job series carry asyncppo_namespace and
asyncppo_job, the labels a PodMonitor gives the pods' own series, so that both join.
"""

from asyncppo.metrics.metric import SECONDS_BUCKETS, STALENESS_BUCKETS, counter, gauge, histogram

JOB = ("asyncppo_namespace", "asyncppo_job")

JOB_INFO = gauge("asyncppo_operator_job_info", "1 for each job.", *JOB, "strategy", "exact", "engine")
JOB_PHASE = gauge("asyncppo_operator_job_phase", "1 for the phase the job is in, 0 for the others.", *JOB, "phase")
JOB_CONDITION = gauge(
    "asyncppo_operator_job_condition", "1 when the condition is True, 0 when False, -1 when Unknown.", *JOB, "condition"
)
JOB_VERSION = gauge("asyncppo_operator_job_policy_version", "Policy version resident in the job's learner.", *JOB)
JOB_PROGRESS = gauge("asyncppo_operator_job_progress_ratio", "Optimizer steps done over those planned.", *JOB)
JOB_REWARD = gauge("asyncppo_operator_job_reward_mean", "Mean trajectory reward of the job's newest batch.", *JOB)
JOB_SKEW = gauge(
    "asyncppo_operator_job_version_skew_versions",
    "Learner's version minus the oldest version a ready rollout is on.",
    *JOB,
)
JOB_STALENESS = histogram(
    "asyncppo_operator_job_token_staleness_versions",
    "Staleness of each token the job trained on, mirrored from the learner's totals.",
    STALENESS_BUCKETS,
    *JOB,
)
JOB_STALENESS_MAX = gauge(
    "asyncppo_operator_job_staleness_max_versions", "Largest staleness of any token the job trained on.", *JOB
)
JOB_STALENESS_BOUND = gauge("asyncppo_operator_job_staleness_bound_versions", "spec.staleness.maxVersions.", *JOB)
JOB_EXACT_COVERAGE = gauge(
    "asyncppo_operator_job_exact_coverage_ratio", "Share of loss tokens with a verified exact old log-prob.", *JOB
)
JOB_VIOLATIONS = counter(
    "asyncppo_operator_job_exactness_violations_total", "Segments that contradicted their label.", *JOB
)
JOB_LEDGER_BALANCED = gauge(
    "asyncppo_operator_job_ledger_balanced", "1 while every ledger equation of the job holds, else 0.", *JOB
)
JOB_ROLLOUTS = gauge(
    "asyncppo_operator_job_rollouts", "The job's rollouts: desired, ready, fenced, joining.", *JOB, "state"
)
JOB_FAILURES = counter("asyncppo_operator_job_failures_total", "Failures of a role counted so far.", *JOB, "role")
JOB_STATUS_AGE = gauge(
    "asyncppo_operator_job_status_age_seconds", "Age of the newest answer of the job's learner.", *JOB
)

SYNC_SECONDS = histogram(
    "asyncppo_operator_sync_phase_seconds",
    "One phase of one version sync, over the slowest rollout.",
    SECONDS_BUCKETS,
    *JOB,
    "phase",
)
SYNCS = counter("asyncppo_operator_syncs_total", "Version syncs coordinated, by result.", *JOB, "result")
SYNC_FENCED = counter("asyncppo_operator_sync_fenced_rollouts_total", "Rollouts fenced by version syncs.", *JOB)

JOBS = gauge("asyncppo_operator_jobs", "Jobs by phase.", "phase")
RECONCILES = counter("asyncppo_operator_reconciles_total", "Reconciles, by result: ok, error, forbidden.", "result")
RECONCILE_SECONDS = histogram("asyncppo_operator_reconcile_seconds", "One reconcile of one job.", SECONDS_BUCKETS)
RECONCILE_ERRORS = counter("asyncppo_operator_reconcile_errors_total", "Failed reconciles, by reason.", "reason")
WAKE_LAG = histogram(
    "asyncppo_operator_wake_lag_seconds", "From the event that woke a job to its reconcile's begin.", SECONDS_BUCKETS
)
API_REQUESTS = counter(
    "asyncppo_operator_api_requests_total", "Calls to the API server; code 0 means no answer.", "verb", "kind", "code"
)
API_SECONDS = histogram("asyncppo_operator_api_request_seconds", "One call to the API server.", SECONDS_BUCKETS, "verb")
API_REACHABLE = gauge("asyncppo_operator_api_reachable", "1 while the API server answers, else 0.")
WATCH_AGE = gauge("asyncppo_operator_watch_age_seconds", "Since a watch was last heard of.", "kind")
WATCH_RESTARTS = counter("asyncppo_operator_watch_restarts_total", "Watches begun anew, by why.", "kind", "reason")
MISSING_RIGHTS = gauge(
    "asyncppo_operator_missing_rights", "1 for each right the operator needs and lacks.", "verb", "resource"
)
LEADER = gauge("asyncppo_operator_leader", "1 while this replica holds the Lease, else 0.")
BUILD_INFO = gauge("asyncppo_operator_build_info", "1.", "version")
BUILT = (
    JOB_INFO, JOB_PHASE, JOB_CONDITION, JOB_VERSION, JOB_PROGRESS, JOB_REWARD, JOB_SKEW, JOB_STALENESS,
    JOB_STALENESS_MAX, JOB_STALENESS_BOUND, JOB_EXACT_COVERAGE, JOB_VIOLATIONS, JOB_LEDGER_BALANCED, JOB_ROLLOUTS,
    JOB_FAILURES, JOB_STATUS_AGE, SYNC_SECONDS, SYNCS, SYNC_FENCED, JOBS, RECONCILES, RECONCILE_SECONDS,
    RECONCILE_ERRORS, WAKE_LAG, API_REQUESTS, API_SECONDS, API_REACHABLE, WATCH_AGE, WATCH_RESTARTS, MISSING_RIGHTS,
    LEADER, BUILD_INFO,
)  # fmt: skip
"""All of them, in the order of docs/metrics.md."""
