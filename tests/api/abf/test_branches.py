"""Branches and tags of a project, and its default branch."""

from __future__ import annotations

import subprocess

import pytest

from .farm import CODE, Farm, Json


def refs(farm: Farm, number: int) -> list[Json]:
    answer = farm.ivan.get(f"projects/{number}/refs_list.json")
    assert answer.status_code == 200
    assert answer.json()["url"] == f"/api/v1/projects/{number}/refs_list.json"
    found: list[Json] = answer.json()["refs_list"]
    return found


def test_a_branch(farm: Farm) -> None:
    number = farm.ids.evil_tools
    assert refs(farm, number) == [{"ref": "master", "object": {"type": "commit", "sha": farm.ids.commit}}]
    newest = farm.put_code(number, {**CODE, "a": "1"})
    assert refs(farm, number)[0]["object"]["sha"] == newest


def test_a_tag(farm: Farm) -> None:
    number = farm.ids.evil_tools
    path = farm.context.repository(farm.store.projects.by_id(number)).path
    subprocess.run(["git", "-C", str(path), "tag", "v1", farm.ids.commit], check=True)
    found = {item["ref"]: item["object"] for item in refs(farm, number)}
    assert sorted(found) == ["master", "v1"]
    assert found["v1"] == {"type": "tag", "sha": farm.ids.commit}
    made = farm.show(farm.new(farm.body(project_version="v1", commit_hash=None)))
    assert (made["commit_hash"], made["project_version"]) == (farm.ids.commit, "v1")


def test_branches_with_unusual_names(farm: Farm) -> None:
    """For git, a name consists of bytes. Some names are invalid UTF-8, or contain a Unicode line end."""
    number = farm.ids.evil_tools
    path = farm.context.repository(farm.store.projects.by_id(number)).path
    names = [b"caf\xe9", b"\xff\xfe", "a\u2028b".encode(), "a\u2029b\x85c".encode()]
    with (path / "packed-refs").open("ab") as packed:
        packed.writelines(farm.ids.commit.encode() + b" refs/heads/" + name + b"\n" for name in names)
    expected = ["master", *(name.decode("utf-8", "replace") for name in names)]
    found = refs(farm, number)
    assert sorted(item["ref"] for item in found) == sorted(expected)
    assert {(item["object"]["type"], item["object"]["sha"]) for item in found} == {("commit", farm.ids.commit)}


def test_a_project_without_code_has_none(farm: Farm) -> None:
    assert refs(farm, farm.ivan.create("projects.json", "project", name="empty")) == []


# -- the default branch --------------------------------------------------------------------------------------------

BRANCHES = (
    *("main", "a/b", "-x", "a..b", "x.lock", "a/x.lock/b", "a//b", "/a", "a/", "a/.b", ".a", "a b", "a\0b", "a."),
    *("HEAD", "@", "a@{b", "a~1", "a^", "a:b", "a?", "a*", "a[b", "a\\b", "ü", "x" * 300),
)


@pytest.mark.parametrize(("place", "branch"), list(enumerate(BRANCHES)), ids=[repr(branch[:9]) for branch in BRANCHES])
def test_branches_that_a_project_may_begin_with(place: int, branch: str, shared: Farm) -> None:
    """git can use every accepted name."""
    farm, before = shared, default(shared, shared.ids.evil_tools)
    made = farm.ivan.post("projects.json", {"project": {"name": f"new{place}", "default_branch": branch}})
    changed = farm.ivan.put(f"projects/{farm.ids.evil_tools}.json", {"project": {"default_branch": branch}})
    assert made.status_code == changed.status_code
    assert made.status_code in (200, 422)
    expected = branch if made.status_code == 200 else before
    assert default(farm, farm.ids.evil_tools) == expected
    if made.status_code == 200:
        number = made.json()["project"]["id"]
        assert refs(farm, number) == []
        newest = farm.put_code(number, CODE)
        assert newest in [item["object"]["sha"] for item in refs(farm, number)]
    assert refs(farm, farm.ids.evil_tools)[0]["object"]["sha"] == farm.ids.commit
    assert farm.show(farm.new())["commit_hash"] == farm.ids.commit


def test_the_branch_of_a_project_without_code(farm: Farm) -> None:
    other = {"Authorization": f"Token {farm.ids.tokens['ivan']}"}
    made = farm.nobody.post("projects/", {"name": "learning"}, headers=other)
    number = made.json()["id"]
    farm.ivan.change("PUT", f"projects/{number}.json", {"project": {"default_branch": "main"}})
    assert default(farm, number) == "main"


def default(farm: Farm, number: int) -> str:
    found: str = farm.ivan.get(f"projects/{number}.json").json()["project"]["default_branch"]
    return found
