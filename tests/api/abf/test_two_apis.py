"""Both APIs on one port: separate paths, the same users and projects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from polylocal.errors import InvalidInput
from polylocal.store.rows import Project

from .farm import NOT_FOUND, Farm, Person, basic

WORDS = "build_lists platforms repositories arches users user search file_stores upload downloads projects".split()


@pytest.fixture
def other(farm: Farm) -> Person:
    """ivan as a client of the Polyaxon API."""
    return Person(farm.nobody.http, {"Authorization": f"Token {farm.ids.tokens['ivan']}"}, "ivan", farm.ivan.id)


@pytest.mark.parametrize("name", [*WORDS, *(word.upper() for word in WORDS)])
def test_reserved_words_of_paths_are_refused_as_user_names(name: str, shared: Farm) -> None:
    with pytest.raises(InvalidInput):
        shared.store.users.add(name)


def test_names_that_resemble_reserved_words(farm: Farm) -> None:
    for name in ("build_list", "searching", "uploads2", "xusers"):
        assert farm.store.users.add(name).username == name


def test_projects_of_both(farm: Farm, other: Person) -> None:
    made = other.post("projects/", {"name": "learning"})
    assert (made.status_code, made.json()["name"]) == (201, "learning")
    assert other.get("ivan/learning/").json()["unique_name"] == "ivan.learning"
    assert other.get("ivan/").json()["count"] >= 1
    assert farm.ivan.get("projects.json").status_code == 200
    answer = farm.ivan.post("projects.json", {"name": "learning2"})
    assert answer.status_code == 422


def test_a_job_still_runs_beside_build_lists(farm: Farm, other: Person) -> None:
    other.post("projects/", {"name": "learning"})
    config = {"version": 1, "kind": "job", "build": {"image": "busybox"}, "run": {"cmd": "true"}}
    first = other.post("ivan/learning/jobs/", {"config": config})
    farm.new()
    second = other.post("ivan/learning/jobs/", {"config": config})
    assert (first.status_code, second.status_code) == (201, 201)
    assert (first.json()["id"], second.json()["id"]) == (1, 2)
    assert [item["id"] for item in other.get("ivan/learning/jobs/").json()["results"]] == [2, 1]


def test_a_build_list_is_no_run_of_the_other_kinds(farm: Farm, other: Person) -> None:
    build_list = farm.new()
    for kind in ("jobs", "builds", "experiments"):
        assert other.get(f"ivan/evil_tools/{kind}/").json()["count"] == 0
        assert other.get(f"ivan/evil_tools/{kind}/{build_list}/").status_code == 404


@pytest.mark.parametrize("path", ["users", "users/"])
def test_the_current_user_in_the_other_api(path: str, other: Person) -> None:
    assert other.get(path).json()["username"] == "ivan"


def test_errors_of_the_other_api_are_its_own(farm: Farm, other: Person) -> None:
    assert list(other.get("ivan/nosuch/").json()) == ["detail"]
    assert list(farm.nobody.get("ivan/evil_tools/").json()) == ["detail"]
    assert farm.nobody.get("ivan/evil_tools/").headers["www-authenticate"] == "Token"
    assert list(farm.nobody.post("projects/", {"name": "x"}).json()) == ["detail"]


def test_unknown_paths_of_each_api(farm: Farm) -> None:
    assert farm.ivan.get("build_lists/1/nosuch").json() == NOT_FOUND
    assert farm.ivan.get("nosuch/nosuch/", headers=farm.ivan.headers).json() != NOT_FOUND


@pytest.mark.parametrize("suffix", ["", ".json", "/"])
def test_paths_with_and_without_their_suffix(suffix: str, shared: Farm) -> None:
    build_list = shared.new()
    for path in (
        "build_lists",
        f"build_lists/{build_list}",
        "arches",
        "user",
        "platforms",
        f"projects/{shared.ids.evil_tools}",
        f"projects/{shared.ids.evil_tools}/build_lists",
        "search",
    ):
        assert shared.ivan.get(f"{path}{suffix}").status_code == 200, path
    query = "?owner=ivan&name=evil_tools"
    assert shared.ivan.get(f"projects/get_id{suffix}{query}").json()["project"]["id"] == shared.ids.evil_tools
    assert shared.ivan.put(f"build_lists/{build_list}/cancel{suffix}").status_code == 200


def test_a_project_is_one_in_both(farm: Farm, other: Person) -> None:
    found = other.get("ivan/evil_tools/").json()
    assert (found["id"], found["name"]) == (farm.ids.evil_tools, "evil_tools")
    farm.ivan.change("DELETE", f"projects/{farm.ids.evil_tools}.json")
    assert other.get("ivan/evil_tools/").status_code == 404


def test_a_hidden_project_is_hidden_in_both(farm: Farm) -> None:
    token = {"Authorization": f"Token {farm.ids.tokens['petr']}"}
    assert Person(farm.nobody.http, token).get("ivan/secret_tools/").status_code in (403, 404)


def test_a_deleted_one_of_the_other_api_takes_its_builds_with_it(farm: Farm, other: Person) -> None:
    build_list = farm.new()
    assert other.delete("ivan/evil_tools/").status_code == 204
    assert farm.ivan.get(f"build_lists/{build_list}.json").status_code == 404
    assert farm.ivan.get("build_lists.json").json()["build_lists"] == []


def test_no_run_is_created_in_a_project_that_is_deleted_concurrently(
    farm: Farm, other: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user deletes the project between the look-up and the creation of the run."""

    def deleting(real: Callable[..., Any]) -> Callable[..., Any]:
        def make(project: Project, *more: Any) -> Any:
            farm.store.projects.delete(project)
            return real(project, *more)

        return make

    other.post("projects/", {"name": "learning"})
    config = {"version": 1, "kind": "job", "build": {"image": "busybox"}, "run": {"cmd": "true"}}
    with monkeypatch.context() as patched:
        patched.setattr(farm.store.runs, "insert", deleting(farm.store.runs.insert))
        patched.setattr(farm.store.build_lists, "create", deleting(farm.store.build_lists.create))
        job = other.post("ivan/learning/jobs/", {"config": config})
        build_list = farm.ivan.post("build_lists.json", farm.body())
    assert (job.status_code, list(job.json())) == (404, ["detail"])
    assert (build_list.status_code, build_list.json()) == (404, NOT_FOUND)
    with farm.store.database.read() as db:
        assert db.execute("select count(*) from runs").fetchone()[0] == 0
    assert farm.count() == 0


