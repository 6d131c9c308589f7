"""Room on the disk of the home folder: how much there is, and whether it is enough to begin something new."""

from __future__ import annotations

import errno
import shutil
import time
from pathlib import Path

_LOOK_S = 1.0  # a look is good for this long
# what a disk says that has no room, or that can't be written any more: nobody's fault in here, and it may pass
_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


class Disk:
    """The file system that `folder` lies on. Thread-safe."""

    def __init__(self, folder: Path, min_free_mib: int) -> None:
        self._folder = folder
        self._min_free_mib = min_free_mib
        self._looked_at = -_LOOK_S
        self._problem: str | None = None

    def problem(self) -> str | None:
        """Why nothing new can begin, in one sentence; None: there is room."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_S:
            self._problem = self._look()
            self._looked_at = now
        return self._problem

    def free_mib(self) -> float:
        return shutil.disk_usage(self._folder).free / 2**20

    def _look(self) -> str | None:
        try:
            free_mib = self.free_mib()
        except OSError as error:
            return f"The disk of {self._folder} can't be looked at: {error.strerror or error}."
        if free_mib >= self._min_free_mib:
            return None
        return (
            f"The disk of {self._folder} is full: {free_mib:.0f} MiB are free, and nothing new begins below"
            f" {self._min_free_mib} (min_free_mib). `polylocal gc` makes room."
        )


def is_trouble(error: OSError) -> bool:
    """Whether an error is the disk's own, and not that of what was asked."""
    return error.errno in _TROUBLE
