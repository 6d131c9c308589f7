"""Names of commits that callers may use, compared with git's own rules."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylocal.git import revisions

REFS = ["master", "v1.0", "feature/a-b", "a@b", "ü", "0123456", "HEAD", "refs/heads/x", "a{b", "a#b", "x" * 200]
NO_REFS = ["", "-a", "--output=x", ".a", "a/.b", "a..b", "a~1", "a^", "a:b", ":/x", "a?", "a*", "a[b", "a\\b", "a b"]
NO_REFS += ["a.lock", "a.lock/b", "a/", "/a", "a//b", "a.", "@", "a@{1}", "a\nb", "a\0b", "a\x7fb", "\ud800", "x" * 256]


@pytest.mark.parametrize("name", REFS)
def test_names_of_branches(name: str) -> None:
    assert revisions.is_ref(name)


@pytest.mark.parametrize("name", NO_REFS)
def test_invalid_names_of_branches(name: str) -> None:
    assert not revisions.is_ref(name)
    assert revisions.candidates(name) == []


@given(st.text(st.sampled_from("ab/.-@{}~^:?*[\\ lock\x01\x7fé#"), max_size=12))
def test_no_name_is_taken_that_git_refuses(name: str) -> None:
    if revisions.is_ref(name):
        done = subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=False)
        assert done.returncode == 0


def test_hashes() -> None:
    assert all(map(revisions.is_hash, ("abcdef0", "ABCDEF0", "a" * 40)))
    assert not any(map(revisions.is_hash, ("abcdef", "a" * 41, "a" * 64, "g" * 40, " abcdef0", "abcdef0\n")))
    assert revisions.is_commit("a" * 40)
    assert not any(map(revisions.is_commit, ("A" * 40, "a" * 39, "a" * 40 + "\n")))
    assert revisions.is_foreign_hash("a" * 64)
    assert not any(map(revisions.is_foreign_hash, ("a" * 63, "--output=x")))


def test_the_order_in_which_a_name_is_looked_up() -> None:
    assert revisions.candidates("HEAD") == ["HEAD"]
    assert revisions.candidates("A" * 40) == ["a" * 40]
    assert revisions.candidates("Abcdef0") == ["refs/tags/Abcdef0", "refs/heads/Abcdef0", "abcdef0"]
    assert revisions.candidates("dev") == ["refs/tags/dev", "refs/heads/dev"]
    assert revisions.candidates("refs/heads/dev") == ["refs/heads/dev"]
