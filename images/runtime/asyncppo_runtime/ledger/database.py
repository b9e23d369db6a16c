"""The SQLite file under the ledger: opening, locking, transactions, failures. Owns the connection; does not own any table's meaning.

WAL with `synchronous=FULL`: a committed transaction survives a crash of the program, the kernel and the machine. One process writes,
held by a lock file; any number may read.
"""

import contextlib
import fcntl
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncppo.faults import COMMIT, Kind, Moment, inside
from asyncppo_runtime.ledger.counters import TRANSACTIONS, Counters, read_counts
from asyncppo_runtime.ledger.errors import LedgerRefusedError, LedgerStorageError, LedgerUnusableError
from asyncppo_runtime.ledger.filesystem import refuse_network_volume
from asyncppo_runtime.ledger.page_sums import (
    DamagedSumsError,
    Sums,
    SumsFile,
    changed_pages,
    log_path,
    logged_pages,
    read_sums,
    sums_path,
)
from asyncppo_runtime.ledger.schema import APPLICATION_ID, MIGRATIONS, SCHEMA_VERSION, TABLES

log = logging.getLogger(__name__)

FOLD_AT_FRAMES = 1000
"""Pages in the log at which it is folded into the file: SQLite's own default."""
LARGEST_CHECKED_WHOLE = 256 << 20
"""Bytes of a ledger without checksums up to which indexes are compared with their tables as well."""
SMALLEST = 512  # one page of the smallest size there is
BUSY_SECONDS = 30.0
LEAVING_SECONDS = 10.0
SYNCHRONOUS = "FULL"
Row = tuple[Any, ...]


