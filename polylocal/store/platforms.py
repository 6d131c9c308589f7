"""Platforms, their repositories, and the projects that may publish there."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from polylocal import clock
from polylocal.errors import InvalidInput
from polylocal.packages.statuses import BuildStatus
from polylocal.store.database import Tables, insert, update
from polylocal.store.queries import Page
from polylocal.store.rows import Arch, Platform, Project, Repository, User, columns_of, read_rows

_PLATFORM = "select p.*, u.username as owner from platforms p join users u on u.id = p.owner_id"
_REPOSITORY = "select t.*, p.name as platform_name from repositories t join platforms p on p.id = t.platform_id"
_SEEN = "(? or p.is_open or p.owner_id = ?)"
_TAKEN = "Name has already been taken"
_QA_WHERE_RELEASED = """
update repositories set publish_without_qa = 0 where id = ? and platform_id in (select id from platforms where released)
"""
_PLATFORM_COLUMNS = frozenset(
    "name owner_id description distrib_type is_open released default_branch build_image build_command build_network"
    " time_living".split()
)
_REPOSITORY_COLUMNS = frozenset({"name", "description", "publish_without_qa", "is_locked"})


class Platforms(Tables):
    # -- platforms ------------------------------------------------------------------------------------------------

    def create(self, owner: User, values: Mapping[str, Any]) -> Platform:
        """Create a main platform. Raises InvalidInput for a name that is taken."""
        now = clock.now()
        row = columns_of(values, _PLATFORM_COLUMNS)
        row |= {"owner_id": owner.id, "platform_type": "main", "created_at": now, "updated_at": now}
        with self._database.write() as db:
            # some file systems ignore case in the names of their folders
            if db.execute("select 1 from platforms where lower(name) = lower(?)", (row.get("name"),)).fetchone():
                raise InvalidInput([_TAKEN])
            platform_id = insert(db, "platforms", row)
        return self.get(platform_id)

    def get(self, platform_id: int) -> Platform:
        return self._database.one(Platform, f"{_PLATFORM} where p.id = ?", (platform_id,))

    def by_name(self, name: str) -> Platform:
        return self._database.one(Platform, f"{_PLATFORM} where p.name = ?", (name,))

    def page(
        self, user: User, page: Page, *, platform_type: str | None = None, name_like: str | None = None
    ) -> list[Platform]:
        """Platforms that a user may see, oldest first. `name_like`: a part of the name, in any case."""
        where = _SEEN
        values: list[Any] = [user.is_superuser, user.id]
        if platform_type:
            where, values = f"{where} and p.platform_type = ?", [*values, platform_type]
        if name_like:
            where, values = f"{where} and instr(casefold(p.name), casefold(?))", [*values, name_like]
        query = f"{_PLATFORM} where {where} order by p.id limit ? offset ?"
        return self._database.rows(Platform, query, (*values, page.limit, page.offset))

    def update(self, platform: Platform, values: Mapping[str, Any]) -> Platform:
        """Change a platform. A release can't be undone, and its repositories have QA afterwards. The name is fixed."""
        row = columns_of(values, _PLATFORM_COLUMNS - {"name"})
        is_released = row.pop("released", False)
        with self._database.write() as db:
            update(db, "platforms", row | {"updated_at": clock.now()}, id=platform.id)
            if is_released:
                db.execute("update platforms set released = 1 where id = ?", (platform.id,))
                db.execute("update repositories set publish_without_qa = 0 where platform_id = ?", (platform.id,))
        return self.get(platform.id)

    # -- repositories ---------------------------------------------------------------------------------------------

    def add_repository(self, platform: Platform, values: Mapping[str, Any]) -> Repository:
        now = clock.now()
        row = columns_of(values, _REPOSITORY_COLUMNS)
        row |= {"platform_id": self.get(platform.id).id, "created_at": now, "updated_at": now}
        try:
            with self._database.write() as db:
                repository_id = insert(db, "repositories", row)
                db.execute(_QA_WHERE_RELEASED, (repository_id,))
        except sqlite3.IntegrityError as error:
            raise InvalidInput([_TAKEN]) from error
        return self.repository(repository_id)

    def repository(self, repository_id: int) -> Repository:
        return self._database.one(Repository, f"{_REPOSITORY} where t.id = ?", (repository_id,))

    def repositories(self, platforms: Iterable[int]) -> list[Repository]:
        """The repositories of these platforms, oldest first."""
        return self._repositories("t.platform_id", platforms)

    def repositories_by_id(self, ids: Iterable[int]) -> list[Repository]:
        return self._repositories("t.id", ids)

    def _repositories(self, column: str, ids: Iterable[int]) -> list[Repository]:
        query = f"{_REPOSITORY} where {column} in (select value from json_each(?)) order by t.id"
        return self._database.rows(Repository, query, (json.dumps(list(ids)),))

    def update_repository(self, repository: Repository, values: Mapping[str, Any]) -> Repository:
        """Change a repository. The name is fixed, since folders have it."""
        row = columns_of(values, _REPOSITORY_COLUMNS - {"name"})
        with self._database.write() as db:
            update(db, "repositories", row | {"updated_at": clock.now()}, id=repository.id)
            db.execute(_QA_WHERE_RELEASED, (repository.id,))
        return self.repository(repository.id)

    # -- projects in repositories ---------------------------------------------------------------------------------

    def repositories_of(self, project: Project) -> list[Repository]:
        """The repositories that a project is in."""
        having = f"{_REPOSITORY} join repository_projects h on h.repository_id = t.id where h.project_id = ?"
        return self._database.rows(Repository, f"{having} order by t.id", (project.id,))

    def add_project(self, repository: Repository, project: Project) -> None:
        """Add a project. Idempotent. Raises InvalidInput: another repository of the same platform has it."""
        elsewhere = (
            "select t.name from repository_projects h join repositories t on t.id = h.repository_id"
            " where h.project_id = ? and t.platform_id = ? and t.id <> ?"
        )
        with self._database.write() as db:
            found = db.execute(elsewhere, (project.id, repository.platform_id, repository.id)).fetchone()
            if found:
                raise InvalidInput([f"error: the repository `{found['name']}` of this platform has the project"])
            db.execute("insert or ignore into repository_projects values (?, ?)", (repository.id, project.id))

    def remove_project(self, repository: Repository, project: Project) -> None:
        """Remove a project. Idempotent. Its packages are removed from the repository once that is unlocked."""
        with self._database.write() as db:
            key = (repository.id, project.id)
            db.execute("delete from repository_projects where repository_id = ? and project_id = ?", key)
            forget_published(db, "save_to_repository_id = ? and project_id = ?", key)

    def projects_of(self, repository: Repository, user: User, page: Page) -> list[int]:
        """The ids of its projects that a user may read, in ascending order."""
        query = (
            "select h.project_id from repository_projects h join projects p on p.id = h.project_id"
            " where h.repository_id = ? and p.deleted_at is null and p.archived_at is null"
            " and (? or p.is_public or p.user_id = ?) order by h.project_id limit ? offset ?"
        )
        values = (repository.id, user.is_superuser, user.id, page.limit, page.offset)
        return self._database.column(query, values)

    def has_project(self, repository: Repository, project_id: int) -> bool:
        query = "select 1 from repository_projects where repository_id = ? and project_id = ?"
        return self._database.value(query, (repository.id, project_id)) is not None

    # -- architectures --------------------------------------------------------------------------------------------

    def arches(self, names: Iterable[str]) -> list[Arch]:
        """The rows of these architectures. A new name gets a row, whose id never changes."""
        wanted = list(names)
        values = (json.dumps(wanted),)
        query = "select * from arches where name in (select value from json_each(?)) order by id"
        found = self._database.rows(Arch, query, values)
        if len(found) == len(set(wanted)):
            return found
        with self._database.write() as db:
            db.executemany("insert or ignore into arches (name) values (?)", [(name,) for name in wanted])
            return read_rows(Arch, db.execute(query, values))

    def arch(self, arch_id: int) -> Arch:
        return self._database.one(Arch, "select * from arches where id = ?", (arch_id,))


def forget_published(db: sqlite3.Connection, condition: str, values: tuple[Any, ...]) -> None:
    """Remove the packages of these build lists from their repositories. In the caller's transaction.

    Running publications count: an interrupted process may have written the packages without recording that.
    """
    is_published = f"(published_into is not null or status = {int(BuildStatus.PUBLISHING)})"
    published = f"build_lists where {is_published} and {condition}"
    stale = f"update repositories set stale = stale + 1 where id in (select save_to_repository_id from {published})"
    db.execute(stale, values)
    db.execute(f"update build_lists set published_into = null where run_pk in (select run_pk from {published})", values)
