"""What the ledger's file held when it was last written: a checksum of each page, and the number of transactions committed.

Owns `ledger.db.sums` and what it can tell: that bits of the file have changed (SQLite's own checks see a broken page, not a changed
value), and that the file is older than it once was (its log cut, removed or not copied along). Does not own what follows from that.

The file in WAL mode changes only when the log is folded into it, which the one writer does itself (`fold`): after each fold the
checksums of the pages it touched are taken. A crash in between leaves the log, whose pages are not compared (SQLite checks them by
checksums of its own). The number of transactions stands in the ledger (a counter) and here: here it is written after each commit, so it
is never ahead of what is durable. Checksums are CRC-32: every change of up to three bits in a page is seen, others but for one in 2³².
"""

import os
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

MAGIC = b"APPOSUM1"
_FOLDED = struct.Struct("<8sIIQ")  # magic, page size, pages, transactions in the file when the checksums were taken
_COMMITTED = struct.Struct("<Q")  # transactions committed since
_SUM = struct.Struct("<I")
_COMMITTED_AT, _SUMS_AT = 32, 64
_FRAME_HEADER, _LOG_HEADER = 24, 32
_CHUNK = 256  # pages read at once


class DamagedSumsError(Exception):
    """The file of checksums is not what was written: truncated, or bits of it changed."""


@dataclass(frozen=True)
class Sums:
    """What the file of checksums says. folded: transactions in the ledger's file itself. committed: in file and log together."""

    page_size: int
    folded: int
    committed: int
    pages: tuple[int, ...]


def sums_path(ledger: Path) -> Path:
    """Where the checksums of `ledger` are."""
    return ledger.with_name(ledger.name + ".sums")


def log_path(ledger: Path) -> Path:
    """SQLite's write-ahead log of `ledger`."""
    return ledger.with_name(ledger.name + "-wal")


def read_sums(ledger: Path) -> Sums | None:
    """What is there; None for a ledger of a program that kept none. Raises DamagedSumsError, OSError."""
    try:
        content = sums_path(ledger).read_bytes()
    except FileNotFoundError:
        return None
    if len(content) < _SUMS_AT:
        raise DamagedSumsError(f"{len(content)} bytes")
    magic, page_size, pages, folded = _FOLDED.unpack_from(content)
    (committed,) = _COMMITTED.unpack_from(content, _COMMITTED_AT)
    sound = (
        magic == MAGIC
        and _SUM.unpack_from(content, _FOLDED.size)[0] == zlib.crc32(content[: _FOLDED.size])
        and _SUM.unpack_from(content, _COMMITTED_AT + _COMMITTED.size)[0]
        == zlib.crc32(content[_COMMITTED_AT : _COMMITTED_AT + _COMMITTED.size])
        and len(content) >= _SUMS_AT + pages * _SUM.size
    )
    if not sound:
        raise DamagedSumsError("its own checksum does not hold")
    return Sums(page_size, folded, committed, struct.unpack_from(f"<{pages}I", content, _SUMS_AT))


