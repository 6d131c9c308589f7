"""Versions of Python projects from git tags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from polylocal.git import tag_versions
from polylocal.git.tag_versions import Described

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("1.2", "1.2"),
        ("v1.2.3", "1.2.3"),
        ("V1.2", "1.2"),
        ("1.2rc1", "1.2rc1"),
        ("v1.2-rc.1", "1.2rc1"),
        ("1.2.post3", "1.2.post3"),
        ("2!1.0", "2!1.0"),
        ("my-app-1.2", "1.2"),
        ("My_App-v1.2", "1.2"),
        ("my.app/1.2", "1.2"),
        ("release-1.2", "1.2"),
        ("release/v1.2", "1.2"),
        ("v-1.2", "1.2"),
        ("other-1.2", None),  # another project of the repository
        ("app-1.2", None),
        ("debian/1.2-3", None),
        ("nightly", None),
        ("v", None),
        ("2024-01-05", None),
        ("1.2 final", None),
        ("1.2_windows_build", None),
        ("", None),
        ("1" * 5000, None),
    ],
)
def test_a_tag_names_a_version(tag: str, version: str | None) -> None:
    found = tag_versions.of_tag(tag, {"my-app"})
    assert (str(found) if found else None) == version


@pytest.mark.parametrize(
    ("tag", "distance", "is_dirty", "version"),
    [
        ("v1.2", 0, False, "1.2"),
        ("v1.2", 3, False, "1.2.dev3+g0123456"),
        ("v1.2", 0, True, "1.2.dev0+g0123456.dirty"),
        ("v1.2", 3, True, "1.2.dev3+g0123456.dirty"),
        ("1.2rc1", 3, False, "1.2rc1.dev3+g0123456"),
        ("1.2.post1", 3, False, "1.2.post1.dev3+g0123456"),
        ("1.2.dev0", 3, False, "1.2.dev3+g0123456"),
        ("1.2+local", 3, False, "1.2.dev3+g0123456"),
        ("nightly-5", 3, False, None),
    ],
)
def test_the_version_of_a_commit_is_valid(tag: str, distance: int, is_dirty: bool, version: str | None) -> None:
    found = tag_versions.version(Described(tag, distance, COMMIT, is_dirty), ["x"])
    assert found == version
    assert version is None or str(Version(version)) == version


@pytest.mark.parametrize(
    "described",
    [
        Described("v1.2", 0, COMMIT),
        Described("v1.2", 14, "0123456", is_dirty=True),
        Described("a-1-gabcdef0", 2, COMMIT),
        Described("release/1.2", 2, COMMIT),
    ],
)
def test_output_of_git_describe_is_parsed(described: Described) -> None:
    assert tag_versions.parse(str(described)) == described


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v1.2",
        "v1.2-3",
        "v1.2-3-g",
        "v1.2-3-gxyz",
        "-v1-3-gabcdef0",
        "v 1-3-gabcdef0",
        "a..b-3-gabcdef0",
        "v1\n-3-gabcdef0",
        "v1-3-gabcdef0\n",
        "v1-9999999999-gabcdef0",
        "v" * 600 + "-3-gabcdef0",
    ],
)
def test_text_that_git_describe_can_not_print_is_refused(text: str) -> None:
    assert tag_versions.parse(text) is None


@given(st.text(max_size=50))
def test_no_tag_is_too_odd(text: str) -> None:
    found = tag_versions.version(Described(text, 1, COMMIT), ["x"])
    assert found is None or Version(found)
    assert tag_versions.parse(text) is None or str(tag_versions.parse(text)) == text


@pytest.mark.parametrize(
    ("pyproject", "found"),
    [
        (None, {"x"}),
        ("[", {"x"}),
        ("project = 1", {"x"}),
        ("project.name = 1", {"x"}),
        ("project.name = 'Other'", {"x", "Other"}),
        ("[" * 100_000, {"x"}),
        ("a = " + "1" * 5000, {"x"}),
        ("a." * 100_000 + "a = 1", {"x"}),
    ],
)
def test_the_names_of_a_project_include_that_of_its_own_file(pyproject: str | None, found: set[str]) -> None:
    assert tag_versions.names("x", pyproject) == found


def test_every_build_system_gets_the_same_version_or_none() -> None:
    assert tag_versions.variables("1.2")["SETUPTOOLS_SCM_PRETEND_VERSION"] == "1.2"
    assert set(tag_versions.variables("1.2").values()) == {"1.2"}
    assert tag_versions.variables(None) == {}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Metadata-Version: 2.1\nName: x\nVersion: 1.2rc1\n\nVersion: 3\n", "1.2rc1"),
        ("Version: \n", None),
        ("Version: of mine\n", None),
        ("", None),
        ("\0\n:\n", None),
        (f"Version: {'1' * 5000}\n", None),
    ],
)
def test_an_unpacked_source_distribution_contains_its_version(text: str, version: str | None) -> None:
    assert tag_versions.of_metadata(text) == version


@pytest.mark.parametrize(
    ("requirements", "pyproject", "tool"),
    [
        (["setuptools", "Setuptools_SCM[toml] >=8"], "project.dynamic = ['version']", "setuptools-scm"),
        (["hatchling", "hatch-vcs"], "project.dynamic = ['version', 'readme']", "hatch-vcs"),
        (["setuptools", "setuptools_scm"], None, "setuptools-scm"),  # setup.py contains the rest
        (["setuptools", "setuptools_scm"], "project.version = '1'", None),  # it only finds files
        (["setuptools", "setuptools_scm"], "project.name = 'x'", None),
        (["setuptools", "setuptools_scm"], "[tool.setuptools_scm]\nfallback_version = '1'", None),
        (["setuptools", "setuptools_scm"], "[tool.hatch.version]\n fallback-version='1'", None),
        (["hatchling", "hatch-vcs"], "tool.hatch.version.raw-options = { fallback_version = '1' }", None),
        (["setuptools_scm"], "fallback_version = '1'\ntool.x = 'fallback_version'", "setuptools-scm"),
        (
            ["setuptools_scm"],
            f"tool = {'{' + 'a.' * 99 + 'a = ' + '{' + 'a.' * 99 + 'a = 1' + '}' * 2}",
            "setuptools-scm",
        ),
        (
            ["setuptools", "setuptools_scm"],
            "project.dynamic = ['version']\n[tool.setuptools.dynamic]\nversion = {attr = 'x.VERSION'}",
            None,
        ),
        (["hatchling", "hatch-vcs"], "project.dynamic = ['version']\n[tool.hatch.version]\npath = 'x.py'", None),
        (
            ["hatchling", "hatch-vcs"],
            "project.dynamic = ['version']\n[tool.hatch.version]\npath = 'x.py'\nsource = 'vcs'",
            "hatch-vcs",
        ),
        (["setuptools_scm"], "project.dynamic = ['version']\ntool.setuptools = 5\ntool.hatch = []", "setuptools-scm"),
        (["setuptools_scm"], "\n" * 100_000, "setuptools-scm"),
        (["setuptools"], "project.dynamic = ['version']", None),
        (["setuptools_scm"], "project.dynamic = 5", None),
        (["setuptools_scm"], "project = 5", "setuptools-scm"),
        ([], None, None),
    ],
)
def test_a_tool_that_looks_for_a_version_in_git(
    requirements: list[str], pyproject: str | None, tool: str | None
) -> None:
    assert tag_versions.tool(requirements, pyproject) == tool
