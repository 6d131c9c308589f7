"""Random faults during many runs without losses; then each fault separately, with the expected messages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx2
import pytest
from support import eventually

from polylocal.client.http import RunReference
from polylocal.statuses import is_done

from . import chaos
from .chaos import World
from .work import Truth, Work

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("dockerd"), reason="mounts disks and starts an engine of its own: as root"
    ),
]


@pytest.fixture
def world(engine_address: str) -> Iterator[World]:
    """A daemon on a small disk with a separate engine. Only the test itself causes faults."""
    with World(0, engine_address) as made:
        yield made


@pytest.mark.parametrize(
    ("seed", "faults"),
    [
        pytest.param(1, chaos.DAEMON_AND_ENGINE, id="daemon and engine"),
        pytest.param(2, chaos.DISK_AND_DATABASE, id="disk and database"),
    ],
)
def test_nothing_is_lost(engine_address: str, seed: int, faults: Mapping[str, int]) -> None:
    report = chaos.run(seed, faults, 12, engine_address)
    assert "\n".join(report.violations) == ""
    assert report.by_kind == dict(faults)
    assert sum(report.outcomes.values()) >= 12


# -- single faults ----------------------------------------------------------------------------------------------------


def submitted(world: World, *works: Work) -> list[RunReference]:
    for work in works:
        world.caller.submit(work)
    eventually(lambda: all(work.name in world.caller.known for work in works), 30)
    return [world.caller.known[work.name] for work in works]


def status(world: World, run: RunReference) -> str:
    found: str = world.ask(lambda client: client.run(run))["last_status"]
    return found


def begun(world: World, *works: Work) -> None:
    eventually(lambda: all(Truth(world.truths / work.name).starts for work in works), 60)


def violations(world: World) -> str:
    world.settle()
    world.look_at_runs()
    return "\n".join(world.report.violations)


def test_a_full_disk_delays_new_work_and_harms_no_running_work(world: World) -> None:
    works = [Work("w0", "until", 1), *(Work(f"w{n}", "until", 2) for n in range(1, 5))]
    runs = submitted(world, *works)
    begun(world, *works[:4])
    headers = {"Authorization": f"Token {world.daemon.home.token.read_text().strip()}"}
    url = f"{world.daemon.url}/api/v1/{chaos.OWNER}/{chaos.PROJECT}/jobs/"

    def create(body: dict[str, object]) -> httpx2.Response:
        return httpx2.post(url, headers=headers, json=body)

    with chaos.fill_disk(world.home, but_mib=1):
        eventually(lambda: create({"config": "none"}).status_code == 503)  # it has noticed
        refused = create({"config": works[0].config})
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert "disk" in refused.json()["detail"]
        (world.truths / works[0].gate).touch()
        eventually(lambda: status(world, runs[4]) == "unschedulable", 20)
        message = world.ask(lambda client: client.statuses(runs[4]))[-1]["message"]
        assert "disk" in message
        assert not is_done(status(world, runs[1]))
    eventually(lambda: status(world, runs[4]) != "unschedulable", 20)
    (world.truths / works[4].gate).touch()
    world.heal()
    assert "\n".join(world.judge().violations) == ""
    assert world.report.outcomes["job succeeded"] == 5
    assert world.report.gaps == 0


def test_on_a_full_disk_programs_continue_and_everything_can_be_read(world: World) -> None:
    works = [Work("w1", "until", 1), Work("w2", "until", 1)]
    runs = submitted(world, *works)
    begun(world, *works)
    eventually(lambda: [status(world, run) for run in runs] == ["running"] * 2, 30)  # the last records
    truth = Truth(world.truths / "w1")
    with chaos.fill_disk(world.home):
        before = len(truth.output("out")[0])
        eventually(lambda: len(truth.output("out")[0]) > before + 100, 20)
        assert status(world, runs[0]) == "running"
        assert world.ask(lambda client: client.statuses(runs[1]))
    (world.truths / works[0].gate).touch()
    world.heal()
    assert "\n".join(world.judge().violations) == ""
    assert world.report.outcomes["job succeeded"] == 2
    assert world.report.gaps == 0


def test_a_run_that_the_engine_lost_is_started_again_in_a_new_container(world: World) -> None:
    work = Work("w1", "lasting", 60)
    [run] = submitted(world, work)
    begun(world, work)
    first = world.containers()[0]
    first.remove(force=True)
    eventually(lambda: Truth(world.truths / work.name).starts == 2, 60)
    assert world.containers()[0].id != first.id
    world.heal()
    assert violations(world) == ""
    history = world.ask(lambda client: client.statuses(run))
    assert history[-1]["status"] == "succeeded"
    warnings = [entry["message"] for entry in history if entry["status"] == "warning"]
    assert len(warnings) == 1
    assert "restart 1 of 1" in warnings[0]
    with world.daemon.client() as client, client.logs(run) as chunks:
        lines = b"".join(chunks).splitlines()
    assert sum(line.startswith(b"polylocal: ") for line in lines) == 1


def test_a_run_whose_exit_code_was_lost_with_the_engine_is_started_again(world: World) -> None:
    """No daemon runs at that time, so only the engine can tell that 255 is not the code of the program."""
    work = Work("w1", "lasting", 60)
    [run] = submitted(world, work)
    begun(world, work)
    eventually(lambda: status(world, run) == "running", 30)
    world.daemon.kill()
    world.engine.kill_with_containers()
    world.engine.start()
    assert world.containers()[0].attrs["State"]["ExitCode"] == 255
    world.daemon.start()
    eventually(lambda: Truth(world.truths / work.name).starts == 2, 60)
    world.heal()
    assert violations(world) == ""
    history = world.ask(lambda client: client.statuses(run))
    assert history[-1]["status"] == "succeeded"
    [warning] = [entry["message"] for entry in history if entry["status"] == "warning"]
    assert warning.startswith("engine-lost: the engine went away")


def test_a_run_that_a_killed_engine_may_have_started_gets_another_container(world: World) -> None:
    """The engine got the start request and is killed before it answers. It knows nothing of that afterwards."""
    frozen = threading.Event()

    def freeze() -> None:
        if not frozen.is_set():
            world.engine.freeze()
            frozen.set()

    world.proxy.before_start = freeze
    work = Work("w1", "lasting", 5)
    [run] = submitted(world, work)
    assert frozen.wait(60)
    world.engine.kill()
    world.engine.start()
    world.heal()
    assert violations(world) == ""
    history = world.ask(lambda client: client.statuses(run))
    assert history[-1]["status"] == "succeeded"
    [warning] = [entry["message"] for entry in history if entry["status"] == "warning"]
    assert warning == "engine-lost: the engine went away while its container was being started: restart 1 of 1"
    assert Truth(world.truths / work.name).starts == 1


def serve(home: Path) -> subprocess.CompletedProcess[str]:
    """Run `polylocal serve` where it can't start: it ends on its own."""
    command = [sys.executable, "-m", "polylocal", "serve", "--home", str(home), "--port", "0"]
    return subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=60, check=False)


