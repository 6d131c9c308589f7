"""Files in outputs belong to the user who runs the daemon, whatever user the image runs as."""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from polylocal.engine.base import Containers
from polylocal.engine.plan import HOME_LABEL, ContainerPlan, Mount
from polylocal.errors import EngineError
from polylocal.files.folders import set_mode, walk

log = logging.getLogger(__name__)

_TARGET = PurePosixPath("/plx-outputs")
_PLAIN_USER = re.compile(r"[\w.][\w.-]*(:[\w.][\w.-]*)?", re.ASCII)


def make_writable(folder: Path) -> None:
    """An outputs folder that any user of any image can write to; the home folder above it is closed to others."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)


def open_to_all(folder: Path) -> None:
    """The same of a folder with all that is in it: whatever user the image runs as works on it."""
    for entry in walk(folder):
        wanted = stat.S_IMODE(entry.stat.st_mode) & 0o777 | (0o777 if entry.is_folder else 0o666)
        if entry.is_folder or entry.is_file:
            with suppress(FileNotFoundError):
                set_mode(entry.name, entry.parent, wanted)
    make_writable(folder)


def foreign(folder: Path, uid: int) -> Iterator[Path]:
    """What in a folder (itself included) does not belong to `uid`; links are not followed."""
    if folder.lstat().st_uid != uid:
        yield folder
    for entry in walk(folder, every_kind=True, could_not_read=_refuse):
        if entry.stat.st_uid != uid:
            yield folder / entry.path


def _refuse(path: str, why: str) -> None:
    raise PermissionError(errno.EACCES, why, path)


def has_foreign(folder: Path, uid: int) -> bool:
    """Whether there is anything to hand over; what can't be looked into may hold something."""
    try:
        return next(foreign(folder, uid), None) is not None
    except FileNotFoundError:
        return False
    except OSError as error:
        log.debug("looking through %s: %s", folder, error)
        return True


def reclaim(folder: Path, uid: int, gid: int, engine: Containers, image: str, installation: str) -> str | None:
    """Give everything in `folder` to uid:gid. Returns a sentence if that could not be done.

    Root does it itself; anybody else has a small container of the run's own image do it, as root. On engines that map
    users (rootless, desktop) the files are ours already and nothing happens.
    """
    if not has_foreign(folder, uid):
        return None
    if os.geteuid() == 0:
        os.chown(folder, uid, gid, follow_symlinks=False)
        for entry in walk(folder, every_kind=True):
            if entry.stat.st_uid != uid:
                with suppress(FileNotFoundError):
                    os.chown(entry.name, uid, gid, dir_fd=entry.parent, follow_symlinks=False)
        return None
    problem = _chown_in_container([Mount(folder, _TARGET)], f"{uid}:{gid}", engine, image, installation)
    return f"outputs belong to another user: {problem}" if problem else None


def give_to_user(folders: Sequence[Path], user: str, engine: Containers, image: str, installation: str) -> str | None:
    """Give folders with all that they hold to a user of an image. Returns a sentence if that could not be done.

    `user` is the image's own, as `engine.image_config` has it: a name or a number, with or without a group; "" is root.
    Only the image knows the number of a name, so a container of the image does it. Raises EngineUnreachable.
    """
    if user and not _PLAIN_USER.fullmatch(user):
        return f"the image's user `{user[:100]!r}` is neither a name nor a number"
    owner = user or "0:0"
    if ":" not in owner and not owner.isdecimal():
        owner += ":"  # with the user's login group; a number may have no entry in /etc/passwd
    mounts = [Mount(folder, _TARGET / str(number)) for number, folder in enumerate(folders)]
    return _chown_in_container(mounts, owner, engine, image, installation)


def _chown_in_container(
    mounts: Sequence[Mount], owner: str, engine: Containers, image: str, installation: str
) -> str | None:
    """Returns what went wrong. Raises EngineUnreachable."""
    plan = ContainerPlan(
        name=f"plx-chown-{os.urandom(6).hex()}",
        image=image,
        command=["chown", "-hR", owner, *(str(mount.target) for mount in mounts)],
        labels={HOME_LABEL: installation},
        mounts=mounts,
        network="none",
        user="0",
        cap_drop=("ALL",),
        cap_add=("CHOWN", "DAC_OVERRIDE"),  # for files of any user, below folders that only their owner may enter
    )
    try:
        code = engine.run_helper(plan)
    except EngineError as error:
        return f"chown could not be run in the image: {error}"
    return f"chown in the image ended with exit code {code}" if code else None
