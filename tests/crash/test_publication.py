"""kill -9 during package builds and publications: repositories are complete before and after."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import docker
import pytest
from e2e.packages import READY_MADE, Abf, Source, Target, connect_to, content, deb, recipe
from support import Daemon, eventually, start_daemon, sweep

from polylocal.statuses import Kind
from polylocal.store import Store

pytestmark = pytest.mark.engine

# waits for a file, then copies its package
GATED = recipe(
    'echo begun; until [ -e "$RESULTS_PATH/go" ]; do sleep 0.1; done; rm "$RESULTS_PATH/go";'
    ' cp *.deb "$RESULTS_PATH"; echo done'
)


@dataclass(frozen=True)
class Gate:
    """Makes publications into certain folders wait while the gate is shut. See `gated`."""

    folder: Path

    @property
    def program(self) -> list[str]:
        """The program of a daemon that respects the gate."""
        return [str(Path(__file__).with_name("gated.py")), str(self.folder)]

    def shut(self, where: str) -> None:
        (self.folder / "shut").write_text(where)

    def open(self) -> None:
        """Let waiting publications continue. Their daemon may have been killed."""
        (self.folder / "shut").unlink(missing_ok=True)
        for path in (self.folder / "waiting").iterdir():
            path.unlink()

    def has_waiting(self) -> bool:
        return any((self.folder / "waiting").iterdir())


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    folder = tmp_path_factory.mktemp("gate")
    (folder / "waiting").mkdir()
    return Gate(folder)


@dataclass
class Home:
    """A home folder with one daemon after the other. All tests share it, since a start takes longer than most tests."""

    path: Path
    gate: Gate
    daemon: Daemon | None = None

    def current_daemon(self) -> Daemon:
        """The running daemon, or a new one."""
        if self.daemon is None or self.daemon.process.poll() is not None:
            self.daemon = start_daemon(self.path, program=self.gate.program)
        return self.daemon


@pytest.fixture(scope="module")
def home(engine_address: str, gate: Gate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = Home(tmp_path_factory.mktemp("daemon") / "home", gate)
    yield made
    if made.daemon:
        made.daemon.kill()
        store = Store(made.path / "polylocal.db")
        installation = store.installation()
        store.close()
        sweep(engine_address, installation)


@pytest.fixture
def abf(home: Home, gate: Gate, tmp_path: Path) -> Iterator[Abf]:
    with connect_to(home.current_daemon(), tmp_path / "work") as made:
        yield made
    gate.open()


def switch_to_next_daemon(abf: Abf, home: Home) -> None:
    """Continue with the next daemon."""
    abf.switch_to(home.current_daemon())


def publish_first(abf: Abf, target: Target) -> Source:
    """A project with version 1.0 in the repository."""
    source = abf.source(target)
    abf.push(source, {**READY_MADE, **deb("tool", "1.0")})
    abf.build_and_wait(source, target, 6000, auto_publish=True)
    return source


def check_whole(folder: Path) -> set[str]:
    """Check the metadata of a flat repository, and return its packages with their versions."""
    listed = (folder / "Release").read_text().partition("\nSHA256:\n")[2].splitlines()
    sums = {line.split()[2]: line.split()[:2] for line in takewhile(lambda line: line[0] == " ", listed)}
    assert {"Packages", "Packages.gz"} <= set(sums)
    for name, (digest, size) in sums.items():
        file = (folder / name).read_bytes()
        assert (hashlib.sha256(file).hexdigest(), str(len(file))) == (digest, size), name
    names = set()
    for paragraph in (folder / "Packages").read_text().strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line)
        if fields:
            file = (folder / fields["Filename"]).read_bytes()
            assert hashlib.sha256(file).hexdigest() == fields["SHA256"]
            names.add(f"{fields['Package']} {fields['Version']}")
    assert len(names) == len(list(folder.glob("*.deb")))
    return names


def list_staged(folder: Path) -> set[str]:
    """Entries beside a repository folder that belong neither to it nor to its earlier generations."""
    mine = {folder.name, folder.readlink().name} if folder.is_symlink() else set()
    return {path.name for path in folder.parent.iterdir()} - mine - {f".{folder.name}.left"}


# -- publishing ------------------------------------------------------------------------------------------------------


def test_killed_while_it_publishes(abf: Abf, home: Home, gate: Gate):
    """The packages are staged, the sources not yet: readers see the old state until the next daemon has published."""
    target = abf.target("deb")
    source = publish_first(abf, target)
    packages, sources = abf.folder_of(target), abf.folder_of(target, "SRPMS")
    before = content(packages), content(sources)
    gate.shut("/SRPMS/")
    (source.folder / "tool_1.0_all.deb").unlink()
    abf.push(source, deb("tool", "1.1"))
    build = abf.build(source, target, auto_publish=True)
    eventually(gate.has_waiting, 60)
    assert abf.status(build) == 7000
    abf.daemon.kill()
    assert (content(packages), content(sources)) == before
    assert check_whole(packages) == {"tool 1.0"}
    assert len(list_staged(packages)) == len(list_staged(sources)) == 1

    gate.open()
    switch_to_next_daemon(abf, home)
    assert abf.wait_until_ended(build)["status"] == 6000
    assert check_whole(packages) == {"tool 1.1"}
    assert "Version: 1.1\n" in abf.index(target)
    eventually(lambda: not list_staged(packages) and not list_staged(sources))


def test_killed_while_it_makes_a_container(abf: Abf, home: Home, gate: Gate):
    target = abf.target("deb")
    source = abf.source(target)
    abf.push(source, {**READY_MADE, **deb("tool", "1.0")})
    build = abf.build_and_wait(source, target)["id"]
    gate.shut("/container/")
    abf.do(build, "create_container")
    eventually(gate.has_waiting, 60)
    abf.daemon.kill()
    container = abf.daemon.home / "downloads" / target.platform / "container"
    [unfinished] = [path for path in container.rglob("tool_1.0_all.deb") if "pool" not in path.parts]
    folder = unfinished.parent.with_name("release")
    assert not folder.exists()

    gate.open()
    switch_to_next_daemon(abf, home)
    eventually(lambda: abf.show(build)["container_status"] == 6000, 60)
    assert check_whole(folder) == {"tool 1.0"}
    eventually(lambda: not list_staged(folder))
    assert abf.status(build) == 0


def test_killed_while_a_project_leaves_its_repository(abf: Abf, home: Home, gate: Gate):
    target = abf.target("deb")
    source = publish_first(abf, target)
    gate.shut("/repository/")
    leaving = {"project_id": source.project_id}
    abf.call("DELETE", f"repositories/{target.repository_id}/remove_project", leaving)
    eventually(gate.has_waiting, 60)
    abf.daemon.kill()
    assert check_whole(abf.folder_of(target)) == {"tool 1.0"}

    before = abf.folder_of(target).readlink()
    gate.open()
    switch_to_next_daemon(abf, home)
    eventually(lambda: abf.folder_of(target).readlink() != before, 60)
    assert check_whole(abf.folder_of(target)) == set()
    eventually(lambda: not list_staged(abf.folder_of(target)))


def test_lost_downloads_are_restored(abf: Abf, home: Home):
    """They are created from the file store, so a backup may omit them."""
    target = abf.target("deb")
    source = publish_first(abf, target)
    contained = abf.create_container(abf.build_and_wait(source, target)["id"])
    package = abf.fetch(f"{target.folder()}/tool_1.0_all.deb").content
    abf.daemon.kill()
    shutil.rmtree(abf.daemon.home / "downloads")
    switch_to_next_daemon(abf, home)
    eventually(lambda: abf.index(target), 60)
    assert check_whole(abf.folder_of(target)) == {"tool 1.0"}
    assert abf.fetch(f"{target.folder()}/tool_1.0_all.deb").content == package
    eventually(lambda: abf.show(contained["id"])["container_status"] == 6000, 60)
    path = abf.show(contained["id"])["container_path"]
    assert abf.fetch(f"{path}tool_1.0_all.deb").content == package


# -- building --------------------------------------------------------------------------------------------------------


def begin_build(abf: Abf, target: Target) -> tuple[int, Path]:
    """A build that waits for the file `go`, and its folder."""
    source = abf.source(target)
    abf.push(source, {**GATED, **deb("tool", "1.0")})
    build = abf.build(source, target, auto_publish=True)
    eventually(lambda: "begun\n" in abf.log(build), 60)
    return build, abf.daemon.home / "contexts" / uuid(abf, build)


@contextmanager
def open_store(abf: Abf) -> Iterator[Store]:
    store = Store(abf.daemon.home / "polylocal.db")
    try:
        yield store
    finally:
        store.close()


def uuid(abf: Abf, build: int) -> str:
    with open_store(abf) as store:
        return store.runs.find(Kind.PACKAGE, build).uuid


def containers(engine: docker.DockerClient, folder: Path, *, running: bool = False) -> list[Any]:
    label = f"polylocal.run={Kind.PACKAGE}/{folder.name}"
    return engine.containers.list(all=not running, ignore_removed=True, filters={"label": label})


def test_builds_continue_while_no_daemon_runs(abf: Abf, home: Home, raw_engine: docker.DockerClient):
    """One ends before the next daemon starts, the other afterwards."""
    targets = abf.target("deb"), abf.target("deb")
    (early, early_folder), (late, late_folder) = (begin_build(abf, target) for target in targets)
    abf.daemon.kill()
    (early_folder / "build-0/results/go").touch()
    containers(raw_engine, early_folder)[0].wait(timeout=60)
    switch_to_next_daemon(abf, home)
    assert abf.wait_until_ended(early)["status"] == 6000, abf.log(early)
    assert abf.status(late) == 3000
    (late_folder / "build-0/results/go").touch()
    for build, folder, target in zip((early, late), (early_folder, late_folder), targets, strict=True):
        found = abf.wait_until_ended(build)
        assert found["status"] == 6000, abf.log(build)
        assert abf.log(build) == "begun\ndone\n"
        assert [package["name"] for package in found["packages"]] == ["tool"]
        assert [file["file_name"] for file in found["logs"]] == [f"abfworker::rpm-worker-{build}.log"]
        assert check_whole(abf.folder_of(target)) == {"tool 1.0"}
        eventually(lambda folder=folder: not containers(raw_engine, folder))


def kill_container(abf: Abf, engine: docker.DockerClient, build: int, folder: Path) -> None:
    """Kill the build's container, and wait until the next one waits as well."""
    [container] = containers(engine, folder, running=True)
    container.kill()
    eventually(lambda: abf.log(build).count("begun\n") == 2, 60)


