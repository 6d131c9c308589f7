"""Cancels an operation from another thread: a pull, a build, a git process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from polylocal.errors import PolylocalError

_POLL_S = 0.2  # seconds between checks for a cancellation


class Cancelled(PolylocalError):
    """The operation was cancelled: its run was stopped, or its HTTP client disconnected."""

    http_status = 499  # no client reads it


class Cancel:
    """A cancellation that one thread calls and another observes. A call is final."""

    def __init__(self) -> None:
        self._called = threading.Event()
        self._action: Callable[[], None] | None = None

    @property
    def called(self) -> bool:
        return self._called.is_set()

    def on_call(self, action: Callable[[], None]) -> None:
        """Set the function that ends the present operation. It runs at once if the cancellation was called before."""
        self._action = action
        if self.called:
            action()

    @contextmanager
    def hook(self, action: Callable[[], None]) -> Iterator[None]:
        """Like `on_call`, for the duration of a block."""
        before = self._action
        self.on_call(action)
        try:
            yield
        finally:
            self._action = before

    def wait(self, seconds: float) -> bool:
        """Wait for the call, at most `seconds`. Returns whether it was called."""
        return self._called.wait(seconds)

    def __call__(self) -> None:
        self._called.set()
        if action := self._action:
            action()


@contextmanager
def locked(lock: threading.Lock, cancel: Cancel | None = None) -> Iterator[None]:
    """Hold a lock for a block. Raises Cancelled if `cancel`, or the current one, is called before the lock is free."""
    cancel = cancel or current() or Cancel()
    while not lock.acquire(timeout=_POLL_S):
        if cancel.called:
            raise Cancelled("The operation was cancelled while it waited for another one.")
    try:
        yield
    finally:
        lock.release()


_current: ContextVar[Cancel | None] = ContextVar("cancel", default=None)


def current() -> Cancel | None:
    """The cancellation of this thread or task; None if there is none."""
    return _current.get()


@contextmanager
def cancelled_by(cancel: Cancel) -> Iterator[None]:
    """Make `cancel` the current cancellation for a block, and for threads that run with a copy of its context."""
    token = _current.set(cancel)
    try:
        yield
    finally:
        _current.reset(token)
