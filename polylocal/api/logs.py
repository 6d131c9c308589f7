"""Logs: the bytes that a run wrote, with times if wanted, and as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse
from watchfiles import awatch

from polylocal import logs
from polylocal.api.endpoint import Access, Call, Endpoint, Query, empty, file_as_it_is, refuse
from polylocal.statuses import Kind, is_done
from polylocal.store import Store
from polylocal.store.rows import Run

LOOK_S = 1.0  # without a word from anybody a follower looks this often
_MEDIA = "text/plain; charset=utf-8"
_CHUNK = 1 << 18


def show(call: Call) -> Response:
    """`?follow=true` stays until the run is done; `?timestamps=true` puts the time before each line."""
    path = call.services.log(call.run)
    if call.flag("follow"):
        changes: Changes = call.request.app.state.changes
        return StreamingResponse(follow(path, call.run, call.store, changes), media_type=_MEDIA)
    if not path.exists():
        return JSONResponse(f"File not found: file_path={path.name}", status_code=404)
    if call.flag("timestamps"):
        return StreamingResponse(logs.stamped(path), media_type=_MEDIA)
    return file_as_it_is(path, _MEDIA)


def append(call: Call) -> Response:
    """Lines that a client outside of any container reports, as one text or a list."""
    data = call.data
    lines = [data] if isinstance(data, str) else data
    if lines == {}:
        return empty()  # clients end with an empty body
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise refuse("Logs handler expects `data` to be a string or list of strings.")
    if call.run.is_managed and not is_done(call.run.status):
        raise refuse(f"The log of {call.run.unique_name} is written by its container.")
    with logs.LogWriter(call.services.log(call.run)) as writer:
        for line in lines:
            writer.line(line)
    return empty()


class Changes:
    """Wakes followers when a log grows (the folder is watched) or a run changes (the store says so).

    Belongs to one event loop; on any other, followers look every second.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder = folder
        self._store = store
        self._events: dict[str | int, set[asyncio.Event]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def watch(self, stop: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._folder.mkdir(parents=True, exist_ok=True)
        leave = self._store.subscribe(self._run_changed)
        try:
            # a line is passed on after a millisecond of silence, in a flood every 20
            async for changed in awatch(self._folder, debounce=20, step=1, stop_event=stop, recursive=True):
                for _, path in changed:
                    self._wake(path)
        finally:
            leave()

    @contextmanager
    def of(self, path: Path, run: Run) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        keys: tuple[str | int, ...] = (str(path), run.pk) if asyncio.get_running_loop() is self._loop else ()
        for key in keys:
            self._events.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            for key in keys:
                self._events[key].discard(event)
                if not self._events[key]:
                    del self._events[key]

    def _run_changed(self, pk: int) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed() and pk in self._events:
            loop.call_soon_threadsafe(self._wake, pk)

    def _wake(self, key: str | int) -> None:
        for event in self._events.get(key, ()):
            event.set()


async def follow(path: Path, run: Run, store: Store, changes: Changes) -> AsyncIterator[bytes]:
    """All of a log, then what comes, until the run is done and everything was given."""
    offset = 0
    with changes.of(path, run) as changed:
        while True:
            changed.clear()
            is_over = await run_in_threadpool(
                _is_over, store, run
            )  # asked first: what was written before is read below
            while chunk := await run_in_threadpool(_read, path, offset):
                offset += len(chunk)
                yield chunk
            if is_over:
                return
            try:
                await asyncio.wait_for(changed.wait(), LOOK_S)
            except TimeoutError:
                continue


def _is_over(store: Store, run: Run) -> bool:
    found = store.runs.by_uuid(run.uuid)
    return found is None or is_done(found.status)


def _read(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(_CHUNK)
    except FileNotFoundError:
        return b""


_QUERY = (
    Query("timestamps", "true: `YYYY-mm-dd HH:MM:SS UTC -- ` before each line"),
    Query("follow", "true: go on until the run is done"),
)

ENDPOINTS = [
    endpoint
    for kind in Kind
    for path in [f"/api/v1/{{user}}/{{project}}/{kind.plural}/{{id:int}}/logs"]
    for endpoint in (
        Endpoint("GET", path, show, f"The log of a {kind}", media=_MEDIA, query=_QUERY),
        Endpoint("POST", path, append, f"Add lines to the log of a {kind}", Access.TRACK),
    )
]
