"""Yanking: rights, times and results."""

from __future__ import annotations

import json

import httpx2
import pytest

from .farm import FORBIDDEN, NO_CREDENTIALS, NOT_FOUND, Farm, Person

EARLIER = "2024-01-01T00:00:00.000000+00:00"
PUBLISHED = {"status": 6000, "published_into": "release", "published_at": EARLIER}


@pytest.fixture(scope="module", autouse=True)
def python(shared: Farm) -> None:
    of_python(shared)


def of_python(farm: Farm) -> None:
    """Turn the farm's platforms into platforms for Python packages."""
    with farm.store.database.write() as db:
        db.execute("update platforms set distrib_type = 'pypi' where platform_type = 'main'")


def call(person: Person, method: str, number: object, body: object = None) -> httpx2.Response:
    content = None if body is None else json.dumps(body).encode()
    headers = {**person.headers, "Content-Type": "application/json"}
    return person.http.request(method, f"/polylocal/v1/build_lists/{number}/yank", headers=headers, content=content)


def yank(person: Person, number: object, **body: object) -> httpx2.Response:
    return call(person, "PUT", number, body or None)


def undo(person: Person, number: object) -> httpx2.Response:
    return call(person, "DELETE", number)


def stale(farm: Farm, repository: int) -> int:
    return farm.store.platforms.repository(repository).stale


def said(answer: httpx2.Response) -> tuple[int, int | None, str]:
    found = answer.json()["build_list"]
    return answer.status_code, found["id"], found["message"]


def test_it_is_withdrawn_and_offered_again(shared: Farm) -> None:
    number = shared.new(**PUBLISHED)
    before, shown = stale(shared, shared.ids.rosa), shared.show(number)
    assert (shown["yanked"], shown["yanked_reason"]) == (False, None)
    assert said(yank(shared.ivan, number, reason=" loses data ")) == (200, number, "Build is yanked")
    shown = shared.show(number)
    assert (shown["yanked"], shown["yanked_reason"], shown["status"]) == (True, "loses data", 6000)
    assert shared.store.build_lists.get(number).yanked == "loses data"
    assert stale(shared, shared.ids.rosa) == before + 1
    assert said(yank(shared.ivan, number, reason="loses all data")) == (200, number, "Build is yanked")
    assert shared.show(number)["yanked_reason"] == "loses all data"
    assert said(undo(shared.ivan, number)) == (200, number, "Build is not yanked any more")
    shown = shared.show(number)
    assert (shown["yanked"], shown["yanked_reason"]) == (False, None)
    assert shared.store.build_lists.get(number).yanked is None
    assert stale(shared, shared.ids.rosa) == before + 3


@pytest.mark.parametrize("body", [{}, {"reason": None}, {"reason": ""}, {"reason": "  "}])
def test_a_reason_is_not_needed(body: dict[str, object], shared: Farm) -> None:
    number = shared.new(**PUBLISHED)
    assert yank(shared.ivan, number, **body).status_code == 200
    shown = shared.show(number)
    assert (shown["yanked"], shown["yanked_reason"]) == (True, None)
    assert shared.store.build_lists.get(number).yanked == ""


@pytest.mark.parametrize("reason", ["x" * 200, "é & <b>", "\N{HEAVY BLACK HEART} 日本語", "a\u00a0b"])
def test_reasons(reason: str, shared: Farm) -> None:
    number = shared.new(**PUBLISHED)
    assert yank(shared.ivan, number, reason=reason).status_code == 200
    assert shared.show(number)["yanked_reason"] == reason


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("x" * 201, "`reason` has 201 characters; the most are 200"),
        ("a\nb", "one line"),
        ("a\x1b[31m", "control characters"),
        ("a\x00", "control characters"),
        ("a\u202eb", "invisible"),
        ("a\u2028b", "one line"),
        (7, "`reason` must be a text"),
        (["a"], "`reason` must be a text"),
        ({"a": 1}, "`reason` must be a text"),
        (True, "`reason` must be a text"),
    ],
)
def test_invalid_reasons(reason: object, words: str, shared: Farm) -> None:
    number = shared.new(**PUBLISHED)
    status, about, message = said(yank(shared.ivan, number, reason=reason))
    assert (status, about) == (422, None)
    assert words in message
    assert shared.store.build_lists.get(number).yanked is None


@pytest.mark.parametrize("status", [0, 666, 2000, 3000, 5000, 7000, 8000, 9000, 11000])
def test_unpublished_builds_can_not_be_yanked(status: int, shared: Farm) -> None:
    number = shared.new(status=status)
    before = stale(shared, shared.ids.rosa)
    assert said(yank(shared.ivan, number)) == (422, None, f"Build list {number} is not published")
    assert stale(shared, shared.ids.rosa) == before


def test_replaced_builds_can_not_be_yanked(shared: Farm) -> None:
    number = shared.new(status=6000, published_at=EARLIER, published_into=None)
    words = f"The packages of build list {number} are not in the repository any more"
    assert said(yank(shared.ivan, number)) == (422, None, words)


def test_yanked_and_replaced_builds_can_be_unyanked(shared: Farm) -> None:
    number = shared.new(status=6000, published_at=EARLIER, published_into=None, yanked="old")
    assert undo(shared.ivan, number).status_code == 200
    assert shared.show(number)["yanked"] is False


