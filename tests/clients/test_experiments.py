"""Experiments through the original command lines; their reports are made as a client in a container makes them."""

from __future__ import annotations

import tarfile

import pytest

from clients import files
from clients.originals import Person, facts, rows
from clients.stored import finished, log, says
from polylocal.client.http import Client, RunReference

pytestmark = pytest.mark.engine

OUTPUTS = "$POLYAXON_RUN_OUTPUTS_PATH"


def reporting(person: Person, loss: object) -> str:
    """A command that reports this loss; busybox has no Python for a client."""
    body = f'[{{\\"values\\": {{\\"loss\\": {loss}}}}}]'
    of_project = f"$POLYAXON_API_HTTP_HOST/api/v1/{person.name}/{person.project}"
    path = f"{of_project}/experiments/${{POLYAXON_RUN_OUTPUTS_PATH##*/}}/metrics/"
    headers = '--header "Authorization: Token $POLYAXON_SECRET_USER_TOKEN" --header "Content-Type: application/json"'
    return f'wget -q -O - {headers} --post-data "{body}" {path}'


def test_an_experiment_from_its_file_to_its_outputs(person: Person, client: Client) -> None:
    person.begin_project("trial")
    cmd = f"echo lr={{{{ lr }}}} {{{{ activation }}}}; echo kept > {OUTPUTS}/result; {reporting(person, 0.25)}"
    person.write({"xp.yml": files.experiment(cmd, lr=0.1, activation="relu")})
    run = person.run("-f", "xp.yml", "--name=one", "--tags=t1,t2", "--description=the first")
    stored = finished(client, run)
    assert stored["last_status"] == "succeeded", log(client, run)
    assert (stored["name"], stored["tags"], stored["description"]) == ("one", ["t1", "t2"], "the first")
    assert stored["params"] == {"lr": 0.1, "activation": "relu"}
    assert stored["last_metric"] == {"loss": 0.25}

    shown = person.polyaxon("experiment", "get")
    assert "the first" in shown
    assert facts(shown)["unique_name"] == f"{person.name}.trial.{run.id}"
    assert (facts(shown)["lr"], facts(shown)["activation"], facts(shown)["loss"]) == ("0.1", "relu", "0.25")
    assert facts(shown)["last_status"] == "succeeded"

    assert "lr=0.1 relu" in person.polyaxon("experiment", "logs", "--past")
    history = {line["status"] for line in rows(person.polyaxon("experiment", "statuses"), "Statuses:")}
    assert history >= {"created", "building", "scheduled", "running", "succeeded"}
    jobs = rows(person.polyaxon("experiment", "jobs"), "Jobs:")
    assert [job["last_status"] for job in jobs] == ["succeeded"]
    shown = facts(person.polyaxon("experiment", "get", "-j", jobs[0]["id"]))
    assert shown["last_status"] == "succeeded"
    said = person.polyaxon("experiment", "statuses", "-j", jobs[0]["id"])
    assert "succeeded" in {line["status"] for line in rows(said, "Statuses:")}

    assert "Files downloaded." in person.polyaxon("experiment", "outputs")
    with tarfile.open(person.folder / f"{person.name}.trial.{run.id}.tar.gz", "r:gz") as archive:
        result = archive.extractfile("result")
        assert result
        assert result.read() == b"kept\n"

    said = person.polyaxon("experiment", "update", "--name=other", "--description=changed", "--tags=t3")
    assert "Experiment updated." in said
    stored = client.run(run)
    assert (stored["name"], stored["tags"], stored["description"]) == ("other", ["t3"], "changed")
    assert "Experiment is bookmarked." in person.polyaxon("experiment", "bookmark")
    assert "Experiment is unbookmarked." in person.polyaxon("experiment", "unbookmark")
    said = person.polyaxon("experiment", "delete", answers="y\n")
    assert f"Experiment `{run.id}` was delete successfully" in said
    said = person.polyaxon("experiment", "-xp", str(run.id), "get", code=1)
    assert f"Could not load experiment `{run.id}` info." in said


def test_a_running_experiment_is_stopped(person: Person, client: Client) -> None:
    person.begin_project("ending")
    person.write({"xp.yml": files.experiment("echo begun; sleep 300")})
    run = person.run("-f", "xp.yml")
    says(client, run, b"begun")
    assert "Experiment is being stopped." in person.polyaxon("experiment", "-xp", str(run.id), "stop", "-y")
    assert finished(client, run)["last_status"] == "stopped"


def test_restart_copy_and_resume(person: Person, client: Client) -> None:
    person.begin_project("retrial")
    line = f"echo {{}} {{{{{{{{ lr }}}}}}}} >> {OUTPUTS}/lines; cat {OUTPUTS}/lines"
    one, other = line.format("first"), line.format("other")
    person.write({"xp.yml": files.experiment(one, lr=0.1), "other.yml": files.experiment(other, lr=0.5)})
    first = person.run("-f", "xp.yml")
    finished(client, first)
    logs = {}
    for how, word in (
        (["restart"], "restarted"),
        (["restart", "--copy"], "copied"),
        (["restart", "-f", "other.yml"], "restarted"),
        (["resume"], "resumed"),
    ):
        said = person.polyaxon("experiment", "-xp", str(first.id), *how)
        again = RunReference(person.name, "retrial", "experiment", int(said.partition(f"was {word} with id ")[2]))
        stored = finished(client, again)
        assert stored["original"] == f"{person.name}.retrial.{first.id}"
        assert stored["params"] == {"lr": 0.5 if "other.yml" in how else 0.1}
        logs[" ".join(how)] = log(client, again).decode().splitlines()
    assert logs == {
        "restart": ["first 0.1"],
        "restart --copy": ["first 0.1", "first 0.1"],
        "restart -f other.yml": ["other 0.5"],
        "resume": ["first 0.1", "first 0.1"],
    }


def test_experiments_are_listed_with_their_params_and_metrics(person: Person, client: Client) -> None:
    person.begin_project("many")
    rates = (0.1, 0.2, 0.3)
    for rate in rates:
        person.write({"xp.yml": files.experiment(reporting(person, round(rate * 10)), lr=rate)})
        finished(client, person.run("-f", "xp.yml"))

    def listed(*options: str) -> list[dict[str, str]]:
        return rows(person.polyaxon("project", "experiments", *options), "Experiments:")

    assert {row["last_status"] for row in listed()} == {"succeeded"}
    assert [row["loss"] for row in listed("-m", "-s", "metric.loss")] == ["1", "2", "3"]
    declarations = listed("-d" if person.is_old else "-p", "-s", "-created_at")
    assert [row["lr"] for row in declarations] == ["0.3", "0.2", "0.1"]
    assert [row["loss"] for row in listed("-m", "-q", "metric.loss:>1.5", "-s", "-metric.loss")] == ["3", "2"]
    where = "declarations" if person.is_old else "params"
    assert len(listed("-q", f"{where}.lr:0.2")) == 1
    assert len(listed("-i", "-q", "status:succeeded, metric.loss:<=2")) == 2
    assert listed("-q", "status:running") == []
