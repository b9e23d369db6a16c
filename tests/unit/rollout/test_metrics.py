"""A scrape of a rollout worker shows every metric of the catalogue and the tally's numbers."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from asyncppo.metrics import rollout
from asyncppo_runtime.rollout.metrics import Gauges, RolloutMetrics
from asyncppo_runtime.rollout.tally import Tally


def test_every_catalogued_metric_is_there() -> None:
    registry, tally = CollectorRegistry(), Tally()
    now = Gauges(policy_version=4, incarnation=2, episodes=3, requests=1, outbox=5, paused=True, kv_usage=0.25)
    metrics = RolloutMetrics(registry, tally, lambda: now)
    tally.sampled_tokens = 7
    tally.trajectories["done"] += 2
    tally.discarded_tokens["fenced"] += 3
    tally.loads["loaded"] += 1
    metrics.pause_seconds.observe(0.5)
    families = {f.name: f for f in text_string_to_metric_families(generate_latest(registry).decode())}
    assert set(families) == {metric.name.removesuffix("_total") for metric in rollout.BUILT}
    values = {(s.name, *s.labels.values()): s.value for f in families.values() for s in f.samples}
    assert values[("asyncppo_rollout_policy_version",)] == 4
    assert values[("asyncppo_rollout_paused",)] == 1
    assert values[("asyncppo_rollout_sampled_tokens_total",)] == 7
    assert values[("asyncppo_rollout_trajectories_total", "done")] == 2
    assert values[("asyncppo_rollout_discarded_tokens_total", "fenced")] == 3
    assert values[("asyncppo_rollout_pause_seconds_sum",)] == 0.5
