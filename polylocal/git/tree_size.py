"""Counts the files and bytes of a commit without unpacking it.

A few small objects can refer to one tree ten thousand million times. Each tree is read once, however often it occurs,
so the cost depends on the number of objects.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from polylocal.errors import InvalidInput, NotFound
from polylocal.files.unpacking import Limits
from polylocal.git import command
from polylocal.system import processes

MAX_PATH = 4095  # bytes; the longest path that a system call accepts
_NAME = 300  # most bytes of a folder entry, on average
_MAX_CACHED = 4096  # cached results
_LINK = b"160000"  # mode of a submodule, which is checked out as an empty folder
_FOLDER = b"40000"
_TOO_LONG = f"The code contains a path of more than {MAX_PATH} bytes."
_ADVICE = "Leave out what the code does not need, or raise the setting."


@dataclass(frozen=True)
class Size:
    files: int  # and folders
    bytes: int
    longest: int  # bytes of the longest path


@dataclass
class _Tree:
    entries: int = 0
    longest: int = 0  # bytes of the longest name of an entry that is not a folder
    blobs: list[str] = field(default_factory=list)
    folders: list[tuple[str, int]] = field(default_factory=list)  # tree hash, bytes of the name


_known: OrderedDict[tuple[str, Limits], Size | InvalidInput] = OrderedDict()
_lock = threading.Lock()


def check(git_dir: Path, root: str, limits: Limits, env: Mapping[str, str] | None = None) -> Size:
    """Measure a tree. Raises InvalidInput with the limit that is exceeded, NotFound.

    `env`: variables for git, if some objects are outside the repository.
    """
    key = (root, limits)
    with _lock:
        found = _known.get(key)
    if found is None:
        try:
            found = _measure(git_dir, root, limits, env)
        except processes.TimedOut:
            raise  # do not cache: a later attempt may be faster
        except InvalidInput as error:
            found = error
        with _lock:
            _known[key] = found
            while len(_known) > _MAX_CACHED:
                _known.popitem(last=False)
    if isinstance(found, InvalidInput):
        raise InvalidInput(found.messages)
    return found


def _measure(git_dir: Path, root: str, limits: Limits, env: Mapping[str, str] | None) -> Size:
    trees = _trees(git_dir, root, limits, env)
    sizes = _blob_sizes(git_dir, {blob for tree in trees.values() for blob in tree.blobs}, env)
    totals: dict[str, Size] = {}
    for name in _in_post_order(trees, root):
        tree = trees[name]
        inner = [(totals[folder], length) for folder, length in tree.folders]
        totals[name] = Size(
            tree.entries + sum(size.files for size, _ in inner),
            sum(sizes[blob] for blob in tree.blobs) + sum(size.bytes for size, _ in inner),
            max([tree.longest, *(length + 1 + size.longest for size, length in inner)]),
        )
    size = totals[root]
    if size.files > limits.max_upload_files:
        raise _too_many(limits)
    if size.bytes > limits.size:
        most = limits.max_unpacked_mib
        raise InvalidInput([f"Unpacked the code is larger than {most} MiB (max_unpacked_mib). {_ADVICE}"])
    if size.longest > MAX_PATH:
        raise InvalidInput([_TOO_LONG])
    return size


def _too_many(limits: Limits) -> InvalidInput:
    most = limits.max_upload_files
    return InvalidInput([f"The code contains more than {most} files and folders (max_upload_files). {_ADVICE}"])


def _trees(git_dir: Path, root: str, limits: Limits, env: Mapping[str, str] | None) -> dict[str, _Tree]:
    """All trees below `root` by hash, read level by level. Each of their entries counts as at least one file."""
    most = processes.Limits(output=(1 << 20) + limits.max_upload_files * _NAME)
    trees: dict[str, _Tree] = {}
    level, entries = [root], 0
    for _ in range(MAX_PATH // 2 + 1):  # each folder takes at least two bytes of a path
        try:
            done = command.run(
                "cat-file", "--batch", "--buffer", git_dir=git_dir, env=env, stdin=command.lines_of(level), limits=most
            )
        except processes.TooMuchOutput as error:
            raise _too_many(limits) from error
        for name, content in _objects(done.stdout, level):
            trees[name] = tree = _parse_tree(content, limits.max_upload_files - entries)
            entries += tree.entries
            if entries > limits.max_upload_files:
                raise _too_many(limits)
        level = list(dict.fromkeys(name for at in level for name, _ in trees[at].folders if name not in trees))
        if not level:
            return trees
    raise InvalidInput([_TOO_LONG])


def _objects(output: bytes, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Parse the output of `cat-file --batch`. Raises NotFound if an object is missing or no tree."""
    at = 0
    for name in names:
        line_end = output.find(b"\n", at)
        words = output[at : max(line_end, at)].split()
        if len(words) != 3 or words[1] != b"tree":
            raise NotFound(f"the code has no folder {name[:12]}")
        begin, size = line_end + 1, int(words[2])
        yield name, output[begin : begin + size]
        at = begin + size + 1


def _parse_tree(content: bytes, most: int) -> _Tree:
    """Parse entries `<mode> <name>\\0<20 bytes>`, until there are more than `most`."""
    tree, at = _Tree(), 0
    kinds: dict[bytes, bool] = {}  # by name: whether the entry is a folder
    while at < len(content) and tree.entries <= most:
        space, zero = content.find(b" ", at), content.find(b"\0", at)
        if not at < space < zero or zero + 21 > len(content):
            raise InvalidInput(["The code contains a damaged folder."])
        mode, length, name = content[at:space].lstrip(b"0"), zero - space - 1, content[zero + 1 : zero + 21].hex()
        if kinds.setdefault(content[space + 1 : zero], mode == _FOLDER) != (mode == _FOLDER):
            shown = os.fsdecode(content[space + 1 : zero])
            raise InvalidInput([f"A folder of the code is below {shown!r}, which is not a folder."])
        tree.entries += 1
        if mode == _FOLDER:
            tree.folders.append((name, length))
        else:
            tree.longest = max(tree.longest, length)
            if mode != _LINK:
                tree.blobs.append(name)
        at = zero + 21
    return tree


def _in_post_order(trees: dict[str, _Tree], root: str) -> Iterator[str]:
    """Each tree once, after the trees that it contains."""
    done, ahead = set[str](), [(root, False)]
    while ahead:
        name, is_entered = ahead.pop()
        if name in done:
            continue
        if is_entered:
            done.add(name)
            yield name
            continue
        ahead.append((name, True))
        ahead.extend((inner, False) for inner, _ in trees[name].folders if inner not in done)


def _blob_sizes(git_dir: Path, blobs: set[str], env: Mapping[str, str] | None) -> dict[str, int]:
    if not blobs:
        return {}
    names = sorted(blobs)
    done = command.run(
        "cat-file",
        "--batch-check=%(objectsize)",
        "--buffer",
        git_dir=git_dir,
        env=env,
        stdin=command.lines_of(names),
        limits=processes.Limits(output=len(names) * 64 + 1024),
    )
    sizes = done.stdout.split(b"\n")
    if len(sizes) <= len(names) or not all(size.isdigit() for size in sizes[: len(names)]):
        raise NotFound("the code lacks some of its files")
    return {name: int(size) for name, size in zip(names, sizes, strict=False)}
