"""Which strategy has which column."""

import pytest

from asyncppo.api.correction import Scoring, Strategy
from asyncppo.sync.columns import COLUMNS, Phase, SealRule, column_of, distinct


@pytest.mark.parametrize("strategy", [found for found in Strategy if found is not Strategy.AUTO])
def test_every_strategy_has_a_column(strategy: Strategy) -> None:
    column = column_of(strategy)
    assert COLUMNS[column.name] is column
    assert (column.name == "Inexact") is (not strategy.exact)


def test_interruption_has_one_per_way_of_scoring() -> None:
    assert column_of(Strategy.INTERRUPTION, Scoring.BARRIER).rule is SealRule.SCORED
    assert column_of(Strategy.INTERRUPTION, Scoring.OVERLAPPED).rule is SealRule.RECORDED


@pytest.mark.parametrize("column", list(COLUMNS.values()))
def test_what_the_order_of_every_column_must_keep(column) -> None:  # type: ignore[no-untyped-def]
    place = {phase: number for number, phase in enumerate(column.phases)}
    assert place[Phase.BEGIN] == 0
    assert place[Phase.PAUSE] < place[Phase.SEAL] < place[Phase.LOAD] < place[Phase.FINISH] < place[Phase.RESUME]
    assert place[Phase.STEP] < place[Phase.PUBLISH] < place[Phase.LOAD]
    if column.flushes:
        assert place[Phase.PAUSE] < place[Phase.FLUSH] < place[Phase.SEAL]
    if column.rule is SealRule.SCORED:
        assert place[Phase.FLUSH] < place[Phase.SCORE] < place[Phase.SEAL] < place[Phase.STEP]
    assert column.after(Phase.RESUME) is Phase.IDLE


def test_columns_of_one_protocol_are_named_together() -> None:
    assert distinct() == {"Barrier": [], "Overlapped": [], "Snapshot": ["Dedicated", "Inexact"]}
