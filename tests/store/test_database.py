"""Connections and transactions of the database, migrations, and the translation of SQLite's errors."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlite_utils import Database as SqliteDatabase

from polylocal.errors import StoreError
from polylocal.statuses import Kind
from polylocal.store import Store
from polylocal.store import schema as schema_module
from polylocal.store.database import SCHEMA_VERSION, Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "polylocal.db")
    yield made
    made.close()


def facts(database: Database) -> dict[str, str]:
    with database.read() as db:
        return dict(db.execute("select name, value from facts").fetchall())


def keep(database: Database, name: str, value: str = "x") -> None:
    with database.write() as db:
        db.execute("insert into facts values (?, ?)", (name, value))


def schema(path: Path) -> list[tuple[str, ...]]:
    with sqlite3.connect(path) as db:
        found = db.execute("select type, name, sql from sqlite_master order by name").fetchall()
    db.close()
    return found


def test_what_is_written_is_read(database: Database) -> None:
    keep(database, "a")
    assert facts(database) == {"a": "x"}


def test_it_is_there_after_closing(tmp_path: Path) -> None:
    first = Database(tmp_path / "polylocal.db")
    keep(first, "a")
    first.close()
    second = Database(tmp_path / "polylocal.db")
    assert facts(second) == {"a": "x"}
    second.close()


def test_migrations_run_once(tmp_path: Path) -> None:
    path, seen = tmp_path / "polylocal.db", []
    for _ in range(3):
        Database(path).close()
        seen.append(schema(path))
    assert seen[0] == seen[1] == seen[2]
    assert any(row[1] == "runs" for row in seen[0])


def test_a_database_says_that_it_has_every_migration(database: Database) -> None:
    """With an old SCHEMA_VERSION, existing databases would not get the new migrations."""
    with database.read() as db:
        assert db.execute("pragma user_version").fetchone()[0] == SCHEMA_VERSION
        assert db.execute("select count(*) from _sqlite_migrations").fetchone()[0] == SCHEMA_VERSION


@pytest.mark.slow
def test_a_start_asks_for_migrations_only_where_they_are_missing(tmp_path: Path) -> None:
    """The import of sqlite-utils takes longer than the rest of a start."""
    path = tmp_path / "polylocal.db"
    Database(path).close()
    script = (
        "import sys; from pathlib import Path; from polylocal.store import Store;"
        " Store(Path(sys.argv[1])).close(); print('sqlite_utils' in sys.modules)"
    )
    told = [
        subprocess.run([sys.executable, "-c", script, str(at)], capture_output=True, text=True, check=True).stdout
        for at in (path, tmp_path / "new.db")
    ]
    assert told == ["False\n", "True\n"]


def test_an_exception_rolls_back(database: Database) -> None:
    with pytest.raises(RuntimeError, match="mine"):
        _write_and_raise(database, RuntimeError("mine"))
    assert facts(database) == {}
    keep(database, "b")
    assert facts(database) == {"b": "x"}


def test_an_interrupt_rolls_back_too(database: Database) -> None:
    with pytest.raises(KeyboardInterrupt):
        _write_and_raise(database, KeyboardInterrupt())
    assert facts(database) == {}


def test_a_broken_constraint_stays_what_it_is(database: Database) -> None:
    keep(database, "a")
    with pytest.raises(sqlite3.IntegrityError):
        keep(database, "a")


def test_other_faults_of_sqlite_are_store_errors_in_words(database: Database) -> None:
    sentence = r"The database .*polylocal\.db can't be used: no such table: nope"
    with pytest.raises(StoreError, match=sentence), database.read() as db:
        db.execute("select * from nope")
    with pytest.raises(StoreError, match="syntax error"), database.write() as db:
        db.execute("insert nope")
    keep(database, "a")


def test_readers_see_one_state_and_never_half_a_write(database: Database) -> None:
    keep(database, "a")
    with database.read() as reader:
        before = reader.execute("select count(*) from facts").fetchone()[0]
        with database.write() as db:
            db.execute("insert into facts values ('b', 'x')")
            with database.read() as other:
                assert other.execute("select count(*) from facts").fetchone()[0] == 1
        assert reader.execute("select count(*) from facts").fetchone()[0] == before == 1
    assert len(facts(database)) == 2


def test_a_reader_cannot_leave_a_write_behind(database: Database) -> None:
    with database.read() as db:
        db.execute("insert into facts values ('a', 'x')")
    assert facts(database) == {}


def test_writers_wait_for_each_other(database: Database) -> None:
    def count_up() -> None:
        for _ in range(20):
            with database.write() as db:
                n = int(db.execute("select value from facts where name = 'n'").fetchone()[0])
                db.execute("update facts set value = ? where name = 'n'", (str(n + 1),))

    keep(database, "n", "0")
    threads = [threading.Thread(target=count_up) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert facts(database) == {"n": "100"}


def test_foreign_keys_are_enforced(database: Database) -> None:
    with pytest.raises(sqlite3.IntegrityError), database.write() as db:
        db.execute("insert into tokens (hash, user_id, created_at) values ('x', 99, 'now')")


def test_closing_twice_is_fine_and_then_it_cannot_be_used(tmp_path: Path) -> None:
    database = Database(tmp_path / "polylocal.db")
    with database.read():
        database.close()
    database.close()
    with pytest.raises(StoreError, match="closed"):
        keep(database, "a")


# -- a database that can't be used -------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    path = tmp_path / "polylocal.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match=r"The database .*polylocal\.db can't be used: file is not a database"):
        Store(path)


def test_a_damaged_database_is_said(tmp_path: Path) -> None:
    path = tmp_path / "polylocal.db"
    Database(path).close()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 4000)
    with pytest.raises(StoreError, match=r"polylocal\.db can't be used"):
        Store(path).close()


@pytest.mark.parametrize("at", [0, 100])
def test_no_connection_to_a_database_that_can_not_be_used_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    path = tmp_path / "polylocal.db"
    Database(path).close()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 4000)
    made: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def remember(*arguments: object, **more: object) -> sqlite3.Connection:
        made.append(connect(*arguments, **more))  # type: ignore[call-overload]
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", remember)
    with pytest.raises(StoreError):
        Database(path)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        made[0].execute("select 1")


def test_a_reader_that_ends_while_the_database_closes_leaves_no_connection_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is closed between the check of the reader and the return of its connection."""
    database = Database(tmp_path / "polylocal.db")

    class Closing(list[sqlite3.Connection]):
        def append(self, connection: sqlite3.Connection) -> None:
            database.close()
            super().append(connection)

    monkeypatch.setattr(database, "_idle", Closing())
    with database.read() as db:
        assert db.execute("select 1").fetchone()[0] == 1
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        db.execute("select 1")


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # root may write everywhere else
        folder = Path("/proc/self")
    with pytest.raises(StoreError, match=r"polylocal\.db can't be used: unable to open database file"):
        Store(folder / "polylocal.db")


