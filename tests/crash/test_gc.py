"""Garbage collection with the real command, daemon and engine: removes what is unused, and nothing of other owners."""

from __future__ import annotations

import io
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import httpx2
import pytest
from programs import run_polylocal
from support import BUSYBOX, build, eventually, job, list_tree, start_daemon, sweep

from polylocal.client.http import RunReference
from polylocal.engine.plan import BUILD_LABEL, HOME_LABEL, IMAGE_LABEL, RUN_LABEL
from polylocal.store import Store

from .test_kill import containers_of, finished, log_has, look, status, submit

pytestmark = pytest.mark.engine

MIB = 2**20
OTHER = "0123456789abcdef"  # another installation on the same engine
WAIT = "echo begun; until [ -e $POLYAXON_RUN_OUTPUTS_PATH/go ]; do sleep 0.1; done"
Item = dict[str, Any]


class World:
    """A daemon whose engine also contains objects of other owners."""

    def __init__(self, home: Path, raw: docker.DockerClient) -> None:
        self.home = home
        self.raw = raw
        self.daemon = start_daemon(home)
        with closing(Store(home / "polylocal.db")) as store:
            self.installation = store.installation()

    def restart(self) -> None:
        self.daemon.kill()
        self.daemon = start_daemon(self.home)

    def run_cli(self, *arguments: str) -> str:
        """The output of `polylocal …`."""
        environment = {**os.environ, "POLYLOCAL_HOME": str(self.home), "COLUMNS": "400", "NO_COLOR": "1"}
        ended = run_polylocal(*arguments, environment=environment)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def look(self, budget_gib: float | None = None) -> list[Item]:
        """Same as `polylocal gc --dry-run`, without the start of a process."""
        found: list[Item] = look(self.daemon, lambda client: client.disk_usage(budget_gib))["results"]
        return found

    def collect(self, budget_gib: float | None = None) -> list[Item]:
        """Same as `polylocal gc`."""
        found: list[Item] = look(self.daemon, lambda client: client.gc(budget_gib))["results"]
        return found

    def build_image(self, mib: int = 1) -> RunReference:
        """A separate build whose image has `mib` MiB."""
        run = submit(self.daemon, unique_build(mib), "build")
        assert finished(self.daemon, run)["last_status"] == "succeeded"
        return run

    def uuid(self, run: RunReference) -> str:
        found: str = look(self.daemon, lambda client: client.run(run))["uuid"]
        return found

    def image(self, run: RunReference) -> str | None:
        """The id of a build's image, or None."""
        labels = [f"{IMAGE_LABEL}={self.installation}", f"{BUILD_LABEL}={self.uuid(run)}"]
        found = self.image_ids(filters={"label": labels})
        return found[0] if found else None

    def build_of(self, run: RunReference) -> RunReference:
        name: str = look(self.daemon, lambda client: client.run(run))["build_job"]
        owner, project, _, number = name.split(".")
        return RunReference(owner, project, "build", int(number))

    def bookmark(self, run: RunReference, word: str = "bookmark") -> None:
        headers = {"Authorization": f"Token {self.daemon.token}"}
        method = "POST" if word == "bookmark" else "DELETE"
        httpx2.request(method, f"{self.daemon.url}{run.path}/{word}/", headers=headers).raise_for_status()

    def make_image(self, base: str = BUSYBOX, **labels: str) -> str:
        """Build an image without a name and return its id. One step: an engine under load loses images between two."""
        text = " ".join([f"FROM {base}\nLABEL mark={uuid.uuid4().hex}", *(f"{key}={labels[key]}" for key in labels)])
        image, _ = self.raw.images.build(fileobj=io.BytesIO(f"{text}\n".encode()), rm=True)
        found: str = image.id
        return found

    def has(self, image_id: str) -> bool:
        return image_id in self.image_ids(all=True)

    def image_ids(self, **asked: Any) -> list[str]:
        """Ids of images, by the low-level call: `images.list` inspects each image and fails if one was removed."""
        return [image["Id"] for image in self.raw.api.images(**asked)]

    def steps_of(self, image_id: str) -> list[str]:
        try:
            return [step["CreatedBy"] for step in self.raw.api.history(image_id)]
        except docker.errors.NotFound:  # it was removed meanwhile: other tests collect, too
            return []


