"""Throttles log-ins: ten wrong passwords lock a name at an address for five minutes."""

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException

MOST = 10  # wrong passwords
WITHIN_S = 300.0
MOST_AT_ONCE = 8  # each computes a hash on a thread
_NAMES = 10_000  # remembered


class TooManyAttempts(HTTPException):
    """The answer 429 to a log-in of a locked name."""

    def __init__(self, wait_s: float) -> None:
        seconds = math.ceil(wait_s)
        words = f"Too many wrong passwords; try again in {seconds} seconds."
        super().__init__(429, words, {"Retry-After": str(seconds)})


class LoginThrottle:
    """Counts wrong passwords in memory, by name and address. Thread-safe."""

    def __init__(self, most: int = MOST, within_s: float = WITHIN_S) -> None:
        self._most = most
        self._within_s = within_s
        self._wrong: dict[str, deque[float]] = {}
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(MOST_AT_ONCE)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """A slot for checking a password. Raises HTTPException 503 instead of waiting, which would hold a thread."""
        if not self._slots.acquire(blocking=False):
            words = "Too many log-ins at once; try again in a moment."
            raise HTTPException(503, words, {"Retry-After": "1"})
        try:
            yield
        finally:
            self._slots.release()

    def wait_s(self, who: str) -> float:
        """Seconds until the next attempt is allowed; 0: now."""
        now = time.monotonic()
        with self._lock:
            times = self._recent(who, now)
            return times[0] + self._within_s - now if len(times) >= self._most else 0.0

    def check(self, who: str) -> None:
        """Raises TooManyAttempts."""
        if wait_s := self.wait_s(who):
            raise TooManyAttempts(wait_s)

    def was_wrong(self, who: str) -> None:
        now = time.monotonic()
        with self._lock:
            while len(self._wrong) >= _NAMES:
                del self._wrong[next(iter(self._wrong))]
            self._wrong.setdefault(who, deque(maxlen=self._most)).append(now)

    def was_right(self, who: str) -> None:
        with self._lock:
            self._wrong.pop(who, None)

    def _recent(self, who: str, now: float) -> deque[float]:
        times = self._wrong.get(who, deque[float]())
        while times and times[0] <= now - self._within_s:
            times.popleft()
        return times
