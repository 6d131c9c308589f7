"""The images that builds of this home made, and the projects whose code is in them."""

import json
import sqlite3
from collections.abc import Collection, Iterable

from polylocal import clock
from polylocal.engine.ledger import Ledger, short_id
from polylocal.store.database import Tables
from polylocal.store.rows import Run, User

# the projects whose code each image has; builds of older versions have no row in this table
_CONTENTS = """
select digits, projects, is_whole from built_images where digits in (select value from json_each(:keys))
union
select substr(replace(r.image_id, 'sha256:', ''), 1, 12), json_array(p.uuid), 1
from runs r join projects p on p.id = r.project_id
where r.image_id is not null and r.image_id in (select value from json_each(:ids)) and r.kind = 'build'
    and not exists (select 1 from built_images i where i.build_uuid = r.uuid and i.is_whole)
"""
_READABLE = """
select p.uuid from projects p where p.uuid in (select value from json_each(?)) and p.deleted_at is null
    and (p.user_id = ? or (p.is_public and p.archived_at is null))
"""


class BuiltImages(Tables):
    """The images that builds made. A row outlives its build: it is removed when the engine no longer has the image."""

    def add(self, build: Run, image_id: str, *, is_whole: bool, sources: Iterable[str] = ()) -> None:
        """Record an image of a build before another image is built from it.

        `image_id` may be the start of an id. `is_whole`: it is the result of the build, not an intermediate image.
        `sources`: the uuids of the projects whose images it is built from.
        """
        projects = json.dumps(sorted({build.project_uuid, *sources}))
        self._database.execute(
            "insert into built_images (digits, build_uuid, is_whole, projects, created_at) values (?, ?, ?, ?, ?)"
            " on conflict do update set is_whole = max(is_whole, excluded.is_whole), projects = excluded.projects",
            (short_id(image_id), build.uuid, is_whole, projects, clock.now()),
        )

    def complete(self, build: Run, image_id: str) -> None:
        """Record that an intermediate image is the result of the build."""
        update = "update built_images set is_whole = 1 where digits = ? and build_uuid = ?"
        self._database.execute(update, (short_id(image_id), build.uuid))

    def has(self, build: Run, image_id: str) -> bool:
        query = "select 1 from built_images where digits = ? and build_uuid = ?"
        return self._database.value(query, (short_id(image_id), build.uuid)) is not None

    def ledger(self) -> Ledger:
        with self._database.read() as db:
            noted = db.execute("select digits, build_uuid, is_whole from built_images").fetchall()
            builds = db.execute("select uuid, image_id from runs where kind = 'build'").fetchall()
        images = {row["digits"]: row["build_uuid"] for row in noted if row["is_whole"]}
        images |= {short_id(row["image_id"]): row["uuid"] for row in builds if row["image_id"]}
        steps = {row["digits"]: row["build_uuid"] for row in noted if not row["is_whole"]}
        return Ledger(images, steps, {row["uuid"] for row in builds if not row["image_id"]})

    def source_projects(self, image_ids: Collection[str]) -> dict[str, list[set[str]]]:
        """Sets of project uuids by the first digits of each image id. Reading all of one set permits using the image.

        Results of builds take precedence over intermediate images: a step can print any id.
        """
        keys = {"keys": json.dumps([short_id(each) for each in image_ids]), "ids": json.dumps(list(image_ids))}
        steps: dict[str, list[set[str]]] = {}
        whole: dict[str, list[set[str]]] = {}
        with self._database.read() as db:
            for key, projects, is_whole in db.execute(_CONTENTS, keys):
                (whole if is_whole else steps).setdefault(key, []).append(set(json.loads(projects)))
        return steps | whole

    def may_use(self, user: User, build: Run) -> bool:
        """Whether a user may use the image of a build now."""
        contents = self.source_projects([build.image_id]).get(short_id(build.image_id), []) if build.image_id else []
        return not contents or any(self.may_read(user, projects) for projects in contents)

    def may_read(self, user: User, projects: Collection[str]) -> bool:
        """Whether a user may read all of these projects now. An admin may also read removed projects."""
        if user.is_superuser:
            return True
        with self._database.read() as db:
            return can_read(db, user.id, projects)

    def remove_missing(self, here: Collection[str], noted_before: str) -> None:
        """Remove the rows of images that are gone. `here`: the ids of all images of the engine.

        Rows newer than `noted_before` are kept: the list may lack their images.
        """
        delete = "delete from built_images where digits not in (select value from json_each(?)) and created_at < ?"
        self._database.execute(delete, (json.dumps([short_id(each) for each in here]), noted_before))


def may_use_build(db: sqlite3.Connection, user_id: int, build_uuid: str) -> bool:
    """Whether a user may use the image of a finished or running build, in the caller's transaction."""
    if db.execute("select is_superuser from users where id = ?", (user_id,)).fetchone()["is_superuser"]:
        return True
    noted = db.execute("select projects from built_images where build_uuid = ? and is_whole", (build_uuid,)).fetchall()
    return not noted or any(can_read(db, user_id, set(json.loads(row["projects"]))) for row in noted)


def can_read(db: sqlite3.Connection, user_id: int, projects: Collection[str]) -> bool:
    """`may_read` for a user who is not an admin, in the caller's transaction."""
    readable = db.execute(_READABLE, (json.dumps(sorted(projects)), user_id)).fetchall()
    return {row["uuid"] for row in readable} == set(projects)
