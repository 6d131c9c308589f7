"""Folders that package managers install from: written beside the old ones, put in their place in one step.

The folder of a repository is a link to one generation: a folder that is never changed. To publish is to make another
generation, of links to the files in the file store and of indexes, and to turn the link. A crash leaves the old
generation or the new one.

In a generation every file lies twice: under its name, and under `pool/<sha1>/`. The indexes name the second path, which
no other content ever gets. A client that has read the indexes of one generation thus gets their files, and nothing
else, while publications go on: what the new generation lacks stays readable for a while (`leftovers`).
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from polylocal.errors import PackageError
from polylocal.files.folders import remove_tree, walk
from polylocal.packages import debs, distributions, kinds, reading, rpms
from polylocal.packages.debs import Release
from polylocal.packages.facts import Facts, IndexedFile
from polylocal.packages.signing import Key

SOURCES = "SRPMS"  # the folder of sources, beside those of architectures
KEY = "key.asc"  # the public key of a platform, in the folder of the platform
STAYS_S = 3600  # how long the files of an earlier generation stay readable
SLOT_S = 300  # leftovers of so many seconds share a folder
_POOL, _BY_HASH, _REPODATA = "pool", "by-hash", "repodata"
_RELEASE, _IN_RELEASE = "Release", "InRelease"
REPOMD = "repodata/repomd.xml"
REPOMD_SIGNATURE = f"{REPOMD}.asc"
_TURNING = threading.Lock()

log = logging.getLogger(__name__)

FactsOf = Callable[[Path, str], Facts]


@dataclass(frozen=True)
class Shelf:
    """One folder of a repository: what is to lie in it, by file name, and which package managers read it.

    `yanked`: the reasons of files that are yanked, by file name. `stays`: the packages, by their sha1, that may stay
    readable for those who have read the indexes of an earlier generation; None: all. `settled`: the files, by name,
    that lay there before. If one of them is no package to today's reader, the index lacks it; any other raises.
    """

    path: Path
    files: Mapping[str, Path]
    kind: str | None
    yanked: Mapping[str, str] = field(default_factory=dict)
    release: Release = field(default_factory=Release)
    key: Key | None = None
    stays: Collection[str] | None = None
    settled: Collection[str] = ()


def folder(downloads: Path, save_to: str, build_for: str, *, is_personal: bool, arch: str, name: str, sub: str) -> Path:
    """Where a repository's packages lie; a personal platform has one for each platform that is built for."""
    root = downloads / save_to / "repository"
    return (root / build_for if is_personal else root) / arch / name / sub


def container(downloads: Path, save_to: str, build_list_id: int, *, arch: str, name: str) -> Path:
    """Where the packages of one build lie that nobody has published."""
    return downloads / save_to / "container" / str(build_list_id) / arch / name / "release"


def write(shelves: Sequence[Shelf], facts_of: FactsOf = reading.facts) -> None:
    """Make folders that hold exactly this; all or none of them.

    `facts_of(path, file name)` reads a file for the index. Raises PackageError, OSError: then nothing has changed.
    """
    made: list[tuple[Shelf, Path]] = []
    try:
        for shelf in shelves:
            made.append((shelf, _staged(shelf, facts_of)))
        with _TURNING:
            for shelf, new in made:
                _withdraw(shelf)
                _leave(shelf, new)
            _swap(made)
    except BaseException:
        for _, new in made:
            with suppress(OSError):
                remove_tree(new)
        raise
    with _TURNING:
        for shelf, _ in made:
            _sweep(shelf.path)


def snapshot(path: Path, target: Path) -> None:
    """Links to what lies in a repository's folder now, in a new folder, without signatures. Raises OSError.

    A build trusts the snapshot itself: it need not know the key of the platform.
    """
    target.mkdir(parents=True)
    with _TURNING:  # a generation that is turned away from is removed
        source = path.resolve()
        for entry in walk(source):
            if entry.is_folder:
                (target / entry.path).mkdir()
            elif entry.is_file and not _is_signature(entry.path):
                _link(source / entry.path, target / entry.path)
    _let_read(target)


