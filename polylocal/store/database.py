"""Connections to the SQLite file: one writer behind a lock, a pool of readers. Translates SQLite's errors."""

import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from polylocal.errors import InvalidInput, NotFound, StoreError
from polylocal.store.rows import Row, read_rows

Values = Sequence[Any] | Mapping[str, Any]  # of the parameters of a statement

SCHEMA_VERSION = 18  # the number of migrations, which an up-to-date database has in `user_version`
BUSY_TIMEOUT_MS = 10_000
_MAX_DELETED = 5000  # the most rows that one transaction deletes
_PRAGMAS = (
    "pragma journal_mode = wal",
    "pragma synchronous = normal",
    "pragma foreign_keys = on",
    f"pragma busy_timeout = {BUSY_TIMEOUT_MS}",
)


class Database:
    """The connections to one database file. Thread-safe.

    `write()` runs one transaction at a time; `read()` sees the last committed state.

    Never call an engine, git or the network inside such a block.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _translate_errors(path):
            self._writer = self._connect()
            with _close_on_error(self._writer):
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
            _import_schema().apply(self._writer)

    @contextmanager
    def write(self, timeout_ms: int = BUSY_TIMEOUT_MS) -> Iterator[sqlite3.Connection]:
        """One transaction: committed at the end of the block, rolled back by any exception.

        `timeout_ms`: the longest wait for other writers. Raises StoreError.
        """
        with self._hold_lock(timeout_ms), _translate_errors(self.path):
            self._begin(timeout_ms)
            try:
                yield self._writer
                self._writer.execute("commit")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("rollback")
                raise

    @contextmanager
    def _hold_lock(self, timeout_ms: int) -> Iterator[None]:
        """Hold the lock between the threads of this process. With the default timeout, the wait for it has no limit."""
        if not self._lock.acquire(timeout=-1 if timeout_ms >= BUSY_TIMEOUT_MS else timeout_ms / 1000):
            raise StoreError(f"The database {self.path} is busy.")
        try:
            yield
        finally:
            self._lock.release()

    def _begin(self, timeout_ms: int) -> None:
        if timeout_ms == BUSY_TIMEOUT_MS:
            self._writer.execute("begin immediate")
            return
        self._writer.execute(f"pragma busy_timeout = {timeout_ms}")
        try:
            self._writer.execute("begin immediate")
        finally:
            self._writer.execute(f"pragma busy_timeout = {BUSY_TIMEOUT_MS}")

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent snapshot for the length of the block."""
        with _translate_errors(self.path):
            connection = self._acquire()
            try:
                connection.execute("begin")
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("rollback")
                self._release(connection)

    def rows(self, cls: type[Row], query: str, values: Values = ()) -> list[Row]:
        with self.read() as db:
            return read_rows(cls, db.execute(query, values))

    def first(self, cls: type[Row], query: str, values: Values = ()) -> Row | None:
        return next(iter(self.rows(cls, query, values)), None)

    def one(self, cls: type[Row], query: str, values: Values = ()) -> Row:
        """The first row. Raises NotFound: there is none."""
        found = self.first(cls, query, values)
        if found is None:
            raise NotFound
        return found

    def page(
        self, cls: type[Row], count: str, query: str, values: Sequence[Any], limit: int, offset: int
    ) -> tuple[int, list[Row]]:
        """The number that `count` selects, and one page of the rows of `query`. Both get the same values."""
        with self.read() as db:
            number: int = db.execute(count, values).fetchone()[0]
            return number, read_rows(cls, db.execute(f"{query} limit ? offset ?", (*values, limit, offset)))

    def column(self, query: str, values: Values = ()) -> list[Any]:
        """The first column of all rows."""
        with self.read() as db:
            return [row[0] for row in db.execute(query, values)]

    def value(self, query: str, values: Values = ()) -> Any:
        """The first column of the first row. None: there is no row."""
        with self.read() as db:
            row = db.execute(query, values).fetchone()
        return row[0] if row else None

    def execute(self, statement: str, values: Values = ()) -> int:
        """Run one statement as a transaction. Returns the number of changed rows."""
        with self.write() as db:
            return db.execute(statement, values).rowcount

    def close(self) -> None:
        """Close all connections; those in use when they are returned. Idempotent."""
        with self._lock:
            self._closed = True
            self._writer.close()
            self._close_idle()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        with _close_on_error(connection):
            connection.row_factory = sqlite3.Row
            # SQLite's own `like` ignores case for ASCII only
            connection.create_function("casefold", 1, _casefold, deterministic=True)
            for pragma in _PRAGMAS:
                connection.execute(pragma)
        return connection

    def _acquire(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()  # atomic, so no lock is needed: a read never waits for a writer
        except IndexError:
            return self._connect()

    def _release(self, connection: sqlite3.Connection) -> None:
        self._idle.append(connection)
        if self._closed:
            self._close_idle()

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


def _import_schema() -> ModuleType:
    """Import the migrations, and sqlite-utils with them, when they are needed.

    sqlite-utils also imports numpy and pandas if they are installed, and works without: 12 MB and 0.1 s of a start.
    """
    hidden = [name for name in ("numpy", "pandas") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import fail
    try:
        from polylocal.store import schema
    finally:
        for name in hidden:
            sys.modules.pop(name, None)  # another thread may have opened a new database at the same time
    return schema


@contextmanager
def _close_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def is_older(path: Path) -> bool:
    """Whether the tables of a database are of an older version. Changes nothing. Raises StoreError."""
    with _translate_errors(path), closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_MS / 1000)) as connection:
        return int(connection.execute("pragma user_version").fetchone()[0]) < SCHEMA_VERSION


