"""A file → what package it is, by the tools of its own kind."""

from __future__ import annotations

import email
import re
from email.message import Message
from pathlib import Path

from polylocal.packages import distributions, tools
from polylocal.packages.description import Description
from polylocal.packages.tools import ToolError

_MAX_TEXT = 1 << 22  # bytes of a description of a package
_MOST = 255  # characters of a name, a version, a file name
_MOST_EPOCH = 2**31
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~:^@%=,!_-]*")
# what metadata is written to, in a repository of any kind
_TAKEN = frozenset(
    "Packages Packages.gz Sources Sources.gz Release Release.gpg InRelease index.html repodata simple".split()
)


def is_package(file_name: str) -> bool:
    """Whether a file of this name is taken for a package, where nobody says which are."""
    return file_name.endswith((".deb", ".udeb", ".rpm", ".whl", ".dsc", ".tar.gz"))


def check_name(file_name: str) -> None:
    """Whether a file of this name can be published. Raises ToolError: it would stand where an index is, or break it."""
    if file_name in _TAKEN or len(file_name) > _MOST or not _FILE.fullmatch(file_name):
        raise ToolError(f"a package can't be published under the file name {file_name!r}")


def read(path: Path, file_name: str) -> Description | None:
    """None: it is no package. Raises ToolError: it is a broken one, or says of itself what no package can."""
    try:
        found = _read(path, file_name)
    except ToolError:
        raise
    except Exception as error:  # of whatever kind: somebody made this file to be read wrongly, or a disk did
        raise ToolError(f"{file_name} can't be read: {type(error).__name__}: {error}") from error
    if found:
        if not found.name or not found.version or ":" in found.version:
            raise ToolError(f"{file_name} says of itself what is no version: {found.version[:40]!r}")
        check(found, file_name)
    return found


def check(found: Description, file_name: str) -> None:
    """Raises ToolError."""
    if not _FILE.fullmatch(found.name):  # it stands in paths of indexes
        raise ToolError(f"{file_name} says of itself what is no name of a package: {found.name[:40]!r}")
    for word in (found.name, found.version, found.release):
        if len(word) > _MOST or not word.isprintable():
            raise ToolError(f"{file_name} says of itself what is no name and no version: {word[:40]!r}")


def _read(path: Path, file_name: str) -> Description | None:
    if file_name.endswith((".deb", ".udeb")):
        return _deb(path)
    if file_name.endswith(".rpm"):
        return _rpm(path)
    if file_name.endswith(".dsc"):
        return _dsc(path, file_name)
    return distributions.describe(path, file_name)


def split_version(text: str) -> tuple[int | None, str, str]:
    """A Debian version → epoch, version, release."""
    epoch, colon, rest = text.partition(":")
    if not colon or not is_epoch(epoch):
        epoch, rest = "", text
    version, dash, release = rest.rpartition("-")
    return (int(epoch) if epoch else None), (version if dash else rest), (release if dash else "")


def is_epoch(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < _MOST_EPOCH


def _deb(path: Path) -> Description:
    said = tools.run(["dpkg-deb", "-f", str(path), "Package", "Version"], path.parent).decode(errors="replace")
    fields = email.message_from_string(said)
    return Description(_needed(fields, "Package", path), "binary", *split_version(_needed(fields, "Version", path)))


def _rpm(path: Path) -> Description:
    try:
        import createrepo_c
    except ImportError as error:
        raise ToolError("rpm packages need the Python package createrepo-c, which is not installed here") from error
    found = createrepo_c.package_from_rpm(str(path), createrepo_c.SHA256, path.name, path.name)
    kind = "source" if found.arch in ("src", "nosrc") else "binary"
    epoch = int(found.epoch) if (found.epoch or "0").isdigit() else 0
    return Description(found.name, kind, epoch or None, found.version, found.release)


def _dsc(path: Path, file_name: str) -> Description:
    with path.open("rb") as file:
        text = file.read(_MAX_TEXT).decode("utf-8", "replace")
    if text.startswith("-----BEGIN PGP SIGNED MESSAGE-----"):
        text = text.partition("\n\n")[2].partition("-----BEGIN PGP SIGNATURE-----")[0]
    fields = email.message_from_string(text)
    named = [line.split()[-1] for line in str(fields["Files"] or "").splitlines() if line.strip()]
    parts = [name for name in named if _FILE.fullmatch(name)]
    version = split_version(_needed(fields, "Version", path))
    return Description(_needed(fields, "Source", path), "source", *version, parts=parts)


def _needed(fields: Message, name: str, path: Path) -> str:
    found = str(fields[name] or "").strip()
    if not found:
        raise ToolError(f"{path.name} does not say its {name}")
    return found


__all__ = ["Description", "check", "check_name", "is_epoch", "is_package", "read", "split_version"]
