"""Build lists: package builds as ABF has them, with their packages, results and stored files."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polylocal import clock
from polylocal.errors import NotFound
from polylocal.packages import refusals, statuses
from polylocal.packages.refusals import Refusal
from polylocal.packages.statuses import BuildStatus, ContainerStatus
from polylocal.packages.versions import Version, text
from polylocal.statuses import Status
from polylocal.store import package_status
from polylocal.store.database import Database
from polylocal.store.platforms import forget_published
from polylocal.store.queries import Page
from polylocal.store.rows import (
    BuildList,
    PackageRow,
    Project,
    Repository,
    ResultRow,
    Run,
    StoredFile,
    User,
    json_columns,
    row_of,
    rows_of,
)
from polylocal.store.runs import NewRun, insert, move, note

_SELECT = """
select l.*, r.id, r.uuid, r.user_id, r.created_at, r.started_at, r.finished_at, r.priority
from build_lists l join runs r on r.pk = l.run_pk join projects j on j.id = l.project_id
"""
_VISIBLE = "r.deleted_at is null and j.deleted_at is null"
_JSON = json_columns(BuildList)
_SAME_KEY = (
    "l.project_id = :project_id and l.save_to_repository_id = :save_to_repository_id"
    " and l.build_for_platform_id = :build_for_platform_id and l.arch_id = :arch_id"
)


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


# over l (build_lists), r (its run), j (its project) and t (the repository that it is saved to)
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
class NewPackage:
    sha1: str
    file_name: str
    name: str
    type: str
    epoch: int | None
    version: str
    release: str
    size: int
    dependent_packages: Sequence[str] = ()


@dataclass(frozen=True)
class NewFile:
    sha1: str
    file_name: str
    size: int


@dataclass(frozen=True)
class Harvest:
    """The results of a build: its packages, and its other files."""

    packages: Sequence[NewPackage] = ()
    results: Sequence[NewFile] = ()


class BuildLists:
    def __init__(self, database: Database, hint: Callable[[int], None]) -> None:
        self._database = database
        self._hint = hint

    # -- creating and finding -----------------------------------------------------------------------------------------

    def create(self, project: Project, user: User, run: NewRun, values: Mapping[str, Any]) -> BuildList:
        """Insert the run and its build list in one transaction. The run is then in the queue."""
        row = {name: json.dumps(value) if name in _JSON else value for name, value in values.items()}
        with self._database.write() as db:
            pk = insert(db, project, user, run)
            row |= {
                "run_pk": pk,
                "project_id": project.id,
                "status": int(BuildStatus.WAITING),
                "updated_at": clock.now(),
            }
            row["last_published_commit_hash"] = _last_published_commit(db, row)
            columns, marks = ", ".join(row), ", ".join(f":{column}" for column in row)
            db.execute(f"insert into build_lists ({columns}) values ({marks})", row)
            package_status.move(db, pk, BuildStatus.PENDING)
        self._hint(pk)
        return self.of_run(pk)

    def get(self, build_list_id: int) -> BuildList:
        return self._one(f"{_SELECT} where r.kind = 'package' and r.id = ? and {_VISIBLE}", (build_list_id,))

    def of_run(self, run_pk: int) -> BuildList:
        """The build list of a run, also of a deleted one that is not removed yet."""
        return self._one(f"{_SELECT} where l.run_pk = ?", (run_pk,))

    def by_ids(self, ids: Iterable[int]) -> list[BuildList]:
        wanted = "r.id in (select value from json_each(?))"
        query = f"{_SELECT} where r.kind = 'package' and {wanted} and {_VISIBLE} order by r.id"
        return self._many(query, (json.dumps(list(ids)),))

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
        return self._many(query, values)

    def packages(self, run_pks: Iterable[int]) -> list[PackageRow]:
        pks = json.dumps(list(run_pks))
        query = "select * from packages where run_pk in (select value from json_each(?)) order by id"
        with self._database.read() as db:
            return rows_of(PackageRow, db.execute(query, (pks,)))

    def results(self, build_list: BuildList) -> list[ResultRow]:
        with self._database.read() as db:
            return rows_of(
                ResultRow, db.execute("select * from results where run_pk = ? order by id", (build_list.run_pk,))
            )

    def refusal(self, build_list: BuildList) -> Refusal | None:
        """Why a finished build was not published; None: it was, nobody requested it, or the build failed."""
        if build_list.status not in statuses.REFUSED:
            return None
        query = (
            "select message, json_extract(details, '$.reason') as reason from statuses where run_pk = ?"
            " and json_extract(details, '$.reason') in (select value from json_each(?)) order by id desc limit 1"
        )
        with self._database.read() as db:
            row = db.execute(query, (build_list.run_pk, json.dumps(refusals.REASONS))).fetchone()
        return Refusal(row["reason"], row["message"]) if row else None

    def figures(self, project: Project) -> list[tuple[int, int, float]]:
        """Successful builds of a project by architecture: arch id, number, average seconds."""
        query = (
            "select l.arch_id, count(*), avg((julianday(r.finished_at) - julianday(r.started_at)) * 86400)"
            " from build_lists l join runs r on r.pk = l.run_pk"
            " where l.project_id = ? and r.status = 'succeeded' group by l.arch_id order by l.arch_id"
        )
        with self._database.read() as db:
            return [(row[0], row[1], row[2] or 0.0) for row in db.execute(query, (project.id,))]

    # -- requests of people -------------------------------------------------------------------------------------------

    def cancel(self, build_list: BuildList) -> bool:
        """Request to cancel a build. Returns False if its status does not allow that."""
        with self._database.write() as db:
            moved = package_status.move(db, build_list.run_pk, BuildStatus.CANCELING)
            if moved:
                db.execute(
                    "update runs set stop_requested_at = coalesce(stop_requested_at, ?) where pk = ?",
                    (clock.now(), build_list.run_pk),
                )
        self._hint(build_list.run_pk)
        return moved

    def publish(self, build_list: BuildList, user: User, *, again: bool) -> bool:
        """Request its publication; `again`: also if it is published. Returns False if its status forbids that."""
        among = statuses.PUBLISHABLE | ({BuildStatus.PUBLISHED} if again else frozenset())
        with self._database.write() as db:
            moved = _move(db, build_list, BuildStatus.PUBLISHING, among, user)
        self._hint(build_list.run_pk)
        return moved

    def reject(self, build_list: BuildList, user: User) -> bool:
        """Remove the packages of its earlier publication from the repository."""
        with self._database.write() as db:
            moved = _move(db, build_list, BuildStatus.REJECTED, statuses.REJECTABLE, user)
            if moved:
                forget_published(db, "run_pk = ?", (build_list.run_pk,))
        self._hint(build_list.run_pk)
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
        with self._database.write() as db:
            changed = db.execute(
                f"update build_lists set yanked = ?, updated_at = max(updated_at, ?) where run_pk = ? and {condition}",
                (reason, clock.now(), build_list.run_pk),
            ).rowcount
            if changed:
                db.execute(_STALE, (build_list.save_to_repository_id,))
        self._hint(build_list.run_pk)
        return changed > 0

    def hint(self) -> None:
        """Wake the threads that wait for a change."""
        self._hint(0)

    def ask_for_container(self, build_list: BuildList) -> bool:
        with self._database.write() as db:
            moved = _ask_for_container(db, build_list.run_pk)
        self._hint(build_list.run_pk)
        return moved

    # -- for the runner -----------------------------------------------------------------------------------------------

    def conclude(
        self,
        run: Run,
        to: Status,
        message: str,
        *,
        details: Mapping[str, Any] | None,
        recorded: Mapping[str, Any],
        harvest: Harvest,
        is_newer: Callable[[Version, Version, bool], bool],
    ) -> bool:
        """Record the end of a build: its status, its results and automatic publication, in one transaction.

        `is_newer(version, published, equal_is_enough)` compares source packages. False: the run had moved on.
        """
        with self._database.write() as db:
            if not move(db, run.pk, to, message, details, None, recorded):
                return False
            _keep(db, run, harvest)
            build_list = row_of(BuildList, db.execute(f"{_SELECT} where l.run_pk = ?", (run.pk,)).fetchone())
            if build_list.status in statuses.CONTAINABLE and build_list.auto_create_container:
                _ask_for_container(db, run.pk)
            if build_list.status == BuildStatus.COMPLETE:
                _publish_or_explain(db, build_list, harvest, is_newer)
        self._hint(run.pk)
        return True

    def to_publish(self) -> list[BuildList]:
        """Builds that wait to be published into an unlocked repository, the oldest first."""
        return self._many(
            f"{_SELECT} join repositories t on t.id = l.save_to_repository_id"
            f" where l.status = {int(BuildStatus.PUBLISHING)} and not t.is_locked and {_VISIBLE}"
            " order by l.updated_at, l.run_pk"
        )

    def to_contain(self) -> list[BuildList]:
        """Builds that wait for a container to be created."""
        return self._many(
            f"{_SELECT} where l.container_status = {int(ContainerStatus.PUBLISHING)} and {_VISIBLE} order by l.run_pk"
        )

    def published(self, repository_id: int) -> list[BuildList]:
        """The builds whose packages are in a repository now, in the order of their publication."""
        return self._many(
            f"{_SELECT} where l.save_to_repository_id = ? and l.published_into is not null and {_VISIBLE}"
            " order by l.published_at, l.run_pk",
            (repository_id,),
        )

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
        with self._database.read() as db:
            return frozenset(row["sha1"] for row in db.execute(query, (repository_id,)))

    def set_published(self, build_list: BuildList, into: str, package_version: str | None) -> bool:
        """Record that its packages are in the repository, and that they replaced the project's earlier ones.

        Returns False if they may not be there any more: the publication failed, and the repository is written again.
        """
        with self._database.write() as db:
            if not _may_lie(db, build_list):
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
            db.execute(
                "update build_lists set published_into = ?, published_at = ?, package_version = ? where run_pk = ?",
                (into, clock.now(), package_version, build_list.run_pk),
            )
        self._hint(build_list.run_pk)
        return True

    def set_failed(self, build_list: BuildList, to: BuildStatus, files: Sequence[NewFile], words: str = "") -> None:
        """Record that it could not be published. `words`: the reason; `files`: the files that are to blame."""
        with self._database.write() as db:
            if package_status.move(db, build_list.run_pk, to):
                _keep_results(db, build_list.run_pk, files)
                if words:
                    note(db, build_list.run_pk, refusals.failed(words).message, {"reason": refusals.FAILED})
        self._hint(build_list.run_pk)

    def set_container(self, build_list: BuildList, to: ContainerStatus, files: Sequence[NewFile] = ()) -> None:
        with self._database.write() as db:
            moved = db.execute(
                "update build_lists set container_status = ?, updated_at = ? where run_pk = ? and container_status = ?",
                (int(to), clock.now(), build_list.run_pk, int(ContainerStatus.PUBLISHING)),
            )
            if moved.rowcount:
                _keep_results(db, build_list.run_pk, files)
        self._hint(build_list.run_pk)

    def published_repositories(self) -> list[int]:
        """Repositories that should contain packages."""
        query = "select distinct save_to_repository_id from build_lists where published_into is not null"
        with self._database.read() as db:
            return [row[0] for row in db.execute(query)]

    def contained(self) -> list[BuildList]:
        """Builds that have a container."""
        return self._many(f"{_SELECT} where l.container_status = {int(ContainerStatus.PUBLISHED)} and {_VISIBLE}")

    def contain_again(self, build_list: BuildList) -> None:
        """Record that its container is lost and must be created again."""
        with self._database.write() as db:
            db.execute(
                "update build_lists set container_status = ? where run_pk = ?",
                (int(ContainerStatus.PUBLISHING), build_list.run_pk),
            )

    def set_stale(self, repository_id: int) -> None:
        with self._database.write() as db:
            db.execute(_STALE, (repository_id,))

    def stale_repositories(self) -> list[int]:
        """Unlocked repositories whose content must be written again."""
        with self._database.read() as db:
            return [row["id"] for row in db.execute("select id from repositories where stale and not is_locked")]

    def set_fresh(self, repository: Repository) -> None:
        """Record that a repository was written again, unless another reason to write it came up since `seen`."""
        with self._database.write() as db:
            fresh = "update repositories set stale = 0 where id = ? and stale = ?"
            db.execute(fresh, (repository.id, repository.stale))

    # -- files --------------------------------------------------------------------------------------------------------

    def keep_file(self, sha1: str, file_name: str, size: int, user: User) -> None:
        """Record a file that a person uploaded. Idempotent."""
        with self._database.write() as db:
            _store(db, NewFile(sha1, file_name, size), user.id, is_uploaded=True)

    def file(self, sha1: str) -> StoredFile:
        with self._database.read() as db:
            row = db.execute("select * from stored_files where sha1 = ?", (sha1,)).fetchone()
        if row is None:
            raise NotFound
        return row_of(StoredFile, row)

    def may_have(self, sha1: str, user: User | None) -> bool:
        """Whether a user may read a file: it was uploaded, or built by a project that they may read."""
        held = "select run_pk from packages where sha1 = :sha1 union select run_pk from results where sha1 = :sha1"
        query = (
            "select exists (select 1 from stored_files where sha1 = :sha1 and is_uploaded)"
            f" or exists (select 1 from build_lists l join projects p on p.id = l.project_id where l.run_pk in ({held})"
            " and p.deleted_at is null and (p.is_public or p.user_id = :user or :all))"
        )
        values = {"sha1": sha1, "user": user.id if user else None, "all": bool(user and user.is_superuser)}
        with self._database.read() as db:
            return bool(db.execute(query, values).fetchone()[0])

    def files_of(self, run: Run) -> list[str]:
        """The sha1 of each file of a build."""
        query = "select sha1 from packages where run_pk = :pk union select sha1 from results where run_pk = :pk"
        with self._database.read() as db:
            return [row["sha1"] for row in db.execute(query, {"pk": run.pk})]

    def forget_files(self, among: Iterable[str] | None = None) -> list[str]:
        """Remove the rows of files that no build has and nobody uploaded. Returns their sha1. None: of all files."""
        unused = (
            "not is_uploaded and not exists (select 1 from packages p where p.sha1 = stored_files.sha1)"
            " and not exists (select 1 from results e where e.sha1 = stored_files.sha1)"
        )
        wanted = "" if among is None else " and sha1 in (select value from json_each(:among))"
        values = {"among": json.dumps(list(among or ()))}
        with self._database.write() as db:
            gone = db.execute(f"delete from stored_files where {unused}{wanted} returning sha1", values)
            return [row["sha1"] for row in gone]

    def unknown_files(self, names: Iterable[str]) -> list[str]:
        """Those of these sha1 that no row names."""
        query = "select value from json_each(?) where value not in (select sha1 from stored_files)"
        with self._database.read() as db:
            return [row["value"] for row in db.execute(query, (json.dumps(list(names)),))]

    def _one(self, query: str, values: Sequence[Any]) -> BuildList:
        found = self._many(query, values)
        if not found:
            raise NotFound
        return found[0]

    def _many(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[BuildList]:
        with self._database.read() as db:
            return rows_of(BuildList, db.execute(query, values))


_STALE = "update repositories set stale = stale + 1 where id = ?"
_OWN_FILES = "abfworker::"  # the names of logs start with it
_KEY = ("project_id", "save_to_repository_id", "build_for_platform_id", "arch_id")


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


def _may_lie(db: sqlite3.Connection, build_list: BuildList) -> bool:
    """Whether the project still exists and is in the repository."""
    query = (
        "select 1 from repository_projects h join projects p on p.id = h.project_id"
        " where h.repository_id = ? and h.project_id = ? and p.deleted_at is null"
    )
    return db.execute(query, (build_list.save_to_repository_id, build_list.project_id)).fetchone() is not None


def _ask_for_container(db: sqlite3.Connection, run_pk: int) -> bool:
    asked = db.execute(
        "update build_lists set container_status = ?, updated_at = ? where run_pk = ?"
        f" and status in {statuses.listed(statuses.CONTAINABLE)}"
        f" and container_status in {statuses.listed(statuses.CONTAINER_REQUESTS)}",
        (int(ContainerStatus.PUBLISHING), clock.now(), run_pk),
    )
    return asked.rowcount > 0


def _publish_or_explain(
    db: sqlite3.Connection,
    build_list: BuildList,
    harvest: Harvest,
    is_newer: Callable[[Version, Version, bool], bool],
) -> None:
    """Publish automatically, if that is requested and allowed. Otherwise the run's history has the reason."""
    saved_to = db.execute(_SAVED_TO, (build_list.run_pk,)).fetchone()
    refusal = _refusal(db, build_list, harvest, saved_to)
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


