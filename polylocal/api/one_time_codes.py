"""One-time codes: let a browser carry a permission from one origin to another, once and soon."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from polylocal.store.users import hash_of

LIFE_S = 60.0  # seconds that a code is good for
MOST_EACH = 50  # codes of one owner that wait to be used; a further one replaces the oldest

Permission = TypeVar("Permission")


@dataclass(frozen=True)
class _Issued(Generic[Permission]):
    permission: Permission
    owner: Hashable
    about: Hashable
    at: float


class OneTimeCodes(Generic[Permission]):
    """Codes in memory, by their SHA-256. Thread-safe; a restart of the daemon voids them."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._issued: dict[str, _Issued[Permission]] = {}  # the oldest first

    def issue(self, permission: Permission, owner: Hashable, about: Hashable = None) -> str:
        """A code of 40 hex digits. `owner` bounds how many wait; `about` is what `waiting_s` finds it by."""
        code = secrets.token_hex(20)
        with self._lock:
            self._forget_old()
            theirs = [key for key, issued in self._issued.items() if issued.owner == owner]
            for key in theirs[: max(0, len(theirs) - MOST_EACH + 1)]:
                del self._issued[key]
            self._issued[hash_of(code)] = _Issued(permission, owner, about, self._now())
        return code

    def redeem(self, code: str) -> Permission | None:
        """What the code permits; None: there is no such code, or it was used, or it is too old."""
        with self._lock:
            self._forget_old()
            issued = self._issued.pop(hash_of(code), None)
        return issued.permission if issued else None

    def waiting_s(self, about: Hashable) -> float:
        """Seconds since the oldest unused code about this was issued; 0.0: none is."""
        with self._lock:
            self._forget_old()
            return max((self._now() - found.at for found in self._issued.values() if found.about == about), default=0.0)

    def _forget_old(self) -> None:
        oldest = self._now() - LIFE_S
        for key in [key for key, issued in self._issued.items() if issued.at < oldest]:
            del self._issued[key]
