"""Websockets: logs and the use of resources as they change, in the frames of both generations of clients.

A client that is refused at the handshake shows no reason, so every refusal is a frame after the handshake.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from polylocal.api import access
from polylocal.api.api_context import ApiContext
from polylocal.api.endpoint import Call, Endpoint
from polylocal.api.kernel import long_responses
from polylocal.api.kinds import TRAITS, kinds_with, with_article
from polylocal.api.logs import Plain, follow, wait_for_growth
from polylocal.api.shapes.streams import resources_frame
from polylocal.engine.containers import Usage
from polylocal.errors import EngineUnreachable, NotAllowed, NotAuthenticated, NotFound, PolylocalError
from polylocal.files import logs
from polylocal.statuses import Status, is_done
from polylocal.store.rows import Run
from polylocal.store.users import Credentials, Users

SAMPLE_S = 2.0  # between two frames of resources
FIRST_SAMPLE_S = 0.5  # between the two samples for the first frame
_LINES_A_FRAME = 1000
_MAX_LINE = 1 << 20  # bytes
_STARTED = (Status.RUNNING, Status.WARNING)

Json = dict[str, Any]
Handler = Callable[["Follower"], Awaitable[None]]


@dataclass
class Follower:
    """A connected client."""

    call: Call
    socket: WebSocket
    is_old: bool  # of version 0.2: expects lists of lines without timestamps

    @property
    def run(self) -> Run:
        return self.call.run

    async def send(self, frame: Json | list[Json]) -> None:
        await self.socket.send_text(json.dumps(frame))

    async def refuse(self, why: str) -> None:
        await self.send({"status": "error", "log_lines": [why]})


async def send_logs(client: Follower) -> None:
    """Send each status until the run is running, then each line until the run is done."""
    run = client.run
    if is_done(run.status):
        await client.refuse(_not_running(run))
        return
    path, feed = client.call.context.log_path(run), client.call.context.feed
    last = await _send_statuses(client, path)
    source = Plain(path) if client.is_old else logs.Stamped(path)
    sent = False
    async with aclosing(_lines(follow(source, run, client.call.store, feed))) as batches:
        async for lines in batches:
            sent = True
            await _send_lines(client, lines)
    if not sent and is_done(last):
        await client.send({"status": last, "log_lines": None})


async def _send_statuses(client: Follower, log: Path) -> str:
    """Send each status until the run writes a log or is done. Returns the last status."""
    store, run = client.call.store, client.run
    seen = 0
    with client.call.context.feed.follow(log, run) as wakeup:
        while True:
            wakeup.runs.clear()
            _, rows = await run_in_threadpool(store.runs.statuses, run, limit=100, offset=seen)
            seen += len(rows)
            last = rows[-1].status if rows else (await run_in_threadpool(store.runs.by_pk, run.pk)).status
            for row in rows:
                if not is_done(row.status) and row.status not in _STARTED:
                    await client.send({"status": row.status, "log_lines": None})
            # a build writes a log already while it fetches code and images
            if is_done(last) or last in _STARTED or (TRAITS[run.kind].makes_image and last == Status.BUILDING):
                return last
            while await wait_for_growth(wakeup):
                continue


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[list[str]]:
    """Whole lines. A line of more than `_MAX_LINE` bytes comes in pieces; the last line may be unfinished."""
    pieces: list[bytes] = []  # of an unfinished line
    size = 0
    async for chunk in chunks:
        first, *others = chunk.split(b"\n")
        pieces.append(first)
        size += len(first)
        if not others and size <= _MAX_LINE:
            continue
        *whole, rest = (_cut(line) for line in (b"".join(pieces), *others))
        done = [piece for *cut, end in whole for piece in (*cut, end.rstrip(b"\r"))] + rest[:-1]
        pieces, size = [rest[-1]], len(rest[-1])
        if done:
            yield [piece.decode(errors="replace") for piece in done]
    if size:
        yield [b"".join(pieces).decode(errors="replace")]


def _cut(line: bytes) -> list[bytes]:
    """Cut a line between characters into pieces of at most `_MAX_LINE` bytes; only an empty line has an empty one."""
    pieces = []
    while len(line) > _MAX_LINE:
        end = _MAX_LINE
        while end > _MAX_LINE - 4 and line[end] & 0xC0 == 0x80:  # inside a character
            end -= 1
        pieces.append(line[:end])
        line = line[end:]
    return [*pieces, line]


async def _send_lines(client: Follower, lines: list[str]) -> None:
    if not client.is_old:
        for line in lines:
            await client.send({"log_lines": line})
        return
    run = client.run
    about: Json = {"job_uuid": run.uuid}
    if TRAITS[run.kind].is_tracked:
        about |= {"experiment_uuid": run.uuid, "status": Status.RUNNING, "task_type": "master", "task_idx": 0}
    for start in range(0, len(lines), _LINES_A_FRAME):
        await client.send({**about, "log_lines": lines[start : start + _LINES_A_FRAME]})


async def send_resources(client: Follower) -> None:
    """Send the run's use of resources every two seconds until the run is done."""
    before: Usage | None = None
    while True:
        run = await run_in_threadpool(client.call.store.runs.by_pk, client.run.pk)
        if is_done(run.status):
            if before is None:
                await client.refuse(_not_running(run))
            return
        sample = await run_in_threadpool(_sample, client.call.context, run)
        if sample is None:
            await asyncio.sleep(SAMPLE_S)
            continue
        if before is not None:
            has_gpus = bool((run.resources or {}).get("gpu"))
            gpus = (await run_in_threadpool(client.call.context.machine)).gpus if has_gpus else []
            await client.send([resources_frame(run, before, sample, gpus)])
        await asyncio.sleep(FIRST_SAMPLE_S if before is None else SAMPLE_S)
        before = sample


