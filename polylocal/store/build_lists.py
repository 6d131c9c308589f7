"""Build lists: package builds as ABF has them, with their packages, results and publications."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polylocal import clock
from polylocal.packages import refusals, statuses
from polylocal.packages.refusals import Refusal
from polylocal.packages.statuses import BuildStatus, ContainerStatus
from polylocal.packages.versions import Version, text
from polylocal.statuses import Status
from polylocal.store import files, package_status
from polylocal.store.database import Tables, insert, update
from polylocal.store.life_cycle import move, note
from polylocal.store.platforms import forget_published
from polylocal.store.queries import Page, sql_list
from polylocal.store.rows import (
    BuildList,
    NewFile,
    NewPackage,
    PackageRow,
    Project,
    Repository,
    ResultRow,
    Run,
    User,
    json_columns,
    read_row,
)
from polylocal.store.runs import NewRun
from polylocal.store.runs import insert as insert_run

_SELECT = """
select l.*, r.id, r.uuid, r.user_id, r.created_at, r.started_at, r.finished_at, r.priority
from build_lists l join runs r on r.pk = l.run_pk join projects j on j.id = l.project_id
"""
_VISIBLE = "r.deleted_at is null and j.deleted_at is null"
_JSON = json_columns(BuildList)
_KEY = ("project_id", "save_to_repository_id", "build_for_platform_id", "arch_id")  # one publication replaces another
_SAME_KEY = " and ".join(f"l.{column} = :{column}" for column in _KEY)
_STALE = "update repositories set stale = stale + 1 where id = ?"
_OWN_FILES = "abfworker::"  # the names of logs start with it


@dataclass(frozen=True)
class Filters:
    """Conditions of a list. All that are set must hold; None is no condition."""

    id: int | None = None
    project_id: int | None = None
    user_id: int | None = None  # the user who created the build list
    related_user_id: int | None = None  # the user who created it, or who owns its project
    status: int | None = None
    arch_id: int | None = None
    save_to_platform_id: int | None = None
    save_to_repository_id: int | None = None
    build_for_platform_id: int | None = None
    project_name: str | None = None  # a part of the name, in any case
    project_version: str | None = None
    updated_from: str | None = None  # the first and the last moment, as stamps
    updated_until: str | None = None


# SQL over l (build_lists), r (its run), j (its project) and t (the repository that it is saved to)
_FILTERS = {
    "id": "r.id = :id",
    "project_id": "r.project_id = :project_id",
    "user_id": "r.user_id = :user_id",
    "related_user_id": "(r.user_id = :related_user_id or j.user_id = :related_user_id)",
    "status": "l.status = :status",
    "arch_id": "l.arch_id = :arch_id",
    "save_to_platform_id": "t.platform_id = :save_to_platform_id",
    "save_to_repository_id": "l.save_to_repository_id = :save_to_repository_id",
    "build_for_platform_id": "l.build_for_platform_id = :build_for_platform_id",
    "project_name": "instr(casefold(j.name), casefold(:project_name))",
    "project_version": "l.project_version = :project_version",
    "updated_from": "l.updated_at >= :updated_from",
    "updated_until": "l.updated_at <= :updated_until",
}


@dataclass(frozen=True)
class BuildResults:
    """The results of a build: its packages, and its other files."""

    packages: Sequence[NewPackage] = ()
    results: Sequence[NewFile] = ()


class BuildLists(Tables):
    # -- creation and lists -------------------------------------------------------------------------------------------

    def create(self, project: Project, user: User, run: NewRun, values: Mapping[str, Any]) -> BuildList:
        """Insert the run and its build list in one transaction. The run is then in the queue."""
        row = {name: json.dumps(value) if name in _JSON else value for name, value in values.items()}
        with self._database.write() as db:
            pk = insert_run(db, project, user, run)
            row |= {"run_pk": pk, "project_id": project.id, "status": int(BuildStatus.WAITING)}
            row["last_published_commit_hash"] = _last_published_commit(db, row)
            insert(db, "build_lists", row | {"updated_at": clock.now()})
            package_status.move(db, pk, BuildStatus.PENDING)
        self._notify(pk)
        return self.of_run(pk)

    def get(self, build_list_id: int) -> BuildList:
        query = f"{_SELECT} where r.kind = 'package' and r.id = ? and {_VISIBLE}"
        return self._database.one(BuildList, query, (build_list_id,))

    def of_run(self, run_pk: int) -> BuildList:
        """The build list of a run, also of a deleted one that is not removed yet."""
        return self._database.one(BuildList, f"{_SELECT} where l.run_pk = ?", (run_pk,))

    def by_ids(self, ids: Iterable[int]) -> list[BuildList]:
        wanted = "r.id in (select value from json_each(?))"
        query = f"{_SELECT} where r.kind = 'package' and {wanted} and {_VISIBLE} order by r.id"
        return self._database.rows(BuildList, query, (json.dumps(list(ids)),))

    def page(self, reader: User, filters: Filters, page: Page) -> list[BuildList]:
        """The build lists that `reader` may read and that meet the filters, the last changed first.

        Those of archived projects are left out.
        """
        values = {name: value for name, value in vars(filters).items() if value is not None}
        readable = "(:is_admin or j.is_public or j.user_id = :reader_id or r.user_id = :reader_id)"
        conditions = [_VISIBLE, "j.archived_at is null", readable, *(_FILTERS[name] for name in values)]
        query = (
            f"{_SELECT} join repositories t on t.id = l.save_to_repository_id where {' and '.join(conditions)}"
            " order by l.updated_at desc, l.run_pk desc limit :limit offset :offset"
        )
        values |= {"reader_id": reader.id, "is_admin": reader.is_superuser, "limit": page.limit, "offset": page.offset}
        return self._database.rows(BuildList, query, values)

    def packages(self, run_pks: Iterable[int]) -> list[PackageRow]:
        pks = json.dumps(list(run_pks))
        query = "select * from packages where run_pk in (select value from json_each(?)) order by id"
        return self._database.rows(PackageRow, query, (pks,))

    def results(self, build_list: BuildList) -> list[ResultRow]:
        query = "select * from results where run_pk = ? order by id"
        return self._database.rows(ResultRow, query, (build_list.run_pk,))

    def refusal(self, build_list: BuildList) -> Refusal | None:
        """The reason why a build was not published. None: it was, no user requested it, or the build failed."""
        if build_list.status not in statuses.REFUSED:
            return None
        query = (
            "select message, json_extract(details, '$.reason') as reason from statuses where run_pk = ?"
            " and json_extract(details, '$.reason') in (select value from json_each(?)) order by id desc limit 1"
        )
        with self._database.read() as db:
            row = db.execute(query, (build_list.run_pk, json.dumps(refusals.REASONS))).fetchone()
        return Refusal(row["reason"], row["message"]) if row else None

    def statistics(self, project: Project) -> list[tuple[int, int, float]]:
        """Successful builds of a project by architecture: arch id, number, average seconds."""
        query = (
            "select l.arch_id, count(*), avg((julianday(r.finished_at) - julianday(r.started_at)) * 86400)"
            " from build_lists l join runs r on r.pk = l.run_pk"
            " where l.project_id = ? and r.status = 'succeeded' group by l.arch_id order by l.arch_id"
        )
        with self._database.read() as db:
            return [(row[0], row[1], row[2] or 0.0) for row in db.execute(query, (project.id,))]

    # -- requests of users --------------------------------------------------------------------------------------------

    def cancel(self, build_list: BuildList) -> bool:
        """Request to cancel a build. Returns False if its status does not allow that."""
        with self._changing(build_list.run_pk) as db:
            moved = package_status.move(db, build_list.run_pk, BuildStatus.CANCELING)
            if moved:
                db.execute(
                    "update runs set stop_requested_at = coalesce(stop_requested_at, ?) where pk = ?",
                    (clock.now(), build_list.run_pk),
                )
        return moved

    def publish(self, build_list: BuildList, user: User, *, again: bool) -> bool:
        """Request its publication; `again`: also if it is published. Returns False if its status forbids that."""
        among = statuses.PUBLISHABLE | ({BuildStatus.PUBLISHED} if again else frozenset())
        with self._changing(build_list.run_pk) as db:
            return _move(db, build_list, BuildStatus.PUBLISHING, among, user)

    def reject(self, build_list: BuildList, user: User) -> bool:
        """Remove the packages of its earlier publication from the repository."""
        with self._changing(build_list.run_pk) as db:
            moved = _move(db, build_list, BuildStatus.REJECTED, statuses.REJECTABLE, user)
            if moved:
                forget_published(db, "run_pk = ?", (build_list.run_pk,))
        return moved

    def yank(self, build_list: BuildList, reason: str) -> bool:
        """Yank its published packages (PEP 592). `reason` may be empty, and replaces an earlier one.

        The repository is then written again. Returns False if none of its packages is in the repository.
        """
        return self._set_yanked(build_list, reason, "published_into is not null")

    def undo_yank(self, build_list: BuildList) -> bool:
        """Undo `yank`. Returns False if the build is not yanked."""
        return self._set_yanked(build_list, None, "yanked is not null")

    def _set_yanked(self, build_list: BuildList, reason: str | None, condition: str) -> bool:
        with self._changing(build_list.run_pk) as db:
            changed = db.execute(
                f"update build_lists set yanked = ?, updated_at = max(updated_at, ?) where run_pk = ? and {condition}",
                (reason, clock.now(), build_list.run_pk),
            ).rowcount
            if changed:
                db.execute(_STALE, (build_list.save_to_repository_id,))
        return changed > 0

    def notify(self) -> None:
        """Wake the threads that wait for a change."""
        self._notify(0)

    def request_container(self, build_list: BuildList) -> bool:
        with self._changing(build_list.run_pk) as db:
            return _request_container(db, build_list.run_pk)

    # -- for the runner -----------------------------------------------------------------------------------------------

    def conclude(
        self,
        run: Run,
        to: Status,
        message: str,
        *,
        details: Mapping[str, Any] | None,
        recorded: Mapping[str, Any],
        results: BuildResults,
        is_newer: Callable[[Version, Version, bool], bool],
    ) -> bool:
        """Record the end of a build: its status, its results and automatic publication, in one transaction.

        `is_newer(version, published, equal_is_enough)` compares source packages. False: the run had moved on.
        """
        with self._changing(run.pk) as db:
            if not move(db, run.pk, to, message, details, recorded=recorded):
                return False
            _add_packages(db, run, results.packages)
            files.add_results(db, run.pk, results.results)
            build_list = read_row(BuildList, db.execute(f"{_SELECT} where l.run_pk = ?", (run.pk,)).fetchone())
            if build_list.status in statuses.CONTAINABLE and build_list.auto_create_container:
                _request_container(db, run.pk)
            if build_list.status == BuildStatus.COMPLETE:
                _publish_or_explain(db, build_list, results, is_newer)
        return True

    def awaiting_publication(self) -> list[BuildList]:
        """Builds that wait to be published into an unlocked repository, the oldest first."""
        waiting = f"l.status = {int(BuildStatus.PUBLISHING)} and not t.is_locked and {_VISIBLE}"
        query = f"{_SELECT} join repositories t on t.id = l.save_to_repository_id where {waiting}"
        return self._database.rows(BuildList, f"{query} order by l.updated_at, l.run_pk")

    def awaiting_container(self) -> list[BuildList]:
        """Builds that wait for a container to be created."""
        query = f"{_SELECT} where l.container_status = {int(ContainerStatus.PUBLISHING)} and {_VISIBLE}"
        return self._database.rows(BuildList, f"{query} order by l.run_pk")

    def published(self, repository_id: int) -> list[BuildList]:
        """The builds whose packages are in a repository now, in the order of their publication."""
        query = f"{_SELECT} where l.save_to_repository_id = ? and l.published_into is not null and {_VISIBLE}"
        return self._database.rows(BuildList, f"{query} order by l.published_at, l.run_pk", (repository_id,))

    def not_withdrawn(self, repository_id: int) -> frozenset[str]:
        """The sha1 of each package that the projects of a repository ever built, including replaced versions.

        Packages of builds that were rejected or deleted are not among them.
        """
        query = (
            "select distinct p.sha1 from packages p join build_lists l on l.run_pk = p.run_pk"
            " join runs r on r.pk = l.run_pk join projects j on j.id = l.project_id"
            " join repository_projects h on h.repository_id = l.save_to_repository_id and h.project_id = l.project_id"
            f" where l.save_to_repository_id = ? and l.status != {int(BuildStatus.REJECTED)} and {_VISIBLE}"
        )
        return frozenset(self._database.column(query, (repository_id,)))

    def set_published(self, build_list: BuildList, into: str, package_version: str | None) -> bool:
        """Record that its packages are in the repository, and that they replaced the project's earlier ones.

        Returns False if the build list or its project changed since: the repository is then written again.
        """
        with self._changing(build_list.run_pk) as db:
            if not _may_be_published(db, build_list):
                db.execute(_STALE, (build_list.save_to_repository_id,))
                return False
            if not package_status.move(db, build_list.run_pk, BuildStatus.PUBLISHED):
                return False
            key = {name: getattr(build_list, name) for name in _KEY}
            among = f"select l.run_pk from build_lists l where {_SAME_KEY}"
            db.execute(
                f"update build_lists set published_into = null where published_into = :into and run_pk in ({among})",
                {**key, "into": into},
            )
            row = {"published_into": into, "published_at": clock.now(), "package_version": package_version}
            update(db, "build_lists", row, run_pk=build_list.run_pk)
        return True

    def set_failed(self, build_list: BuildList, to: BuildStatus, logs: Sequence[NewFile], reason: str = "") -> None:
        """Record that it could not be published."""
        with self._changing(build_list.run_pk) as db:
            if package_status.move(db, build_list.run_pk, to):
                files.add_results(db, build_list.run_pk, logs)
                if reason:
                    note(db, build_list.run_pk, refusals.failed(reason).message, {"reason": refusals.FAILED})

    def set_container(self, build_list: BuildList, to: ContainerStatus, logs: Sequence[NewFile] = ()) -> None:
        with self._changing(build_list.run_pk) as db:
            moved = db.execute(
                "update build_lists set container_status = ?, updated_at = ? where run_pk = ? and container_status = ?",
                (int(to), clock.now(), build_list.run_pk, int(ContainerStatus.PUBLISHING)),
            )
            if moved.rowcount:
                files.add_results(db, build_list.run_pk, logs)

    def published_repositories(self) -> list[int]:
        """Repositories that should contain packages."""
        query = "select distinct save_to_repository_id from build_lists where published_into is not null"
        return self._database.column(query)

    def with_container(self) -> list[BuildList]:
        """Builds that have a container."""
        query = f"{_SELECT} where l.container_status = {int(ContainerStatus.PUBLISHED)} and {_VISIBLE}"
        return self._database.rows(BuildList, query)

    def request_lost_container(self, build_list: BuildList) -> None:
        """Record that its container is lost and must be created again."""
        statement = "update build_lists set container_status = ? where run_pk = ?"
        self._database.execute(statement, (int(ContainerStatus.PUBLISHING), build_list.run_pk))

    def set_stale(self, repository_id: int) -> None:
        self._database.execute(_STALE, (repository_id,))

    def stale_repositories(self) -> list[int]:
        """Unlocked repositories whose content must be written again."""
        return self._database.column("select id from repositories where stale and not is_locked")

    def set_fresh(self, repository: Repository) -> None:
        """Record that a repository was written again, unless it became stale again after `repository` was read."""
        fresh = "update repositories set stale = 0 where id = ? and stale = ?"
        self._database.execute(fresh, (repository.id, repository.stale))


def _move(
    db: sqlite3.Connection, build_list: BuildList, to: BuildStatus, among: frozenset[BuildStatus], user: User
) -> bool:
    moved = package_status.move(db, build_list.run_pk, to, among)
    if moved:
        db.execute("update build_lists set publisher_id = ? where run_pk = ?", (user.id, build_list.run_pk))
    return moved


def _last_published_commit(db: sqlite3.Connection, key: Mapping[str, Any]) -> str | None:
    query = (
        f"select l.commit_hash from build_lists l where {_SAME_KEY}"
        f" and l.status = {int(BuildStatus.PUBLISHED)} order by l.published_at desc, l.run_pk desc limit 1"
    )
    row = db.execute(query, {name: key[name] for name in _KEY}).fetchone()
    return row["commit_hash"] if row else None


def _may_be_published(db: sqlite3.Connection, build_list: BuildList) -> bool:
    """Whether the project still exists and is in the repository."""
    query = (
        "select 1 from repository_projects h join projects p on p.id = h.project_id"
        " where h.repository_id = ? and h.project_id = ? and p.deleted_at is null"
    )
    return db.execute(query, (build_list.save_to_repository_id, build_list.project_id)).fetchone() is not None


def _request_container(db: sqlite3.Connection, run_pk: int) -> bool:
    requested = db.execute(
        "update build_lists set container_status = ?, updated_at = ? where run_pk = ?"
        f" and status in {sql_list(statuses.CONTAINABLE)}"
        f" and container_status in {sql_list(statuses.CONTAINER_REQUESTS)}",
        (int(ContainerStatus.PUBLISHING), clock.now(), run_pk),
    )
    return requested.rowcount > 0


def _publish_or_explain(
    db: sqlite3.Connection,
    build_list: BuildList,
    results: BuildResults,
    is_newer: Callable[[Version, Version, bool], bool],
) -> None:
    """Publish automatically, if that is requested and allowed. Otherwise the run's history has the reason."""
    saved_to = db.execute(_SAVED_TO, (build_list.run_pk,)).fetchone()
    refusal = _refusal(db, build_list, results, saved_to)
    is_wanted = build_list.auto_publish_status == "default"
    if refusal is None and is_wanted:
        refusal = _not_newer(db, build_list, saved_to, is_newer)
    if refusal is not None:
        note(db, build_list.run_pk, refusal.message, {"reason": refusal.reason})
    elif is_wanted:
        package_status.move(db, build_list.run_pk, BuildStatus.PUBLISHING, statuses.PUBLISHABLE)


