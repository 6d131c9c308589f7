"""Moves outputs from folders named after users and projects, as in older versions, to folders named after uuids.

Folders are renamed, never copied: running containers keep their mounts, and large outputs take no extra time. Each
folder is renamed before its rows change, in one transaction. An interrupted move is continued by the next start, since
the rows and the disk determine what is left to do.

A restarted container mounts the old paths. While a run is active, a link stays at its old path; a later start without
active runs removes the link. The daemon itself never uses these links.
"""

import errno
import logging
import os
import re
from contextlib import suppress
from pathlib import Path

from polylocal.errors import SetupError
from polylocal.paths import BY_NAME, OUTPUTS, Home
from polylocal.store import Store

log = logging.getLogger(__name__)

_UUID = re.compile(r"[0-9a-f]{32}")
# levels at which two folders are merged; the contents of a run's folder are never mixed
_PROJECT, _GROUPS, _KIND, _RUN = 3, 2, 1, 0
_IN_THE_WAY = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
# on another disk, a mount point, or without permission: the folder stays, and a link leads to it
_STAYS = (errno.EXDEV, errno.EBUSY, errno.EACCES, errno.EPERM)


def relocate(home: Home, store: Store) -> int:
    """Move outputs and update their rows. Returns the number of folders moved. Raises SetupError."""
    folders = store.outputs.folders_by_name()
    for folder in folders:
        try:
            _relocate(home.root, folder, store)
        except OSError as error:
            raise SetupError(
                f"the outputs in {home.root / folder} can't be moved to the folder that this version uses:"
                f" {error.strerror or error}; nothing is lost; fix this and start again"
            ) from error
    if not store.outputs.with_containers():
        _remove_links(home)
    if folders:
        log.info("outputs of %d projects moved from their names to their uuids", len(folders))
    return len(folders)


def _relocate(root: Path, folder: str, store: Store) -> None:
    owners = store.outputs.paths_in(folder)
    places = {path: f"{OUTPUTS}/{uuid}{path.removeprefix(folder)}" for path, uuid in owners.items()}
    under_way = store.outputs.with_containers()
    uuids = set(owners.values())
    if len(uuids) == 1:
        uuid = uuids.pop()
        moved, levels = {folder: f"{OUTPUTS}/{uuid}"}, _PROJECT
        mounted = {folder} if uuid in under_way.values() else set()  # a tensorboard mounts the whole folder
    else:  # two projects had this name one after the other, and share the folder
        moved, levels = places, _RUN
        mounted = places.keys() & under_way.keys()
    for old, new in moved.items():
        _move(root / old, root / new, root, levels)
    _remove_empty(root / folder, _PROJECT)
    with suppress(OSError):  # not empty: other projects of the user
        (root / folder).parent.rmdir()
    for old in mounted:
        _leave_link(root / old, root / moved[old])
    store.outputs.move(places)


def _leave_link(old: Path, new: Path) -> None:
    if not os.path.lexists(old):
        old.parent.mkdir(parents=True, exist_ok=True)
        old.symlink_to(os.path.relpath(new, old.parent))


def _remove_links(home: Home) -> None:
    for path in home.outputs_root.glob("*/"):
        if path.name == BY_NAME or _UUID.fullmatch(path.name) or path.is_symlink():
            continue
        depths = ("*", "*/*/*", "*/*/*/*")  # a project, a run, an experiment in a group
        links = [link for depth in depths for link in path.glob(depth) if link.is_symlink() and _is_ours(link)]
        for link in links:
            link.unlink()
        if links:
            _remove_empty(path, _PROJECT + 1)


def _is_ours(link: Path) -> bool:
    up, _, rest = os.readlink(link).rpartition("../")
    return set(up) <= set("./") and _UUID.fullmatch(rest.partition("/")[0]) is not None


def _move(source: Path, target: Path, root: Path, levels: int) -> None:
    """Rename a folder. If the target exists, merge both down to `levels`.

    A missing source was moved earlier or never created. A source that is the target itself, by a link, stays.
    """
    if not os.path.lexists(source) or os.path.realpath(source) == os.path.realpath(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        _link(source, target, root)
        return
    try:
        if os.path.lexists(target) and not target.is_dir():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        source.rename(target)  # replaces an empty folder
    except OSError as error:
        if error.errno in _IN_THE_WAY:
            _merge(source, target, root, levels)
        elif error.errno in _STAYS and not os.path.lexists(target):
            _link(source, target, root)
        else:
            raise


def _merge(source: Path, target: Path, root: Path, levels: int) -> None:
    if not levels or not source.is_dir() or not target.is_dir():
        log.warning("%s exists already: %s stays where it is", target, source)
        return
    for inner in sorted(source.iterdir()):
        is_kind = levels == _PROJECT and inner.name != "groups"
        _move(inner, target / inner.name, root, _KIND if is_kind else levels - 1)


def _link(source: Path, target: Path, root: Path) -> None:
    """Link to a folder that can't be moved. The link is relative inside the home folder, which users may move."""
    real = Path(os.path.realpath(source))
    is_inside = real.is_relative_to(os.path.realpath(root))
    target.symlink_to(os.path.relpath(real, os.path.realpath(target.parent)) if is_inside else real)
    log.warning("%s stays where it is, and %s links to it", source, target)


def _remove_empty(folder: Path, levels: int) -> None:
    """Remove empty folders that a move left."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for inner in folder.iterdir() if levels else ():
        _remove_empty(inner, levels - 1)
    with suppress(OSError):
        folder.rmdir()
