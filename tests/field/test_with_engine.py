"""Four small shapes with the real engine: the effect of their commands in a container's shell."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import eventually, running_daemon, sweep

from polylocal.client.http import Client, RunReference
from polylocal.statuses import is_done
from polylocal.store import Store

from .shapes import by_name

pytestmark = pytest.mark.engine

PROJECT = "field"


@pytest.fixture(scope="module")
def client(engine_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a daemon with a project for these tests. Its containers and images are removed at the end."""
    home = tmp_path_factory.mktemp("daemon") / "home"
    with running_daemon(home, "--max-runs", "2", env={"POLYLOCAL_GRACE_S": "2"}) as daemon:
        made = daemon.client()
        made.create_project({"name": PROJECT})
        yield made
        made.close()
    store = Store(home / "polylocal.db")
    installation = store.installation()
    store.close()
    sweep(engine_address, installation)


def finished(client: Client, name: str) -> RunReference:
    shape = by_name(name)
    kind = shape.kind or ""
    made = client.create_run("root", PROJECT, kind, shape.written.body)
    run = RunReference("root", PROJECT, kind, made["id"])
    eventually(lambda: is_done(client.run(run)["last_status"]), 90)
    return run


def log(client: Client, run: RunReference) -> str:
    with client.logs(run) as chunks:
        return b"".join(chunks).decode()


@pytest.mark.parametrize(
    ("name", "status", "expected"),
    [
        ("busybox_two_steps", "succeeded", "good day  and\none\ntwo\nthree\n"),
        ("busybox_list", "failed", "first\n[two  blanks]\n[--flag=1]\n"),
        ("literal_with_a_failing_line", "failed", "prepared\n"),
    ],
)
def test_a_job_prints_its_arguments(client: Client, name: str, status: str, expected: str) -> None:
    run = finished(client, name)
    assert (client.run(run)["last_status"], log(client, run)) == (status, expected)
    if status == "failed":
        assert f"Exit code {by_name(name).exit}" in client.statuses(run)[-1]["message"]


def test_each_experiment_prints_its_own_point(client: Client) -> None:
    group = finished(client, "busybox_grid")
    rows = client.group_results(group, None, False)["results"]
    said = [log(client, RunReference("root", PROJECT, "experiment", row["id"])) for row in rows]
    assert sorted(said) == ["--rate=0.001 --rest\n", "--rate=0.5 --rest\n"]