class Database:
    """One connection. Belongs to the thread that made it (SQLite checks)."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, lock: int | None, sums: SumsFile | None = None
    ) -> None:
        self.path = path
        self.connection = connection
        self.counters = Counters(read_counts(connection))
        self._lock = lock
        self._sums = sums
        self._folded = 0  # frames of the log that are folded already
        self._failed = False

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside happens or nothing does; durable when it ends. Raises LedgerStorageError."""
        if self._failed:
            raise LedgerStorageError(f"{self.path} failed earlier; open the ledger again", fatal=True)
        committing = False
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            changes = self.connection.total_changes
            yield
            if self.connection.total_changes != changes or self.counters.pending():
                self.counters.add(TRANSACTIONS, 1)
            self.connection.executemany(
                "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                self.counters.pending(),
            )
            if inside(COMMIT, Moment.BEFORE) is Kind.FULL:
                self._outgrow_volume()
            committing = True
            self.connection.execute("COMMIT")
            self.counters.commit()
            inside(COMMIT, Moment.AFTER)
        except BaseException as error:
            self.counters.roll_back()
            self._roll_back()
            if isinstance(error, OverflowError):
                raise _out_of_range() from error
            if not isinstance(error, sqlite3.Error):
                raise
            # An I/O error while committing leaves open whether the log's last frame is on the disk: only a recovery can tell.
            self._failed = self._failed or (committing and not _is_full(error))
            raise _translated(self.path, error, fatal=self._failed) from error
        self._committed()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """One consistent view over several queries; inside a transaction, that transaction's."""
        nested = self.connection.in_transaction
        try:
            if not nested:
                self.connection.execute("BEGIN")
            yield
        except OverflowError as error:
            raise _out_of_range() from error
        except sqlite3.Error as error:
            if nested:
                raise
            raise _translated(self.path, error, fatal=False) from error
        finally:
            if not nested:
                self._roll_back()

    def rows(self, sql: str, *parameters: object) -> list[Row]:
        """All rows of a query."""
        return self.connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, *parameters: object) -> Row | None:
        """The first row of a query."""
        found: Row | None = self.connection.execute(sql, parameters).fetchone()
        return found

    def execute(self, sql: str, *parameters: object) -> int:
        """One statement; returns the number of rows changed."""
        return self.connection.execute(sql, parameters).rowcount

    def execute_many(self, sql: str, parameters: Iterable[tuple[object, ...]]) -> None:
        """One statement for many rows."""
        self.connection.executemany(sql, parameters)

    def fact(self, name: str) -> Any:
        """A single durable value."""
        found = self.row("SELECT value FROM facts WHERE name = ?", name)
        if found is None:
            raise LedgerUnusableError(f"{self.path} lacks the fact {name!r}: it is damaged")
        return found[0]

    def later_fact(self, name: str, default: int | str) -> Any:
        """A durable value that ledgers made by an older program lack."""
        found = self.row("SELECT value FROM facts WHERE name = ?", name)
        return default if found is None else found[0]

    def set_fact(self, name: str, value: int | str) -> None:
        """Change a durable value."""
        self.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", name, value)

    def event(self, at: float, kind: str, subject: object, detail: object = "") -> None:
        """Append to the history."""
        self.execute(
            "INSERT INTO events (at, kind, subject, detail) VALUES (?, ?, ?, ?)", at, kind, f"{subject}", f"{detail}"
        )

    def fold(self) -> None:
        """Fold the log into the file as far as readers allow, and take the checksums of what changed."""
        if self._sums is None:
            return
        try:
            busy, frames, folded = self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            log.warning(
                "%s: its log could not be folded into it (%s); tried again after the next transactions",
                self.path,
                error,
            )
            return
        if busy or frames != folded:
            return  # a reader is in the way; the log goes on holding what is newer than the checksums
        try:
            if not self._sums.there:
                self._sums.take_all(self.counters.value(TRANSACTIONS))
            elif frames > 0:
                self._sums.take(frames, self.counters.value(TRANSACTIONS))
        except OSError as error:
            self._lose_sums(error)
        self._folded = frames

    def close(self) -> None:
        """Let go of the file and of the lock."""
        with contextlib.closing(self.connection):
            self._roll_back()
            if not self._failed:
                self.fold()
        if self._sums is not None:
            self._sums.close()
            self._sums = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _committed(self) -> None:
        """A transaction is durable: say so beside the file, and fold the log once it is long."""
        if self._sums is None:
            return
        try:
            self._sums.committed(self.counters.value(TRANSACTIONS))
        except OSError as error:
            self._lose_sums(error)
        frames = self._sums.frames()
        if frames < self._folded:
            self._folded = 0  # the log has begun anew
        if frames - self._folded >= FOLD_AT_FRAMES:
            self.fold()

    def _lose_sums(self, error: OSError) -> None:
        """The volume does not take the checksums: none are better than wrong ones. The next fold takes them anew."""
        log.warning("%s cannot be written (%s); the ledger goes on without it for now", sums_path(self.path), error)
        if self._sums is not None:
            try:
                self._sums.remove()
            except OSError as failed:
                self._failed = True
                raise LedgerStorageError(
                    f"{sums_path(self.path)}: the volume failed ({failed}). Check it, then resume", fatal=True
                ) from failed

    def _outgrow_volume(self) -> None:
        """On purpose (`asyncppo.faults`): no page more than there is, until the program ends; SQLite says the rest."""
        pages = self.connection.execute("PRAGMA page_count").fetchone()[0]
        self.connection.execute(f"PRAGMA max_page_count={pages}")
        self.connection.execute(
            "INSERT INTO events (at, kind, subject, detail) VALUES (0, '', '', hex(zeroblob(1048576)))"
        )

    def _roll_back(self) -> None:
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._failed = True


def ids(values: Iterable[int]) -> str:
    """A parameter for `IN (SELECT value FROM json_each(?))`."""
    return json.dumps(list(values))


