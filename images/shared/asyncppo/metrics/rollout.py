"""A rollout worker's metrics. Owns the entries; does not own the measuring."""

from asyncppo.metrics.metric import SECONDS_BUCKETS, counter, gauge, histogram

POLICY_VERSION = gauge("asyncppo_rollout_policy_version", "Policy version the engine has loaded; -1 before the first.")
INCARNATION = gauge("asyncppo_rollout_incarnation", "Incarnation the learner gave at the newest join.")
SAMPLED_TOKENS = counter("asyncppo_rollout_sampled_tokens_total", "Tokens sampled by the engine.")
DISCARDED_TOKENS = counter(
    "asyncppo_rollout_discarded_tokens_total", "Sampled tokens thrown away before they left the worker.", "reason"
)
TRAJECTORIES = counter("asyncppo_rollout_trajectories_total", "Trajectories finished, by how they ended.", "end_reason")
EPISODES = gauge("asyncppo_rollout_running_episodes", "Episodes in progress.")
REQUESTS = gauge("asyncppo_rollout_running_requests", "Generation requests in the engine.")
OUTBOX = gauge("asyncppo_rollout_outbox_trajectories", "Trajectories kept until the learner's receipt or score.")
SAMPLING_SECONDS = counter("asyncppo_rollout_sampling_seconds_total", "Time episodes spent waiting for the engine.")
ENVIRONMENT_SECONDS = counter("asyncppo_rollout_environment_seconds_total", "Time episodes spent in their environment.")
HELD_SECONDS = counter(
    "asyncppo_rollout_environment_held_seconds_total",
    "Time environments kept the event loop from everybody else, in stretches of 0.1 s and more.",
)
PAUSED_SECONDS = counter("asyncppo_rollout_paused_seconds_total", "Time spent paused by version syncs.")
PAUSED = gauge("asyncppo_rollout_paused", "1 while generation is paused, else 0.")
PAUSE_SECONDS = histogram("asyncppo_rollout_pause_seconds", "From Pause to Resume of one sync.", SECONDS_BUCKETS)
LOADS = counter("asyncppo_rollout_loads_total", "Weight loads by result: loaded, rejected.", "result")
LOAD_SECONDS = histogram("asyncppo_rollout_load_seconds", "Pulling and loading one version.", SECONDS_BUCKETS)
PULLED_BYTES = counter("asyncppo_rollout_pulled_bytes_total", "Bytes of weights pulled from the learner.")
CANARY_ERROR = gauge(
    "asyncppo_rollout_canary_error_nats", "Largest |engine - trainer| log-probability of the newest canary."
)
JOINS = counter("asyncppo_rollout_joins_total", "Joins: one at start, one after each fencing or lost learner.")
KV_CACHE_USAGE = gauge("asyncppo_rollout_kv_cache_usage_ratio", "Share of the KV cache in use.")
BUILT = (
    POLICY_VERSION, INCARNATION, SAMPLED_TOKENS, DISCARDED_TOKENS, TRAJECTORIES, EPISODES, REQUESTS, OUTBOX,
    SAMPLING_SECONDS, ENVIRONMENT_SECONDS, HELD_SECONDS, PAUSED_SECONDS, PAUSED, PAUSE_SECONDS, LOADS, LOAD_SECONDS, PULLED_BYTES,
    CANARY_ERROR, JOINS, KV_CACHE_USAGE,
)  # fmt: skip
"""All of them, in the order of docs/metrics.md."""