def test_a_build_whose_container_was_killed_is_repeated(abf: Abf, raw_engine: docker.DockerClient):
    target = abf.target("deb")
    build, folder = begin_build(abf, target)
    kill_container(abf, raw_engine, build, folder)
    assert abf.status(build) == 3000
    (folder / "build-1/results/go").touch()
    found = abf.wait_until_ended(build)
    assert found["status"] == 6000, abf.log(build)
    assert [package["name"] for package in found["packages"]] == ["tool"]
    assert check_whole(abf.folder_of(target)) == {"tool 1.0"}
    # pending again between the two attempts
    assert history(abf, build) == ["created", "scheduled", "running", "warning", "scheduled", "running", "succeeded"]


def history(abf: Abf, build: int) -> list[str]:
    with open_store(abf) as store:
        run = store.runs.find(Kind.PACKAGE, build)
        return [entry.status for entry in store.runs.statuses(run, limit=100, offset=0)[1]]


def test_a_build_whose_container_is_killed_twice_has_failed(abf: Abf, raw_engine: docker.DockerClient):
    target = abf.target("deb")
    build, folder = begin_build(abf, target)
    kill_container(abf, raw_engine, build, folder)
    [second] = containers(raw_engine, folder, running=True)
    second.kill()
    found = abf.wait_until_ended(build)
    assert found["status"] == 666
    assert found["packages"] == []
    log = abf.log(build)
    assert log.count("begun\n") == 2
    assert abf.result(build, f"abfworker::rpm-worker-{build}.log") == log
    assert log.splitlines()[-1].startswith("polylocal: engine-lost: ")
    eventually(lambda: not containers(raw_engine, folder))
    abf.do(build, "publish", status=422)
