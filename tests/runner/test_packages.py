"""Package builds on the fake engine: their container, their results and their end."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import stat
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, ItemsView, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pytest
from fake_engine import FakeContainer, FakeEngine
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from packages_support import Ground, dsc, make_tar, package, sdist, sha1, store_wheel, wheel
from support import eventually, fill, small_disk

from polylocal.api.abf import build_list_creation
from polylocal.engine import termination
from polylocal.engine.plan import ContainerPlan, Limits
from polylocal.errors import EngineError
from polylocal.files import folders
from polylocal.packages import repositories
from polylocal.packages.file_store import FileStore, Staged
from polylocal.packages.repositories import FolderContent
from polylocal.runner import package_results
from polylocal.runner.container_operation import ContainerOperation
from polylocal.runner.execution import Execution
from polylocal.runner.package_container import MEDIA_LIST, OBJECTS, PROJECT, RESULTS
from polylocal.runner.removal import remove
from polylocal.runner.work import execution_of
from polylocal.store import Store
from polylocal.store.rows import BuildList, NewFile

from . import test_crash_rules as crash_rules
from .conftest import Rig, Supervise

Product = Callable[[ContainerPlan], None]
APT = PurePosixPath("/etc/apt/sources.list.d/abf.list")
YUM = PurePosixPath("/etc/yum.repos.d/abf.repo")


def host(plan: ContainerPlan, target: PurePosixPath) -> Path:
    """The path on this machine of a path in a container."""
    return next(mount.source for mount in plan.mounts if mount.target == target)


class Workshop(FakeEngine):
    """A fake engine whose programs create files: `make NAME` calls the product of that name."""

    def __init__(self) -> None:
        super().__init__()
        self.products: dict[str, Product] = {}
        self.plans: list[ContainerPlan] = []
        self.refusals: list[str] = []  # said to the next who want a container made

    def create(self, plan: ContainerPlan) -> str:
        if self.refusals:
            raise EngineError(self.refusals.pop(0))
        self.plans.append(plan)
        return super().create(plan)

    def leaves(self, name: str, content: bytes | str = b"x") -> str:
        """A command that leaves a file among the results."""

        def leave(plan: ContainerPlan) -> None:
            path = host(plan, RESULTS) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

        return self.does(leave)

    def does(self, product: Product) -> str:
        name = f"product{len(self.products)}"
        self.products[name] = product
        return f"make {name}"

    def _step(self, container: FakeContainer, word: str) -> int | None:
        word = word.removeprefix(f"cd {PROJECT} && {{").removesuffix("}").strip()
        if word.startswith("make "):
            self.products[word.removeprefix("make ")](container.plan)
            return None
        return super()._step(container, word)


class Yard:
    """A rig with a platform to build for."""

    def __init__(self, rig: Rig, kind: str = "pypi", **values: Any) -> None:
        self.rig = rig
        self.engine = rig.engine = Workshop()
        self.commit = rig.upload({"setup.py": "x", "folder/inner.txt": "y"})
        self.ground = Ground.of(rig.store, rig.user, rig.project, kind, **values)

    def queue(self, *steps: str, **values: Any) -> BuildList:
        return self.ground.queue("; ".join(steps) or "true", **{"commit_hash": self.commit, **values})

    def build(self, *steps: str, **values: Any) -> BuildList:
        return self.go(self.queue(*steps, **values))

    def go(self, made: BuildList) -> BuildList:
        assert execution_of(self.ground.run(made), self.rig.context())()
        return self.ground.again(made)

    def in_thread(self, made: BuildList) -> tuple[Execution, threading.Thread]:
        build = execution_of(self.ground.run(made), self.rig.context())
        thread = threading.Thread(target=build)
        thread.start()
        return build, thread

    def packages(self, made: BuildList) -> list[tuple[str, str, str]]:
        found = self.rig.store.build_lists.packages([made.run_pk])
        return [(package.file_name, package.type, package.version) for package in found]

    def results(self, made: BuildList) -> list[str]:
        return [result.file_name for result in self.rig.store.build_lists.results(made)]

    def kept(self, made: BuildList, name: str) -> bytes:
        lists = self.rig.store.build_lists
        files = {file.file_name: file.sha1 for file in (*lists.results(made), *lists.packages([made.run_pk]))}
        path = self.rig.context().file_store.path(files[name])
        assert path
        return path.read_bytes()

    def log(self, made: BuildList) -> str:
        return self.rig.log(self.ground.run(made)).decode()

    def log_path(self, made: BuildList) -> Path:
        return self.rig.log_path(self.ground.run(made))

    def message(self, made: BuildList) -> str:
        return self.rig.message(self.ground.run(made)) or ""

    def work(self, made: BuildList) -> Path:
        return self.rig.settings.folders.handover(made.uuid)


@pytest.fixture
def yard(rig: Rig) -> Yard:
    return Yard(rig)


def main_log(made: BuildList) -> str:
    return f"abfworker::rpm-worker-{made.id}.log"


# -- how it goes -----------------------------------------------------------------------------------------------------


def test_a_build_leaves_its_packages_and_its_log(yard: Yard) -> None:
    steps = [
        "echo building",
        yard.engine.leaves("a-1-py3-none-any.whl", wheel("a", "1")),
        yard.engine.leaves("notes.txt"),
    ]
    made = yard.build(*steps)
    assert made.status == 0
    assert yard.rig.history(yard.ground.run(made)) == ["created", "scheduled", "running", "succeeded"]
    assert yard.packages(made) == [("a-1-py3-none-any.whl", "binary", "1")]
    assert yard.results(made) == [main_log(made), "notes.txt"]
    assert yard.kept(made, main_log(made)) == b"building\n"
    assert yard.kept(made, "a-1-py3-none-any.whl") == wheel("a", "1")
    assert not yard.engine.made
    assert not yard.work(made).exists()


@pytest.mark.parametrize(
    ("code", "status", "keeps"),
    [(0, 0, True), (5, 11000, True), (6, 15000, False), (1, 666, False), (127, 666, False), (255, 666, False)],
)
def test_the_exit_code_is_the_outcome(yard: Yard, code: int, status: int, keeps: bool) -> None:
    made = yard.build("echo said", yard.engine.leaves("a-1.whl", wheel("a", "1")), f"exit {code}")
    assert made.status == status
    assert yard.ground.run(made).exit_code == code
    assert bool(yard.packages(made)) is keeps
    assert yard.results(made) == [main_log(made), *([] if keeps else ["a-1.whl"])]


def test_a_broken_package_fails_its_build_and_is_named(yard: Yard) -> None:
    made = yard.build(yard.engine.leaves("a-1.whl", b"no wheel"))
    assert made.status == 666
    assert "a-1.whl" in yard.message(made)
    assert "a-1.whl" in yard.log(made)
    assert yard.packages(made) == []
    assert yard.results(made) == [main_log(made), "a-1.whl"]


def test_the_same_results_are_kept_once(yard: Yard) -> None:
    first, second = (yard.build(yard.engine.leaves("a-1.whl", wheel("a", "1"))) for _ in range(2))
    assert yard.packages(first) == yard.packages(second)
    held = [path.name for path in yard.rig.settings.folders.files.iterdir()]
    assert sha1(wheel("a", "1")) in held
    assert len(held) == 2  # and the log, which is empty both times


# -- the container ---------------------------------------------------------------------------------------------------


def test_the_container_gets_what_the_documents_promise(yard: Yard) -> None:
    made = yard.build("true", extra_params={"mock": "x", "B_2": 3}, use_extra_tests=False, save_buildroot=True)
    plan = yard.engine.plans[0]
    assert plan.name == f"plx-package-{made.uuid}"
    assert plan.image == "base"
    assert plan.command == ["/bin/sh", "-c", "cd /home/vagrant/project && {\ntrue\n}"]
    assert plan.entrypoint == termination.entrypoint("/bin/sh")
    assert plan.labels == {"polylocal.home": "home", "polylocal.run": f"package/{made.uuid}"}
    assert plan.network == "none"
    assert not plan.new_privileges
    assert dict(plan.env) == {
        "PACKAGE": "quick-start",
        "GIT_PROJECT_ADDRESS": f"http://127.0.0.1:{yard.rig.settings.port}/root/quick-start.git",
        "COMMIT_HASH": yard.commit,
        "PROJECT_VERSION": "master",
        "USE_EXTRA_TESTS": "false",
        "SAVE_BUILDROOT": "true",
        "PLATFORM_NAME": "cocos",
        "PLATFORM_ARCH": "x86_64",
        "FILE_STORE_ADDR": f"http://127.0.0.1:{yard.rig.settings.port}/api/v1/file_stores",
        "UNAME": "root",
        "EMAIL": "root@polylocal",
        "BUILD_LIST_ID": str(made.id),
        "RESULTS_PATH": "/home/vagrant/results",
        "EXTRA_MOCK": "x",
        "EXTRA_B_2": "3",
    }
    assert plan.limits == Limits(pids=yard.rig.settings.pids_limit)
    assert {(mount.target, mount.read_only) for mount in plan.mounts} == {
        (PROJECT, False),
        (RESULTS, False),
        (MEDIA_LIST, True),
        (OBJECTS, True),
    }


def test_no_extra_variable_takes_the_place_of_another(yard: Yard) -> None:
    yard.build(extra_params={"PACKAGE": "x"})
    assert yard.engine.plans[0].env["PACKAGE"] == "quick-start"
    assert yard.engine.plans[0].env["EXTRA_PACKAGE"] == "x"


def test_a_platform_with_a_network_gives_it_and_the_real_address(rig: Rig) -> None:
    yard = Yard(rig, build_network=True)
    yard.build()
    plan = yard.engine.plans[0]
    assert plan.network == rig.settings.network
    assert plan.env["GIT_PROJECT_ADDRESS"] == "http://api:1/root/quick-start.git"
    assert plan.env["FILE_STORE_ADDR"] == "http://api:1/api/v1/file_stores"


def test_the_limits_are_those_of_the_settings(yard: Yard) -> None:
    bounded = yard.rig.settings.model_copy(update={"package_cpus": 1.5, "package_memory_mib": 256})
    yard.build(resources=build_list_creation._resources(bounded))
    assert yard.engine.plans[0].limits == Limits(cpus=1.5, memory_mib=256, pids=yard.rig.settings.pids_limit)
    assert build_list_creation._resources(yard.rig.settings) is None


def test_another_architecture_is_said_to_the_engine(yard: Yard) -> None:
    arch = yard.rig.store.platforms.arches(["s390x"])[0]
    yard.build(arch_id=arch.id)
    assert yard.engine.plans[0].platform == "linux/s390x"
    assert yard.engine.plans[0].env["PLATFORM_ARCH"] == "s390x"


def test_the_code_has_the_modes_that_git_gives_it_whatever_the_umask_is(yard: Yard) -> None:
    """Packages are made of these files, and rules copy them as they are."""
    content = b"a source that git has not"
    kept = yard.rig.context().file_store.save(io.BytesIO(content))
    yard.rig.store.files.add(kept.sha1, "big.tar.xz", kept.size, yard.ground.user)
    files = {".abf.yml": f"sources:\n  big.tar.xz: {kept.sha1}\n", "folder/run": "x", "folder/a.txt": "y"}
    commit = yard.rig.upload(files, executable=["folder/run"])
    seen: dict[str, int] = {}

    def look(plan: ContainerPlan) -> None:
        top = host(plan, PROJECT)
        for path in (top, *top.rglob("[!.]*")):
            if ".git" not in path.parts:
                seen[path.name] = stat.S_IMODE(path.stat().st_mode)

    before = os.umask(0o077)
    try:
        assert yard.build(yard.engine.does(look), commit_hash=commit).status == 0
    finally:
        os.umask(before)
    assert seen == {"project": 0o755, "folder": 0o755, "run": 0o755, "a.txt": 0o644, "big.tar.xz": 0o644}


def test_git_works_in_the_code_by_the_objects_of_the_project(yard: Yard) -> None:
    objects = yard.rig.repository.objects
    seen: list[str] = []

    def look(plan: ContainerPlan) -> None:
        assert host(plan, OBJECTS) == objects
        made = host(plan, PROJECT) / ".git"
        seen.extend(((made / "HEAD").read_text(), (made / "objects/info/alternates").read_text()))

    assert yard.build(yard.engine.does(look)).status == 0
    assert seen == [f"{yard.commit}\n", f"{OBJECTS}\n"]


@pytest.mark.parametrize(("user", "has_git"), [("1234", False), ("", True)])
def test_a_user_who_can_not_read_the_objects_has_no_git_in_the_code(yard: Yard, user: str, has_git: bool) -> None:
    yard.engine.users[yard.engine.local["base"]] = user
    yard.rig.repository.objects.chmod(0o700)  # of a daemon with such a umask
    seen: list[bool] = []
    look = yard.engine.does(lambda plan: seen.append((host(plan, PROJECT) / ".git").exists()))
    made = yard.build(look)
    assert (made.status, seen) == (0, [has_git])
    assert ("the code has no .git" in yard.log(made)) is not has_git
    assert (OBJECTS in {mount.target for mount in yard.engine.plans[0].mounts}) is has_git


def test_variables_of_the_build_reach_it_and_take_the_place_of_none(yard: Yard) -> None:
    yard.build(env_vars={"SETUPTOOLS_SCM_PRETEND_VERSION": "1.2", "PACKAGE": "x"})
    assert yard.engine.plans[0].env["SETUPTOOLS_SCM_PRETEND_VERSION"] == "1.2"
    assert yard.engine.plans[0].env["PACKAGE"] == "quick-start"


@pytest.mark.parametrize(
    ("user", "uid", "owner"),
    [
        ("app", 0, "app:"),  # its group at a login
        ("1234", 0, "1234"),
        ("1234:55", 1000, "1234:55"),
        ("app:staff", 1000, "app:staff"),
        ("", 1000, "0:0"),  # git does not work in code of another user
        ("root", 1000, "root:"),
    ],
)
def test_the_code_belongs_to_the_user_of_the_image(yard: Yard, user: str, uid: int, owner: str) -> None:
    yard.engine.users[yard.engine.local["base"]] = user
    opened: list[list[str]] = []
    look = yard.engine.does(lambda plan: opened.append(next(iter(yard.engine.made.values())).open_folders))
    made = yard.queue(look)
    assert execution_of(yard.ground.run(made), replace(yard.rig.context(), uid=uid, gid=uid))()
    assert yard.ground.again(made).status == 0
    helper = yard.engine.helpers[0]
    assert helper.command == ["chown", "-hR", owner, "/plx-outputs/0", "/plx-outputs/1"]
    assert [mount.source.name for mount in helper.mounts] == ["project", "results"]
    assert (helper.image, helper.user, helper.network) == ("base", "0", "none")
    assert opened == [[] if user in ("", "root") else ["/home/vagrant"]]  # where dpkg-buildpackage leaves its packages


@pytest.mark.skipif(os.getuid() != 0, reason="only root has files that are root's")
def test_nothing_changes_hands_where_root_builds_for_root(yard: Yard) -> None:
    made = yard.queue(yard.engine.does(lambda plan: None))
    assert execution_of(yard.ground.run(made), replace(yard.rig.context(), uid=0, gid=0))()
    assert yard.engine.helpers == []


@pytest.mark.parametrize("user", ["1234", "odd user", "-hR"])
def test_code_that_could_not_change_hands_is_told_in_the_log_and_built_all_the_same(yard: Yard, user: str) -> None:
    yard.engine.users[yard.engine.local["base"]] = user
    yard.engine.chown_exit_code = 1
    made = yard.build("echo built")
    assert made.status == 0
    why = "chown in the image ended with exit code 1" if user == "1234" else "is neither a name nor a number"
    assert "the code could not be given to the image's user" in yard.log(made)
    assert why in yard.log(made)


def test_a_folder_above_the_code_that_can_not_be_opened_is_told_in_the_log(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(container_id: str, path: PurePosixPath) -> bool:
        raise EngineError("read-only file system")

    yard.engine.users[yard.engine.local["base"]] = "1234"
    monkeypatch.setattr(yard.engine, "open_folder", refuse)
    made = yard.build("echo built")
    assert made.status == 0
    assert "the image's user may not be able to write to /home/vagrant: read-only file system" in yard.log(made)


def test_the_folders_of_a_container_that_never_started_are_reclaimed(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the daemon's user could not remove them."""
    yard.engine.users[yard.engine.local["base"]] = "1234"

    def refuse(container_id: str) -> None:
        raise EngineError("no such runtime")

    monkeypatch.setattr(yard.engine, "start", refuse)
    made = yard.queue("true")
    nobody = os.getuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: nobody)
    assert execution_of(yard.ground.run(made), replace(yard.rig.context(), uid=nobody, gid=nobody))()
    assert yard.ground.again(made).status == 666
    commands = [helper.command for helper in yard.engine.helpers]
    assert commands[-1] == ["chown", "-hR", f"{nobody}:{nobody}", "/plx-outputs"]