def unique_build(mib: int) -> dict[str, Any]:
    """A build that shares no layer with another one."""
    marked = f"echo {uuid.uuid4().hex} > /about"
    return build(build_steps=[f"{marked} && dd if=/dev/urandom of=/weights bs=1M count={mib} 2> /dev/null"])


def removable_ids(items: list[Item]) -> list[str]:
    return [item["id"] for item in items if item["goes"]]


@pytest.fixture(scope="module")
def shared(engine_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    raw = docker.DockerClient(base_url=engine_address)
    made = World(tmp_path_factory.mktemp("gc") / "home", raw)
    yield made
    made.daemon.kill()
    raw.close()
    sweep(engine_address, made.installation)


@pytest.fixture
def world(shared: World) -> World:
    """A world without anything to collect, and without automatic collections for ten minutes."""
    shared.collect(0)
    return shared


@pytest.fixture
def others(world: World) -> Iterator[list[str]]:
    """Images and stopped containers of other owners. They must still exist at the end."""
    raw, name = world.raw, f"somebody/else:{uuid.uuid4().hex}"
    images = [
        world.make_image(),
        world.make_image(**{IMAGE_LABEL: OTHER, BUILD_LABEL: uuid.uuid4().hex}),
        world.make_image(**{BUILD_LABEL: uuid.uuid4().hex}),
    ]
    raw.images.get(images[0]).tag(name)
    labels: list[dict[str, str]] = [{}, {HOME_LABEL: OTHER, RUN_LABEL: f"job/{uuid.uuid4().hex}"}]
    containers = [raw.containers.create(BUSYBOX, "true", labels=carried) for carried in labels]
    running = raw.containers.run(name, "sleep 600", detach=True)
    try:
        yield [*images, *(container.id for container in (*containers, running))]
        assert all(world.has(image) for image in images)
        assert name in raw.images.get(images[0]).tags
        assert [container.status for container in map(_again, containers)] == ["created", "created"]
        assert _again(running).status == "running"
    finally:
        for container in (*containers, running):
            container.remove(force=True)
        for image in images:
            raw.images.remove(image, force=True)


def _again(container: Any) -> Any:
    container.reload()
    return container


# -- images ------------------------------------------------------------------------------------------------------


def test_a_dry_run_lists_and_removes_nothing(world: World, others: list[str]) -> None:
    small, large = world.build_image(1), world.build_image(3)
    answer = json.loads(world.run_cli("gc", "--dry-run", "--budget-gib", "0", "--json"))
    found = [item for item in answer["results"] if item["kind"] == "image"]
    assert [item["id"] for item in found] == [world.image(small), world.image(large)]
    assert [round(item["size_bytes"] / MIB) for item in found] == [1, 3]
    assert all(item["goes"] for item in found)
    ended = [look(world.daemon, lambda client, run=run: client.run(run))["finished_at"] for run in (small, large)]
    assert [item["last_used"] for item in found] == ended
    assert not {item["id"] for item in answer["results"]} & set(others)
    assert answer["freed_bytes"] == sum(item["size_bytes"] for item in answer["results"] if item["goes"])
    said = world.run_cli("gc", "--dry-run", "--budget-gib", "0")
    assert re.search(r"would go +image +1\.0 MiB +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +\S+ +least recently used", said), said
    assert re.search(r"^4\.0 MiB would be freed", said, re.MULTILINE), said
    assert [world.has(item["id"]) for item in found] == [True, True]
    assert not {item["id"] for item in found} & set(removable_ids(world.look()))  # the configured budget is far away


def test_only_what_is_listed_is_removed(world: World, others: list[str]) -> None:
    idle, pinned = world.build_image(), world.build_image()
    world.bookmark(pinned)
    running = submit(world.daemon, {**job(WAIT), "build": unique_build(1)["build"]})
    eventually(lambda: log_has(world.daemon, running, b"begun"), 60)
    used = world.build_of(running)
    ids = [world.image(run) for run in (idle, pinned, used)]
    assert None not in ids
    said = world.run_cli("gc", "--budget-gib", "0")
    assert [world.image(run) for run in (idle, pinned, used)] == [None, *ids[1:]]
    assert re.search(r"removed +image +1\.0 MiB ", said), said
    assert re.search(r"stays +image .* pinned: root\.crash\.builds\.\d+, or a run of it, is bookmarked", said), said
    assert re.search(r"stays +image .* is running, or a run that needs it", said), said
    assert not [found for found in others if found in said]
    (Path(look(world.daemon, lambda client: client.run(running))["outputs_path"]) / "go").touch()
    assert finished(world.daemon, running)["last_status"] == "succeeded"
    # neither is in use or pinned any longer
    world.bookmark(pinned, "unbookmark")
    eventually(lambda: not containers_of(world.raw, running, world.daemon))
    assert set(removable_ids(world.collect(0))) == set(ids[1:])
    assert [world.image(run) for run in (pinned, used)] == [None, None]


def test_a_bookmark_of_a_run_keeps_its_image(world: World) -> None:
    run = submit(world.daemon, {**job(), "build": unique_build(1)["build"]})
    finished(world.daemon, run)
    world.bookmark(run)
    eventually(lambda: not containers_of(world.raw, run, world.daemon))
    world.collect(0)
    assert world.image(world.build_of(run))
    world.bookmark(run, "unbookmark")
    world.collect(0)
    assert world.image(world.build_of(run)) is None


def test_the_least_recently_used_are_removed_until_the_rest_fits(world: World) -> None:
    """The last use counts, not the creation. The next daemon knows it, too."""
    config = unique_build(3)
    first = submit(world.daemon, config, "build")
    finished(world.daemon, first)
    second, third = world.build_image(3), world.build_image(3)
    run = submit(world.daemon, {**job(), "build": config["build"]})
    assert finished(world.daemon, run)["last_status"] == "succeeded"
    assert world.build_of(run) == first
    eventually(lambda: not containers_of(world.raw, run, world.daemon))
    ids = [world.image(each) for each in (second, third, first)]
    budget = 7 / 1024
    before = world.look(budget)
    assert [item["id"] for item in before if item["kind"] == "image"] == ids
    assert removable_ids(before) == ids[:1]
    world.restart()
    eventually(lambda: world.look(budget) == before)
    world.run_cli("gc", "--budget-gib", str(budget))
    assert [world.image(each) for each in (second, third, first)] == [None, *ids[1:]]
    assert removable_ids(world.collect(4 / 1024)) == ids[1:2]
    assert [world.image(each) for each in (third, first)] == [None, ids[2]]


def test_the_image_of_a_run_is_made_again(world: World) -> None:
    config = {**job("test -s /weights && echo there"), "build": unique_build(1)["build"]}
    run = submit(world.daemon, config)
    assert finished(world.daemon, run)["last_status"] == "succeeded"
    eventually(lambda: not containers_of(world.raw, run, world.daemon))
    world.collect(0)
    assert world.image(world.build_of(run)) is None
    again = submit(world.daemon, config)
    restarted = RunReference("root", "crash", "job", look(world.daemon, lambda c: c.clone(run, "restart", {}))["id"])
    for each in (again, restarted):
        assert finished(world.daemon, each)["last_status"] == "succeeded"
        assert log_has(world.daemon, each, b"there")
    assert world.image(world.build_of(again))
    assert world.build_of(again) == world.build_of(restarted)


def test_leftovers_of_a_stopped_build_are_removed(world: World, others: list[str]) -> None:
    config = unique_build(1)
    config["build"] = {**config["build"], "build_steps": [*config["build"]["build_steps"], "echo begun; sleep 600"]}
    run = submit(world.daemon, config, "build")
    eventually(lambda: log_has(world.daemon, run, b"begun"), 60)
    look(world.daemon, lambda client: client.stop(run))
    assert finished(world.daemon, run)["last_status"] == "stopped"
    # as left by an engine that was already ending the build: an image on top of a step of the build
    step = next(item["id"] for item in world.look() if item["reason"].startswith("steps of an unfinished build"))
    left = world.make_image(step, **{BUILD_LABEL: world.uuid(run)})
    # as made by a user who copies our labels
    forged = [
        world.make_image(**{IMAGE_LABEL: world.installation, BUILD_LABEL: number})
        for number in (world.uuid(run), uuid.uuid4().hex)
    ]
    try:
        before = {item["id"]: item for item in world.look()}
        assert "left over from root.crash.builds." in before[left]["reason"]
        assert {before[image]["goes"] for image in forged} == {False}
        assert set(removable_ids(world.collect())) & {left, *forged} == {left}
        assert [world.has(image) for image in (left, *forged)] == [False, True, True]
    finally:
        for image in forged:
            world.raw.images.remove(image, force=True)


def test_the_steps_of_a_stopped_build_are_removed(world: World) -> None:
    mark = uuid.uuid4().hex
    config = build(build_steps=[f"echo {mark} > /about", "echo begun; sleep 600"])
    run = submit(world.daemon, config, "build")
    eventually(lambda: log_has(world.daemon, run, b"begun\n"), 60)
    look(world.daemon, lambda client: client.stop(run))
    assert finished(world.daemon, run)["last_status"] == "stopped"

    def left() -> bool:
        world.collect(0)  # the engine takes a while to end the current step
        unnamed = world.image_ids(filters={"dangling": True})
        return any(mark in step for image in unnamed for step in world.steps_of(image))

    eventually(lambda: not left(), 30)


# -- leftovers ---------------------------------------------------------------------------------------------------


def test_leftovers_are_removed_and_files_of_runs_stay(world: World) -> None:
    run = submit(world.daemon, job("echo kept"))
    finished(world.daemon, run)
    kept = world.home / "logs" / "jobs" / f"{world.uuid(run)}.log"
    foreign = uuid.uuid4().hex
    lost = [
        world.home / "contexts" / foreign / "token",
        world.home / "logs" / "jobs" / f"{foreign}.log",
        world.home / "code" / foreign / "file",
        world.home / "code" / "upload-x" / "file",
        world.home / "code" / "commit-y" / "file",
    ]
    fresh = world.home / "code" / "upload-fresh" / "file"
    for path in (*lost, fresh):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(8192))
    hours_ago = time.time() - 2 * 3600
    for path in lost:
        for each in (path, path.parent) if path.parent.name != "jobs" else (path,):
            os.utime(each, (hours_ago, hours_ago))
    for path in (kept, fresh):
        os.utime(path, (hours_ago, hours_ago))
    found = {item["id"]: item for item in world.look() if item["kind"] in ("log", "folder")}
    names = {str((path if path.parent.name == "jobs" else path.parent).relative_to(world.home)) for path in lost}
    assert {name for name, item in found.items() if item["goes"]} == names
    assert all(found[name]["size_bytes"] >= 8192 and found[name]["reason"] for name in names)
    assert all(path.exists() for path in lost)
    assert set(removable_ids(world.collect())) == names
    assert not any(path.exists() or (path.parent.exists() and path.parent.name != "jobs") for path in lost)
    assert fresh.exists()
    assert log_has(world.daemon, run, b"kept")


