"""Derives PEP 440 versions of Python projects from git tags. Pure.

Imports `packaging` in functions: that takes 30 ms, and a daemon's start needs none of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from typing import TYPE_CHECKING, Any

from polylocal.git import revisions
from polylocal.text import pyproject as project_file

if TYPE_CHECKING:
    from packaging.version import Version

# Each sets the version for one build system: setuptools-scm (with hatch-vcs and flit-scm), pdm-backend, pbr,
# poetry-dynamic-versioning and uv-dynamic-versioning.
VARIABLES = (
    "SETUPTOOLS_SCM_PRETEND_VERSION",
    "PDM_BUILD_SCM_VERSION",
    "PBR_VERSION",
    "POETRY_DYNAMIC_VERSIONING_BYPASS",
    "UV_DYNAMIC_VERSIONING_BYPASS",
)
_TOOLS = (
    "setuptools-scm",
    "hatch-vcs",
    "flit-scm",
    "pbr",
    "poetry-dynamic-versioning",
    "uv-dynamic-versioning",
    "setuptools-git-versioning",
    "versioningit",
)
_FALLBACKS = frozenset(  # settings of such tools with the version to use without a tag
    {"fallback_version", "fallback-version", "default_version", "default-version"}
)
MAX_TEXT = 512  # characters of an output of `git describe`

_DESCRIBED = re.compile(r"(?P<tag>.+)-(?P<distance>[0-9]{1,9})-g(?P<commit>[0-9a-f]{4,64})(?P<dirty>-dirty)?")
_TAG = re.compile(r"((?P<name>[a-z][a-z0-9._-]*?)[-_/])?v?(?P<version>[0-9].*)", re.IGNORECASE)
_PLAIN_NAMES = frozenset({"release", "rel", "version", "ver", "v"})  # common prefixes of version tags
_DIGITS = 7  # digits of the commit in a version, git's own default


@dataclass(frozen=True)
class Described:
    """A commit relative to its nearest tag, as from `git describe --long --dirty`. `distance` is in commits."""

    tag: str
    distance: int
    commit: str  # the hash, or its first digits
    is_dirty: bool = False  # the files differ from the commit

    def __str__(self) -> str:
        return f"{self.tag}-{self.distance}-g{self.commit}{'-dirty' if self.is_dirty else ''}"


def parse(text: str) -> Described | None:
    """Parse the output of `git describe --long --dirty`; None for other texts."""
    found = _DESCRIBED.fullmatch(text) if len(text) <= MAX_TEXT else None
    if found is None or not revisions.is_ref(found["tag"]):
        return None
    return Described(found["tag"], int(found["distance"]), found["commit"], bool(found["dirty"]))


def names(project: str, pyproject: str | None) -> set[str]:
    """The names of a project: on the server, and in its pyproject.toml."""
    try:
        name = project_file.table(project_file.load(pyproject), "project").get("name")
    except ValueError:
        return {project}  # the build reports errors in the file
    return {project, name} if isinstance(name, str) else {project}


def of_tag(tag: str, projects: Collection[str]) -> Version | None:
    """The version that a tag names: `1.2`, `v1.2`, `release-1.2`, or `name-1.2` with the project's name.

    A tag with another name belongs to another project in the repository. None: the tag names no version.
    """
    from packaging.utils import canonicalize_name

    found = _TAG.fullmatch(tag)
    if found is None:
        return None
    name = found["name"]
    known = {canonicalize_name(project) for project in projects} | _PLAIN_NAMES
    if name is not None and canonicalize_name(name) not in known:
        return None
    return _version(found["version"])


def _version(text: str) -> Version | None:
    from packaging.version import Version

    try:
        return Version(text)
    except ValueError:  # invalid, or a number with too many digits
        return None


def version(described: Described, projects: Collection[str]) -> str | None:
    """The version of a commit: of its tag, or `<version of the earlier tag>.dev<distance>+g<commit>`."""
    tagged = of_tag(described.tag, projects)
    if tagged is None:
        return None
    if not described.distance and not described.is_dirty:
        return str(tagged)
    base = tagged.public.partition(".dev")[0]  # a version has at most one `.dev` number
    local = f"g{described.commit[:_DIGITS]}{'.dirty' if described.is_dirty else ''}"
    return f"{base}.dev{described.distance}+{local}"


def of_metadata(text: str) -> str | None:
    """The version in the PKG-INFO of a source distribution; None if it is missing or invalid."""
    found = HeaderParser().parsestr(text).get("Version")
    valid = _version(found) if found else None
    return str(valid) if valid else None


def tool(requirements: Sequence[str], pyproject: str | None) -> str | None:
    """The build requirement that derives the version from git; None: the version comes from elsewhere.

    `requirements`: the valid build requirements of the same text, from `recipes.requirements`.
    """
    data = project_file.load(pyproject)
    project = data.get("project")
    dynamic = project.get("dynamic") if isinstance(project, dict) else ["version"]  # setup.py may define the project
    if not (isinstance(dynamic, list) and "version" in dynamic):
        return None
    if _has_fallback(project_file.table(data, "tool")) or _is_in_code(data):
        return None
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    wanted = {canonicalize_name(Requirement(item).name) for item in requirements}
    return next((name for name in _TOOLS if name in wanted), None)


def _has_fallback(tools: Mapping[str, Any]) -> bool:
    """Whether a tool's settings, at any depth, name a version to use without a tag."""
    ahead = [tools]
    while ahead:
        found = ahead.pop()
        if not _FALLBACKS.isdisjoint(found):
            return True
        ahead += [value for value in found.values() if isinstance(value, dict)]
    return False


def _is_in_code(data: Mapping[str, Any]) -> bool:
    """Whether setuptools or hatchling reads the version from the code."""
    hatch = project_file.table(data, "tool", "hatch", "version")
    is_by_hatch = "path" in hatch and hatch.get("source", "regex") != "vcs"
    return is_by_hatch or "version" in project_file.table(data, "tool", "setuptools", "dynamic")


def variables(version: str | None) -> Mapping[str, str]:
    """Environment variables that set the version for build systems; empty without a version."""
    return dict.fromkeys(VARIABLES, version) if version else {}
