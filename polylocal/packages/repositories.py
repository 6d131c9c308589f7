"""Writes the folders that package managers install from, and replaces them atomically.

The folder of a repository is a symbolic link to a generation, an immutable folder. A publication creates a new
generation, which consists of indexes and of hard links into the file store, and then switches the link. After a crash,
the link points to the old generation or to the new one.

A generation has each file twice: under its name, and under `pool/<sha1>/`. The indexes name the second path, which
always has the same content. So a client that has read the indexes of one generation can download their files during
later publications: files that the new generation lacks stay readable for a while (`leftovers`).
"""

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

SOURCES = "SRPMS"  # the folder of source packages, a sibling of the folders of architectures
KEY = "key.asc"  # the public key of a platform, in the folder of the platform
STAYS_S = 3600  # time for which the files of earlier generations stay readable
SLOT_S = 300  # leftovers of one period of this length share a folder
_POOL, _BY_HASH, _REPODATA = "pool", "by-hash", "repodata"
_RELEASE, _IN_RELEASE = "Release", "InRelease"
REPOMD = "repodata/repomd.xml"
REPOMD_SIGNATURE = f"{REPOMD}.asc"
_SWITCHING = threading.Lock()

log = logging.getLogger(__name__)

FactsOf = Callable[[Path, str], Facts]


@dataclass(frozen=True)
class Shelf:
    """The new content of one folder of a repository.

    `files`: sources by file name. `kind`: the platform's `distrib_type`, which decides the format of the indexes.
    `yanked`: the reasons of yanked files, by file name. `stays`: the sha1 of the packages of earlier generations that
    may stay readable; None: all. `settled`: the names of files that were published before. If such a file can no
    longer be read, it is left out of the index; any other unreadable file raises PackageError.
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
    """The folder of a repository. A personal platform has one for each platform that it builds for."""
    root = downloads / save_to / "repository"
    return (root / build_for if is_personal else root) / arch / name / sub


def container(downloads: Path, save_to: str, build_list_id: int, *, arch: str, name: str) -> Path:
    """The folder of the container of a build list: its packages before their publication."""
    return downloads / save_to / "container" / str(build_list_id) / arch / name / "release"


def write(shelves: Sequence[Shelf], facts_of: FactsOf = reading.facts) -> None:
    """Replace the content of folders, of all or of none.

    `facts_of(path, file name)` reads a file for the index. Raises PackageError, OSError; then no folder has changed.
    """
    made: list[tuple[Shelf, Path]] = []
    try:
        for shelf in shelves:
            made.append((shelf, _staged(shelf, facts_of)))
        with _SWITCHING:
            for shelf, new in made:
                _withdraw(shelf)
                _keep_leftovers(shelf, new)
            _switch_all(made)
    except BaseException:
        for _, new in made:
            with suppress(OSError):
                remove_tree(new)
        raise
    with _SWITCHING:
        for shelf, _ in made:
            _sweep(shelf.path)


def snapshot(path: Path, target: Path) -> None:
    """Link the current files of a repository into a new folder, without signatures. Raises OSError.

    Builds trust a snapshot without a signature, so they do not need the key of the platform.
    """
    target.mkdir(parents=True)
    with _SWITCHING:  # a publication removes the generation that it replaces
        source = path.resolve()
        for entry in walk(source):
            if entry.is_folder:
                (target / entry.path).mkdir()
            elif entry.is_file and not _is_signature(entry.path):
                _link(source / entry.path, target / entry.path)
    _let_read(target)


def publish_key(downloads: Path, platform: str, key: Key) -> None:
    """Write the public key of a platform to the folder that its clients read. Raises OSError."""
    path = downloads / platform / KEY
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{KEY}.new")
    new.write_text(key.public)
    new.chmod(0o644)
    new.replace(path)


def has_key(downloads: Path, platform: str) -> bool:
    """Whether a platform has published a public key, so that its clients expect signatures."""
    return (downloads / platform / KEY).exists()


def _switch_all(made: Sequence[tuple[Shelf, Path]]) -> None:
    """Point all links to their new generations. After an error, the links point to the old ones again."""
    switched: list[tuple[Path, str | None]] = []
    try:
        for shelf, new in made:
            before = os.readlink(shelf.path) if shelf.path.is_symlink() else None
            _switch(shelf.path, new.name)
            switched.append((shelf.path, before))
    except BaseException:
        for path, before in switched:
            if before is None:
                path.unlink(missing_ok=True)
            else:
                _switch(path, before)
        raise


def _switch(path: Path, target: str) -> None:
    """Point a link to another generation, atomically. Raises OSError."""
    new = path.with_name(f".{path.name}.link")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)


def _staged(shelf: Shelf, facts_of: FactsOf) -> Path:
    """Create the next generation as a sibling of the current one. Raises PackageError, OSError."""
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
    """Link the files of the index into the pool. Raises PackageError, OSError."""
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
    """The indexes: path relative to the folder → content. They are signed if the shelf has a key."""
    made = dict(_INDEXES.get(shelf.kind or "", _rpm)(files, shelf.release))
    if shelf.key and _RELEASE in made:
        made[_IN_RELEASE] = shelf.key.sign_clearly(made[_RELEASE])
    if shelf.key and REPOMD in made:
        signature = shelf.key.sign_detached(made[REPOMD])
        made[REPOMD_SIGNATURE] = made[signature_path(hashlib.sha256(made[REPOMD]).hexdigest())] = signature
    return made


def signature_path(sha256: str) -> str:
    """The path of the signature of a `repomd.xml` with this digest. It stays readable after the next publication."""
    return f"{_REPODATA}/{sha256}-repomd.xml.asc"


def _is_signature(path: str) -> bool:
    return path == _IN_RELEASE or path.startswith(f"{_REPODATA}/") and path.endswith(".asc")


def _let_read(folder: Path) -> None:
    """Let any user read a folder, whatever the umask of the daemon is: builds may run as any user."""
    for parent, _, names in os.walk(folder):
        os.chmod(parent, 0o755)
        for name in names:
            os.chmod(Path(parent, name), 0o644)


def _link(source: Path, target: Path) -> None:
    """Link a file, or copy it if the file system can't link. Raises PackageError: the name is taken; OSError."""
    try:
        os.link(source, target)
    except FileExistsError as error:  # a copy would overwrite the linked file, and so the file store's
        raise PackageError(
            f"{target.name} differs from the name of another file of the repository only in upper and lower case, which"
            f" the file system of the daemon does not distinguish"
        ) from error
    except OSError:  # the file system has no hard links, or the file has too many
        shutil.copyfile(source, target)


