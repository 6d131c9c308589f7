"""Where rows say that outputs lie, and the rows of older versions that say it by name."""

from __future__ import annotations

from collections.abc import Mapping

from polylocal.store.database import Database
from polylocal.store.queries import OPEN

_AFTER_SLASH = "0"  # the character that follows `/`: `a/…` lies between `a/` and `a0`


class Outputs:
    def __init__(self, database: Database) -> None:
        self._database = database

    def folders_by_name(self) -> list[str]:
        """Folders of the form `outputs/<user>/<project>` that rows name; none in a home folder of this version.

        Jumps from folder to folder in the index, so the cost depends on the number of projects, not of runs.
        """
        found: list[str] = []
        at = "outputs/"
        with self._database.read() as db:
            uuids = {row["uuid"] for row in db.execute("select uuid from projects")}
            query = "select outputs from runs where outputs > ? order by outputs limit 1"
            while row := db.execute(query, (at,)).fetchone():
                parts = row["outputs"].split("/")
                folder = "/".join(parts[: 2 if parts[1] in uuids else 3])
                if parts[1] not in uuids:
                    found.append(folder)
                at = folder + _AFTER_SLASH
        return found

    def paths_in(self, folder: str) -> dict[str, str]:
        """{path of a run: uuid of its project} below a folder. A path that runs share belongs to the oldest of them."""
        query = (
            "select r.outputs, p.uuid from runs r join projects p on p.id = r.project_id"
            " where r.outputs > ? and r.outputs < ? order by r.pk"
        )
        found: dict[str, str] = {}
        with self._database.read() as db:
            for row in db.execute(query, (f"{folder}/", folder + _AFTER_SLASH)):
                found.setdefault(row["outputs"], row["uuid"])
        return found

    def with_containers(self) -> dict[str, str]:
        """{path of a run: uuid of its project} of the runs that are under way in a container."""
        query = (
            "select r.outputs, p.uuid from runs r join projects p on p.id = r.project_id"
            f" where {OPEN} and r.container_id is not null and r.outputs is not null order by r.pk"
        )
        with self._database.read() as db:
            return {row["outputs"]: row["uuid"] for row in db.execute(query)}

    def move(self, places: Mapping[str, str]) -> None:
        """{old path: new path}, all in one transaction."""
        with self._database.write() as db:
            db.executemany("update runs set outputs = ? where outputs = ?", [(new, old) for old, new in places.items()])
