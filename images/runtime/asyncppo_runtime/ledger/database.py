"""The SQLite file under the ledger: opening, locking, transactions, failures. Owns the connection; does not own any table's meaning.

WAL with `synchronous=FULL`: a committed transaction survives a crash of the program, the kernel and the machine. One process writes,
held by a lock file; any number may read.
"""

import contextlib
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from asyncppo.faults import COMMIT, Kind, Moment, inside
from asyncppo_runtime.ledger.counters import Counters, read_counts
from asyncppo_runtime.ledger.errors import LedgerStorageError, LedgerUnusableError
from asyncppo_runtime.ledger.filesystem import refuse_network_volume
from asyncppo_runtime.ledger.schema import APPLICATION_ID, SCHEMA_VERSION, TABLES

BUSY_SECONDS = 30.0
SYNCHRONOUS = "FULL"
Row = tuple[Any, ...]


class Database:
    """One connection. Belongs to the thread that made it (SQLite checks)."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int | None) -> None:
        self.path = path
        self.connection = connection
        self.counters = Counters(read_counts(connection))
        self._lock = lock
        self._failed = False

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside happens or nothing does; durable when it ends. Raises LedgerStorageError."""
        if self._failed:
            raise LedgerStorageError(f"{self.path} failed earlier; open the ledger again", fatal=True)
        committing = False
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield
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
            if not isinstance(error, sqlite3.Error):
                raise
            # An I/O error while committing leaves open whether the log's last frame is on the disk: only a recovery can tell.
            self._failed = self._failed or (committing and not _is_full(error))
            raise _translated(self.path, error, fatal=self._failed) from error

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """One consistent view over several queries; inside a transaction, that transaction's."""
        nested = self.connection.in_transaction
        try:
            if not nested:
                self.connection.execute("BEGIN")
            yield
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

    def close(self) -> None:
        """Let go of the file and of the lock."""
        with contextlib.closing(self.connection):
            self._roll_back()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

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
    """Open `path` for writing; create it with `facts` when it does not exist. Raises LedgerUnusableError, LedgerStorageError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_network_volume(path.parent)
        lock = _take_lock(path)
    except OSError as error:
        raise LedgerUnusableError(f"{path} cannot be opened: {error}") from error
    try:
        if not path.exists():
            _create(path, facts)
        connection = _connect(path, "rw")
        try:
            _check(path, connection)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={SYNCHRONOUS}")
            # The log is folded back and cut, so that it does not keep the size of the largest transaction ever.
            connection.execute(f"PRAGMA journal_size_limit={64 << 20}")
            return Database(path, connection, lock)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        os.close(lock)
        raise _translated(path, error, fatal=True) from error
    except BaseException:
        os.close(lock)
        raise


def open_reader(path: Path) -> Database:
    """Open `path` read-only, beside a writer or after one. Raises LedgerUnusableError."""
    if not path.is_file():
        raise LedgerUnusableError(f"{path} does not exist: no run has been started there")
    try:
        connection = _connect(path, "ro")
        try:
            _check_kind(path, connection)
            return Database(path, connection, None)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise LedgerUnusableError(f"{path} cannot be read: {error}; is its folder writable for you?") from error


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS, isolation_level=None
    )


def _take_lock(path: Path) -> int:
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise LedgerUnusableError(f"{path} is in use by another learner; stop that one first") from error
    return descriptor


def _create(path: Path, facts: dict[str, int | str]) -> None:
    """Under another name first: a file under the right name is whole, and an empty one is a damaged one."""
    if path.with_name(path.name + "-wal").exists():
        raise LedgerUnusableError(
            f"{path} is gone but its log {path.name}-wal is there: put the file back, or remove the log"
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


def _check(path: Path, connection: sqlite3.Connection) -> None:
    _check_kind(path, connection)
    problems = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
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
    if version != SCHEMA_VERSION:
        raise LedgerUnusableError(
            f"{path} has schema {version}, this program knows {SCHEMA_VERSION}: use the program that wrote it"
        )


def _damaged(path: Path, detail: str) -> str:
    return (
        f"{path} is damaged or truncated ({detail}). Nothing was changed. Restore it from a copy of the volume, or start the job "
        "anew in another folder; its checkpoints hold the weights"
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
