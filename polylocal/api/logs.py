"""Logs: the bytes that a run wrote, with times if wanted, and as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse
from watchfiles import awatch

from polylocal.api.endpoint import Access, Call, Endpoint, Query, empty, refuse
from polylocal.api.file_responses import file_as_it_is
from polylocal.api.worker_pools import stream
from polylocal.errors import NotFound
from polylocal.files import logs
from polylocal.statuses import POLYAXON_KINDS, Kind, is_done
from polylocal.store import Store
from polylocal.store.rows import Run

MAX_LINES = 50_000  # of one request
LOOK_S = 1.0  # without a word from anybody a follower looks this often
_MEDIA = "text/plain; charset=utf-8"


def show(call: Call) -> Response:
    """`?follow=true` stays until the run is done; `?timestamps=true` puts the time before each line."""
    path = call.context.log(call.run)
    if call.flag("follow"):
        changes: Changes = call.request.app.state.changes
        source = logs.Stamped(path) if call.flag("timestamps") else Plain(path)
        return StreamingResponse(follow(source, call.run, call.store, changes), media_type=_MEDIA)
    missing = JSONResponse(f"File not found: file_path={path.name}", status_code=404)
    if call.flag("timestamps"):
        return StreamingResponse(stream(logs.stamped(path)), media_type=_MEDIA) if path.exists() else missing
    try:
        return file_as_it_is(path, _MEDIA)
    except FileNotFoundError:
        return missing


def show_task(call: Call) -> Response:
    """An experiment has one task: its log is the experiment's."""
    if call.number("jid") != call.run.id:
        raise NotFound
    return show(call)


def append(call: Call) -> Response:
    """Lines that a client outside of any container reports, as one text or a list."""
    data = call.data
    lines = [data] if isinstance(data, str) else data
    if lines == {}:
        return empty()  # clients end with an empty body
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise refuse("Logs handler expects `data` to be a string or list of strings.")
    if len(lines) > MAX_LINES:
        raise refuse(f"One request takes at most {MAX_LINES} lines of a log, this one has {len(lines)}.")
    if call.run.is_managed and not is_done(call.run.status):
        raise refuse(f"The log of {call.run.unique_name} is written by its container.")
    with logs.LogWriter(call.context.log(call.run), max_mib=call.context.settings.max_log_mib) as writer:
        for line in lines:
            writer.line(line)
    return empty()


@dataclass
class Wakeup:
    """What a follower waits for."""

    event: asyncio.Event
    run_changed: bool = False


class Changes:
    """Wakes followers when a log grows (the runner says so, and the folder is watched for what others write) or a run
    changes (the store says so). All of these are hints.

    Belongs to one event loop; on any other, followers look every second.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder = folder
        self._store = store
        self._wakeups: dict[str | int, set[int]] = {}
        self._by_id: dict[int, Wakeup] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def watch(self, stop: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        for kind in Kind:  # a folder that is made later is watched a moment after its first file is written
            (self._folder / kind.plural).mkdir(parents=True, exist_ok=True)
        leave = self._store.subscribe(self._pass_on)
        try:
            async for changed in awatch(self._folder, debounce=40, step=20, stop_event=stop, recursive=True):
                for _, path in changed:
                    self._wake(path)
        finally:
            leave()

    def grew(self, path: Path) -> None:
        """From any thread."""
        self._pass_on(str(path))

    @contextmanager
    def of(self, path: Path, run: Run) -> Iterator[Wakeup]:
        wakeup = Wakeup(asyncio.Event())
        keys: tuple[str | int, ...] = (str(path), run.pk) if asyncio.get_running_loop() is self._loop else ()
        self._by_id[id(wakeup)] = wakeup
        for key in keys:
            self._wakeups.setdefault(key, set()).add(id(wakeup))
        try:
            yield wakeup
        finally:
            del self._by_id[id(wakeup)]
            for key in keys:
                self._wakeups[key].discard(id(wakeup))
                if not self._wakeups[key]:
                    del self._wakeups[key]

    def _pass_on(self, key: str | int) -> None:
        loop = self._loop
        if key in self._wakeups and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake, key)

    def _wake(self, key: str | int) -> None:
        for number in self._wakeups.get(key, ()):
            wakeup = self._by_id[number]
            wakeup.run_changed |= isinstance(key, int)
            wakeup.event.set()


class Source(Protocol):
    """A log that is read on and on."""

    path: Path

    def read(self) -> Iterator[bytes]:
        """What has come since the last call."""


async def follow(source: Source, run: Run, store: Store, changes: Changes) -> AsyncIterator[bytes]:
    """All of a log, then what comes, until the run is done and everything was given."""
    with changes.of(source.path, run) as wakeup:
        while True:
            wakeup.run_changed = False
            is_over = await run_in_threadpool(
                _is_over, store, run
            )  # asked first: what was written before is read below
            async for chunk in iterate_in_threadpool(source.read()):
                yield chunk
            if is_over:
                return
            while await only_grew(wakeup):
                for chunk in source.read():  # it has just been written and is in memory: no thread is worth it
                    yield chunk


async def only_grew(wakeup: Wakeup) -> bool:
    """Wait for a hint. False: the run itself changed, or it is time to look without a hint."""
    try:
        await asyncio.wait_for(wakeup.event.wait(), LOOK_S)
    except TimeoutError:
        return False
    wakeup.event.clear()
    return not wakeup.run_changed


@dataclass
class Plain(logs.Tail):
    """The bytes as they are."""

    def read(self) -> Iterator[bytes]:
        self.begin()
        for chunk in logs.read(self.path, self.offset):
            if data := self.take(chunk):
                yield data


def _is_over(store: Store, run: Run) -> bool:
    found = store.runs.by_uuid(run.uuid)
    return found is None or is_done(found.status)


_QUERY = (
    Query("timestamps", "true: `YYYY-mm-dd HH:MM:SS UTC -- ` before each line"),
    Query("follow", "true: go on until the run is done"),
)

ENDPOINTS = [
    endpoint
    for kind in POLYAXON_KINDS
    if kind is not Kind.GROUP
    for path in [f"/api/v1/{{user}}/{{project}}/{kind.plural}/{{id:id}}/logs"]
    for endpoint in (
        Endpoint("GET", path, show, f"The log of a {kind}", media=_MEDIA, query=_QUERY),
        Endpoint("POST", path, append, f"Add lines to the log of a {kind}", Access.TRACK),
    )
]
_TASK = "/api/v1/{user}/{project}/experiments/{id:id}/jobs/{jid:id}/logs"
ENDPOINTS += [Endpoint("GET", _TASK, show_task, "The log of the task", media=_MEDIA, query=_QUERY)]
