"""Changes the owner and the mode of files for containers, and gives outputs back to the daemon's user."""

import errno
import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from polylocal.engine.containers import Containers
from polylocal.engine.plan import HOME_LABEL, ContainerPlan, Mount
from polylocal.errors import EngineError
from polylocal.files.folders import set_mode, walk

log = logging.getLogger(__name__)

_TARGET = PurePosixPath("/plx-outputs")
_PLAIN_USER = re.compile(r"[\w.][\w.-]*(:[\w.][\w.-]*)?", re.ASCII)


def make_writable(folder: Path) -> None:
    """Create a folder that any user in a container can write to. The home folder above it stays private."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)


def open_to_all(folder: Path) -> None:
    """Let any user in a container write to a folder and everything in it. Does not follow links."""
    for entry in walk(folder):
        wanted = stat.S_IMODE(entry.stat.st_mode) & 0o777 | (0o777 if entry.is_folder else 0o666)
        if entry.is_folder or entry.is_file:
            with suppress(FileNotFoundError):
                set_mode(entry.name, entry.parent, wanted)
    make_writable(folder)


def foreign_paths(folder: Path, uid: int) -> Iterator[Path]:
    """The paths in a folder, and the folder itself, that do not belong to `uid`. Links are not followed."""
    if folder.lstat().st_uid != uid:
        yield folder
    for entry in walk(folder, every_kind=True, could_not_read=_refuse):
        if entry.stat.st_uid != uid:
            yield folder / entry.path


def _refuse(path: str, why: str) -> None:
    raise PermissionError(errno.EACCES, why, path)


def has_foreign(folder: Path, uid: int) -> bool:
    """Whether a folder has, or in unreadable parts may have, entries of other users."""
    try:
        return next(foreign_paths(folder, uid), None) is not None
    except FileNotFoundError:
        return False
    except OSError as error:
        log.debug("looking through %s: %s", folder, error)
        return True


def reclaim(folder: Path, uid: int, gid: int, engine: Containers, image: str, installation_id: str) -> str | None:
    """Give a folder and everything in it to uid:gid. Returns a message if that failed, otherwise None.

    If the daemon does not run as root, a container of the run's image changes the owner. On engines that map users
    (rootless, desktop), the files belong to the daemon's user already.
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
    problem = _chown_in_container([Mount(folder, _TARGET)], f"{uid}:{gid}", engine, image, installation_id)
    return f"outputs belong to another user: {problem}" if problem else None


def give_to_user(
    folders: Sequence[Path], user: str, engine: Containers, image: str, installation_id: str
) -> str | None:
    """Give folders and everything in them to a user of an image. Returns a message if that failed, otherwise None.

    `user`: a name or a number, with or without a group, as in `engine.image_config`; "" is root. A container of the
    image changes the owner, since only the image maps names to numbers. Raises EngineUnreachable.
    """
    if user and not _PLAIN_USER.fullmatch(user):
        return f"the image's user `{user[:100]!r}` is neither a name nor a number"
    owner = user or "0:0"
    if ":" not in owner and not owner.isdecimal():
        owner += ":"  # chown's syntax for the login group; numbers may have none
    mounts = [Mount(folder, _TARGET / str(number)) for number, folder in enumerate(folders)]
    return _chown_in_container(mounts, owner, engine, image, installation_id)


def _chown_in_container(
    mounts: Sequence[Mount], owner: str, engine: Containers, image: str, installation_id: str
) -> str | None:
    """Returns a message on failure. Raises EngineUnreachable."""
    plan = ContainerPlan(
        name=f"plx-chown-{os.urandom(6).hex()}",
        image=image,
        command=["chown", "-hR", owner, *(str(mount.target) for mount in mounts)],
        labels={HOME_LABEL: installation_id},
        mounts=mounts,
        network="none",
        user="0",
        cap_drop=("ALL",),
        cap_add=("CHOWN", "DAC_OVERRIDE"),  # to reach files of any user, in private folders
    )
    try:
        code = engine.run_helper(plan)
    except EngineError as error:
        return f"chown could not be run in the image: {error}"
    return f"chown in the image ended with exit code {code}" if code else None
