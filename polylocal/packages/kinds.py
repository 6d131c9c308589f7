"""The kinds of platforms (`distrib_type`), and the file names of their packages. Pure."""

KINDS = ("deb", "dnf", "rhel", "mdv", "pypi")
_ENDINGS = {"deb": (".deb", ".udeb", ".dsc"), "pypi": (".whl", ".tar.gz")}
_RPM = (".rpm",)


def endings(kind: str | None) -> tuple[str, ...]:
    """The suffixes of the file names of packages. The files that a `.dsc` file names belong to it."""
    return _ENDINGS.get(kind or "", _RPM)


def is_rpm(kind: str | None) -> bool:
    """Whether the packages of a kind are rpm packages. Reading these needs the extra `packages`."""
    return kind not in _ENDINGS


def is_package(file_name: str, kind: str | None) -> bool:
    """Whether a file counts as a package by its name. This applies to builds that do not list their packages."""
    return file_name.endswith(endings(kind))


def may_be_other(file_name: str) -> bool:
    """Whether an unreadable file of this name is probably not a package, rather than a broken one."""
    return file_name.endswith(".tar.gz")
