"""Stores empty folders in git repositories, though git itself records files only.

An empty folder is stored as a submodule entry: archives, checkouts and clones then contain an empty folder, and the
entry is part of the tree's hash. The entry's id is that of the empty tree. No commit has this id, so the entry can't be
mistaken for a real submodule.
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from polylocal.files.folders import walk

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
MODE = "160000"
_STAGED = f"{MODE} {EMPTY_TREE} 0\t"  # as `git ls-files --stage` writes it


def on_disk(folder: Path) -> tuple[set[str], set[str]]:
    """All folders below `folder`, and the empty ones among them. Does not enter `.git`."""
    folders, filled = set[str](), set[str]()
    for entry in walk(folder, every_kind=True, enter=lambda inner: inner.name != ".git"):
        filled.add(entry.path.rpartition("/")[0])
        if entry.is_folder and entry.name != ".git":
            folders.add(entry.path)
    return folders, folders - filled


def entries(paths: Iterable[str]) -> bytes:
    """Input for `git update-index -z --index-info`."""
    lines = (f"{MODE} {EMPTY_TREE}\t{path}\0" for path in sorted(paths))
    return "".join(lines).encode("utf-8", "surrogateescape")


def in_index(lines: Iterable[str]) -> list[str]:
    """The empty folders in the output of `git ls-files --stage`."""
    return [line.removeprefix(_STAGED) for line in lines if line.startswith(_STAGED)]


def remaining(before: Iterable[str], on_disk: Collection[str], files: Iterable[str]) -> set[str]:
    """The folders of `before` that exist and contain none of the files."""
    filled = {folder for path in files for folder in _parents(path)}
    return {folder for folder in before if folder in on_disk and folder not in filled}


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path
