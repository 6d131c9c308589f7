"""Bookmarks: each user has their own, in lists over all projects."""

from __future__ import annotations

import pytest

from polylocal.statuses import POLYAXON_KINDS, Kind
from polylocal.store import Store
from polylocal.store.rows import Project, Run, User

from .conftest import Caller, P, one_of_each

WORDS = ["projects", *(kind.plural for kind in POLYAXON_KINDS)]


@pytest.fixture
def things(store: Store, project: Project, root: User) -> dict[Kind, Run]:
    return one_of_each(store, project, root)


def path_of(word: str) -> str:
    return P if word == "projects" else f"{P}/{word}/1"


def listed(caller: Caller, word: str, user: str = "root", query: str = "") -> list[str]:
    found = caller.get(f"/api/v1/bookmarks/{user}/{word}/{query}").json()
    return [item["content_object"]["unique_name"] for item in found["results"]]


@pytest.mark.usefixtures("things")
@pytest.mark.parametrize("word", WORDS)
def test_a_bookmark(word: str, api: Caller) -> None:
    path = path_of(word)
    assert listed(api, word) == []
    assert api.get(path).json()["bookmarked"] is False
    for _ in range(2):
        answer = api.post(f"{path}/bookmark/")
        assert (answer.status_code, answer.content) == (201, b"")
    assert listed(api, word) == [api.get(path).json()["unique_name"]]
    assert api.get(path).json()["bookmarked"] is True
    others = [other for other in WORDS if other != word and listed(api, other)]
    assert others == []
    for _ in range(2):
        answer = api.delete(f"{path}/unbookmark/")
        assert (answer.status_code, answer.content) == (204, b"")
    assert listed(api, word) == []
    assert api.get(path).json()["bookmarked"] is False
    api.post(f"{path}/bookmark/")
    assert len(listed(api, word)) == 1


@pytest.mark.usefixtures("things")
@pytest.mark.parametrize("word", WORDS)
def test_objects_without_a_bookmark(word: str, api: Caller) -> None:
    answer = api.delete(f"{path_of(word)}/unbookmark/")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not found."})


@pytest.mark.usefixtures("things")
@pytest.mark.parametrize("word", WORDS)
def test_an_item_is_that_of_the_list(word: str, api: Caller) -> None:
    api.post(f"{path_of(word)}/bookmark/")
    of_list = "/api/v1/root/" if word == "projects" else f"{P}/{word}/"
    [expected] = api.get(of_list).json()["results"]
    assert expected.pop("bookmarked") is True
    assert api.get(f"/api/v1/bookmarks/root/{word}/").json() == {
        "count": 1,
        "next": None,
        "previous": None,
        "results": [{"content_object": expected}],
    }


@pytest.mark.usefixtures("things")
def test_the_bookmarks_that_a_user_sees(api: Caller, as_ann: Caller, as_bob: Caller) -> None:
    """Users see their own bookmarks. Admins also see those of others."""
    for word in WORDS:
        as_ann.post(f"{path_of(word)}/bookmark/")
    for word in WORDS:
        assert len(listed(as_ann, word, "ann")) == len(listed(api, word, "ann")) == 1
        assert listed(as_bob, word, "ann") == listed(as_ann, word, "root") == listed(api, word) == []
        assert as_ann.get(f"/api/v1/bookmarks/nosuch/{word}/").status_code == 404
        assert as_ann.get(f"{path_of(word)}/").json()["bookmarked"] is True
        assert api.get(f"{path_of(word)}/").json()["bookmarked"] is False


@pytest.mark.usefixtures("things")
def test_objects_that_have_become_private_are_not_shown(api: Caller, as_ann: Caller) -> None:
    for word in WORDS:
        as_ann.post(f"{path_of(word)}/bookmark/")
    api.patch(P, {"is_public": False})
    assert [word for word in WORDS if listed(as_ann, word, "ann")] == []
    assert as_ann.post(f"{P}/bookmark/").status_code == 403
    api.patch(P, {"is_public": True})
    assert [word for word in WORDS if listed(as_ann, word, "ann")] == WORDS  # they were not lost


@pytest.mark.usefixtures("things")
def test_deleted_and_archived_objects_are_not_shown(api: Caller) -> None:
    for word in WORDS:
        api.post(f"{path_of(word)}/bookmark/")
    api.delete(f"{P}/jobs/1/")
    api.post(f"{P}/builds/1/archive/")
    assert listed(api, "jobs") == listed(api, "builds") == []
    api.post(f"{P}/builds/1/restore/")
    assert len(listed(api, "builds")) == 1
    api.post(f"{P}/archive/")
    assert [word for word in WORDS if listed(api, word)] == []
    api.post(f"{P}/restore/")
    assert [word for word in WORDS if listed(api, word)] == [word for word in WORDS if word != "jobs"]


def test_pages_and_order(api: Caller, store: Store, root: User) -> None:
    """The default order has the newest bookmark first."""
    for number in range(5):
        store.projects.create(root, {"name": f"p{number}"})
    for number in (2, 0, 4, 1, 3):
        api.post(f"/api/v1/root/p{number}/bookmark/")
    names = [f"root.p{number}" for number in (3, 1, 4, 0, 2)]
    assert listed(api, "projects") == names
    assert listed(api, "projects", query="?limit=2&offset=1") == names[1:3]
    page = api.get("/api/v1/bookmarks/root/projects/?limit=2&offset=2").json()
    assert page["count"] == 5
    assert page["next"].endswith("/api/v1/bookmarks/root/projects/?limit=2&offset=4")
    assert page["previous"].endswith("/api/v1/bookmarks/root/projects/?limit=2")
    in_order = [f"root.p{number}" for number in range(5)]
    assert listed(api, "projects", query="?sort=created_at") == in_order
    assert listed(api, "projects", query="?sort=-created_at") == in_order[::-1]
    assert listed(api, "projects", query="?sort=nosuch") == names


@pytest.mark.usefixtures("things")
@pytest.mark.parametrize("word", WORDS)
def test_callers_without_a_user_see_no_bookmarks(word: str, nobody: Caller, as_job: Caller) -> None:
    assert nobody.get(f"/api/v1/bookmarks/root/{word}/").status_code == 401
    assert as_job.get(f"/api/v1/bookmarks/root/{word}/").status_code == 403