def one_clear_line(ended: subprocess.CompletedProcess[str]) -> str:
    assert ended.returncode != 0
    said = (ended.stdout + ended.stderr).strip()
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1, said
    return said


def test_a_read_only_home_folder_is_reported_at_the_start(tmp_path: Path) -> None:
    home = tmp_path / "disk"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=8m", "tmpfs", str(home)], check=True)
    try:
        said = one_clear_line(serve(home))
    finally:
        subprocess.run(["umount", str(home)], check=True)
    assert str(home) in said
    assert "read-only" in said.lower()


def test_a_corrupt_database_is_reported_at_the_start(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "polylocal.db").write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 64)
    said = one_clear_line(serve(home))
    assert str(home / "polylocal.db") in said
    assert any(word in said for word in ("backup", "back-up", "move", "restore")), said


# -- the harness ------------------------------------------------------------------------------------------------------


def test_a_log_that_lost_its_end_is_found(world: World) -> None:
    work = Work("w1", "lines", 5)
    [run] = submitted(world, work)
    eventually(lambda: is_done(status(world, run)), 60)
    uuid = world.ask(lambda client: client.run(run))["uuid"]
    world.settle()
    with world.daemon.home.log("job", uuid).open("r+b") as file:
        file.truncate(10)
    assert "its log (out) lacks 10 bytes of attempt 1" in violations(world)
    assert "seed 0" in world.report.violations[0]


def test_a_container_that_was_started_twice_is_found(world: World) -> None:
    work = Work("w1", "lines", 60)
    submitted(world, work)
    begun(world, work)
    about = world.containers()[0].attrs
    with world.engine.client() as client:
        host = client.api.create_host_config(mounts=about["HostConfig"]["Mounts"], network_mode="none")
        config = about["Config"]
        copy = client.api.create_container(
            config["Image"],
            command=config["Cmd"],
            entrypoint=config["Entrypoint"],
            environment=config["Env"],
            host_config=host,
        )
        client.api.start(copy)
        eventually(lambda: Truth(world.truths / work.name).starts == 2, 20)
        client.api.remove_container(copy, force=True)
    assert "was started 2 times with 0 restarts recorded" in violations(world)


def test_a_daemon_that_ends_by_itself_is_found(world: World) -> None:
    os.kill(world.daemon.pid, 15)
    eventually(lambda: world.daemon.unexpected_exit_code() is not None, 30)
    world.heal()
    assert "the daemon ended by itself" in world.report.violations[0]