# -- removal of unwanted objects ---------------------------------------------------------------------------------


def files_of(world: World, *uuids: str) -> list[Path]:
    return [path for path in list_tree(world.home) if any(each in path.name for each in uuids)]


def freed_mib(said: str) -> float:
    amount = re.search(r"deleted; ([\d.]+) MiB freed", said)
    assert amount, said
    return float(amount[1])


def test_removed_runs_free_the_reported_space(world: World) -> None:
    script = "dd if=/dev/urandom of=$POLYAXON_RUN_OUTPUTS_PATH/model bs=1M count=2 2> /dev/null; echo done"
    run = submit(world.daemon, {**job(script), "build": unique_build(3)["build"]})
    assert finished(world.daemon, run)["last_status"] == "succeeded"
    made = world.build_of(run)
    uuids, image = [world.uuid(run), world.uuid(made)], world.image(made)
    outputs = Path(look(world.daemon, lambda client: client.run(run))["outputs_path"])
    eventually(lambda: not containers_of(world.raw, run, world.daemon))
    said = world.run_cli("rm", f"job/{run.id}", f"build/{made.id}").splitlines()
    assert [line.partition(" ")[0] for line in said] == [f"job/{run.id}", f"build/{made.id}"]
    assert [round(freed_mib(line)) for line in said] == [2, 3]
    eventually(lambda: not outputs.exists())
    eventually(lambda: not files_of(world, *uuids))
    eventually(lambda: image is not None and not world.has(image))


