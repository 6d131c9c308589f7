"""The upgrade of a home folder: outputs move from names to uuids, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import unpack

from polylocal.daemon import relocation, restore
from polylocal.daemon.accounts import finish_user_removals
from polylocal.daemon.project_links import ProjectLinks
from polylocal.daemon.relocation import relocate
from polylocal.errors import SetupError, StoreError
from polylocal.paths import Home
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.database import SCHEMA_VERSION
from polylocal.store.rows import Project, Run, User

HOMES = Path(__file__).parents[1] / "homes"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home folder of the previous version, created by `homes/make_before_ids.py`."""
    with tarfile.open(HOMES / "before_ids.home.tar.gz") as tar:
        unpack(tar, tmp_path / "before", "fully_trusted")
    return Home(tmp_path / "before" / "home")


@pytest.fixture
def opened() -> Iterator[Callable[[Home], Store]]:
    stores: list[Store] = []

    def open_store(home: Home) -> Store:
        stores.append(Store(home.database))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


Opened = Callable[[Home], Store]


def rows(home: Home) -> list[dict[str, Any]]:
    with sqlite3.connect(home.database) as db:
        db.row_factory = sqlite3.Row
        found = db.execute("select r.*, p.uuid as project from runs r join projects p on p.id = project_id order by pk")
        made = [dict(row) for row in found]
    db.close()
    return made


def files(folder: Path) -> dict[str, bytes]:
    """Path → content. Links stay links. The readable links for people are left out."""
    found = {}
    for parent, folders, names in os.walk(os.fsencode(folder)):
        if os.path.basename(parent) == b"by-name":
            folders.clear()
            continue
        for name in names:
            path = os.path.join(parent, name)
            content = os.readlink(path) if os.path.islink(path) else Path(os.fsdecode(path)).read_bytes()
            found[os.fsdecode(os.path.relpath(path, os.fsencode(folder)))] = content
    return found


def content_by_run(home: Home) -> dict[int, dict[str, bytes]]:
    return {row["pk"]: files(home.root / row["outputs"]) for row in rows(home) if row["outputs"]}


def is_by_project(home: Home) -> bool:
    return all(row["outputs"].startswith(f"outputs/{row['project']}/") for row in rows(home) if row["outputs"])


def test_a_home_of_the_version_before_is_taken_over(home: Home, opened: Opened) -> None:
    before, in_all = content_by_run(home), files(home.root / "outputs")
    inodes = {row["pk"]: (home.root / row["outputs"]).stat().st_ino for row in rows(home) if before.get(row["pk"])}
    store = opened(home)
    assert relocate(home, store) == 4  # ann/rx, ann/ry, root/shelf, root/zoo
    assert is_by_project(home)
    assert content_by_run(home) == before
    assert len(files(home.root / "outputs")) == len(in_all)
    for row in rows(home):
        if row["pk"] in inodes:  # moved, not copied, so containers keep their mounted folders
            assert (home.root / row["outputs"]).stat().st_ino == inodes[row["pk"]]
    assert {path.name for path in (home.root / "outputs").iterdir()} == {
        row["project"] for row in rows(home) if before.get(row["pk"])
    }
    assert relocate(home, store) == 0
    assert store.runs.by_name(store.projects.get("root", "zoo"), Kind.JOB, "4").status == "succeeded"


def test_a_name_that_was_given_away_leads_to_nothing_of_the_project_before(home: Home, opened: Opened) -> None:
    store = opened(home)
    relocate(home, store)
    hidden, public = store.projects.get("ann", "ry"), store.projects.get("ann", "rx")
    kept = {project.name: files(home.project_outputs(project.uuid)) for project in (hidden, public)}
    assert kept["ry"] == {
        "jobs/1/kept": b"hidden-job\n",
        "jobs/2/kept": b"hidden-later\n",
        "experiments/1/kept": b"hidden-experiment\n",
    }
    assert kept["rx"] == {"jobs/3/kept": b"public-job\n", "experiments/2/kept": b"public-experiment\n"}


def test_runs_that_share_outputs_go_on_sharing_them(home: Home, opened: Opened) -> None:
    relocate(home, opened(home))
    shared = [row["outputs"] for row in rows(home) if row["id"] in (4, 5) and row["kind"] == "job"]
    assert len(shared) == 2
    assert len(set(shared)) == 1
    assert files(home.root / shared[0])["n\udcffme"] == b"odd"