def open_writer(path: Path, facts: dict[str, int | str]) -> Database:
    """Open `path` for writing; create it with `facts` when it does not exist. Raises LedgerUnusableError, LedgerStorageError.

    A file that is there is examined before anything is written to it (`looking`)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_network_volume(path.parent)
        lock = _take_lock(path)
    except OSError as error:
        raise LedgerUnusableError(f"{path} cannot be opened: {error}") from error
    sums = None
    try:
        if path.exists():
            with looking(path) as looked:
                known = looked.sums
        else:
            _create(path, facts)
            known = None
        connection = _connect(path, "rw")
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={SYNCHRONOUS}")
            # The log is folded back and cut, so that it does not keep the size of the largest transaction ever.
            connection.execute(f"PRAGMA journal_size_limit={64 << 20}")
            connection.execute("PRAGMA wal_autocheckpoint=0")
            _migrate(connection)
            sums = SumsFile(path, known)
            database = Database(path, connection, lock, sums)
            database.fold()
            return database
        except BaseException:
            connection.close()
            if sums is not None:
                sums.close()
            raise
    except sqlite3.Error as error:
        os.close(lock)
        raise _translated(path, error, fatal=True) from error
    except OSError as error:
        os.close(lock)
        raise LedgerUnusableError(f"{path} cannot be opened: {error}") from error
    except BaseException:
        os.close(lock)
        raise


@dataclass(frozen=True)
class Looked:
    """A ledger that has been found whole, open for reading. sums: its checksums, None where they are to be taken anew."""

    database: Database
    sums: Sums | None


@contextlib.contextmanager
def looking(path: Path) -> Iterator[Looked]:
    """Examine a ledger that nobody writes to, and read it, without writing anything (SQLite may leave its index of the log, `-shm`).

    Raises LedgerUnusableError: it is damaged, not a ledger, or older than it was when it was last written."""
    try:
        sums, connection = _examined(path)
    except (sqlite3.Error, OSError) as error:
        raise _unreadable(path, error) from error
    with contextlib.closing(connection):
        try:
            yield Looked(Database(path, connection, None), sums)
        except sqlite3.Error as error:
            raise _unreadable(path, error) from error


def _examined(path: Path) -> tuple[Sums | None, sqlite3.Connection]:
    _check_size(path)
    try:
        sums = read_sums(path)
    except DamagedSumsError as error:
        raise LedgerUnusableError(
            f"{sums_path(path)} is damaged ({error}), so that nothing tells whether {path.name} is whole. Nothing was changed. "
            f"Restore both from a copy of the volume; or, if you know that {path.name} is good, remove {sums_path(path).name}"
        ) from error
    changed = changed_pages(path, sums) if sums is not None else []
    log_there = bool(sums and logged_pages(path, sums.page_size, 1)) or _size(log_path(path)) > 0
    connection = _connect(path, "ro", "" if log_there else "&immutable=1")
    try:
        _check_kind(path, connection)
        if sums is None:
            _check_structure(path, connection)
            return None, connection
        transactions = read_counts(connection).get(TRANSACTIONS, 0)
        if changed and not log_there and sums.folded < transactions and transactions - sums.committed in (0, 1):
            # Another program has folded the log (the sqlite3 shell does when it closes); nothing is missing.
            _check_structure(path, connection)
            return None, connection
        if changed:
            raise LedgerUnusableError(_damaged(path, _changed_in_words(changed, len(sums.pages), connection)))
        if transactions < sums.committed:
            raise LedgerUnusableError(_older(path, transactions, sums.committed))
        return sums, connection
    except BaseException:
        connection.close()
        raise


def _migrate(connection: sqlite3.Connection) -> None:
    """From the version it was written with to this program's, in one transaction."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == SCHEMA_VERSION:
        return
    steps = "".join(MIGRATIONS[number] for number in range(version, SCHEMA_VERSION))
    connection.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")


def open_reader(path: Path) -> Database:
    """Open `path` read-only, beside a writer or after one. Raises LedgerUnusableError."""
    if not path.is_file():
        raise LedgerUnusableError(f"{path} does not exist: no run has been started there")
    try:
        _check_size(path)
        connection = _connect(path, "ro")
        try:
            _check_kind(path, connection)
            return Database(path, connection, None)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise _unreadable(path, error) from error


def _connect(path: Path, mode: str, more: str = "") -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}{more}", uri=True, timeout=BUSY_SECONDS, isolation_level=None
    )


@contextlib.contextmanager
def unused(path: Path) -> Iterator[None]:
    """While this lasts no learner opens the ledger; LedgerUnusableError when one has it and does not end soon (one whose runner has just
    been killed does). Makes no file: without a lock file there is none."""
    deadline = time.monotonic() + LEAVING_SECONDS
    while True:
        try:
            descriptor = _take_lock(path, os.O_RDWR)
            break
        except FileNotFoundError:
            yield
            return
        except LedgerUnusableError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)
        except OSError as error:
            raise LedgerUnusableError(f"{path} cannot be opened: {error}") from error
    try:
        yield
    finally:
        os.close(descriptor)


