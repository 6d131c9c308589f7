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
KEEP_READABLE_S = 3600  # time for which the files of earlier generations stay readable
SLOT_S = 300  # leftovers of one period of this length share a folder
_POOL, _BY_HASH, _REPODATA = "pool", "by-hash", "repodata"
_RELEASE, _IN_RELEASE = "Release", "InRelease"
REPOMD = "repodata/repomd.xml"
REPOMD_SIGNATURE = f"{REPOMD}.asc"
_SWITCHING = threading.Lock()

log = logging.getLogger(__name__)

FactsOf = Callable[[Path, str], Facts]


@dataclass(frozen=True)
class FolderContent:
    """The new content of one folder of a repository.

    `files`: sources by file name. `kind`: the platform's `distrib_type`, which decides the format of the indexes.
    `yanked`: the reasons of yanked files, by file name. `keep_readable`: the sha1 of the packages of earlier
    generations that may stay readable; None: all. `already_published`: the names of files that were published before.
    If such a file can no longer be read, it is left out of the index; any other unreadable file raises PackageError.
    """

    path: Path
    files: Mapping[str, Path]
    kind: str | None
    yanked: Mapping[str, str] = field(default_factory=dict)
    release: Release = field(default_factory=Release)
    key: Key | None = None
    keep_readable: Collection[str] | None = None
    already_published: Collection[str] = ()


def folder(downloads: Path, save_to: str, build_for: str, *, is_personal: bool, arch: str, name: str, sub: str) -> Path:
    """The folder of a repository. A personal platform has one for each platform that it builds for."""
    root = downloads / save_to / "repository"
    return (root / build_for if is_personal else root) / arch / name / sub


def container(downloads: Path, save_to: str, build_list_id: int, *, arch: str, name: str) -> Path:
    """The folder of the container of a build list: its packages before their publication."""
    return downloads / save_to / "container" / str(build_list_id) / arch / name / "release"


def write(targets: Sequence[FolderContent], facts_of: FactsOf = reading.facts) -> None:
    """Replace the content of folders, of all or of none.

    `facts_of(path, file name)` reads a file for the index. Raises PackageError, OSError; then no folder has changed.
    """
    made: list[tuple[FolderContent, Path]] = []
    try:
        for target in targets:
            made.append((target, _create_generation(target, facts_of)))
        with _SWITCHING:
            for target, new in made:
                _remove_withdrawn(target)
                _keep_leftovers(target, new)
            _switch_all(made)
    except BaseException:
        for _, new in made:
            with suppress(OSError):
                remove_tree(new)
        raise
    with _SWITCHING:
        for target, _ in made:
            _remove_old_generations(target.path)


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
    _make_readable(target)


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


def _switch_all(made: Sequence[tuple[FolderContent, Path]]) -> None:
    """Point all links to their new generations. After an error, the links point to the old ones again."""
    switched: list[tuple[Path, str | None]] = []
    try:
        for target, new in made:
            before = os.readlink(target.path) if target.path.is_symlink() else None
            _switch(target.path, new.name)
            switched.append((target.path, before))
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


def _create_generation(target: FolderContent, facts_of: FactsOf) -> Path:
    """Create the next generation as a sibling of the current one. Raises PackageError, OSError."""
    target.path.parent.mkdir(parents=True, exist_ok=True)
    new = target.path.parent / f".{target.path.name}.{uuid.uuid4().hex[:12]}"
    new.mkdir()
    try:
        for name, source in target.files.items():
            reading.check_name(name)
            _link(source, new / name)
        for path, content in _indexes(target, _link_pool(target, new, facts_of)).items():
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            (new / path).write_bytes(content)
        _make_readable(new)
    except BaseException:
        remove_tree(new)
        raise
    return new


def _link_pool(target: FolderContent, new: Path, facts_of: FactsOf) -> list[IndexedFile]:
    """Link the files of the index into the pool. Raises PackageError, OSError."""
    found = []
    for name in sorted(name for name in target.files if kinds.is_package(name, target.kind)):
        try:
            facts = facts_of(target.files[name], name)
        except PackageError as error:
            if name not in target.already_published:
                raise
            log.warning("%s is left out of the index of %s: %s", name, target.path, error)
            continue
        folder = new / _POOL / facts.sha1
        folder.mkdir(parents=True, exist_ok=True)
        for beside in (name, *(debs.parts(facts) if name.endswith(debs.SOURCE) else ())):
            if beside in target.files and not (folder / beside).exists():
                _link(new / beside, folder / beside)
        found.append(IndexedFile(name, f"{_POOL}/{facts.sha1}/{name}", facts, target.yanked.get(name)))
    return found


