"""Finds the parts that a commit refers to but does not contain: submodules that were not fetched, git-LFS contents."""

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from polylocal.errors import NotFound
from polylocal.git import command, empty_folders
from polylocal.system import processes

_POINTER = re.compile(
    rb"version https://(?:git-lfs\.github\.com|hawser\.github\.com)/spec/v1\n(?:[^\n]+\n)*?"
    rb"oid sha256:(?P<oid>[0-9a-f]{64})\nsize (?P<size>[0-9]{1,18})\n?"
)
_POINTER_SIZES = range(100, 1025)  # possible bytes of a pointer
_BATCH = 5000  # files read by one git process
_MAX_NAMED = 3  # paths in a message


@dataclass(frozen=True)
class Pointer:
    """A file that stands for content in git-LFS."""

    path: str
    mode: str
    text: bytes
    oid: str  # SHA-256 of the content
    size: int


@dataclass(frozen=True)
class MissingParts:
    submodules: Sequence[tuple[str, str]] = ()  # path, commit
    pointers: Sequence[Pointer] = ()

    def sentences(self) -> list[str]:
        """Messages to the owner of the code."""
        lines = []
        if self.submodules:
            what = "is a submodule that was not fetched, and an empty folder in the code."
            several = "are submodules that were not fetched in the code."
            lines.append(_sentence([path for path, _ in self.submodules], what, several))
        if self.pointers:
            what = f"is a pointer of git-LFS, its content was not fetched: {self._hint()}."
            several = f"are pointers of git-LFS, their contents were not fetched: {self._hint()}."
            lines.append(_sentence([pointer.path for pointer in self.pointers], what, several))
        return lines

    @staticmethod
    def _hint() -> str:
        if shutil.which("git-lfs") is None:
            return "install git-lfs on the daemon's machine, and fetch the code again"
        return "git-lfs could not fetch it, or no admin configured the URL"


@lru_cache(maxsize=256)
def find_missing(git_dir: Path, tree: str) -> MissingParts:
    """The parts that a tree lacks."""
    submodules: list[tuple[str, str]] = []
    small: list[tuple[str, str, str]] = []  # mode, hash, path
    for line in _entries(git_dir, tree):
        about, _, path = line.partition("\t")
        mode, _, name, size = about.split()
        if mode == empty_folders.MODE and name != empty_folders.EMPTY_TREE:
            submodules.append((path, name))
        elif mode.startswith("100") and size.isdigit() and int(size) in _POINTER_SIZES:
            small.append((mode, name, path))
    pointers = list[Pointer]()
    for at in range(0, len(small), _BATCH):
        pointers += _pointers(git_dir, small[at : at + _BATCH])
    return MissingParts(submodules, pointers)


def _entries(git_dir: Path, tree: str) -> Iterator[str]:
    with tempfile.TemporaryFile() as file:
        if command.run("ls-tree", "-r", "-l", "-z", "--full-tree", tree, git_dir=git_dir, stdout=file).returncode:
            raise NotFound(f"the code has no folder {tree[:12]}")
        yield from command.names_in(file)


def _pointers(git_dir: Path, files: Sequence[tuple[str, str, str]]) -> Iterator[Pointer]:
    names = command.lines_of([name for _, name, _ in files])
    most = processes.Limits(output=len(files) * 2048 + 1024)
    output = command.run("cat-file", "--batch", "--buffer", git_dir=git_dir, stdin=names, limits=most).stdout
    at = 0
    for mode, _, path in files:
        end = output.find(b"\n", at)
        words = output[at:end].split()
        if len(words) != 3:
            raise NotFound(f"the code lacks its file `{path}`")
        size = int(words[2])
        text, at = output[end + 1 : end + 1 + size], end + 2 + size
        if found := _POINTER.fullmatch(text):
            yield Pointer(path, mode, text, found["oid"].decode(), int(found["size"]))


def _sentence(names: Sequence[str], if_one: str, if_several: str) -> str:
    more = len(names) - _MAX_NAMED
    shown = ", ".join(f"`{name}`" for name in names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"{shown} {if_one if len(names) == 1 else if_several}"
