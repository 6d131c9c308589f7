"""Bookmarks of projects and runs, per user."""

from __future__ import annotations

import json
from collections.abc import Iterable

from polylocal import clock
from polylocal.errors import NotFound
from polylocal.store.database import Database
from polylocal.store.rows import Project, Run, User

_UPSERT = """
insert into bookmarks values (?, ?, ?, 1, ?, ?)
on conflict do update set enabled = 1, updated_at = excluded.updated_at
"""


class Bookmarks:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, user: User, thing: Project | Run) -> None:
        """Idempotent."""
        now = clock.now()
        with self._database.write() as db:
            db.execute(_UPSERT, (user.id, *_subject(thing), now, now))

    def remove(self, user: User, thing: Project | Run) -> None:
        """Idempotent once it was bookmarked; NotFound if it never was."""
        update = "update bookmarks set enabled = 0, updated_at = ? where user_id = ? and subject = ? and object_id = ?"
        with self._database.write() as db:
            if not db.execute(update, (clock.now(), user.id, *_subject(thing))).rowcount:
                raise NotFound

    def of(self, user: User, things: Iterable[Project | Run]) -> set[int]:
        """Which of these (one kind) the user has bookmarked: ids of projects, pks of runs."""
        subjects = [_subject(thing) for thing in things]
        if not subjects:
            return set()
        query = "select object_id from bookmarks where user_id = ? and subject = ? and enabled"
        among = "object_id in (select value from json_each(?))"
        with self._database.read() as db:
            numbers = json.dumps([number for _, number in subjects])
            rows = db.execute(f"{query} and {among}", (user.id, subjects[0][0], numbers))
            return {row["object_id"] for row in rows}


def _subject(thing: Project | Run) -> tuple[str, int]:
    return ("project", thing.id) if isinstance(thing, Project) else (thing.kind, thing.pk)