def publish_key(downloads: Path, platform: str, key: Key) -> None:
    """Put the public key where the clients of a platform find it. Raises OSError."""
    path = downloads / platform / KEY
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{KEY}.new")
    new.write_text(key.public)
    new.chmod(0o644)
    new.replace(path)


def has_key(downloads: Path, platform: str) -> bool:
    """Whether the clients of a platform find a public key, and expect signatures."""
    return (downloads / platform / KEY).exists()


def _swap(made: Sequence[tuple[Shelf, Path]]) -> None:
    turned: list[tuple[Path, str | None]] = []
    try:
        for shelf, new in made:
            before = os.readlink(shelf.path) if shelf.path.is_symlink() else None
            _turn(shelf.path, new.name)
            turned.append((shelf.path, before))
    except BaseException:
        for path, before in turned:
            if before is None:
                path.unlink(missing_ok=True)
            else:
                _turn(path, before)
        raise


def _turn(path: Path, target: str) -> None:
    new = path.with_name(f".{path.name}.link")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)


def _staged(shelf: Shelf, facts_of: FactsOf) -> Path:
    """The next generation, beside the one that is there."""
    shelf.path.parent.mkdir(parents=True, exist_ok=True)
    new = shelf.path.parent / f".{shelf.path.name}.{uuid.uuid4().hex[:12]}"
    new.mkdir()
    try:
        for name, source in shelf.files.items():
            reading.check_name(name)
            _link(source, new / name)
        for path, content in _indexes(shelf, _pooled(shelf, new, facts_of)).items():
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            (new / path).write_bytes(content)
        _let_read(new)
    except BaseException:
        remove_tree(new)
        raise
    return new


def _pooled(shelf: Shelf, new: Path, facts_of: FactsOf) -> list[IndexedFile]:
    """Links the files that belong into an index to their paths in the pool."""
    found = []
    for name in sorted(name for name in shelf.files if kinds.is_package(name, shelf.kind)):
        try:
            facts = facts_of(shelf.files[name], name)
        except PackageError as error:
            if name not in shelf.settled:
                raise
            log.warning("%s is left out of the index of %s: %s", name, shelf.path, error)
            continue
        folder = new / _POOL / facts.sha1
        folder.mkdir(parents=True, exist_ok=True)
        for beside in (name, *(debs.parts(facts) if name.endswith(debs.SOURCE) else ())):
            if beside in shelf.files and not (folder / beside).exists():
                _link(new / beside, folder / beside)
        found.append(IndexedFile(name, f"{_POOL}/{facts.sha1}/{name}", facts, shelf.yanked.get(name)))
    return found


def _indexes(shelf: Shelf, files: Sequence[IndexedFile]) -> Mapping[str, bytes]:
    """Path below the folder → content; signed if the shelf has a key."""
    made = dict(_INDEXES.get(shelf.kind or "", _rpm)(files, shelf.release))
    if shelf.key and _RELEASE in made:
        made[_IN_RELEASE] = shelf.key.sign_clearly(made[_RELEASE])
    if shelf.key and REPOMD in made:
        signature = shelf.key.sign_detached(made[REPOMD])
        made[REPOMD_SIGNATURE] = made[signature_path(hashlib.sha256(made[REPOMD]).hexdigest())] = signature
    return made


def signature_path(sha256: str) -> str:
    """Where the signature of a `repomd.xml` of this content lies, which is needed after the next publication, too."""
    return f"{_REPODATA}/{sha256}-repomd.xml.asc"


def _is_signature(path: str) -> bool:
    return path == _IN_RELEASE or path.startswith(f"{_REPODATA}/") and path.endswith(".asc")


def _let_read(folder: Path) -> None:
    """Package managers in builds read it as whatever user they are, whatever the daemon's umask is."""
    for parent, _, names in os.walk(folder):
        os.chmod(parent, 0o755)
        for name in names:
            os.chmod(Path(parent, name), 0o644)


