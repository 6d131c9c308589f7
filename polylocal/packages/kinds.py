"""What differs by the kind of a platform, its `distrib_type`: which files are packages. Pure."""

from __future__ import annotations

KINDS = ("deb", "dnf", "rhel", "mdv", "pypi")
_ENDINGS = {"deb": (".deb", ".udeb", ".dsc"), "pypi": (".whl", ".tar.gz")}
_RPM = (".rpm",)


def endings(kind: str | None) -> tuple[str, ...]:
    """The ends of the names of packages. The files that a `.dsc` names come with it."""
    return _ENDINGS.get(kind or "", _RPM)


def is_rpm(kind: str | None) -> bool:
    """Whether the packages of a kind are rpm packages, which only the extra `packages` can read."""
    return kind not in _ENDINGS


def is_package(file_name: str, kind: str | None) -> bool:
    """Whether a file of this name is taken for a package, where a build does not say which are."""
    return file_name.endswith(endings(kind))


def may_be_other(file_name: str) -> bool:
    """Whether files of this name are often no packages, so that one that can't be read is another file."""
    return file_name.endswith(".tar.gz")
