"""Build instructions in the code: any content is accepted for a new build list, and may fail later."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Mapping

import pytest

from .farm import Farm

# each line is ten times as long as the previous one
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
RECIPES = {
    "empty": "",
    "no YAML": "[",
    "another YAML": "- a\n- b\n",
    "a word": "build",
    "a number for a section": "build: 1\n",
    "a list for a command": "build: {command: [make, install]}\n",
    "a number for a command": "build: {command: 7}\n",
    "an empty command": "build: {command: ''}\n",
    "no section": "sources: {}\n",
    "sources of the wrong shape": "sources: [a, b]\n",
    "a sha1 that is none": "sources: {a.tar.gz: 1}\n",
    "a name that reaches out": "sources: {../../a: '0000000000000000000000000000000000000000'}\n",
    "a tag of Python": "build: !!python/object/apply:os.system [true]\n",
    "a bomb": BOMB,
    "a date": "build: {command: 2020-01-01}\n",
    "zero bytes": "\0\0",
    "long": "#" * 2**21,
    "deep": "[" * 1000,
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_a_file_of_the_project_about_its_build(recipe: str, shared: Farm) -> None:
    commit = shared.put_code(shared.ids.evil_tools, {".abf.yml": recipe})
    made = shared.new(shared.body(commit_hash=commit))
    assert shared.show(made)["status"] == 2000


def test_a_bomb_of_merges(farm: Farm) -> None:
    """Each line contains the previous one ten times. Parsing must not block other requests."""
    names = zip("abcdefg", "bcdefgh", strict=True)
    lines = [f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 10)}]}}" for old, new in names]
    bomb = "\n".join(["a: &a {x: y}", *lines])
    commit = farm.put_code(farm.ids.evil_tools, {".abf.yml": bomb})
    before = time.monotonic()
    farm.new(farm.body(commit_hash=commit))
    assert time.monotonic() - before < 10  # seconds; without copying it takes at most one


SHAPES: list[dict[str, str]] = [
    {"debian": "a file"},
    {".abf.yml/x": "a folder"},
    {"a.spec": "", "b.spec": ""},
    {"debian/control": "", "a.spec": ""},
    {"setup.py": ""},
    {"pyproject.toml": "["},
    {"a": ""},
]


@pytest.mark.parametrize("kind", ["deb", "dnf", "pypi"])
def test_code_of_any_shape(kind: str, farm: Farm) -> None:
    ids = farm.ids
    values = {"description": "d", "distrib_type": kind, "build_image": "polylocal/busybox:test"}
    platform = farm.root.create("platforms.json", "platform", name="other", **values)
    repository = farm.root.create("repositories.json", "repository", platform_id=platform, name="main", description="d")
    farm.root.change("PUT", f"repositories/{repository}/add_project.json", {"project_id": ids.evil_tools})
    places = {"save_to_repository_id": repository, "build_for_platform_id": platform, "include_repos": [repository]}
    for files in SHAPES:
        commit = farm.put_code(ids.evil_tools, files)
        assert farm.show(farm.new(farm.body(commit_hash=commit, **places)))["commit_hash"] == commit


def test_a_recipe_that_is_too_long_fails_in_the_build(farm: Farm) -> None:
    commit = farm.put_code(farm.ids.evil_tools, {".abf.yml": RECIPES["long"]})
    found = farm.store.build_lists.get(farm.new(farm.body(commit_hash=commit)))
    command = (farm.store.runs.by_pk(found.run_pk).config or {})["run"]["cmd"]
    assert ".abf.yml has more than 262144 bytes" in command
    assert command.endswith("exit 1")


def put_links(farm: Farm, links: Mapping[str, str], files: Mapping[str, str]) -> str:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
        for name, target in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    archive.seek(0)
    project = farm.store.projects.by_id(farm.ids.evil_tools)
    return farm.context.repository(project).upload(archive, "ivan")


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("ci/abf.yml", "make linked"),
        ("nowhere", "is a link to no file of the code"),
        ("ci", "is a link to no file of the code"),
        (".abf.yml", "is a link to no file of the code"),
        ("large.yml", ".abf.yml has more than 262144 bytes"),
    ],
)
def test_one_that_is_a_link_is_the_file_that_it_leads_to(target: str, command: str, farm: Farm) -> None:
    files = {"ci/abf.yml": "build: {command: make linked}", "large.yml": RECIPES["long"]}
    commit = put_links(farm, {".abf.yml": target}, files)
    found = farm.store.build_lists.get(farm.new(farm.body(commit_hash=commit)))
    assert command in (farm.store.runs.by_pk(found.run_pk).config or {})["run"]["cmd"]


@pytest.mark.parametrize(
    ("target", "is_built"), [("packaging", True), ("packaging/control", False), ("nowhere", False), ("link", False)]
)
def test_a_folder_debian_may_be_a_link(target: str, is_built: bool, farm: Farm) -> None:
    commit = put_links(farm, {"link": target}, {"packaging/control": ""})
    repository = farm.context.repository(farm.store.projects.by_id(farm.ids.evil_tools))
    assert repository.has_folder(commit, "link") is is_built
