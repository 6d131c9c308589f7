"""Connections to the SQLite file: one writer behind a lock, a pool of readers. Translates SQLite's errors."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from polylocal.errors import InvalidInput, StoreError

SCHEMA_VERSION = 18  # the number of migrations, which an up-to-date database has in `user_version`
BUSY_TIMEOUT_MS = 10_000
_PART = 5000  # the most rows that one transaction deletes
_PRAGMAS = (
    "pragma journal_mode = wal",
    "pragma synchronous = normal",
    "pragma foreign_keys = on",
    f"pragma busy_timeout = {BUSY_TIMEOUT_MS}",
)


class Database:
    """Thread-safe. `write()` runs one transaction at a time; `read()` sees the last committed state.

    Never call an engine, git or the network inside such a block.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _translated(path):
            self._writer = self._connect()
            with _closed_on_error(self._writer):
                self._migrate()
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    def _migrate(self) -> None:
        version = self._writer.execute("pragma user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"The database {self.path} was made by a newer polylocal (version {version} of its tables, this one"
                f" knows {SCHEMA_VERSION}): update polylocal, or restore a backup of this version into another folder."
            )
        if version < SCHEMA_VERSION:
            # imported only here: sqlite-utils imports numpy if it is installed, which takes much of a start
            from polylocal.store import schema

            schema.apply(self._writer)

    @contextmanager
    def write(self, patience_ms: int = BUSY_TIMEOUT_MS) -> Iterator[sqlite3.Connection]:
        """One transaction: committed at the end of the block, rolled back by any exception.

        `patience_ms`: the longest wait for other writers. Raises StoreError.
        """
        with self._turn(patience_ms), _translated(self.path):
            self._begin(patience_ms)
            try:
                yield self._writer
                self._writer.execute("commit")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("rollback")
                raise

    @contextmanager
    def _turn(self, patience_ms: int) -> Iterator[None]:
        """Wait for the lock between the threads of this process, however long that takes without a limit of time."""
        if not self._lock.acquire(timeout=-1 if patience_ms >= BUSY_TIMEOUT_MS else patience_ms / 1000):
            raise StoreError(f"The database {self.path} is busy.")
        try:
            yield
        finally:
            self._lock.release()

    def _begin(self, patience_ms: int) -> None:
        if patience_ms == BUSY_TIMEOUT_MS:
            self._writer.execute("begin immediate")
            return
        self._writer.execute(f"pragma busy_timeout = {patience_ms}")
        try:
            self._writer.execute("begin immediate")
        finally:
            self._writer.execute(f"pragma busy_timeout = {BUSY_TIMEOUT_MS}")

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent snapshot for the length of the block."""
        with _translated(self.path):
            connection = self._take()
            try:
                connection.execute("begin")
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("rollback")
                self._give_back(connection)

    def close(self) -> None:
        """Close all connections; those in use when they are returned. Idempotent."""
        with self._lock:
            self._closed = True
            self._writer.close()
            self._close_idle()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        with _closed_on_error(connection):
            connection.row_factory = sqlite3.Row
            # SQLite's own `like` ignores case for ASCII only
            connection.create_function("casefold", 1, _casefold, deterministic=True)
            for pragma in _PRAGMAS:
                connection.execute(pragma)
        return connection

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()  # atomic, so no lock is needed: a read never waits for a writer
        except IndexError:
            return self._connect()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        self._idle.append(connection)
        if self._closed:
            self._close_idle()

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


@contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def is_older(path: Path) -> bool:
    """Whether the tables of a database are of an older version. Changes nothing. Raises StoreError."""
    with _translated(path), closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_MS / 1000)) as connection:
        return int(connection.execute("pragma user_version").fetchone()[0]) < SCHEMA_VERSION


def delete_in_parts(database: Database, table: str, where: str, values: tuple[Any, ...]) -> None:
    """Delete all rows that meet a condition, in several transactions: a large cascade would block other writers."""
    part = f"delete from {table} where rowid in (select rowid from {table} where {where} limit {_PART})"
    while True:
        with database.write() as db:
            if db.execute(part, values).rowcount < _PART:
                return


def _casefold(value: str | None) -> str | None:
    return value.casefold() if isinstance(value, str) else None


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Raise SQLite's errors as StoreError. A violated constraint passes, for the caller to explain."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except (OverflowError, UnicodeEncodeError) as error:  # a value that can't be passed to SQLite
        raise InvalidInput([f"A value can't be kept: {error}."]) from error
    except sqlite3.Error as error:
        raise StoreError(f"The database {path} can't be used: {error}{_advice(error)}") from error


def _advice(error: sqlite3.Error) -> str:
    """The advice for an error: a damaged file needs a person, a full disk or a busy database may pass."""
    if getattr(error, "sqlite_errorcode", None) not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return ""
    return ". It is damaged: move the home folder away and bring a backup back with `polylocal restore`"
