"""The kinds of platforms."""

from __future__ import annotations

import pytest

from polylocal.packages import kinds, recipes


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        *((name, {"deb"}) for name in ("a.deb", "a.udeb", "a.dsc")),
        *((name, {"dnf", "rhel", "mdv"}) for name in ("a.rpm", "a.src.rpm")),
        *((name, {"pypi"}) for name in ("a.whl", "a.tar.gz")),
        *((name, set()) for name in ("build.log", "hello.deb.txt", "a.tar.xz", "a.tar", "whl", "", "x.buildinfo")),
    ],
)
def test_which_files_are_packages(name: str, wanted: set[str]) -> None:
    assert {kind for kind in kinds.KINDS if kinds.is_package(name, kind)} == wanted


@pytest.mark.parametrize(("name", "may_be"), [("a.tar.gz", True), ("a.whl", False), ("a.deb", False), ("a.rpm", False)])
def test_which_files_are_often_something_else(name: str, may_be: bool) -> None:
    assert kinds.may_be_other(name) is may_be


def test_each_kind_has_an_image() -> None:
    assert set(recipes.IMAGES) == set(kinds.KINDS)
