"""Containers that are killed or removed by others, and the isolation of containers, with a real engine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import docker
import pytest
from support import BUSYBOX, Daemon, build, eventually, job

from polylocal.client.http import RunReference

from .conftest import OWN_NETWORK, Starter
from .test_kill import containers_of, finished, log, log_has, look, status, submit

pytestmark = pytest.mark.engine

MISSING = "its last output may be missing here"
KILLED = "engine-lost: its container was stopped through the engine, by the engine's end or by another client"


@pytest.fixture
def start(shared_start: Starter) -> Starter:
    return shared_start


def begun(daemon: Daemon, config: dict[str, Any], kind: str = "job") -> RunReference:
    """A run that has printed `begun`."""
    run = submit(daemon, config, kind)
    eventually(lambda: log_has(daemon, run, b"begun"), 60)
    return run


def last(daemon: Daemon, run: RunReference) -> dict[str, Any]:
    found: dict[str, Any] = look(daemon, lambda client: client.statuses(run))[-1]
    return found


# -- ended by others ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "code"), [("kill", 137), ("stop", 143)])
def test_a_container_ended_by_others_is_lost_without_blame_on_its_program(
    start, raw_engine: docker.DockerClient, how: str, code: int
) -> None:
    daemon = start()
    run = begun(daemon, job("trap 'exit 143' TERM; echo begun; while true; do sleep 0.1; done"))
    getattr(containers_of(raw_engine, run, daemon)[0], how)()
    assert finished(daemon, run)["last_status"] == "failed"
    assert last(daemon, run)["message"] == KILLED
    assert last(daemon, run)["details"] == {"reason": "engine-lost", "exit_code": code}


@pytest.mark.parametrize("cmd", ["exit 143", "exit 137", "kill -9 $$", "kill -TERM $$"])
def test_a_program_that_ends_itself_like_that_is_its_own_fault(start, cmd: str) -> None:
    daemon = start()
    run = submit(daemon, job(cmd))
    assert finished(daemon, run)["last_status"] == "failed"
    assert last(daemon, run)["details"]["reason"] == "program"


@pytest.mark.parametrize("how", ["kill", "remove"])
def test_a_lost_run_is_started_again_and_its_log_has_both(start, raw_engine: docker.DockerClient, how: str) -> None:
    daemon = start()
    again = "[ -e $POLYAXON_RUN_OUTPUTS_PATH/again ] && echo done && exit 0"
    script = f"echo begun; {again}; touch $POLYAXON_RUN_OUTPUTS_PATH/again; sleep 600"
    run = submit(daemon, job(script, environment={"max_restarts": 2}))
    eventually(lambda: log_has(daemon, run, b"begun"), 60)
    first = containers_of(raw_engine, run, daemon)[0]
    outputs = Path(look(daemon, lambda client: client.run(run))["outputs_path"])
    eventually((outputs / "again").exists)
    first.kill() if how == "kill" else first.remove(force=True)
    assert finished(daemon, run)["last_status"] == "succeeded"
    before, marker, after = log(daemon, run).partition(b"polylocal: engine-lost: ")
    assert (before, marker != b"") == (b"begun\n", True)
    assert after.partition(b"\n")[0].endswith(
        f"{MISSING}; the following output is from a new one, restart 1 of 2".encode()
    )
    assert after.partition(b"\n")[2] == b"begun\ndone\n"
    messages = [entry["message"] or "" for entry in look(daemon, lambda client: client.statuses(run))]
    assert sum(said.startswith("engine-lost: ") and said.endswith(": restart 1 of 2") for said in messages) == 1
    eventually(lambda: not containers_of(raw_engine, run, daemon))


def test_a_stop_by_the_daemon_is_no_loss(start) -> None:
    daemon = start(POLYLOCAL_GRACE_S="1")
    run = begun(
        daemon, job("trap '' TERM; echo begun; while true; do sleep 0.1; done", environment={"max_restarts": 3})
    )
    look(daemon, lambda client: client.stop(run))
    assert finished(daemon, run)["last_status"] == "stopped"
    assert log(daemon, run) == b"begun\n"


# -- time limits -------------------------------------------------------------------------------------------------


def test_a_limit_that_was_reached_while_no_daemon_ran(start) -> None:
    daemon = start()
    run = begun(daemon, job("echo begun; sleep 600"))
    since = time.monotonic()
    daemon.kill()
    eventually(lambda: time.monotonic() - since > 2)
    daemon = start(POLYLOCAL_TIME_LIMIT_S="2", POLYLOCAL_GRACE_S="1")
    assert finished(daemon, run, 20)["last_status"] == "failed"
    assert last(daemon, run)["details"]["reason"] == "time-limit"
    assert log(daemon, run) == b"begun\n"


def test_a_build_that_takes_too_long(start) -> None:
    daemon = start(POLYLOCAL_TIME_LIMIT_S="2")
    run = submit(daemon, build(build_steps=["sleep 600"]), "build")
    assert finished(daemon, run)["last_status"] == "failed"
    assert last(daemon, run)["details"]["reason"] == "time-limit"


# -- isolation ---------------------------------------------------------------------------------------------------

SERVER = "printf '#!/bin/sh\\necho begun\\nexec sleep 600\\n' > /bin/%s; chmod +x /bin/%s"


def config_of(kind: str) -> dict[str, Any]:
    if kind in ("notebook", "tensorboard"):
        name = "jupyter" if kind == "notebook" else kind
        return {**build(build_steps=[SERVER % (name, name)]), "kind": kind}
    return {**job("echo begun; sleep 600"), "kind": kind}


def mounts_of(container: Any) -> dict[str, tuple[str, bool]]:
    """Target → (path on the host, is it writable)."""
    return {mount["Destination"]: (mount["Source"], mount["RW"]) for mount in container.attrs["Mounts"]}


@pytest.mark.parametrize("kind", ["job", "experiment", "notebook", "tensorboard"])
def test_a_container_has_what_it_needs_and_no_more(start, raw_engine: docker.DockerClient, kind: str) -> None:
    """Without the engine's socket, ports, privileges, unlimited processes or files of other runs."""
    daemon = start(POLYLOCAL_PIDS_LIMIT="100", POLYLOCAL_GRACE_S="1", **OWN_NETWORK)
    run = submit(daemon, config_of(kind), kind)
    eventually(lambda: status(daemon, run) == "running", 60)
    uuid = look(daemon, lambda client: client.run(run))["uuid"]
    container = containers_of(raw_engine, run, daemon)[0]
    container.reload()
    host = container.attrs["HostConfig"]
    project = look(daemon, lambda client: client.project("root", "crash"))["uuid"]
    inside = f"/plx-outputs/root/crash/{kind}s/{run.id}"  # as documented; on the host it is below the id of the project
    wanted = {
        inside: (str(daemon.home / "outputs" / project / f"{kind}s" / str(run.id)), True),
        "/plx-context": (str(daemon.home / "contexts" / uuid), False),
    }
    if kind == "notebook":
        wanted["/code"] = (str(daemon.home / "notebooks" / uuid), True)
    found = mounts_of(container)
    if kind == "tensorboard":
        watched = {target: found.pop(target) for target in set(found) - set(wanted)}
        assert all(source.startswith(str(daemon.home / "outputs")) and not rw for source, rw in watched.values())
    assert found == wanted
    assert host["PidsLimit"] == 100
    assert [option.partition(":")[0] for option in host["SecurityOpt"]] == ["no-new-privileges"]
    assert not host["CapAdd"]
    assert "NET_RAW" in {name.removeprefix("CAP_") for name in host["CapDrop"]}
    assert list(container.attrs["NetworkSettings"]["Networks"]) == ["polylocal"]
    assert not host["Privileged"]
    assert not host["Devices"]
    assert (host["PidMode"], host["IpcMode"] == "host", host["UTSMode"], host["UsernsMode"]) == ("", False, "", "")
    assert not host["PortBindings"]  # the daemon reaches servers at their own addresses
    look(daemon, lambda client: client.stop(run))
    finished(daemon, run)