def test_a_folder_in_the_databases_place_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open"):
        Store(tmp_path)


def test_a_database_that_someone_else_keeps_locked_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polylocal.store.database._PRAGMAS", ("pragma busy_timeout = 1",))
    database = Database(tmp_path / "polylocal.db")
    other = sqlite3.connect(tmp_path / "polylocal.db", isolation_level=None)
    other.execute("begin exclusive")
    with pytest.raises(StoreError, match="locked"):
        keep(database, "a")
    other.close()
    keep(database, "a")
    database.close()


def test_an_installation_keeps_its_id(tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        store = Store(tmp_path / "polylocal.db")
        found += [store.installation(), store.installation()]
        store.close()
    assert len(set(found)) == 1
    assert len(found[0]) == 12


def _write_and_raise(database: Database, error: BaseException) -> None:
    with database.write() as db:
        db.execute("insert into facts values ('a', 'x')")
        raise error


def test_runs_of_the_version_before_name_the_secrets_of_their_own_user(tmp_path: Path) -> None:
    path = tmp_path / "polylocal.db"
    connection = sqlite3.connect(path)
    tables = SqliteDatabase(connection)
    names = [found.name for found in schema_module.migrations.pending(tables)]
    schema_module.migrations.apply(tables, stop_before=next(n for n in names if n.endswith("_secrets_owners")))
    connection.execute("insert into users (id, username, created_at) values (7, 'ann', 'then')")
    connection.execute(
        "insert into projects (id, uuid, user_id, name, created_at, updated_at)"
        " values (1, 'p', 7, 'old', 'then', 'then')"
    )
    connection.execute(
        "insert into runs (kind, id, uuid, project_id, user_id, status, created_at, updated_at)"
        " values ('job', 1, 'r', 1, 7, 'succeeded', 'then', 'then')"
    )
    connection.commit()
    connection.close()
    store = Store(path)
    assert store.runs.find(Kind.JOB, 1).secrets_user_id == 7
    store.close()