def test_builds_that_are_not_yanked_can_not_be_unyanked(shared: Farm) -> None:
    number = shared.new(**PUBLISHED)
    before = stale(shared, shared.ids.rosa)
    assert said(undo(shared.ivan, number)) == (422, None, f"Build list {number} is not yanked")
    assert stale(shared, shared.ids.rosa) == before


@pytest.mark.parametrize("kind", ["deb", "dnf", "rhel", "mdv", None])
def test_packages_of_other_kinds_have_newer_versions_instead(kind: str | None, farm: Farm) -> None:
    """The platform of the build decides, as it does for the index."""
    of_python(farm)
    with farm.store.database.write() as db:
        db.execute("update platforms set distrib_type = ? where id = ?", (kind, farm.ids.rosa_platform))
    number = farm.new(farm.for_personal(), **PUBLISHED)
    status, about, message = said(yank(farm.ivan, number))
    assert (status, about) == (422, None)
    assert message.startswith(f"Only Python packages can be yanked, and these are {kind or 'other'} packages: publish")
    assert farm.store.build_lists.get(number).yanked is None


def test_the_index_of_a_locked_repository_changes_later(farm: Farm) -> None:
    of_python(farm)
    number = farm.new(**PUBLISHED)
    farm.root.change("PUT", f"repositories/{farm.ids.rosa}/add_repo_lock_file.json")
    later = "; the index changes when the repository is unlocked"
    assert said(yank(farm.ivan, number))[2] == f"Build is yanked{later}"
    assert said(undo(farm.ivan, number))[2] == f"Build is not yanked any more{later}"


def test_it_stays_withdrawn_when_it_is_published_again(farm: Farm) -> None:
    of_python(farm)
    number = farm.new(**PUBLISHED)
    assert yank(farm.root, number, reason="bad").status_code == 200
    assert farm.root.put(f"build_lists/{number}/publish.json").status_code == 200
    assert farm.store.build_lists.set_published(farm.store.build_lists.get(number), "release", "1")
    assert farm.show(number)["yanked_reason"] == "bad"


# -- permissions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "allowed"),
    [("body", {"root", "ivan"}), ("for_lts", {"root", "olga"}), ("for_personal", {"root", "ivan"})],
)
def test_who_may_yank(where: str, allowed: set[str], shared: Farm) -> None:
    """Writers of the project; if the repository has QA, only admins of the platform."""
    number = shared.new(getattr(shared, where)(), **PUBLISHED)
    for name in ("petr", "olga", "ivan", "root"):
        for work in (yank, undo):
            before = shared.row(number)
            answer = work(shared.person(name), number)
            if name in allowed:
                assert (name, answer.status_code) == (name, 200)
            else:
                assert (name, answer.status_code, answer.json()) == (name, 403, FORBIDDEN)
                assert shared.row(number) == before


def test_an_admin_of_the_platform_withdraws_without_qa(farm: Farm) -> None:
    """The owner of a repository may also yank its packages."""
    of_python(farm)
    farm.olga.change("PUT", f"repositories/{farm.ids.lts}.json", {"repository": {"publish_without_qa": True}})
    number = farm.new(farm.for_lts(), **PUBLISHED)
    assert yank(farm.olga, number).status_code == 200
    assert undo(farm.ivan, number).status_code == 200


def test_users_without_access_learn_nothing(shared: Farm) -> None:
    number = shared.new(status=0)
    for answer in (yank(shared.petr, number, reason="x" * 300), undo(shared.petr, number)):
        assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
    for answer in (yank(shared.nobody, number), undo(shared.nobody, number), yank(shared.nobody, 99999)):
        assert (answer.status_code, answer.json()) == (401, NO_CREDENTIALS)


@pytest.mark.parametrize("number", ["99999", "0", "x", "-1", "²", "9" * 400, "1%2F2"])
def test_build_lists_that_are_not_there(number: str, shared: Farm) -> None:
    for answer in (yank(shared.root, number), undo(shared.root, number)):
        assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


def test_invalid_bodies(shared: Farm) -> None:
    number = shared.new(**PUBLISHED)
    path = f"/polylocal/v1/build_lists/{number}/yank"
    headers = {**shared.ivan.headers, "Content-Type": "application/json"}
    for content in (b"{", b'{"reason": "\xff"}', b'{"reason": "\\ud800"}', b"\0"):
        assert shared.ivan.http.request("PUT", path, headers=headers, content=content).status_code == 400
    assert shared.store.build_lists.get(number).yanked is None


def test_a_token_of_the_other_api_does_as_well(shared: Farm) -> None:
    number = shared.new(**PUBLISHED)
    by_token = Person(shared.ivan.http, {"Authorization": f"Token {shared.ids.tokens['ivan']}"})
    assert yank(by_token, number, reason="bad").status_code == 200


def test_the_calls_beside_it_are_those_of_the_other_api(shared: Farm) -> None:
    by_token = Person(shared.ivan.http, {"Authorization": f"Token {shared.ids.tokens['ivan']}"})
    assert by_token.http.request("GET", "/polylocal/v1/runs", headers=by_token.headers).status_code == 200
    assert call(shared.ivan, "GET", 1).json() == NOT_FOUND
