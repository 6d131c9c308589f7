"""Builds through the original command lines."""

from __future__ import annotations

import tarfile

import pytest

from clients import files
from clients.originals import Person, facts, rows
from clients.stored import finished, log, says
from polylocal.client.http import Client, RunReference

pytestmark = pytest.mark.engine


def test_a_build_from_its_file_to_its_end(person: Person, client: Client) -> None:
    person.begin_project("builds")
    person.write(
        {
            "build.yml": files.build("cat requirements.txt > /made", is_old=person.is_old),
            "requirements.txt": "nothing\n",
        }
    )
    run = person.run("-f", "build.yml", "-u", "--name=image", "--tags=t1,t2", "--description=an image")
    stored = finished(client, run)
    assert stored["last_status"] == "succeeded", log(client, run)
    assert (stored["name"], stored["tags"], stored["description"]) == ("image", ["t1", "t2"], "an image")
    assert "RUN cat requirements.txt > /made\n" in stored["dockerfile"]

    assert "cat requirements.txt > /made" in person.polyaxon("build", "logs", "--past")
    shown = person.polyaxon("build", "-b", str(run.id), "get")
    assert "an image" in shown
    assert facts(shown)["unique_name"] == f"{person.name}.builds.builds.{run.id}"
    assert facts(shown)["last_status"] == "succeeded"
    history = [line["status"] for line in rows(person.polyaxon("build", "statuses"), "Statuses:")]
    assert {"created", "succeeded"} <= set(history)
    assert "Build updated." in person.polyaxon("build", "update", "--description=changed", "--tags=t3", "--name=other")
    stored = client.run(run)
    assert (stored["name"], stored["tags"], stored["description"]) == ("other", ["t3"], "changed")
    assert "Build job bookmarked." in person.polyaxon("build", "bookmark")
    assert "Build job unbookmarked." in person.polyaxon("build", "unbookmark")

    assert f"`{run.id}` was delete" in person.polyaxon("build", "delete", answers="y\n")
    assert f"Could not get build job `{run.id}`" in person.polyaxon("build", "-b", str(run.id), "get", code=1)


def test_a_build_is_stopped(person: Person, client: Client) -> None:
    person.begin_project("halted")
    person.write({"build.yml": files.build("echo begun; sleep 300", is_old=person.is_old)})
    run = person.run("-f", "build.yml")
    says(client, run, b"\nbegun")
    assert "Build job is being stopped." in person.polyaxon("build", "-b", str(run.id), "stop", "-y")
    assert finished(client, run)["last_status"] == "stopped"


def test_a_build_is_shared_until_it_is_invalidated(person: Person, client: Client) -> None:
    """The old program has no word for it."""
    person.begin_project("shared")
    person.write({"job.yml": files.job("cat /made", ("echo made > /made",))})

    def build_of_another_job() -> RunReference:
        found = finished(client, person.run("-f", "job.yml"))
        return RunReference(person.name, "shared", "build", int(found["build_job"].rpartition(".")[2]))

    first = build_of_another_job()
    assert build_of_another_job() == first
    if person.is_old:
        person.polyaxon("build", "-b", str(first.id), "invalidate", code=2)
        return
    assert "Build job has being invalidated." in person.polyaxon("build", "-b", str(first.id), "invalidate")
    second = build_of_another_job()
    assert second != first
    assert "have being invalidated" in person.polyaxon("project", "invalidate-builds")
    assert build_of_another_job() not in (first, second)


def test_the_code_of_a_build(person: Person, client: Client) -> None:
    person.begin_project("coded")
    person.write({"build.yml": files.build("true", is_old=person.is_old), "message": "old\n"})
    run = person.run("-f", "build.yml", "-u")
    commit = finished(client, run)["commit"]
    person.write({"message": "new\n"})
    person.polyaxon("upload")
    if person.is_old:
        person.polyaxon("build", "-b", str(run.id), "code", code=2)
        return
    assert commit in person.polyaxon("build", "-b", str(run.id), "code")
    with tarfile.open(person.folder / "repo.tar.gz") as archive:
        file = archive.extractfile(next(name for name in archive.getnames() if name.endswith("message")))
        assert file
        assert file.read() == b"old\n"
