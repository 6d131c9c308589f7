"""`polylocal ls` of one project, and the output of non-finite numbers."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from polylocal.cli import console
from polylocal.client import http
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

from .conftest import Cli, Result

pytestmark = pytest.mark.usefixtures("daemon")
TUNING = {"matrix": {"lr": {"values": [0.1, 0.2]}}, "random_search": {"n_experiments": 2}}
GROUP = {
    "version": 1,
    "kind": "group",
    "build": {"image": "busybox"},
    "run": {"cmd": "echo {{ lr }}"},
    "hptuning": TUNING,
}


def good(result: Result) -> Result:
    assert (result.code, result.err) == (0, ""), result
    return result


def refused(result: Result, *words: str) -> None:
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1), result
    for word in words:
        assert word in result.err


def first_words(result: Result) -> list[str]:
    """The first column of a table."""
    return [line.split()[0] for line in good(result).out.splitlines()[1:]]


@pytest.fixture
def runs(store: Store, project: Project, root: User) -> list[Run]:
    """A build, a group with two experiments, and a job that failed."""
    tracked = {"is_managed": False}
    build = store.runs.insert(project, root, NewRun(Kind.BUILD))
    group = store.runs.insert(project, root, NewRun(Kind.GROUP, config=GROUP, values={"group_type": "study"}))
    made = [build, group]
    for lr, loss in ((0.2, math.nan), (0.1, 0.25)):
        values = {**tracked, "params": {"lr": lr, "opt": "adam"}}
        run = store.runs.insert(project, root, NewRun(Kind.EXPERIMENT, values=values, group=group))
        store.metrics.add(run, [({"loss": loss, "acc": 0.5}, None)])
        store.runs.transition(run, Status.SUCCEEDED)
        made.append(run)
    job = store.runs.insert(project, root, NewRun(Kind.JOB, values={"name": "train"}))
    store.runs.transition(job, Status.FAILED, "broken")
    return [*made, job]


ALL = ["job/1", "experiment/2", "experiment/1", "group/1", "build/1"]


@pytest.mark.usefixtures("runs")
def test_runs_of_all_kinds_the_last_changed_first(polylocal: Cli) -> None:
    listed = polylocal("ls", "-p", "quick-start")
    assert first_words(listed) == ALL
    assert "PROJECT" not in listed.out  # the column is the same in every line, so it is left out
    assert "broken" in listed.out
    assert first_words(polylocal("ls", "-p", "root/quick-start", "-n", "2")) == ALL[:2]
    assert first_words(polylocal("ls", "-p", "quick-start", "--kind", "experiment")) == ALL[1:3]
    assert first_words(polylocal("ls", "-p", "quick-start", "--open")) == ["group/1", "build/1"]
    found = json.loads(good(polylocal("ls", "-p", "quick-start", "--kind", "experiment", "--json")).out)
    assert found[1]["last_metric"] == {"acc": 0.5, "loss": None}  # the fields of the other lists are there, too


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("options", "labels"),
    [
        (["-q", "status:failed"], ["job/1"]),
        (["-s", "created_at"], [*reversed(ALL)]),
        (["-q", "status:succeeded", "-s", "-finished_at", "--kind", "experiment"], ["experiment/2", "experiment/1"]),
        (["--kind", "experiment", "-s", "params.lr"], ["experiment/2", "experiment/1"]),
        (["--kind", "experiment", "-s", "-params.lr"], ["experiment/1", "experiment/2"]),
        (["--kind", "experiment", "-s", "-metric.loss"], ["experiment/2", "experiment/1"]),
        (["--kind", "experiment", "-q", "params.lr:<0.15"], ["experiment/2"]),
        (["--kind", "experiment", "-q", "metric.loss:<9"], ["experiment/2"]),
    ],
)
def test_queries_and_orders(polylocal: Cli, options: list[str], labels: list[str]) -> None:
    assert first_words(polylocal("ls", "-p", "quick-start", *options)) == labels


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-s", "nonsense"], ["`nonsense` is not a key to sort by", "created_at", "finished_at", "params.NAME"]),
        (["-s", "created_at,-id", "--kind", "job"], ["`id` is not a key to sort by", "created_at"]),
        (["-s", "params.lr"], ["`params.lr`", "--kind experiment"]),
        (["-q", "metric.loss:<1"], ["`metric.loss`", "--kind experiment"]),
        (["-q", "foo:1"], ["key `foo` is not supported"]),
        (["--kind", "nosuch"], ["There is no kind `nosuch`"]),
    ],
)
def test_what_can_not_be_listed(polylocal: Cli, options: list[str], words: list[str]) -> None:
    refused(polylocal("ls", "-p", "quick-start", *options), *words)


def test_no_runs_yet_is_said_where_there_are_none(polylocal: Cli, store: Store, project: Project, root: User) -> None:
    assert good(polylocal("ls", "-p", "quick-start")).out == "No runs yet.\n"
    store.runs.insert(project, root, NewRun(Kind.EXPERIMENT))
    assert first_words(polylocal("ls", "-p", "quick-start")) == ["experiment/1"]
    assert good(polylocal("ls", "-p", "quick-start", "--kind", "job")).out == "No jobs yet.\n"
    assert good(polylocal("ls", "-p", "quick-start", "-q", "status:failed")).out == "No runs match.\n"


@pytest.mark.usefixtures("runs")
def test_more_than_a_page_holds(polylocal: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_MAX_RUNS", 2)
    assert first_words(polylocal("ls", "-p", "quick-start")) == ALL
    assert first_words(polylocal("ls", "-p", "quick-start", "-n", "3")) == ALL[:3]
    assert first_words(polylocal("ls", "-p", "quick-start", "-n", "4000")) == ALL
    refused(polylocal("ls", "-p", "quick-start", "-n", "0"), "limit")


@pytest.mark.usefixtures("runs")
def test_a_list_fits_a_narrow_screen(polylocal: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.out, "_width", 80)
    lines = good(polylocal("ls", "-p", "quick-start")).out.splitlines()
    assert len(lines) == 1 + len(ALL)
    assert max(len(line) for line in lines) <= 80


# -- non-finite numbers -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("runs")
def test_a_run_shows_its_params_and_last_metrics(polylocal: Cli) -> None:
    shown = good(polylocal("show", "experiment/1")).out
    assert "lr=0.2  opt=adam" in shown
    assert "acc=0.5  loss=nan" in shown
    assert "loss=0.25" in good(polylocal("show", "experiment/2")).out
    found = json.loads(good(polylocal("show", "experiment/1", "--json")).out, parse_constant=pytest.fail)
    assert (found["last_metric"]["loss"], found["last_metric_not_finite"]) == (None, {"loss": "nan"})


@pytest.mark.usefixtures("runs")
def test_the_table_of_a_group(polylocal: Cli) -> None:
    lines = good(polylocal("group", "results", "1", "-m", "loss", "--minimize")).out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["experiment/2", "experiment/1"]
    assert "nan" in lines[2]
    table = good(polylocal("group", "results", "1", "--csv")).out.splitlines()
    rows: list[dict[str, Any]] = [dict(zip(table[0].split(","), line.split(","), strict=True)) for line in table[1:]]
    assert {row["metric.loss"] for row in rows} == {"nan", "0.25"}
