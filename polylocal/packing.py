"""A folder → the tar.gz that is uploaded, without what `.polyaxonignore` names."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pathspec import GitIgnoreSpec

from polylocal import sparse
from polylocal.archives import Archive
from polylocal.errors import InvalidInput
from polylocal.folders import Entry, walk

IGNORE_FILE = ".polyaxonignore"
MOST_HOLES = 1 << 30  # bytes in the holes of one file
# where a folder has no ignore file of its own
DEFAULT_IGNORE = """\
.git
.eggs
eggs
.venv
venv
lib64
sdist
*.egg-info
__pycache__
.ipynb_checkpoints
.mypy_cache
.pytest_cache
.ruff_cache
node_modules
*.pyc
*.swp
.DS_Store
/.polyaxon
/.polylocal
"""


class Ignored:
    """Which paths of a folder stay at home. The same notation as git's, whatever the case of letters."""

    def __init__(self, folder: Path) -> None:
        file = folder / IGNORE_FILE
        text = file.read_text(errors="surrogateescape") if file.exists() else DEFAULT_IGNORE
        lines = (line.removeprefix("./").lower() for line in text.splitlines())
        self._spec = GitIgnoreSpec.from_lines(filter(_is_pattern, lines))

    def __call__(self, path: str, is_folder: bool) -> bool:
        """`path` is relative to the folder, with forward slashes."""
        return self._spec.match_file(path.lower() + ("/" if is_folder else ""))


def _is_pattern(line: str) -> bool:
    """As with git, a line that can't be a pattern matches nothing."""
    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True


def files(folder: Path) -> Iterator[tuple[Path, str]]:
    """What is uploaded, sorted: (path, name in the archive)."""
    for entry in _entries(folder):
        yield folder / entry.path, entry.path


def _entries(folder: Path) -> Iterator[Entry]:
    """Files and links; sockets and pipes have no content to upload."""
    ignored = Ignored(folder)
    for entry in walk(folder, enter=lambda inner: not ignored(inner.path, True)):
        if not entry.is_folder and not ignored(entry.path, False):
            yield entry


def pack(folder: Path, to: BinaryIO) -> tuple[int, int]:
    """Write the archive; returns the number of files and their bytes before packing.

    Raises InvalidInput for a file that is mostly holes: what takes no room here would take its whole size there.
    """
    count = size = 0
    with tarfile.open(fileobj=to, mode="w:gz", compresslevel=3) as tar:
        archive = Archive(tar, _refuse, with_holes=False)
        for entry in _entries(folder):
            if _is_mostly_holes(entry):
                _refuse(f"{entry.path} is a sparse file of {entry.stat.st_size} bytes")
            archive.add(entry, f"./{entry.path}", entry.path)
            count += 1
            size += entry.stat.st_size
    return count, size


def _is_mostly_holes(entry: Entry) -> bool:
    if sparse.holes(entry.stat) <= MOST_HOLES:
        return False
    try:
        with entry.open() as file:
            return sparse.has_more_holes(file.fileno(), MOST_HOLES)
    except OSError:  # gone, or not to be read: that is said where it is added
        return False


def _refuse(line: str) -> None:
    raise InvalidInput([f"{line}; name it in {IGNORE_FILE}"])