def test_files_of_the_store_lie_in_the_code(yard: Yard) -> None:
    content = b"a source that git has not"
    kept = yard.rig.context().file_store.save(io.BytesIO(content))
    yard.rig.store.files.add(kept.sha1, "big.tar.xz", kept.size, yard.ground.user)
    said = f"sources:\n  big.tar.xz: {sha1(content)}\n  setup.py: {sha1(content)}\n  lost.tar.xz: {'f' * 40}\n"
    said += f"  docs: {sha1(content)}\n"
    commit = yard.rig.upload({".abf.yml": said, "setup.py": "of git", "docs/index": "of git"})
    seen: dict[str, bytes] = {}

    def look(plan: ContainerPlan) -> None:
        seen.update({path.name: path.read_bytes() for path in host(plan, PROJECT).iterdir() if path.is_file()})
        (host(plan, PROJECT) / "big.tar.xz").write_bytes(b"changed by the build")

    made = yard.build(yard.engine.does(look), commit_hash=commit)
    assert made.status == 0
    assert seen == {".abf.yml": said.encode(), "setup.py": content, "big.tar.xz": content}
    assert f"the file store has no file {'f' * 40}: lost.tar.xz is left out" in yard.log(made)
    assert "docs is a folder of the code" in yard.log(made)
    path = yard.rig.context().file_store.path(sha1(content))
    assert path
    assert path.read_bytes() == content


