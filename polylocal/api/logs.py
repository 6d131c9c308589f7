"""The logs of runs: as they are, with timestamps, or followed until the run is done."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from polylocal.api.endpoint import Access, Call, Endpoint, Query, empty_response, refusal, run_path
from polylocal.api.feed import Feed, Wakeup
from polylocal.api.file_responses import growing_file
from polylocal.api.kinds import kinds_with, with_article
from polylocal.api.worker_pools import stream
from polylocal.errors import NotFound
from polylocal.files import logs
from polylocal.statuses import Kind, is_done
from polylocal.store import Store
from polylocal.store.rows import Run

MAX_LINES = 50_000  # of one request
_MEDIA = "text/plain; charset=utf-8"


def show(call: Call) -> Response:
    """The log; `?follow=true` follows it until the run is done, `?timestamps=true` puts the time before each line."""
    path = call.context.log_path(call.run)
    if call.flag("follow"):
        source = logs.Stamped(path) if call.flag("timestamps") else Plain(path)
        return StreamingResponse(follow(source, call.run, call.store, call.context.feed), media_type=_MEDIA)
    missing = JSONResponse(f"File not found: file_path={path.name}", status_code=404)
    if call.flag("timestamps"):
        return StreamingResponse(stream(logs.with_timestamps(path)), media_type=_MEDIA) if path.exists() else missing
    try:
        return growing_file(path, _MEDIA)
    except FileNotFoundError:
        return missing


def show_task(call: Call) -> Response:
    """The log of an experiment's only task is the experiment's own."""
    if call.number("jid") != call.run.id:
        raise NotFound
    return show(call)


def append(call: Call) -> Response:
    """Append lines that a client outside of containers reports, as one text or a list."""
    data = call.data
    lines = [data] if isinstance(data, str) else data
    if lines == {}:
        return empty_response()  # clients end with an empty body
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise refusal("Logs handler expects `data` to be a string or list of strings.")
    if len(lines) > MAX_LINES:
        raise refusal(f"One request takes at most {MAX_LINES} lines of a log, this one has {len(lines)}.")
    if call.run.is_managed and not is_done(call.run.status):
        raise refusal(f"The log of {call.run.unique_name} is written by its container.")
    with logs.LogWriter(call.context.log_path(call.run), max_mib=call.context.settings.max_log_mib) as writer:
        for line in lines:
            writer.write_line(line)
    return empty_response()


@dataclass
class Plain(logs.Tail):
    """The bytes as they are. Each `read` returns the output since the one before."""

    def read(self) -> Iterator[bytes]:
        self.refresh()
        for chunk in logs.read(self.path, self.offset):
            if data := self.new_bytes(chunk):
                yield data


async def follow(source: Plain | logs.Stamped, run: Run, store: Store, feed: Feed) -> AsyncIterator[bytes]:
    """The log from its beginning, and its new bytes until the run is done."""
    with feed.follow(source.path, run) as wakeup:
        while True:
            wakeup.runs.clear()
            # read before the log: all that the run wrote before its end is then read below
            is_over = await run_in_threadpool(_is_over, store, run)
            async for chunk in iterate_in_threadpool(source.read()):
                yield chunk
            if is_over:
                return
            while await wait_for_growth(wakeup):
                for chunk in source.read():  # it was just written and is in memory: not worth a thread
                    yield chunk


async def wait_for_growth(wakeup: Wakeup) -> bool:
    """Wait until the log grows. False: the run itself changed, or no hint came in time."""
    return await wakeup.wait() and not wakeup.runs


def _is_over(store: Store, run: Run) -> bool:
    found = store.runs.by_uuid(run.uuid)
    return found is None or is_done(found.status)


_QUERY = (
    Query("timestamps", "true: `YYYY-mm-dd HH:MM:SS UTC -- ` before each line"),
    Query("follow", "true: go on until the run is done"),
)

ENDPOINTS = [
    endpoint
    for kind in kinds_with("is_carried_out")
    for path in [f"{run_path(kind)}/logs"]
    for endpoint in (
        Endpoint("GET", path, show, f"The log of {with_article(kind)}", media=_MEDIA, query=_QUERY),
        Endpoint("POST", path, append, f"Add lines to the log of {with_article(kind)}", Access.TRACK),
    )
]
_TASK = f"{run_path(Kind.EXPERIMENT)}/jobs/{{jid:id}}/logs"
ENDPOINTS += [Endpoint("GET", _TASK, show_task, "The log of the task", media=_MEDIA, query=_QUERY)]