def _link(source: Path, target: Path) -> None:
    """Raises PackageError, OSError."""
    try:
        os.link(source, target)
    except FileExistsError as error:  # to copy would change the file that lies there, which the file store has, too
        raise PackageError(
            f"{target.name} has the name of another file of the repository, but for upper and lower case, which the"
            f" file system of the daemon does not tell apart"
        ) from error
    except OSError:  # a file system without links, or one that has no more of them
        shutil.copyfile(source, target)


def _sweep(path: Path) -> None:
    """Removes generations that the link does not lead to, and leftovers whose time is over.

    What can't be removed stays for now: the publication is made, and the next one tries again.
    """
    with suppress(OSError):
        current = os.readlink(path)
        for old in path.parent.glob(f".{path.name}.*"):
            if old.name not in (current, _left(path).name) and not old.is_symlink():
                with suppress(OSError):
                    remove_tree(old)
        forget_leftovers(path)


# -- what earlier generations had ------------------------------------------------------------------------------------


def leftovers(place: Path) -> Iterator[Path]:
    """Where a file of an earlier generation may lie that the repository lacks by now, the latest first.

    Only of paths that always mean the same content.
    """
    for path in place.parents:
        rest = place.relative_to(path)
        if path.name and _stays(rest):
            with suppress(OSError):  # there are none, they are removed at this moment, or no folder has such a name
                yield from (slot / rest for slot in sorted(_left(path).iterdir(), reverse=True))


def forget_leftovers(path: Path) -> bool:
    """Remove the leftovers of a repository's folder whose time is over. Returns whether others are still there.

    Raises OSError.
    """
    left, oldest = _left(path), time.time() - STAYS_S - SLOT_S
    slots = [slot for slot in left.iterdir() if slot.name.isdecimal()] if left.is_dir() else []
    for slot in slots:
        if int(slot.name) < oldest:
            remove_tree(slot)
    stay = any(slot.exists() for slot in slots)
    if slots and not stay:
        left.rmdir()
    return stay


def with_leftovers(downloads: Path) -> Iterator[Path]:
    """The folders of all repositories and containers that have some."""
    for below in ("repository/*/*", "repository/*/*/*", "container/*/*/*"):
        for left in downloads.glob(f"*/{below}/.*.left"):
            yield left.with_name(left.name.removeprefix(".").removesuffix(".left"))


def _leave(shelf: Shelf, new: Path) -> None:
    """Keeps what the current generation has, and the next one lacks, for those who have read its indexes."""
    path = shelf.path
    if not path.is_symlink() or not path.is_dir():
        return
    current = path.resolve()
    slot = _left(path) / f"{int(time.time()) // SLOT_S * SLOT_S:012}"
    for entry in walk(current):
        if not entry.is_file or not _stays(Path(entry.path)) or (new / entry.path).exists():
            continue
        top, sha1, *_ = Path(entry.path).parts
        if shelf.stays is not None and top == _POOL and sha1 not in shelf.stays:
            continue
        target = slot / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            _link(current / entry.path, target)


def _withdraw(shelf: Shelf) -> None:
    """Removes the leftovers of packages that may not stay readable. Raises OSError."""
    if shelf.stays is None:
        return
    for found in _left(shelf.path).glob(f"*/{_POOL}/*"):
        if found.name not in shelf.stays:
            remove_tree(found)


def _stays(path: Path) -> bool:
    """Whether a path in a generation always means the same content."""
    top = path.parts[0] if path.parts else ""
    is_named_by_content = top == _REPODATA and not path.name.startswith("repomd.xml")
    return len(path.parts) > 1 and (top in (_POOL, _BY_HASH) or is_named_by_content)


def _left(path: Path) -> Path:
    return path.with_name(f".{path.name}.left")


# -- indexes ---------------------------------------------------------------------------------------------------------


def _rpm(files: Sequence[IndexedFile], release: Release) -> Mapping[str, bytes]:
    return rpms.index(files, int(release.date.timestamp()))


def _simple(files: Sequence[IndexedFile], release: Release) -> Mapping[str, bytes]:
    return distributions.index(files)


_INDEXES = {"deb": debs.index, "pypi": _simple}

__all__ = ["SOURCES", "Shelf", "PackageError", "container", "folder", "write"]
