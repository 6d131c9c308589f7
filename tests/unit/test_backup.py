"""Backups without a daemon: contents, refusals, restoration."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import os
import re
import socket
import sqlite3
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support import eventually

from polylocal.daemon import backup, home_lock, restore
from polylocal.errors import SetupError, StoreError
from polylocal.files.logs import STDERR, LogWriter, positions
from polylocal.git.repository import Repository
from polylocal.packages.signing import Keys
from polylocal.paths import Home
from polylocal.settings import Settings
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store, snapshots
from polylocal.store.rows import Project, User


@pytest.fixture
def home(settings: Settings, store: Store, project: Project, root: User) -> Home:
    """A home folder with data of every sort and an open database."""
    made = settings.folders
    store.installation()
    made.token.write_text(store.users.new_token(root) + "\n")
    made.settings.write_text("max_runs = 3\n")
    made.lock.write_text("{}")
    made.daemon_log.write_text("of this daemon\n")
    run = store.runs.insert(project, root, NewRun(Kind.JOB, config={}))
    with LogWriter(made.log(run.kind, run.uuid)) as log:
        log.append(b"hello\n")
        log.append(b"\xff no newline", STDERR)
    outputs = made.outputs("a-project", "job", 1)
    outputs.mkdir(parents=True)
    (outputs / "model.bin").write_bytes(os.urandom(300_000))
    (outputs / "empty").mkdir()
    (made.root / "secrets").mkdir(mode=0o700)
    (made.root / "secrets" / "registry").write_text("secret")
    Keys(made.signing).get("cocos", "deb")
    return made


def tar_of(*files: tuple[str, bytes]) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    packed.seek(0)
    return packed


def there_and_back(home: Home, tmp_path: Path) -> Home:
    backup.make(home, tmp_path / "b.tar.gz", replace=True)
    back = Home(tmp_path / "back")
    restore.restore(tmp_path / "b.tar.gz", back)
    return back


def members(file: Path) -> list[str]:
    with tarfile.open(file) as tar:
        return tar.getnames()


def content(folder: Path) -> dict[str, object]:
    """Every file, link and folder below it, except the database."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.startswith(("polylocal.db", "daemon.")):
            continue
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# -- backup and restore ---------------------------------------------------------------------------------------------


def test_everything_comes_back(home: Home, store: Store, project: Project, tmp_path: Path) -> None:
    repository = Repository(home.code(project.uuid))
    commit = repository.upload(tar_of(("train.py", b"print(1)\n")), "root")
    file = tmp_path / "b.tar.gz"
    said: list[str] = []
    made = backup.make(home, file, say=said.append)
    assert (made.runs, said, mode(file)) == (1, [], 0o600)
    assert made.size == file.stat().st_size
    assert made.files == sum(path.is_file() for path in home.root.rglob("*")) - 2 - sum(
        path.is_file() for path in home.root.glob("polylocal.db-*")
    )
    assert members(file)[:4] == [backup.MANIFEST, "polylocal.db", "token", "polylocal.toml"]
    done = restore.restore(file, Home(tmp_path / "back"))
    back = Home(tmp_path / "back")
    assert (done.files, done.content, done.is_new) == (made.files, made.content, True)
    assert content(back.root) == content(home.root)
    assert Repository(back.code(project.uuid)).read(commit, "train.py") == b"print(1)\n"
    again = Store(back.database)
    assert again.users.by_token(home.token.read_text().strip())
    run = again.runs.find(Kind.JOB, 1)
    again.close()
    before, after = (folder.log("job", run.uuid) for folder in (home, back))
    assert positions(before) == positions(after)
    assert not list(tmp_path.glob("*.part*"))
    assert not list(tmp_path.glob("*.restoring"))


def test_the_keys_of_platforms_come_back_for_their_owner_alone(home: Home, tmp_path: Path) -> None:
    (home.signing / "cocos.asc").chmod(0o644)
    back = there_and_back(home, tmp_path)
    assert stat.S_IMODE((back.signing / "cocos.asc").stat().st_mode) == 0o600
    assert stat.S_IMODE(back.signing.stat().st_mode) == 0o700
    known, again = (Keys(place.signing).get("cocos", "deb") for place in (home, back))
    assert again.secret == known.secret


