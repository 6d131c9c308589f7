"""Compares the versions of packages by the rules of their kind. Pure."""

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
    """Whether `mine` is newer than `published`. `kind`: the platform's `distrib_type`.

    `equal_is_enough`: an equal version counts as newer. If one of the versions is invalid for the kind, any other text
    counts as newer.
    """
    try:
        left, right = _key(kind, mine), _key(kind, published)
    except ValueError:
        texts = [mine[1], published[1]] if kind == "pypi" else [text(mine), text(published)]
        return equal_is_enough or texts[0] != texts[1]
    return bool(left > right or (equal_is_enough and left == right))


def text(version: Version) -> str:
    """Format a version as Debian and rpm packages do: `epoch:version-release`."""
    epoch, upstream, release = version
    return (f"{epoch}:" if epoch else "") + upstream + (f"-{release}" if release else "")


def _key(kind: str | None, version: Version) -> Any:
    """A sort key for the versions of a kind. Raises ValueError: the version is invalid for the kind."""
    epoch, upstream, release = version
    if kind == "pypi":
        from packaging.version import Version as PythonVersion  # takes 30 ms to import

        return PythonVersion(upstream)
    if kind != "deb":
        if not upstream:
            raise ValueError("a package has a version")
        return epoch or 0, _rpm(upstream), _rpm(release)
    if not _DEB_VERSION.fullmatch(upstream) or not _DEB_REVISION.fullmatch(release):
        raise ValueError(f"{text(version)!r} is not a Debian version")
    return epoch or 0, _deb(upstream), _deb(release or "0")


def _deb(part: str) -> list[tuple[list[int], tuple[int, str]]]:
    """A sort key by deb-version(7): `~` sorts before the end of a part, and letters before other characters."""
    return [([*map(_deb_order, words), 0], _number(digits)) for words, digits in _DEB_PART.findall(part)]


def _deb_order(sign: str) -> int:
    return -1 if sign == "~" else ord(sign) if sign.isalpha() else ord(sign) + 256


def _rpm(part: str) -> list[tuple[int, int, str]]:
    """A sort key by rpm-version(7): `~`, the end, `^`, letters, numbers. Separators do not matter."""
    words = _RPM_PART.findall(part)
    found = [(4, *_number(word)) if word.isdigit() else (_RPM_RANKS.get(word, 3), 0, word) for word in words]
    return [*found, (_END, 0, "")]


def _number(digits: str) -> tuple[int, str]:
    """A sort key for a number, which may have more digits than Python's `int` accepts."""
    significant = digits.lstrip("0")
    return len(significant), significant