def test_builds_of_an_archived_project_are_hidden(farm: Farm, other: Person) -> None:
    """Its build lists are hidden like the project, until the project is restored."""
    made = farm.new(farm.for_lts(), status=0)
    before = farm.row(made)
    assert other.post("ivan/evil_tools/archive").status_code in (200, 204)
    for person in (farm.ivan, farm.olga, farm.root):
        answers = [person.get(f"build_lists/{made}.json")]
        answers += [
            person.put(f"build_lists/{made}/{action}.json")
            for action in ("cancel", "publish", "create_container", "reject_publish")
        ]
        assert [(answer.status_code, answer.json()) for answer in answers] == [(404, NOT_FOUND)] * 5
        log = person.http.get(f"/build_lists/{made}/log", headers=person.headers)
        assert log.status_code == 404
    assert farm.row(made) == before
    assert other.post("ivan/evil_tools/restore").status_code in (200, 204)
    assert farm.show(made)["status"] == 0


def test_a_new_user_can_build_at_once(farm: Farm) -> None:
    user = farm.store.users.add("eve", email="eve@example.org")
    eve = Person(farm.nobody.http, basic("eve", farm.store.users.new_token(user)), "eve", user.id)
    number = eve.create(
        "projects.json", "project", **{"name": "tools", "owner_id": eve.id, "owner_type": "User", "is_package": True}
    )
    newest = farm.put_code(number, {"a": "1"})
    repository = eve.get(f"projects/{number}.json").json()["project"]["repositories"][0]["id"]
    body = farm.body(project_id=number, commit_hash=newest, save_to_repository_id=repository)
    assert farm.show(farm.new(body, by=eve))["owner"]["uname"] == "eve"
