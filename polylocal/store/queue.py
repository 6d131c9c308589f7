"""The queue: runs that wait, run or must be removed, and the builds that runs wait for."""

import json
import sqlite3
from collections.abc import Iterable

from polylocal import clock
from polylocal.statuses import BUILD_NOT_BEGUN, UNSUCCESSFUL, Kind, Status
from polylocal.store import built_images, life_cycle
from polylocal.store.database import Tables
from polylocal.store.projects import SELECT as PROJECTS
from polylocal.store.queries import OPEN, SELECT, SERVERS, sql_list
from polylocal.store.rows import Project, QueuedRun, Run, User, read_row
from polylocal.store.runs import NewRun, insert

_NEEDS_BUILD = f"r.kind in {sql_list([kind for kind in Kind if kind.needs_build])}"
_BUILD_NOT_BEGUN = sql_list(BUILD_NOT_BEGUN)
_UNBLOCKED = sql_list({Status.CREATED, Status.RESUMING, Status.BUILDING, Status.WARNING})
_PENDING = f"""{OPEN} and r.is_managed and r.container_id is null and r.stop_requested_at is null
    and r.deleted_at is null"""
_ORDER = "order by r.priority desc, r.pk"


class Queue(Tables):
    def unresolved(self, limit: int) -> list[Run]:
        """Runs that need an image and have no build yet, by priority, then by age."""
        where = f"{_PENDING} and {_NEEDS_BUILD} and r.build_pk is null and not r.is_held"
        return self._database.rows(Run, f"{SELECT} where {where} {_ORDER} limit ?", (limit,))

    def attach_build(self, run: Run, build: NewRun, *, anew: bool) -> Run | None:
        """Give a run its build: the newest good one with the key of `build`, a running one, or `build` itself.

        `build.secrets_user_id` is set for a build that gets secrets: a build with the secrets of another user is not
        reused. All in one transaction: ten runs at once share one build. `anew` always inserts a new one. A run whose
        build has no image yet becomes `building`. Returns the build; None: the run needs none any more.
        """
        with self._changing(run.pk) as db:
            wanted = f"select 1 from runs r where pk = ? and build_pk is null and {OPEN}"
            if not db.execute(wanted, (run.pk,)).fetchone():
                return None  # it was stopped or deleted, or has a build already
            found = None if anew else _reusable_build(db, build)
            if found and not built_images.may_use_build(db, run.user_id, found["uuid"]):
                found = None  # it was built from an image that this user may not use
            pk = found["pk"] if found else _insert_build_for(db, run, build)
            db.execute("update runs set build_pk = ?, updated_at = ? where pk = ?", (pk, clock.now(), run.pk))
            if not found or found["status"] != Status.SUCCEEDED:
                life_cycle.move(db, run.pk, Status.BUILDING, "Building container")
        self._notify(pk)
        return self._database.one(Run, f"{SELECT} where r.pk = ?", (pk,))

    def detach_build(self, run: Run, build: Run) -> None:
        """Mark a build whose image is gone as not reusable. The run then gets another build."""
        with self._changing(run.pk) as db:
            db.execute("update runs set is_valid = 0 where pk = ?", (build.pk,))
            if db.execute(f"select 1 from runs r where pk = ? and {OPEN}", (run.pk,)).fetchone():
                life_cycle.note(db, run.pk, "The image is gone: building it again")
                db.execute("update runs set build_pk = null where pk = ?", (run.pk,))

    def invalidate_builds(self, project: Project) -> None:
        """Mark all builds of a project as not reusable."""
        self._database.execute("update runs set is_valid = 0 where project_id = ? and kind = 'build'", (project.id,))

    def with_resources(self) -> list[Run]:
        """Open runs that request resources and have no container, and groups without experiments."""
        where = f"{_PENDING} and r.resources is not null and not r.is_held"
        where += " and (r.kind <> 'group' or r.status = 'created')"
        return self._database.rows(Run, f"{SELECT} where {where} order by r.pk")

    def runnable(self, limit: int, *, servers: bool = False) -> list[Run]:
        """The queue: waiting builds, and runs whose image is ready; by priority, then by age.

        `servers`: notebooks and tensorboards, which have a separate queue.
        """
        # by the index of open runs: SQLite's own choice would scan all servers
        kinds = f"{'' if servers else 'not '}in {SERVERS}"
        found = f"select r.pk from runs r indexed by runs_open where {OPEN} and r.kind {kinds}"
        return self._database.rows(
            Run,
            f"{SELECT} where r.pk in ({found}) and {_PENDING} and not r.is_held"
            f" and (case r.kind when 'build' then r.status in {_BUILD_NOT_BEGUN} when 'package' then 1"
            f" else b.status = 'succeeded' end) {_ORDER} limit ?",
            (limit,),
        )

    def waiting(self, limit: int) -> list[Run]:
        """Builds and runs that wait to start, without those whose status already has the reason."""
        where = f"{_PENDING} and r.kind <> 'group' and not r.is_held and r.status in {_UNBLOCKED}"
        where += " and (r.kind <> 'build' or r.status = 'created')"
        return self._database.rows(Run, f"{SELECT} where {where} {_ORDER} limit ?", (limit,))

    def begun(self) -> list[Run]:
        """Managed runs that have begun, and that a new daemon must resume."""
        begun = f"(r.container_id is not null or (r.kind = 'build' and r.status not in {_BUILD_NOT_BEGUN}))"
        return self._database.rows(Run, f"{SELECT} where {OPEN} and r.is_managed and {begun} order by r.pk")

    def stopping(self) -> list[Run]:
        """Open runs with a stop request, including deleted ones."""
        wanted = "(r.stop_requested_at is not null or r.deleted_at is not null)"
        return self._database.rows(Run, f"{SELECT} where {OPEN} and {wanted} order by r.pk")

    def deleted(self) -> list[Run]:
        """Deleted runs that are done and can be removed. Builds come after the runs that need their images."""
        gone = f"r.deleted_at is not null and not ({OPEN})"
        needed = f"""r.kind = 'build' and exists (select 1 from runs u where u.build_pk = r.pk and u.kind <> 'build'
            and (u.deleted_at is not null or {OPEN.replace("r.", "u.")}))"""
        query = f"{SELECT} where {gone} and not ({needed}) order by r.deleted_at, r.pk limit 100"
        return self._database.rows(Run, query)

    def not_begun(self, *, held: Iterable[int] = ()) -> list[QueuedRun]:
        """All runs that have not begun, by priority, then by age, and the groups that have no experiment yet.

        Experiments that their group holds may be many: only those with the pks `held` are included.
        """
        members = f"from runs m where m.group_pk = r.group_pk and m.kind = 'experiment' and {OPEN.replace('r.', 'm.')}"
        released = f"(select count(*) {members} and not m.is_held and m.deleted_at is null)"
        query = (
            "select r.pk, r.kind, r.id, o.username as owner, p.name as project_name, g.id as group_id, r.is_held,"
            " b.id as build_id, b.status as build_status, iif(r.kind = 'group', null, r.resources) as resources,"
            f" g.concurrency, iif(r.is_held, {released}, 0) as released"
            " from runs r join projects p on p.id = r.project_id join users o on o.id = p.user_id"
            " left join runs b on b.pk = r.build_pk and b.deleted_at is null left join runs g on g.pk = r.group_pk"
            f" where r.pk in (select r.pk from runs r indexed by runs_open where {OPEN}) and {_PENDING}"
            f" and (case r.kind when 'build' then r.status in {_BUILD_NOT_BEGUN} when 'group' then r.status = 'created'"
            f" else 1 end) and (not r.is_held or r.pk in (select value from json_each(?))) {_ORDER}"
        )
        return self._database.rows(QueuedRun, query, (json.dumps([*held]),))


def _reusable_build(db: sqlite3.Connection, build: NewRun) -> sqlite3.Row | None:
    found: sqlite3.Row | None = db.execute(
        "select pk, uuid, status from runs where build_key = :key and is_valid and deleted_at is null"
        " and (:user is null or secrets_user_id = :user)"
        f" and status not in {sql_list(UNSUCCESSFUL)} and stop_requested_at is null order by pk desc limit 1",
        {"key": build.build_key, "user": build.secrets_user_id},
    ).fetchone()
    return found


def _insert_build_for(db: sqlite3.Connection, run: Run, build: NewRun) -> int:
    project = read_row(Project, db.execute(f"{PROJECTS} where p.id = ?", (run.project_id,)).fetchone())
    user = read_row(User, db.execute("select * from users where id = ?", (run.user_id,)).fetchone())
    pk = insert(db, project, user, build)
    values = (run.priority, run.secrets_user_id, pk)
    db.execute("update runs set priority = ?, secrets_user_id = ? where pk = ?", values)
    return pk
