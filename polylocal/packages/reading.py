"""Reads files of packages of all kinds: their description, and their facts for an index."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from polylocal.errors import PackageError
from polylocal.files.disk import is_transient
from polylocal.packages import debs, distributions, rpms
from polylocal.packages.description import Description
from polylocal.packages.facts import Facts, digests

FORMAT = 1  # version of the result of `facts`: increase it when a reader finds something else in the same file
_MAX = 255  # characters of a name, a version, a file name
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~:^@%=,!_-]*")
# files and folders of metadata in repositories of any kind
_TAKEN = frozenset(
    "Packages Packages.gz Sources Sources.gz Release Release.gpg InRelease index.html".split()
    + "by-hash pool repodata simple".split()
)
_DEBIAN = (*debs.BINARIES, debs.SOURCE)


def check_name(file_name: str) -> None:
    """Raises PackageError for a file name that a package can't have: one of an index, or one too long or malformed."""
    if file_name in _TAKEN or len(file_name) > _MAX or not _FILE.fullmatch(file_name):
        raise PackageError(f"a package can't be published under the file name {file_name!r}")


def read(path: Path, file_name: str) -> Description | None:
    """Read the description of a package. None: the file is not a package.

    Raises PackageError: the package is broken, or its metadata is invalid; OSError: the disk fails.
    """
    with _package_errors(file_name):
        found: Description | None = _reader(file_name).describe(path, file_name)
    if found:
        if not found.name or not found.version or ":" in found.version:
            raise PackageError(f"{file_name} has an invalid version: {found.version[:40]!r}")
        check(found, file_name)
    return found


def facts(path: Path, file_name: str) -> Facts:
    """Read the facts about a file for an index. Raises PackageError: the package is broken; OSError: the disk fails."""
    found = digests(path)
    with _package_errors(file_name):
        about = _reader(file_name).index_texts(path, file_name)
    return Facts(**found, size=path.stat().st_size, about=about)


def kind(file_name: str) -> str:
    """The last suffix of a file name. Names with one suffix have one reader, so `facts` finds the same for them."""
    return file_name.rpartition(".")[2]


def check(found: Description, file_name: str) -> None:
    """Raises PackageError: the name, version or release of a package is invalid."""
    if not _FILE.fullmatch(found.name):  # a part of paths in indexes
        raise PackageError(f"{file_name} has an invalid package name: {found.name[:40]!r}")
    for word in (found.name, found.version, found.release):
        if len(word) > _MAX or not word.isprintable():
            raise PackageError(f"{file_name} has an invalid name or version: {word[:40]!r}")


@contextmanager
def _package_errors(file_name: str) -> Iterator[None]:
    """Turn the errors of a reader into PackageError. A hostile file can raise an error of any type.

    Transient errors, of the disk or the machine, do not depend on the file, and pass unchanged.
    """
    try:
        yield
    except PackageError:
        raise
    except Exception as error:
        if is_transient(error):
            raise
        raise PackageError(f"{file_name} can't be read: {type(error).__name__}: {error}") from error


def _reader(file_name: str) -> ModuleType:
    if file_name.endswith(_DEBIAN):
        return debs
    return rpms if file_name.endswith(".rpm") else distributions
