"""Runs reach the daemon on the network that isolates them, and on the network that an earlier daemon used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import BUSYBOX, eventually, start_daemon

from polylocal.client.http import Client, RunReference
from polylocal.engine.docker.engine import DockerEngine
from polylocal.engine.plan import OWN_NETWORK
from polylocal.statuses import is_done
from polylocal.store import Store

pytestmark = pytest.mark.engine

# waits for a file, then calls the daemon at the address from the start of the container
ASK = (
    'echo "at $POLYAXON_API"; until [ -e $POLYAXON_RUN_OUTPUTS_PATH/go ]; do sleep 0.1; done;'
    " at=${POLYAXON_API#http://};"
    ' (printf "GET /healthz HTTP/1.0\\r\\nHost: $at\\r\\n\\r\\n"; sleep 1) | nc -w 10 ${at%:*} ${at#*:}'
)
JOB: dict[str, Any] = {"version": 1, "kind": "job", "build": {"image": BUSYBOX}, "run": {"cmd": ASK}}


def begun(client: Client) -> RunReference:
    made = client.create_run("root", "p", "job", {"config": JOB})
    run = RunReference("root", "p", "job", made["id"])
    eventually(lambda: client.run(run)["last_status"] == "running", 90)
    return run


def told(client: Client, run: RunReference) -> str:
    (Path(client.run(run)["outputs_path"]) / "go").touch()
    eventually(lambda: is_done(client.run(run)["last_status"]), 90)
    with client.logs(run) as chunks:
        return b"".join(chunks).decode()


def test_runs_of_an_earlier_daemon_still_reach_the_api_after_it_was_replaced(
    tmp_path: Path, engine_address: str, to_sweep: list[str]
) -> None:
    home = tmp_path / "home"
    earlier = start_daemon(home, env={"POLYLOCAL_NETWORK": "bridge"})
    store = Store(home / "polylocal.db")
    to_sweep.append(store.installation())
    store.close()
    engine = DockerEngine(engine_address)
    try:
        client = earlier.client()
        client.create_project({"name": "p"})
        first = begun(client)
        client.close()
        earlier.kill()
        later = start_daemon(home)
    except BaseException:
        earlier.kill()
        raise
    try:
        client = later.client()
        second = begun(client)
        for run, network in ((first, "bridge"), (second, OWN_NETWORK)):
            log = told(client, run)
            assert f"at http://{engine.gateway(network)}:" in log
            assert "200 OK" in log
        client.close()
    finally:
        later.kill()
        engine.close()
