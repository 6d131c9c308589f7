"""A full disk under the home folder: requests that begin something new are refused with "try again", others work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from support import fill, small_disk

from polylocal.api.api_context import ApiContext
from polylocal.files import disk
from polylocal.settings import Settings, load
from polylocal.statuses import POLYAXON_KINDS, Kind
from polylocal.store import Store
from polylocal.store.rows import Project

from .conftest import FILES, Caller, P, one_of_each, put_code, upload

pytestmark = pytest.mark.usefixtures("project")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setattr(disk, "_CACHED_S", 0.0)
    with small_disk(tmp_path / "home", 48) as home:
        yield load(home=home, min_free_mib=16)


@pytest.fixture
def ballast(settings: Settings, api: Caller) -> Path:
    """Fills the disk. There is room again when the file is removed."""
    return fill(settings.home, 12 << 20)


def assert_full(answer: httpx2.Response) -> None:
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "is full: 12 MiB are free, and nothing new begins below 16 (min_free_mib)" in answer.text


@pytest.mark.parametrize("kind", list(POLYAXON_KINDS))
def test_no_run_begins_and_then_it_does(api: Caller, ballast: Path, kind: Kind) -> None:
    path = f"{P}/{kind}/start/" if kind.is_server else f"{P}/{kind.plural}/"
    assert_full(api.post(path, {"config": FILES[kind]}))
    assert api.get(f"{P}/{kind.plural}/").json()["count"] == 0
    ballast.unlink()
    assert api.post(path, {"config": FILES[kind]}).status_code in (200, 201)


@pytest.mark.parametrize("how", ["restart", "resume", "copy"])
@pytest.mark.parametrize("kind", [Kind.JOB, Kind.EXPERIMENT])
def test_no_clone_is_created(
    api: Caller, settings: Settings, store: Store, project: Project, kind: Kind, how: str
) -> None:
    run = one_of_each(store, project, store.users.get("root"))[kind]
    store.runs.transition(run, "succeeded")
    fill(settings.home, 12 << 20)
    path = f"{P}/{kind.plural}/{run.id}/{how}/"
    if api.post(path, {}).status_code == 404:
        pytest.fail(f"there is no {path}")
    assert_full(api.post(path, {}))


def test_no_code_is_taken(api: Caller, ballast: Path, context: ApiContext, project: Project) -> None:
    assert_full(upload(api, {"a": "1"}))
    ballast.unlink()
    assert upload(api, {"a": "1"}).status_code in (200, 201)


def test_no_code_is_fetched(api: Caller, ballast: Path, tmp_path: Path) -> None:
    assert_full(api.post(f"{P}/repo/external/", {"git_url": f"file://{tmp_path}/none"}))


def test_existing_runs_can_be_read_stopped_and_deleted(
    api: Caller, ballast: Path, context: ApiContext, store: Store, project: Project
) -> None:
    runs = one_of_each(store, project, store.users.get("root"))
    put_code(context, project, {"a": "1"})
    job = f"{P}/jobs/{runs[Kind.JOB].id}"
    assert api.get(job).status_code == 200
    assert api.get(f"{job}/logs/").status_code in (200, 404)
    assert api.post(f"{job}/stop/", {}).status_code == 200
    assert api.delete(job).status_code == 204
    assert api.patch(P, {"description": "full"}).status_code == 200
    assert api.post(f"{P}/experiments/{runs[Kind.EXPERIMENT].id}/metrics/", {"values": {"a": 1}}).status_code == 201


def test_waiting_runs_report_the_reason(api: Caller, store: Store, project: Project, settings: Settings) -> None:
    made = api.post(f"{P}/jobs/", {"config": FILES[Kind.JOB]}).json()
    ballast = fill(settings.home, 12 << 20)
    waits_for = {run["id"]: run["waits_for"] for run in api.get("/polylocal/v1/runs").json()["results"]}
    assert "is full: 12 MiB are free" in waits_for[made["id"]]
    run = store.runs.find(Kind.JOB, made["id"])
    store.runs.transition(run, "unschedulable", "no room")
    assert "is full" in api.get(f"/polylocal/v1/runs/job/{run.id}").json()["waits_for"]
    ballast.unlink()
    assert api.get(f"/polylocal/v1/runs/job/{run.id}").json()["waits_for"] == "the scheduler, which starts it next"


def test_the_state_of_the_disk_is_reported(api: Caller, nobody: Caller, ballast: Path) -> None:
    told = nobody.get("/statusz").json()["disk"]
    assert (told["is_healthy"], told["severity"]) == (False, "error")
    assert "polylocal_disk_full 1.0" in api.get("/metrics").text
    ballast.unlink()
    assert nobody.get("/statusz").json()["disk"] == {"is_healthy": True, "message": "", "severity": "info"}
