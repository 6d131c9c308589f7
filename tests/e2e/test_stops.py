"""Stops, deletions and time limits with the real daemon: the program can save, and its own exit code is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import Daemon, eventually, job, running_daemon, sweep

from polylocal.client.http import Client, RunReference
from polylocal.statuses import is_done
from polylocal.store import Store

pytestmark = pytest.mark.engine

PROJECT = "stops"
PYTHON = "polylocal/standin-python:3.11"
SAVING = """cat >/tmp/t.py <<'END'
import signal, sys
def save(number, frame):
    print("saving", flush=True)
    with open("/plx-data/kept/" + sys.argv[1], "w") as file:
        file.write("saved")
    sys.exit(int(sys.argv[2]))
signal.signal(signal.SIGTERM, save)
print("begun", flush=True)
while True:
    signal.pause()
END
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    folder.chmod(0o777)
    return folder


@pytest.fixture(scope="module")
def limited(engine_address: str, tmp_path_factory: pytest.TempPathFactory, kept: Path) -> Iterator[Daemon]:
    """The grace period is longer than any test waits, so every program that ends has ended on its own."""
    home = tmp_path_factory.mktemp("limited") / "home"
    home.mkdir()
    (home / "polylocal.toml").write_text(f'[data]\nkept = "{kept}"\n')
    env = {"POLYLOCAL_GRACE_S": "300", "POLYLOCAL_TIME_LIMIT_S": "20"}
    with running_daemon(home, "--max-runs", "4", env=env) as started:
        yield started
    store = Store(home / "polylocal.db")
    installation = store.installation()
    store.close()
    sweep(engine_address, installation)


@pytest.fixture
def client(limited: Daemon) -> Iterator[Client]:
    made = limited.client()
    if PROJECT not in [found["name"] for found in made.projects("root")]:
        made.create_project({"name": PROJECT})
    yield made
    made.close()


def begun(client: Client, name: str, code: int) -> RunReference:
    cmd = f"{SAVING}\npython3 /tmp/t.py {name} {code} 2>&1 | tee /tmp/log\necho further"
    config = job(cmd, PYTHON, environment={"data_refs": ["kept"]})
    made = client.create_run("root", PROJECT, "job", {"config": config})
    run = RunReference("root", PROJECT, "job", made["id"])
    eventually(lambda: "begun" in log(client, run), 90)
    return run


def log(client: Client, run: RunReference) -> str:
    with client.logs(run) as chunks:
        return b"".join(chunks).decode()


def wait_until_ended(client: Client, run: RunReference) -> dict[str, Any]:
    eventually(lambda: is_done(client.run(run)["last_status"]), 60)
    return client.statuses(run)[-1]


def test_a_stopped_run_has_saved_and_keeps_its_exit_code(client: Client, kept: Path) -> None:
    run = begun(client, "stop", 3)
    client.stop(run)
    last = wait_until_ended(client, run)
    assert (last["status"], last["details"]["exit_code"]) == ("stopped", 3)
    assert (kept / "stop").read_text() == "saved"
    assert log(client, run).splitlines() == ["begun", "saving"]  # no message about a locale or from a shell


def test_a_deleted_run_has_saved(client: Client, kept: Path) -> None:
    run = begun(client, "delete", 0)
    client.delete(run)
    eventually((kept / "delete").exists, 60)


def test_a_run_at_its_time_limit_has_saved_and_failed(client: Client, kept: Path) -> None:
    run = begun(client, "limit", 0)
    last = wait_until_ended(client, run)
    assert (last["status"], last["details"]["reason"], last["details"]["exit_code"]) == ("failed", "time-limit", 0)
    assert (kept / "limit").read_text() == "saved"


def test_no_log_begins_with_a_locale_that_the_image_lacks(client: Client) -> None:
    config = job("echo $LC_ALL $LANG $LANGUAGE", PYTHON)
    made = client.create_run("root", PROJECT, "job", {"config": config})
    run = RunReference("root", PROJECT, "job", made["id"])
    assert wait_until_ended(client, run)["status"] == "succeeded"
    assert log(client, run) == "C.UTF-8 C.UTF-8 C.UTF-8\n"