def _indexes(target: FolderContent, files: Sequence[IndexedFile]) -> Mapping[str, bytes]:
    """The indexes: path relative to the folder → content. They are signed if the target has a key."""
    made = dict(_INDEXES.get(target.kind or "", _rpm)(files, target.release))
    if target.key and _RELEASE in made:
        made[_IN_RELEASE] = target.key.sign_clearly(made[_RELEASE])
    if target.key and REPOMD in made:
        signature = target.key.sign_detached(made[REPOMD])
        made[REPOMD_SIGNATURE] = made[signature_path(hashlib.sha256(made[REPOMD]).hexdigest())] = signature
    return made


def signature_path(sha256: str) -> str:
    """The path of the signature of a `repomd.xml` with this digest. It stays readable after the next publication."""
    return f"{_REPODATA}/{sha256}-repomd.xml.asc"


def _is_signature(path: str) -> bool:
    return path == _IN_RELEASE or path.startswith(f"{_REPODATA}/") and path.endswith(".asc")


def _make_readable(folder: Path) -> None:
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


def _remove_old_generations(path: Path) -> None:
    """Remove old generations, and expired leftovers.

    Errors are ignored, because the publication has succeeded. The next publication tries again.
    """
    with suppress(OSError):
        current = os.readlink(path)
        for old in path.parent.glob(f".{path.name}.*"):
            if old.name not in (current, _leftovers_folder(path).name) and not old.is_symlink():
                with suppress(OSError):
                    remove_tree(old)
        remove_expired_leftovers(path)


# -- leftovers: files of earlier generations -------------------------------------------------------------------------


def leftovers(place: Path) -> Iterator[Path]:
    """The paths at which a file of an earlier generation may be, the latest generation first.

    `place`: the path that the file had. The result is empty for paths whose content can change.
    """
    for path in place.parents:
        rest = place.relative_to(path)
        if path.name and _is_immutable(rest):
            with suppress(OSError):  # no leftovers, a concurrent removal, or an invalid name
                yield from (slot / rest for slot in sorted(_leftovers_folder(path).iterdir(), reverse=True))


def remove_expired_leftovers(path: Path) -> bool:
    """Remove the expired leftovers of a repository's folder. Returns whether others remain. Raises OSError."""
    left, oldest = _leftovers_folder(path), time.time() - KEEP_READABLE_S - SLOT_S
    slots = [slot for slot in left.iterdir() if slot.name.isdecimal()] if left.is_dir() else []
    for slot in slots:
        if int(slot.name) < oldest:
            remove_tree(slot)
    stay = any(slot.exists() for slot in slots)
    if slots and not stay:
        left.rmdir()
    return stay


def folders_with_leftovers(downloads: Path) -> Iterator[Path]:
    """The folders of all repositories and containers that have leftovers."""
    for below in ("repository/*/*", "repository/*/*/*", "container/*/*/*"):
        for left in downloads.glob(f"*/{below}/.*.left"):
            yield left.with_name(left.name.removeprefix(".").removesuffix(".left"))


def _keep_leftovers(target: FolderContent, new: Path) -> None:
    """Keep the files that the current generation has and the next one lacks, for clients with the current indexes."""
    path = target.path
    if not path.is_symlink() or not path.is_dir():
        return
    current = path.resolve()
    slot = _leftovers_folder(path) / f"{int(time.time()) // SLOT_S * SLOT_S:012}"
    for entry in walk(current):
        if not entry.is_file or not _is_immutable(Path(entry.path)) or (new / entry.path).exists():
            continue
        top, sha1, *_ = Path(entry.path).parts
        if target.keep_readable is not None and top == _POOL and sha1 not in target.keep_readable:
            continue
        kept = slot / entry.path
        kept.parent.mkdir(parents=True, exist_ok=True)
        if not kept.exists():
            _link(current / entry.path, kept)


def _remove_withdrawn(target: FolderContent) -> None:
    """Remove the leftovers of packages that must not stay readable. Raises OSError."""
    if target.keep_readable is None:
        return
    for found in _leftovers_folder(target.path).glob(f"*/{_POOL}/*"):
        if found.name not in target.keep_readable:
            remove_tree(found)


def _is_immutable(path: Path) -> bool:
    """Whether a path in a generation always has the same content."""
    top = path.parts[0] if path.parts else ""
    is_named_by_content = top == _REPODATA and not path.name.startswith("repomd.xml")
    return len(path.parts) > 1 and (top in (_POOL, _BY_HASH) or is_named_by_content)


def _leftovers_folder(path: Path) -> Path:
    return path.with_name(f".{path.name}.left")


# -- indexes ---------------------------------------------------------------------------------------------------------


def _rpm(files: Sequence[IndexedFile], release: Release) -> Mapping[str, bytes]:
    return rpms.index(files, int(release.date.timestamp()))


def _simple(files: Sequence[IndexedFile], release: Release) -> Mapping[str, bytes]:
    return distributions.index(files)


_INDEXES = {"deb": debs.index, "pypi": _simple}
