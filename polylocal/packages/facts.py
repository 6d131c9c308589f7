"""What an index says of one file of a repository."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Facts:
    """What is known of the content of a file, whatever its name is and wherever it lies.

    `about`: the texts that the reader of its kind found in it, as the index of that kind needs them.
    """

    sha1: str
    md5: str
    sha256: str
    size: int  # bytes
    about: Mapping[str, str]


@dataclass(frozen=True)
class IndexedFile:
    """One file of a repository, as an index names it.

    `path`: below the folder of the repository. The path contains the sha1 of the content: another file never has it.
    `yanked`: the reason (PEP 592), which may be empty; None: the file is not yanked.
    """

    name: str
    path: str
    facts: Facts
    yanked: str | None = None


def digests(path: Path) -> dict[str, str]:
    """The md5, sha1 and sha256 of a file, in hex digits, in one reading. Raises OSError."""
    found = [hashlib.new(name, usedforsecurity=False) for name in ("md5", "sha1", "sha256")]
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            for digest in found:
                digest.update(chunk)
    return {digest.name: digest.hexdigest() for digest in found}
