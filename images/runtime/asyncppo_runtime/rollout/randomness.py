"""Counter-based randomness of sampling: a number is a function of a seed and a position. Owns that function; keeps no state.

So what one episode draws never depends on who else was in the batch, on when it was interrupted, or on which worker runs it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

STRIDE: int = 0x9E3779B97F4A7C15 >> 1 | 1  # an odd number without pattern; positions of a stream are this far apart
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
SEED_BITS: int = 63


def uniform(seed: npt.NDArray[np.uint64], position: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """A number in [0, 1) per (seed, position), with 53 random bits: splitmix64's finaliser over seed + position x STRIDE mod 2^63.

    Finaliser: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014), variant of Stafford ("mix13").
    """
    with np.errstate(over="ignore"):
        x: Any = (seed + position * np.uint64(STRIDE)) & np.uint64(2**SEED_BITS - 1)
        x = x + GOLDEN
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return np.asarray((x >> np.uint64(11)) * 2.0**-53, np.float64)


def continued_seed(seed: int, position: int) -> int:
    """The seed of a request whose first output token stands at `position` of the stream that `seed` began; 63 bits.

    uniform(continued_seed(s, p), j) == uniform(s, p + j): a request resubmitted after an interruption draws on where it stopped,
    and no two requests of an episode share a seed (whatever an engine makes of it).
    """
    return (seed + position * STRIDE) % (1 << SEED_BITS)
