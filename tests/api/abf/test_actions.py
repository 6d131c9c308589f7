"""Cancel, publish, create a container, reject: the states that allow each, and the results."""

from __future__ import annotations

import time

import pytest

from .farm import Farm, Person

STATUSES = {
    *(0, 1, 2, 3, 4, 6, 555, 666, 777, 2000, 2500, 2550, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10000),
    *(11000, 12000, 13000, 14000, 15000, 16000),
}
DONE = {
    "cancel": "Build canceled",
    "publish": "Build is queued for publishing",
    "create_container": "Container is queued for creating",
    "reject_publish": "Publishing rejected",
}
REFUSED = {
    "cancel": "Errors during build cancelation!",
    "publish": "Errors during build publishing!",
    "create_container": "Errors during container creating!",
    "reject_publish": "Rejecting publishing failed",
}
LEGAL = {
    "cancel": {2000, 3000},
    "publish": {0, 8000, 11000},
    "create_container": {0, 11000},
    "reject_publish": {0, 8000},
}
# the changed column and its new value
AFTER = {
    "cancel": ("status", 10000),
    "publish": ("status", 7000),
    "create_container": ("container_status", 7000),
    "reject_publish": ("status", 9000),
}
ACTIONS = sorted(DONE)


def check_done(farm: Farm, by: Person, build_list: int, action: str) -> None:
    before = farm.row(build_list)
    answer = by.put(f"build_lists/{build_list}/{action}.json")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"build_list": {"id": build_list, "message": DONE[action]}}
    column, value = AFTER[action]
    after = farm.row(build_list)
    assert after[column] == value
    changed = {name for name in after if after[name] != before[name]} - {"updated_at"}
    assert changed <= {column, "publisher_id"}


def check_refused(farm: Farm, by: Person, build_list: int, action: str) -> None:
    before = farm.row(build_list)
    answer = by.put(f"build_lists/{build_list}/{action}.json")
    assert answer.status_code == 422, answer.text
    assert answer.json() == {"build_list": {"id": None, "message": REFUSED[action]}}
    assert farm.row(build_list) == before


@pytest.fixture(scope="module")
def in_rosa(shared: Farm) -> int:
    """A build list for a repository without QA."""
    return shared.new()


@pytest.fixture(scope="module")
def in_lts(shared: Farm) -> int:
    """A build list for a repository with QA."""
    return shared.new(shared.for_lts())


@pytest.mark.parametrize(
    ("action", "status"),
    [
        *(("cancel", status) for status in sorted(STATUSES)),
        *(("create_container", status) for status in sorted(STATUSES)),
        *(("publish", status) for status in sorted(STATUSES - {6000})),  # for 6000, the user's rights decide
    ],
)
def test_every_action_in_every_status(action: str, status: int, shared: Farm, in_rosa: int) -> None:
    """The user is the owner of the project, and the repository has no QA."""
    shared.set(in_rosa, status=status, container_status=4000)
    check = check_done if status in LEGAL[action] else check_refused
    check(shared, shared.ivan, in_rosa, action)


@pytest.mark.parametrize("status", sorted(STATUSES))
def test_rejecting_in_every_status(status: int, shared: Farm, in_lts: int) -> None:
    """The user is an admin of the platform, and the repository has QA."""
    shared.set(in_lts, status=status)
    check = check_done if status in LEGAL["reject_publish"] else check_refused
    check(shared, shared.olga, in_lts, "reject_publish")


@pytest.mark.parametrize("status", sorted(STATUSES))
def test_nothing_is_rejected_without_qa(status: int, shared: Farm, in_rosa: int) -> None:
    shared.set(in_rosa, status=status)
    check_refused(shared, shared.root, in_rosa, "reject_publish")


@pytest.mark.parametrize("status", sorted(STATUSES))
def test_publishing_by_an_admin_in_every_status(status: int, shared: Farm, in_lts: int) -> None:
    """An admin may publish a published build again."""
    shared.set(in_lts, status=status)
    check = check_done if status in LEGAL["publish"] | {6000} else check_refused
    check(shared, shared.olga, in_lts, "publish")


