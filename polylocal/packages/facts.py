"""The facts about one file of a repository that an index lists."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Facts:
    """The facts about the content of a file. They do not depend on the file's name and folder.

    `about`: the metadata that the reader of this kind of package found, by key, for the index of the same kind.
    """

    sha1: str
    md5: str
    sha256: str
    size: int  # bytes
    about: Mapping[str, str]


@dataclass(frozen=True)
class IndexedFile:
    """One file of a repository, as an index lists it.

    `path`: relative to the folder of the repository. It contains the sha1 of the content, so it is never reused.
    `yanked`: the reason (PEP 592), which may be empty; None: the file is not yanked.
    """

    name: str
    path: str
    facts: Facts
    yanked: str | None = None


def digests(path: Path) -> dict[str, str]:
    """The md5, sha1 and sha256 of a file in hex digits, computed in one pass. Raises OSError."""
    found = [hashlib.new(name, usedforsecurity=False) for name in ("md5", "sha1", "sha256")]
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            for digest in found:
                digest.update(chunk)
    return {digest.name: digest.hexdigest() for digest in found}