def _sample(context: ApiContext, run: Run) -> Usage | None:
    """None: no container runs, or the engine does not answer."""
    if not run.container_id or run.status not in _STARTED:
        return None
    try:
        return context.usage(run.container_id)
    except (EngineUnreachable, PolylocalError):
        return None


def _not_running(run: Run) -> str:
    return f"{TRAITS[run.kind].noun} is not running, current status: {run.status}"


def routes(context: ApiContext) -> list[BaseRoute]:
    return [
        WebSocketRoute(endpoint.path, partial(_accept, endpoint=endpoint, handler=handler, context=context))
        for endpoint, handler in _TABLE
    ]


async def _accept(socket: WebSocket, endpoint: Endpoint, handler: Handler, context: ApiContext) -> None:
    await socket.accept()
    client = Follower(Call(socket, endpoint, context), socket, is_old=endpoint.path.startswith("/ws/"))
    try:
        async with context.quotas.requests.admit(socket):
            await run_in_threadpool(_admit, client.call)
    except (NotAuthenticated, NotAllowed, NotFound) as error:
        missing = f"{TRAITS[client.call.kind].noun} was not found"
        await client.refuse(missing if isinstance(error, NotFound) else str(error))
    except HTTPException as error:  # the user's quota is used up
        await client.refuse(error.detail)
    else:
        await _run_handler(client, handler)
    with suppress(WebSocketDisconnect, RuntimeError):  # the client may have left
        await socket.close()


async def _run_handler(client: Follower, handler: Handler) -> None:
    """Run the handler until it is done, the client leaves, or the permission ends."""
    try:
        with long_responses.stream_slot(client.call) as permission:
            await _run_until_disconnect(client.socket, handler(client), permission.ended)
            if permission.ended.is_set():
                await client.refuse(long_responses.OVER)
    except HTTPException as error:  # the quota is used up
        await client.refuse(error.detail)


def _identify(request: HTTPConnection, users: Users) -> Credentials:
    token = request.query_params.get("token")
    if token and "authorization" not in request.headers:
        return access.by_token(request, users, token)
    return access.authenticate(request, users)


def _admit(call: Call) -> None:
    call.identify(_identify)
    call.check_access()
    job_id = call.request.path_params.get("jid")
    if job_id is not None and job_id != call.run.id:
        raise NotFound


async def _run_until_disconnect(socket: WebSocket, work: Awaitable[None], over: asyncio.Event) -> None:
    """Do the work until it is done, the client leaves or `over` is set. Raises the errors of the work."""
    tasks = [asyncio.ensure_future(each) for each in (work, long_responses.wait_for_disconnect(socket), over.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:  # also at the end of the daemon
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
            raise result


def _table() -> Iterator[tuple[Endpoint, Handler]]:
    for kind in kinds_with("is_carried_out"):
        one, a_run = f"/{{user}}/{{project}}/{kind.plural}/{{id:id}}", with_article(kind)
        for task in [one, f"{one}/jobs/{{jid:id}}"] if TRAITS[kind].is_tracked else [one]:
            for path in (f"/ws/v1{task}/logs", f"/api/v1{task}/logs/stream", f"/ws/v1{task}/logs/stream"):
                yield Endpoint("WS", path, _no_request, f"Follow the log of {a_run}"), send_logs
            for path in (f"/ws/v1{task}/resources", f"/api/v1{task}/resources"):
                yield (
                    Endpoint("WS", path, _no_request, f"Follow the use of resources by {a_run}"),
                    send_resources,
                )


def _no_request(call: Call) -> None:
    raise NotFound("This is a websocket.")


_TABLE = list(_table())
ENDPOINTS = [endpoint for endpoint, _ in _TABLE]  # for the record
