"""Which token stands where: the bookkeeping of continuous batching, in arrays. Owns slots, sessions and the plan of a round.

A slot holds one session's exact ids, how many of them have their KV in the cache, and the request being answered. All per-token
work is vectorised over slots. Does not own tensors of the model (`torch_cache.py`, `torch_forward.py`) nor threads.
"""

from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from asyncppo_runtime.rollout.engines.interface import GenerateRequest
from asyncppo_runtime.rollout.randomness import uniform

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

PREFILL_CHUNK = 256  # most new tokens of one row in one forward
FORWARD_TOKENS = 1024  # padded tokens of one forward: bounds how long a pause can wait
PAD_UP_TO = (4, 16, 64, PREFILL_CHUNK)  # rows of one forward have pending counts within the same of these bounds
NOBODY = ""


class Group(msgspec.Struct, frozen=True):
    """Rows fed together in one forward. slots, counts: int64 [rows]; counts are the new tokens of each row, at most `width`."""

    slots: Ints
    counts: Ints
    width: int


class Finished(msgspec.Struct, frozen=True):
    """A request that has ended: its slot, and whether a stop token ended it (else its length did)."""

    slot: int
    stopped: bool


class SlotTable:
    """The slots. `context`: tokens one slot can hold, prompt and output together."""

    def __init__(self, slots: int, context: int) -> None:
        self.slots = slots
        self.context = context
        self.ids = np.zeros((slots, context), np.int64)
        self.logprobs = np.zeros((slots, context), np.float64)
        self.known = np.zeros(slots, np.int64)  # ids that stand in the slot
        self.cached = np.zeros(slots, np.int64)  # of those, the first so many have their KV in the cache
        self.start = np.zeros(slots, np.int64)  # where the running request's output begins
        self.limit = np.zeros(slots, np.int64)  # where it must end
        self.temperature = np.ones(slots, np.float64)
        self.seed = np.zeros(slots, np.uint64)
        self.stops = np.full((slots, 1), -1, np.int64)
        self.active = np.zeros(slots, np.bool_)
        self._used = np.zeros(slots, np.int64)
        self._tick = 0
        self._stops: list[list[int]] = [[]] * slots
        self._owner = [NOBODY] * slots
        self._slot_of: dict[str, int] = {}

    def admit(self, request: GenerateRequest) -> int | None:
        """Give `request` a slot: its session's own, else a free one, else the one idle for longest. None when all are active.

        KV of the longest common prefix of the slot's and the request's ids is kept; at least one token is always fed anew.
        """
        slot = self._slot_of.get(request.session)
        if slot is None:
            slot = self._free_slot()
            if slot is None:
                return None
            self.forget(self._owner[slot])
            self._owner[slot] = request.session
            self._slot_of[request.session] = slot
            self.cached[slot] = 0
        ids, count = request.token_ids, len(request.token_ids)
        same = min(int(self.cached[slot]), count - 1)
        held = self.ids[slot, :same].tolist()
        if ids[:same] != held:
            same = next(i for i, (new, old) in enumerate(zip(ids, held, strict=False)) if new != old)
        self.cached[slot] = same
        self.ids[slot, same:count] = ids[same:]
        self.known[slot] = self.start[slot] = count
        self.limit[slot] = min(count + request.max_tokens, self.context)
        self.temperature[slot] = request.temperature
        self.seed[slot] = request.seed & (2**64 - 1)
        if request.stop_token_ids != self._stops[slot]:
            self._set_stops(slot, request.stop_token_ids)
        self.active[slot] = True
        self._tick += 1
        self._used[slot] = self._tick
        return slot

    def plan(self) -> Iterator[Group]:
        """The groups of one round: every active row appears in exactly one; rows of similar pending counts go together."""
        slots = np.flatnonzero(self.active)
        if not slots.size:
            return
        counts = np.minimum(self.known[slots] - self.cached[slots], PREFILL_CHUNK)
        least = 0
        for most in PAD_UP_TO:
            chosen = (counts > least) & (counts <= most)
            least = most
            if not chosen.any():
                continue
            rows, news = slots[chosen], counts[chosen]
            width = int(news.max())
            step = max(1, FORWARD_TOKENS // width)
            for first in range(0, rows.size, step):
                part = news[first : first + step]
                yield Group(rows[first : first + step], part, int(part.max()))

    def fed(self, group: Group) -> npt.NDArray[np.bool_]:
        """Mark the group's tokens as cached; True for each row whose every known id now is: those are to be sampled."""
        self.cached[group.slots] += group.counts
        return np.asarray(self.cached[group.slots] == self.known[group.slots])

    def uniforms(self, slots: Ints) -> Floats:
        """One number in [0, 1) per slot, from the request's seed and the position in its output only."""
        return uniform(self.seed[slots], (self.known[slots] - self.start[slots]).astype(np.uint64))

    def sampled(self, slots: Ints, tokens: Ints, logprobs: Floats) -> list[Finished]:
        """Append one token to each of `slots`; the requests that ended by it are deactivated and returned."""
        at = self.known[slots]
        self.ids[slots, at] = tokens
        self.logprobs[slots, at] = logprobs
        self.known[slots] = at + 1
        stopped = (self.stops[slots] == tokens[:, None]).any(axis=1)
        ended = stopped | (at + 1 >= self.limit[slots])
        if not ended.any():
            return []
        over = slots[ended]
        self.active[over] = False
        return [Finished(int(slot), bool(stop)) for slot, stop in zip(over, stopped[ended], strict=True)]

    def output(self, slot: int) -> tuple[list[int], list[float]]:
        """Ids and log-probs the slot's newest request has sampled so far."""
        span = slice(int(self.start[slot]), int(self.known[slot]))
        return self.ids[slot, span].tolist(), self.logprobs[slot, span].tolist()

    def stop(self, slot: int) -> None:
        """The slot's request is over, whatever it has."""
        self.active[slot] = False

    def drop_kv(self) -> None:
        """No token of any slot is cached any more: new weights, or a cache in doubt."""
        self.cached[:] = 0

    def forget(self, session: str) -> None:
        """Free the session's slot, unless a request of it is active."""
        slot = self._slot_of.get(session)
        if slot is not None and not self.active[slot]:
            del self._slot_of[session]
            self._owner[slot] = NOBODY
            self.cached[slot] = self.known[slot] = 0

    @property
    def tokens_cached(self) -> int:
        """Tokens whose KV is held."""
        return int(self.cached.sum())

    def _free_slot(self) -> int | None:
        idle = np.flatnonzero(~self.active)
        for slot in idle:
            if self._owner[slot] == NOBODY:
                return int(slot)
        return int(idle[np.argmin(self._used[idle])]) if idle.size else None

    def _set_stops(self, slot: int, stops: list[int]) -> None:
        if len(stops) > self.stops.shape[1]:
            wider = np.full((self.slots, len(stops)), -1, np.int64)
            wider[:, : self.stops.shape[1]] = self.stops
            self.stops = wider
        self._stops[slot] = list(stops)
        self.stops[slot] = -1
        self.stops[slot, : len(stops)] = stops
