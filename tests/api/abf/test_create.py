"""New build lists: the values that are accepted, defaulted and ignored."""

from __future__ import annotations

import pytest

from polylocal.api.abf import build_list_creation

from .farm import CODE, FORBIDDEN, Farm, Json


def test_the_answer(shared: Farm) -> None:
    answer = shared.ivan.post("build_lists.json", shared.body())
    number = answer.json()["build_list"]["id"]
    assert isinstance(number, int)
    assert answer.status_code == 200
    assert answer.json() == {"build_list": {"id": number, "message": "BuildList has been created successfully"}}
    assert shared.show(number)["status"] == 2000


def test_a_check_writes_nothing(farm: Farm) -> None:
    """The commit is not referenced either before its build list exists."""
    commit = farm.put_code(farm.ids.evil_tools, {**CODE, "a": "1"})
    said, ivan = farm.body(commit_hash=commit)["build_list"], farm.store.users.get("ivan")
    tables = ("runs", "build_lists", "code_references")

    def counts() -> list[int]:
        with farm.store.database.read() as db:
            return [db.execute(f"select count(*) from {table}").fetchone()[0] for table in tables]

    before = counts()
    new = build_list_creation.check(said, ivan, farm.context)
    assert counts() == before
    farm.store.build_lists.create(new.project, ivan, new.run, new.values)
    assert counts() == [count + 1 for count in before]


def test_each_has_a_number_of_its_own(shared: Farm) -> None:
    numbers = [shared.new(), shared.new(shared.of_secret_tools()), shared.new(shared.for_lts())]
    assert len(set(numbers)) == 3
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("empty", [None, "", ...])
def test_without_a_commit_the_newest_of_the_branch_is_taken(empty: object, farm: Farm) -> None:
    newest = farm.put_code(farm.ids.evil_tools, {**CODE, "a": "1"})
    made = farm.show(farm.new(farm.body(commit_hash=empty)))
    assert (made["commit_hash"], made["project_version"]) == (newest, "master")


@pytest.mark.parametrize("empty", [None, "", ...])
def test_without_a_version_the_commit_is_the_version(empty: object, shared: Farm) -> None:
    shared.put_code(shared.ids.evil_tools, {**CODE, "a": "1"})
    made = shared.show(shared.new(shared.body(project_version=empty)))
    assert (made["commit_hash"], made["project_version"]) == (shared.ids.commit, shared.ids.commit)


def test_an_older_commit(farm: Farm) -> None:
    farm.put_code(farm.ids.evil_tools, {**CODE, "a": "1"})
    assert farm.show(farm.new())["commit_hash"] == farm.ids.commit


def test_a_short_commit_is_kept_whole(farm: Farm) -> None:
    made = farm.show(farm.new(farm.body(commit_hash=farm.ids.commit[:10])))
    assert made["commit_hash"] == farm.ids.commit


def test_repositories_are_counted_once(shared: Farm) -> None:
    ids = shared.ids
    made = shared.show(shared.new(shared.body(include_repos=[ids.contrib, ids.rosa, ids.contrib, str(ids.rosa)])))
    assert sorted(item["id"] for item in made["include_repos"]) == sorted([ids.rosa, ids.contrib])


def test_a_single_repository_needs_no_list(shared: Farm) -> None:
    for alone in (shared.ids.rosa, str(shared.ids.rosa)):
        made = shared.show(shared.new(shared.body(include_repos=alone)))
        assert [item["id"] for item in made["include_repos"]] == [shared.ids.rosa]


@pytest.mark.parametrize("kind", ["security", "bugfix", "enhancement", "recommended", "newpackage"])
def test_types_of_updates(kind: str, shared: Farm) -> None:
    assert shared.show(shared.new(shared.body(update_type=kind)))["update_type"] == kind


# -- automatic publication ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "status", "is_on"),
    [
        ({}, "default", True),
        ({"auto_publish": True}, "default", True),
        ({"auto_publish": False}, "none", False),
        ({"auto_publish_status": "default"}, "default", True),
        ({"auto_publish_status": "none"}, "none", False),
        ({"auto_publish": True, "auto_publish_status": "none"}, "none", False),
        ({"auto_publish": False, "auto_publish_status": "default"}, "default", True),
        ({"auto_publish": "false"}, "none", False),
    ],
)
def test_publishing_by_itself_is_one_setting_of_two_names(said: Json, status: str, is_on: bool, shared: Farm) -> None:
    made = shared.show(shared.new(shared.body(**{"auto_publish": ..., **said})))
    assert (made["auto_publish_status"], made["auto_publish"]) == (status, is_on)


def test_publishing_into_testing(shared: Farm) -> None:
    assert (
        shared.show(shared.new(shared.body(auto_publish=..., auto_publish_status="testing")))["auto_publish_status"]
        == "testing"
    )


@pytest.mark.parametrize("said", [{"auto_publish": True}, {"auto_publish_status": "default"}])
def test_no_automatic_publication_into_a_repository_with_qa(said: Json, shared: Farm) -> None:
    made = shared.show(shared.new(shared.for_lts(**{"auto_publish": ..., **said})))
    assert (made["auto_publish_status"], made["auto_publish"]) == ("none", False)


def test_a_container_by_itself_is_for_what_is_not_published(shared: Farm) -> None:
    wanted = {"auto_create_container": True}
    assert shared.show(shared.new(shared.body(auto_publish=False, **wanted)))["auto_create_container"] is True
    assert shared.show(shared.new(shared.for_lts(auto_publish=True, **wanted)))["auto_create_container"] is True
    assert shared.show(shared.new(shared.body(auto_publish=True, **wanted)))["auto_create_container"] is False
    assert shared.show(shared.new(shared.body(auto_publish=..., **wanted)))["auto_create_container"] is False