def test_a_program_that_makes_processes_without_end_is_held_up(start) -> None:
    daemon = start(POLYLOCAL_PIDS_LIMIT="20")
    run = submit(daemon, job("n=0; while [ $n -lt 40 ]; do sleep 5 & n=$((n+1)); done; echo all"))
    assert finished(daemon, run)["last_status"] == "failed"
    assert b"can't fork" in log(daemon, run)


def test_privileges_can_be_gained_only_where_that_is_set(start, raw_engine: docker.DockerClient) -> None:
    daemon = start(POLYLOCAL_NEW_PRIVILEGES="true")
    script = "grep NoNewPrivs /proc/self/status; echo begun"
    run = submit(daemon, job(script))
    assert finished(daemon, run)["last_status"] == "succeeded"
    assert log(daemon, run) == b"NoNewPrivs:\t0\nbegun\n"
    daemon.kill()
    daemon = start()
    run = submit(daemon, job(script))
    finished(daemon, run)
    assert log(daemon, run) == b"NoNewPrivs:\t1\nbegun\n"


def test_a_build_reaches_no_file_of_the_home_folder(start) -> None:
    daemon = start()
    run = submit(
        daemon, build(BUSYBOX, build_steps=["ls -a /plx-context /plx-outputs /var/run/docker.sock || true"]), "build"
    )
    assert finished(daemon, run)["last_status"] == "succeeded"
    assert log(daemon, run).count(b"No such file or directory") == 3