def test_modes(home: Home, tmp_path: Path) -> None:
    home.token.chmod(0o644)
    (home.root / "secrets" / "registry").chmod(0o644)
    outputs = home.outputs("a-project", "job", 1)
    (outputs / "run.sh").touch(0o755)
    (outputs / "run.sh").chmod(0o4755)
    (outputs / "empty").chmod(0o555)
    back = there_and_back(home, tmp_path)
    assert mode(back.root) == 0o700
    for private in (back.token, back.database, back.settings, back.root / "secrets" / "registry"):
        assert mode(private) == 0o600
    there = back.outputs("a-project", "job", 1)
    assert (mode(there / "run.sh"), mode(there / "empty")) == (0o755, 0o555)
    assert int((there / "run.sh").stat().st_mtime) == int((outputs / "run.sh").stat().st_mtime)


def test_files_that_are_not_backed_up(home: Home, tmp_path: Path) -> None:
    for name in ("code/upload-x/tree", "code/notgit", "contexts/ended", "notebooks/a.new", "notebooks/a.gone", "else"):
        (home.root / name).mkdir(parents=True)
    backup.make(home, tmp_path / "b.tar.gz")
    tops = {name.partition("/")[0] for name in members(tmp_path / "b.tar.gz")}
    assert tops == {backup.MANIFEST, "polylocal.db", "token", "polylocal.toml", "secrets", "signing", "logs", "outputs"}
    backup.make(home, tmp_path / "c.tar.gz", with_outputs=False)
    assert not [name for name in members(tmp_path / "c.tar.gz") if name.startswith("outputs")]
    assert restore.restore(tmp_path / "c.tar.gz", Home(tmp_path / "back")).manifest.with_outputs is False


def test_work_under_way_is_kept(home: Home, store: Store, tmp_path: Path) -> None:
    run = store.runs.find(Kind.JOB, 1)
    home.handover(run.uuid).mkdir(parents=True)
    home.server_token(run.uuid).write_text("x")
    home.work(run.uuid).mkdir(parents=True)
    (home.work(run.uuid) / "new.ipynb").write_text("{}")
    (home.work(run.uuid) / "data").symlink_to("/data")
    back = there_and_back(home, tmp_path)
    assert back.server_token(run.uuid).read_text() == "x"
    assert os.readlink(back.work(run.uuid) / "data") == "/data"
    assert (back.work(run.uuid) / "new.ipynb").exists()


def test_strange_files_in_outputs(home: Home, tmp_path: Path) -> None:
    outputs = home.outputs("a-project", "job", 1)
    (outputs / "out").symlink_to("/etc/passwd")
    (outputs / "folder").symlink_to("/etc")
    (outputs / "nowhere").symlink_to("nowhere")
    (outputs / "ä\n ö").write_text("name")
    Path(os.fsdecode(os.fsencode(outputs) + b"/\xff\xfe")).write_text("no utf-8")
    (outputs / ("deep/" * 60)).mkdir(parents=True)
    os.mkfifo(outputs / "pipe")
    with socket.socket(socket.AF_UNIX) as made, (outputs / "huge").open("wb") as huge:
        with contextlib.chdir(outputs):  # the path of a socket is limited to about 100 bytes
            made.bind("sock")
        huge.truncate(64 << 20)
        said: list[str] = []
        backup.make(home, tmp_path / "b.tar.gz", say=said.append)
    assert said == [f"{outputs / 'pipe'} is a pipe", f"{outputs / 'sock'} is a socket"]
    back = Home(tmp_path / "back")
    restore.restore(tmp_path / "b.tar.gz", back)
    for name in ("pipe", "sock"):
        (outputs / name).unlink()
    assert content(back.root) == content(home.root)
    there = back.outputs("a-project", "job", 1)
    assert (there / "huge").stat().st_blocks * 512 < 1 << 20