_SAVED_TO = """
select t.publish_without_qa, p.released, p.platform_type, p.name || '/' || t.name as repository,
    b.distrib_type, u.username || '/' || j.name as project,
    exists (select 1 from repository_projects h where h.repository_id = t.id and h.project_id = l.project_id)
        as has_project
from build_lists l join repositories t on t.id = l.save_to_repository_id join platforms p on p.id = t.platform_id
    join platforms b on b.id = l.build_for_platform_id
    join projects j on j.id = l.project_id join users u on u.id = j.user_id
where l.run_pk = ?
"""


def _refusal(
    db: sqlite3.Connection, build_list: BuildList, results: BuildResults, saved_to: sqlite3.Row
) -> Refusal | None:
    """The reason why a build can't be published, whatever its repository contains."""
    if not results.packages:
        others = [file.file_name for file in results.results if not file.file_name.startswith(_OWN_FILES)]
        return refusals.no_packages(saved_to["distrib_type"], others)
    if not saved_to["publish_without_qa"]:
        return refusals.qa(build_list.id, saved_to["repository"])
    if build_list.auto_publish_status == "testing":
        return refusals.testing(build_list.id)
    if build_list.auto_publish_status != "default":
        return None
    if not saved_to["has_project"]:
        return refusals.not_in_repository(build_list.id, saved_to["project"], saved_to["repository"])
    if saved_to["platform_type"] == "main" and (extra := _unpublished(db, build_list.extra_build_lists)):
        return refusals.unpublished_extra(build_list.id, extra)
    return None


