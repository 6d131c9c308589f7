"""A folder → the tar.gz that is uploaded, without what `.polyaxonignore` names."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pathspec import GitIgnoreSpec

IGNORE_FILE = ".polyaxonignore"
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
    ignored = Ignored(folder)
    for parent, folders, names in os.walk(folder):
        base = Path(parent).relative_to(folder)
        folders[:] = sorted(name for name in folders if not ignored((base / name).as_posix(), True))
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in sorted([*names, *links]):
            relative = (base / name).as_posix()
            if not ignored(relative, False):
                yield Path(parent, name), relative


def pack(folder: Path, to: BinaryIO) -> tuple[int, int]:
    """Write the archive; returns the number of files and their bytes before packing."""
    count = size = 0
    with tarfile.open(fileobj=to, mode="w:gz", compresslevel=3) as tar:
        for path, name in files(folder):
            if path.is_symlink() or path.is_file():  # sockets and pipes have no content to upload
                tar.add(path, arcname=f"./{name}", recursive=False)
                count += 1
                size += path.lstat().st_size
    return count, size
