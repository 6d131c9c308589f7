"""Runs that can never run on this machine are refused at their creation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient
from support import job

from polylocal.api.api_context import ApiContext
from polylocal.polyaxonfile import Capacity
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, User

from .conftest import Caller, P, tar_of

NONE_HERE = (
    "environment.resources.gpu.limits: The run asks for 1 GPU; this machine has none that the engine can give"
    " (polylocal doctor says why); take `gpu` out to run on the processor."
)
MATRIX = {"matrix": {"lr": {"values": [0.1, 0.2]}}}
FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "job": ("jobs/", job()),
    "experiment": ("experiments/", job(kind="experiment")),
    "group": ("groups/", job(kind="group", hptuning=MATRIX)),
    "notebook": ("notebook/start/", {"version": 1, "kind": "notebook", "build": {"image": "a"}}),
    "tensorboard": ("tensorboard/start/", {"version": 1, "kind": "tensorboard", "build": {"image": "a"}}),
}
On = Callable[..., Caller]


@pytest.fixture
def on(context: ApiContext, serving: Callable[..., TestClient], api: Caller) -> On:
    """on(cpus=2, memory_mib=4096, gpus=0) → the admin of a daemon on such a machine. GPUs only count on request."""

    def made(cpus: float = 2, memory_mib: float = 4096, gpus: int | None = 0) -> Caller:
        def capacity(with_gpus: bool) -> Capacity:
            return Capacity(cpus, memory_mib, gpus if with_gpus else None)

        return Caller(serving(replace(context, capacity=capacity)), api.token)

    return made


def asking(content: dict[str, Any], **resources: Any) -> dict[str, Any]:
    return {**content, "environment": {"resources": resources}}


def messages(api: Caller, path: str) -> list[str]:
    return [row["message"] for row in api.get(f"{P}/{path}/statuses/").json()["results"] if row["message"]]


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"cpu": {"requests": 8}}, "environment.resources.cpu.requests: The run asks for 8 cores; this machine has 2."),
        (
            {"memory": {"limits": 99999}},
            "environment.resources.memory.limits: The run asks for 99999 MiB of memory; this machine has 4096 MiB.",
        ),
        ({"gpu": {"limits": 1}}, NONE_HERE),
    ],
)
def test_every_kind_that_runs_in_a_container(on: On, project: Project, kind: str, resources: Any, message: str) -> None:
    path, content = FILES[kind]
    answer = on().post(f"{P}/{path}", {"content": asking(content, **resources)})
    assert (answer.status_code, answer.json()) == (400, {"content": [message]})
    word = Kind(kind).plural
    assert on().get(f"{P}/{word}/").json()["count"] == 0


def test_the_file_and_the_line_are_reported(on: On, project: Project) -> None:
    text = "version: 1\nkind: job\nbuild: {image: a}\nrun: {cmd: x}\nenvironment:\n  resources:\n"
    text += "    cpu:\n      requests: 8\n"
    body = {"content": text, "files": [{"name": "job.yml", "line": 1}]}
    [message] = on().post(f"{P}/jobs/", body).json()["content"]
    assert message.startswith("job.yml, line 8, environment.resources.cpu.requests: The run asks for 8 cores")


def test_more_gpus_than_there_are(on: On, project: Project) -> None:
    answer = on(gpus=2).post(f"{P}/jobs/", {"content": asking(job(), gpu={"limits": 4})})
    assert "The run asks for 4 GPUs; this machine has 2." in answer.json()["content"][0]
    assert on(gpus=2).post(f"{P}/jobs/", {"content": asking(job(), gpu={"limits": 2})}).status_code == 201


def test_half_a_gpu(on: On, project: Project) -> None:
    answer = on(gpus=2).post(f"{P}/jobs/", {"content": asking(job(), gpu={"limits": 0.5})})
    assert answer.status_code == 400
    assert "environment.resources.gpu.limits: A container gets whole GPUs, not 0.5" in answer.json()["content"][0]


def test_a_limit_above_the_machine_is_a_warning(on: On, project: Project) -> None:
    api = on()
    made = api.post(f"{P}/jobs/", {"content": asking(job(), cpu={"requests": 1, "limits": 8})})
    assert made.status_code == 201
    wanted = "environment.resources.cpu.limits: The limit of 8 cores is cut to what this machine has, 2 cores."
    assert made.json()["warnings"] == [wanted]
    assert messages(api, "jobs/1") == [wanted]


def test_resources_that_fit_cause_no_message(on: On, project: Project) -> None:
    fitting = asking(job(), cpu={"requests": 0.5, "limits": 2}, memory={"limits": 4096}, gpu={"limits": 0})
    made = on().post(f"{P}/jobs/", {"content": fitting})
    assert (made.status_code, made.json()["warnings"]) == (201, [])


def test_a_point_of_the_matrix_that_can_not_run(on: On, project: Project) -> None:
    content = job(kind="group", hptuning={"matrix": {"n": {"values": [1, 64]}}})
    answer = on().post(f"{P}/groups/", {"content": asking(content, cpu={"limits": "{{ n }}"})})
    assert answer.status_code == 400
    assert "The run asks for 64 cores; this machine has 2." in answer.json()["content"][0]


def test_a_clone_is_judged_by_its_own_resources(on: On, project: Project) -> None:
    api = on()
    assert api.post(f"{P}/jobs/", {"content": job()}).status_code == 201
    over = {"content": {"environment": {"resources": {"cpu": {"limits": 3}}}}}
    answer = api.post(f"{P}/jobs/1/restart/", over)
    assert answer.status_code == 400
    assert "The run asks for 3 cores; this machine has 2." in str(answer.json())


@pytest.mark.parametrize(
    ("resources", "words"), [({"gpu": {"limits": 0.5}}, "whole GPUs, not 0.5"), ({"cpu": {"limits": 3}}, "3 cores")]
)
@pytest.mark.parametrize("way", ["restart", "copy", "resume"])
def test_a_clone_of_an_older_run_gets_a_clear_error(
    on: On, store: Store, project: Project, root: User, way: str, resources: Any, words: str
) -> None:
    config = asking(job(), **resources)
    store.runs.insert(project, root, NewRun(Kind.JOB, content=None, config=config, resources=resources))
    answer = on().post(f"{P}/jobs/1/{way}/")
    assert answer.status_code == 400
    assert words in str(answer.json())
    assert store.runs.by_pk(1).resources == resources


def test_code_that_starts_a_run_of_its_own(on: On, project: Project) -> None:
    api = on()
    api.post(f"{P}/ci")
    code = tar_of({"polyaxonci.json": json.dumps(asking(job(), cpu={"limits": 9}))})
    part = (None, json.dumps({"sync": True}))
    answer = api.put(f"{P}/repo/upload/", files={"repo": ("x", code), "json": part})
    assert answer.status_code == 400
    assert "The run asks for 9 cores; this machine has 2." in answer.text
    assert api.get(f"{P}/jobs/").json()["count"] == 0


def test_an_engine_that_never_answered_refuses_nothing(api: Caller, project: Project) -> None:
    assert api.post(f"{P}/jobs/", {"content": asking(job(), cpu={"limits": 999})}).status_code == 201


def test_a_run_that_its_client_runs_is_not_judged(on: On, project: Project) -> None:
    """The client may run it on any machine."""
    body = {"content": asking(job(kind="experiment"), gpu={"limits": 8}), "is_managed": False}
    assert on().post(f"{P}/experiments/", body).status_code == 201


def test_gpus_are_counted_only_for_a_run_that_asks_for_some(
    context: ApiContext, serving: Callable[..., TestClient], api: Caller, project: Project
) -> None:
    counted: list[bool] = []

    def capacity(with_gpus: bool) -> Capacity:
        counted.append(with_gpus)
        return Capacity(2, 4096, 1 if with_gpus else None)

    caller = Caller(serving(replace(context, capacity=capacity)), api.token)
    for resources in ({"cpu": {"limits": 1}}, {"gpu": {"limits": 0}}, {"gpu": {"limits": 1}}):
        assert caller.post(f"{P}/jobs/", {"content": asking(job(), **resources)}).status_code == 201
    assert counted == [False, False, True]
