"""Logs and resources as they come, through the original command lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clients import files
from clients.originals import Person, rows
from clients.stored import finished, says
from polylocal.client.http import Client, RunReference

pytestmark = pytest.mark.engine

STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC -- ")
WAITS = "while [ ! -e $POLYAXON_RUN_OUTPUTS_PATH/go ]; do sleep 0.1; done"


def let_go(client: Client, run: RunReference) -> None:
    """End the waiting of a run."""
    (Path(client.run(run)["outputs_path"]) / "go").touch()


def test_a_job_is_followed_to_its_end(person: Person, client: Client) -> None:
    person.begin_project("followed")
    person.write({"job.yml": files.job("cat message; echo second"), "message": "first\n"})
    said = person.polyaxon("run", "-f", "job.yml", "-u", "-l")
    run = person.made(said)
    lines = [STAMP.sub("", line) for line in said.splitlines()]
    assert [line for line in lines if line in ("first", "second")] == ["first", "second"]
    assert "building ..." in lines
    assert client.run(run)["last_status"] in ("running", "succeeded")
    assert bool(STAMP.search(said)) != person.is_old


def test_a_log_comes_while_it_is_written(person: Person, client: Client) -> None:
    person.begin_project("live")
    person.write({"job.yml": files.job(f"echo begun; {WAITS}; echo ended")})
    run = person.run("-f", "job.yml")
    following = person.begin("job", "logs")
    following.shows("begun")
    assert "ended" not in following.text
    let_go(client, run)
    assert following.wait() == 0
    assert "ended" in following.text
    assert "Traceback" not in following.text


def test_times_are_hidden_when_that_is_asked(person: Person, client: Client) -> None:
    person.begin_project("timeless")
    person.write({"job.yml": files.job(f"echo begun; {WAITS}; echo ended")})
    run = person.run("-f", "job.yml")
    says(client, run, b"begun")
    following = person.begin("job", "logs", "-p", "-f", "--hide_time")
    following.shows("begun", times=2)
    let_go(client, run)
    assert following.wait() == 0
    assert not STAMP.search(following.text)
    assert "ended" in following.text


def test_a_build_is_followed(person: Person, client: Client) -> None:
    person.begin_project("watched")
    person.write({"build.yml": files.build("echo so far; sleep 1; echo and further", is_old=person.is_old)})
    said = person.polyaxon("run", "-f", "build.yml", "-l")
    assert "and further" in said
    assert "Successfully tagged" in said
    assert finished(client, person.made(said))["last_status"] == "succeeded"


def test_an_experiment_and_its_task_are_followed(person: Person, client: Client) -> None:
    person.begin_project("observed")
    person.write({"xp.yml": files.experiment(f"echo lr={{{{ lr }}}}; {WAITS}; echo ended", lr=0.5)})
    run = person.run("-f", "xp.yml")
    says(client, run, b"lr=0.5")
    task = rows(person.polyaxon("experiment", "jobs"), "Jobs:")[0]["id"]
    following = []
    for of_task in ((), ("-j", task)):
        following.append(person.begin("experiment", "logs", *of_task))
        following[-1].shows("lr=0.5")  # two programs that start at once write their settings over each other
    let_go(client, run)
    for command in following:
        assert command.wait() == 0
        assert "ended" in command.text


def test_a_log_that_is_over_is_past(person: Person, client: Client) -> None:
    person.begin_project("past")
    person.write({"job.yml": files.job("echo hello")})
    run = person.run("-f", "job.yml")
    finished(client, run)
    assert "error ..." in person.polyaxon("job", "logs")
    assert "hello" in person.polyaxon("job", "logs", "--past")


def test_resources(person: Person, client: Client) -> None:
    person.begin_project("weighed")
    person.write({"job.yml": files.job("echo begun; sleep 300")})
    run = person.run("-f", "job.yml")
    says(client, run, b"begun")
    watching = person.begin("job", "resources")
    watching.shows(f"{person.name}.weighed.jobs.{run.id}")
    assert "Mem Usage / Total" in watching.text
    client.stop(run)
    assert watching.wait() == 0
    assert "Traceback" not in watching.text
