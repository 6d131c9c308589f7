"""Compares the versions of packages by the rules of their kind. Pure."""

from __future__ import annotations

import re
from typing import Any

Version = tuple[int | None, str, str]  # epoch, version, release

_DEB_VERSION = re.compile(r"[0-9][A-Za-z0-9.+~:-]*", re.ASCII)
_DEB_REVISION = re.compile(r"[A-Za-z0-9.+~]*", re.ASCII)
_DEB_PART = re.compile(r"([^0-9]*)([0-9]*)")
_RPM_PART = re.compile(r"[0-9]+|[A-Za-z]+|[~^]")
_END = 1
_RPM_RANKS = {"~": 0, "^": 2}  # then come letters, and last numbers


def is_newer(kind: str | None, mine: Version, published: Version, equal_is_enough: bool) -> bool:
    """Whether `mine` is newer than `published`, for the `distrib_type` of a platform.

    A version that its kind does not allow is new if its text differs.
    """
    try:
        left, right = _key(kind, mine), _key(kind, published)
    except ValueError:
        texts = [mine[1], published[1]] if kind == "pypi" else [text(mine), text(published)]
        return equal_is_enough or texts[0] != texts[1]
    return bool(left > right or (equal_is_enough and left == right))


def text(version: Version) -> str:
    """As a Debian or rpm package writes it: `epoch:version-release`."""
    epoch, upstream, release = version
    return (f"{epoch}:" if epoch else "") + upstream + (f"-{release}" if release else "")


def _key(kind: str | None, version: Version) -> Any:
    """Sorts as the versions of a kind do. Raises ValueError: the kind does not allow such a version."""
    epoch, upstream, release = version
    if kind == "pypi":
        from packaging.version import Version as PythonVersion  # takes 30 ms to import

        return PythonVersion(upstream)
    if kind != "deb":
        if not upstream:
            raise ValueError("a package has a version")
        return epoch or 0, _rpm(upstream), _rpm(release)
    if not _DEB_VERSION.fullmatch(upstream) or not _DEB_REVISION.fullmatch(release):
        raise ValueError(f"{text(version)!r} is no Debian version")
    return epoch or 0, _deb(upstream), _deb(release or "0")


def _deb(part: str) -> list[tuple[list[int], tuple[int, str]]]:
    """deb-version(7): `~` comes before the end of a part, letters come before other characters, then the number."""
    return [([*map(_deb_order, words), 0], _number(digits)) for words, digits in _DEB_PART.findall(part)]


def _deb_order(sign: str) -> int:
    return -1 if sign == "~" else ord(sign) if sign.isalpha() else ord(sign) + 256


def _rpm(part: str) -> list[tuple[int, int, str]]:
    """rpm-version(7): `~` comes before the end, then `^`, letters and numbers; separators count for nothing."""
    words = _RPM_PART.findall(part)
    found = [(4, *_number(word)) if word.isdigit() else (_RPM_RANKS.get(word, 3), 0, word) for word in words]
    return [*found, (_END, 0, "")]


def _number(digits: str) -> tuple[int, str]:
    """Sorts as the number does, which may have more digits than Python converts."""
    significant = digits.lstrip("0")
    return len(significant), significant
