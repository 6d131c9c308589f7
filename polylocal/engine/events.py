"""One stream of the engine's events for the whole daemon: who died, with which exit code. A hint, never the truth.

It tells of a death 10 to 30 ms before the engine's `wait` returns. A stream that is cut goes on silently, so everyone
who waits also looks for himself from time to time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from polylocal.engine.base import Died, Engine
from polylocal.errors import EngineError, EngineUnreachable

log = logging.getLogger(__name__)

PAUSE_S = 0.5  # between two tries to listen


class Waiter:
    """Waits for the next death of one container."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._died = threading.Event()
        self._code: int | None = None
        self.was_signalled = False
        self._action: Callable[[], None] | None = None

    def wait(self, timeout_s: float) -> int | None:
        """The exit code, or None: no word of it yet."""
        self._died.wait(timeout_s)
        return self._code

    def on_death(self, action: Callable[[], None]) -> None:
        """Called once, from another thread; at once if it is dead already."""
        with self._lock:
            is_dead = self._died.is_set()
            self._action = None if is_dead else action
        if is_dead:
            action()

    def forget(self) -> None:
        """What was told was an earlier death: wait for the next one."""
        with self._lock:
            self._died.clear()
            self._code = None
            self.was_signalled = False

    def tell(self, died: Died) -> None:
        with self._lock:
            self._code = died.exit_code
            self.was_signalled = died.was_signalled
            self._died.set()
            action, self._action = self._action, None
        if action:
            action()


class Deaths:
    """Listens on a thread of its own from `start()` on."""

    def __init__(self, engine: Engine, installation: str, wait_until_back: Callable[[], None]) -> None:
        self._engine = engine
        self._installation = installation
        self._wait_until_back = wait_until_back
        self._lock = threading.Lock()
        self._waiters: dict[str, Waiter] = {}

    def start(self) -> None:
        threading.Thread(target=self._listen, name="engine-events", daemon=True).start()

    @contextmanager
    def watch(self, container_id: str) -> Iterator[Waiter]:
        """Deaths from now on. One waiter a container."""
        waiter = Waiter()
        with self._lock:
            self._waiters[container_id] = waiter
        try:
            yield waiter
        finally:
            with self._lock:
                self._waiters.pop(container_id, None)

    def tell(self, died: Died) -> None:
        """Pass a death on to who waits for it."""
        with self._lock:
            waiter = self._waiters.get(died.container_id)
        if waiter is None:
            return
        try:
            waiter.tell(died)
        except Exception:  # one run's trouble must not make the others deaf
            log.exception("what was to be done at the death of %s failed", died.container_id[:12])

    def _listen(self) -> None:
        while True:
            try:
                for died in self._engine.events(self._installation):
                    self.tell(died)
            except (EngineError, EngineUnreachable, ValueError, KeyError) as error:
                log.debug("engine events: %s", error)
            threading.Event().wait(PAUSE_S)
            self._wait_until_back()
