"""Who may hold a connection to a program's port, how many, and for how long.

A connection is a stranger's until a request on it has shown a token. Strangers are few and short-lived: past their number the one that
has been there longest makes room, and one that is being answered last of all; so a probe or a member gets in while somebody opens
connections and sends nothing, and reads its answer to the end. Those that have
shown a token are bounded too, so that connections never take the descriptors that ledger, weights and checkpoints need.
Owns connections. Does not own tokens (`server.py`) nor requests.
"""

import asyncio
import logging
import resource
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

STRANGER_SECONDS = 30.0
"""For a whole head of a request, and for the life of a connection that never shows a token. Scrapers open another one."""
ANSWER_SECONDS = 60.0
"""For an answer to a stranger, who may read slowly."""
NEW_SECONDS = 0.5
SMALLEST, LARGEST = 16, 256

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Room:
    """strangers, known: how many connections of either kind there may be at once."""

    strangers: int
    known: int

    @classmethod
    def of(cls, descriptors: int) -> "Room":
        """A quarter of the process's descriptors for strangers, half for callers; the rest for files."""
        quarter = max(SMALLEST, min(LARGEST, descriptors // 4))
        return cls(quarter, max(quarter, descriptors // 2))

    @classmethod
    def here(cls) -> "Room":
        """By this process's own limit."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return cls.of(1 << 20 if soft == resource.RLIM_INFINITY else soft)


class Door:
    """Makes the protocol of each new connection, as `loop.create_server` asks for. Set `make` before it listens."""

    def __init__(self, room: Room | None = None, seconds: float = STRANGER_SECONDS) -> None:
        self.room = room or Room.here()
        self._seconds = seconds
        self.make: Callable[[], web.RequestHandler] | None = None
        # since when each has been there, oldest first
        self._strangers: dict[asyncio.BaseProtocol, float] = {}
        self._known: set[asyncio.BaseProtocol] = set()
        self._busy: dict[asyncio.BaseProtocol, float] = {}
        self.evicted = 0

    def __call__(self) -> asyncio.BaseProtocol:
        """A connection has come."""
        assert self.make is not None, "the door opens before there is a room behind it"
        connection = self.make()
        loop = asyncio.get_running_loop()
        self._forget_closed()
        while len(self._strangers) >= self.room.strangers:
            idle = (one for one in self._strangers if one not in self._busy)
            self._put_out(next(idle, next(iter(self._strangers))))
        self._strangers[connection] = loop.time()
        loop.call_later(self._seconds, self._look, connection)
        return connection

    def begins(self, connection: asyncio.BaseProtocol | None) -> None:
        """A request's head has come whole."""
        if connection is not None:
            self._busy[connection] = asyncio.get_running_loop().time()

    def ends(self, connection: asyncio.BaseProtocol | None) -> None:
        """A request has been answered."""
        if connection is not None:
            self._busy.pop(connection, None)

    def admit(self, connection: asyncio.BaseProtocol | None) -> bool:
        """A request on this connection has shown a token. False: there are too many such connections already."""
        if connection is None or connection in self._known:
            return True
        self._forget_closed()
        if len(self._known) >= self.room.known:
            return False
        self._strangers.pop(connection, None)
        self._known.add(connection)
        return True

    @property
    def counts(self) -> tuple[int, int]:
        """Connections now: strangers, known."""
        self._forget_closed()
        return len(self._strangers), len(self._known)

    def _look(self, connection: asyncio.BaseProtocol) -> None:
        """A stranger's time is over, unless it is being answered."""
        if connection not in self._strangers:
            return
        loop = asyncio.get_running_loop()
        since = self._busy.get(connection)
        if since is not None and loop.time() - since < ANSWER_SECONDS:
            loop.call_later(self._seconds / 4, self._look, connection)
        else:
            self._put_out(connection)

    def _put_out(self, connection: asyncio.BaseProtocol) -> None:
        self._strangers.pop(connection, None)
        self._busy.pop(connection, None)
        self.evicted += 1
        if self.evicted & (self.evicted - 1) == 0:  # the 1st, 2nd, 4th, … : a flood is told, and does not flood the log
            log.warning("%d connections without a token were closed so far: too many or too long", self.evicted)
        transport = _transport(connection)
        if transport is not None:
            transport.abort()
        else:  # accepted in this very moment; its transport comes with the loop's next turns
            asyncio.get_running_loop().call_later(NEW_SECONDS, _abort, connection)

    def _forget_closed(self) -> None:
        """Those whose peer has gone. One that was made a moment ago has no transport yet."""
        young = asyncio.get_running_loop().time() - NEW_SECONDS
        gone = [one for one, since in self._strangers.items() if since < young and _transport(one) is None]
        gone += [one for one in self._known if _transport(one) is None]
        for connection in gone:
            self._strangers.pop(connection, None)
            self._known.discard(connection)
            self._busy.pop(connection, None)


def _transport(connection: asyncio.BaseProtocol) -> asyncio.Transport | None:
    transport: asyncio.Transport | None = getattr(connection, "transport", None)
    return transport


def _abort(connection: asyncio.BaseProtocol) -> None:
    if (transport := _transport(connection)) is not None:
        transport.abort()
