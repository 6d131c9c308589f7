"""Facts about files for the indexes of repositories, by the sha1 of their content."""

import json
from collections.abc import Iterable, Mapping

from polylocal.packages.facts import Facts
from polylocal.packages.reading import FORMAT
from polylocal.store.database import Database

Known = Mapping[tuple[str, str], Facts]  # by sha1 and the kind of reader

_INSERT = """
insert or replace into file_facts (sha1, kind, format, md5, sha256, size, about)
select :sha1, :kind, :format, :md5, :sha256, :size, :about where exists (select 1 from stored_files where sha1 = :sha1)
"""


class FileFacts:
    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, sha1s: Iterable[str]) -> Known:
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

    def keep(self, found: Known) -> None:
        """Store facts. Idempotent. Files that have no row any more are left out."""
        if not found:
            return
        rows = [
            {
                "sha1": facts.sha1,
                "kind": kind,
                "format": FORMAT,
                "md5": facts.md5,
                "sha256": facts.sha256,
                "size": facts.size,
                "about": json.dumps(dict(facts.about)),
            }
            for (_, kind), facts in found.items()
        ]
        with self._database.write() as db:
            db.executemany(_INSERT, rows)
