"""An upgraded home whose repositories have no origin: apt refuses a repository whose origin changes."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from polylocal.store import Store
from polylocal.store.schema import migrations

THEN = "2026-01-01T00:00:00.000000+00:00"
# what its only build list has come to
PLATFORMS: dict[str, dict[str, Any]] = {
    "published": {"status": 6000, "published_at": THEN, "published_into": "release"},
    "withdrawn": {"status": 6000, "published_at": THEN},
    "contained": {"status": 0, "container_status": 6000},
    "built": {"status": 0},
}


def insert(db: Database, table: str, **row: Any) -> int:
    marks = ", ".join("?" * len(row))
    made = db.execute(f"insert into {table} ({', '.join(row)}) values ({marks})", list(row.values()))
    assert made.lastrowid is not None
    return made.lastrowid


def fill(db: Database, number: int, name: str, user: int, project: int, build: dict[str, Any]) -> None:
    times = {"created_at": THEN, "updated_at": THEN}
    platform = insert(db, "platforms", name=name, owner_id=user, platform_type="main", distrib_type="deb", **times)
    repository = insert(db, "repositories", platform_id=platform, name="main", **times)
    about = {"kind": "package", "id": number, "uuid": f"{number:032}", "status": "succeeded"}
    run = insert(db, "runs", project_id=project, user_id=user, **about, **times)
    texts = dict.fromkeys(("include_repos", "extra_repositories", "extra_build_lists", "extra_params"), "[]")
    places = {"save_to_repository_id": repository, "build_for_platform_id": platform, "arch_id": 1}
    wanted = {"update_type": "bugfix", "project_version": "master", "commit_hash": "a" * 40}
    flags = {"auto_publish_status": "none", "auto_create_container": 0, "use_save_to_repository": 1}
    row = {**texts, **places, **wanted, **flags, **build}
    insert(db, "build_lists", run_pk=run, project_id=project, updated_at=THEN, **row)


def test_platforms_that_clients_know_keep_going_without_an_origin(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    old = Database(sqlite3.connect(path, isolation_level=None))
    migrations.apply(old, stop_before="0017_package_indexes")
    user = insert(old, "users", username="root", is_superuser=1, created_at=THEN)
    about = {"uuid": "0" * 32, "name": "p", "created_at": THEN, "updated_at": THEN}
    project = insert(old, "projects", user_id=user, **about)
    for number, (name, build) in enumerate(PLATFORMS.items(), 1):
        fill(old, number, name, user, project, build)
    old.conn.close()
    store = Store(path)
    origins = {name: store.platforms.by_name(name).origin for name in (*PLATFORMS, "root_personal")}
    known = {"published": None, "withdrawn": None, "contained": None}
    assert origins == {**known, "built": "polylocal", "root_personal": "polylocal"}
    made = store.platforms.create(store.users.by_id(user), {"name": "new", "distrib_type": "deb"})
    assert made.origin == "polylocal"
    store.close()
