"""Jobs through the original command lines, from their files to their outputs."""

from __future__ import annotations

import tarfile

import pytest

from clients import files
from clients.originals import Person, facts, rows
from clients.stored import finished, log, says
from polylocal.client.http import Client, RunReference

pytestmark = pytest.mark.engine

OUTPUTS = "$POLYAXON_RUN_OUTPUTS_PATH"


def test_a_job_from_its_file_to_its_outputs(person: Person, client: Client) -> None:
    person.begin_project("whole")
    cmd = f"cat message; mkdir {OUTPUTS}/deep; echo kept > {OUTPUTS}/deep/result"
    person.write({"job.yml": files.job(cmd), "message": "hello from inside\n"})
    said = person.polyaxon("run", "-f", "job.yml", "-u", "--name=one", "--tags=t1,t2", "--description=the first")
    assert "Files uploaded." in said
    run = person.made(said)
    stored = finished(client, run)
    assert stored["last_status"] == "succeeded"
    assert (stored["name"], stored["tags"], stored["description"]) == ("one", ["t1", "t2"], "the first")

    # without -j it is the job that this folder has seen last
    assert "hello from inside" in person.polyaxon("job", "logs", "--past")
    history = [line["status"] for line in rows(person.polyaxon("job", "statuses"), "Statuses:")]
    assert set(history) == {"created", "building", "scheduled", "running", "succeeded"}

    shown = person.polyaxon("job", "-j", str(run.id), "get")
    assert "the first" in shown
    assert facts(shown)["unique_name"] == f"{person.name}.whole.jobs.{run.id}"
    assert facts(shown)["last_status"] == "succeeded"
    assert facts(shown)["total_run"]

    assert "Files downloaded." in person.polyaxon("job", "-j", str(run.id), "outputs")
    with tarfile.open(person.folder / f"{person.name}.whole.{run.id}.tar.gz", "r:gz") as archive:
        result = archive.extractfile("deep/result")
        assert result
        assert result.read() == b"kept\n"

    said = person.polyaxon("job", "update", "--name=other", "--description=changed", "--tags=t3")
    assert "Job updated." in said
    stored = client.run(run)
    assert (stored["name"], stored["tags"], stored["description"]) == ("other", ["t3"], "changed")


def test_a_job_that_fails_says_so(person: Person, client: Client) -> None:
    person.begin_project("failing")
    person.write({"job.yml": files.job("echo oh no; exit 3")})
    run = person.run("-f", "job.yml")
    assert finished(client, run)["last_status"] == "failed"
    assert facts(person.polyaxon("job", "get"))["last_status"] == "failed"
    last = rows(person.polyaxon("job", "statuses"), "Statuses:")[-1]
    assert last["status"] == "failed"
    assert "3" in last["message"]


def test_a_running_job_is_stopped(person: Person, client: Client) -> None:
    person.begin_project("stopping")
    person.write({"job.yml": files.job("echo begun; sleep 300")})
    run = person.run("-f", "job.yml")
    says(client, run, b"begun")
    assert "Job is being stopped." in person.polyaxon("job", "stop", answers="y\n")
    assert finished(client, run)["last_status"] == "stopped"
    assert facts(person.polyaxon("job", "get"))["last_status"] == "stopped"


def test_restart_copy_and_resume(person: Person, client: Client) -> None:
    person.begin_project("again")
    line = f"echo {{}} >> {OUTPUTS}/lines; cat {OUTPUTS}/lines"
    person.write({"job.yml": files.job(line.format("first")), "other.yml": files.job(line.format("other"))})
    first = person.run("-f", "job.yml")
    finished(client, first)
    logs = {}
    for how in (["restart"], ["restart", "--copy"], ["restart", "-f", "other.yml"], ["resume"]):
        shown = facts(person.polyaxon("job", "-j", str(first.id), *how))
        again = RunReference(person.name, "again", "job", int(shown["id"]))
        assert shown["unique_name"] == f"{person.name}.again.jobs.{again.id}"
        stored = finished(client, again)
        assert stored["original"] == f"{person.name}.again.jobs.{first.id}"
        logs[" ".join(how)] = log(client, again).decode().split()
    assert logs == {
        "restart": ["first"],
        "restart --copy": ["first", "first"],
        "restart -f other.yml": ["other"],
        "resume": ["first", "first"],
    }
    changed = facts(person.polyaxon("job", "-j", str(first.id), "resume", "-f", "other.yml"))
    again = RunReference(person.name, "again", "job", int(changed["id"]))
    finished(client, again)
    assert log(client, again).decode().split() == ["first", "first", "other"]


def test_a_restart_takes_new_code(person: Person, client: Client) -> None:
    person.begin_project("newcode")
    person.write({"job.yml": files.job("cat message"), "message": "old\n"})
    first = person.run("-f", "job.yml", "-u")
    finished(client, first)
    person.write({"message": "new\n"})
    said = person.polyaxon("job", "restart", "-f", "job.yml", "-u")
    assert "Files uploaded." in said
    again = RunReference(person.name, "newcode", "job", int(facts(said)["id"]))
    assert finished(client, again)["commit"] != client.run(first)["commit"]
    assert log(client, again) == b"new\n"
    same = RunReference(
        person.name, "newcode", "job", int(facts(person.polyaxon("job", "-j", str(first.id), "restart"))["id"])
    )
    finished(client, same)
    assert log(client, same) == b"old\n"
    if not person.is_old:
        said = person.polyaxon("job", "-j", str(first.id), "code")
        assert f"Job has code ref: `{client.run(first)['commit']}`" in said
        with tarfile.open(person.folder / "repo.tar.gz") as archive:
            message = next(name for name in archive.getnames() if name.endswith("message"))
            file = archive.extractfile(message)
            assert file
            assert file.read() == b"old\n"


def test_bookmarks(person: Person) -> None:
    person.begin_project("jobmarks")
    person.write({"job.yml": files.job("true")})
    run = str(person.run("-f", "job.yml").id)
    assert "Job is bookmarked." in person.polyaxon("job", "-j", run, "bookmark")
    assert "Job is unbookmarked." in person.polyaxon("job", "-j", run, "unbookmark")


def test_a_job_is_deleted(person: Person, client: Client) -> None:
    person.begin_project("gone")
    person.write({"job.yml": files.job("echo begun; sleep 300")})
    run = person.run("-f", "job.yml")
    assert f"Job `{run.id}` was delete successfully" in person.polyaxon("job", "delete", answers="y\n")
    with pytest.raises(Exception, match="Not found"):
        client.run(run)
    assert f"Could not get job `{run.id}`" in person.polyaxon("job", "-j", str(run.id), "get", code=1)


def test_what_is_not_for_one_machine_is_refused(person: Person, client: Client) -> None:
    """The programs let such a file pass, and show why it was refused."""
    person.begin_project("wide")
    section = {True: "tensorflow: {n_workers: 2}", False: "replicas: {n_workers: 2}"}[person.is_old]
    framework = "" if person.is_old else "framework: tensorflow\n"
    person.write({"wide.yml": files.experiment("true") + f"{framework}environment:\n  {section}\n"})
    said = person.polyaxon("run", "-f", "wide.yml", code=1)
    assert "Could not create experiment." in said
    assert f"400 on {client.url}/api/v1/{person.name}/wide/experiments/" in said
    assert "asks for a run of several machines; polylocal has one" in said
