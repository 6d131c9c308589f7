"""Usage: the counts for metrics, and which images and files are still needed."""

import json
from collections.abc import Iterable

from polylocal.statuses import BUILD_NOT_BEGUN
from polylocal.store.database import Tables
from polylocal.store.queries import OPEN, SELECT, VISIBLE, sql_list
from polylocal.store.rows import BuildUse, Figures, Project, Run

_BUILD_USES = f"""
select b.uuid, o.username || '.' || p.name as project, b.id, b.image_id,
    max({OPEN.replace("r.", "b.")} or (u.pk is not null and {OPEN.replace("r.", "u.")})) as is_open,
    max(k.user_id is not null or ku.user_id is not null) as is_pinned,
    max(coalesce(b.finished_at, b.created_at), coalesce(max(coalesce(u.finished_at, u.created_at)), '')) as last_used
from runs b join projects p on p.id = b.project_id join users o on o.id = p.user_id
    left join runs u on u.build_pk = b.pk and u.kind <> 'build' and u.deleted_at is null
    left join bookmarks k on k.subject = 'build' and k.object_id = b.pk and k.enabled
    left join bookmarks ku on ku.subject = u.kind and ku.object_id = u.pk and ku.enabled
where b.kind = 'build' group by b.pk
"""


class DiskUsage(Tables):
    def figures(self) -> Figures:
        """Counts over all projects, without archived and deleted runs."""
        waits = f"{OPEN} and r.kind <> 'group' and r.is_managed and r.container_id is null and not r.is_held"
        begun = f"(r.kind = 'build' and r.status not in {sql_list(BUILD_NOT_BEGUN)})"
        with self._database.read() as db:
            counted = f"select r.kind, r.status, count(*) from runs r where {VISIBLE} group by r.kind, r.status"
            runs = [(kind, status, n) for kind, status, n in db.execute(counted)]
            oldest = f"select count(*), min(r.created_at) from runs r where {waits} and {VISIBLE} and not {begun}"
            waiting, since = db.execute(oldest).fetchone()
            builds = "select count(*), count(distinct build_pk) from runs where build_pk is not null"
            used, made = db.execute(builds).fetchone()
        return Figures(runs, waiting, since, used, made)

    def runs_of_project(self, project: Project) -> list[Run]:
        """All runs of a project that are not deleted."""
        query = f"{SELECT} where r.project_id = ? and r.deleted_at is null order by r.pk"
        return self._database.rows(Run, query, (project.id,))

    def build_uses(self) -> dict[str, BuildUse]:
        """The use of each build's image, by the uuid of the build."""
        return {use.uuid: use for use in self._database.rows(BuildUse, _BUILD_USES)}

    def by_uuid(self, uuids: Iterable[str]) -> dict[str, Run]:
        """The runs with these uuids that exist, by uuid."""
        query = f"{SELECT} where r.uuid in (select value from json_each(?))"
        return {run.uuid: run for run in self._database.rows(Run, query, (json.dumps(list(uuids)),))}