def changed_pages(ledger: Path, sums: Sums) -> list[int]:
    """Pages of the file (from 1) that are not what their checksums say, those aside that the log holds. Raises OSError."""
    superseded = logged_pages(ledger, sums.page_size)
    descriptor = os.open(ledger, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = map(zlib.crc32, _pages(descriptor, sums.page_size))
        return [
            number
            for number, (expected, there) in enumerate(zip_longest(sums.pages, found), 1)
            if number <= len(sums.pages) and there != expected and number not in superseded
        ]
    finally:
        os.close(descriptor)


def logged_pages(ledger: Path, page_size: int, frames: int | None = None) -> set[int]:
    """Pages in the log's present generation (its frames carry the header's salts); of its first `frames` only, when given."""
    found: set[int] = set()
    try:
        descriptor = os.open(log_path(ledger), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return found
    try:
        header = os.pread(descriptor, _LOG_HEADER, 0)
        if len(header) < _LOG_HEADER:
            return found
        salts, at, read = header[16:24], _LOG_HEADER, 0
        while frames is None or read < frames:
            frame = os.pread(descriptor, _FRAME_HEADER, at)
            if len(frame) < _FRAME_HEADER or frame[8:16] != salts:
                return found
            found.add(int.from_bytes(frame[:4], "big"))
            at, read = at + _FRAME_HEADER + page_size, read + 1
        return found
    finally:
        os.close(descriptor)


class SumsFile:
    """The file of checksums while the ledger is written to; one writer. Raises OSError, after which the file is not to be trusted:
    the caller removes it.

    It keeps files of SQLite's open until SQLite has closed them: closing one earlier would drop the locks that SQLite holds on it
    (POSIX locks belong to the process, not to the descriptor).
    """

    def __init__(self, ledger: Path, sums: Sums | None) -> None:
        self._ledger = ledger
        self._pages = len(sums.pages) if sums is not None else 0
        self._file = os.open(sums_path(ledger), os.O_RDWR | os.O_CLOEXEC) if sums is not None else None
        self._database = os.open(ledger, os.O_RDONLY | os.O_CLOEXEC)
        self._page_size = int.from_bytes(os.pread(self._database, 2, 16), "big")
        if self._page_size == 1:  # how SQLite writes 65,536
            self._page_size = 1 << 16
        self._index = os.open(ledger.with_name(ledger.name + "-shm"), os.O_RDONLY | os.O_CLOEXEC)

    @property
    def there(self) -> bool:
        """Whether there are checksums at all; else `take_all` makes them."""
        return self._file is not None

    def frames(self) -> int:
        """Frames in the log, by SQLite's index of it ("WAL-index header", mxFrame)."""
        return int.from_bytes(os.pread(self._index, 4, 16), sys.byteorder)

    def committed(self, transactions: int) -> None:
        """So many transactions are durable now. Not synced: it may be behind after a power failure, never ahead."""
        if self._file is not None:
            number = _COMMITTED.pack(transactions)
            os.pwrite(self._file, number + _SUM.pack(zlib.crc32(number)), _COMMITTED_AT)

    def take_all(self, transactions: int) -> None:
        """Checksums of the whole file, into which every one of `transactions` has been folded. Under another name first."""
        self._let_go()
        draft = _draft(self._ledger)
        self._file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        sums = [zlib.crc32(page) for page in _pages(self._database, self._page_size)]
        self._write(_SUMS_AT, struct.pack(f"<{len(sums)}I", *sums))
        self._finish(len(sums), transactions)
        draft.rename(sums_path(self._ledger))

    def take(self, frames: int, transactions: int) -> None:
        """Checksums of the pages in the log's first `frames` frames, all of which have just been folded into the file."""
        pages = logged_pages(self._ledger, self._page_size, frames)
        # A page that was allocated and freed again may lie in the file without ever having been in the log.
        pages |= set(range(self._pages + 1, max(pages, default=0) + 1))
        for page in sorted(pages):
            content = os.pread(self._database, self._page_size, (page - 1) * self._page_size)
            self._write(_SUMS_AT + (page - 1) * _SUM.size, _SUM.pack(zlib.crc32(content)))
        self._finish(max(self._pages, *pages), transactions)

    def close(self) -> None:
        """Let go of the files; after SQLite has."""
        self._let_go()
        os.close(self._index)
        os.close(self._database)

    def remove(self) -> None:
        """No checksums any more: none are better than wrong ones."""
        self._let_go()
        for path in (sums_path(self._ledger), _draft(self._ledger)):
            path.unlink(missing_ok=True)

    def _let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _finish(self, pages: int, transactions: int) -> None:
        """Synced before the next transaction may begin the log anew: until then the log covers what is half-written here."""
        header = _FOLDED.pack(MAGIC, self._page_size, pages, transactions)
        self._write(0, header + _SUM.pack(zlib.crc32(header)))
        self.committed(transactions)
        assert self._file is not None
        os.fsync(self._file)
        self._pages = pages

    def _write(self, at: int, content: bytes) -> None:
        assert self._file is not None
        view = memoryview(content)
        while view:
            written = os.pwrite(self._file, view, at)
            at, view = at + written, view[written:]


def _draft(ledger: Path) -> Path:
    return ledger.with_name(ledger.name + ".sums.draft")


def _pages(descriptor: int, page_size: int) -> Iterator[memoryview]:
    """Every whole page of a file, in order."""
    at = 0
    while chunk := os.pread(descriptor, page_size * _CHUNK, at):
        view = memoryview(chunk)
        yield from (view[start : start + page_size] for start in range(0, len(chunk) - page_size + 1, page_size))
        at += len(chunk)