def test_a_removed_running_run_frees_its_space(world: World) -> None:
    script = f"dd if=/dev/urandom of=$POLYAXON_RUN_OUTPUTS_PATH/model bs=1M count=2 2> /dev/null; {WAIT}"
    run = submit(world.daemon, job(f"trap 'exit 1' TERM; {script}"))
    eventually(lambda: log_has(world.daemon, run, b"begun"), 60)
    outputs, number = Path(look(world.daemon, lambda client: client.run(run))["outputs_path"]), world.uuid(run)
    label = {"label": f"{RUN_LABEL}=job/{number}"}
    assert world.raw.containers.list(filters=label)
    assert round(freed_mib(world.run_cli("rm", f"job/{run.id}"))) == 2
    eventually(lambda: not outputs.exists())
    eventually(lambda: not files_of(world, number))
    assert not world.raw.containers.list(all=True, ignore_removed=True, filters=label)


def test_a_removed_project_leaves_nothing(world: World, others: list[str], tmp_path: Path) -> None:
    (tmp_path / "code.py").write_bytes(os.urandom(MIB))
    world.run_cli("project", "create", "passing")
    world.run_cli("upload", str(tmp_path), "-p", "passing")
    project: dict[str, Any] = look(world.daemon, lambda client: client.project("root", "passing"))
    script = "dd if=/dev/urandom of=$POLYAXON_RUN_OUTPUTS_PATH/model bs=1M count=2 2> /dev/null"
    config = {**job(script), "build": unique_build(3)["build"]}
    made = look(world.daemon, lambda client: client.create_run("root", "passing", "job", {"config": config}))
    run = RunReference("root", "passing", "job", made["id"])
    assert finished(world.daemon, run)["last_status"] == "succeeded"
    its_build = world.build_of(run)
    image, uuids = world.image(its_build), [project["uuid"], world.uuid(run), world.uuid(its_build)]
    assert image
    assert files_of(world, *uuids)
    eventually(lambda: not containers_of(world.raw, run, world.daemon))
    # outputs, image and code; the code's history may contain it again
    assert 6 <= freed_mib(world.run_cli("project", "rm", "passing", "--yes")) < 8
    eventually(lambda: not world.has(image))
    eventually(lambda: not files_of(world, *uuids))
    eventually(lambda: not (world.home / "outputs" / "root" / "passing").exists())


