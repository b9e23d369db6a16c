"""Every history of the protocol within some budgets, as a table: `python -m benchmarks.exploration [--write docs/reliability.md]`.

Owns the budgets and the table. Does not own the search (`asyncppo.sync.exploration`). The larger budgets take minutes each.
"""

import argparse
import sys
from pathlib import Path

from tests.faults.page import write_block

from asyncppo.sync.columns import COLUMNS, distinct
from asyncppo.sync.exploration.__main__ import explore_column

# (columns, faults, samples of the two rollouts, rollouts needed)
BUDGETS: tuple[tuple[tuple[str, ...], int, tuple[int, int], int], ...] = (
    (tuple(distinct()), 1, (1, 0), 1),
    (("Barrier", "Snapshot"), 1, (1, 0), 2),
    (("Snapshot", "Overlapped", "Barrier"), 2, (0, 0), 1),
)


def main(argv: list[str] | None = None) -> int:
    """1 when an invariant is broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exploration", description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="the page whose block is replaced")
    options = parser.parse_args(argv)
    rows = ["| column | faults | samples | min ready | worlds | moves | ends |", "|---|---|---|---|---|---|---|"]
    broken = []
    for columns, faults, samples, min_ready in BUDGETS:
        for name in columns:
            found = explore_column(COLUMNS[name], faults, samples, min_ready)
            same = f" (the same protocol: {', '.join(others)})" if (others := distinct().get(name)) else ""
            rows.append(
                f"| {name}{same} | {faults} | {samples[0]},{samples[1]} | {min_ready} "
                f"| {found.states:,} | {found.moves:,} | {found.ends:,} |"
            )
            print(f"{rows[-1]} {found.seconds:.0f} s", flush=True)
            if found.violation is not None:
                broken.append(f"{name}: {found.violation}")
    print("\n".join(broken) or "no invariant is broken")
    if options.write is not None and not broken:
        write_block(options.write, "exploration", "\n".join(rows))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
