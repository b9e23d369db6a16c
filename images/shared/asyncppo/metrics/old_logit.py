"""An old-logit worker's metrics. Owns the entries; does not own the measuring."""

from asyncppo.metrics.metric import SECONDS_BUCKETS, counter, gauge, histogram

LOADED_VERSIONS = gauge("asyncppo_old_logit_loaded_versions", "Distinct policy versions held in memory.")
NEWEST_VERSION = gauge("asyncppo_old_logit_policy_version", "Newest policy version held; -1 before the first.")
QUEUE = gauge("asyncppo_old_logit_queued_segments", "Segments waiting to be scored here.")
SCORED_TOKENS = counter("asyncppo_old_logit_scored_tokens_total", "Tokens scored.")
SCORED_SEGMENTS = counter("asyncppo_old_logit_scored_segments_total", "Segments scored.")
REFUSED_SEGMENTS = counter("asyncppo_old_logit_refused_segments_total", "Segments not scored, by reason.", "reason")
SCORE_SECONDS = histogram("asyncppo_old_logit_score_seconds", "One scoring forward.", SECONDS_BUCKETS)
LOADS = counter("asyncppo_old_logit_loads_total", "Weight loads by result: loaded, rejected.", "result")
LOAD_SECONDS = histogram("asyncppo_old_logit_load_seconds", "Pulling and loading one version.", SECONDS_BUCKETS)
PULLED_BYTES = counter("asyncppo_old_logit_pulled_bytes_total", "Bytes of weights pulled from the learner.")
BUILT = (
    LOADED_VERSIONS, NEWEST_VERSION, QUEUE, SCORED_TOKENS, SCORED_SEGMENTS, REFUSED_SEGMENTS, SCORE_SECONDS, LOADS,
    LOAD_SECONDS, PULLED_BYTES,
)  # fmt: skip
"""All of them, in the order of docs/metrics.md."""