# -- connected repositories -----------------------------------------------------------------------------------------


def test_a_main_platform_always_uses_its_repository(shared: Farm) -> None:
    for said in (False, "false", True, ...):
        assert shared.show(shared.new(shared.body(use_save_to_repository=said)))["use_save_to_repository"] is True


@pytest.mark.parametrize(("said", "kept"), [(False, False), ("false", False), (True, True), (..., True)])
def test_a_personal_platform_need_not_use_its_repository(said: object, kept: bool, shared: Farm) -> None:
    made = shared.show(shared.new(shared.for_personal(use_save_to_repository=said)))
    assert made["use_save_to_repository"] is kept


def test_further_repositories_are_for_personal_platforms(farm: Farm) -> None:
    wanted = [farm.ids.contrib, farm.ids.lts]
    made = farm.show(farm.new(farm.for_personal(extra_repositories=wanted)))
    assert sorted(item["id"] for item in made["extra_repositories"]) == sorted(wanted)
    assert sorted(made["extra_repositories"][0]) == sorted(made["include_repos"][0])
    assert farm.show(farm.new(farm.body(extra_repositories=wanted)))["extra_repositories"] == []


def test_further_repositories_that_are_not_there_or_hidden_vanish(farm: Farm) -> None:
    ids = farm.ids
    farm.root.change("PUT", f"platforms/{ids.lts_platform}.json", {"platform": {"visibility": "hidden"}})
    made = farm.show(farm.new(farm.for_personal(extra_repositories=[999, ids.contrib, ids.lts])))
    assert [item["id"] for item in made["extra_repositories"]] == [ids.contrib]


@pytest.mark.parametrize("status", [0, 11000, 6000])
def test_other_builds_are_used_if_their_container_is_published(status: int, shared: Farm) -> None:
    used = shared.new(status=status, container_status=6000)
    others = [shared.new(status=0, container_status=other) for other in (4000, 7000, 8000)]
    made = shared.show(shared.new(shared.body(extra_build_lists=[*others, used, used, 999])))
    assert [item["id"] for item in made["extra_build_lists"]] == [used]


def test_a_main_platform_uses_builds_of_its_own(farm: Farm) -> None:
    elsewhere = [farm.new(body, status=0, container_status=6000) for body in (farm.for_lts(), farm.for_personal())]
    assert farm.show(farm.new(farm.body(extra_build_lists=elsewhere)))["extra_build_lists"] == []
    made = farm.show(farm.new(farm.for_personal(extra_build_lists=elsewhere)))
    assert sorted(item["id"] for item in made["extra_build_lists"]) == sorted(elsewhere)


def test_builds_of_another_architecture_are_not_used(farm: Farm) -> None:
    used = farm.new(status=0, container_status=6000, arch_id=farm.foreign_arch())
    for body in (farm.body(extra_build_lists=[used]), farm.for_personal(extra_build_lists=[used])):
        assert farm.show(farm.new(body))["extra_build_lists"] == []


def test_builds_that_one_cannot_see_are_not_used(farm: Farm) -> None:
    used = farm.new(farm.of_secret_tools(), status=0, container_status=6000)
    number = farm.petr.create("projects.json", "project", name="tools", visibility="open", is_package=True)
    commit = farm.put_code(number, CODE)
    repository = farm.petr.get(f"projects/{number}.json").json()["project"]["repositories"][0]["id"]
    places = {"project_id": number, "commit_hash": commit, "save_to_repository_id": repository}
    made = farm.new(farm.body(**places, extra_build_lists=[used]), by=farm.petr)
    assert farm.show(made)["extra_build_lists"] == []


def test_further_parameters_are_kept(shared: Farm) -> None:
    wanted = {"build_src_rpm": "-a", "build_rpm": "-b"}
    assert shared.show(shared.new(shared.body(extra_params=wanted)))["extra_params"] == wanted


@pytest.mark.parametrize("name", ["use_cached_chroot", "use_extra_tests", "save_buildroot"])
def test_switches_are_kept(name: str, shared: Farm) -> None:
    for value in (True, False):
        assert shared.show(shared.new(shared.body(**{name: value})))[name] is value


# -- permissions ----------------------------------------------------------------------------------------------------


def test_who_may_not_change_the_project(farm: Farm) -> None:
    for person in (farm.olga, farm.petr):
        for body in (farm.body(), farm.of_secret_tools(), farm.body(arch_id=999, update_type="x")):
            answer = person.post("build_lists.json", body)
            assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
    assert farm.count() == 0


def test_an_admin_may(farm: Farm) -> None:
    assert farm.show(farm.new(by=farm.root))["user"]["uname"] == "root"


def test_projects_that_are_not_packages(farm: Farm) -> None:
    farm.ivan.change("PUT", f"projects/{farm.ids.evil_tools}.json", {"project": {"is_package": False}})
    for person in (farm.ivan, farm.root):
        answer = person.post("build_lists.json", farm.body())
        assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
    assert farm.count() == 0


def test_a_platform_that_one_cannot_see(farm: Farm) -> None:
    farm.root.change("PUT", f"platforms/{farm.ids.lts_platform}.json", {"platform": {"visibility": "hidden"}})
    answer = farm.ivan.post("build_lists.json", farm.for_lts())
    assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
    assert farm.count() == 0
