"""Refused build lists: single problems, and all problems at once."""

from __future__ import annotations

from typing import Any

import pytest

from .farm import Farm

INTRODUCTION = "BuildList has not been created. "
UNKNOWN = 10**6
# rules that other rules depend on: a request that breaks one may also break a dependent one
PROJECT = "Project can't be blank"
PLATFORM = "Build for platform can't be blank"
REPOSITORY = "Save to repository can't be blank"
ARCH = "Architecture can't be blank"
VERSION = "Version can't be blank"
INCLUDED = "Included repositories can't be blank"
TYPE = "Update type is not included in the list"
ELSEWHERE = "Build for platform Only the primary platform can be selected for the main repository!"
NOT_MAIN = 'Build for platform Type of platform in "build_for_platform" should be "main"'
FOREIGN = "Save to repository Include repos have to belongs to build for platform"
NOT_IN_IT = "Save to repository Repository does not contain project."
COMMIT = "Commit hash Unable find commit '{}' in project"
WHOLE = {
    *("project_id", "commit_hash", "project_version", "update_type", "save_to_repository_id", "include_repos"),
    *("build_for_platform_id", "arch_id", "auto_publish", "use_save_to_repository", "auto_publish_status"),
    *("auto_create_container", "extra_repositories", "extra_build_lists", "include_testing_subrepository"),
    *("use_cached_chroot", "use_extra_tests", "save_buildroot", "external_nodes", "extra_params"),
}
TEXTS = (PROJECT, PLATFORM, REPOSITORY, ARCH, VERSION, INCLUDED, TYPE, ELSEWHERE, NOT_MAIN, FOREIGN, NOT_IN_IT)


@pytest.fixture
def farm(shared: Farm) -> Farm:
    """Refused requests don't change the farm."""
    return shared


def refused(farm: Farm, **changes: Any) -> str:
    """Send a request that must be refused. Returns the message without its introduction."""
    before = farm.count()
    answer = farm.ivan.post("build_lists.json", farm.body(**changes))
    assert answer.status_code == 422, answer.text
    assert list(answer.json()) == ["build_list"]
    found = answer.json()["build_list"]
    assert sorted(found) == ["id", "message"]
    assert found["id"] is None
    assert found["message"].startswith(INTRODUCTION)
    assert farm.count() == before
    said: str = found["message"].removeprefix(INTRODUCTION)
    return said


@pytest.mark.parametrize("value", [..., None, "", UNKNOWN, "nosuch", 0, -1, 2**63, str(2**63)])
@pytest.mark.parametrize(
    ("field", "text", "others"),
    [
        ("arch_id", ARCH, ()),
        ("project_id", PROJECT, (NOT_IN_IT, "Commit hash", VERSION)),
        ("save_to_repository_id", REPOSITORY, ()),
        ("build_for_platform_id", PLATFORM, (ELSEWHERE, FOREIGN, NOT_MAIN)),
    ],
)
def test_required_fields(field: str, text: str, others: tuple[str, ...], value: object, farm: Farm) -> None:
    said = refused(farm, **{field: value})
    assert said.count(text) == 1
    unrelated = [other for other in (*TEXTS, "Commit hash") if other != text and other not in others]
    assert [other for other in unrelated if other in said] == []
    if not others:
        assert said == text


def test_an_architecture_that_this_machine_does_not_execute(farm: Farm) -> None:
    """It would wait for ever."""
    number = farm.foreign_arch()
    assert refused(farm, arch_id=number) == ARCH
    assert number not in [arch["id"] for arch in farm.ivan.get("arches.json").json()["architectures"]]


@pytest.mark.parametrize("value", [..., None, [], "", [None], ["nosuch"], [UNKNOWN]])
def test_repositories_to_be_included(value: object, farm: Farm) -> None:
    said = refused(farm, include_repos=value)
    if value in ([None], ["nosuch"], [UNKNOWN]):  # the documents allow both
        assert said in (INCLUDED, FOREIGN)
    else:
        assert said == INCLUDED


@pytest.mark.parametrize("value", [..., None, "", "Bugfix", "feature", 1])
def test_unknown_types_of_updates(value: object, farm: Farm) -> None:
    assert refused(farm, update_type=value) == TYPE


def test_a_main_repository_is_built_for_its_own_platform(farm: Farm) -> None:
    said = refused(farm, build_for_platform_id=farm.ids.lts_platform, include_repos=[farm.ids.lts])
    assert said == ELSEWHERE


def test_no_build_for_a_personal_platform(farm: Farm) -> None:
    ids = farm.ids
    said = refused(
        farm,
        save_to_repository_id=ids.personal,
        build_for_platform_id=ids.personal_platform,
        include_repos=[ids.personal],
    )
    assert said == NOT_MAIN


def test_included_repositories_are_of_the_platform(farm: Farm) -> None:
    for repositories in ([farm.ids.lts], [farm.ids.rosa, farm.ids.lts], [farm.ids.personal]):
        assert refused(farm, include_repos=repositories) == FOREIGN


