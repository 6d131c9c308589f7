"""The original clients, unmodified: in containers, where the daemon tells them what they are, and outside."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx2
import pytest
from support import Daemon

from clients.originals import HERE, Person, facts, rows, surroundings
from clients.stored import finished, log
from polylocal.client.http import Client, RunReference

pytestmark = pytest.mark.engine

Tracked = dict[str, dict[str, RunReference]]


def test_an_experiment_in_a_container(person: Person, daemon: Daemon, client: Client, tracked: Tracked) -> None:
    run = tracked[person.version]["experiment"]
    stored = finished(client, run)
    said = log(client, run).decode()
    assert stored["last_status"] == "succeeded", said
    assert f"{person.name}.tracking.{run.id} ['--lr', '0.1'] " in said
    assert (stored["name"], stored["description"]) == ("tracked", "told from inside")
    assert sorted(stored["tags"]) == ["inside", "python"]
    assert stored["params"] == {"lr": 0.5, "layers": 3, "activation": "relu"}
    assert stored["last_metric"] == {"step": 3, "loss": pytest.approx(1 / 3)}
    assert stored["run_env"]["sys.argv"] == ["train.py", "--lr", "0.1"]
    assert f"polyaxon-client=={person.version}" in stored["run_env"]["packages"]
    assert stored["data_refs"] == {"rows": "cc1e83940c5c"}
    assert stored["framework"] == (None if person.is_old else "scikit-learn")
    assert (Path(stored["outputs_path"]) / "result").read_text() == "kept\n"
    metrics = httpx2.get(f"{daemon.url}{run.path}/metrics/", headers={"Authorization": f"Token {daemon.token}"})
    assert [each["values"]["step"] for each in metrics.json()["results"]] == [1, 2, 3]


def test_what_it_told_is_shown(person: Person, client: Client, tracked: Tracked) -> None:
    run = tracked[person.version]["experiment"]
    finished(client, run)
    shown = person.polyaxon("experiment", "-p", f"{person.name}/tracking", "-xp", str(run.id), "get")
    assert "told from inside" in shown
    assert (facts(shown)["lr"], facts(shown)["layers"], facts(shown)["activation"]) == ("0.5", "3", "relu")
    assert facts(shown)["loss"].startswith("0.333")
    of_project = ("project", "-p", f"{person.name}/tracking", "experiments")
    row = next(row for row in rows(person.polyaxon(*of_project, "-m"), "Experiments:") if row["id"] == str(run.id))
    assert row["loss"].startswith("0.333")
    said = person.polyaxon(*of_project, "-q", "metric.loss:<0.5, status:succeeded")
    assert str(run.id) in [row["id"] for row in rows(said, "Experiments:")]


def test_a_job_in_a_container(person: Person, client: Client, tracked: Tracked) -> None:
    """The old client knows who it is, and can tell nothing of a job."""
    run = tracked[person.version]["job"]
    stored = finished(client, run)
    said = log(client, run).decode()
    assert stored["last_status"] == "succeeded", said
    assert f"tracking {run.id}\n" in said
    if not person.is_old:
        assert (stored["name"], stored["description"], stored["tags"]) == ("told", "told from inside", ["inside"])
        assert f"{person.name}.tracking.jobs.{run.id}\n" in said


def test_both_runs_share_an_image(person: Person, client: Client, tracked: Tracked) -> None:
    builds = {finished(client, run)["build_job"] for run in tracked[person.version].values()}
    assert len(builds) == 1


def test_an_experiment_outside(person: Person, daemon: Daemon, client: Client) -> None:
    run = outside(person, daemon, code=0)
    stored = finished(client, run)
    assert stored["last_status"] == "succeeded"
    assert (stored["name"], stored["description"], stored["tags"]) == ("outside", "told from outside", ["by hand"])
    assert stored["params"] == {"lr": 0.5}
    assert stored["last_metric"] == {"loss": 0.25}
    assert [status["status"] for status in client.statuses(run)] == ["created", "running", "succeeded"]
    assert "a line for the log" in log(client, run).decode()
    shown = facts(person.polyaxon("experiment", "-p", "by-hand", "-xp", str(run.id), "get"))
    assert (shown["lr"], shown["loss"], shown["last_status"]) == ("0.5", "0.25", "succeeded")


def test_an_experiment_outside_that_fails(person: Person, daemon: Daemon, client: Client) -> None:
    run = outside(person, daemon, "fail", code=1)
    assert finished(client, run)["last_status"] == "failed"
    assert "no luck" in client.statuses(run)[-1]["message"]


def outside(person: Person, daemon: Daemon, *arguments: str, code: int) -> RunReference:
    """Run the script on this machine. The new client finds what the program keeps, the old one must be told."""
    person.begin_project("by-hand" if not arguments else "by-hand-too")
    env = surroundings(person.home)
    if person.is_old:
        port = daemon.url.rpartition(":")[2]
        env |= {"POLYAXON_API_HOST": "127.0.0.1", "POLYAXON_HTTP_PORT": port, "POLYAXON_WS_PORT": port}
        env |= {"POLYAXON_SECRET_USER_TOKEN": person.token}
    done = subprocess.run(
        [str(person.program.folder / "bin/python"), str(HERE / "code/outside.py"), person.project, *arguments],
        env=env,
        cwd=person.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return RunReference(person.name, person.project, "experiment", int(done.stdout.split()[0]))