def _not_newer(
    db: sqlite3.Connection,
    build_list: BuildList,
    saved_to: sqlite3.Row,
    is_newer: Callable[[Version, Version, bool], bool],
) -> Refusal | None:
    key = {name: getattr(build_list, name) for name in _KEY}
    last = db.execute(
        f"select l.run_pk, r.id from build_lists l join runs r on r.pk = l.run_pk where {_SAME_KEY}"
        " and l.published_into is not null order by l.published_at desc, l.run_pk desc limit 1",
        key,
    ).fetchone()
    mine = _source_version(db, build_list.run_pk)
    published = _source_version(db, last["run_pk"]) if last else None
    if mine is None or published is None or is_newer(mine, published, not saved_to["released"]):
        return None
    versions = text(mine), text(published)
    return refusals.not_newer(build_list.id, *versions, other=last["id"], repository=saved_to["repository"])


def _unpublished(db: sqlite3.Connection, ids: Sequence[int]) -> list[int]:
    """Those that are not published, or don't exist any more."""
    query = (
        "select r.id from build_lists l join runs r on r.pk = l.run_pk where r.kind = 'package'"
        f" and r.id in (select value from json_each(?)) and l.status = {int(BuildStatus.PUBLISHED)}"
    )
    published = {row["id"] for row in db.execute(query, (json.dumps(list(ids)),))}
    return [number for number in dict.fromkeys(ids) if number not in published]


def _source_version(db: sqlite3.Connection, run_pk: int) -> Version | None:
    """The version of the source package, or of another package if the build made none."""
    row = db.execute(
        "select epoch, version, release from packages where run_pk = ? order by type = 'source' desc, id limit 1",
        (run_pk,),
    ).fetchone()
    return (row["epoch"], row["version"], row["release"]) if row else None


def _add_packages(db: sqlite3.Connection, run: Run, packages: Sequence[NewPackage]) -> None:
    now = clock.now()
    for package in packages:
        files.record(db, NewFile(package.sha1, package.file_name, package.size), run.user_id)
        dependent = json.dumps(list(package.dependent_packages))
        insert(db, "packages", vars(package) | {"run_pk": run.pk, "dependent_packages": dependent, "updated_at": now})
