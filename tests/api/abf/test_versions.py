"""The version of a Python project from the tags of its code."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from .farm import Farm

VERSION = "SETUPTOOLS_SCM_PRETEND_VERSION"


class Pypi:
    """A Python platform, and the code of evil_tools that is built for it."""

    def __init__(self, farm: Farm, kind: str = "pypi") -> None:
        self.farm = farm
        values = {"description": "d", "distrib_type": kind, "build_image": "polylocal/busybox:test"}
        platform = farm.root.create("platforms.json", "platform", name="py", **values)
        about = {"platform_id": platform, "name": "main", "description": "d"}
        repository = farm.root.create("repositories.json", "repository", **about)
        path = f"repositories/{repository}/add_project.json"
        farm.root.change("PUT", path, {"project_id": farm.ids.evil_tools})
        self.places = {
            "save_to_repository_id": repository,
            "build_for_platform_id": platform,
            "include_repos": [repository],
        }
        self.code = farm.context.repository(farm.store.projects.by_id(farm.ids.evil_tools))

    def commit(self, **files: str) -> str:
        return self.farm.put_code(self.farm.ids.evil_tools, {"setup.py": "x", **files})

    def tag(self, name: str, commit: str) -> None:
        subprocess.run(["git", "-C", str(self.code.path), "tag", name, commit], check=True)

    def variables(self, **values: Any) -> dict[str, str]:
        """The variables that its build gets."""
        body = self.farm.body(**self.places, **values)
        found = self.farm.store.build_lists.get(self.farm.new(body))
        config = self.farm.store.runs.by_pk(found.run_pk).config or {}
        given: dict[str, str] = config.get("environment", {}).get("env_vars", {})
        return given


@pytest.fixture
def pypi(farm: Farm) -> Pypi:
    return Pypi(farm)


def test_the_tag_that_is_built_gives_the_version(pypi: Pypi) -> None:
    commit = pypi.commit()
    for tag in ("v1.2", "v1.3"):
        pypi.tag(tag, commit)
    assert pypi.variables(project_version="v1.2", commit_hash=None)[VERSION] == "1.2"
    assert pypi.variables(commit_hash=commit)[VERSION] == "1.3"
    assert set(pypi.variables(commit_hash=commit).values()) == {"1.3"}  # the variables of all build systems


def test_a_commit_without_a_tag_has_a_version_of_its_own(pypi: Pypi) -> None:
    pypi.tag("v1.2", pypi.commit())
    commit = pypi.commit(a="1")
    assert pypi.variables(commit_hash=commit)[VERSION] == f"1.2.dev1+g{commit[:7]}"


def test_a_tag_may_begin_with_the_name_of_its_project(pypi: Pypi) -> None:
    pypi.tag("evil_tools-1.5", pypi.commit())
    named = pypi.commit(**{"pyproject.toml": "project.name = 'nice'"})
    pypi.tag("nice-2.0", named)
    assert pypi.variables(commit_hash=named)[VERSION] == "2.0"
    other = pypi.commit(**{"pyproject.toml": "["})
    assert pypi.variables(commit_hash=other)[VERSION] == f"1.5.dev2+g{other[:7]}"


def test_without_a_tag_that_names_a_version_nothing_is_pretended(pypi: Pypi) -> None:
    commit = pypi.commit()
    assert pypi.variables(commit_hash=commit) == {}
    for tag in ("nightly", "other-1.0", "2024-01-05"):
        pypi.tag(tag, commit)
    assert pypi.variables(commit_hash=commit) == {}


def test_an_unpacked_source_distribution_has_its_own_version(pypi: Pypi) -> None:
    """Its build system would read the version from that file if there were no repository without tags."""
    about = {"PKG-INFO": "Metadata-Version: 2.1\nName: evil-tools\nVersion: 4.5\n"}
    commit = pypi.commit(**about)
    assert pypi.variables(commit_hash=commit)[VERSION] == "4.5"
    pypi.tag("v1.2", commit)
    assert pypi.variables(commit_hash=commit)[VERSION] == "1.2"


def test_a_project_that_lacks_the_tag_which_it_needs_fails_where_builds_do(pypi: Pypi) -> None:
    text = "[build-system]\nrequires = ['hatch-vcs']\n[project]\ndynamic = ['version']\n"
    commit = pypi.commit(**{"pyproject.toml": text})

    def command() -> str:
        found = pypi.farm.store.build_lists.get(pypi.farm.new(pypi.farm.body(**pypi.places, commit_hash=commit)))
        said: str = (pypi.farm.store.runs.by_pk(found.run_pk).config or {})["run"]["cmd"]
        return said

    assert "comes from git by hatch-vcs" in command()
    pypi.tag("v1.2", commit)
    assert "comes from git" not in command()


def test_packages_of_another_kind_have_no_such_version(farm: Farm) -> None:
    other = Pypi(farm, "deb")
    commit = other.commit()
    other.tag("v1.2", commit)
    assert other.variables(commit_hash=commit) == {}


def test_the_callers_git_describe_overrides_the_projects_tags(pypi: Pypi) -> None:
    """An upload has no tags, so the output of the caller's `git describe` comes first."""
    commit = pypi.commit()
    pypi.tag("v1.2", commit)
    assert pypi.variables(commit_hash=commit, git_describe="v3.0-0-gabcdef0")[VERSION] == "3.0"
    assert pypi.variables(commit_hash=commit, git_describe="v3.0-4-gabcdef0123")[VERSION] == "3.0.dev4+gabcdef0"
    assert pypi.variables(commit_hash=commit, git_describe="v3.0-0-gabcdef0-dirty")[VERSION] == (
        "3.0.dev0+gabcdef0.dirty"
    )
    assert pypi.variables(commit_hash=commit, git_describe="nightly-0-gabcdef0")[VERSION] == "1.2"
    assert pypi.variables(commit_hash=commit, git_describe="")[VERSION] == "1.2"


@pytest.mark.parametrize("said", ["v3.0", "v3.0-x-gabc", "a b-0-gabcdef0", "$(id)-0-g123", "x" * 1000])
def test_impossible_outputs_of_git_describe_are_refused(pypi: Pypi, said: str) -> None:
    answer = pypi.farm.ivan.post("build_lists.json", pypi.farm.body(git_describe=said))
    assert answer.status_code == 422
    assert "Git describe is not an output of `git describe --tags --long`" in answer.json()["build_list"]["message"]
