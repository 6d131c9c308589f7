"""Connections to the one SQLite file: a single writer behind a lock, a pool of readers, errors translated once."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from polylocal.errors import InvalidInput, StoreError

SCHEMA_VERSION = 18  # how many migrations there are: what a database that has them all says in `user_version`
BUSY_TIMEOUT_MS = 10_000
_PART = 5000  # rows that are deleted in one transaction
_PRAGMAS = (
    "pragma journal_mode = wal",
    "pragma synchronous = normal",
    "pragma foreign_keys = on",
    f"pragma busy_timeout = {BUSY_TIMEOUT_MS}",
)


class Database:
    """Thread-safe. `write()` is one transaction at a time; `read()` sees the last committed state.

    No engine, git or network call belongs inside either block.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _translated(path):
            self._writer = self._connect()
            self._migrate()
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    def _migrate(self) -> None:
        version = self._writer.execute("pragma user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            self._writer.close()
            raise StoreError(
                f"The database {self.path} was made by a newer polylocal (version {version} of its tables, this one"
                f" knows {SCHEMA_VERSION}): update polylocal, or restore a backup of this version into another folder."
            )
        if version < SCHEMA_VERSION:
            # only now: sqlite-utils imports numpy where it is there, a good part of what a start takes
            from polylocal.store import schema

            schema.apply(self._writer)

    @contextmanager
    def write(self, patience_ms: int = BUSY_TIMEOUT_MS) -> Iterator[sqlite3.Connection]:
        """One transaction: committed at the end of the block, rolled back by any exception.

        `patience_ms`: how long to wait for those who write now. Raises StoreError.
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
        """Of the threads in this process everybody has a turn, however long that takes, unless they have no time."""
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
        """One consistent view for the length of the block."""
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
        """Idempotent. Connections in use close when they are given back."""
        with self._lock:
            self._closed = True
            for connection in (*self._idle, self._writer):
                connection.close()
            self._idle.clear()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        # SQLite's own `like` knows upper and lower case of ASCII only
        connection.create_function("casefold", 1, _casefold, deterministic=True)
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        return connection

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()  # atomic: no lock, a read never waits for a writer
        except IndexError:
            return self._connect()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)


def is_older(path: Path) -> bool:
    """Whether the tables of a database are those of an older version; it is not changed. Raises StoreError."""
    with _translated(path), closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_MS / 1000)) as connection:
        return int(connection.execute("pragma user_version").fetchone()[0]) < SCHEMA_VERSION


def delete_in_parts(database: Database, table: str, where: str, values: tuple[Any, ...]) -> None:
    """All rows of a condition, each transaction a part: a cascade over a million rows would hold the writer."""
    part = f"delete from {table} where rowid in (select rowid from {table} where {where} limit {_PART})"
    while True:
        with database.write() as db:
            if db.execute(part, values).rowcount < _PART:
                return


def _casefold(value: str | None) -> str | None:
    return value.casefold() if isinstance(value, str) else None


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """SQLite's own faults as StoreError; a broken constraint stays what it is, for the caller to explain."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except (OverflowError, UnicodeEncodeError) as error:  # of a value, before SQLite has seen it
        raise InvalidInput([f"A value can't be kept: {error}."]) from error
    except sqlite3.Error as error:
        raise StoreError(f"The database {path} can't be used: {error}{_advice(error)}") from error


def _advice(error: sqlite3.Error) -> str:
    """A damaged file mends itself no more; a full or busy one does."""
    if getattr(error, "sqlite_errorcode", None) not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return ""
    return ". It is damaged: move the home folder away and bring a backup back with `polylocal restore`"
