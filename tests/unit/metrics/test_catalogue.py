"""The catalogue keeps the house's rules, the page says what it says, and the learner's collector tells the figures it is given."""

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from asyncppo.metrics import document, learner, operator
from asyncppo.metrics.dashboards import job as job_dashboard
from asyncppo.metrics.dashboards import operator as operator_dashboard
from asyncppo.metrics.learner_collector import LearnerCollector
from asyncppo.metrics.metric import STALENESS_BUCKETS, Kind, Metric, counter, gauge, histogram
from asyncppo.report.measures import (
    Discrepancy,
    LearnerStatus,
    LedgerTokens,
    LedgerTotals,
    MemberView,
    OldLogits,
    Staleness,
    UpdateMetrics,
)

ALL = [metric for _, _, metrics in document.PARTS for metric in metrics]
ROOT = Path(__file__).parents[3]


def scraped(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of a scrape by name and labels."""
    text = generate_latest(registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_names_are_unique_and_each_constant_is_in_its_modules_list() -> None:
    names = [metric.name for metric in ALL]
    assert len(names) == len(set(names))
    for module in (learner, operator):
        constants = [value for value in vars(module).values() if isinstance(value, Metric)]
        assert {metric.name for metric in constants} == {metric.name for metric in module.BUILT}


def test_each_metric_lives_in_the_part_its_name_says() -> None:
    for title, _, metrics in document.PARTS:
        part = {"Old-logit worker": "old_logit"}.get(title, title.lower())
        assert all(metric.name.startswith(f"asyncppo_{part}_") for metric in metrics)


@pytest.mark.parametrize(
    "make",
    [
        lambda: gauge("asyncppo_learner_things_total", "x"),
        lambda: counter("asyncppo_learner_things", "x"),
        lambda: gauge("learner_things", "x"),
        lambda: gauge("asyncppo_learner_things", "x", "namespace"),
        lambda: histogram("asyncppo_learner_things", "x", (2.0, 1.0)),
        lambda: Metric("asyncppo_learner_things", Kind.HISTOGRAM, "x"),
    ],
)
def test_a_metric_that_breaks_the_rules_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match="learner_things"):
        make()  # type: ignore[operator]


def test_an_entry_makes_only_the_instrument_it_is() -> None:
    with pytest.raises(TypeError, match="is a counter"):
        learner.UPDATES.gauge(CollectorRegistry())


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (document.PATH, document.page),
        (job_dashboard.PATH, job_dashboard.text),
        (operator_dashboard.PATH, operator_dashboard.text),
    ],
)
def test_the_committed_files_are_what_the_catalogue_says(path: str, text: Callable[[], str]) -> None:
    assert (ROOT / path).read_text() == text(), f"{path}: run `make generate`"


def test_a_distribution_is_a_cumulative_histogram_with_the_right_sum() -> None:
    family = learner.TOKEN_STALENESS.distribution([((), {0: 5, 2: 3, 5: 1, 40: 2})])
    values = {sample.labels.get("le", sample.name[-5:]): sample.value for sample in family.samples}
    assert values["0.0"] == 5
    assert values["1.0"] == 5
    assert values["2.0"] == 8
    assert values["6.0"] == 9
    assert values["32.0"] == 9
    assert values["+Inf"] == 11
    assert values["count"] == 11
    assert values["s_sum"] == 0 * 5 + 2 * 3 + 5 + 80
    assert len(STALENESS_BUCKETS) == 11


def status() -> LearnerStatus:
    return LearnerStatus(
        job="a",
        phase="Running",
        update=3,
        updates=10,
        version=3,
        old_logits=OldLogits(strategy="Interruption", exact=True, exact_coverage=1.0, violations=2),
        staleness=Staleness(histogram={0: 10, 1: 20}),
        discrepancy=Discrepancy(by_staleness={0: (10, 0.5), 33: (2, 1.0), 40: (4, 2.0)}),
        ledger=LedgerTotals(
            leased=5, received=4, in_flight=1, trained=3, waiting=1, tokens=LedgerTokens(sampled=30, scored=30)
        ),
        members=[
            MemberView(name="r-0", incarnation=1, state="Ready", version=3),
            MemberView(name="r-1", incarnation=2, state="Ready", version=1),
            MemberView(name="r-2", incarnation=3, state="Joining", version=-1),
        ],
        time={"Training": 2.5},
    )


def test_the_learners_scrape_tells_its_figures() -> None:
    collector = LearnerCollector(status)
    registry = CollectorRegistry()
    registry.register(collector)
    collector.record(
        UpdateMetrics(
            update=1,
            version=1,
            at_seconds=1.0,
            reward=0.5,
            staleness_queued={0: 4},
            staleness_in_flight={1: 4},
            quadrants={"active": 3},
        )
    )
    collector.record(
        UpdateMetrics(update=2, version=2, at_seconds=2.0, reward=0.5, quadrants={"active": 2}, entropy=1.5)
    )
    samples = scraped(registry)
    assert samples["asyncppo_learner_updates_total", ()] == 3
    assert samples["asyncppo_learner_token_staleness_versions_count", ()] == 30
    assert samples["asyncppo_learner_token_staleness_versions_sum", ()] == 20
    assert samples["asyncppo_learner_token_staleness_in_flight_versions_sum", ()] == 4
    assert samples["asyncppo_learner_token_staleness_queued_versions_sum", ()] == 0
    assert samples["asyncppo_learner_exactness_violations_total", ()] == 2
    assert samples["asyncppo_learner_quadrant_tokens_total", (("quadrant", "active"),)] == 5
    assert samples["asyncppo_learner_member_skew_versions", ()] == 2
    assert samples["asyncppo_learner_members", (("state", "Ready"),)] == 2
    assert samples["asyncppo_learner_ledger_balanced", ()] == 1
    assert samples["asyncppo_learner_entropy_nats", ()] == 1.5
    assert samples["asyncppo_learner_discrepancy_abs_nats_total", (("staleness", ">32"),)] == 2 * 1.0 + 4 * 2.0
    assert samples["asyncppo_learner_discrepancy_tokens_total", (("staleness", "0"),)] == 10
    known = {metric.name.removesuffix("_total") for metric in learner.BUILT}
    seen = {family.name for family in text_string_to_metric_families(generate_latest(registry).decode())}
    assert seen <= known
    assert known <= seen
