"""A file → what package it is, and what an index says of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from polylocal.errors import PackageError
from polylocal.files.disk import is_transient
from polylocal.packages import debs, distributions, rpms
from polylocal.packages.description import Description
from polylocal.packages.facts import Facts, digests

FORMAT = 1  # of what `facts` finds: it grows when a reader finds something else in the same file
_MOST = 255  # characters of a name, a version, a file name
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~:^@%=,!_-]*")
# what metadata is written to, in a repository of any kind
_TAKEN = frozenset(
    "Packages Packages.gz Sources Sources.gz Release Release.gpg InRelease index.html".split()
    + "by-hash pool repodata simple".split()
)
_DEBIAN = (*debs.BINARIES, debs.SOURCE)


def check_name(file_name: str) -> None:
    """Raises PackageError for a name under which no package can be published, because it is that of an index."""
    if file_name in _TAKEN or len(file_name) > _MOST or not _FILE.fullmatch(file_name):
        raise PackageError(f"a package can't be published under the file name {file_name!r}")


def read(path: Path, file_name: str) -> Description | None:
    """None: it is no package.

    Raises PackageError: it is a broken one, or says of itself what no package can; OSError: the disk fails.
    """
    with _told(file_name):
        found = _read(path, file_name)
    if found:
        if not found.name or not found.version or ":" in found.version:
            raise PackageError(f"{file_name} says of itself what is no version: {found.version[:40]!r}")
        check(found, file_name)
    return found


def facts(path: Path, file_name: str) -> Facts:
    """What an index says of a file. Raises PackageError: it is a broken package; OSError: it can't be read."""
    found = digests(path)
    with _told(file_name):
        about = _about(path, file_name)
    return Facts(**found, size=path.stat().st_size, about=about)


def kind(file_name: str) -> str:
    """The name of the reader of a file: `facts` finds the same in one content for every name of this kind."""
    return file_name.rpartition(".")[2]


def check(found: Description, file_name: str) -> None:
    """Raises PackageError."""
    if not _FILE.fullmatch(found.name):  # it stands in paths of indexes
        raise PackageError(f"{file_name} says of itself what is no name of a package: {found.name[:40]!r}")
    for word in (found.name, found.version, found.release):
        if len(word) > _MOST or not word.isprintable():
            raise PackageError(f"{file_name} says of itself what is no name and no version: {word[:40]!r}")


@contextmanager
def _told(file_name: str) -> Iterator[None]:
    """Turns the errors of a reader into PackageError: of whatever kind, since a hostile file can raise any.

    Errors of the disk or of the machine say nothing of the file, and stay what they are.
    """
    try:
        yield
    except PackageError:
        raise
    except Exception as error:
        if is_transient(error):
            raise
        raise PackageError(f"{file_name} can't be read: {type(error).__name__}: {error}") from error


def _read(path: Path, file_name: str) -> Description | None:
    if file_name.endswith(_DEBIAN):
        return debs.describe(path, file_name)
    if file_name.endswith(".rpm"):
        return rpms.describe(path, file_name)
    return distributions.describe(path, file_name)


def _about(path: Path, file_name: str) -> Mapping[str, str]:
    if file_name.endswith(_DEBIAN):
        return debs.about(path, file_name)
    if file_name.endswith(".rpm"):
        return rpms.about(path, file_name)
    return distributions.about(path, file_name)
