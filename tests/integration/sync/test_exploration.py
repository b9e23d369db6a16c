"""Every history of every column with one fault: lost, late and doubled messages, crashes, expired leases, pauses and patience."""

import pytest

from asyncppo.sync.columns import COLUMNS, distinct
from asyncppo.sync.exploration.__main__ import explore_column


@pytest.mark.parametrize("name", list(distinct()))
def test_no_invariant_breaks_and_there_is_always_a_way_forward(name: str) -> None:
    found = explore_column(COLUMNS[name], faults=1, samples=(1, 0))
    assert found.violation is None, str(found.violation)
    assert found.states > 20_000
    assert found.ends > 1000
