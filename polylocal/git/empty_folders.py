"""Empty folders of code in a git repository, whose trees hold files only.

An empty folder is kept as an entry of the kind that git has for a commit of another repository: git makes an empty
folder of it in archives, checkouts and clones, and hashes it with the rest. The id in it is that of the empty tree,
which is the id of no commit, so the entry is never taken for a submodule.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from polylocal.files.folders import walk

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
MODE = "160000"
_STAGED = f"{MODE} {EMPTY_TREE} 0\t"  # as `git ls-files --stage` writes it


def on_disk(folder: Path) -> tuple[set[str], set[str]]:
    """All folders below one, and the empty ones among them. `.git` is not looked into."""
    folders, filled = set[str](), set[str]()
    for entry in walk(folder, every_kind=True, enter=lambda inner: inner.name != ".git"):
        filled.add(entry.path.rpartition("/")[0])
        if entry.is_folder and entry.name != ".git":
            folders.add(entry.path)
    return folders, folders - filled


def entries(paths: Iterable[str]) -> bytes:
    """For the standard input of `git update-index -z --index-info`."""
    lines = (f"{MODE} {EMPTY_TREE}\t{path}\0" for path in sorted(paths))
    return "".join(lines).encode("utf-8", "surrogateescape")


def staged(lines: Iterable[str]) -> list[str]:
    """The empty folders among what `git ls-files --stage` lists."""
    return [line.removeprefix(_STAGED) for line in lines if line.startswith(_STAGED)]


def still_empty(before: Iterable[str], on_disk: Collection[str], files: Iterable[str]) -> set[str]:
    """Those of the folders `before` that are there, and that none of the files lies in."""
    filled = {folder for path in files for folder in _above(path)}
    return {folder for folder in before if folder in on_disk and folder not in filled}


def _above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path