def test_which_files_lie_in_the_code_is_said_in_git(yard: Yard) -> None:
    """A link to `.abf.yml` counts, a file that replaces it does not."""
    content = b"sources: {}"
    kept = yard.rig.context().file_store.save(io.BytesIO(content))
    yard.rig.store.files.add(kept.sha1, "x", kept.size, yard.ground.user)
    said = f"sources:\n  .abf.yml: {kept.sha1}\n  new: {kept.sha1}\n".encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("ci.yml")
        member.size = len(said)
        tar.addfile(member, io.BytesIO(said))
        member = tarfile.TarInfo(".abf.yml")
        member.type, member.linkname = tarfile.SYMTYPE, "ci.yml"
        tar.addfile(member)
    archive.seek(0)
    commit = yard.rig.repository.upload(archive, "root")
    seen: dict[str, bytes] = {}

    def look(plan: ContainerPlan) -> None:
        project = host(plan, PROJECT)
        seen.update({name: (project / name).read_bytes() for name in (".abf.yml", "new", ".git/info/exclude")})

    assert yard.build(yard.engine.does(look), commit_hash=commit).status == 0
    assert seen == {".abf.yml": content, "new": content, ".git/info/exclude": b"/.abf.yml\n/new\n"}


def test_files_that_only_an_admin_may_read_do_not_come_into_anothers_code(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code names them: an admin who builds it does not pass on the admin's rights."""
    content = b"a file of a hidden project"
    kept, store = yard.rig.context().file_store.save(io.BytesIO(content)), yard.rig.store
    ann = store.users.add("ann")
    with store.projects._database.write() as db:
        db.execute("update projects set user_id = ?", (ann.id,))
    monkeypatch.setattr(store.files, "may_read", lambda found, user: user.is_superuser)
    commit = yard.rig.upload({".abf.yml": f"sources:\n  big.tar.xz: {kept.sha1}\n", "setup.py": "x"})
    seen: list[str] = []
    look = yard.engine.does(lambda plan: seen.extend(path.name for path in host(plan, PROJECT).iterdir()))
    made = yard.build(look, commit_hash=commit)
    assert "setup.py" in seen
    assert "big.tar.xz" not in seen
    assert f"the file store has no file {kept.sha1}: big.tar.xz is left out" in yard.log(made)


# -- what it may install from ----------------------------------------------------------------------------------------


def shelve(yard: Yard, folder: Path, *found: Any) -> None:
    files = {item.file_name: yard.rig.context().file_store.folder / item.sha1 for item in found}
    repositories.write([FolderContent(folder, files, "pypi")])


def of_repository(yard: Yard, sub: str = "release") -> Path:
    downloads = yard.rig.settings.folders.downloads
    return repositories.folder(downloads, "cocos", "cocos", is_personal=False, arch="x86_64", name="main", sub=sub)


def test_repositories_and_containers_are_at_hand_as_they_were_at_the_beginning(yard: Yard) -> None:
    file_store, downloads = yard.rig.context().file_store, yard.rig.settings.folders.downloads
    shelve(yard, of_repository(yard), store_wheel(file_store, "a", "1"))
    shelve(yard, of_repository(yard, "updates"), store_wheel(file_store, "a", "2"))
    other = yard.build()
    alone = repositories.container(downloads, "cocos", other.id, arch="x86_64", name="main")
    shelve(yard, alone, store_wheel(file_store, "b", "1"))
    seen: dict[str, list[str]] = {}
    texts: list[str] = []

    def look(plan: ContainerPlan) -> None:
        shelve(yard, of_repository(yard))  # somebody publishes meanwhile
        for mount in plan.mounts:
            if mount.target.parent.name == "media":
                assert mount.read_only
                seen[mount.target.name] = sorted(path.name for path in mount.source.glob("*.whl"))
        texts.append(host(plan, MEDIA_LIST).read_text())

    assert yard.build(yard.engine.does(look), extra_build_lists=[other.id]).status == 0
    media = {
        "cocos_main_release": ["a-1-py3-none-any.whl"],
        "cocos_main_updates": ["a-2-py3-none-any.whl"],
        f"container_{other.id}": ["b-1-py3-none-any.whl"],
    }
    assert seen == media
    assert texts == ["".join(f"{name} file:///home/vagrant/media/{name}\n" for name in media)]
    paths = " ".join(f"/home/vagrant/media/{name}" for name in media)
    assert yard.engine.plans[-1].env["PIP_FIND_LINKS"] == paths


@pytest.mark.parametrize("kind", ["deb", "dnf", "mdv", "rhel"])
def test_package_managers_are_told_where_to_install_from(rig: Rig, kind: str) -> None:
    yard, texts = Yard(rig, kind), {}
    shelve(yard, of_repository(yard))

    def look(plan: ContainerPlan) -> None:
        texts.update({mount.target: mount.source.read_text() for mount in plan.mounts if mount.source.is_file()})

    assert yard.build(yard.engine.does(look)).status == 0
    path = "/home/vagrant/media/cocos_main_release"
    section = f"[cocos_main_release]\nname=cocos_main_release\nbaseurl=file://{path}\ngpgcheck=0\nenabled=1\n"
    told = {APT: f"deb [trusted=yes] file:{path} ./\n"} if kind == "deb" else {YUM: section}
    assert texts == {MEDIA_LIST: f"cocos_main_release file://{path}\n", **told}
    assert "PIP_FIND_LINKS" not in yard.engine.plans[0].env


@pytest.mark.parametrize("is_used", [False, True])
def test_the_repository_that_it_goes_to_is_at_hand_if_that_is_wanted(yard: Yard, is_used: bool) -> None:
    platforms = yard.rig.store.platforms
    own = platforms.repositories([platforms.by_name("root_personal").id])[0]
    folder = repositories.folder(
        yard.rig.settings.folders.downloads,
        "root_personal",
        "cocos",
        is_personal=True,
        arch="x86_64",
        name="main",
        sub="release",
    )
    shelve(yard, folder)
    yard.build(save_to_repository_id=own.id, use_save_to_repository=is_used)
    names = {mount.target.name for mount in yard.engine.plans[0].mounts}
    assert ("root_personal_main_release" in names) is is_used


# -- what it leaves --------------------------------------------------------------------------------------------------


def told(*entries: Any) -> str:
    return json.dumps(list(entries))


def test_what_a_build_says_itself_counts(yard: Yard) -> None:
    entries = told(
        {"fullname": "a.deb", "name": "a", "epoch": "2", "version": "1.0", "release": 3, "dependent_packages": ["x"]},
        {"fullname": "src/b.src.rpm", "name": "b", "epoch": None, "version": "2"},
        {"fullname": "c.txt"},
        "no entry",
    )
    made = yard.build(
        yard.engine.leaves("a.deb", b"never looked into"),
        yard.engine.leaves("src/b.src.rpm", b"nor this"),
        yard.engine.leaves("c.txt", b"c"),
        yard.engine.leaves("d-1.whl", wheel("d", "1")),
        yard.engine.leaves("container_data.json", entries),
    )
    assert made.status == 0
    found = yard.rig.store.build_lists.packages([made.run_pk])
    assert [(p.file_name, p.name, p.type, p.epoch, p.version, p.release) for p in found] == [
        ("a.deb", "a", "binary", 2, "1.0", "3"),
        ("b.src.rpm", "b", "source", None, "2", ""),
    ]
    assert found[0].dependent_packages == ["x"]
    assert sorted(yard.results(made)[1:]) == ["c.txt", "d-1.whl"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "container_data.json: "),
        ("{}", "it must be a list"),
        ("[" * 100_000, "container_data.json: "),
        (told({"name": "x", "fullname": "gone.deb"}), "`gone.deb` is not among the results"),
        (told({"name": "x", "fullname": "../../etc/passwd"}), "is not among the results"),
        (told({"name": "x", "fullname": "a.txt", "epoch": "many"}), "container_data.json: "),
        (told({"name": "x", "fullname": "a.txt", "epoch": 10**30}), "container_data.json: "),
        (told({"name": "\ud800", "fullname": "a.txt"}), "container_data.json: "),
        (told({"name": "x", "fullname": "\ud800"}), r"`\ud800` is not among the results"),
        (told({"name": "x", "fullname": "y" * 5000}), f"`{'y' * 100}` is not among the results"),
        (told({"name": "x", "fullname": "new\nline"}), r"`new\nline` is not among the results"),
        *(
            (told({"name": name, "fullname": "a.txt", "version": "1"}), "has an invalid package name")
            for name in ("/tmp/x", "../x", "a/b", "a b", ".x", "..", "<b>", " x")
        ),
    ],
)
def test_what_a_build_says_wrongly_of_itself_fails_it_and_is_told(yard: Yard, text: str, why: str) -> None:
    made = yard.build(yard.engine.leaves("a.txt", b"x"), yard.engine.leaves("container_data.json", text))
    assert made.status == 666
    assert yard.packages(made) == []
    assert why in yard.message(made)
    assert why in yard.log(made)


