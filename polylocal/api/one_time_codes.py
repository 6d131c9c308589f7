"""One-time codes: a browser carries a permission from one origin to another, within a minute."""

import secrets
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from polylocal.store.users import hash_of

LIFE_S = 60.0  # of a code
MAX_PER_OWNER = 50  # unused codes of one owner; a further one replaces the oldest

Permission = TypeVar("Permission")


@dataclass(frozen=True)
class _Issued(Generic[Permission]):
    permission: Permission
    owner: Hashable
    about: Hashable
    at: float


class OneTimeCodes(Generic[Permission]):
    """Keeps codes in memory, by their SHA-256. Thread-safe; a restart of the daemon voids all codes."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._issued: dict[str, _Issued[Permission]] = {}  # the oldest first

    def issue(self, permission: Permission, owner: Hashable, about: Hashable = None) -> str:
        """A new code of 40 hex digits. `MAX_PER_OWNER` limits those of an `owner`; `waiting_s` finds it by `about`."""
        code = secrets.token_hex(20)
        with self._lock:
            self._forget_old()
            theirs = [key for key, issued in self._issued.items() if issued.owner == owner]
            for key in theirs[: max(0, len(theirs) - MAX_PER_OWNER + 1)]:
                del self._issued[key]
            self._issued[hash_of(code)] = _Issued(permission, owner, about, self._now())
        return code

    def redeem(self, code: str) -> Permission | None:
        """The permission of a code; None: the code is unknown, used or too old."""
        with self._lock:
            self._forget_old()
            issued = self._issued.pop(hash_of(code), None)
        return issued.permission if issued else None

    def waiting_s(self, about: Hashable) -> float:
        """The age of the oldest unused code about this, in seconds; 0.0: there is none."""
        with self._lock:
            self._forget_old()
            return max((self._now() - found.at for found in self._issued.values() if found.about == about), default=0.0)

    def _forget_old(self) -> None:
        oldest = self._now() - LIFE_S
        for key in [key for key, issued in self._issued.items() if issued.at < oldest]:
            del self._issued[key]