def test_outputs_on_another_disk(home: Home, tmp_path: Path) -> None:
    """The folder itself may be a link made by its owner. The content behind it is backed up."""
    (home.root / "outputs").rename(tmp_path / "big")
    (home.root / "outputs").symlink_to(tmp_path / "big")
    back = there_and_back(home, tmp_path)
    assert not (back.root / "outputs").is_symlink()
    assert content(back.root / "outputs") == content(tmp_path / "big")


def test_links_among_polylocals_own_files_are_left_out(home: Home, tmp_path: Path) -> None:
    (home.logs / "jobs" / "link.log").symlink_to("/etc/passwd")
    said: list[str] = []
    backup.make(home, tmp_path / "b.tar.gz", say=said.append)
    assert said == [f"{home.logs / 'jobs' / 'link.log'} is a link"]
    restore.restore(tmp_path / "b.tar.gz", Home(tmp_path / "back"))


def test_further_names_of_polylocals_own_files_become_separate_files(home: Home, tmp_path: Path) -> None:
    log = next(home.logs.glob("jobs/*.log"))
    os.link(log, log.with_name("kept.log"))
    os.link(log, home.outputs_root / "kept.log")
    back = there_and_back(home, tmp_path)
    assert (back.logs / "jobs" / "kept.log").read_bytes() == log.read_bytes()
    assert (back.outputs_root / "kept.log").read_bytes() == log.read_bytes()


# -- concurrent changes ---------------------------------------------------------------------------------------------


def on_member(monkeypatch: pytest.MonkeyPatch, act: Callable[[str], None]) -> None:
    """Call `act(name)` just before each member is written."""
    add = tarfile.TarFile.addfile

    def adding(self: tarfile.TarFile, member: tarfile.TarInfo, source: io.BytesIO | None = None) -> None:
        act(member.name)
        add(self, member, source)

    monkeypatch.setattr(tarfile.TarFile, "addfile", adding)