def test_a_repository_without_the_project(farm: Farm) -> None:
    assert refused(farm, save_to_repository_id=farm.ids.contrib) == NOT_IN_IT


@pytest.mark.parametrize("commit", ["f" * 40, "0" * 40, "nosuch", "--all", "HEAD..master", "a\0b", "' or 1=1"])
def test_a_commit_that_is_not_in_the_project(commit: str, farm: Farm) -> None:
    assert refused(farm, commit_hash=commit) == COMMIT.format(commit)


@pytest.mark.parametrize("named", ["HEAD^0", "master^{commit}", "master~0", ":/", "HEAD^{/}", "@", "heads/master"])
def test_revision_syntax_names_no_commit(named: str, farm: Farm) -> None:
    """git would take each of these for the newest commit."""
    assert refused(farm, commit_hash=named) == COMMIT.format(named)
    assert refused(farm, commit_hash=None, project_version=named) == COMMIT.format(named)


@pytest.mark.parametrize("named", ["x" * 200_000, "f" * 200_000, "é" * 100_000], ids=lambda named: named[:1])
def test_a_commit_and_a_version_of_any_length(named: str, farm: Farm) -> None:
    """Such a text is too long for a program's arguments."""
    assert refused(farm, commit_hash=named) == COMMIT.format(named)
    for commit in (None, farm.ids.commit):
        said = refused(farm, commit_hash=commit, project_version=named)
        assert said == "Version is too long (maximum is 255 characters)"


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"A": "a\0b"}, "Extra params A has a null character, which no variable can have"),
        ({"A": "x" * 131_064}, "Extra params A has 131072 bytes (maximum is 131071)"),
        ({"A": "é" * 65_532}, "Extra params A has 131072 bytes (maximum is 131071)"),
    ],
    ids=["null", "long", "wide"],
)
def test_variables_that_no_container_starts_with(params: dict[str, str], said: str, farm: Farm) -> None:
    assert refused(farm, extra_params=params) == said


def test_a_variable_of_the_greatest_length(farm: Farm) -> None:
    made = farm.new(farm.body(extra_params={"A": "x" * 131_063}))
    assert len(farm.show(made)["extra_params"]["A"]) == 131_063


def test_a_commit_of_another_project(farm: Farm) -> None:
    other = farm.put_code(farm.ids.secret_tools, {"a": "1"})
    assert refused(farm, commit_hash=other) == COMMIT.format(other)


@pytest.mark.parametrize("empty", [None, "", ...])
def test_neither_a_version_nor_a_commit(empty: object, farm: Farm) -> None:
    assert VERSION in refused(farm, project_version=empty, commit_hash=empty)


@pytest.mark.parametrize("version", ["nosuch", "--all", "a b", "a\0b", "..", "master..master"])
def test_a_version_that_there_is_not_without_a_commit(version: str, farm: Farm) -> None:
    said = refused(farm, project_version=version, commit_hash=None)
    assert VERSION in said or "Commit hash Unable find commit" in said


def test_a_project_without_code(farm: Farm) -> None:
    ids = farm.ids
    empty = farm.ivan.create(
        "projects.json", "project", name="empty", owner_id=farm.ivan.id, owner_type="User", is_package=True
    )
    said = refused(farm, project_id=empty, save_to_repository_id=ids.personal)
    assert said == COMMIT.format(ids.commit)


def test_all_problems_are_reported_at_once(farm: Farm) -> None:
    said = refused(
        farm,
        arch_id=None,
        update_type="x",
        include_repos=[],
        save_to_repository_id=farm.ids.contrib,
        commit_hash="f" * 40,
    )
    texts = [ARCH, TYPE, INCLUDED, NOT_IN_IT, COMMIT.format("f" * 40)]
    assert [said.count(text) for text in texts] == [1] * len(texts)
    rest = said
    for text in texts:
        rest = rest.replace(text, "")
    assert rest == ". " * (len(texts) - 1)


def test_an_empty_build_list(farm: Farm) -> None:
    answer = farm.ivan.post("build_lists.json", {"build_list": {}})
    assert answer.status_code == 422
    said = answer.json()["build_list"]["message"]
    for text in (PROJECT, PLATFORM, REPOSITORY, ARCH, VERSION, INCLUDED, TYPE):
        assert said.count(text) == 1


@pytest.mark.parametrize("value", [[], {}, [1], {"id": 1}, True, 1.5])
@pytest.mark.parametrize("field", sorted(WHOLE))
def test_values_of_the_wrong_shape(field: str, value: object, farm: Farm) -> None:
    before = farm.count()
    answer = farm.ivan.post("build_lists.json", farm.body(**{field: value}))
    assert answer.status_code in (200, 400, 422)
    assert farm.count() - before == (answer.status_code == 200)
    assert farm.ivan.get("build_lists.json").status_code == 200
