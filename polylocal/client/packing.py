"""A folder → the tar.gz that is uploaded, without what its ignore files name and what leads out of it."""

from __future__ import annotations

import os
import stat
import tarfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO

from polylocal.client.ignore import DEFAULT_IGNORE, IGNORE_FILE, GitIgnored, Ignored, Rules, is_of_git
from polylocal.errors import InvalidInput
from polylocal.files import sparse
from polylocal.files.archives import Archive
from polylocal.files.folders import Entry, walk

__all__ = ["DEFAULT_IGNORE", "IGNORE_FILE", "Code", "GitIgnored", "Ignored", "Item", "files", "pack", "survey"]

MOST_HOLES = 1 << 30  # bytes in the holes of one file
_MOST_LINKS = 40  # on one way, where the kernel gives up as well


@dataclass(frozen=True)
class Item:
    """A file, a link, or an empty folder of the code."""

    path: str
    stat: os.stat_result
    target: str | None = None  # of a link: relative, and inside of the folder

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.stat.st_mode)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.stat.st_mode)

    @property
    def size(self) -> int:
        return self.stat.st_size if self.is_file else 0


@dataclass(frozen=True)
class Code:
    """What is uploaded of a folder, by its path in there."""

    folder: Path
    items: Mapping[str, Item]
    rules: Rules
    links_out: list[str] = field(default_factory=list)  # left out, since they lead out of the folder
    heeded: list[str] = field(default_factory=list)  # the ignore files that stand in for a missing `.polyaxonignore`
    is_cut: bool = False  # rules have left something out
    left: list[str] = field(default_factory=list)  # what the rules have left out; folders end with a slash
    empty: list[str] = field(default_factory=list)  # folders that git would not have, since nothing is in them

    @property
    def is_as_git(self) -> bool:
        """Whether it is what git would have of the folder."""
        return isinstance(self.rules, GitIgnored)

    @cached_property
    def size(self) -> int:
        """Bytes before packing."""
        return sum(item.size for item in self.items.values())

    @cached_property
    def count(self) -> int:
        """Files and folders, as the limit of them counts."""
        return len(self.items) + len(_parents(self.items))

    def largest(self, *, by_count: bool = False) -> list[tuple[str, int]]:
        """What at the top of the folder has the most bytes (or files), the largest first."""
        totals = Counter[str]()
        for item in self.items.values():
            top, slash, _ = item.path.partition("/")
            totals[top + slash] += 1 if by_count else item.size
        return totals.most_common()


def survey(folder: Path, *, as_git: bool = False) -> Code:
    """Look at what would be packed, without reading any file: `as_git` what git would have, or else what runs get.

    Raises InvalidInput for a folder that can't be read.
    """
    ignored: Rules = GitIgnored(folder) if as_git else Ignored(folder)
    items: dict[str, Item] = {}
    folders: list[Item] = []
    left: list[str] = []
    is_cut = False

    def enter(entry: Entry) -> bool:
        return not ignored.closes(entry.path)

    for entry in walk(folder, enter=enter, could_not_read=_unreadable(folder, ignored)):
        if ignored(entry.path, entry.is_folder):
            is_cut = True
            if not is_of_git(entry.path):
                left.append(entry.path + "/" * entry.is_folder)
        elif entry.is_folder:
            folders.append(Item(entry.path, entry.stat))
        else:
            try:
                items[entry.path] = Item(entry.path, entry.stat, _inside(folder, entry.path, entry.target))
            except OSError:
                continue  # a link that is gone by now
    links_out = _leading_out({item.path: item.target for item in items.values() if item.target is not None})
    for path in links_out:
        del items[path]
    filled = _parents([*items, *(item.path for item in folders)])
    unfilled = {item.path: item for item in folders if item.path not in filled}
    if as_git:
        return Code(folder, items, ignored, links_out, ignored.sources, is_cut, left, [f"{path}/" for path in unfilled])
    return Code(folder, {**items, **unfilled}, ignored, links_out, ignored.sources, is_cut, left)


