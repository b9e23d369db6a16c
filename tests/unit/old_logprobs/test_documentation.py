"""The table of docs/old-logits.md says what the registry says."""

from pathlib import Path

from asyncppo_runtime.old_logprobs.registry import STRATEGIES

PAGE = Path(__file__).parents[3] / "docs" / "old-logits.md"


def test_the_table_of_strategies_is_the_registry() -> None:
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in PAGE.read_text().splitlines()
        if "| At" in line or "| B" in line
    ]
    told = {row[0]: row[1:5] for row in rows if len(row) == 7}
    word = {True: "yes", False: "no"}
    assert told == {
        strategy.value: [
            word[made.traits.exact],
            made.traits.timing.value,
            word[made.traits.keeps_versions],
            word[made.traits.extra_forwards],
        ]
        for strategy, made in STRATEGIES.items()
    }
