"""Copies of the database: taken while it is in use, and checked before they are used."""

import sqlite3
import uuid as uuids
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlite_utils import Database as Migrated

from polylocal.errors import StoreError
from polylocal.store.database import BUSY_TIMEOUT_MS
from polylocal.store.queries import OPEN
from polylocal.store.schema import migrations

# an id that no container has: the daemon reports the container as lost
_NO_CONTAINER = "0" * 64


@dataclass(frozen=True)
class Snapshot:
    """Facts about a copy. `newer`: migrations that this version does not know."""

    installation: str
    runs: int
    under_way: list[str]  # uuids
    newer: list[str]


def take(database: Path, to: Path) -> Snapshot:
    """Copy a consistent state of the database while others write to it. Raises StoreError if it is damaged."""
    with _open(database) as source, _open(to, "rwc") as target:
        source.backup(target)
    return inspect(to, of=database)


def inspect(path: Path, of: Path | None = None) -> Snapshot:
    """The facts about a copy. Changes nothing. Raises StoreError, which names `of`, if it is damaged or not ours."""
    with _open(path, called=of) as db:
        _check(db, of or path)
        facts = dict(db.execute("select name, value from facts").fetchall())
        applied = {item.name for item in migrations.applied(Migrated(db))}
        return Snapshot(
            installation=facts.get("installation", ""),
            runs=db.execute("select count(*) from runs").fetchone()[0],
            under_way=[row[0] for row in db.execute(f"select r.uuid from runs r where {OPEN} order by r.pk")],
            newer=sorted(applied - _known_migrations()),
        )


def detach(path: Path, installation: str | None = None) -> str:
    """Turn a copy into a separate installation, and return its id.

    Containers belong to the installation that made them: no run of the copy has one, and the copy listens for
    containers at its own address.
    """
    made = installation or uuids.uuid4().hex[:12]
    with _open(path) as db:
        db.execute("begin immediate")
        db.execute("insert or replace into facts values ('installation', ?)", (made,))
        db.execute("delete from facts where name like 'bridge_port%'")
        db.execute("update runs set container_id = ? where container_id is not null", (_NO_CONTAINER,))
        db.execute("commit")
    return made


def _known_migrations() -> set[str]:
    with closing(sqlite3.connect(":memory:")) as nothing:
        return {item.name for item in migrations.pending(Migrated(nothing))}


def _check(db: sqlite3.Connection, path: Path) -> None:
    found = [row[0] for row in db.execute("pragma integrity_check(3)")]
    faults = [text for text in found if text != "ok"]
    faults += [f"a row of {row[0]} without its {row[2]}" for row in db.execute("pragma foreign_key_check").fetchmany(3)]
    if faults:
        raise StoreError(f"The database {path} is damaged: {'; '.join(faults)}")


@contextmanager
def _open(path: Path, mode: str = "rw", called: Path | None = None) -> Iterator[sqlite3.Connection]:
    """Open the file without the migrations that a daemon would run."""
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode={mode}", uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000
        )
        try:
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(f"The database {called or path} can't be used: {error}") from error