def test_a_link_stays_at_the_old_path_while_a_container_may_be_restarted(home: Home, opened: Opened) -> None:
    """The engine opens the folder by that path again. polylocal itself does not need it."""
    store = opened(home)
    with store.database.write() as db:
        db.execute("update runs set status = 'running', container_id = 'c' where kind = 'job' and id in (1, 4)")
    relocate(home, store)
    hidden = home.project_outputs(store.projects.get("ann", "ry").uuid)
    assert (home.outputs_root / "root" / "zoo" / "jobs" / "4").resolve() == home.outputs(
        store.projects.get("root", "zoo").uuid, "job", 4
    )
    assert (home.outputs_root / "ann" / "rx" / "jobs" / "1").resolve() == hidden / "jobs" / "1"
    assert not (home.outputs_root / "ann" / "rx" / "jobs" / "3").exists()
    relocate(home, store)
    assert (home.outputs_root / "root" / "zoo").is_symlink()
    with store.database.write() as db:
        db.execute("update runs set status = 'succeeded' where status = 'running'")
    relocate(home, store)
    assert not (home.outputs_root / "root").exists()
    assert not (home.outputs_root / "ann").exists()
    assert (hidden / "jobs" / "1" / "kept").exists()


def test_a_missing_folder_is_no_hindrance(home: Home, opened: Opened) -> None:
    shutil.rmtree(home.root / "outputs" / "ann" / "rx")
    shutil.rmtree(home.root / "outputs" / "root" / "zoo" / "groups")
    before = content_by_run(home)
    relocate(home, opened(home))
    assert is_by_project(home)
    assert content_by_run(home) == before


