"""Passes the deaths of containers to the threads that wait for them. One stream serves the whole daemon.

An event arrives 10 to 30 ms before the engine's `wait` returns. It is only a hint: a cut stream reports
nothing, so every waiting thread also inspects its container from time to time.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from polylocal.engine.containers import Containers, Died
from polylocal.errors import EngineError, EngineUnreachable

log = logging.getLogger(__name__)

RECONNECT_S = 0.5  # between two connections


class Waiter:
    """Waits for the next death of one container."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._died = threading.Event()
        self._code: int | None = None
        self.was_signalled = False
        self._action: Callable[[], None] | None = None

    def wait(self, timeout_s: float) -> int | None:
        """The exit code; None: no event came within this time."""
        self._died.wait(timeout_s)
        return self._code

    def on_death(self, action: Callable[[], None]) -> None:
        """Call this once at the death, from another thread. After the death: at once."""
        with self._lock:
            is_dead = self._died.is_set()
            self._action = None if is_dead else action
        if is_dead:
            action()

    def reset(self) -> None:
        """Wait for the next death: the last event was about an earlier one."""
        with self._lock:
            self._died.clear()
            self._code = None
            self.was_signalled = False

    def notify(self, died: Died) -> None:
        with self._lock:
            self._code = died.exit_code
            self.was_signalled = died.was_signalled
            self._died.set()
            action, self._action = self._action, None
        if action:
            action()


class Deaths:
    """Listens to the engine on its own thread after `start()`."""

    def __init__(self, engine: Containers, installation: str, wait_until_back: Callable[[], None]) -> None:
        self._engine = engine
        self._installation = installation
        self._wait_until_back = wait_until_back
        self._lock = threading.Lock()
        self._waiters: dict[str, Waiter] = {}

    def start(self) -> None:
        threading.Thread(target=self._listen, name="engine-events", daemon=True).start()

    @contextmanager
    def watch(self, container_id: str) -> Iterator[Waiter]:
        """Watch for deaths in this block. A container has one waiter at most."""
        waiter = Waiter()
        with self._lock:
            self._waiters[container_id] = waiter
        try:
            yield waiter
        finally:
            with self._lock:
                self._waiters.pop(container_id, None)

    def notify(self, died: Died) -> None:
        """Pass a death on to the waiter of its container."""
        with self._lock:
            waiter = self._waiters.get(died.container_id)
        if waiter is None:
            return
        try:
            waiter.notify(died)
        except Exception:  # a failure in one run must not end the events of all others
            log.exception("the action for the death of container %s failed", died.container_id[:12])

    def _listen(self) -> None:
        while True:
            try:
                for died in self._engine.events(self._installation):
                    self.notify(died)
            except (EngineError, EngineUnreachable, ValueError, KeyError) as error:
                log.debug("engine events: %s", error)
            threading.Event().wait(RECONNECT_S)
            self._wait_until_back()
