"""Projects, and their code references."""

import sqlite3
import uuid as uuids
from collections.abc import Callable, Mapping
from typing import Any

from polylocal import clock
from polylocal.errors import InvalidInput, NotFound
from polylocal.store.database import Tables, delete_in_parts, insert, update
from polylocal.store.platforms import forget_published
from polylocal.store.queries import OPEN, VISIBLE, Page, order_by_dates
from polylocal.store.rows import CodeReference, Project, User, columns_of, json_columns, read_row, to_json

SELECT = "select p.*, u.username as user from projects p join users u on u.id = p.user_id"
_VISIBLE = "p.deleted_at is null and p.archived_at is null"
_JSON = json_columns(Project)
_COLUMNS = {"name", "description", "readme", "tags", "is_public", "is_package", "default_branch"}


class Projects(Tables):
    """`notify` is called with the id of a project that was created, renamed or deleted."""

    def create(self, user: User, values: Mapping[str, Any]) -> Project:
        """Create a project. `values`: name (required, unique for the user), description, readme, tags, is_public."""
        now = clock.now()
        row = {"is_public": True, **columns_of(values, _COLUMNS, _JSON), "user_id": user.id}
        row |= {"uuid": uuids.uuid4().hex, "created_at": now, "updated_at": now}
        try:
            with self._database.write() as db:
                project_id = insert(db, "projects", row)
        except sqlite3.IntegrityError as error:
            raise InvalidInput([f"A project with name `{values['name']}` already exists."]) from error
        self._notify(project_id)
        return self.by_id(project_id)

    def get(self, username: str, name: str) -> Project:
        query = f"{SELECT} where u.username = ? and p.name = ? and {_VISIBLE}"
        return self._database.one(Project, query, (username, name))

    def including_archived(self, username: str, name: str) -> Project:
        """A project, also an archived one. Raises NotFound."""
        query = f"{SELECT} where u.username = ? and p.name = ? and p.deleted_at is null"
        return self._database.one(Project, query, (username, name))

    def visible(self, project_id: int) -> Project:
        """A project that is neither deleted nor archived. Raises NotFound."""
        return self._database.one(Project, f"{SELECT} where p.id = ? and {_VISIBLE}", (project_id,))

    def by_id(self, project_id: int) -> Project:
        return self._database.one(Project, f"{SELECT} where p.id = ?", (project_id,))

    def page(self, username: str, *, public_only: bool, limit: int, offset: int) -> tuple[int, list[Project]]:
        """Count and one page of a user's projects, the last changed first."""
        where = f"where u.username = ? and {_VISIBLE}" + (" and p.is_public" if public_only else "")
        count = f"select count(*) from projects p join users u on u.id = p.user_id {where}"
        found = f"{SELECT} {where} order by p.updated_at desc, p.id desc"
        return self._database.page(Project, count, found, (username,), limit, offset)

    def readable(self, user: User, page: Page, *, owned: bool = False, name_like: str | None = None) -> list[Project]:
        """Projects that a user may read, oldest first. `owned`: only their own. `name_like`: a part of the name."""
        where, values = f"{_VISIBLE} and (p.user_id = ? or (not ? and (? or p.is_public)))", [user.id, owned]
        values.append(user.is_superuser)
        condition = "instr(casefold(p.name), casefold(?))" if name_like else "?"
        query = f"{SELECT} where {where} and {condition} order by p.id limit ? offset ?"
        return self._database.rows(Project, query, (*values, name_like or 1, page.limit, page.offset))

    def archives(self, user: User, page: Page) -> tuple[int, list[Project]]:
        """Count and one page of a user's archived projects, the last archived first."""
        where = "where p.user_id = ? and p.archived_at is not null and p.deleted_at is null"
        found = f"{SELECT} {where} order by {order_by_dates(page.sort, 'p', 'p.archived_at desc, p.id desc')}"
        count = f"select count(*) from projects p {where}"
        return self._database.page(Project, count, found, (user.id,), page.limit, page.offset)

    def update(self, project: Project, values: Mapping[str, Any]) -> Project:
        return self.change(project, lambda _: values)

    def change(self, project: Project, values_for: Callable[[Project], Mapping[str, Any]]) -> Project:
        """Change a project to values that depend on the old ones: `values_for` gets the row of this transaction.

        An exception of `values_for` ends the transaction, and nothing is changed.
        """
        with self._database.write() as db:
            found = db.execute(f"{SELECT} where p.id = ?", (project.id,)).fetchone()
            if found is None:
                raise NotFound
            values = values_for(read_row(Project, found))
            row = columns_of(values, _COLUMNS, _JSON)
            try:
                update(db, "projects", row | {"updated_at": clock.now()}, id=project.id)
            except sqlite3.IntegrityError as error:
                raise InvalidInput([f"A project with name `{values.get('name')}` already exists."]) from error
        if "name" in row:
            self._notify(project.id)
        return self.by_id(project.id)

    def archive(self, project: Project) -> None:
        """Archive it with all its runs: they are invisible until it is restored. Its open runs are stopped."""
        now = clock.now()
        among = "project_id = ? and archived_at is null and deleted_at is null"
        with self._database.write() as db:
            db.execute(
                f"update runs as r set stop_requested_at = coalesce(stop_requested_at, ?) where {among} and {OPEN}",
                (now, project.id),
            )
            archive = "update projects set archived_at = ? where id = ? and archived_at is null"
            if db.execute(archive, (now, project.id)).rowcount:  # unless another request archived it at the same moment
                db.execute(f"update runs set archived_at = ? where {among}", (now, project.id))

    def restore(self, project: Project) -> None:
        """Restore it, with the runs that were archived together with it."""
        with self._database.write() as db:
            db.execute("update projects set archived_at = null where id = ?", (project.id,))
            runs = "update runs set archived_at = null where project_id = ? and archived_at = ?"
            db.execute(runs, (project.id, project.archived_at))

    def set_repository(self, project: Project, git_url: str | None, *, by_admin: bool = False) -> Project:
        """Record that the code was fetched from `git_url` just now; None: the code is uploaded from now on.

        `by_admin`: an admin gave the URL.
        """
        row = {"git_url": git_url, "git_synced_at": clock.now() if git_url else None, "git_by_admin": by_admin}
        with self._database.write() as db:
            update(db, "projects", row, id=project.id)
        return self.by_id(project.id)

    def set_ci(self, project: Project, config: Mapping[str, Any] | None) -> Project:
        """Set the configuration of CI, by which new code starts a run of its own polyaxonfile. None: it starts none."""
        self._database.execute(
            "update projects set ci = :ci, ci_updated_at = :now, ci_created_at = iif(:ci is null, null,"
            " coalesce(ci_created_at, :now)) where id = :id",
            {"ci": to_json(config), "now": clock.now(), "id": project.id},
        )
        return self.by_id(project.id)

    def delete(self, project: Project) -> None:
        """Delete it with all its runs: they are invisible at once, and the runner removes what they hold."""
        now = clock.now()
        with self._database.write() as db:
            db.execute("update runs set deleted_at = ? where project_id = ? and deleted_at is null", (now, project.id))
            db.execute("update projects set deleted_at = ? where id = ?", (now, project.id))
            forget_published(db, "project_id = ?", (project.id,))
        self._notify(project.id)

    def all(self) -> list[Project]:
        """All projects of all users, including archived ones."""
        return self._database.rows(Project, f"{SELECT} where p.deleted_at is null order by p.id")

    def uuids(self) -> set[str]:
        """The uuids of all projects, including deleted ones that are not removed yet."""
        return set(self._database.column("select uuid from projects"))

    def removable(self) -> list[Project]:
        """Deleted projects without runs."""
        query = f"{SELECT} where p.deleted_at is not null and not exists (select 1 from runs where project_id = p.id)"
        return self._database.rows(Project, query)

    def remove(self, project: Project) -> None:
        for table in ("activities", "searches", "code_references"):
            delete_in_parts(self._database, table, "project_id = ?", (project.id,))
        with self._database.write() as db:
            db.execute("delete from bookmarks where subject = 'project' and object_id = ?", (project.id,))
            db.execute("delete from projects where id = ?", (project.id,))

    def counts(self, project: Project) -> dict[str, int]:
        """The number of visible runs by kind. `independent`: experiments without a group."""
        grouped = (
            "select count(*) from runs r where r.group_pk in (select pk from runs where project_id = ?"
            f" and kind = 'group') and r.kind = 'experiment' and {VISIBLE}"
        )
        with self._database.read() as db:
            found = dict(db.execute("select kind, n from counters where project_id = ?", (project.id,)).fetchall())
            in_groups = db.execute(grouped, (project.id,)).fetchone()[0] if found.get("group") else 0
        return {**found, "independent": found.get("experiment", 0) - in_groups}

    def reference_code(self, project: Project, values: Mapping[str, Any]) -> CodeReference:
        """Find or create the reference with this branch, commit, head, is_dirty and git_url."""
        with self._database.write() as db:
            reference_id = reference_code(db, project, values)
        return self.code_reference(reference_id)

    def code_reference(self, reference_id: int) -> CodeReference:
        return self._database.one(CodeReference, "select * from code_references where id = ?", (reference_id,))


def reference_code(db: sqlite3.Connection, project: Project, values: Mapping[str, Any]) -> int:
    """`Projects.reference_code` in the caller's transaction. Returns the id of the reference."""
    wanted = {"branch": "master", "commit": None, "head": None, "is_dirty": False, "git_url": None, **values}
    where = " and ".join(f'"{column}" is :{column}' for column in wanted)
    row = {**wanted, "project_id": project.id}
    query = f"select id from code_references where project_id = :project_id and {where} order by id desc"
    if found := db.execute(query, row).fetchone():
        return int(found["id"])
    return insert(db, "code_references", {**row, "uuid": uuids.uuid4().hex, "created_at": clock.now()})
