"""Carries out one run on its own thread. Resumes runs that an earlier process left.

Any step can be the last one of this process. So each step first checks the state (whether the container exists, has
started, has ended), then acts, then records the result.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from polylocal.errors import EngineError, PolylocalError, StoreError
from polylocal.files.disk import is_shortage, is_trouble
from polylocal.files.logs import LogWriter
from polylocal.runner import outcome
from polylocal.runner.outcome import Outcome
from polylocal.runner.runner_context import RunnerContext
from polylocal.statuses import Status, is_done
from polylocal.store.rows import Run
from polylocal.system.cancellation import Cancel

log = logging.getLogger(__name__)

T = TypeVar("T")


class StillInUse(EngineError):
    """A run can't be removed before its last container is removed."""


class Operation(Protocol):
    """The operation of one run: an image build or a container."""

    def __call__(self) -> None:
        """Carry the run out to its final status. Raises StoreError where nothing can be recorded."""

    def stop(self) -> None:
        """End the operation, from another thread. The cancellation of the execution was called before."""

    def finish(self, end: Outcome, **recorded: object) -> None:
        """Record the final status with these columns, then remove what the run no longer needs."""


class Work(ABC):
    """The behaviour of one kind of runs. There is one object for each kind; it has no state."""

    def time_limit_s(self, run: Run, context: RunnerContext) -> float | None:
        """The longest time that a run may take, in seconds; None: there is no limit."""
        return context.settings.time_limit_s

    @abstractmethod
    def operation(self, execution: Execution) -> Operation: ...

    def remove(self, run: Run, context: RunnerContext) -> int:
        """Remove files and images that only runs of this kind leave. Returns the freed bytes.

        Raises StillInUse, OSError: the row of the run stays, so that its removal is tried again.
        """
        return 0

    def remove_rows(self, run: Run, context: RunnerContext) -> None:
        """Remove the row of the run with all rows that belong to it, at the end of its removal."""
        context.store.runs.remove(run)


class Execution:
    """Carries out one run. Call it on the run's thread; other threads call `stop()`."""

    def __init__(self, run: Run, work: Work, context: RunnerContext) -> None:
        self.run = run
        self.work = work
        self.context = context
        self.cancel = Cancel()
        self._stopping = threading.Event()
        self._running_since: float | None = None  # on the monotonic clock
        self.operation = work.operation(self)

    def __call__(self) -> bool:
        """Returns False if nothing can be recorded now. Another thread resumes the run later."""
        try:
            self.operation()
        except StoreError as error:
            log.warning("run=%s: postponed, %s", self.run.label, error)
            return False
        except Exception as error:  # a bug or a broken host: the run must not hang for ever because of it
            is_full = isinstance(error, OSError) and is_trouble(error) and self.context.disk.problem() is not None
            if is_full or (isinstance(error, OSError) and is_shortage(error)):
                log.warning("run=%s: postponed, %s", self.run.label, error)
                return False
            log.exception("run=%s: could not be carried on", self.run.label)
            reason = str(error) if isinstance(error, PolylocalError | OSError) else f"{type(error).__name__}: {error}"
            return self._finish_as_failed(outcome.host_failed(reason))
        return True

    def _finish_as_failed(self, end: Outcome) -> bool:
        """Finish the run after an unexpected error. Returns False if even that can't be recorded."""
        try:
            self.operation.finish(end)
        except (StoreError, OSError) as error:
            log.warning("run=%s: postponed, %s", self.run.label, error)
            return False
        return True

    @property
    def time_limit_s(self) -> float | None:
        return self.work.time_limit_s(self.run, self.context)

    @property
    def seconds_running(self) -> float:
        since = self._running_since
        return 0.0 if since is None else time.monotonic() - since

    def start_clock(self, seconds_before: float = 0.0) -> None:
        """Count the running time from now on. `seconds_before`: of a resumed run."""
        if self._running_since is None:
            self._running_since = time.monotonic() - seconds_before

    def stop_clock(self) -> None:
        self._running_since = None

    def stop(self) -> None:
        """End the build or the container, never the thread: its waits then return."""
        if not self._stopping.is_set():
            self._stopping.set()
            self.cancel()
            self.operation.stop()

    def allow_stop_again(self) -> None:
        """Pass on the next stop request, since the engine refused this one."""
        self._stopping.clear()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def wait_for_stop(self, seconds: float) -> bool:
        """Wait at most this long. Returns whether a stop was requested."""
        return self._stopping.wait(seconds)

    def is_cancelled(self) -> bool:
        """Whether the run was stopped, deleted or ended by its own report."""
        run = self.context.store.runs.by_pk(self.run.pk)
        is_wanted = run.stop_requested_at is None and run.deleted_at is None and not is_done(run.status)
        return self.is_stopping or not is_wanted

    def stop_outcome(self) -> Outcome:
        run = self.context.store.runs.by_pk(self.run.pk)
        if run.stop_reason == outcome.TIME_LIMIT and not run.deleted_at:
            return outcome.timed_out(self.time_limit_s or 0.0)
        return Outcome(Status.STOPPED, (outcome.DELETED if run.deleted_at else outcome.STOPPED)[run.kind])

    def move(self, to: Status, message: str | None = None, **more: Any) -> bool:
        """Move the status of the run. Returns False if it can't get there any more."""
        return self.context.store.runs.transition(self.run, to, message, **more)

    def refresh(self) -> None:
        """Read the row of the run again."""
        self.run = self.context.store.runs.by_pk(self.run.pk)

    def end(self, end: Outcome, recorded: Mapping[str, object]) -> Outcome | None:
        """Record the final status. Returns None if the run had one already."""
        return end if self.move(end.status, end.message, details=end.details, recorded=recorded) else None

    def log_message(self, text: str) -> None:
        """Add a message of polylocal to the log of the run. Raises StoreError."""
        context = self.context
        path, most = context.log_path(self.run), context.settings.max_log_mib
        with LogWriter(path, context.log_grew, max_mib=most) as writer:
            writer.write_gap(text)

    def call_engine(self, call: Callable[[], T], on_trouble: Callable[[], None] = lambda: None) -> T:
        """Call the engine until it answers. `on_trouble` is called after each failure."""
        return self.context.link.call_engine(call, on_trouble)
