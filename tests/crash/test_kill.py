"""kill -9 of a real daemon with a real engine: runs continue, nothing is lost, nothing appears twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import docker
import pytest
from support import Daemon, build, eventually, job

from polylocal.client.http import Client, RunReference
from polylocal.statuses import is_done

from .conftest import OWN_NETWORK

pytestmark = pytest.mark.engine

ORDER = ["created", "building", "scheduled", "running", "succeeded"]


def submit(daemon: Daemon, config: dict[str, Any], kind: str = "job") -> RunReference:
    with_client = daemon.client()
    try:
        if not with_client.projects("root"):
            with_client.create_project({"name": "crash"})
        made = with_client.create_run("root", "crash", kind, {"config": config})
    finally:
        with_client.close()
    return RunReference("root", "crash", kind, made["id"])


def status(daemon: Daemon, run: RunReference) -> str:
    return look(daemon, lambda client: client.run(run)["last_status"])


def look(daemon: Daemon, question) -> Any:
    client = daemon.client()
    try:
        return question(client)
    finally:
        client.close()


def log(daemon: Daemon, run: RunReference) -> bytes:
    def fetch(client: Client) -> bytes:
        with client.logs(run) as chunks:
            return b"".join(chunks)

    return look(daemon, fetch)


def finished(daemon: Daemon, run: RunReference, within_s: float = 60) -> dict[str, Any]:
    return eventually(
        lambda: (found := look(daemon, lambda c: c.run(run))) and is_done(found["last_status"]) and found, within_s
    )


def history(daemon: Daemon, run: RunReference) -> list[str]:
    return [entry["status"] for entry in look(daemon, lambda client: client.statuses(run))]


def never_backwards(statuses: list[str]) -> bool:
    places = [ORDER.index(status) for status in statuses]
    return places == sorted(places)


def test_a_line_every_50_ms_and_the_daemon_killed(start):
    """The fourth requirement of the first release."""
    daemon = start()
    run = submit(daemon, job("i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); sleep 0.05; done"))
    eventually(lambda: log_has(daemon, run, b"line 10\n"), 60)
    daemon.kill()
    daemon = start()
    eventually(lambda: log_has(daemon, run, b"line 40\n"), 60)
    daemon.kill()
    daemon = start()
    assert finished(daemon, run)["last_status"] == "succeeded"
    assert log(daemon, run) == b"".join(b"line %d\n" % n for n in range(100))
    assert never_backwards(history(daemon, run))


def log_has(daemon: Daemon, run: RunReference, text: bytes) -> bool:
    return text in log(daemon, run)


@pytest.mark.parametrize("step", ["created", "building", "scheduled", "running", "ended"])
def test_killed_at_each_durable_step(start, raw_engine: docker.DockerClient, step: str):
    """The next daemon finishes the run after any last recorded step. Its container is started once."""
    daemon = start("--max-runs", "1")
    steps = ["sleep 1"] if step == "building" else []
    config = job("echo begun; sleep 1; echo done; exit 0")
    config["build"]["build_steps"] = steps
    blocker = submit(daemon, job("sleep 2")) if step == "created" else None
    if blocker:
        eventually(lambda: status(daemon, blocker) == "running", 60)
        config["build"] = dict(job()["build"])
    run = submit(daemon, config)
    if step == "ended":
        eventually(lambda: log_has(daemon, run, b"begun"), 60)
        container = containers_of(raw_engine, run, daemon)[0]
        daemon.kill()
        container.wait()
    else:
        eventually(lambda: ORDER.index(status(daemon, run)) >= ORDER.index(step), 60)
        daemon.kill()
    daemon = start("--max-runs", "1")
    found = finished(daemon, run)
    assert found["last_status"] == "succeeded", history(daemon, run)
    assert log(daemon, run) == b"begun\ndone\n"
    assert never_backwards(history(daemon, run))
    eventually(lambda: not containers_of(raw_engine, run, daemon))


def containers_of(raw_engine: docker.DockerClient, run: RunReference, daemon: Daemon) -> list[Any]:
    uuid = look(daemon, lambda client: client.run(run)["uuid"])
    label = f"polylocal.run={run.kind}/{uuid}"
    return raw_engine.containers.list(all=True, ignore_removed=True, filters={"label": label})


def test_a_container_removed_behind_the_daemons_back(start, raw_engine: docker.DockerClient):
    daemon = start()
    run = submit(daemon, job("echo begun; sleep 60"))
    eventually(lambda: log_has(daemon, run, b"begun"), 60)
    containers_of(raw_engine, run, daemon)[0].remove(force=True)
    assert finished(daemon, run, 10)["last_status"] == "failed"
    last = look(daemon, lambda client: client.statuses(run))[-1]
    assert last["message"].startswith("engine-lost")
    assert last["details"]["reason"] == "engine-lost"


def test_a_container_that_vanished_while_no_daemon_ran(start, raw_engine: docker.DockerClient):
    daemon = start()
    run = submit(daemon, job("echo begun; sleep 60"))
    eventually(lambda: log_has(daemon, run, b"begun"), 60)
    container = containers_of(raw_engine, run, daemon)[0]
    daemon.kill()
    container.remove(force=True)
    daemon = start()
    assert finished(daemon, run, 20)["last_status"] == "failed"
    assert look(daemon, lambda client: client.statuses(run))[-1]["message"].startswith("engine-lost")
    begun, marked = log(daemon, run).splitlines()
    assert (begun, marked[:11]) == (b"begun", b"polylocal: ")


def test_a_stop_that_was_asked_for_before_the_kill_is_carried_out_after_it(start):
    daemon = start()
    run = submit(daemon, job("echo begun; trap '' TERM; sleep 60"))
    eventually(lambda: log_has(daemon, run, b"begun"), 60)
    look(daemon, lambda client: client.stop(run))
    daemon.kill()
    daemon = start(POLYLOCAL_GRACE_S="1")
    assert finished(daemon, run)["last_status"] == "stopped"


def test_a_build_is_made_again_after_a_kill(start):
    daemon = start()
    run = submit(daemon, build(build_steps=["sleep 2; echo made"]), "build")
    eventually(lambda: b"RUN sleep 2" in log(daemon, run), 60)
    daemon.kill()
    daemon = start()
    assert finished(daemon, run)["last_status"] == "succeeded"
    assert b"building again" in log(daemon, run)


def test_queued_work_continues_in_order(start):
    daemon = start("--max-runs", "1")
    runs = [submit(daemon, job(f"echo {n}; sleep 0.3")) for n in range(4)]
    eventually(lambda: status(daemon, runs[0]) in ("running", "succeeded"), 60)
    daemon.kill()
    daemon = start("--max-runs", "1")
    done = [finished(daemon, run) for run in runs]
    assert [found["last_status"] for found in done] == ["succeeded"] * 4
    assert [found["finished_at"] for found in done] == sorted(found["finished_at"] for found in done)


def test_a_run_that_is_taken_up_still_reaches_the_api(start):
    """The container uses the address of the previous daemon. The next daemon listens there without a request for it."""
    daemon = start(**OWN_NETWORK)
    script = (
        "echo begun; until [ -e $POLYAXON_RUN_OUTPUTS_PATH/go ]; do sleep 0.2; done; for n in 1 2 3 4 5 6 7 8 9 10; do"
        ' wget -q -O /dev/null --header "Authorization: Token $POLYAXON_SECRET_USER_TOKEN"'
        " $POLYAXON_API/api/v1/root/crash/jobs/1/ && echo reached && exit 0; sleep 1; done; exit 1"
    )
    run = submit(daemon, job(script))
    eventually(lambda: log_has(daemon, run, b"begun"), 60)
    folder = look(daemon, lambda client: client.run(run)["outputs_path"])
    daemon.kill()
    daemon = start(**OWN_NETWORK)
    Path(folder, "go").touch()
    assert finished(daemon, run)["last_status"] == "succeeded"
    assert log(daemon, run) == b"begun\nreached\n"


def test_a_group_continues_where_it_was(start):
    """Each experiment is created and started once, and the group ends normally."""
    group = {
        **job("echo begun; sleep 1; echo {{ n }}"),
        "kind": "group",
        "hptuning": {"matrix": {"n": {"values": [1, 2, 3, 4]}}, "concurrency": 2},
    }
    daemon = start()
    run = submit(daemon, group, "group")
    members = [RunReference("root", "crash", "experiment", n) for n in range(1, 5)]
    eventually(lambda: look(daemon, lambda client: client.run(run)["num_experiments"]) == 4, 60)
    eventually(lambda: b"begun" in log(daemon, members[0]), 60)
    daemon.kill()
    daemon = start()
    eventually(lambda: b"begun" in log(daemon, members[2]), 60)
    daemon.kill()
    daemon = start()
    assert finished(daemon, run, 120)["last_status"] == "succeeded"
    assert [status(daemon, member) for member in members] == ["succeeded"] * 4
    assert [log(daemon, member) for member in members] == [f"begun\n{n}\n".encode() for n in range(1, 5)]
    assert look(daemon, lambda client: client.run(run)["num_experiments"]) == 4


def test_a_notebooks_changes_outlive_the_daemon(start, raw_engine: docker.DockerClient):
    """They are written while no daemon runs. The next daemon commits them when it stops the notebook."""
    jupyter = "printf '#!/bin/sh\\nexec sleep 600\\n' > /bin/jupyter; chmod +x /bin/jupyter"
    daemon = start()
    run = submit(daemon, {**build(build_steps=[jupyter]), "kind": "notebook"}, "notebook")
    eventually(lambda: status(daemon, run) == "running", 60)
    uuid = look(daemon, lambda client: client.run(run)["uuid"])
    daemon.kill()
    (daemon.home / "notebooks" / uuid / "made.ipynb").write_text("{}")
    daemon = start(POLYLOCAL_GRACE_S="1")
    assert status(daemon, run) == "running"
    look(daemon, lambda client: client.stop(run))
    assert finished(daemon, run)["last_status"] == "stopped"
    assert not list((daemon.home / "notebooks").iterdir())
    messages = [entry["message"] for entry in look(daemon, lambda client: client.statuses(run))]
    assert sum("are commit" in (message or "") for message in messages) == 1
    eventually(lambda: not containers_of(raw_engine, run, daemon))
