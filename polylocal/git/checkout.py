"""Writes the files of a commit into a folder.

git reads the commit into a temporary index and writes the files from there. The file `info/attributes` switches
off every conversion and filter, the command's environment hides the settings of the user and the system, and no hook
runs. A submodule becomes an empty folder.
"""

import os
import stat
import tempfile
from pathlib import Path

from polylocal.errors import InvalidInput, SetupError
from polylocal.files.disk import TROUBLE
from polylocal.files.folders import set_mode, walk
from polylocal.git import command
from polylocal.system.processes import QUICK, Limits

_LIMITS = Limits(seconds=3600.0)


def write(git_dir: Path, commit: str, folder: Path) -> None:
    """Write a commit into an empty folder, with the modes 0644 and 0755 and the time of the commit.

    Raises InvalidInput if the commit contains names that git or the file system refuses, OSError if the disk is full or
    broken, SetupError, Cancelled.
    """
    time = command.run("show", "--no-patch", "--format=%ct", commit, git_dir=git_dir, limits=QUICK)
    if time.returncode:
        raise SetupError(f"git show failed: {time.message}")
    with tempfile.TemporaryDirectory(prefix="polylocal-index-") as work:
        env = {"GIT_INDEX_FILE": f"{work}/index", "GIT_WORK_TREE": str(folder)}
        for arguments in (("read-tree", commit), ("checkout-index", "--all")):
            done = command.run(*arguments, git_dir=git_dir, env=env, cwd=folder, limits=_LIMITS)
            if done.returncode:
                raise _failure(done.message, folder)
    _set_times_and_modes(folder, int(time.stdout.split()[-1]))


def _failure(words: str, folder: Path) -> Exception:
    for number in TROUBLE:
        if os.strerror(number) in words:
            return OSError(number, os.strerror(number), str(folder))
    return InvalidInput([f"The code can't be checked out: {words[:1000]}"])


def _set_times_and_modes(folder: Path, seconds: int) -> None:
    """Packages are made of these files: their times must not depend on the checkout, nor their modes on the umask."""
    for entry in walk(folder):
        if entry.is_file:
            os.utime(entry.name, (seconds, seconds), dir_fd=entry.parent, follow_symlinks=False)
        if entry.is_file or entry.is_folder:
            mode = 0o755 if entry.is_folder or entry.stat.st_mode & stat.S_IXUSR else 0o644
            if stat.S_IMODE(entry.stat.st_mode) != mode:
                set_mode(entry.name, entry.parent, mode)
