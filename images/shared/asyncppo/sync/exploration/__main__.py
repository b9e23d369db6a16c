"""`python -m asyncppo.sync.exploration`: explore every column, then show that each broken variant is caught.

Owns the command and what it prints. Exit codes: 0 all holds and every variant is caught; 1 otherwise; 2 bad arguments.
"""

import argparse
import sys
from functools import partial

from asyncppo.sync.columns import COLUMNS, Column, distinct
from asyncppo.sync.exploration.moves import beginning, moves
from asyncppo.sync.exploration.search import Explored, explore
from asyncppo.sync.exploration.variants import VARIANTS, Variant

FAULTS = 1
SAMPLES = (1, 0)


def explore_column(
    column: Column, faults: int = FAULTS, samples: tuple[int, ...] = SAMPLES, min_ready: int = 1
) -> Explored:
    """Every world of a column within the budget."""
    return explore(beginning(column.name, faults, samples, min_ready), moves)


def explore_variant(variant: Variant) -> Explored:
    """The same for a broken variant, up to the first violation."""
    return explore(beginning(variant.column, variant.faults, variant.samples), partial(moves, rules=variant.rules))


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m asyncppo.sync.exploration", description=__doc__.splitlines()[0])
    parser.add_argument("--column", choices=sorted(COLUMNS), help="this one only, and no variants")
    parser.add_argument("--faults", type=int, default=FAULTS, help=f"faults in one history (default {FAULTS})")
    parser.add_argument(
        "--samples",
        default=",".join(map(str, SAMPLES)),
        help="segments each of the two rollouts may sample, e.g. 1,1 (default %(default)s)",
    )
    parser.add_argument("--min-ready", type=int, default=1, help="rollouts without which no sync begins (default 1)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    options = arguments(argv)
    try:
        samples = tuple(int(part) for part in options.samples.split(","))
        if len(samples) != 2 or min(*samples, options.faults) < 0:
            raise ValueError
    except ValueError:
        print("--samples takes two counts, e.g. 1,0; --faults a count", file=sys.stderr)
        return 2
    well = True
    print(f"{'column':<12}{'worlds':>10}{'moves':>10}{'ends':>8}{'seconds':>9}")
    for name, same in ({options.column: []} if options.column else distinct()).items():
        found = explore_column(COLUMNS[name], options.faults, samples, options.min_ready)
        print(f"{name:<12}{found.states:>10}{found.moves:>10}{found.ends:>8}{found.seconds:>9.1f}", flush=True)
        for other in same:
            print(f"{other:<12}  as {name}: the same phases and the same seal")
        if found.violation is not None:
            well = False
            print(f"\n{found.violation}\n")
    for variant in () if options.column else VARIANTS:
        found = explore_variant(variant)
        caught = found.violation is not None and found.violation.invariant == variant.breaks
        well = well and caught
        print(f"\n{variant.name} ({variant.what}), {variant.column}: {'caught' if caught else 'NOT CAUGHT'}")
        if found.violation is not None:
            print(found.violation, flush=True)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
