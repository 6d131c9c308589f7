"""Notebooks and tensorboards through the original command lines. Their programs are stand-ins that serve one page."""

from __future__ import annotations

import httpx2
import pytest
from support import Daemon, eventually

from clients import files
from clients.originals import Person, rows
from clients.stored import finished
from polylocal.client.http import Client

pytestmark = pytest.mark.engine


def page(person: Person, url: str) -> str:
    """What the daemon serves at the URL that was printed, when it does."""
    headers = {"Authorization": f"Token {person.token}"}

    def look() -> str | None:
        answer = httpx2.get(url, headers=headers, follow_redirects=True)
        return answer.text if answer.status_code == 200 and "page of" in answer.text else None

    return eventually(look, 90)


def test_a_notebook(person: Person, daemon: Daemon, client: Client) -> None:
    person.begin_project("book")
    person.write({"notebook.yml": files.server("notebook", "jupyter", 8888), "text.txt": "code\n"})
    assert "does not have a running notebook" in person.polyaxon("notebook", "url")
    said = person.polyaxon("notebook", "start", "-u", "-f", "notebook.yml")
    url = f"{daemon.url}/notebook/{person.name}/book/"
    assert "Notebook is being deployed for project `book`" in said
    assert url in said
    assert page(person, url) == "page of jupyter\n"
    assert url in person.polyaxon("notebook", "url")
    said = person.polyaxon("notebook", "start", "-f", "notebook.yml")
    assert "A notebook for this project is already running on:" in said
    assert "Notebook is being deleted" in person.polyaxon("notebook", "stop", "-y")
    eventually(lambda: not client.project(person.name, "book")["has_notebook"], 60)
    assert "does not have a running notebook" in person.polyaxon("notebook", "url")


def test_tensorboards_of_a_project_an_experiment_and_a_group(person: Person, daemon: Daemon, client: Client) -> None:
    person.begin_project("board")
    person.write(
        {
            "tensorboard.yml": files.server("tensorboard", "tensorboard", 6006),
            "xp.yml": files.experiment("true"),
            "group.yml": files.group("true {{ lr }}", concurrency=1, matrix={"lr": {"values": [1]}}),
        }
    )
    experiment, group = person.run("-f", "xp.yml"), person.run("-f", "group.yml")
    url = f"{daemon.url}/tensorboard/{person.name}/board/"
    scopes = [((), url), (("-xp", str(experiment.id)), f"{url}experiments/{experiment.id}/")]
    if not person.is_old:  # it crashes by itself when it prints the URL of a group's
        scopes.append((("-g", str(group.id)), f"{url}groups/{group.id}/"))
    for scope, where in scopes:
        assert "does not have a running tensorboard" in person.polyaxon("tensorboard", *scope, "url")
        said = person.polyaxon("tensorboard", *scope, "start", "-f", "tensorboard.yml")
        assert "Tensorboard is being deployed for" in said
        assert where in said
    for scope, where in scopes:
        assert page(person, where) == "page of tensorboard\n"
        assert where in person.polyaxon("tensorboard", *scope, "url")
        assert "is already running on" in person.polyaxon("tensorboard", *scope, "start", "-f", "tensorboard.yml")
    listed = rows(person.polyaxon("project", "tensorboards"), "Tensorboards:")
    assert len(listed) == len(scopes)
    assert {row["last_status"] for row in listed} == {"running"}
    for scope, _ in scopes:
        assert "Tensorboard is being deleted" in person.polyaxon("tensorboard", *scope, "stop", "-y")
        # not at once: until its container has ended it is still there
        eventually(lambda scope=scope: "does not have" in person.polyaxon("tensorboard", *scope, "url"), 60)
    finished(client, group)


def test_a_tensorboard_of_a_group_is_started_and_stopped_by_the_old_program_too(person: Person, client: Client) -> None:
    person.begin_project("groupboard")
    person.write(
        {
            "tensorboard.yml": files.server("tensorboard", "tensorboard", 6006),
            "group.yml": files.group("true {{ lr }}", concurrency=1, matrix={"lr": {"values": [1]}}),
        }
    )
    group = person.run("-f", "group.yml")
    start = person.begin("tensorboard", "-g", str(group.id), "start", "-f", "tensorboard.yml")
    assert start.wait() == int(person.is_old)
    assert "Tensorboard is being deployed for group" in start.text
    assert client.run(group)["has_tensorboard"] is True
    assert "Tensorboard is being deleted" in person.polyaxon("tensorboard", "-g", str(group.id), "stop", "-y")
    eventually(lambda: client.run(group)["has_tensorboard"] is False, 60)
    finished(client, group)
