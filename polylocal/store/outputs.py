"""The paths of outputs in rows, and their relocation from the layout of older versions."""

from collections.abc import Mapping

from polylocal.store.database import Tables
from polylocal.store.queries import OPEN

_AFTER_SLASH = "0"  # the character after `/`: every `a/…` sorts between `a/` and `a0`


class Outputs(Tables):
    def folders_by_name(self) -> list[str]:
        """Folders `outputs/<user>/<project>` that rows name. A home folder of this version has none.

        Skips from folder to folder in the index, so the cost depends on the number of projects, not of runs.
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
        """{path: uuid of the project} of runs below a folder. A shared path belongs to the oldest run."""
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
        """{path: uuid of the project} of the runs that have a running container."""
        query = (
            "select r.outputs, p.uuid from runs r join projects p on p.id = r.project_id"
            f" where {OPEN} and r.container_id is not null and r.outputs is not null order by r.pk"
        )
        with self._database.read() as db:
            return {row["outputs"]: row["uuid"] for row in db.execute(query)}

    def move(self, places: Mapping[str, str]) -> None:
        """Change {old path: new path} in one transaction."""
        with self._database.write() as db:
            db.executemany("update runs set outputs = ? where outputs = ?", [(new, old) for old, new in places.items()])
