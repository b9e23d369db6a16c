"""What numbers, names and texts a message may carry: the types its structs are declared with, judged while it is decoded.

Owns the bounds that hold for every job. Does not own those that depend on one: vocabulary and context length are judged where
trajectories are received.
"""

from typing import Annotated

import msgspec

LARGEST = 2**63 - 1
"""What the ledger's columns can hold."""
LONGEST_NAME = 253
"""Longest DNS name, so the longest pod name, and the longest host of a URL."""

Number = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
"""A count, an id, an epoch, an incarnation."""
VersionNumber = Annotated[int, msgspec.Meta(ge=-1, le=LARGEST)]
"""A policy version; -1 where there is none yet."""
Ordinal = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)]
"""A position within one trajectory; -1 for the trajectory as a whole."""
Name = Annotated[
    str, msgspec.Meta(pattern=r"\A[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\Z", max_length=LONGEST_NAME)
]
"""A member: rollout-0 on one machine, the pod's name on a cluster."""
Identity = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]
"""A job's uid, a coordinator's name, a column."""
Digest = Annotated[str, msgspec.Meta(max_length=128)]
"""A hash in hex."""
Text = Annotated[str, msgspec.Meta(max_length=1 << 16)]
"""Words for a human."""
Address = Annotated[str, msgspec.Meta(max_length=512)]
"""A URL, before it is judged (`asyncppo.wire.address`)."""
