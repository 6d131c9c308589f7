"""Build lists: rows, results, transitions, automatic publication, and stored files."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from sqlite3 import IntegrityError
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from packages_support import Ground, compare_as_text, package, sha1

from polylocal.errors import NotFound
from polylocal.packages.statuses import BuildStatus, ContainerStatus
from polylocal.statuses import TRANSITIONS, Kind, Status, is_done
from polylocal.store import NewRun, Store
from polylocal.store.build_lists import BuildLists, BuildResults, Filters
from polylocal.store.queries import Page
from polylocal.store.rows import BuildList, NewFile, Project, User

ALL = Page(100, 0)


@pytest.fixture
def ground(store: Store, root: User, project: Project) -> Ground:
    return Ground.of(store, root, project)


def result(name: str = "build.log", content: str = "said") -> NewFile:
    return NewFile(sha1(content.encode()), name, len(content))


# -- made and found --------------------------------------------------------------------------------------------------


def test_a_build_list_waits_with_all_that_it_was_made_of(ground: Ground) -> None:
    values = {
        "extra_repositories": [3, 4],
        "extra_build_lists": [5],
        "extra_params": {"A": "1"},
        "include_repos": [ground.repository.id],
        "auto_publish_status": "testing",
        "auto_create_container": True,
        "use_save_to_repository": False,
        "use_cached_chroot": True,
        "use_extra_tests": False,
        "save_buildroot": True,
        "include_testing_subrepository": True,
        "external_nodes": "everything",
        "commit_hash": "c" * 40,
        "project_version": "rosa2012",
    }
    made = ground.queue(**values)
    assert {name: getattr(made, name) for name in values} == values
    assert (made.status, made.container_status, made.id) == (2000, 4000, 1)
    assert (made.last_published_commit_hash, made.package_version, made.publisher_id) == (None, None, None)
    assert ground.run(made).status == "created"
    assert ground.store.build_lists.get(made.id) == made
    assert ground.queue().id == 2


def test_a_build_list_that_names_what_is_not_there_is_not_made(ground: Ground) -> None:
    with pytest.raises(IntegrityError):
        ground.queue(save_to_repository_id=999)
    assert ground.store.build_lists.page(ground.user, Filters(), ALL) == []
    assert ground.queue().id == 1  # nor is a run left of it


def test_nothing_is_made_in_a_project_that_was_deleted_meanwhile(ground: Ground) -> None:
    """A row in a deleted project would never be removed. This holds for both APIs."""
    store, hints = ground.store, list[int]()
    store.projects.delete(ground.project)
    new = NewRun(Kind.JOB, "", {"version": 1, "kind": "job"}, {})
    with pytest.raises(NotFound):
        store.runs.insert(ground.project, ground.user, new)
    lists = BuildLists(store.database, hints.append)
    row: dict[str, Any] = {"save_to_repository_id": ground.repository.id, "build_for_platform_id": ground.platform.id}
    row |= {"arch_id": ground.arch.id, "update_type": "bugfix", "project_version": "x", "commit_hash": "a" * 40}
    with pytest.raises(NotFound):
        lists.create(ground.project, ground.user, NewRun(Kind.PACKAGE, config={}), row)
    assert hints == []
    with store.database.read() as db:
        counts = [db.execute(f"select count(*) from {table}").fetchone()[0] for table in TABLES]
    assert counts == [0] * len(TABLES)


TABLES = ("runs", "build_lists", "statuses")


@pytest.mark.parametrize("number", [0, 2, 10**12])
def test_what_is_not_there_is_not_found(ground: Ground, number: int) -> None:
    ground.queue()
    with pytest.raises(NotFound):
        ground.store.build_lists.get(number)


def test_those_of_deleted_runs_are_found_by_their_run_alone(ground: Ground) -> None:
    made, other = ground.queue(), ground.queue()
    ground.store.runs.delete(ground.run(made))
    with pytest.raises(NotFound):
        ground.store.build_lists.get(made.id)
    assert ground.store.build_lists.of_run(made.run_pk).id == made.id
    assert ground.store.build_lists.by_ids([made.id, other.id, 99]) == [other]
    assert ground.store.build_lists.page(ground.user, Filters(), ALL) == [other]


def test_the_last_changed_come_first(ground: Ground) -> None:
    made = [ground.queue() for _ in range(4)]
    ground.store.build_lists.cancel(made[1])
    ground.end(made[0])

    def listed(page: Page) -> list[int]:
        return [found.id for found in ground.store.build_lists.page(ground.user, Filters(), page)]

    assert listed(ALL) == [made[0].id, made[1].id, made[3].id, made[2].id]
    assert listed(Page(2, 1)) == [made[1].id, made[3].id]
    assert listed(Page(2, 9)) == []


def test_all_filters_must_hold(ground: Ground) -> None:
    other = ground.store.projects.create(ground.user, {"name": "other"})
    first, second, third = ground.queue(), ground.queue(project=other), ground.queue(project=other)
    ground.end(first)
    ground.end(second)

    def listed(**filters: Any) -> set[int]:
        return {found.id for found in ground.store.build_lists.page(ground.user, Filters(**filters), ALL)}

    assert listed(status=0) == {first.id, second.id}
    assert listed(status=0, project_name="OTH") == {second.id}
    assert listed(save_to_platform_id=ground.platform.id, related_user_id=ground.user.id) == {1, 2, third.id}
    assert listed(user_id=ground.user.id + 1) == listed(related_user_id=ground.user.id + 1) == set()
    assert listed(save_to_repository_id=ground.repository.id, arch_id=ground.arch.id) == {1, 2, 3}
    assert listed(updated_from=ground.store.build_lists.get(second.id).updated_at) == {second.id}
    assert listed(updated_until=third.updated_at) == {third.id}


def test_every_filter_has_its_condition(ground: Ground) -> None:
    """No build list has these values, so an ignored filter would show the build list."""
    made = ground.queue()
    for field in dataclasses.fields(Filters):
        absent = "0000" if field.name == "updated_until" else "~" if str(field.type) == "str | None" else 10**6
        found = ground.store.build_lists.page(ground.user, Filters(**{field.name: absent}), ALL)
        assert (field.name, found) == (field.name, [])
    assert ground.store.build_lists.page(ground.user, Filters(id=made.id), ALL) == [made]


def test_a_list_has_only_what_its_reader_may_read(ground: Ground) -> None:
    """The owner of a private project, admins and the creator of a build list may read it."""
    store = ground.store
    ann, ben = (store.users.add(name) for name in ("ann", "ben"))
    hidden = store.projects.create(ann, {"name": "hidden", "is_public": False})
    made = ground.queue(project=hidden)
    assert [made] == store.build_lists.page(ann, Filters(), ALL) == store.build_lists.page(ground.user, Filters(), ALL)
    assert store.build_lists.page(ben, Filters(), ALL) == []
    store.projects.archive(hidden)
    assert store.build_lists.page(ann, Filters(), ALL) == []


def test_the_last_published_commit_is_fixed_when_a_build_list_is_made(ground: Ground) -> None:
    first = ground.mark_published(ground.end(ground.queue(commit_hash="1" * 40)))
    second = ground.end(ground.queue(commit_hash="2" * 40))
    third = ground.queue(commit_hash="3" * 40)
    assert [x.last_published_commit_hash for x in (first, second, third)] == [None, "1" * 40, "1" * 40]
    ground.mark_published(second)
    assert ground.again(third).last_published_commit_hash == "1" * 40
    assert ground.queue().last_published_commit_hash == "2" * 40


def test_the_last_published_commit_is_of_the_same_key(ground: Ground) -> None:
    store = ground.store
    ground.mark_published(ground.end(ground.queue(commit_hash="1" * 40)))
    project = store.projects.create(ground.user, {"name": "other"})
    arch = store.platforms.arches(["aarch64"])[0].id
    repository = store.platforms.add_repository(ground.platform, {"name": "contrib"}).id
    platform = store.platforms.create(ground.user, {"name": "second", "distrib_type": "deb"}).id
    others = [
        ground.queue(project=project),
        ground.queue(arch_id=arch),
        ground.queue(save_to_repository_id=repository),
        ground.queue(build_for_platform_id=platform),
    ]
    assert [found.last_published_commit_hash for found in others] == [None] * 4
    assert ground.queue().last_published_commit_hash == "1" * 40


def test_figures_are_of_the_builds_that_came_to_packages(ground: Ground) -> None:
    arch = ground.store.platforms.arches(["aarch64"])[0]
    for arch_id, code in ((ground.arch.id, 0), (ground.arch.id, 0), (ground.arch.id, 1), (arch.id, 5), (arch.id, 0)):
        ground.end(ground.queue(arch_id=arch_id), code)
    ground.queue()
    found = ground.store.build_lists.statistics(ground.project)
    assert [(arch_id, count) for arch_id, count, _ in found] == [(ground.arch.id, 2), (arch.id, 1)]
    assert all(0 <= seconds < 60 for _, _, seconds in found)


# -- the end of a build ----------------------------------------------------------------------------------------------


def test_the_end_and_what_it_left_are_one_step(ground: Ground) -> None:
    made = ground.end(ground.queue(), 0, package("a", "1"), package("b", "2", type="source"), results=(result(),))
    assert made.status == 0
    found = ground.store.build_lists.packages([made.run_pk])
    assert [(p.name, p.version, p.type, p.sha1) for p in found] == [
        ("a", "1", "binary", sha1(b"a 1")),
        ("b", "2", "source", sha1(b"b 2")),
    ]
    assert [(r.file_name, r.size) for r in ground.store.build_lists.results(made)] == [("build.log", 4)]
    stored = ground.store.files.get(sha1(b"a 1"))
    assert (stored.file_name, stored.user_id, stored.is_uploaded) == ("a-1.whl", ground.user.id, False)
    assert ground.run(made).exit_code == 0
    assert set(ground.store.files.of_run(ground.run(made))) == {sha1(b"a 1"), sha1(b"b 2"), sha1(b"said")}
    assert ground.store.files.may_read(sha1(b"said"), None)  # the project is public
    assert not ground.store.files.may_read("f" * 40, ground.user)


def conclude(ground: Ground, made: BuildList, to: Status, code: int | None, *packages: Any, **more: Any) -> bool:
    return ground.store.build_lists.conclude(
        ground.run(made),
        to,
        "ended",
        details=None,
        recorded={"exit_code": code},
        results=BuildResults(packages),
        is_newer=more.get("is_newer", compare_as_text),
    )


def test_an_end_comes_once(ground: Ground) -> None:
    made = ground.end(ground.queue(), 0, package("a", "1"))
    assert not conclude(ground, made, Status.FAILED, 1, package("a", "1"), package("b", "1"))
    assert ground.again(made) == made
    assert len(ground.store.build_lists.packages([made.run_pk])) == 1
    with pytest.raises(NotFound):
        ground.store.files.get(sha1(b"b 1"))


def test_an_end_that_can_not_be_kept_is_none(ground: Ground) -> None:
    ground.mark_published(ground.end(ground.queue(), 0, package("a", "1")))
    made = ground.queue(auto_publish_status="default")

    def refuse(*versions: Any) -> bool:
        raise ValueError("no version")

    with pytest.raises(ValueError, match="no version"):
        conclude(ground, made, Status.SUCCEEDED, 0, package("a", "2"), is_newer=refuse)
    assert ground.again(made).status == 2000
    assert ground.run(made).status == "created"
    assert ground.store.build_lists.packages([made.run_pk]) == []
    with pytest.raises(NotFound):
        ground.store.files.get(sha1(b"a 2"))


@pytest.mark.parametrize(("code", "wanted"), [(0, 7000), (5, 7000), (1, 4000), (6, 4000)])
def test_a_container_comes_by_itself_with_packages(ground: Ground, code: int, wanted: int) -> None:
    assert ground.end(ground.queue(auto_create_container=True), code).container_status == wanted
    assert ground.end(ground.queue(), code).container_status == 4000


def test_no_container_comes_by_itself_of_what_was_canceled(ground: Ground) -> None:
    made = ground.queue(auto_create_container=True)
    assert ground.store.build_lists.cancel(made)
    found = ground.end(made, 0)
    assert (found.status, found.container_status) == (5000, 4000)


@pytest.mark.parametrize(("code", "is_allowed"), [(0, True), (5, True), (1, False), (6, False)])
def test_what_has_packages_may_be_published(ground: Ground, code: int, is_allowed: bool) -> None:
    made = ground.end(ground.queue(), code)
    assert ground.store.build_lists.publish(made, ground.user, again=True) is is_allowed
    assert ground.again(made).publisher_id == (ground.user.id if is_allowed else None)


@pytest.mark.parametrize(("code", "status"), [(0, 0), (137, 5000), (5, 5000)])
def test_what_took_too_long_is_canceled_unless_it_was_done(ground: Ground, code: int, status: int) -> None:
    made = ground.queue()
    ground.store.runs.request_stop(ground.run(made), "time-limit")
    assert ground.end(made, code).status == status


# -- auto-publish ----------------------------------------------------------------------------------------------------


def auto(ground: Ground, version: str = "1", code: int = 0, **values: Any) -> int:
    """Ends a build that is published automatically if that is allowed. Returns its status."""
    made = ground.queue(**{"auto_publish_status": "default", **values})
    return ground.end(made, code, package("hello", version, type="source")).status


def earlier(ground: Ground, version: str = "1", **values: Any) -> BuildList:
    made = ground.queue(**values)
    return ground.mark_published(ground.end(made, 0, package("hello", version, type="source")))


def test_a_first_build_is_published_by_itself(ground: Ground) -> None:
    assert auto(ground) == 7000


@pytest.mark.parametrize("status", ["none", "testing"])
def test_what_is_not_wanted_waits(ground: Ground, status: str) -> None:
    assert auto(ground, auto_publish_status=status) == 0


@pytest.mark.parametrize(("code", "status"), [(5, 11000), (1, 666), (6, 15000)])
def test_nothing_but_a_success_is_published_by_itself(ground: Ground, code: int, status: int) -> None:
    assert auto(ground, code=code) == status


def test_with_qa_nothing_is_published_by_itself(ground: Ground) -> None:
    ground.store.platforms.update_repository(ground.repository, {"publish_without_qa": False})
    assert auto(ground) == 0


def test_a_project_that_has_left_is_not_published_by_itself(ground: Ground) -> None:
    ground.store.platforms.remove_project(ground.repository, ground.project)
    assert auto(ground) == 0


@pytest.mark.parametrize(("version", "status"), [("1", 0), ("2", 7000), ("3", 7000)])
def test_only_what_is_new_is_published_by_itself(ground: Ground, version: str, status: int) -> None:
    earlier(ground, "2")
    assert auto(ground, version) == status


@pytest.mark.parametrize(("version", "status"), [("1", 0), ("2", 0), ("3", 7000)])
def test_the_same_version_is_not_new_to_a_released_platform(ground: Ground, version: str, status: int) -> None:
    earlier(ground, "2")
    ground.store.platforms.update(ground.platform, {"released": True})
    # a release brings QA, which would hide the rule
    with ground.store.database.write() as db:
        db.execute("update repositories set publish_without_qa = 1")
    assert auto(ground, version) == status


def test_the_version_of_the_source_counts(ground: Ground) -> None:
    made = ground.end(ground.queue(), 0, package("lib", "9"), package("hello", "2", type="source"))
    ground.mark_published(made)
    made = ground.queue(auto_publish_status="default")
    assert ground.end(made, 0, package("lib", "1"), package("hello", "3", type="source")).status == 7000


def test_without_a_source_any_package_counts(ground: Ground) -> None:
    ground.mark_published(ground.end(ground.queue(), 0, package("hello", "2")))
    assert ground.end(ground.queue(auto_publish_status="default"), 0, package("hello", "1")).status == 0
    assert ground.end(ground.queue(auto_publish_status="default"), 0, package("hello", "2")).status == 7000


def test_nothing_is_not_newer_than_something(ground: Ground) -> None:
    earlier(ground)
    assert ground.end(ground.queue(auto_publish_status="default")).status == 0


def test_it_is_compared_with_what_was_published_last(ground: Ground) -> None:
    earlier(ground, "5")
    earlier(ground, "2")
    assert auto(ground, "3") == 7000


def test_it_is_compared_with_the_same_key_alone(ground: Ground) -> None:
    arch = ground.store.platforms.arches(["aarch64"])[0]
    earlier(ground, "5", arch_id=arch.id)
    assert auto(ground, "1") == 7000
    assert auto(ground, "1", arch_id=arch.id) == 0


def test_what_it_was_built_with_is_published_before_it(ground: Ground) -> None:
    other = ground.end(ground.queue())
    assert auto(ground, extra_build_lists=[other.id]) == 0
    ground.mark_published(other)
    assert auto(ground, "2", extra_build_lists=[other.id]) == 7000


def test_into_a_personal_platform_it_goes_whatever_it_was_built_with(ground: Ground) -> None:
    personal = ground.store.platforms.repositories([ground.store.platforms.by_name("root_personal").id])[0]
    ground.store.platforms.add_project(personal, ground.project)
    other = ground.end(ground.queue())
    assert auto(ground, save_to_repository_id=personal.id, extra_build_lists=[other.id]) == 7000


# -- why it was not published ---------------------------------------------------------------------------------------


def refusal(ground: Ground, made: BuildList) -> tuple[str, str] | None:
    found = ground.store.build_lists.refusal(ground.again(made))
    return (found.reason, found.message.removeprefix("Not published: ")) if found else None


def auto_made(ground: Ground, version: str = "1", **values: Any) -> BuildList:
    made = ground.queue(**{"auto_publish_status": "default", **values})
    return ground.end(made, 0, package("hello", version, type="source", epoch=1, release="2"))


def test_what_was_published_or_not_wanted_has_no_refusal(ground: Ground) -> None:
    assert refusal(ground, auto_made(ground)) is None
    assert refusal(ground, ground.mark_published(ground.end(ground.queue(), 0, package()))) is None
    assert refusal(ground, ground.end(ground.queue(), 0, package())) is None
    assert refusal(ground, ground.end(ground.queue(), 1)) is None


def test_what_is_not_newer_names_both_versions(ground: Ground) -> None:
    first = ground.mark_published(auto_made(ground, "2"))
    made = auto_made(ground, "1")
    words = (
        f"version 1:1-2 is not newer than 1:2-2, which is in cocos/main (build list {first.id}): raise the version,"
        f" or publish the build nevertheless by `polylocal package publish {made.id}`"
    )
    assert refusal(ground, made) == ("not-newer", words)
    history = ground.store.runs.statuses(ground.run(made), limit=9, offset=0)[1]
    assert (history[-1].status, history[-1].message) == ("succeeded", f"Not published: {words}")
    assert ground.store.build_lists.publish(made, ground.user, again=False)
    assert refusal(ground, made) is None


@pytest.mark.parametrize(
    ("kind", "names", "words"),
    [
        ("pypi", [], "(pypi: .whl, .tar.gz), and no other file"),
        ("pypi", ["a.zip"], "(pypi: .whl, .tar.gz), only a.zip"),
        ("deb", ["a.zip", "b", "c"], "(deb: .deb, .udeb, .dsc), only a.zip, b, c"),
        ("dnf", ["a.zip", "b", "c", "d", "e"], "(dnf: .rpm), only a.zip, b, c and 2 more"),
    ],
)
@pytest.mark.parametrize("status", ["default", "none"])
def test_what_left_no_package_names_what_it_left(
    store: Store, root: User, project: Project, kind: str, names: list[str], words: str, status: str
) -> None:
    ground = Ground.of(store, root, project, kind)
    files = (result("abfworker::rpm-worker-1.log"), *(result(name, name) for name in names))
    made = ground.end(ground.queue(auto_publish_status=status), 0, results=files)
    told = f"the build left no package of the platform's kind {words}"
    assert refusal(ground, made) == ("no-packages", told)


@pytest.mark.parametrize("status", ["default", "none"])
def test_what_waits_for_qa_names_who_publishes_it(ground: Ground, status: str) -> None:
    ground.store.platforms.update_repository(ground.repository, {"publish_without_qa": False})
    made = auto_made(ground, auto_publish_status=status)
    words = "cocos/main has QA: an admin of its platform publishes the build by `polylocal package publish 1`"
    assert refusal(ground, made) == ("qa", words)


def test_a_project_that_has_left_is_named(ground: Ground) -> None:
    ground.store.platforms.remove_project(ground.repository, ground.project)
    found = refusal(ground, auto_made(ground))
    assert found
    assert found[0] == "not-in-repository"
    name = f"root/{ground.project.name}"
    assert f"the project {name} is not in cocos/main: add it by" in found[1]
    assert f"`polylocal package repository add cocos/main {name}`" in found[1]


def test_what_it_was_built_with_is_named_unless_it_is_published(ground: Ground) -> None:
    first, second = (ground.end(ground.queue(), 0, package(name)) for name in ("a", "b"))
    found = refusal(ground, auto_made(ground, extra_build_lists=[first.id, second.id]))
    assert found
    assert found[0] == "extra-build-lists"
    assert f"build lists {first.id}, {second.id} are not published" in found[1]
    ground.mark_published(first)
    found = refusal(ground, auto_made(ground, extra_build_lists=[first.id, second.id]))
    assert found
    assert f"build list {second.id}, which it was built with, is not published" in found[1]


def test_publishing_into_testing_is_refused(ground: Ground) -> None:
    found = refusal(ground, auto_made(ground, auto_publish_status="testing"))
    assert found
    assert found[0] == "testing"


@pytest.mark.parametrize("to", [BuildStatus.PUBLISH_FAILED, BuildStatus.PACKAGES_FAIL])
def test_a_publication_that_failed_is_a_refusal(ground: Ground, to: BuildStatus) -> None:
    made = publishing(ground)
    ground.store.build_lists.set_failed(made, to, [], "the file store has lost a.whl")
    assert refusal(ground, made) == ("failed", "the file store has lost a.whl")
    again = ground.again(made)
    ground.store.build_lists.set_failed(made, to, [], "said too late")
    assert refusal(ground, again) == ("failed", "the file store has lost a.whl")


# -- what the publisher does -----------------------------------------------------------------------------------------


def publishing(ground: Ground, **values: Any) -> BuildList:
    made = ground.end(ground.queue(**values))
    assert ground.store.build_lists.publish(made, ground.user, again=False)
    return ground.again(made)


def test_what_waits_is_published_oldest_first_and_not_into_what_is_locked(ground: Ground) -> None:
    lists, platforms = ground.store.build_lists, ground.store.platforms
    first, second = publishing(ground), publishing(ground)
    assert lists.awaiting_publication() == [first, second]
    locked = platforms.update_repository(ground.repository, {"is_locked": True})
    assert lists.awaiting_publication() == []
    platforms.update_repository(locked, {"is_locked": False})
    assert lists.awaiting_publication() == [first, second]
    ground.store.runs.delete(ground.run(first))
    assert lists.awaiting_publication() == [second]


def test_the_next_publication_takes_the_place_of_the_one_before(ground: Ground) -> None:
    lists = ground.store.build_lists
    arch = ground.store.platforms.arches(["aarch64"])[0]
    other = ground.mark_published(ground.end(ground.queue(arch_id=arch.id)))
    first = publishing(ground)
    assert lists.set_published(first, "release", "cocos-1-1")
    found = ground.again(first)
    assert (found.status, found.published_into, found.package_version) == (6000, "release", "cocos-1-1")
    second = ground.mark_published(publishing(ground))
    assert lists.published(ground.repository.id) == [other, second]
    assert (ground.again(first).status, ground.again(first).published_into) == (6000, None)
    assert lists.published_repositories() == [ground.repository.id]


def test_updates_leave_the_release_where_it_is(ground: Ground) -> None:
    first = ground.mark_published(publishing(ground), "release")
    second = ground.mark_published(publishing(ground), "updates")
    found = ground.store.build_lists.published(ground.repository.id)
    assert [(x.id, x.published_into) for x in found] == [(first.id, "release"), (second.id, "updates")]
    third = ground.mark_published(publishing(ground), "updates")
    found = ground.store.build_lists.published(ground.repository.id)
    assert [(x.id, x.published_into) for x in found] == [(first.id, "release"), (third.id, "updates")]


def test_what_is_rejected_lies_in_no_repository(ground: Ground) -> None:
    """This includes the packages that it had published before its last publication failed."""
    lists = ground.store.build_lists
    made = ground.mark_published(publishing(ground))
    assert lists.publish(made, ground.user, again=True)
    lists.set_failed(made, BuildStatus.PUBLISH_FAILED, [])
    assert lists.published(ground.repository.id) == [ground.again(made)]
    assert lists.stale_repositories() == []
    assert lists.reject(made, ground.user)
    assert (ground.again(made).status, ground.again(made).published_into) == (9000, None)
    assert lists.published(ground.repository.id) == []
    assert lists.stale_repositories() == [ground.repository.id]


def test_what_is_rejected_and_was_never_published_leaves_nothing_to_write(ground: Ground) -> None:
    lists = ground.store.build_lists
    other = ground.mark_published(publishing(ground))
    assert not lists.reject(other, ground.user)
    made = ground.end(ground.queue())
    assert lists.reject(made, ground.user)
    assert lists.published(ground.repository.id) == [other]
    assert lists.stale_repositories() == []


@pytest.mark.parametrize("to", [BuildStatus.PUBLISH_FAILED, BuildStatus.PACKAGES_FAIL])
def test_a_publication_that_failed_says_why(ground: Ground, to: BuildStatus) -> None:
    made = publishing(ground)
    ground.store.build_lists.set_failed(made, to, [result("publish.log")])
    assert ground.again(made).status == to
    assert [found.file_name for found in ground.store.build_lists.results(made)] == ["publish.log"]
    ground.store.build_lists.set_failed(made, to, [result("again.log")])
    assert len(ground.store.build_lists.results(made)) == 1


def test_a_container_is_made_when_it_is_asked_for_and_asked_for_again_when_it_failed(ground: Ground) -> None:
    lists = ground.store.build_lists
    made = ground.end(ground.queue())
    assert lists.request_container(made)
    assert not lists.request_container(made)
    assert [found.id for found in lists.awaiting_container()] == [made.id]
    lists.set_container(made, ContainerStatus.FAILED, [result()])
    assert ground.again(made).container_status == 8000
    assert lists.awaiting_container() == []
    assert lists.request_container(made)
    lists.set_container(made, ContainerStatus.PUBLISHED)
    assert not lists.request_container(made)
    assert [found.id for found in lists.with_container()] == [made.id]
    lists.request_lost_container(made)
    assert [found.id for found in lists.awaiting_container()] == [made.id]


def test_a_container_that_nobody_waits_for_says_nothing(ground: Ground) -> None:
    made = ground.end(ground.queue())
    ground.store.build_lists.set_container(made, ContainerStatus.FAILED, [result()])
    assert ground.again(made) == made
    assert ground.store.build_lists.results(made) == []


def test_what_is_yanked_has_its_repository_written_anew(ground: Ground, store: Store) -> None:
    lists = store.build_lists
    made = ground.mark_published(ground.end(ground.queue(), 0, package()))
    assert (made.yanked, lists.stale_repositories()) == (None, [])
    for change, yanked in ((lambda: lists.yank(made, ""), ""), (lambda: lists.undo_yank(made), None)):
        assert change()
        assert ground.again(made).yanked == yanked
        assert lists.stale_repositories() == [ground.repository.id]
        lists.set_fresh(store.platforms.repository(ground.repository.id))
    assert not lists.undo_yank(made)
    assert lists.stale_repositories() == []


def test_what_does_not_lie_in_a_repository_is_not_yanked(ground: Ground, store: Store) -> None:
    complete = ground.end(ground.queue(), 0, package())
    assert not store.build_lists.yank(complete, "bad")
    first = ground.mark_published(complete)
    ground.mark_published(ground.end(ground.queue(), 0, package(version="1.1")))  # takes its place
    assert not store.build_lists.yank(first, "bad")
    assert ground.again(first).yanked is None
    assert store.build_lists.stale_repositories() == []


def test_a_publisher_that_has_not_seen_it_does_not_undo_it(ground: Ground, store: Store) -> None:
    made = ground.mark_published(ground.end(ground.queue(), 0, package()))
    store.build_lists.set_stale(ground.repository.id)
    looked_at = store.platforms.repository(ground.repository.id)
    assert store.build_lists.yank(made, "bad")
    store.build_lists.set_fresh(looked_at)
    assert store.build_lists.stale_repositories() == [ground.repository.id]


# -- files -----------------------------------------------------------------------------------------------------------


def test_files_go_when_nobody_has_them_and_nobody_uploaded_them(ground: Ground) -> None:
    shared, own, logged, kept = (sha1(word.encode()) for word in ("shared 1", "own 1", "said", "kept 1"))
    first = ground.end(ground.queue(), 0, package("shared", "1"), package("own", "1"), package("kept", "1"))
    second = ground.end(ground.queue(), 0, package("shared", "1"), results=(result(),))
    ground.store.files.add(kept, "mine.whl", 6, ground.user)
    ground.store.files.add("e" * 40, "only-mine", 1, ground.user)
    assert ground.store.files.remove_unused() == []
    ground.store.runs.remove(ground.run(first))
    assert ground.store.files.remove_unused() == [own]
    assert ground.store.files.get(kept).is_uploaded
    ground.store.runs.remove(ground.run(second))
    assert set(ground.store.files.remove_unused()) == {shared, logged}
    assert ground.store.files.remove_unused() == []
    for gone in (shared, own, logged):
        with pytest.raises(NotFound):
            ground.store.files.get(gone)
    assert [ground.store.files.get(found).is_uploaded for found in (kept, "e" * 40)] == [True, True]


def test_a_file_that_a_build_leaves_again_stays_an_upload(ground: Ground) -> None:
    for _ in range(2):
        ground.store.files.add(sha1(b"a 1"), "mine.whl", 3, ground.user)
    made = ground.end(ground.queue(), 0, package("a", "1"))
    stored = ground.store.files.get(sha1(b"a 1"))
    assert (stored.file_name, stored.is_uploaded) == ("mine.whl", True)
    ground.store.runs.remove(ground.run(made))
    assert ground.store.files.remove_unused() == []


# -- any order -------------------------------------------------------------------------------------------------------

FINAL = {5000, 666, 777, 9000, 15000}
BEGUN = {"building", "scheduled", "starting", "running"}


class Moves(RuleBasedStateMachine):
    """Compares a real store with a model of three numbers for each build list."""

    lists = Bundle("lists")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder / "polylocal.db")
        self.model: dict[int, list[int]] = {}  # by run: status, container status
        self.overdue: set[int] = set()
        self.known: dict[int, BuildList] = {}
        self.lies_there: int | None = None

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        user = self.store.users.add("root")
        self.ground = Ground.of(self.store, user, self.store.projects.create(user, {"name": "p"}))

    @rule(target=lists, auto_publish=st.booleans(), auto_create_container=st.booleans())
    def make(self, auto_publish: bool, auto_create_container: bool) -> BuildList:
        status = "default" if auto_publish else "none"
        made = self.ground.queue(auto_publish_status=status, auto_create_container=auto_create_container)
        self.model[made.run_pk] = [2000, 4000]
        return made

    @rule(made=lists, to=st.sampled_from(["scheduled", "running", "warning", "unschedulable"]))
    def run_moves(self, made: BuildList, to: str) -> None:
        run = self.ground.run(made)
        moved = self.store.runs.transition(run, Status(to))
        assert moved == (run.status in TRANSITIONS[Status(to)])
        if moved and self.model[made.run_pk][0] != 10000:
            self.model[made.run_pk][0] = 3000 if to in BEGUN else 2000

    @rule(made=lists)
    def time_is_over(self, made: BuildList) -> None:
        run = self.ground.run(made)
        self.store.runs.request_stop(run, "time-limit")
        if not is_done(run.status) and run.stop_requested_at is None:
            self.overdue.add(made.run_pk)

    @rule(
        made=lists,
        to=st.sampled_from(["succeeded", "failed", "stopped"]),
        code=st.sampled_from([None, 0, 1, 5, 6, 137]),
        version=st.sampled_from(["1", "2"]),
    )
    def ends(self, made: BuildList, to: str, code: int | None, version: str) -> None:
        was_done = is_done(self.ground.run(made).status)
        assert conclude(self.ground, made, Status(to), code, package("x", version, type="source")) is not was_done
        if was_done:
            return
        row = self.model[made.run_pk]
        if row[0] == 10000:
            row[0] = 5000
        elif to == "succeeded":
            row[0] = 0
        elif to == "stopped" or made.run_pk in self.overdue:
            row[0] = 5000
        else:
            row[0] = {5: 11000, 6: 15000}.get(code or 0, 666)
        if row[0] in (0, 11000) and made.auto_create_container:
            row[1] = 7000
        published = self.lies_there and self.store.build_lists.packages([self.lies_there])[0].version
        if row[0] == 0 and made.auto_publish_status == "default" and (published is None or version >= published):
            row[0] = 7000

    @rule(made=lists)
    def is_stopped_by_the_supervisor(self, made: BuildList) -> None:
        run = self.ground.run(made)
        self.store.runs.transition(run, Status.STOPPED)
        if not is_done(run.status):
            self.model[made.run_pk][0] = 5000

    @rule(made=lists)
    def cancel(self, made: BuildList) -> None:
        row = self.model[made.run_pk]
        is_allowed = row[0] in (2000, 3000)
        assert self.store.build_lists.cancel(made) is is_allowed
        if is_allowed:
            row[0] = 10000
            assert self.ground.run(made).stop_requested_at

    @rule(made=lists, again=st.booleans())
    def publish(self, made: BuildList, again: bool) -> None:
        row = self.model[made.run_pk]
        is_allowed = row[0] in (0, 8000, 11000) or (again and row[0] == 6000)
        assert self.store.build_lists.publish(made, self.ground.user, again=again) is is_allowed
        row[0] = 7000 if is_allowed else row[0]

    @rule(made=lists)
    def reject(self, made: BuildList) -> None:
        row = self.model[made.run_pk]
        is_allowed = row[0] in (0, 8000)
        assert self.store.build_lists.reject(made, self.ground.user) is is_allowed
        row[0] = 9000 if is_allowed else row[0]

    @rule(made=lists)
    def is_published(self, made: BuildList) -> None:
        row = self.model[made.run_pk]
        is_allowed = row[0] == 7000
        assert self.store.build_lists.set_published(made, "release", "v") is is_allowed
        if is_allowed:
            row[0], self.lies_there = 6000, made.run_pk

    @rule(made=lists, to=st.sampled_from([BuildStatus.PUBLISH_FAILED, BuildStatus.PACKAGES_FAIL]))
    def publication_fails(self, made: BuildList, to: BuildStatus) -> None:
        row = self.model[made.run_pk]
        self.store.build_lists.set_failed(made, to, [])
        row[0] = int(to) if row[0] == 7000 else row[0]

    @rule(made=lists)
    def request_container(self, made: BuildList) -> None:
        row = self.model[made.run_pk]
        is_allowed = row[0] in (0, 11000) and row[1] in (4000, 8000)
        assert self.store.build_lists.request_container(made) is is_allowed
        row[1] = 7000 if is_allowed else row[1]

    @rule(made=lists, to=st.sampled_from([ContainerStatus.PUBLISHED, ContainerStatus.FAILED]))
    def container_ends(self, made: BuildList, to: ContainerStatus) -> None:
        row = self.model[made.run_pk]
        self.store.build_lists.set_container(made, to)
        row[1] = int(to) if row[1] == 7000 else row[1]

    @invariant()
    def every_list_is_where_the_model_is(self) -> None:
        for pk, row in self.model.items():
            found = self.store.build_lists.of_run(pk)
            assert [found.status, found.container_status] == row
            known = self.known.get(pk, found)
            assert found.updated_at >= known.updated_at
            if known.status in FINAL:
                assert found.status == known.status
            if found.updated_at == known.updated_at:
                assert (found.status, found.container_status) == (known.status, known.container_status)
            self.known[pk] = found

    @invariant()
    def the_last_published_lies_there_alone(self) -> None:
        if self.model:
            there = [found.run_pk for found in self.store.build_lists.published(self.ground.repository.id)]
            assert there == ([self.lies_there] if self.lies_there else [])


TestMoves = pytest.mark.slow(Moves.TestCase)
TestMoves.settings = settings(max_examples=15, stateful_step_count=20, deadline=5000)
