"""Access to the actions of a build list: cancel, publish, create a container, reject."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from starlette.requests import Request

from polylocal.api.abf import build_lists
from polylocal.api.abf.calls import AbfCall, Authenticator

from .farm import FORBIDDEN, Farm, Person
from .test_actions import ACTIONS, REFUSED, check_done, check_refused

PEOPLE = ("root", "ivan", "olga", "petr")
WHERE = {"without QA": "body", "with QA": "for_lts", "personal": "for_personal"}


@pytest.mark.parametrize(
    ("action", "where", "status", "allowed"),
    [
        ("cancel", "without QA", 2000, {"root", "ivan"}),
        ("cancel", "with QA", 3000, {"root", "ivan"}),
        ("cancel", "personal", 2000, {"root", "ivan"}),
        ("publish", "without QA", 0, {"root", "ivan"}),
        ("publish", "without QA", 11000, {"root", "ivan"}),
        ("publish", "without QA", 6000, {"root"}),
        ("publish", "with QA", 0, {"root", "olga"}),
        ("publish", "with QA", 8000, {"root", "olga"}),
        ("publish", "with QA", 6000, {"root", "olga"}),
        ("publish", "personal", 0, {"root", "ivan"}),
        ("publish", "personal", 6000, {"root", "ivan"}),
        ("create_container", "without QA", 0, {"root", "ivan"}),
        ("create_container", "with QA", 0, {"root", "ivan", "olga"}),
        ("create_container", "personal", 11000, {"root", "ivan"}),
        ("reject_publish", "with QA", 0, {"root", "olga"}),
        ("reject_publish", "with QA", 8000, {"root", "olga"}),
    ],
)
def test_allowed_actions_by_user(action: str, where: str, status: int, allowed: set[str], shared: Farm) -> None:
    body = getattr(shared, WHERE[where])
    for name in PEOPLE:
        build_list = shared.new(body(), status=status)
        if name in allowed:
            check_done(shared, shared.person(name), build_list, action)
            continue
        before = shared.row(build_list)
        answer = shared.person(name).put(f"build_lists/{build_list}/{action}.json")
        assert (name, answer.status_code, answer.json()) == (name, 403, FORBIDDEN)
        assert shared.row(build_list) == before


@pytest.mark.parametrize("action", ACTIONS)
def test_users_without_access_do_not_learn_the_status(action: str, shared: Farm) -> None:
    build_list = shared.new(shared.for_lts(), status=5000)
    answer = shared.petr.put(f"build_lists/{build_list}/{action}.json")
    assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
    answer = shared.root.put(f"build_lists/{build_list}/{action}.json")
    assert (answer.status_code, answer.json()["build_list"]["message"]) == (422, REFUSED[action])


def test_the_creator_needs_access_to_the_project_for_changes(farm: Farm) -> None:
    """An admin who has created a build list loses access to it with the admin's rights."""
    users = farm.store.users
    users.update(users.get("petr"), is_superuser=True)
    build_list = farm.new(by=farm.petr)
    users.update(users.get("petr"), is_superuser=False)
    assert farm.petr.put(f"build_lists/{build_list}/cancel.json").status_code == 403
    assert farm.row(build_list)["status"] == 2000


def test_qa_turned_on_takes_the_right_to_publish_and_gives_the_one_to_reject(farm: Farm) -> None:
    build_list = farm.new(status=0)
    check_refused(farm, farm.root, build_list, "reject_publish")
    qa = {"repository": {"publish_without_qa": False}}
    farm.root.change("PUT", f"repositories/{farm.ids.rosa}.json", qa)
    assert farm.ivan.put(f"build_lists/{build_list}/publish.json").status_code == 403
    assert farm.ivan.put(f"build_lists/{build_list}/reject_publish.json").status_code == 403
    check_done(farm, farm.root, build_list, "reject_publish")


def test_the_owner_of_a_personal_repository_is_its_admin(farm: Farm) -> None:
    qa = {"repository": {"publish_without_qa": False}}
    farm.ivan.change("PUT", f"repositories/{farm.ids.personal}.json", qa)
    check_done(farm, farm.ivan, farm.new(farm.for_personal(), status=0), "reject_publish")
    check_done(farm, farm.ivan, farm.new(farm.for_personal(), status=0), "publish")


def test_many_at_once_publish_it_once(farm: Farm, live: str) -> None:
    build_list = farm.new(status=0)

    def ask(_: int) -> int:
        with httpx2.Client(base_url=live, timeout=30.0, trust_env=False) as client:
            return Person(client, farm.ivan.headers).put(f"build_lists/{build_list}/publish.json").status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(ask, range(8))) == [200] + [422] * 7
    assert farm.row(build_list)["status"] == 7000


def test_the_log_of_ones_own_build_needs_no_right_to_the_project_while_it_is_read(farm: Farm) -> None:
    made = farm.new(farm.of_secret_tools())
    with farm.store.database.write() as db:
        db.execute("update runs set user_id = ? where kind = 'package' and id = ?", (farm.ids.people["petr"], made))
    headers = [(name.lower().encode(), value.encode()) for name, value in farm.petr.headers.items()]
    request = Request({"type": "http", "path_params": {"id": made}, "query_string": b"", "headers": headers})
    log = next(endpoint for endpoint in build_lists.ENDPOINTS if endpoint.path.endswith("/log"))
    call = AbfCall(request, log, farm.context, Authenticator(farm.context))
    call.admit()
    build_lists._find_readable(call)
    call.check_again()
