"""Delays before something is tried again, by the pk of its run. Thread-safe."""

import threading
import time


class Retries:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due_at: dict[int, float] = {}  # on the monotonic clock

    def delay(self, pk: int, seconds: float) -> None:
        with self._lock:
            self._due_at[pk] = time.monotonic() + seconds

    def clear(self) -> None:
        """Make all of them due."""
        with self._lock:
            self._due_at.clear()

    def pending(self) -> dict[int, float]:
        """The seconds that are left, of those that are not due."""
        now = time.monotonic()
        with self._lock:
            self._due_at = {pk: due_at for pk, due_at in self._due_at.items() if due_at > now}
            return {pk: due_at - now for pk, due_at in self._due_at.items()}
