"""Groups of experiments through the original command lines."""

from __future__ import annotations

import pytest
from support import eventually

from clients import files
from clients.originals import Person, facts, rows
from clients.stored import finished
from clients.test_experiments import reporting
from polylocal.client.http import Client

pytestmark = pytest.mark.engine


def test_a_grid_from_its_file_to_its_experiments(person: Person, client: Client) -> None:
    person.begin_project("grid")
    matrix = {"lr": {"values": [0.1, 0.2]}, "units": {"values": [1, 2]}}
    cmd = "echo lr={{ lr }} units={{ units }}; " + reporting(person, "{{ lr }}")
    person.write({"group.yml": files.group(cmd, concurrency=2, matrix=matrix)})
    said = person.polyaxon("run", "-f", "group.yml", "--name=search", "--tags=t1,t2", "--description=a grid")
    run = person.made(said)
    stored = finished(client, run)
    assert stored["last_status"] == "succeeded"
    assert (stored["name"], stored["tags"], stored["description"]) == ("search", ["t1", "t2"], "a grid")

    shown = person.polyaxon("group", "get")
    assert "a grid" in shown
    assert facts(shown)["last_status"] == "succeeded"
    assert facts(shown)["num_experiments"] == "4"
    history = {line["status"] for line in rows(person.polyaxon("group", "statuses"), "Statuses:")}
    assert history >= {"created", "running", "succeeded"}

    found = rows(person.polyaxon("group", "experiments", "-m", "-s", "metric.loss"), "Experiments:")
    assert [row["loss"] for row in found] == ["0.1", "0.1", "0.2", "0.2"]
    found = rows(person.polyaxon("group", "experiments", "-d" if person.is_old else "-p"), "Experiments:")
    assert {(row["lr"], row["units"]) for row in found} == {("0.1", "1"), ("0.1", "2"), ("0.2", "1"), ("0.2", "2")}
    assert {row["unique_name"] for row in found} == {f"{person.name}.grid.{run.id}.{row['id']}" for row in found}
    found = rows(person.polyaxon("group", "experiments", "-q", "metric.loss:<0.15"), "Experiments:")
    assert len(found) == 2
    found = rows(person.polyaxon("project", "experiments", "-g", str(run.id)), "Experiments:")
    assert len(found) == 4
    assert "No experiments found" in person.polyaxon("project", "experiments", "-i")
    assert [row["id"] for row in rows(person.polyaxon("project", "groups"), "Experiment groups:")] == [str(run.id)]

    said = person.polyaxon("group", "update", "--name=other", "--description=changed", "--tags=t3")
    assert "updated" in said
    stored = client.run(run)
    assert (stored["name"], stored["tags"], stored["description"]) == ("other", ["t3"], "changed")
    assert "bookmarked" in person.polyaxon("group", "bookmark")
    assert "unbookmarked" in person.polyaxon("group", "unbookmark")
    assert f"`{run.id}` was delete" in person.polyaxon("group", "delete", answers="y\n")
    assert f"`{run.id}`" in person.polyaxon("group", "-g", str(run.id), "get", code=1)


def test_a_random_search(person: Person, client: Client) -> None:
    person.begin_project("chance")
    matrix = {"lr": {"uniform": [0.1, 0.9]}, "act": {"values": ["relu", "tanh"]}}
    spec = files.group("echo {{ lr }} {{ act }}", concurrency=3, matrix=matrix, random_search={"n_experiments": 3})
    person.write({"group.yml": spec})
    run = person.run("-f", "group.yml")
    assert finished(client, run)["last_status"] == "succeeded"
    found = rows(person.polyaxon("group", "experiments", "-d" if person.is_old else "-p"), "Experiments:")
    assert len(found) == 3
    assert all(0.1 <= float(row["lr"]) <= 0.9 and row["act"] in ("relu", "tanh") for row in found)


def test_a_group_is_stopped(person: Person, client: Client) -> None:
    person.begin_project("halt")
    matrix = {"lr": {"values": [1, 2, 3, 4]}}
    person.write({"group.yml": files.group("echo {{ lr }}; sleep 300", concurrency=2, matrix=matrix)})
    run = person.run("-f", "group.yml")

    def experiments(*options: str) -> list[dict[str, str]]:
        return rows(person.polyaxon("group", "-g", str(run.id), "experiments", *options), "Experiments:")

    eventually(lambda: len(experiments("-q", "status:running")) == 2, 90)
    said = person.polyaxon("group", "stop", "-y", "--pending")
    assert "being stopped" in said
    eventually(lambda: len(experiments("-q", "status:stopped")) == 2, 90)
    assert len(experiments("-q", "status:running")) == 2
    person.polyaxon("group", "stop", answers="y\n")
    assert finished(client, run)["last_status"] == "stopped"
    eventually(lambda: {row["last_status"] for row in experiments()} == {"stopped"}, 60)
