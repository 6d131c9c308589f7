"""Projects: creation, changes, bookmarks, deletion, and conflicts of names."""

from __future__ import annotations

from collections.abc import Callable

from support import job

from polylocal.store import Store
from polylocal.store.rows import Project, Run, User

from .conftest import Caller, P


def test_creation_with_all_fields(api: Caller) -> None:
    values = {"name": "new", "description": "d", "readme": "# Read", "tags": ["b", "a", "b"], "is_public": False}
    made = api.post("/api/v1/projects/", values).json()
    found = api.get("/api/v1/root/new/").json()
    for answer in (made, found):
        assert (answer["description"], answer["tags"], answer["is_public"]) == ("d", ["b", "a"], False)
        assert (answer["owner"], answer["bookmarked"]) == ("root", False)
    assert found["readme"] == "# Read"


def test_two_of_one_name(api: Caller, project: Project) -> None:
    answer = api.post("/api/v1/projects/", {"name": "quick-start"})
    assert (answer.status_code, answer.json()) == (400, ["A project with name `quick-start` already exists."])
    assert api.post("/api/v1/projects/", {"name": "Quick-Start"}).status_code == 201


def test_two_people_may_use_one_name(as_ann: Caller, api: Caller, project: Project) -> None:
    assert as_ann.post("/api/v1/projects/", {"name": "quick-start"}).status_code == 201
    assert api.get(f"{P}/").json()["id"] != as_ann.get("/api/v1/ann/quick-start/").json()["id"]


def test_changing_one_thing_leaves_the_others(api: Caller, project: Project) -> None:
    api.patch(f"{P}/", {"description": "d", "tags": ["a"], "is_public": False, "readme": "r"})
    found = api.patch(f"{P}/", {"description": "e"}).json()
    assert (found["description"], found["tags"], found["is_public"], found["readme"]) == ("e", ["a"], False, "r")
    found = api.patch(f"{P}/", {"description": None, "tags": None}).json()
    assert (found["description"], found["tags"]) == (None, None)
    assert api.patch(f"{P}/", {}).status_code == 200


def test_tags_are_replaced_or_merged(api: Caller, project: Project) -> None:
    assert api.patch(f"{P}/", {"tags": ["a", "b"]}).json()["tags"] == ["a", "b"]
    assert api.patch(f"{P}/", {"tags": ["b", "c"], "merge": True}).json()["tags"] == ["a", "b", "c"]
    assert api.patch(f"{P}/", {"tags": ["d"]}).json()["tags"] == ["d"]
    assert api.patch(f"{P}/", {"tags": [], "merge": True}).json()["tags"] == ["d"]


def test_renaming(api: Caller, make_job: Callable[..., Run], store: Store, root: User) -> None:
    make_job()
    store.projects.create(root, {"name": "other"})
    answer = api.patch(f"{P}/", {"name": "other"})
    assert (answer.status_code, answer.json()) == (400, ["A project with name `other` already exists."])
    assert api.patch(f"{P}/", {"name": "quick-start"}).status_code == 200
    assert api.patch(f"{P}/", {"name": "renamed"}).json()["unique_name"] == "root.renamed"
    assert api.get(f"{P}/").status_code == 404
    assert api.get("/api/v1/root/renamed/jobs/1/").json()["unique_name"] == "root.renamed.jobs.1"
    assert api.patch("/api/v1/root/renamed/", {"name": "user"}).status_code == 400


def test_a_change_makes_a_project_the_newest(api: Caller, project: Project) -> None:
    api.post("/api/v1/projects/", {"name": "new"})
    assert [item["name"] for item in api.get("/api/v1/root/").json()["results"]] == ["new", "quick-start"]
    api.patch(f"{P}/", {"description": "d"})
    assert [item["name"] for item in api.get("/api/v1/root/").json()["results"]] == ["quick-start", "new"]


def test_deleting(api: Caller, a_job: Run, project: Project) -> None:
    answer = api.delete(f"{P}/")
    assert (answer.status_code, answer.content) == (204, b"")
    for path in (f"{P}/", f"{P}/jobs/", f"{P}/jobs/1/", "/polylocal/v1/runs/job/1"):
        assert api.get(path).status_code == 404
    assert api.get("/api/v1/root/").json()["count"] == 0
    assert api.get("/polylocal/v1/runs").json()["count"] == 0
    assert api.delete(f"{P}/").status_code == 404


def test_a_deleted_name_is_free(api: Caller, a_job: Run) -> None:
    api.delete(f"{P}/")
    made = api.post("/api/v1/projects/", {"name": "quick-start"})
    assert made.status_code == 201
    assert api.get(f"{P}/jobs/").json()["count"] == 0
    assert api.get(f"{P}/").json()["num_jobs"] == 0
    assert api.post(f"{P}/jobs/", {"config": job()}).json()["id"] == 2


def test_bookmarks(api: Caller, project: Project) -> None:
    assert api.delete(f"{P}/unbookmark/").status_code == 404
    for _ in range(2):
        answer = api.post(f"{P}/bookmark/")
        assert (answer.status_code, answer.content) == (201, b"")
    assert api.get(f"{P}/").json()["bookmarked"] is True
    assert api.get("/api/v1/root/").json()["results"][0]["bookmarked"] is True
    for _ in range(2):
        answer = api.delete(f"{P}/unbookmark/")
        assert (answer.status_code, answer.content) == (204, b"")
    assert api.get(f"{P}/").json()["bookmarked"] is False
    assert api.post(f"{P}/bookmark/").status_code == 201
    assert api.get(f"{P}/").json()["bookmarked"] is True


def test_counts(api: Caller, project: Project) -> None:
    for _ in range(3):
        api.post(f"{P}/jobs/", {"config": job()})
    api.delete(f"{P}/jobs/2/")
    found = api.get(f"{P}/").json()
    assert (found["num_jobs"], found["num_builds"], found["num_experiments"]) == (2, 0, 0)
