"""Bookmarks of projects and runs, per user."""

import json
from collections.abc import Sequence

from polylocal import clock
from polylocal.errors import NotFound
from polylocal.statuses import Kind
from polylocal.store.database import Tables
from polylocal.store.projects import SELECT as PROJECTS
from polylocal.store.queries import SELECT as RUNS
from polylocal.store.queries import VISIBLE, Page, order_by_dates
from polylocal.store.rows import Project, Row, Run, User

_SEEN = "p.archived_at is null and (? or p.is_public or p.user_id = ?)"  # a bookmarked project may have become private
_UPSERT = """
insert into bookmarks values (?, ?, ?, 1, ?, ?)
on conflict do update set enabled = 1, updated_at = excluded.updated_at
"""


class Bookmarks(Tables):
    def add(self, user: User, thing: Project | Run) -> None:
        """Add a bookmark. Idempotent."""
        now = clock.now()
        self._database.execute(_UPSERT, (user.id, *_subject(thing), now, now))

    def remove(self, user: User, thing: Project | Run) -> None:
        """Remove a bookmark. Idempotent. Raises NotFound for an object that was never bookmarked."""
        update = "update bookmarks set enabled = 0, updated_at = ? where user_id = ? and subject = ? and object_id = ?"
        if not self._database.execute(update, (clock.now(), user.id, *_subject(thing))):
            raise NotFound

    def projects(self, user: User, page: Page) -> tuple[int, list[Project]]:
        """Count and one page of the projects that a user bookmarked, the last one first."""
        found = f"{PROJECTS} join bookmarks k on k.subject = 'project' and k.object_id = p.id"
        where = f"where k.user_id = ? and k.enabled and {_SEEN} and p.deleted_at is null"
        by = order_by_dates(page.sort, "p", "k.updated_at desc")
        return self._page(Project, f"{found} {where}", by, (user.id, user.is_superuser, user.id), page)

    def runs(self, user: User, kind: Kind, page: Page) -> tuple[int, list[Run]]:
        """Count and one page of the runs of a kind that a user bookmarked, the last one first."""
        found = f"{RUNS} join bookmarks k on k.subject = r.kind and k.object_id = r.pk"
        where = f"where k.user_id = ? and k.enabled and {_SEEN} and r.kind = ? and {VISIBLE}"
        by = order_by_dates(page.sort, "r", "k.updated_at desc")
        values = (user.id, user.is_superuser, user.id, str(kind))
        return self._page(Run, f"{found} {where}", by, values, page)

    def _page(
        self, cls: type[Row], query: str, by: str, values: tuple[object, ...], page: Page
    ) -> tuple[int, list[Row]]:
        count, found = f"select count(*) from ({query})", f"{query} order by {by}"
        return self._database.page(cls, count, found, values, page.limit, page.offset)

    def among(self, user: User, things: Sequence[Project] | Sequence[Run]) -> set[int]:
        """The ids of projects, or the pks of runs, that the user bookmarked among these."""
        subjects, numbers = zip(*map(_subject, things), strict=True) if things else ((), ())
        among = "subject in (select value from json_each(?)) and object_id in (select value from json_each(?))"
        query = f"select object_id from bookmarks where user_id = ? and enabled and {among}"
        return set(self._database.column(query, (user.id, json.dumps(sorted(set(subjects))), json.dumps(numbers))))


def _subject(thing: Project | Run) -> tuple[str, int]:
    return ("project", thing.id) if isinstance(thing, Project) else (thing.kind, thing.pk)