def test_a_source_that_has_no_name_of_a_package_fails_its_build(rig: Rig, tmp_path: Path) -> None:
    yard = Yard(rig, "deb")
    made = yard.build(yard.engine.leaves("x_1.dsc", dsc(str(tmp_path / "outside"), "1")))
    assert made.status == 666
    assert "x_1.dsc has an invalid package name" in yard.message(made)
    assert yard.packages(made) == []


@pytest.mark.parametrize("are_told", [False, True])
def test_two_different_files_of_one_name_fail_their_build(yard: Yard, are_told: bool) -> None:
    """Both have the same path in one folder."""
    entries = [{"name": "a", "version": "1", "fullname": f"{folder}/a-1.whl"} for folder in ("one", "two")]
    steps = [yard.engine.leaves(f"{folder}/a-1.whl", wheel("a", "1", Summary=folder)) for folder in ("one", "two")]
    made = yard.build(*steps, *([yard.engine.leaves("container_data.json", told(*entries))] if are_told else []))
    assert made.status == 666
    assert "the build has left two different files of the name a-1.whl" in yard.message(made)
    assert "two different files of the name a-1.whl" in yard.log(made)
    assert yard.packages(made) == []
    assert yard.results(made) == [main_log(made), "a-1.whl", "a-1.whl"]


@pytest.mark.parametrize("are_told", [False, True])
def test_the_same_file_twice_is_one_package(yard: Yard, are_told: bool) -> None:
    entries = [{"name": "a", "version": "1", "fullname": f"{folder}/a-1.whl"} for folder in ("one", "two")]
    steps = [yard.engine.leaves(f"{folder}/a-1.whl", wheel("a", "1")) for folder in ("one", "two")]
    made = yard.build(*steps, *([yard.engine.leaves("container_data.json", told(*entries))] if are_told else []))
    assert made.status == 0
    assert yard.packages(made) == [("a-1.whl", "binary", "1")]


