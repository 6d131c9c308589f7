"""The activity log: actions of users, and the objects that they viewed."""

import logging
import time

from polylocal import clock
from polylocal.errors import StoreError
from polylocal.store.database import BUSY_TIMEOUT_MS, Database, Tables
from polylocal.store.rows import Activity, Project, Run, User

log = logging.getLogger(__name__)

VIEWED = "viewed"
MAX_ENTRIES = 100_000  # entries; the oldest are removed
_MAX_REMOVED = 20  # the most entries that are removed with each new one
VIEW_INTERVAL_S = 60.0  # between two recorded views of the same object
_MAX_REMEMBERED = 10_000
_VIEW_TIMEOUT_MS = 50  # the longest time that recording a view may delay a reader

_SELECT = """
select a.id, u.username as actor, a.action, a.subject, a.object_id, a.object_name, a.created_at
from activities a join users u on u.id = a.user_id
"""


class Activities(Tables):
    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._viewed: dict[tuple[int, str, int], float] = {}

    def view(self, user: User, thing: Project | Run) -> None:
        """Record that a user viewed an object, at most every `VIEW_INTERVAL_S`: reads should rarely write."""
        key = (user.id, _subject(thing), thing.id)
        now = time.monotonic()
        if now - self._viewed.get(key, -VIEW_INTERVAL_S) < VIEW_INTERVAL_S:
            return
        if len(self._viewed) > _MAX_REMEMBERED:
            self._viewed.clear()
        try:
            self.add(user, VIEWED, thing, timeout_ms=_VIEW_TIMEOUT_MS)
            self._viewed[key] = now
        except StoreError as error:  # a view must succeed on a full or busy disk
            log.debug("a view of %s is not recorded: %s", thing.unique_name, error)

    def add(self, user: User, action: str, thing: Project | Run, *, timeout_ms: int = BUSY_TIMEOUT_MS) -> None:
        """Add an entry. Only the last view of an object is kept."""
        project_id = thing.id if isinstance(thing, Project) else thing.project_id
        row = (user.id, action, _subject(thing), thing.id, thing.unique_name, project_id, clock.now())
        with self._database.write(timeout_ms) as db:
            db.execute(
                "insert or replace into activities"
                " (user_id, action, subject, object_id, object_name, project_id, created_at)"
                " values (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            # a few at a time, so that no action waits for a long removal
            oldest = "select id from activities where id <= (select max(id) from activities) - ? order by id limit ?"
            db.execute(f"delete from activities where id in ({oldest})", (MAX_ENTRIES, _MAX_REMOVED))

    def page(self, project: Project | None, user: User, *, limit: int, offset: int) -> tuple[int, list[Activity]]:
        """The actions in a project, the newest first. None: in all projects that the user may read."""
        where = "where a.action <> 'viewed'"
        if project is not None:
            return self._page(f"{where} and a.project_id = ?", (project.id,), limit, offset)
        seen = "(? or a.project_id in (select id from projects where user_id = ? or is_public))"
        return self._page(f"{where} and {seen}", (user.is_superuser, user.id), limit, offset)

    def views(self, user: User, *, limit: int, offset: int) -> tuple[int, list[Activity]]:
        """The objects that a user viewed, the newest first."""
        return self._page("where a.user_id = ? and a.action = 'viewed'", (user.id,), limit, offset)

    def _page(self, where: str, values: tuple[object, ...], limit: int, offset: int) -> tuple[int, list[Activity]]:
        count, found = f"select count(*) from activities a {where}", f"{_SELECT} {where} order by a.id desc"
        return self._database.page(Activity, count, found, values, limit, offset)


def _subject(thing: Project | Run) -> str:
    return "project" if isinstance(thing, Project) else thing.kind