class Killed(BaseException):
    """Like kill -9: no code catches it."""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_step_is_mended_by_the_next_start(
    tmp_path: Path, home: Home, opened: Opened, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    before, kept = content_by_run(home), shutil.copytree
    kills, n = 0, 0
    while True:
        n += 1
        copy = Home(tmp_path / f"{n}")
        kept(home.root, copy.root, symlinks=True)
        store = opened(copy)
        with monkeypatch.context() as patch:
            killing(patch, store, n, when)
            try:
                relocate(copy, store)
            except Killed:
                kills += 1
            else:
                break
        relocate(copy, store)
        assert is_by_project(copy)
        assert content_by_run(copy) == before
        assert {path.name for path in (copy.root / "outputs").iterdir()} == {
            row["project"] for row in rows(copy) if before.get(row["pk"])
        }
    assert kills > 10


def killing(patch: pytest.MonkeyPatch, store: Store, nth: int, when: str) -> None:
    """The process ends just before or just after the nth change of the disk or of the rows."""
    left = [nth]

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            is_last = left[0] == 0
            if is_last and when == "before":
                raise Killed
            done = call(*arguments, **named)
            if is_last:
                raise Killed
            return done

        return inner

    for name in ("rename", "rmdir", "mkdir"):
        patch.setattr(Path, name, wrapped(getattr(Path, name)))
    patch.setattr(store.outputs, "move", wrapped(store.outputs.move))


def test_both_sides_of_a_merge_are_kept(home: Home, opened: Opened) -> None:
    """For example, a user has copied a folder by hand."""
    store = opened(home)
    zoo = store.projects.get("root", "zoo")
    (home.project_outputs(zoo.uuid) / "jobs" / "77").mkdir(parents=True)
    (home.project_outputs(zoo.uuid) / "jobs" / "77" / "mine").write_text("mine")
    taken = home.project_outputs(zoo.uuid) / "jobs" / "4"
    taken.mkdir()
    (taken / "last").write_text("of another")
    relocate(home, store)
    assert (home.project_outputs(zoo.uuid) / "jobs" / "77" / "mine").read_text() == "mine"
    assert (home.project_outputs(zoo.uuid) / "jobs" / "6" / "last").is_symlink()
    assert (taken / "last").read_text() == "of another"
    assert (home.root / "outputs" / "root" / "zoo" / "jobs" / "4" / "last").is_symlink()


def test_outputs_on_another_disk_stay_there_and_a_link_leads_to_them(
    tmp_path: Path, home: Home, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content_by_run(home)
    (home.root / "outputs" / "root").rename(tmp_path / "disk")
    (home.root / "outputs" / "root").symlink_to(tmp_path / "disk")
    rename = Path.rename

    def renamed(self: Path, target: Path) -> Path:
        if os.path.realpath(self).startswith(str(tmp_path / "disk")):
            raise OSError(18, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)
    store = opened(home)
    relocate(home, store)
    assert is_by_project(home)
    assert content_by_run(home) == before
    assert (home.project_outputs(store.projects.get("root", "zoo").uuid)).is_symlink()
    assert relocate(home, store) == 0


def test_a_failed_move_is_reported_and_nothing_is_lost(
    home: Home, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, store = content_by_run(home), opened(home)

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises(SetupError, match="No space left on device; nothing is lost; fix this and start again"):
            relocate(home, store)
    assert content_by_run(home) == before
    relocate(home, store)
    assert content_by_run(home) == before


def test_a_backup_of_the_version_before_is_restored_and_taken_over(tmp_path: Path, opened: Opened) -> None:
    back = Home(tmp_path / "back")
    restore.restore(HOMES / "before_ids.backup.tar.gz", back)
    before = content_by_run(back)
    assert sum(len(found) for found in before.values()) > 10
    relocate(back, opened(back))
    assert is_by_project(back)
    assert content_by_run(back) == before


@pytest.mark.slow
def test_a_hundred_thousand_runs_are_moved_within_seconds(
    tmp_path: Path, settings: Any, store: Store, root: User, project: Project
) -> None:
    home = settings.folders
    store.runs.insert(project, root, NewRun(Kind.JOB, config={}))
    with store.database.write() as db:
        columns = "kind, id, uuid, project_id, user_id, status, created_at, updated_at, outputs"
        db.execute(
            "with recursive n(i) as (select 2 union all select i + 1 from n where i < 100000)"
            f" insert into runs ({columns}) select 'job', i, printf('%032x', i), project_id, user_id, 'succeeded',"
            " created_at, updated_at, 'outputs/root/quick-start/jobs/' || i from n, runs where id = 1"
        )
        db.execute("update runs set outputs = 'outputs/root/quick-start/jobs/1' where id = 1")
    (home.root / "outputs/root/quick-start/jobs/100000").mkdir(parents=True)
    began = time.process_time()
    relocate(home, store)
    assert time.process_time() - began < 20
    assert home.outputs(project.uuid, "job", 100_000).is_dir()
    assert store.runs.find(Kind.JOB, 99_999).outputs == f"outputs/{project.uuid}/jobs/99999"


def test_an_older_version_refuses_a_newer_home_in_one_sentence(store: Store) -> None:
    path = store.database.path
    store.close()
    with sqlite3.connect(path) as db:
        db.execute(f"pragma user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(StoreError, match=r"was made by a newer polylocal .*: update polylocal"):
        Store(path)


# -- links for people ---------------------------------------------------------------------------------------------


@pytest.fixture
def links(settings: Any, store: Store) -> ProjectLinks:
    made = ProjectLinks(settings.folders, store)
    store.subscribe_to_projects(made.refresh)
    return made


def by_name(home: Home) -> dict[str, str]:
    return {str(path.relative_to(home.outputs_by_name)): os.readlink(path) for path in home.outputs_by_name.glob("*/*")}


def test_links_for_people_follow_the_names(settings: Any, store: Store, root: User, links: ProjectLinks) -> None:
    home = settings.folders
    one = store.projects.create(root, {"name": "rx"})
    assert by_name(home) == {"root/rx": f"../../{one.uuid}"}
    store.projects.update(one, {"name": "ry"})
    two = store.projects.create(root, {"name": "rx"})
    assert by_name(home) == {"root/ry": f"../../{one.uuid}", "root/rx": f"../../{two.uuid}"}
    home.outputs(one.uuid, "job", 1).mkdir(parents=True)
    assert (home.outputs_by_name / "root" / "ry" / "jobs" / "1").is_dir()
    store.projects.delete(one)
    assert by_name(home) == {"root/rx": f"../../{two.uuid}"}


def test_a_start_makes_links_true_again(settings: Any, store: Store, root: User, links: ProjectLinks) -> None:
    home = settings.folders
    one, two = (store.projects.create(root, {"name": name}) for name in ("one", "two"))
    folder = home.outputs_by_name / "root"
    (folder / "one").unlink()
    (folder / "two").unlink()
    (folder / "two").symlink_to(f"../../{one.uuid}")
    (folder / "stale").symlink_to(f"../../{one.uuid}")
    (folder / "notes.txt").write_text("a person's own")
    ProjectLinks(home, store).refresh_all()
    assert (folder / "notes.txt").exists()
    (folder / "notes.txt").unlink()
    assert by_name(home) == {"root/one": f"../../{one.uuid}", "root/two": f"../../{two.uuid}"}


def test_a_link_that_cannot_be_made_fails_no_request(
    settings: Any, store: Store, root: User, links: ProjectLinks, caplog: pytest.LogCaptureFixture
) -> None:
    (settings.folders.root / "outputs").write_text("a file in the way")
    assert store.projects.create(root, {"name": "rx"}).name == "rx"
    assert "can't be created" in caplog.text


def test_nothing_is_opened_through_a_link_for_people(
    settings: Any, store: Store, root: User, links: ProjectLinks
) -> None:
    """Changing such a link reveals no files."""
    project = store.projects.create(root, {"name": "rx"})
    run: Run = store.runs.insert(project, root, NewRun(Kind.JOB, config={}))
    assert run.outputs == f"outputs/{project.uuid}/jobs/1"
    assert relocation.relocate(settings.folders, store) == 0


def test_a_start_removes_what_a_deleted_user_left(settings: Any, store: Store, root: User) -> None:
    home = settings.folders
    for name in ("root_personal", "ann_personal", "main"):
        (home.downloads / name).mkdir(parents=True)
    (home.secrets / "ann.deleted").mkdir(parents=True)
    finish_user_removals(store, home)
    assert sorted(path.name for path in home.downloads.iterdir()) == ["main", "root_personal"]
    assert list(home.secrets.iterdir()) == []