def test_a_name_that_no_file_can_have_is_a_mistake_in_the_code(yard: Yard) -> None:
    """No file system accepts it: it is left out, and the recipe of the same file reports this."""
    said = f"sources:\n  {'x' * 256}: {sha1(b'')}\n"
    kept = yard.rig.context().file_store.save(io.BytesIO(b""))
    yard.rig.store.files.add(kept.sha1, "empty", kept.size, yard.ground.user)
    commit = yard.rig.upload({".abf.yml": said, "setup.py": "x"})
    made = yard.build(commit_hash=commit)
    assert (made.status, yard.ground.run(made).restarts) == (0, 0)
    assert len(yard.engine.plans) == 1


def test_the_files_of_a_debian_source_belong_to_it(rig: Rig) -> None:
    yard = Yard(rig, "deb")
    text = dsc("hello", "1.0-1", "hello_1.0.orig.tar.gz", "hello_1.0-1.debian.tar.xz", "not-there.asc")
    made = yard.build(
        yard.engine.leaves("hello_1.0-1.dsc", text),
        yard.engine.leaves("hello_1.0.orig.tar.gz", archive()),
        yard.engine.leaves("hello_1.0-1.debian.tar.xz", b"y"),
        yard.engine.leaves("hello.changes", b"z"),
    )
    assert made.status == 0
    assert {name for name, kind, version in yard.packages(made) if (kind, version) == ("source", "1.0")} == {
        "hello_1.0-1.dsc",
        "hello_1.0.orig.tar.gz",
        "hello_1.0-1.debian.tar.xz",
    }
    assert yard.results(made) == [main_log(made), "hello.changes"]


def archive() -> bytes:

    return make_tar({"hello-1.0/hello.c": b"int main;"})


def huge_archive() -> bytes:
    """A small file that unpacks to more bytes than the search for PKG-INFO reads."""
    member = tarfile.TarInfo("data.bin")
    member.size = (1 << 30) + 1
    return gzip.compress(member.tobuf())


@pytest.mark.parametrize("kind", ["deb", "dnf", "rhel", "mdv", "pypi"])
@pytest.mark.parametrize(
    "content", [b"", b"no archive", archive()[:20], huge_archive()], ids=["empty", "no archive", "cut off", "huge"]
)
def test_an_archive_that_is_no_package_fails_nothing(rig: Rig, kind: str, content: bytes) -> None:
    yard = Yard(rig, kind)
    made = yard.build(yard.engine.leaves("logs.tar.gz", content))
    assert (made.status, yard.packages(made)) == (0, [])
    assert "logs.tar.gz" in yard.results(made)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("pypi", name) for name in ("a.deb", "a.udeb", "a.dsc", "a.rpm")),
        *(("deb", name) for name in ("a.whl", "a-1.tar.gz", "a.rpm", "a.src.rpm")),
        *((kind, name) for kind in ("dnf", "rhel", "mdv") for name in ("a.whl", "a-1.tar.gz", "a.deb", "a.dsc")),
    ],
)
def test_a_package_of_another_kind_is_another_file(rig: Rig, kind: str, name: str) -> None:
    """It is not even read: it may be broken."""
    yard = Yard(rig, kind)
    made = yard.build(yard.engine.leaves(name, b"broken"))
    assert (made.status, yard.packages(made)) == (0, [])
    assert yard.results(made) == [main_log(made), name]


def test_a_source_distribution_is_a_package(yard: Yard) -> None:
    made = yard.build(yard.engine.leaves("a-1.tar.gz", sdist("a", "1")), yard.engine.leaves("logs.tar.gz", archive()))
    assert (made.status, yard.packages(made)) == (0, [("a-1.tar.gz", "source", "1")])
    assert yard.results(made) == [main_log(made), "logs.tar.gz"]


def test_an_archive_that_can_not_be_read_is_named_in_the_log(yard: Yard) -> None:
    made = yard.build(yard.engine.leaves("logs.tar.gz", b"no archive"))
    assert "logs.tar.gz is not taken for a package: logs.tar.gz can't be read: " in yard.log(made)


def test_the_upstream_archive_of_a_debian_source_may_be_of_any_size(rig: Rig) -> None:
    yard = Yard(rig, "deb")
    made = yard.build(
        yard.engine.leaves("hello_1.0-1.dsc", dsc("hello", "1.0-1", "hello_1.0.orig.tar.gz")),
        yard.engine.leaves("hello_1.0.orig.tar.gz", huge_archive()),
    )
    assert made.status == 0
    assert sorted(name for name, _, _ in yard.packages(made)) == ["hello_1.0-1.dsc", "hello_1.0.orig.tar.gz"]


# -- into the file store ---------------------------------------------------------------------------------------------


def test_results_are_not_copied(yard: Yard) -> None:
    """The file in the store is the one that the build has written."""
    numbers: list[int] = []

    def leave(plan: ContainerPlan) -> None:
        path = host(plan, RESULTS) / "a-1.whl"
        path.write_bytes(wheel("a", "1"))
        path.chmod(0o4600)
        os.utime(path, (0, 0))
        numbers.append(path.stat().st_ino)

    before = time.time()
    made = yard.build(yard.engine.does(leave))
    kept = yard.rig.context().file_store.path(sha1(wheel("a", "1")))
    assert kept
    about = kept.stat()
    assert (made.status, [about.st_ino]) == (0, numbers)
    assert (stat.S_IMODE(about.st_mode), about.st_nlink) == (0o644, 1)
    assert about.st_mtime >= before - 1  # by it downloads are known to have changed
    assert not list(yard.rig.settings.folders.files.glob(".new-*"))


