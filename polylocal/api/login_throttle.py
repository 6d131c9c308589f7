"""Throttles log-ins: ten wrong passwords lock a name at an address for five minutes."""

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException

MAX_FAILURES = 10  # wrong passwords
WITHIN_S = 300.0
MAX_AT_ONCE = 8  # each computes a hash on a thread
_MAX_NAMES = 10_000  # remembered


class TooManyAttempts(HTTPException):
    """The answer 429 to a log-in of a locked name."""

    def __init__(self, wait_s: float) -> None:
        seconds = math.ceil(wait_s)
        words = f"Too many wrong passwords; try again in {seconds} seconds."
        super().__init__(429, words, {"Retry-After": str(seconds)})


class LoginThrottle:
    """Counts wrong passwords in memory, by name and address. Thread-safe."""

    def __init__(self, max_failures: int = MAX_FAILURES, within_s: float = WITHIN_S) -> None:
        self._max_failures = max_failures
        self._within_s = within_s
        self._wrong: dict[str, deque[float]] = {}
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(MAX_AT_ONCE)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a slot for checking a password. Raises HTTPException 503 if there is none: waiting holds a thread."""
        if not self._slots.acquire(blocking=False):
            words = "Too many log-ins at once; try again in a moment."
            raise HTTPException(503, words, {"Retry-After": "1"})
        try:
            yield
        finally:
            self._slots.release()

    def wait_s(self, key: str) -> float:
        """Seconds until the next attempt is allowed; 0: now."""
        now = time.monotonic()
        with self._lock:
            times = self._recent(key, now)
            return times[0] + self._within_s - now if len(times) >= self._max_failures else 0.0

    def check(self, key: str) -> None:
        """Raises TooManyAttempts."""
        if wait_s := self.wait_s(key):
            raise TooManyAttempts(wait_s)

    def record_failure(self, key: str) -> None:
        now = time.monotonic()
        with self._lock:
            while len(self._wrong) >= _MAX_NAMES:
                del self._wrong[next(iter(self._wrong))]
            self._wrong.setdefault(key, deque(maxlen=self._max_failures)).append(now)

    def record_success(self, key: str) -> None:
        with self._lock:
            self._wrong.pop(key, None)

    def _recent(self, key: str, now: float) -> deque[float]:
        times = self._wrong.get(key, deque[float]())
        while times and times[0] <= now - self._within_s:
            times.popleft()
        return times
