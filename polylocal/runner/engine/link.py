"""Whether the engine answers, said once when it stops and once when it is back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from polylocal.errors import EngineError, EngineUnreachable
from polylocal.runner.engine.base import Engine, EngineInfo

log = logging.getLogger(__name__)

T = TypeVar("T")


class EngineLink:
    """Shared by every thread that needs the engine."""

    def __init__(self, engine: Engine, address: str, pause_s: float = 0.5) -> None:
        self._engine = engine
        self._address = address
        self._pause_s = pause_s
        self._asking = threading.Lock()  # one thread asks, the others find the answer
        self.info: EngineInfo | None = None  # None until it answered for the first time
        self.is_away = False
        self.has_failed = False  # ever: then no connection's end is taken for that of what it carried

    def check(self) -> bool:
        """Ask once."""
        try:
            self.info = self._engine.info()
        except (EngineUnreachable, EngineError):
            return False
        return True

    def wait_until_back(self) -> None:
        """Returns when the engine answers; runs keep their state meanwhile."""
        with self._asking:
            if self.check():
                return
            self.is_away = True
            gone_at = time.monotonic()
            log.warning("the engine at %s does not answer; runs keep their state until it is back", self._address)
            while not self.check():
                time.sleep(self._pause_s)
            self.is_away = False
            log.info("the engine is back after %.0f s", time.monotonic() - gone_at)

    def listen_again(self) -> None:
        """The stream of events has ended: by itself it does so only with the engine. Returns when that answers."""
        self.has_failed = True
        self.wait_until_back()

    def patiently(self, call: Callable[[], T], on_trouble: Callable[[], None] = lambda: None) -> T:
        """Do one idempotent thing, however long the engine stays away."""
        while True:
            try:
                return call()
            except EngineUnreachable as error:
                self.has_failed = True
                log.debug("the engine did not answer: %s", error)
                on_trouble()
                time.sleep(self._pause_s / 10)
                self.wait_until_back()