def _refusal(db: sqlite3.Connection, build_list: BuildList, harvest: Harvest, saved_to: sqlite3.Row) -> Refusal | None:
    """The reason why a build can't be published, whatever its repository contains."""
    if not harvest.packages:
        others = [file.file_name for file in harvest.results if not file.file_name.startswith(_OWN_FILES)]
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


def _keep(db: sqlite3.Connection, run: Run, harvest: Harvest) -> None:
    now = clock.now()
    for package in harvest.packages:
        _store(db, NewFile(package.sha1, package.file_name, package.size), run.user_id)
        db.execute(
            "insert into packages (run_pk, sha1, file_name, name, type, epoch, version, release, size,"
            " dependent_packages, updated_at) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (run.pk, package.sha1, package.file_name, package.name, package.type, package.epoch, package.version)
            + (package.release, package.size, json.dumps(list(package.dependent_packages)), now),
        )
    _keep_results(db, run.pk, harvest.results)


def _keep_results(db: sqlite3.Connection, run_pk: int, files: Sequence[NewFile]) -> None:
    for file in files:
        user = db.execute("select user_id from runs where pk = ?", (run_pk,)).fetchone()
        _store(db, file, user["user_id"])
        db.execute(
            "insert into results (run_pk, sha1, file_name, size, created_at) values (?, ?, ?, ?, ?)",
            (run_pk, file.sha1, file.file_name, file.size, clock.now()),
        )


def _store(db: sqlite3.Connection, file: NewFile, user_id: int | None, *, is_uploaded: bool = False) -> None:
    db.execute(
        "insert into stored_files (sha1, file_name, size, user_id, is_uploaded, created_at) values (?, ?, ?, ?, ?, ?)"
        " on conflict do update set is_uploaded = max(is_uploaded, excluded.is_uploaded)",
        (file.sha1, file.file_name, file.size, user_id, is_uploaded, clock.now()),
    )
