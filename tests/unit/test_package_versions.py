"""Comparison of versions, by the rules of each kind."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from polylocal.packages.versions import Version, is_newer

# each list is sorted from the oldest to the newest
DEB: list[Version] = [
    (None, "1.0~~", "1"),
    (None, "1.0~rc1", "1"),
    (None, "1.0~rc2", "1"),
    (None, "1.0", ""),
    (None, "1.0", "0.1"),
    (None, "1.0", "1"),
    (None, "1.0", "1+b1"),
    (None, "1.0", "1.1"),
    (None, "1.0", "2~bpo1"),
    (None, "1.0", "2"),
    (None, "1.0", "10"),
    (None, "1.0+dfsg", "1"),
    (None, "1.2", "1"),
    (None, "1.10", "1"),
    (1, "0.1", "1"),
    (2, "0.0.1", "1"),
    (10, "0", "1"),
]
RPM: list[Version] = [
    (None, "1.0~rc1", "1"),
    (None, "1.0", "1"),
    (None, "1.0", "1.mga1"),
    (None, "1.0", "2"),
    (None, "1.0", "10"),
    (None, "1.0a", "1"),
    (None, "1.0.1", "1"),
    (None, "1.9", "1"),
    (None, "1.10", "1"),
    (None, "20120101", "1"),
    (1, "0.1", "1"),
    (2, "0.1", "1"),
]
PYPI: list[Version] = [
    (None, "1.0.dev1", ""),
    (None, "1.0a1", ""),
    (None, "1.0a2.dev1", ""),
    (None, "1.0b1", ""),
    (None, "1.0rc1", ""),
    (None, "1.0", ""),
    (None, "1.0+local.1", ""),
    (None, "1.0.post1", ""),
    (None, "1.0.1", ""),
    (None, "1.2", ""),
    (None, "1.10", ""),
    (None, "1!0.1", ""),
]
ORDERS = [("deb", DEB), *((kind, RPM) for kind in ("dnf", "mdv", "rhel", None)), ("pypi", PYPI)]


@pytest.mark.parametrize(("kind", "order"), ORDERS)
def test_the_order_of_a_kind(kind: str | None, order: list[Version]) -> None:
    for (older, newer), equal_is_enough in product(combinations(order, 2), (False, True)):
        assert is_newer(kind, newer, older, equal_is_enough), (newer, older)
        assert not is_newer(kind, older, newer, equal_is_enough), (older, newer)


@pytest.mark.parametrize(("kind", "order"), ORDERS)
def test_equal_versions_are_new_only_where_that_is_enough(kind: str | None, order: list[Version]) -> None:
    for version in order:
        assert is_newer(kind, version, version, True)
        assert not is_newer(kind, version, version, False)


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("deb", (None, "1.0", "1"), (0, "1.0", "1")),
        ("deb", (None, "1.01", "1"), (None, "1.1", "1")),
        ("deb", (None, "1.0", ""), (None, "1.0", "0")),
        ("dnf", (None, "1.0", "1"), (0, "1.0", "1")),
        ("dnf", (None, "1.01", "1"), (None, "1.1", "1")),
        ("pypi", (None, "1.0", ""), (None, "1.0.0", "")),
        ("pypi", (None, "1.0-alpha1", ""), (None, "1.0a1", "")),
    ],
)
def test_different_texts_may_be_equal_versions(kind: str, one: Version, other: Version) -> None:
    for mine, published in ((one, other), (other, one)):
        assert is_newer(kind, mine, published, True)
        assert not is_newer(kind, mine, published, False)


def test_the_release_of_a_wheel_is_ignored() -> None:
    assert not is_newer("pypi", (None, "1.0", "9"), (None, "1.0", "1"), False)


@pytest.mark.parametrize("equal_is_enough", [False, True])
def test_versions_that_can_not_be_compared_are_new_if_their_texts_differ(equal_is_enough: bool) -> None:
    odd = (None, "not a version", "")
    assert is_newer("pypi", odd, (None, "1.0", ""), equal_is_enough)
    assert is_newer("pypi", (None, "1.0", ""), odd, equal_is_enough)
    assert is_newer("pypi", odd, odd, equal_is_enough) is equal_is_enough


@pytest.mark.parametrize("kind", ["deb", "dnf", "pypi"])
@pytest.mark.parametrize("text", ["", " ", "-", ":", "a:b", "1:", "é", "1.0 beta", "²", "9" * 5000])
def test_no_text_is_too_odd_to_be_compared(kind: str, text: str) -> None:
    for mine, published in (((None, text, ""), (None, "1.0", "1")), ((None, "1.0", "1"), (None, text, ""))):
        assert is_newer(kind, mine, published, True) in (True, False)
    assert is_newer(kind, (None, text, ""), (None, text, ""), True)