@pytest.mark.parametrize("status", [0, 11000])
@pytest.mark.parametrize("container", [4000, 6000, 7000, 8000])
def test_a_container_in_every_status_of_its_own(container: int, status: int, shared: Farm, in_rosa: int) -> None:
    shared.set(in_rosa, status=status, container_status=container)
    check = check_done if container in (4000, 8000) else check_refused
    check(shared, shared.ivan, in_rosa, "create_container")


@pytest.mark.parametrize("action", ACTIONS)
def test_a_second_time_is_refused(action: str, shared: Farm) -> None:
    build_list = shared.new(shared.for_lts(), status=min(LEGAL[action]))
    check_done(shared, shared.root, build_list, action)
    check_refused(shared, shared.root, build_list, action)


@pytest.mark.parametrize("action", ACTIONS)
def test_refused_actions_can_be_repeated_later(action: str, shared: Farm) -> None:
    build_list = shared.new(shared.for_lts(), status=666)
    check_refused(shared, shared.root, build_list, action)
    shared.set(build_list, status=min(LEGAL[action]))
    check_done(shared, shared.root, build_list, action)


@pytest.mark.parametrize("action", ACTIONS)
def test_other_build_lists_stay_unchanged(action: str, shared: Farm) -> None:
    build_list, other = (shared.new(shared.for_lts(), status=min(LEGAL[action])) for _ in range(2))
    before = shared.row(other)
    check_done(shared, shared.root, build_list, action)
    assert shared.row(other) == before


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_is_a_change(action: str, shared: Farm) -> None:
    first = shared.new(shared.for_lts(), status=min(LEGAL[action]))
    shared.new()
    earlier = shared.show(first)["updated_at"]
    check_done(shared, shared.root, first, action)
    assert earlier <= shared.show(first)["updated_at"] <= time.time()
    newest = shared.root.get("build_lists.json?filter[ownership]=everything").json()["build_lists"][0]
    assert newest["id"] == first


def test_a_rejected_one_keeps_its_container(farm: Farm) -> None:
    build_list = farm.new(farm.for_lts(), status=0, container_status=6000)
    path = farm.show(build_list)["container_path"]
    check_done(farm, farm.olga, build_list, "reject_publish")
    assert farm.show(build_list)["container_status"] == 6000
    assert farm.show(build_list)["container_path"] == path


# -- publication needs more than a status ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 8000, 11000, 6000])
def test_a_project_that_left_the_repository_is_not_published(status: int, farm: Farm) -> None:
    build_list = farm.new(status=status)
    place = f"repositories/{farm.ids.rosa}"
    farm.root.change("DELETE", f"{place}/remove_project.json", {"project_id": farm.ids.evil_tools})
    check_refused(farm, farm.root, build_list, "publish")
    farm.root.change("PUT", f"{place}/add_project.json", {"project_id": farm.ids.evil_tools})
    check_done(farm, farm.root, build_list, "publish")


def test_a_main_platform_publishes_after_what_was_used(farm: Farm) -> None:
    used = farm.new(status=0, container_status=6000)
    build_list = farm.new(farm.body(extra_build_lists=[used]), status=0)
    check_refused(farm, farm.ivan, build_list, "publish")
    farm.set(used, status=6000)
    check_done(farm, farm.ivan, build_list, "publish")


def test_a_personal_platform_publishes_what_it_has(farm: Farm) -> None:
    used = farm.new(status=0, container_status=6000)
    build_list = farm.new(farm.for_personal(extra_build_lists=[used]), status=0)
    check_done(farm, farm.ivan, build_list, "publish")


def test_a_locked_repository_takes_requests(farm: Farm) -> None:
    """The requests wait."""
    build_list = farm.new(status=0)
    farm.root.change("PUT", f"repositories/{farm.ids.rosa}/add_repo_lock_file.json")
    check_done(farm, farm.ivan, build_list, "publish")