def test_files_that_grow_shrink_and_vanish(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = home.outputs("a-project", "job", 1)
    for name in ("grows", "shrinks", "vanishes"):
        (outputs / name).write_bytes(b"x" * 100)

    def act(name: str) -> None:
        if name.endswith("/grows"):
            (outputs / "grows").write_bytes(b"x" * 1000)
        elif name.endswith("/shrinks"):
            (outputs / "shrinks").write_bytes(b"x" * 10)
            (outputs / "vanishes").unlink()

    on_member(monkeypatch, act)
    said: list[str] = []
    backup.make(home, tmp_path / "b.tar.gz", say=said.append)
    restore.restore(tmp_path / "b.tar.gz", Home(tmp_path / "back"))
    there = Home(tmp_path / "back").outputs("a-project", "job", 1)
    assert (there / "grows").read_bytes() == b"x" * 100
    assert (there / "shrinks").read_bytes() == b"x" * 10 + b"\0" * 90
    assert not (there / "vanishes").exists()
    assert len(said) == 1
    assert "lacks 90 bytes" in said[0]


def test_a_log_that_is_written_during_the_backup_can_be_continued(
    home: Home, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home.log("job", store.runs.find(Kind.JOB, 1).uuid)
    with LogWriter(path) as log:
        on_member(monkeypatch, lambda name: log.append(b"more\n", time_us=log.size * 10_000))
        back = there_and_back(home, tmp_path)
    there = back.log("job", path.stem)
    kept = there.read_bytes()
    assert path.read_bytes().startswith(kept)
    with LogWriter(there) as taken_up:
        taken_up.append(b"on\n")
    assert there.read_bytes() == kept + b"on\n"
    assert positions(there).keys() == positions(path).keys()


def test_the_rows_are_of_one_moment_before_the_files(
    home: Home, store: Store, project: Project, root: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inserted = []

    def act(name: str) -> None:
        if not inserted:
            inserted.append(store.runs.insert(project, root, NewRun(Kind.JOB, config={})))

    on_member(monkeypatch, act)
    backup.make(home, tmp_path / "b.tar.gz")
    restore.restore(tmp_path / "b.tar.gz", Home(tmp_path / "back"))
    assert snapshots.inspect(tmp_path / "back" / "polylocal.db").runs == 1


def fsck(folder: Path) -> str:
    done = subprocess.run(
        ["git", "--git-dir", str(folder), "fsck", "--full", "--strict", "--no-dangling"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{done.returncode} {done.stdout}{done.stderr}".strip()


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "--git-dir", str(folder), *arguments], check=True, capture_output=True)


def test_an_object_has_two_names_while_git_takes_in_an_upload(home: Home, project: Project, tmp_path: Path) -> None:
    repository = Repository(home.code(project.uuid))
    repository.upload(tar_of(("a", b"a")), "root")
    objects = home.code(project.uuid) / "objects"
    loose = next(path for path in objects.glob("??/*"))
    arriving = objects / "tmp_objdir-incoming-x" / loose.parent.name
    arriving.mkdir(parents=True)
    os.link(loose, arriving / loose.name)
    back = there_and_back(home, tmp_path)
    assert "error" not in fsck(back.code(project.uuid))


def test_code_that_is_uploaded_meanwhile(home: Home, project: Project, tmp_path: Path) -> None:
    folder = home.code(project.uuid)
    repository = Repository(folder)
    repository.upload(tar_of(("train.py", b"0")), "root")
    ended = threading.Event()
    uploads: list[str] = []

    def upload() -> None:
        while not ended.is_set():
            n = len(uploads) + 1
            uploads.append(repository.upload(tar_of(*((f"f{i}.py", b"%d" % (n * i)) for i in range(20))), "root"))

    thread = threading.Thread(target=upload)
    thread.start()
    try:
        for n in range(4):
            eventually(lambda n=n: len(uploads) > 2 * n)
            backup.make(home, tmp_path / f"{n}.tar.gz")
    finally:
        ended.set()
        thread.join()
    for n in range(4):
        back = Home(tmp_path / f"back{n}")
        restore.restore(tmp_path / f"{n}.tar.gz", back)
        assert fsck(back.code(project.uuid)) == "0"
        assert Repository(back.code(project.uuid)).upload(tar_of(("new.py", b"1")), "root")


@pytest.mark.parametrize("at", ["/refs/heads/master", "/HEAD", "/objects", "/objects/pack"])
def test_code_that_git_packs_meanwhile(
    at: str, home: Home, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects and refs move while the backup copies them."""
    folder = home.code(project.uuid)
    for n in range(3):
        Repository(folder).upload(tar_of(("train.py", b"%d" % n)), "root")
        if n == 0:
            git(folder, "repack", "-d", "-q")
    commit = Repository(folder).resolve("master")

    def act(name: str) -> None:
        if name.endswith(at):
            git(folder, "gc", "--prune=now", "--quiet")

    (folder / "refs" / "heads" / "other.lock").touch()
    (folder / "gc.pid").unlink(missing_ok=True)
    on_member(monkeypatch, act)
    backup.make(home, tmp_path / "b.tar.gz")
    back = Home(tmp_path / "back")
    restore.restore(tmp_path / "b.tar.gz", back)
    assert fsck(back.code(project.uuid)) == "0"
    assert Repository(back.code(project.uuid)).resolve("master") == commit
    assert not [name for name in members(tmp_path / "b.tar.gz") if name.endswith((".lock", ".pid"))]


# -- files that can't be backed up ----------------------------------------------------------------------------------


def test_targets_that_can_not_be(home: Home, tmp_path: Path) -> None:
    (tmp_path / "there.tar.gz").write_text("precious")
    for target, word in [
        (tmp_path, "is a folder"),
        (tmp_path / "there.tar.gz", "exists already"),
        (home.root / "b.tar.gz", "is in the home folder"),
        (tmp_path / "nosuch" / "b.tar.gz", "No such file or directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ]:
        with pytest.raises(SetupError, match=word):
            backup.make(home, target)
    assert (tmp_path / "there.tar.gz").read_text() == "precious"
    backup.make(home, tmp_path / "there.tar.gz", replace=True)
    assert members(tmp_path / "there.tar.gz")


def test_a_home_without_a_database(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="there is no database in"):
        backup.make(Home(tmp_path / "nosuch"), tmp_path / "b.tar.gz")
    assert not list(tmp_path.iterdir())


def damage(database: Path) -> None:
    """A readable database with an index that lacks rows of its table. Only an integrity check finds that."""
    with sqlite3.connect(database) as db:
        db.execute("pragma writable_schema = on")
        db.execute("delete from sqlite_master where name = 'runs_updated'")
    db.close()
    with database.open("r+b") as file:
        for page in range(6, 30):
            file.seek(page * 4096 + 3000)
            file.write(b"\xff" * 500)


def test_a_damaged_database(home: Home, store: Store, tmp_path: Path) -> None:
    store.close()
    damage(home.database)
    with pytest.raises(SetupError, match=f"no backup was made: The database {re.escape(str(home.database))}"):
        backup.make(home, tmp_path / "b.tar.gz")
    home.database.write_bytes(b"no database at all" * 1000)
    with pytest.raises(SetupError, match="file is not a database"):
        backup.make(home, tmp_path / "b.tar.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


def test_rows_that_lead_nowhere(home: Home, store: Store, tmp_path: Path) -> None:
    with sqlite3.connect(home.database) as db:
        db.execute("update runs set project_id = 77")
    db.close()
    with pytest.raises(SetupError, match="damaged: a row of runs without its projects"):
        backup.make(home, tmp_path / "b.tar.gz")


@pytest.mark.parametrize("after", [0, 10_000])
def test_a_full_disk(after: int, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.tar.gz").write_text("of yesterday")
    written = 0
    flush = gzip.GzipFile.write

    def write(self: gzip.GzipFile, data: bytes) -> int:
        nonlocal written
        written += len(data)
        if written > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return flush(self, data)

    monkeypatch.setattr(gzip.GzipFile, "write", write)
    with pytest.raises(SetupError, match="No space left on device; nothing was kept"):
        backup.make(home, tmp_path / "b.tar.gz", replace=True)
    assert (tmp_path / "b.tar.gz").read_text() == "of yesterday"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar.gz", "home"]


def test_leftovers_of_an_interrupted_backup(home: Home, tmp_path: Path) -> None:
    for ending in ("part", "part.db", "part.db-wal"):
        (tmp_path / f"b.tar.gz.{ending}").write_text("left" * 100_000)
    backup.make(home, tmp_path / "b.tar.gz")
    assert not list(tmp_path.glob("*.part*"))
    restore.restore(tmp_path / "b.tar.gz", Home(tmp_path / "back"))


def test_two_backups_into_one_file(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = []

    def act(name: str) -> None:
        if name == "token" and not refused:
            with pytest.raises(SetupError, match="another backup is being written"):
                backup.make(home, tmp_path / "b.tar.gz")
            refused.append(name)

    on_member(monkeypatch, act)
    backup.make(home, tmp_path / "b.tar.gz")
    assert refused
    assert members(tmp_path / "b.tar.gz")


# -- the target of a restore ----------------------------------------------------------------------------------------


def test_places_that_can_not_be(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    backup.make(home, file)
    lock = home_lock.take(home)
    with pytest.raises(SetupError, match="a daemon is running for"):
        restore.restore(file, home)
    lock.close()
    with pytest.raises(SetupError, match="is not empty"):
        restore.restore(file, home)
    for place in (file, file / "home"):
        with pytest.raises(SetupError, match="can't be a home folder: Not a directory"):
            restore.restore(file, Home(place))
    (tmp_path / "empty").mkdir()
    restore.restore(file, Home(tmp_path / "empty"))
    restore.restore(file, Home(tmp_path / "deep" / "deeper"))


def test_the_folder_beside(home: Home, tmp_path: Path) -> None:
    """The remains of an interrupted restore are removed. A user's folder of the same name stays."""
    file = tmp_path / "b.tar.gz"
    backup.make(home, file)
    beside = tmp_path / "back.restoring"
    (beside / "outputs").mkdir(parents=True)
    with pytest.raises(SetupError, match="is in the way"):
        restore.restore(file, Home(tmp_path / "back"))
    assert (beside / "outputs").exists()
    (beside / backup.MANIFEST).touch()
    (beside / "outputs" / "half").write_text("x")
    restore.restore(file, Home(tmp_path / "back"))
    assert not beside.exists()
    assert not (tmp_path / "back" / "outputs" / "half").exists()


def test_the_same_place_is_the_same_installation(home: Home, store: Store, tmp_path: Path) -> None:
    run = store.runs.find(Kind.JOB, 1)
    store.runs.transition(run, Status.RUNNING, recorded={"container_id": "c1"})
    store.save_fact("bridge_port", "8000")
    before = store.installation()
    backup.make(home, tmp_path / "b.tar.gz")
    elsewhere = restore.restore(tmp_path / "b.tar.gz", Home(tmp_path / "back"))
    assert (elsewhere.is_new, elsewhere.under_way) == (True, 1)
    other = Store(tmp_path / "back" / "polylocal.db")
    assert other.installation() != before
    assert other.fact("bridge_port") is None
    assert other.runs.find(Kind.JOB, 1).container_id == "0" * 64
    other.close()
    store.close()
    home.root.rename(tmp_path / "moved")
    assert not restore.restore(tmp_path / "b.tar.gz", home).is_new
    same = Store(home.database)
    assert (same.installation(), same.fact("bridge_port")) == (before, "8000")
    assert same.runs.find(Kind.JOB, 1).container_id == "c1"
    same.close()


def test_a_full_disk_when_restoring(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup.make(home, tmp_path / "b.tar.gz")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "utime", full)
    with pytest.raises(SetupError, match="No space left on device; nothing was kept"):
        restore.restore(tmp_path / "b.tar.gz", Home(tmp_path / "back"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar.gz", "home"]


# -- files that are not a backup ------------------------------------------------------------------------------------


def refused(file: Path, tmp_path: Path) -> str:
    with pytest.raises(SetupError) as caught:
        restore.restore(file, Home(tmp_path / "back"))
    assert not (tmp_path / "back").exists()
    assert not (tmp_path / "back.restoring").exists()
    return str(caught.value)


def test_files_that_are_no_backup(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    assert "No such file" in refused(file, tmp_path)
    for data, word in [
        (b"", "is not a backup of polylocal"),
        (b"hello", "is not a backup of polylocal"),
        (gzip.compress(b"hello"), "is not a backup of polylocal"),
        (gzip.compress(b""), "is not a backup of polylocal"),
        (gzip.compress(tar_of(("x", b"y")).getvalue()), f"does not begin with {backup.MANIFEST}"),
        (gzip.compress(tar_of((backup.MANIFEST, b"{")).getvalue()), "can't be read"),
        (gzip.compress(tar_of((backup.MANIFEST, b"{}")).getvalue()), "can't be read"),
        (gzip.compress(tar_of((backup.MANIFEST, b"[]")).getvalue()), "can't be read"),
    ]:
        file.write_bytes(data)
        assert word in refused(file, tmp_path), data
    file.unlink()
    file.mkdir()
    assert "Is a directory" in refused(file, tmp_path)


def test_a_backup_that_was_cut_off_or_damaged_anywhere(home: Home, tmp_path: Path) -> None:
    whole = tmp_path / "whole.tar.gz"
    backup.make(home, whole)
    data = whole.read_bytes()
    file = tmp_path / "b.tar.gz"
    for length in (1, 9, 20, 1000, len(data) // 2, len(data) - 5000, len(data) - 9, len(data) - 1):
        file.write_bytes(data[:length])
        assert "is incomplete" in refused(file, tmp_path) or length < 10, length
    for at in (len(data) // 3, len(data) - 6):
        file.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        assert "damaged" in refused(file, tmp_path)


def manifest(**changes: object) -> tuple[str, bytes]:
    known = {"format": 1, "polylocal": "0.1", "made_at": "2026-01-01", "home": "/x", "installation": "", "runs": 0}
    return backup.MANIFEST, json.dumps({**known, "with_outputs": True, **changes}).encode()


def test_a_newer_backup(home: Home, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    file.write_bytes(gzip.compress(tar_of(manifest(format=2, polylocal="9.9")).getvalue()))
    assert "was made by polylocal 9.9, in a newer form; update polylocal" in refused(file, tmp_path)
    with store.database.write() as db:
        db.execute("insert into _sqlite_migrations (migration_set, name) values ('polylocal', '9999_more')")
    backup.make(home, file, replace=True)
    assert "database is newer (9999_more); update polylocal" in refused(file, tmp_path)


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, to
    return made


def plain(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    return made


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ([plain("/etc/evil")], "leads out"),
        ([plain("outputs/../../evil")], "leads out"),
        ([plain("..")], "leads out"),
        ([plain("evil")], "does not belong in a backup"),
        ([plain("evil/x")], "does not belong in a backup"),
        ([plain("daemon.lock")], "does not belong in a backup"),
        ([plain("outputs")], "does not belong in a backup"),
        ([plain("token", tarfile.DIRTYPE)], "does not belong in a backup"),
        ([plain("outputs/dev", tarfile.CHRTYPE)], "does not belong in a backup"),
        ([plain("outputs/pipe", tarfile.FIFOTYPE)], "does not belong in a backup"),
        ([link("outputs/hard", "/etc/passwd", tarfile.LNKTYPE)], "does not belong in a backup"),
        ([link("token", "/etc/passwd")], "is a link, which is not allowed there"),
        ([link("outputs", "/tmp")], "does not belong in a backup"),
        ([link("logs/jobs", "/tmp")], "is a link, which is not allowed there"),
        ([link("outputs/a", "../../evil"), plain("outputs/a/x")], "is both a folder and something else"),
        ([link("outputs/a", "../../evil"), plain("outputs/a/b/x")], "is both a folder and something else"),
        ([link("outputs/a", "../../evil"), plain("outputs/a", tarfile.DIRTYPE)], "is both a folder and something else"),
        ([link("outputs/a", "../../evil"), plain("outputs/a")], "comes twice"),
        ([plain("outputs/a"), link("outputs/a", "../../evil")], "comes twice"),
        ([plain("outputs/a"), plain("outputs/a")], "comes twice"),
        ([plain("outputs/a"), plain("outputs/a/b")], "is both a folder and something else"),
    ],
)
def test_archives_with_bad_intent(bad: list[tarfile.TarInfo], word: str, home: Home, tmp_path: Path) -> None:
    (tmp_path / "evil").mkdir()
    file = tmp_path / "b.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        name, data = manifest()
        first = tarfile.TarInfo(name)
        first.size = len(data)
        tar.addfile(first, io.BytesIO(data))
        for member in bad:
            tar.addfile(member)
    assert word in refused(file, tmp_path)
    assert not list((tmp_path / "evil").iterdir())


def test_a_backup_without_a_database(tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    file.write_bytes(gzip.compress(tar_of(manifest(), ("token", b"x")).getvalue()))
    assert "contains no database that can be used" in refused(file, tmp_path)
    file.write_bytes(gzip.compress(tar_of(manifest(), ("polylocal.db", b"x" * 5000)).getvalue()))
    assert "contains no database that can be used" in refused(file, tmp_path)
    empty = tmp_path / "empty.db"
    with sqlite3.connect(empty) as db:
        db.execute("create table x (y)")
    db.close()
    file.write_bytes(gzip.compress(tar_of(manifest(), ("polylocal.db", empty.read_bytes())).getvalue()))
    assert "contains no database that can be used" in refused(file, tmp_path)


def test_a_snapshot_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open"):
        snapshots.take(tmp_path / "nosuch.db", tmp_path / "copy.db")
    assert not (tmp_path / "nosuch.db").exists()