# -- figures -----------------------------------------------------------------------------------------------------


def figures(world: World) -> dict[str, float]:
    """Parse /metrics as a scraper does."""
    headers = {"Authorization": f"Token {world.daemon.token}"}
    text = httpx2.get(f"{world.daemon.url}/metrics", headers=headers).raise_for_status().text
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def test_the_figures_of_a_daemon_that_has_worked(world: World) -> None:
    hits, misses = "polylocal_build_cache_hits_total", "polylocal_build_cache_misses_total"
    world.restart()  # earlier counts survive a restart
    before = figures(world)
    config = {**job(), "build": unique_build(1)["build"]}
    runs = [submit(world.daemon, config) for _ in range(3)]
    for run in runs:
        assert finished(world.daemon, run)["last_status"] == "succeeded"
    eventually(lambda: figures(world)[hits] + figures(world)[misses] == before[hits] + before[misses] + 3)
    after = figures(world)
    assert (after[hits] - before[hits], after[misses] - before[misses]) == (2, 1)
    assert (after["polylocal_engine_up"], after["polylocal_disk_full"]) == (1, 0)
    assert after["polylocal_disk_free_bytes"] > 0
    calls = {found[1] for name in after if (found := re.search(r'polylocal_engine_seconds_count\{call="(.*)"\}', name))}
    assert {"POST containers/start", "POST build"} <= calls
    assert not [call for call in calls if re.search(r"[0-9a-f]{12}|busybox|crash|/v\d|\?|%", call)], calls
    ids = [world.uuid(run) for run in runs]
    assert not [name for name in after if any(each in name for each in ids)]
    assert status(world.daemon, runs[0]) == "succeeded"