def _take_lock(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    descriptor = os.open(path.with_name(path.name + ".lock"), flags | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise LedgerUnusableError(f"{path} is in use by another learner; stop that one first") from error
    return descriptor


def _create(path: Path, facts: dict[str, int | str]) -> None:
    """Under another name first: a file under the right name is whole, and an empty one is a damaged one."""
    for beside in (log_path(path), sums_path(path)):
        if beside.exists():
            raise LedgerUnusableError(
                f"{path} is gone but {beside.name}, which belongs to it, is there: put the file back, or move that one away too"
            )
    draft = path.with_name(path.name + ".draft")
    for leftover in (draft, draft.with_name(draft.name + "-journal")):
        leftover.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA synchronous={SYNCHRONOUS}")
        connection.executescript(f"BEGIN; {TABLES} COMMIT;")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
        connection.execute("COMMIT")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check_size(path: Path) -> None:
    """Before SQLite sees the file: beside an empty one it would delete the log, even when it only reads. (By its size, not by reading:
    closing a file of SQLite's in a process that has it open elsewhere would drop SQLite's locks.)"""
    if _size(path) < SMALLEST:
        raise LedgerUnusableError(_damaged(path, f"{_size(path):,} bytes"))


def _check_structure(path: Path, connection: sqlite3.Connection) -> None:
    """What SQLite itself can tell; where there are checksums they tell more."""
    check = "integrity_check" if _size(path) <= LARGEST_CHECKED_WHOLE else "quick_check"
    problems = [row[0] for row in connection.execute(f"PRAGMA {check}(3)")]
    if problems != ["ok"]:
        raise LedgerUnusableError(_damaged(path, "; ".join(problems)))


def _check_kind(path: Path, connection: sqlite3.Connection) -> None:
    try:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute("SELECT count(*) FROM facts").fetchone()
    except sqlite3.DatabaseError as error:
        if _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise LedgerUnusableError(_damaged(path, str(error))) from error
        raise
    if application != APPLICATION_ID:
        raise LedgerUnusableError(_damaged(path, "it is not a ledger"))
    if version not in (SCHEMA_VERSION, *MIGRATIONS):
        raise LedgerUnusableError(
            f"{path} has schema {version}, this program knows {SCHEMA_VERSION}: use the program that wrote it"
        )


def _damaged(path: Path, detail: str) -> str:
    return (
        f"{path} is damaged or truncated ({detail}). Nothing was changed. Restore it, with what lies beside it, from a copy of the "
        "volume, or start the job anew in another folder; its checkpoints hold the weights"
    )


def _older(path: Path, transactions: int, committed: int) -> str:
    return (
        f"{path} is older than it was: it holds {transactions:,} transactions, {committed:,} were written (its log "
        f"{log_path(path).name} was cut, lost, or not copied along). Nothing was changed. Put back the ledger and its log as they were; "
        f"or, to go on from this older one and lose what came after, move {sums_path(path).name} out of the folder, and with it "
        "every checkpoint and weights file that the next start will name; or start the job anew in another folder"
    )


def _changed_in_words(changed: list[int], pages: int, connection: sqlite3.Connection) -> str:
    """Which pages are not what was written, and of what they are, as far as SQLite can tell."""
    page = changed[0]
    try:
        found = connection.execute("SELECT name FROM dbstat WHERE pageno = ?", (page,)).fetchone()
    except sqlite3.Error:
        found = None  # this build cannot tell, or the damage is in the way
    of_what = f", of {found[0]}" if found else ""
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return f"page {page} of {pages}{of_what}{more} is not what was written there, by its checksum"


def _unreadable(path: Path, error: sqlite3.Error | OSError) -> LedgerUnusableError:
    if isinstance(error, sqlite3.Error) and _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return LedgerUnusableError(_damaged(path, str(error)))
    return LedgerUnusableError(f"{path} cannot be read: {error}; is its folder writable for you?")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _out_of_range() -> LedgerRefusedError:
    return LedgerRefusedError(
        "OutOfRange", "a number of the call is beyond 64 bits, which no ledger holds; nothing was written"
    )


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_full(error: sqlite3.Error) -> bool:
    return _code(error) == sqlite3.SQLITE_FULL


def _translated(path: Path, error: sqlite3.Error, *, fatal: bool) -> Exception:
    """What a caller can act on. A misuse of SQLite is a defect of this package and stays what it is."""
    code = _code(error)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return LedgerUnusableError(_damaged(path, str(error)))
    if code == sqlite3.SQLITE_FULL:
        return LedgerStorageError(
            f"{path}: the volume is full; nothing was written. Free space, then resume", fatal=fatal
        )
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY):
        return LedgerStorageError(
            f"{path}: the volume failed ({error}); nothing was written. Check it, then resume", fatal=fatal
        )
    return error