def files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files and links that are uploaded, sorted: (path, name in the archive)."""
    for item in survey(folder).items.values():
        if not item.is_folder:
            yield folder / item.path, item.path


def pack(folder: Path, to: BinaryIO, code: Code | None = None) -> tuple[int, int]:
    """Write the archive; returns the number of files and their bytes before packing.

    `code`: what `survey` has found, where it was looked at before. Raises InvalidInput for what can't be read, and for
    a file that is mostly holes: what takes no room here would take its whole size there.
    """
    code = code or survey(folder)
    count = size = 0
    ignored = code.rules
    with tarfile.open(fileobj=to, mode="w:gz", compresslevel=3) as tar:
        archive = Archive(tar, partial(_refuse, rules=ignored), with_holes=False)
        for entry in walk(
            folder, enter=lambda inner: not ignored.closes(inner.path), could_not_read=_unreadable(folder, ignored)
        ):
            item = code.items.get(entry.path)
            if item is None or stat.S_IFMT(item.stat.st_mode) != stat.S_IFMT(entry.stat.st_mode):
                continue
            if _is_mostly_holes(entry):
                _refuse(f"{entry.path} is a sparse file of {entry.stat.st_size} bytes", ignored)
            if item.target is None:
                archive.add(entry, f"./{entry.path}", entry.path)
            else:
                _add_link(archive, entry, item.target)
            count += not item.is_folder
            size += 0 if item.is_folder else entry.stat.st_size
    return count, size


def _add_link(archive: Archive, entry: Entry, target: str) -> None:
    member = archive.member(f"./{entry.path}", entry.stat)
    member.type, member.linkname = tarfile.SYMTYPE, target
    archive.write(member)


def _parents(paths: Collection[str]) -> set[str]:
    """The folders that something is in."""
    found = set[str]()
    for path in paths:
        while (path := path.rpartition("/")[0]) and path not in found:
            found.add(path)
    return found


# -- links -----------------------------------------------------------------------------------------------------------


def _inside(folder: Path, path: str, target: str | None) -> str | None:
    """The target of a link; an absolute one that leads into the folder itself is made relative."""
    if target is None or not target.startswith("/") or ".." in target.split("/"):
        return target
    for top in (str(folder), os.path.realpath(folder)):
        if target == top or target.startswith(f"{top}/"):
            return os.path.relpath(target, f"{top}/{os.path.dirname(path)}")
    return target


def _leading_out(links: Mapping[str, str]) -> list[str]:
    """The links that lead out of the folder, also by way of others."""
    out = {path for path in links if _leads_out(path, links)}
    while True:  # without a link, `..` behind it means another folder
        kept = {path: target for path, target in links.items() if path not in out}
        more = {path for path in kept if _leads_out(path, kept)}
        if not more:
            return sorted(out)
        out |= more


def _leads_out(path: str, links: Mapping[str, str]) -> bool:
    """Whether a link leads out, by the rules that an upload is unpacked by."""
    here: list[str] = []
    ahead, seen = path.split("/")[::-1], 0
    while ahead:
        part = ahead.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not here:
                return True
            here.pop()
            continue
        target = links.get("/".join([*here, part]))
        if target is None:
            here.append(part)
            continue
        seen += 1
        if seen > _MOST_LINKS:
            return False  # in circles: it leads nowhere
        if target.startswith("/"):
            return True
        ahead += target.split("/")[::-1]
    return False


# -- refusals --------------------------------------------------------------------------------------------------------


def _is_mostly_holes(entry: Entry) -> bool:
    if not entry.is_file or sparse.holes(entry.stat) <= MOST_HOLES:
        return False
    try:
        with entry.open() as file:
            return sparse.has_more_holes(file.fileno(), MOST_HOLES)
    except OSError:  # gone, or not to be read: that is said where it is added
        return False


def _unreadable(folder: Path, ignored: Rules) -> Callable[[str, str], None]:
    """For `walk`: refuses a folder that can't be looked into, unless it is left out anyway."""

    def could_not_read(path: str, why: str) -> None:
        if path and ignored(path, True):
            return
        _refuse(f"{f'{path}/' if path else folder} can't be read: {why}", ignored)

    return could_not_read


def _refuse(line: str, rules: Rules) -> None:
    raise InvalidInput([f"{line}; name it in {rules.ignore_file}"])
