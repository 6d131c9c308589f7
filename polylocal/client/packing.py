"""Packs a folder into a tar.gz for an upload, without ignored files and links that lead out of the folder."""

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
from polylocal.files.links import leads_out

__all__ = ["DEFAULT_IGNORE", "IGNORE_FILE", "Code", "GitIgnored", "Ignored", "Item", "files", "pack", "survey"]

MAX_HOLES = 1 << 30  # bytes; most holes of one file


@dataclass(frozen=True)
class Item:
    """A file, a link or an empty folder of the code."""

    path: str
    stat: os.stat_result
    target: str | None = None  # of a link: relative, and inside the folder

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
    """The parts of a folder that an upload contains. `items` are by path."""

    folder: Path
    items: Mapping[str, Item]
    rules: Rules
    links_out: list[str] = field(default_factory=list)  # links that were left out, since they lead out of the folder
    substitutes: list[str] = field(default_factory=list)  # ignore files used instead of a missing `.polyaxonignore`
    is_cut: bool = False  # whether rules left out anything
    left: list[str] = field(default_factory=list)  # paths that rules left out; folders end with a slash
    empty: list[str] = field(default_factory=list)  # empty folders, which git does not record

    @property
    def is_as_git(self) -> bool:
        """Whether git's rules were applied."""
        return isinstance(self.rules, GitIgnored)

    @cached_property
    def size(self) -> int:
        """Bytes before packing."""
        return sum(item.size for item in self.items.values())

    @cached_property
    def count(self) -> int:
        """Number of files and folders, as the server's limit counts them."""
        return len(self.items) + len(_parents(self.items))

    def largest(self, *, by_count: bool = False) -> list[tuple[str, int]]:
        """The entries at the top of the folder with their bytes (or number of files), largest first."""
        totals = Counter[str]()
        for item in self.items.values():
            top, slash, _ = item.path.partition("/")
            totals[top + slash] += 1 if by_count else item.size
        return totals.most_common()


def survey(folder: Path, *, as_git: bool = False) -> Code:
    """Find what to pack, without reading files, by git's rules (`as_git`) or those for runs.

    Raises InvalidInput for a folder that can't be read.
    """
    ignored: Rules = GitIgnored(folder) if as_git else Ignored(folder)
    items: dict[str, Item] = {}
    folders: list[Item] = []
    left: list[str] = []
    is_cut = False

    def enter(entry: Entry) -> bool:
        return not ignored.excludes_tree(entry.path)

    for entry in walk(folder, enter=enter, could_not_read=_refuse_unreadable(folder, ignored)):
        if ignored(entry.path, entry.is_folder):
            is_cut = True
            if not is_of_git(entry.path):
                left.append(entry.path + "/" * entry.is_folder)
        elif entry.is_folder:
            folders.append(Item(entry.path, entry.stat))
        else:
            try:
                items[entry.path] = Item(entry.path, entry.stat, _relative_target(folder, entry.path, entry.target))
            except OSError:
                continue  # a link that vanished
    links_out = _links_leading_out({item.path: item.target for item in items.values() if item.target is not None})
    for path in links_out:
        del items[path]
    filled = _parents([*items, *(item.path for item in folders)])
    unfilled = {item.path: item for item in folders if item.path not in filled}
    if as_git:
        return Code(folder, items, ignored, links_out, ignored.sources, is_cut, left, [f"{path}/" for path in unfilled])
    return Code(folder, {**items, **unfilled}, ignored, links_out, ignored.sources, is_cut, left)


def files(folder: Path) -> Iterator[tuple[Path, str]]:
    """(path, name in the archive) of the files and links to upload, sorted."""
    for item in survey(folder).items.values():
        if not item.is_folder:
            yield folder / item.path, item.path


def pack(folder: Path, to: BinaryIO, code: Code | None = None) -> tuple[int, int]:
    """Write the archive. Returns the number of files and their bytes before packing.

    `code`: the result of an earlier `survey`. Raises InvalidInput for unreadable files, and for sparse files with large
    holes, which would use their full size on the server.
    """
    code = code or survey(folder)
    count = size = 0
    ignored = code.rules
    with tarfile.open(fileobj=to, mode="w:gz", compresslevel=3) as tar:
        archive = Archive(tar, partial(_refuse, rules=ignored), with_holes=False)
        for entry in walk(
            folder,
            enter=lambda inner: not ignored.excludes_tree(inner.path),
            could_not_read=_refuse_unreadable(folder, ignored),
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
    """The folders that contain the paths."""
    found = set[str]()
    for path in paths:
        while (path := path.rpartition("/")[0]) and path not in found:
            found.add(path)
    return found


def _relative_target(folder: Path, path: str, target: str | None) -> str | None:
    """The target of a link; an absolute one into the folder becomes relative."""
    if target is None or not target.startswith("/") or ".." in target.split("/"):
        return target
    for top in (str(folder), os.path.realpath(folder)):
        if target == top or target.startswith(f"{top}/"):
            return os.path.relpath(target, f"{top}/{os.path.dirname(path)}")
    return target


def _links_leading_out(links: Mapping[str, str]) -> list[str]:
    """The links that lead out of the folder, directly or through other links."""
    out = {path for path in links if leads_out(path, links.get)}
    while True:  # leaving out a link changes the meaning of paths through it
        kept = {path: target for path, target in links.items() if path not in out}
        more = {path for path in kept if leads_out(path, kept.get)}
        if not more:
            return sorted(out)
        out |= more


def _is_mostly_holes(entry: Entry) -> bool:
    if not entry.is_file or sparse.holes(entry.stat) <= MAX_HOLES:
        return False
    try:
        with entry.open() as file:
            return sparse.has_more_holes(file.fileno(), MAX_HOLES)
    except OSError:  # adding the file will report the error
        return False


def _refuse_unreadable(folder: Path, ignored: Rules) -> Callable[[str, str], None]:
    """A callback for `walk` that refuses unreadable folders, unless they are left out anyway."""

    def could_not_read(path: str, why: str) -> None:
        if path and ignored(path, True):
            return
        _refuse(f"{f'{path}/' if path else folder} can't be read: {why}", ignored)

    return could_not_read


def _refuse(line: str, rules: Rules) -> None:
    raise InvalidInput([f"{line}; name it in {rules.ignore_file}"])