class Tables:
    """A part of the store: the methods that read and change some of its tables. Thread-safe."""

    def __init__(self, database: Database, notify: Callable[[int], None] = lambda pk: None) -> None:
        """`notify` is called with the key of a row after a change, on the changing thread."""
        self._database = database
        self._notify = notify

    @contextmanager
    def _changing(self, pk: int) -> Iterator[sqlite3.Connection]:
        """A transaction that changes a run. Listeners are notified after the commit."""
        with self._database.write() as db:
            yield db
        self._notify(pk)


def insert(db: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> int:
    """Insert a row, in the caller's transaction. Returns its integer key."""
    columns, marks = ", ".join(f'"{column}"' for column in row), ", ".join(f":{column}" for column in row)
    made = db.execute(f"insert into {table} ({columns}) values ({marks}) returning rowid", dict(row))
    key: int = made.fetchone()[0]
    return key


def update(db: sqlite3.Connection, table: str, row: Mapping[str, Any], **key: int) -> None:
    """Set columns of the row with this key, in the caller's transaction."""
    sets = ", ".join(f'"{column}" = :{column}' for column in row)
    condition = " and ".join(f"{column} = :{column}" for column in key)
    db.execute(f"update {table} set {sets} where {condition}", {**row, **key})


def delete_in_parts(database: Database, table: str, where: str, values: tuple[Any, ...]) -> None:
    """Delete all rows that meet a condition, in several transactions: a large cascade would block other writers."""
    part = f"delete from {table} where rowid in (select rowid from {table} where {where} limit {_MAX_DELETED})"
    while True:
        with database.write() as db:
            if db.execute(part, values).rowcount < _MAX_DELETED:
                return


def _casefold(value: str | None) -> str | None:
    return value.casefold() if isinstance(value, str) else None


@contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    """Raise SQLite's errors as StoreError. A violated constraint passes, for the caller to explain."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except (OverflowError, UnicodeEncodeError) as error:  # a value that can't be passed to SQLite
        raise InvalidInput([f"A value can't be stored: {error}."]) from error
    except sqlite3.Error as error:
        raise StoreError(f"The database {path} can't be used: {error}{_advice(error)}") from error


def _advice(error: sqlite3.Error) -> str:
    """The advice for a damaged file. Other errors, such as a full disk, may pass without help."""
    if getattr(error, "sqlite_errorcode", None) not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return ""
    return ". It is damaged: move the home folder away and bring a backup back with `polylocal restore`"
