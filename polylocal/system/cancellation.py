"""Lets another thread end what a thread waits for: a pull, a build, a git process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from polylocal.errors import PolylocalError

_TURN_S = 0.2


class Cancelled(PolylocalError):
    """The operation was ended from outside: its run was stopped, or its HTTP client has left."""

    http_status = 499  # nobody is there to read it


class Cancel:
    """Ends one operation after the other. Once called it stays called."""

    def __init__(self) -> None:
        self._called = threading.Event()
        self._action: Callable[[], None] | None = None

    @property
    def called(self) -> bool:
        return self._called.is_set()

    def on_call(self, action: Callable[[], None]) -> None:
        """What ends the present operation; it is called at once if the cancellation came before."""
        self._action = action
        if self.called:
            action()

    @contextmanager
    def ending(self, action: Callable[[], None]) -> Iterator[None]:
        """The same for a block only: its process may be another one's afterwards."""
        before = self._action
        self.on_call(action)
        try:
            yield
        finally:
            self._action = before

    def wait(self, seconds: float) -> bool:
        """Wait, at most until the call. True: it was called."""
        return self._called.wait(seconds)

    def __call__(self) -> None:
        self._called.set()
        if action := self._action:
            action()


@contextmanager
def holding(lock: threading.Lock, cancel: Cancel | None = None) -> Iterator[None]:
    """Hold a lock for a block. Raises Cancelled: `cancel`, or this thread's, was called before there was a turn."""
    cancel = cancel or current() or Cancel()
    while not lock.acquire(timeout=_TURN_S):
        if cancel.called:
            raise Cancelled("It was ended while it waited for another one.")
    try:
        yield
    finally:
        lock.release()


_current: ContextVar[Cancel | None] = ContextVar("cancel", default=None)


def current() -> Cancel | None:
    """What ends the operations of this thread or task; None: nothing does."""
    return _current.get()


@contextmanager
def cancelled_by(cancel: Cancel) -> Iterator[None]:
    """Operations of this block end when `cancel` is called; also those on threads that are given its context."""
    token = _current.set(cancel)
    try:
        yield
    finally:
        _current.reset(token)
