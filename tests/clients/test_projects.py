"""Projects and their code, through the original command lines."""

from __future__ import annotations

import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support import Daemon

from clients import files
from clients.originals import Person, facts, rows
from clients.stored import finished, log
from polylocal.client.http import Client, RunReference

pytestmark = pytest.mark.engine


def test_a_project_is_made_listed_shown_changed_and_deleted(person: Person, client: Client) -> None:
    said = person.polyaxon("project", "create", "--name=first", "--description=the first one", "--tags=a,b")
    assert "Project `first` was created successfully." in said
    stored = client.project(person.name, "first")
    assert (stored["description"], stored["tags"], stored["is_public"]) == ("the first one", ["a", "b"], True)

    listed = rows(person.polyaxon("project", "list"), "Projects:")
    assert "first" in [row["name"] for row in listed]
    assert {row["user"] for row in listed} == {person.name}

    shown = person.polyaxon("project", "-p", "first", "get")
    assert "the first one" in shown
    assert facts(shown)["name"] == "first"

    said = person.polyaxon("project", "-p", "first", "update", "--description=changed", "--tags=c", "--private=true")
    assert "Project updated." in said
    assert "changed" in said
    stored = client.project(person.name, "first")
    assert (stored["description"], stored["tags"], stored["is_public"]) == ("changed", ["c"], False)

    said = person.polyaxon("project", "-p", "first", "update", "--name=second")
    assert facts(said)["name"] == "second"

    said = person.polyaxon("project", "-p", "second", "delete", answers="y\n")
    assert f"Project `{person.name}/second` was delete successfully" in said
    assert "second" not in [found["name"] for found in client.projects(person.name)]
    assert "Could not get project `second`" in person.polyaxon("project", "-p", "second", "get", code=1)


def test_a_name_that_is_taken_and_a_private_project(person: Person, client: Client) -> None:
    person.polyaxon("project", "create", "--name=hidden", "--private")
    assert client.project(person.name, "hidden")["is_public"] is False
    said = person.polyaxon("project", "create", "--name=hidden", code=1)
    assert "Could not create project `hidden`" in said
    assert "A project with name `hidden` already exists." in said


def test_projects_come_in_pages(person: Person, daemon: Daemon) -> None:
    own = Client(daemon.url, person.token)
    for number in range(22):
        own.create_project({"name": f"page-{number}"})
    own.close()
    first = person.polyaxon("project", "list")
    assert facts(first)["next"] == "--page=2"
    second = person.polyaxon("project", "list", "--page=2")
    assert facts(second)["previous"] == "--page=1"
    names = [row["name"] for said in (first, second) for row in rows(said, "Projects:")]
    assert len(rows(first, "Projects:")) == 20
    assert {f"page-{number}" for number in range(22)} <= set(names)


def test_bookmarks_of_projects(person: Person) -> None:
    person.polyaxon("project", "create", "--name=marked")
    person.polyaxon("project", "create", "--name=unmarked")
    assert f"Project `{person.name}/marked` is bookmarked." in person.polyaxon("project", "-p", "marked", "bookmark")
    said = person.polyaxon("project", "-p", "marked", "unbookmark")
    assert f"Project `{person.name}/marked` is unbookmarked." in said


def test_init_in_a_new_folder(person: Person) -> None:
    person.polyaxon("project", "create", "--name=begun")
    assert "Make sure you have a project with this name `nosuch`" in person.polyaxon("init", "nosuch", code=1)
    said = person.init("begun")
    assert ("Project `begun` was initialized" if person.is_old else "Project was initialized") in said
    assert (person.folder / "polyaxonfile.yml").exists() == person.is_old
    assert (person.folder / ".polyaxonignore").exists()
    assert facts(person.polyaxon("project", "get"))["name"] == "begun"


def test_code_goes_up_without_what_is_ignored_and_comes_down(person: Person) -> None:
    person.begin_project("code")
    (person.folder / ".polyaxonignore").write_text("*.log\n")
    person.write({"train.py": "print('hello')\n", "deep/er/data.txt": "1,2,3\n", "big.log": "not this\n"})
    assert "Files uploaded." in person.polyaxon("upload")

    assert "Files downloaded." in person.polyaxon("project", "download")
    with tarfile.open(person.folder / "repo.tar.gz") as archive:
        names = {name.removeprefix("./") for name in archive.getnames()}
        files = {name: archive.extractfile(name) for name in archive.getnames() if name.endswith("data.txt")}
        assert [file.read() for file in files.values() if file] == [b"1,2,3\n"]
    assert {"train.py", "deep/er/data.txt"} <= names
    assert "big.log" not in names


def test_code_of_a_project_that_is_not_there(person: Person) -> None:
    person.begin_project("passing")
    person.polyaxon("project", "-p", f"{person.name}/passing", "delete", answers="y\n")
    # with the project, the folder's memory of it is gone
    assert "Please initialize your project" in person.polyaxon("upload", code=1)


def test_code_from_elsewhere(person: Person, client: Client, repository: Repository) -> None:
    """Only the new program has words for it: a repository's address, and fetching it again."""
    person.begin_project("external")
    if person.is_old:
        person.polyaxon("project", "git", f"--url={repository.url}", code=2)
        return
    repository.commit(message="old\n")
    said = person.polyaxon("project", "git", f"--url={repository.url}")
    assert f"Project was successfully initialized with `{repository.url}`." in said
    person.write({"job.yml": files.job("cat message")})
    first = person.run("-f", "job.yml")
    finished(client, first)
    assert log(client, first) == b"old\n"
    repository.commit(message="new\n")
    assert "Project was successfully synced with latest changes." in person.polyaxon("project", "git", "--sync")
    second = person.run("-f", "job.yml")
    finished(client, second)
    assert log(client, second) == b"new\n"


def test_new_code_is_run_where_that_is_wished(person: Person, client: Client, repository: Repository) -> None:
    person.begin_project("integrated")
    if person.is_old:
        person.polyaxon("project", "ci", "--enable", code=2)
        return
    repository.commit(**{"message": "built\n", "polyaxonci.yml": files.job("cat message")})
    person.polyaxon("project", "git", f"--url={repository.url}")
    assert "CI was successfully enabled" in person.polyaxon("project", "ci", "--enable")
    repository.commit(message="and run\n")
    person.polyaxon("project", "git", "--sync")
    jobs = rows(person.polyaxon("project", "jobs"), "Jobs:")
    assert len(jobs) == 1
    run = RunReference(person.name, "integrated", "job", int(jobs[0]["id"]))
    finished(client, run)
    assert log(client, run) == b"and run\n"
    assert "CI was successfully disabled" in person.polyaxon("project", "ci", "--disable")
    repository.commit(message="and not\n")
    person.polyaxon("project", "git", "--sync")
    assert len(rows(person.polyaxon("project", "jobs"), "Jobs:")) == 1


@dataclass
class Repository:
    """A git repository that is served over HTTP."""

    folder: Path
    url: str

    def commit(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / name).write_text(text)
            self.git("add", name)
        self.git("-c", "user.name=ann", "-c", "user.email=ann@example.org", "commit", "--quiet", "-m", "change")
        self.git("update-server-info")

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", "-C", str(self.folder), *arguments], check=True)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    folder = tmp_path / "repository"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments: Any) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        made = Repository(folder, f"http://127.0.0.1:{server.server_port}/.git")
        made.git("init", "--quiet", "--initial-branch=master")
        yield made
        server.shutdown()
        serving.join()