def test_what_a_living_container_may_still_write_is_copied(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a run whose thread failed is recorded while its container may still run."""
    made, numbers = yard.queue(yard.engine.leaves("a.txt", b"a"), "sleep 60"), []

    def fail(operation: ContainerOperation, *_: object) -> None:
        path = yard.work(made) / "build-0" / "results" / "a.txt"
        eventually(lambda: path.exists() and path.read_bytes())
        numbers.append(path.stat().st_ino)
        raise RuntimeError("a bug")

    monkeypatch.setattr(ContainerOperation, "wait", fail)
    made = yard.go(made)
    kept = yard.rig.context().file_store.path(sha1(b"a"))
    assert kept
    assert (made.status, kept.read_bytes()) == (666, b"a")
    assert [kept.stat().st_ino] != numbers


def test_what_a_lost_container_may_still_write_is_copied(yard: Yard) -> None:
    """An engine that does not know a container may be another engine, so its programs may still run."""
    made, numbers = yard.queue(yard.engine.leaves("a.txt", b"a"), "sleep 60"), list[int]()
    _, thread = yard.in_thread(made)
    lost: list[str] = []
    for attempt in range(2):
        path = yard.work(made) / f"build-{attempt}" / "results" / "a.txt"
        eventually(lambda path=path: path.exists() and path.read_bytes())
        numbers.append(path.stat().st_ino)
        lost.append(eventually(lambda: next((key for key in yard.engine.made if key not in lost), None)))
        eventually(lambda: yard.ground.run(made).status == "running")
        yard.engine.lose(lost[-1])
    thread.join(10)
    kept = yard.rig.context().file_store.path(sha1(b"a"))
    assert kept
    assert (yard.ground.again(made).status, kept.read_bytes()) == (666, b"a")
    assert kept.stat().st_ino not in numbers


def test_a_file_of_another_user_is_copied(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that could not be handed over is copied, since its owner could change it later on.

    Without root, the daemon is given another uid instead.
    """
    theirs, ours = (12345, 0) if os.getuid() == 0 else (os.getuid(), os.getuid() + 1)
    monkeypatch.setattr(ContainerOperation, "reclaim_folders", lambda self, container_id: None)
    numbers: list[int] = []

    def leave(plan: ContainerPlan) -> None:
        path = host(plan, RESULTS) / "a.txt"
        path.write_bytes(b"a")
        os.chown(path, theirs, -1)
        numbers.append(path.stat().st_ino)

    made = yard.queue(yard.engine.does(leave))
    assert execution_of(yard.ground.run(made), replace(yard.rig.context(), uid=ours))()
    kept = yard.rig.context().file_store.path(sha1(b"a"))
    assert kept
    assert (yard.ground.again(made).status, kept.stat().st_uid) == (0, os.getuid())
    assert [kept.stat().st_ino] != numbers


@pytest.fixture
def hasty_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polylocal.runner.package_results.MIN_RETRY_S", 0.01)
    monkeypatch.setattr("polylocal.runner.package_results.MAX_RETRY_S", 0.01)


@pytest.fixture
def small_store(yard: Yard) -> Iterator[Path]:
    """A file store on a separate disk with 4 MiB."""
    with small_disk(yard.rig.settings.folders.files, 4) as folder:
        yield folder


def test_results_on_another_file_system_are_copied(yard: Yard, small_store: Path) -> None:
    made = yard.build(yard.engine.leaves("a-1.whl", wheel("a", "1")))
    assert yard.packages(made) == [("a-1.whl", "binary", "1")]
    assert (small_store / sha1(wheel("a", "1"))).read_bytes() == wheel("a", "1")


NO_ROOM = "its results can't be stored: No space left on device"


@pytest.mark.usefixtures("hasty_pauses")
def test_results_without_room_wait_for_it(
    yard: Yard, small_store: Path, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is logged once, and nothing is copied before all results have space."""
    looked: list[int] = []
    free, stage = FileStore.free_bytes, FileStore.stage
    monkeypatch.setattr(FileStore, "free_bytes", lambda self: looked.append(free(self)) or looked[-1])
    staged: list[object] = []
    monkeypatch.setattr(FileStore, "stage", lambda self, content: staged.append(content) or stage(self, content))
    ballast = fill(small_store, 1 << 20)
    leaves = [yard.engine.leaves(f"{number}.bin", os.urandom(1 << 20)) for number in range(2)]
    made = yard.queue(*leaves)
    supervise(lambda: len(looked) > 5)
    assert yard.ground.again(made).status == 3000
    assert (yard.log(made).count(NO_ROOM), staged) == (1, [])
    ballast.unlink()
    supervise(lambda: yard.ground.again(made).status == 0)
    assert yard.results(made) == [main_log(made), "0.bin", "1.bin"]
    assert (len(staged), len(yard.engine.plans)) == (3, 1)


@pytest.mark.usefixtures("hasty_pauses")
def test_results_that_a_quota_refuses_wait_and_are_copied_once(
    yard: Yard, small_store: Path, monkeypatch: pytest.MonkeyPatch, supervise: Supervise
) -> None:
    """The space that a quota leaves is unknown before."""
    stage, staged, refused = FileStore.stage, list[str](), list[int]()
    has_room = threading.Event()

    def limited(self: FileStore, content: BinaryIO) -> Staged:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{content.fileno()}"))
        if name == "b.bin" and not has_room.is_set():
            refused.append(1)
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        staged.append(name)
        return stage(self, content)

    monkeypatch.setattr(FileStore, "stage", limited)
    made = yard.queue(yard.engine.leaves("a.bin", b"a"), yard.engine.leaves("b.bin", b"b"))
    supervise(lambda: len(refused) > 5)
    assert yard.log(made).count("its results can't be stored: Disk quota exceeded") == 1
    has_room.set()
    supervise(lambda: yard.ground.again(made).status == 0)
    assert staged[:2] == ["a.bin", "b.bin"]
    assert yard.results(made) == [main_log(made), "a.bin", "b.bin"]


@pytest.mark.usefixtures("hasty_pauses")
def test_a_build_whose_results_have_no_room_can_be_cancelled(
    yard: Yard, small_store: Path, supervise: Supervise
) -> None:
    made = yard.queue("echo built", yard.engine.leaves("a.bin", bytes(8 << 20)))
    supervise(lambda: NO_ROOM in (yard.log(made) if yard.log_path(made).exists() else ""))
    assert yard.rig.store.build_lists.cancel(made)
    supervise(lambda: yard.ground.again(made).status == 5000)
    supervise(lambda: not yard.engine.made)
    assert (yard.packages(made), yard.results(made)) == ([], [main_log(made)])
    assert NO_ROOM in yard.kept(made, main_log(made)).decode()
    assert not yard.work(made).exists()
    assert not list(small_store.glob(".new-*"))


@pytest.mark.usefixtures("hasty_pauses")
def test_a_cancelled_build_ends_where_even_its_log_has_no_room(
    yard: Yard, small_store: Path, supervise: Supervise
) -> None:
    fill(small_store)
    made = yard.queue("echo built", yard.engine.leaves("a.bin", bytes(8 << 20)))
    supervise(lambda: NO_ROOM in (yard.log(made) if yard.log_path(made).exists() else ""))
    assert yard.rig.store.build_lists.cancel(made)
    supervise(lambda: yard.ground.again(made).status == 5000)
    assert (yard.packages(made), yard.results(made)) == ([], [])


def test_a_huge_file_of_holes_is_no_result(yard: Yard, records: Callable[[], list[str]]) -> None:
    """Its sha1 would take hours."""

    def leave(plan: ContainerPlan) -> None:
        with (host(plan, RESULTS) / "huge.log").open("wb") as file:
            file.truncate(4 << 40)

    made = yard.build(yard.engine.does(leave))
    assert made.status != 0
    assert yard.results(made) == [main_log(made)]
    message = yard.rig.message(yard.rig.store.runs.by_pk(made.run_pk)) or ""
    assert "huge.log is a sparse file of" in message
    assert f"run=package/{made.id} failed: {message}" in records()


@pytest.mark.parametrize(("name", "spelled"), [(b"caf\xe9.log", r"caf\udce9.log"), (b"a\nb\x1b[1m", r"a\nb\x1b[1m")])
def test_a_result_of_any_name_is_told_where_it_fails_its_build(yard: Yard, name: bytes, spelled: str) -> None:
    def leave(plan: ContainerPlan) -> None:
        with (host(plan, RESULTS) / os.fsdecode(name)).open("wb") as file:
            file.truncate(4 << 40)

    made = yard.build("echo built", yard.engine.does(leave))
    assert (made.status, yard.results(made)) == (666, [main_log(made)])
    assert yard.message(made).startswith(f"its results can't be stored: {spelled} is a sparse file of")
    assert yard.kept(made, main_log(made)).startswith(b"built\n")


def test_the_results_are_gone_through_once_whatever_a_build_says_of_them(tmp_path: Path) -> None:
    """Once for each of many entries would keep the daemon busy for hours."""
    times: list[int] = []

    class Results(dict[str, NewFile]):
        def items(self) -> ItemsView[str, NewFile]:
            times.append(1)
            return super().items()

    data = tmp_path / "container_data.json"
    data.write_text(told(*({"name": "x", "fullname": f"{number}.txt"} for number in range(40))))
    results = Results((f"in/{number}.txt", NewFile("a" * 40, f"{number}.txt", 1)) for number in range(40))
    assert len(package_results._declared_packages(results, data)) == 40
    assert times == [1]


def test_a_file_that_its_file_system_has_compressed_is_a_result(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """It uses less space than its size, but has no holes."""
    monkeypatch.setattr("polylocal.files.sparse.holes", lambda about: 2 << 30)
    monkeypatch.setattr("polylocal.runner.package_results.MAX_HOLES", 1)
    made = yard.build(yard.engine.leaves("zeros.log", bytes(1 << 20)))
    assert (made.status, yard.results(made)) == (0, [main_log(made), "zeros.log"])
    assert yard.kept(made, "zeros.log") == bytes(1 << 20)


@pytest.mark.slow
def test_results_that_can_not_be_looked_through_fail_their_build(yard: Yard) -> None:
    """Otherwise unseen packages would silently not be published."""

    def leave(plan: ContainerPlan) -> None:
        (host(plan, RESULTS) / "a-1.whl").write_bytes(wheel("a", "1"))
        host(plan, RESULTS).joinpath(*["d"] * (folders.MAX_DEPTH + 2)).mkdir(parents=True)

    made = yard.build(yard.engine.does(leave))
    assert (made.status, yard.packages(made), yard.results(made)) == (666, [], [main_log(made)])
    assert yard.message(made).startswith("its results can't be stored: d/d/d/d")
    assert not yard.work(made).exists()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO], ids=["descriptors", "disk"])
@pytest.mark.usefixtures("hasty_pauses")
def test_results_are_looked_through_again_after_what_passes(
    yard: Yard, code: int, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []
    open_folder = folders._open_folder

    def limited(folder: Path, parts: Sequence[str]) -> int:
        if list(parts) == ["inner"] and folder.name == "results" and len(refused) < 2:
            refused.append(folder.name)
            raise OSError(code, os.strerror(code))
        return open_folder(folder, parts)

    made = yard.queue(yard.engine.leaves("inner/a-1.whl", wheel("a", "1")))
    monkeypatch.setattr("polylocal.files.folders._open_folder", limited)
    monkeypatch.setattr("polylocal.runner.supervisor.RETRY_S", 0.01)
    supervise(lambda: yard.ground.again(made).status == 0)
    assert (yard.packages(made), len(refused)) == ([("a-1.whl", "binary", "1")], 2)


def test_a_result_with_many_names_is_read_once(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    stage, link = FileStore.stage, FileStore.link
    monkeypatch.setattr(FileStore, "stage", lambda self, content: read.append(content) or stage(self, content))
    monkeypatch.setattr(FileStore, "link", lambda self, entry, file: read.append(file) or link(self, entry, file))

    def leave(plan: ContainerPlan) -> None:
        (host(plan, RESULTS) / "a.log").write_text("a")
        for n in range(20):
            os.link(host(plan, RESULTS) / "a.log", host(plan, RESULTS) / f"{n}.log")

    made = yard.build(yard.engine.does(leave))
    assert made.status == 0
    assert len(yard.results(made)) == 22
    assert len(read) == 2


def test_links_and_pipes_among_the_results_lead_nowhere(yard: Yard, tmp_path: Path) -> None:
    secret = tmp_path / "secret.whl"
    secret.write_bytes(wheel("secret", "1"))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "hidden.txt").write_text("hidden")

    def leave(plan: ContainerPlan) -> None:
        results = host(plan, RESULTS)
        (results / "a-1.whl").symlink_to(secret)
        (results / "container_data.json").symlink_to(secret)
        (results / "there").symlink_to(folder)
        (results / "round").symlink_to(".")
        (results / "nowhere").symlink_to("/nosuch")
        os.mkfifo(results / "pipe.log")
        (results / "deep" / "er").mkdir(parents=True)
        (results / "deep" / "er" / "b-1.whl").write_bytes(wheel("b", "1"))
        (results / "empty").mkdir()

    made = yard.build(yard.engine.does(leave))
    assert made.status == 0
    assert yard.packages(made) == [("b-1.whl", "binary", "1")]
    assert yard.results(made) == [main_log(made)]
    assert not yard.work(made).exists()


@pytest.mark.parametrize("name", [b"caf\xe9.log", b"\xff\xfe", b"new\nline.log"])
def test_a_result_may_have_any_name(yard: Yard, name: bytes) -> None:
    def leave(plan: ContainerPlan) -> None:
        (host(plan, RESULTS) / os.fsdecode(name)).write_bytes(b"x")

    made = yard.build(yard.engine.does(leave))
    assert made.status == 0
    assert len(yard.results(made)) == 2


def test_what_a_deleted_build_left_is_forgotten(yard: Yard) -> None:
    rig = yard.rig
    first = yard.build(yard.engine.leaves("a-1.whl", wheel("a", "1")), yard.engine.leaves("own.txt", b"own"))
    second = yard.build(yard.engine.leaves("a-1.whl", wheel("a", "1")))
    for made in (first, second):
        alone = repositories.container(rig.settings.folders.downloads, "cocos", made.id, arch="x86_64", name="main")
        shelve(yard, alone)
    run = yard.ground.run(first)
    rig.store.runs.delete(run)
    remove(rig.store.runs.by_pk(run.pk), rig.context())
    file_store, downloads = rig.context().file_store, rig.settings.folders.downloads
    assert file_store.path(sha1(b"own")) is None
    assert file_store.path(sha1(wheel("a", "1")))
    assert [path.name for path in downloads.glob("*/container/*")] == [str(second.id)]


# -- trouble ---------------------------------------------------------------------------------------------------------


def test_a_lost_container_has_one_more_try_and_no_third(yard: Yard) -> None:
    made = yard.queue("echo begun", "sleep 60")
    _, thread = yard.in_thread(made)
    first = eventually(lambda: next(iter(yard.engine.made), None))
    eventually(lambda: yard.ground.again(made).status == 3000)
    yard.engine.lose(first)
    second = eventually(lambda: next((key for key in yard.engine.made if key != first), None))
    eventually(lambda: yard.ground.run(made).status == "running")
    assert yard.ground.again(made).status == 3000
    assert yard.ground.run(made).restarts == 1
    yard.engine.lose(second)
    thread.join(10)
    found = yard.ground.again(made)
    assert found.status == 666
    assert yard.message(made).startswith("engine-lost")
    names = [plan.name for plan in yard.engine.plans]
    assert names == [f"plx-package-{made.uuid}", f"plx-package-{made.uuid}-1"]
    assert yard.results(made) == [main_log(made)]


@pytest.mark.parametrize("refusals", [1, 2])
def test_a_container_that_can_not_be_made_has_one_more_try(yard: Yard, refusals: int) -> None:
    yard.engine.refusals = ["no room for it"] * refusals
    made = yard.build("echo built")
    assert made.status == (0 if refusals == 1 else 666)
    assert "its container could not be started: no room for it; trying again" in yard.log(made)
    assert yard.ground.run(made).restarts == 1
    assert (yard.message(made) == "Could not start: no room for it") is (refusals == 2)
    assert not yard.engine.made


@pytest.mark.parametrize("refusals", [1, 2])
def test_a_container_that_can_not_be_started_has_one_more_try(
    yard: Yard, refusals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, start = [refusals], yard.engine.start

    def refuse(container_id: str) -> None:
        if left[0]:
            left[0] -= 1
            raise EngineError("no such runtime")
        start(container_id)

    monkeypatch.setattr(yard.engine, "start", refuse)
    made = yard.build("echo built")
    assert made.status == (0 if refusals == 1 else 666)
    assert yard.rig.history(yard.ground.run(made)).count("warning") == 1
    assert not yard.engine.made


def test_a_command_that_fails_has_no_further_try(yard: Yard) -> None:
    made = yard.build("echo tried", "exit 1")
    assert made.status == 666
    assert yard.log(made).count("tried") == 1
    assert len(yard.engine.plans) == 1


def test_an_image_that_can_not_be_had_is_said(yard: Yard) -> None:
    yard.ground.image = "nosuch"
    made = yard.build()
    assert made.status == 666
    assert "nosuch is not on this machine and could not be pulled" in yard.message(made)
    assert "nosuch is not on this machine" in yard.kept(made, main_log(made)).decode()


def test_an_image_that_lacks_tools_is_told_at_the_start(yard: Yard) -> None:
    yard.engine.remote.add("python:3.11-slim")
    yard.ground.image = "python:3.11-slim"
    words = "The image python:3.11-slim lacks a compiler, so that only pure Python projects can be built"
    assert yard.log(yard.build("echo built")).splitlines()[0].endswith(f"{words}, unless the build installs it")


def test_a_command_of_the_platform_makes_up_for_its_image(rig: Rig) -> None:
    yard = Yard(rig, build_command="apt-get install gcc")
    yard.engine.remote.add("python:3.11-slim")
    yard.ground.image = "python:3.11-slim"
    assert "lacks" not in yard.log(yard.build("echo built"))


def test_an_image_that_can_be_had_is_pulled(yard: Yard) -> None:
    yard.engine.remote.add("far")
    yard.ground.image = "far"
    assert yard.build().status == 0


def test_canceled_before_it_began(yard: Yard, supervise: Supervise) -> None:
    made = yard.queue("echo never")
    assert yard.rig.store.build_lists.cancel(made)
    assert yard.ground.again(made).status == 10000
    supervise(lambda: yard.ground.again(made).status == 5000)
    assert yard.engine.plans == []


def test_canceled_while_it_runs(yard: Yard, supervise: Supervise) -> None:
    made = yard.queue("echo begun", yard.engine.leaves("a-1.whl", wheel("a", "1")), "sleep 60")
    supervise(
        lambda: yard.ground.run(made).exit_code is None and yard.rig.store.runs.by_pk(made.run_pk).status == "running"
    )
    assert yard.ground.again(made).status == 3000
    assert yard.rig.store.build_lists.cancel(made)
    supervise(lambda: yard.ground.again(made).status == 5000)
    supervise(lambda: not yard.engine.made)
    assert yard.packages(made) == []
    assert yard.results(made)[0] == main_log(made)
    assert not yard.rig.store.build_lists.cancel(made)


def test_canceled_and_yet_complete_is_canceled(yard: Yard) -> None:
    made = yard.queue(yard.engine.does(lambda plan: cancel(yard, made)))
    assert yard.go(made).status == 5000


def cancel(yard: Yard, made: BuildList) -> None:
    assert yard.rig.store.build_lists.cancel(made)


def test_what_takes_too_long_is_canceled(rig: Rig, supervise: Supervise) -> None:
    yard = Yard(rig, time_living=600)
    made = yard.queue("sleep 60")
    supervise(lambda: yard.ground.run(made).status == "running")
    running = supervise.supervisor.executions()[made.run_pk]
    assert running.time_limit_s == 600
    eventually(lambda: running._running_since is not None)
    running._running_since = time.monotonic() - 601
    supervise(lambda: yard.ground.again(made).status == 5000)
    assert "Stopped after 600 s" in yard.message(made)
    assert yard.results(made) == [main_log(made)]


def test_builds_of_packages_take_their_turn_in_the_queue(yard: Yard, supervise: Supervise) -> None:
    made = [yard.queue(yard.engine.leaves("a-1.whl", wheel("a", "1"))) for _ in range(3)]
    supervise(lambda: all(yard.ground.again(found).status == 0 for found in made), max_runs=1)
    assert [plan.env["BUILD_LIST_ID"] for plan in yard.engine.plans] == ["1", "2", "3"]


# -- kill -9 ---------------------------------------------------------------------------------------------------------


class Mortal(crash_rules.Mortal):
    """Knows the parts of the store that package builds use."""

    def __getattr__(self, name: str) -> Any:
        if name in ("runs", "users", "projects", "groups", "build_lists", "platforms"):
            return Mortal(getattr(self._target, name), self._countdown, self._after)
        return super().__getattr__(name)


def until_done(yard: Yard, made: BuildList, deaths: list[tuple[int, bool]]) -> None:
    for number, after in [*deaths, (10**9, False)]:
        if yard.ground.run(made).finished_at:
            break
        countdown = [number]
        engine: Any = Mortal(yard.engine, countdown, after)
        with suppress(crash_rules.Killed):
            execution_of(yard.ground.run(made), yard.rig.context(engine, Mortal(yard.rig.store, countdown, after)))()


@pytest.mark.slow
@pytest.mark.usefixtures("hasty")
@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    code=st.sampled_from([0, 5, 1]),
    refusals=st.integers(0, 1),
    deaths=st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=4),
)
def test_a_package_build_survives_its_daemon(code: int, refusals: int, deaths: list[tuple[int, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        yard = Yard(crash_rules.fresh_rig(folder))
        yard.engine.refusals = ["not now"] * refusals
        steps = ["echo said", yard.engine.leaves("a-1.whl", wheel("a", "1")), f"exit {code}"]
        made = yard.queue(*steps, auto_create_container=True)
        until_done(yard, made, deaths)
        found = yard.ground.again(made)
        assert found.status == {0: 0, 5: 11000, 1: 666}[code]
        assert found.container_status == (4000 if code == 1 else 7000)
        assert yard.packages(made) == ([] if code == 1 else [("a-1.whl", "binary", "1")])
        assert yard.results(made) == [main_log(made), *(["a-1.whl"] if code == 1 else [])]
        assert yard.log(made).count("said") == 1
        assert yard.rig.history(yard.ground.run(made)).count("created") == 1
        assert not [c for c in yard.engine.made.values() if c.status == "running"]
        yard.rig.store.close()


def test_the_store_of_a_build_is_whole(store: Store) -> None:
    """The deletion of a build removes its rows."""
    user = store.users.add("root")
    ground = Ground.of(store, user, store.projects.create(user, {"name": "p"}))
    made = ground.end(ground.queue(), 0, package())
    store.runs.remove(ground.run(made))
    with store.database.read() as db:
        counts = [db.execute(f"select count(*) from {table}").fetchone()[0] for table in ("build_lists", "packages")]
    assert counts == [0, 0]
