"""CI: new code starts the run that the code itself describes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from polylocal.api.api_context import ApiContext
from polylocal.statuses import POLYAXON_KINDS, Kind
from polylocal.store.rows import Project

from .conftest import FILES, Caller, Json, P, tar_of

CI = f"{P}/ci"
COULD_NOT = b'"Could not trigger the project CI."'
pytestmark = pytest.mark.usefixtures("project")


def sync(api: Caller, files: dict[str, str], **options: Any) -> tuple[int, bytes]:
    """An upload that requests CI."""
    part = (None, json.dumps(options or {"sync": True}))
    answer = api.put(f"{P}/repo/upload/", files={"repo": ("x", tar_of(files)), "json": part})
    return answer.status_code, answer.content


def count(api: Caller) -> dict[str, int]:
    counted = {kind.plural: api.get(f"{P}/{kind.plural}/").json()["count"] for kind in POLYAXON_KINDS}
    return {word: number for word, number in counted.items() if number}


def test_ci_is_turned_on_changed_and_off(api: Caller) -> None:
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        assert api(method, CI, json={}).json() == {"detail": "Not found."}
    made = api.post(f"{CI}/", {"config": {"a": 1}})
    assert made.status_code == 201
    assert list(made.json()) == ["config", "created_at", "updated_at"]
    assert made.json()["config"] == {"a": 1}
    assert api.get(CI).json() == made.json()
    changed = api.patch(CI, {"config": {"b": 2}}).json()
    assert (changed["config"], changed["created_at"]) == ({"b": 2}, made.json()["created_at"])
    assert changed["updated_at"] > made.json()["updated_at"]
    gone = api.delete(CI)
    assert (gone.status_code, gone.content) == (204, b"")
    assert api.get(CI).status_code == 404


def test_ci_needs_no_config(api: Caller) -> None:
    for body in (None, {}, {"config": None}):
        made = api.post(CI, body)
        assert (made.status_code, made.json()["config"]) == (201, {})
    assert api.post(CI, {"config": [1]}).status_code == 400
    assert api.post(CI, {"config": "x"}).status_code == 400


def test_an_empty_change_changes_nothing(api: Caller) -> None:
    api.post(CI, {"config": {"a": 1}})
    assert api.patch(CI, {}).json()["config"] == {"a": 1}


@pytest.mark.parametrize("kind", [Kind.JOB, Kind.EXPERIMENT, Kind.BUILD, Kind.GROUP])
@pytest.mark.parametrize("name", ["polyaxonci.yml", "polyaxonci.yaml", "polyaxonci.json"])
def test_new_code_starts_a_run(kind: Kind, name: str, api: Caller, context: ApiContext, project: Project) -> None:
    api.post(CI)
    text = json.dumps(FILES[kind]) if name.endswith("json") else yaml.safe_dump(FILES[kind])
    assert sync(api, {name: text, "train.py": "1"}) == (201, b"")
    assert count(api) == {kind.plural: 1}
    made: Json = api.get(f"{P}/{kind.plural}/1/").json()
    assert (made["user"], made["last_status"]) == ("root", "created")
    if kind is not Kind.GROUP:
        assert made["commit"] == context.repository(project).resolve("HEAD")


def test_each_synchronisation_starts_a_run(api: Caller) -> None:
    api.post(CI)
    for number in (1, 2):
        assert sync(api, {"polyaxonci.yml": yaml.safe_dump(FILES[Kind.JOB]), "x": str(number)})[0] == 201
    assert count(api) == {"jobs": 2}


@pytest.mark.parametrize(
    "files",
    [
        {"train.py": "1"},
        {"ci/polyaxonci.yml": yaml.safe_dump(FILES[Kind.JOB])},
        {"polyaxonfile.yml": yaml.safe_dump(FILES[Kind.JOB])},
        {"polyaxonci.yml": yaml.safe_dump(FILES[Kind.NOTEBOOK])},
        {"polyaxonci.yml": ""},
        {"polyaxonci.yml": "- a"},
    ],
)
def test_code_that_describes_no_run(files: dict[str, str], api: Caller, context: ApiContext, project: Project) -> None:
    api.post(CI)
    assert sync(api, files) == (200, COULD_NOT)
    assert count(api) == {}
    assert context.repository(project).resolve("HEAD")  # the upload itself succeeded


def test_code_that_describes_a_wrong_run(api: Caller, context: ApiContext, project: Project) -> None:
    """The code is stored, and the response contains the errors."""
    api.post(CI)
    status, body = sync(api, {"polyaxonci.yml": yaml.safe_dump({**FILES[Kind.JOB], "nosuch": 1})})
    assert status == 400
    assert "nosuch" in body.decode()
    assert count(api) == {}
    commit = context.repository(project).resolve("HEAD")
    assert commit
    assert context.repository(project).files(commit) == {"polyaxonci.yml"}


def test_when_nothing_is_started(api: Caller) -> None:
    """Either CI is off, or the request does not ask for it."""
    files = {"polyaxonci.yml": yaml.safe_dump(FILES[Kind.JOB])}
    assert sync(api, files) == (200, COULD_NOT)
    api.post(CI)
    assert sync(api, files, sync=False) == sync(api, files, delay=True) == (200, b"")
    api.delete(CI)
    assert sync(api, files) == (200, COULD_NOT)
    assert count(api) == {}


def test_a_run_that_was_started_is_noted(api: Caller) -> None:
    api.post(CI)
    sync(api, {"polyaxonci.yml": yaml.safe_dump(FILES[Kind.JOB])})
    actions = [line["event_action"] for line in api.get("/api/v1/activitylogs/root/quick-start/").json()["results"]]
    assert "created" in actions


def test_who_may_change_the_ci(api: Caller, as_ann: Caller, as_job: Caller, nobody: Caller) -> None:
    api.post(CI)
    assert as_ann.get(CI).status_code == as_job.get(CI).status_code == 200
    for caller, status in ((as_ann, 403), (as_job, 403), (nobody, 401)):
        for method in ("POST", "PATCH", "PUT", "DELETE"):
            assert caller(method, CI, json={"config": {"x": 1}}).status_code == status
    assert api.get(CI).json()["config"] == {}
