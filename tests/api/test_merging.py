"""Merges into a run or a project: each is one transaction, so parallel changes are not lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from polylocal.api import bodies
from polylocal.errors import InvalidInput
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run

from .conftest import Caller, P

E = f"{P}/experiments"
MANY = 8

pytestmark = pytest.mark.usefixtures("project")


def at_once(send: Callable[[int], httpx2.Response]) -> list[int]:
    """The status codes of concurrent requests."""
    ready = threading.Barrier(MANY)

    def begun(number: int) -> int:
        ready.wait()
        return send(number).status_code

    with ThreadPoolExecutor(MANY) as pool:
        return list(pool.map(begun, range(MANY)))


def test_eight_merges_at_once_are_all_kept(live_api: Caller) -> None:
    live_api.post(f"{E}/", {"params": {"lr": 1}, "tags": ["first"], "is_managed": False})

    def send(number: int) -> httpx2.Response:
        more = {name: {f"k{number}": number} for name in ("run_env", "data_refs")}
        body = {"params": {f"p{number}": number}, "merge": True, "tags": [f"t{number}"], **more}
        return live_api.patch(f"{E}/1/", body)

    assert at_once(send) == [200] * MANY
    found = live_api.get(f"{E}/1/").json()
    assert found["params"] == {"lr": 1} | {f"p{number}": number for number in range(MANY)}
    assert found["tags"][0] == "first"
    assert set(found["tags"][1:]) == {f"t{number}" for number in range(MANY)}
    assert found["run_env"] == found["data_refs"] == {f"k{number}": number for number in range(MANY)}
    for number in range(MANY):
        assert live_api.get(f"{E}/?query=params.p{number}:{number}").json()["count"] == 1


def test_tags_of_a_project_too(live_api: Caller) -> None:
    codes = at_once(lambda number: live_api.patch(f"{P}/", {"tags": [f"t{number}"], "merge": True}))
    assert codes == [200] * MANY
    assert set(live_api.get(f"{P}/").json()["tags"]) == {f"t{number}" for number in range(MANY)}


def test_a_merge_sees_changes_since_the_look_up_of_its_run(
    api: Caller, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test changes the run exactly between its look-up and the merge."""
    api.post(f"{E}/", {"params": {"a": 1}, "tags": ["a"]})
    change = store.runs.change

    def late(run: Run, values_for: Any) -> Run:
        monkeypatch.setattr(store.runs, "change", change)
        assert api.patch(f"{E}/1/", {"params": {"b": 2}, "tags": ["b"], "merge": True}).status_code == 200
        return change(run, values_for)

    monkeypatch.setattr(store.runs, "change", late)
    found = api.patch(f"{E}/1/", {"params": {"c": 3}, "tags": ["c"], "merge": True}).json()
    assert (found["params"], found["tags"]) == ({"a": 1, "b": 2, "c": 3}, ["a", "b", "c"])


def test_the_bounds_apply_to_the_result_of_all_merges(live_api: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_PARAMS", 5)
    live_api.post(f"{E}/", {"params": {"a": 1, "b": 2}})
    codes = at_once(lambda number: live_api.patch(f"{E}/1/", {"params": {f"p{number}": 1}, "merge": True}))
    assert sorted(codes) == [200] * 3 + [400] * 5
    assert len(live_api.get(f"{E}/1/").json()["params"]) == 5


def test_a_name_that_is_taken_keeps_nothing_else_of_the_body(api: Caller) -> None:
    api.post(f"{E}/", {"name": "taken"})
    api.post(f"{E}/", {"name": "mine", "params": {"a": 1}, "tags": ["a"]})
    before = api.get(f"{E}/2/").json()
    answer = api.patch(f"{E}/2/", {"name": "taken", "params": {"b": 2}, "tags": ["b"], "merge": True})
    assert answer.json() == {"name": ["A experiment with name `taken` already exists in this project."]}
    assert api.get(f"{E}/2/").json() == before
    assert api.get(f"{E}/?query=params.b:2").json()["count"] == 0
    api.post("/api/v1/projects/", {"name": "other"})
    assert api.patch(f"{P}/", {"name": "other", "tags": ["x"], "merge": True}).status_code == 400
    assert api.get(f"{P}/").json()["tags"] is None


@pytest.mark.parametrize("merge", [True, False])
def test_params_count_where_a_body_has_their_older_name_too(merge: bool, api: Caller) -> None:
    api.post(f"{E}/", {"params": {"a": 1}})
    found = api.patch(f"{E}/1/", {"declarations": {"b": 2}, "params": {"c": 3}, "merge": merge}).json()
    assert found["params"] == ({"a": 1, "c": 3} if merge else {"c": 3})


def test_a_change_that_raises_writes_nothing(store: Store, project: Project) -> None:
    run = store.runs.insert(project, store.users.get("root"), NewRun(Kind.EXPERIMENT, values={"params": {"a": 1}}))

    def refuse(found: Run) -> dict[str, Any]:
        raise InvalidInput(["no"])

    with pytest.raises(InvalidInput):
        store.runs.change(run, refuse)
    assert store.runs.by_pk(run.pk) == run
    assert store.runs.change(run, lambda found: {"tags": [*(found.tags or []), "x"]}).tags == ["x"]
