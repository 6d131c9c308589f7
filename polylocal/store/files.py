"""The rows of stored files, and the facts about them for the indexes of repositories, by the sha1 of the content."""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from polylocal import clock
from polylocal.packages.facts import Facts
from polylocal.packages.reading import FORMAT
from polylocal.store.database import Tables, insert
from polylocal.store.rows import NewFile, Run, StoredFile, User

Known = Mapping[tuple[str, str], Facts]  # by sha1 and the kind of reader

_INSERT_FACTS = """
insert or replace into file_facts (sha1, kind, format, md5, sha256, size, about)
select :sha1, :kind, :format, :md5, :sha256, :size, :about where exists (select 1 from stored_files where sha1 = :sha1)
"""


class StoredFiles(Tables):
    """The files of builds, and the files that users uploaded."""

    def add(self, sha1: str, file_name: str, size: int, user: User) -> None:
        """Record a file that a user uploaded. Idempotent."""
        with self._database.write() as db:
            record(db, NewFile(sha1, file_name, size), user.id, is_uploaded=True)

    def get(self, sha1: str) -> StoredFile:
        return self._database.one(StoredFile, "select * from stored_files where sha1 = ?", (sha1,))

    def may_read(self, sha1: str, user: User | None) -> bool:
        """Whether a user may read a file: it was uploaded, or built by a project that they may read."""
        held = "select run_pk from packages where sha1 = :sha1 union select run_pk from results where sha1 = :sha1"
        query = (
            "select exists (select 1 from stored_files where sha1 = :sha1 and is_uploaded)"
            f" or exists (select 1 from build_lists l join projects p on p.id = l.project_id where l.run_pk in ({held})"
            " and p.deleted_at is null and (p.is_public or p.user_id = :user or :all))"
        )
        values = {"sha1": sha1, "user": user.id if user else None, "all": bool(user and user.is_superuser)}
        return bool(self._database.value(query, values))

    def of_run(self, run: Run) -> list[str]:
        """The sha1 of each file of a build."""
        query = "select sha1 from packages where run_pk = :pk union select sha1 from results where run_pk = :pk"
        return self._database.column(query, {"pk": run.pk})

    def remove_unused(self, among: Iterable[str] | None = None) -> list[str]:
        """Remove the rows of files that no build has and no user uploaded. Returns their sha1. None: of all files."""
        unused = (
            "not is_uploaded and not exists (select 1 from packages p where p.sha1 = stored_files.sha1)"
            " and not exists (select 1 from results e where e.sha1 = stored_files.sha1)"
        )
        wanted = "" if among is None else " and sha1 in (select value from json_each(:among))"
        values = {"among": json.dumps(list(among or ()))}
        with self._database.write() as db:
            removed = db.execute(f"delete from stored_files where {unused}{wanted} returning sha1", values)
            return [row["sha1"] for row in removed]

    def without_row(self, names: Iterable[str]) -> list[str]:
        """Those of these sha1 that no row has."""
        query = "select value from json_each(?) where value not in (select sha1 from stored_files)"
        return self._database.column(query, (json.dumps(list(names)),))


class FileFacts(Tables):
    def get(self, sha1s: Iterable[str]) -> Known:
        """The known facts about these files, without those that an older version read differently."""
        query = "select * from file_facts where format = ? and sha1 in (select value from json_each(?))"
        with self._database.read() as db:
            rows = db.execute(query, (FORMAT, json.dumps(list(sha1s)))).fetchall()
        return {
            (row["sha1"], row["kind"]): Facts(
                sha1=row["sha1"], md5=row["md5"], sha256=row["sha256"], size=row["size"], about=json.loads(row["about"])
            )
            for row in rows
        }

    def save(self, found: Known) -> None:
        """Store facts. Idempotent. Files that have no row any more are left out."""
        if not found:
            return
        rows = [
            {**vars(facts), "kind": kind, "format": FORMAT, "about": json.dumps(dict(facts.about))}
            for (_, kind), facts in found.items()
        ]
        with self._database.write() as db:
            db.executemany(_INSERT_FACTS, rows)


def record(db: sqlite3.Connection, file: NewFile, user_id: int | None, *, is_uploaded: bool = False) -> None:
    """Record a file in the file store, in the caller's transaction. Idempotent."""
    db.execute(
        "insert into stored_files (sha1, file_name, size, user_id, is_uploaded, created_at) values (?, ?, ?, ?, ?, ?)"
        " on conflict do update set is_uploaded = max(is_uploaded, excluded.is_uploaded)",
        (file.sha1, file.file_name, file.size, user_id, is_uploaded, clock.now()),
    )


def add_results(db: sqlite3.Connection, run_pk: int, files: Sequence[NewFile]) -> None:
    """Add files to the results of a build, in the caller's transaction."""
    user_id = db.execute("select user_id from runs where pk = ?", (run_pk,)).fetchone()["user_id"]
    for file in files:
        record(db, file, user_id)
        row = {"run_pk": run_pk, "sha1": file.sha1, "file_name": file.file_name, "size": file.size}
        insert(db, "results", row | {"created_at": clock.now()})
