"""Copies the output of a container into the log of its run: live, without gaps after a lost connection, complete."""

import json
import logging
import threading
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from polylocal.engine.containers import Frame, Stream
from polylocal.engine.events import Waiter
from polylocal.errors import EngineError, EngineUnreachable, NotFound
from polylocal.files import logs
from polylocal.files.logs import LogChanged, LogWriter, StoredLogFilter
from polylocal.files.masking import Mask, Masked
from polylocal.runner.runner_context import RunnerContext
from polylocal.store.rows import Run

log = logging.getLogger(__name__)

DRAIN_S = 10.0  # the longest time from a container's death to the end of its output
SMALL_LOG = 256 * 1024  # bytes: a log of at most this size is compared whole at the end, a longer one by its tail
TAIL_LINES = 200
_MAX_TRIES = 3  # to fetch a log that another process changes at the same time
_TAIL_BYTES = 4096


class Follower(AbstractContextManager["Follower"]):
    """Writes the log of one attempt of a run. At any time the file is a prefix of the container's output."""

    def __init__(self, run: Run, container_id: str, context: RunnerContext) -> None:
        self._run = run
        self._container_id = container_id
        self._engine = context.engine
        self._store = context.store
        max_mib = context.settings.max_log_mib
        self._writer = LogWriter(context.log_path(run), context.log_grew, max_mib=max_mib, may_reread=True)
        self._missing = 0  # lines that another process removed and that must be fetched again
        self._check_start()
        self._mask = mask_of(run, context)
        self._masked: dict[int, Masked] = {}
        self._attached: Stream | None = None
        self.is_orderly = False  # attached before the start, and the stream was not closed early

    def __exit__(self, *exc: object) -> None:
        if self._attached:
            self._attached.__exit__(None, None, None)
        self._writer.close()

    def attach(self) -> None:
        """Attach before the start, which is the fastest way to all of the output.

        Where the engine refuses, the log that it stores is followed instead.
        """
        try:
            self._attached = self._engine.attach(self._container_id)
        except (EngineError, EngineUnreachable) as error:
            log.debug("run=%s: no attach, following the stored log: %s", self._run.label, error)

    def follow(self, waiter: Waiter) -> None:
        """Follow the output to the end of the stream. This is not the end of the run."""
        if self._attached:
            stream, self._attached = self._attached, None
            try:
                self.is_orderly = self._drain(stream, waiter, None) and self._engine.is_local
                return
            except LogChanged:
                self._reopen()
        while waiter.wait(0) is None:  # otherwise complete() fetches the rest
            try:
                stream = self._engine.logs(self._container_id, follow=True)
            except (EngineUnreachable, EngineError):
                return  # the caller inspects the container next, and finds the reason
            try:
                self._drain(stream, waiter, self._new_filter())
                return
            except LogChanged:
                self._reopen()

    def complete(self) -> None:
        """Fetch the output that the live stream missed. Call it after the container's end.

        A lost connection looks like the end of a stream, so the log is always compared.
        """
        if self.has_changed():
            self._reopen()
        elif self._writer.is_full or (self._writer.size > SMALL_LOG and self.is_orderly and self._has_same_end()):
            return
        for _ in range(_MAX_TRIES):
            try:
                self._fetch_all()
                return
            except LogChanged:
                self._reopen()
        self.mark("the log is changed from outside again and again: lines may be missing here")

    def _fetch_all(self) -> None:
        try:
            with self._engine.logs(self._container_id, follow=False) as stream:
                catch_up = self._new_filter()
                for frame in stream:
                    self._write_frame(frame, catch_up)
            self._write_held_back(catch_up)
        except EngineError as error:  # the container was removed: the end of the run is known nevertheless
            log.warning("run=%s: its log may lack the end, the engine gives it no more: %s", self._run.label, error)
            if self._missing:
                self._writer.write_lost(self._missing)
            self.mark("the engine has no more of this log: its last lines may be missing here")
        self._missing = 0

    def has_changed(self) -> bool:
        """Whether another process has shortened, removed or replaced the log."""
        return self._writer.has_changed()

    def _reopen(self) -> None:
        """Append all lines of the container again, which the engine still has, behind the lines that are left."""
        log.warning("run=%s: its log was changed from outside, lines are fetched again", self._run.label)
        self.is_orderly = False
        self._missing += self._writer.reopen()
        self._check_start()

    def _check_start(self) -> None:
        """Note in the log that the output of earlier containers was removed: nothing else has a copy of it."""
        if self._writer.size < self._run.log_start:
            self._writer.write_lost(0, is_all=False)
            self._run = self._store.runs.record(self._run, log_start=self._writer.size)

    def _write_held_back(self, catch_up: StoredLogFilter) -> None:
        """Write the bytes that were held back as a possible beginning of a secret. No more output follows."""
        for number, masked in self._masked.items():
            self._writer.append(catch_up(number, masked.rest()), number, is_stored=True)

    def mark(self, text: str) -> int:
        """Write a line of polylocal's own. Returns the size of the log with it, in bytes."""
        try:
            self._writer.write_gap(text)
        except LogChanged:
            self._missing += self._writer.reopen()
            self._check_start()
            self._writer.write_gap(text)
        return self._writer.size

    def _new_filter(self) -> StoredLogFilter:
        self._masked.clear()  # bytes that were held back are not in the file: they are sent again
        if not logs.has_times(self._writer.path):  # the lines in the file can't be counted: fetch all of them again
            self._writer.rewind(self._run.log_start)
        return StoredLogFilter(logs.positions(self._writer.path, self._run.log_start))

    def _drain(self, stream: Stream, waiter: Waiter, catch_up: StoredLogFilter | None) -> bool:
        """Read a stream to its end. Returns whether it ended without being closed.

        Some engines leave a stream open after the container's end: it is closed `DRAIN_S` after the death.
        """
        has_ended = False
        timer: list[threading.Timer] = []

        def close_later() -> None:
            timer.append(threading.Timer(DRAIN_S, stream.close))
            timer[0].daemon = True
            timer[0].start()

        waiter.on_death(close_later)
        try:
            with stream, suppress(EngineUnreachable):  # the caller inspects the container, then follows again
                for frame in stream:
                    self._write_frame(frame, catch_up)
                has_ended = True
        finally:
            waiter.on_death(lambda: None)
            for started in timer:
                has_ended = has_ended and not started.finished.is_set()
                started.cancel()
        return has_ended

    def _write_frame(self, frame: Frame, catch_up: StoredLogFilter | None) -> None:
        data = frame.data
        if self._mask:  # before the lines in the file are skipped: they may end in the middle of a secret
            data = self._masked.setdefault(frame.stream, Masked(self._mask))(data)
        data = catch_up(frame.stream, data) if catch_up else data
        self._writer.append(data, frame.stream, frame.time_us, is_stored=catch_up is not None)

    def _has_same_end(self) -> bool:
        """Whether the engine's last lines match the end of this log, in each stream, and occur only there."""
        tail: dict[int, bytes] = {}
        try:
            with self._engine.logs(self._container_id, follow=False, tail=TAIL_LINES) as stream:
                for frame in stream:
                    tail[frame.stream] = tail.get(frame.stream, b"") + frame.data
        except EngineError:
            return False
        reach = 2 * sum(map(len, tail.values())) + SMALL_LOG
        ours: dict[int, bytes] = {}
        for number, data in logs.streams(self._writer.path, max(self._run.log_start, self._writer.size - reach)):
            ours[number] = ours.get(number, b"") + data
        if any(end in ours.get(number, b"")[:-1] for number, end in tail.items()):
            return False  # the lines repeat, so that a match does not prove that all of them exist
        return bool(tail) and all(ours.get(number, b"").endswith(self._mask.hide(end)) for number, end in tail.items())


def mask_of(run: Run, context: RunnerContext) -> Mask:
    """A mask of the secret values that the run got at its start, and of the present ones."""
    specification = run.specification
    if not specification.secrets:
        return Mask(())
    values: list[str] = []
    with suppress(FileNotFoundError, ValueError):
        values += json.loads(context.home.hidden(run.uuid).read_text())
    with suppress(NotFound):
        values += context.secrets(run, specification).values()
    return Mask(values)


def last_line(path: Path) -> str:
    """The last line that is not blank, for a message. "": there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