def _sweep(path: Path) -> None:
    """Remove old generations, and expired leftovers.

    Errors are ignored, because the publication has succeeded. The next publication tries again.
    """
    with suppress(OSError):
        current = os.readlink(path)
        for old in path.parent.glob(f".{path.name}.*"):
            if old.name not in (current, _left(path).name) and not old.is_symlink():
                with suppress(OSError):
                    remove_tree(old)
        forget_leftovers(path)


# -- leftovers: files of earlier generations -------------------------------------------------------------------------


def leftovers(place: Path) -> Iterator[Path]:
    """The paths at which a file of an earlier generation may be, the latest generation first.

    `place`: the path that the file had. The result is empty for paths whose content can change.
    """
    for path in place.parents:
        rest = place.relative_to(path)
        if path.name and _stays(rest):
            with suppress(OSError):  # no leftovers, a concurrent removal, or an invalid name
                yield from (slot / rest for slot in sorted(_left(path).iterdir(), reverse=True))


def forget_leftovers(path: Path) -> bool:
    """Remove the expired leftovers of a repository's folder. Returns whether others remain. Raises OSError."""
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
    """The folders of all repositories and containers that have leftovers."""
    for below in ("repository/*/*", "repository/*/*/*", "container/*/*/*"):
        for left in downloads.glob(f"*/{below}/.*.left"):
            yield left.with_name(left.name.removeprefix(".").removesuffix(".left"))


def _keep_leftovers(shelf: Shelf, new: Path) -> None:
    """Keep the files that the current generation has and the next one lacks, for clients with the current indexes."""
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
    """Remove the leftovers of packages that must not stay readable. Raises OSError."""
    if shelf.stays is None:
        return
    for found in _left(shelf.path).glob(f"*/{_POOL}/*"):
        if found.name not in shelf.stays:
            remove_tree(found)


def _stays(path: Path) -> bool:
    """Whether a path in a generation always has the same content."""
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
