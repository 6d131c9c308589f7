"""Waits for an engine that does not answer, and logs once when it stops and once when it is back."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from polylocal.engine.host import EngineInfo, Host
from polylocal.errors import EngineError, EngineUnreachable
from polylocal.polyaxonfile import Capacity
from polylocal.system.cancellation import Cancel, Cancelled, current

log = logging.getLogger(__name__)

T = TypeVar("T")


class EngineLink:
    """Shared by every thread that needs the engine."""

    def __init__(self, engine: Host, address: str, pause_s: float = 0.5) -> None:
        self._engine = engine
        self._address = address
        self._pause_s = pause_s
        self._asking = threading.Lock()  # one thread asks the engine, the others use its answer
        self.info: EngineInfo | None = None  # the last answer; None: it never answered
        self._cards: int | None = None
        self.is_away = False
        self._away_since = 0.0
        self.has_failed = False  # once true it stays true: after a failure, a closed connection may have lost data

    def check(self) -> bool:
        """Ask the engine once. True: it answers."""
        try:
            self.info = self._engine.info()
        except (EngineUnreachable, EngineError):
            return False
        return True

    def capacity(self, *, with_gpus: bool) -> Capacity | None:
        """The resources of the engine's machine by its last answer; None: it never answered.

        `with_gpus`: ask the driver for the number of GPUs, which may take a while.
        """
        info = self.info
        if info is None:
            return None
        if with_gpus and not self._cards:  # ask again if there were none: the driver may start late
            self._cards = self._engine.gpus().count
        return Capacity(info.cpus, info.memory_mib, self._cards if with_gpus else None)

    def wait_until_back(self) -> None:
        """Return when the engine answers. Until then runs keep their state.

        Raises Cancelled: the operation of this thread was cancelled.
        """
        cancel = current() or Cancel()
        while not self._asking.acquire(timeout=max(self._pause_s, 0.05)):
            _check(cancel)
        try:
            self._wait(cancel)
        finally:
            self._asking.release()

    def _wait(self, cancel: Cancel) -> None:
        answers = self.check()
        if answers and not self.is_away:
            return
        if not self.is_away:
            self._away_since = time.monotonic()
            log.warning("the engine at %s does not answer; runs keep their state until it is back", self._address)
        self.is_away = True
        while not answers:
            _check(cancel)
            cancel.wait(self._pause_s)
            answers = self.check()
        self.is_away = False
        log.info("the engine is back after %.0f s", time.monotonic() - self._away_since)

    def listen_again(self) -> None:
        """Return when the engine answers again. Call it at the end of the stream of events, which only the engine's end
        causes."""
        self.has_failed = True
        self.wait_until_back()

    def call_engine(self, call: Callable[[], T], on_trouble: Callable[[], None] = lambda: None) -> T:
        """Call an idempotent function until the engine answers it. Raises Cancelled, as `wait_until_back`."""
        while True:
            try:
                return call()
            except EngineUnreachable as error:
                self.has_failed = True
                log.debug("the engine did not answer: %s", error)
                on_trouble()
                time.sleep(self._pause_s / 10)
                self.wait_until_back()


def _check(cancel: Cancel) -> None:
    if cancel.called:
        raise Cancelled("It was stopped while the engine was away.")
