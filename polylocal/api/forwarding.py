"""Forwards requests and websockets to the program in the container of a notebook or tensorboard."""

from __future__ import annotations

import asyncio
import html
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from polylocal import clock
from polylocal.api import forwarded_headers, pages, sessions
from polylocal.api.endpoint import Call
from polylocal.api.kernel import long_responses
from polylocal.api.middleware import release_slot
from polylocal.api.server_programs import PROGRAMS
from polylocal.paths import Home
from polylocal.store.rows import Run
from polylocal.store.runs import Runs

if TYPE_CHECKING:
    import httpx2
    from websockets.asyncio.client import ClientConnection

log = logging.getLogger(__name__)
T = TypeVar("T")

_WITHOUT_EFFECT = ("GET", "HEAD")
_START_TIMEOUT_S = 120  # from the start of a container until its program listens
_MAX_PART_TRIES, _RETRY_S = 12, 0.5  # for scripts, images and the like of a page, while its program starts
_MAX_MESSAGE = 64 * 2**20  # bytes of a program's websocket message, such as a page of plots
_STARTING_S = 1  # until the page of a starting program is loaded again


@dataclass(frozen=True)
class Target:
    """A request to the program of a run. `path` includes the query; `prefix` is the path of the program's page: `/` at
    an origin of its own. `call` is the admitted request of the reader."""

    run: Run
    call: Call
    path: str
    prefix: str = "/"

    @property
    def address(self) -> str:
        # older versions recorded no address for a port on loopback
        return f"{self.run.address or '127.0.0.1'}:{self.run.port}"


class Forwarder:
    """Belongs to one event loop. Opens its HTTP client at the first request."""

    def __init__(self, home: Home, runs: Runs) -> None:
        self._home = home
        self._runs = runs
        self._client: httpx2.AsyncClient | None = None

    async def close(self) -> None:
        if self._client:
            await self._client.aclose()

    async def forward(self, request: Request, target: Target) -> Response:
        """The program's response, sent while its reader is permitted to read it, or a page with the reason for none.

        Raises HTTPException 503: the reader's quota of open streams is used up.
        """
        with long_responses.stream_slot(target.call) as permission:  # a program may take any time until it answers
            answer = await self._answer(request, target)
        if permission.ended.is_set():
            return await long_responses.revoked_response(answer)
        return long_responses.while_permitted(target.call, answer)

    async def _answer(self, request: Request, target: Target) -> Response:
        import httpx2

        run = target.run
        url = f"http://{target.address}{target.path}"
        passed = forwarded_headers.request_headers(request.headers.items(), sessions.OURS)
        headers = [*passed, ("host", request.headers.get("host", "localhost")), *self._credentials(run)]
        try:
            answer = await self._send(request, url, headers, run)
        except httpx2.RequestError as error:
            # the engine's own proxy accepts connections before the program listens, and closes them
            if request.method in _WITHOUT_EFFECT and await self._is_starting(run):
                return starting_page(f"{run.unique_name} is starting")
            log.info("run=%s: its page did not answer: %r", run.label, error)
            text = f"{html.escape(run.unique_name)} did not answer; its log may have the reason."
            return pages.page(502, "No answer", text)
        if answer.status_code < 200:  # it switched to another protocol
            await answer.aclose()
            return pages.page(502, "No answer", f"{html.escape(run.unique_name)} gave no answer that can be shown.")
        # also closes it when the browser leaves before the first byte
        close = BackgroundTask(answer.aclose)
        shown = StreamingResponse(_stream_body(answer), status_code=answer.status_code, background=close)
        shown.raw_headers = forwarded_headers.response_headers(answer.headers.raw, sessions.OURS, target.prefix)
        return shown

    async def join(self, socket: WebSocket, target: Target) -> None:
        """Open a websocket to the program and pass messages on until one end closes."""
        from websockets.exceptions import WebSocketException

        release_slot(socket.scope)
        await socket.receive()  # the handshake; before it is accepted, only a disconnect can follow
        try:
            with long_responses.stream_slot(target.call) as permission:  # a program may take any time until it answers
                ends = long_responses.wait_for_disconnect(socket), permission.ended.wait()
                async with await _unless_ended(self._connect(socket, target), *ends) as other:
                    await socket.accept(other.subprotocol)
                    await _relay(socket, other, permission.ended)
        except (OSError, WebSocketException) as error:
            log.info("run=%s: its websocket did not open: %r", target.run.label, error)
            await socket.close(1011)
        except HTTPException:  # the quota is used up
            await socket.close(1013)
        except ClientDisconnect:  # the browser left, or the permission ended
            with suppress(WebSocketDisconnect, RuntimeError, OSError):
                await socket.close(1008)

    async def _connect(self, socket: WebSocket, target: Target) -> ClientConnection:
        """Connect to the program's websocket. Raises OSError, WebSocketException."""
        from websockets.asyncio.client import connect

        wanted: Any = list(socket.scope.get("subprotocols") or []) or None
        passed = forwarded_headers.request_headers(socket.headers.items(), sessions.OURS)
        kept = [(name, value) for name, value in passed if name != "origin"]
        return await connect(
            f"ws://{target.address}{target.path}",
            # the program compares `Origin` and `Host`
            origin=f"http://{target.address}",  # type: ignore[arg-type]
            subprotocols=wanted,
            additional_headers=[*kept, *self._credentials(target.run)],
            max_size=_MAX_MESSAGE,
            open_timeout=_START_TIMEOUT_S,  # Jupyter answers when the kernel has started
            ping_interval=None,  # the browser's connection has pings
            compression=None,
            proxy=None,
        )

    async def _send(self, request: Request, url: str, headers: list[tuple[str, str]], run: Run) -> httpx2.Response:
        """Send a request to the program; repeat one without effect. Raises httpx2.RequestError."""
        import httpx2

        if self._client is None:
            # no time limit on reading: kernels compute, and event streams are quiet
            times = httpx2.Timeout(None, connect=5.0)
            many = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
            self._client = httpx2.AsyncClient(
                timeout=times, limits=many, verify=False, trust_env=False, cookies=_no_cookies()
            )
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        is_read = asyncio.Event()
        body = _read_body(request, is_read) if has_body else None
        if not has_body:
            is_read.set()
        sent = self._client.build_request(request.method, url, headers=headers, content=body)
        has_no_effect = request.method in _WITHOUT_EFFECT and not has_body
        failures = 0
        while True:
            try:
                release_slot(request.scope)
                # ended when the client leaves: a response may never come
                return await _unless_ended(self._client.send(sent, stream=True), _wait_for_disconnect(request, is_read))
            except httpx2.RequestError:
                failures += 1
                if not (has_no_effect and await self._is_sent_again(request, run, failures)):
                    raise
            # the first time at once: the program may have just closed a connection that was kept
            await asyncio.sleep(0 if failures == 1 else _RETRY_S)

    async def _is_sent_again(self, request: Request, run: Run, failures: int) -> bool:
        """Once for any request; up to `_MAX_PART_TRIES` times for a script or an image of a page that starts."""
        is_part = request.headers.get("sec-fetch-dest", "document") not in ("document", "iframe")
        return failures == 1 or failures < _MAX_PART_TRIES and is_part and await self._is_starting(run)

    async def _is_starting(self, run: Run) -> bool:
        """Whether its container has run for less than `_START_TIMEOUT_S`, without the time of the build."""
        since = await run_in_threadpool(self._runs.running_since, run)
        return since is not None and clock.seconds_between(since, clock.now()) < _START_TIMEOUT_S

    def _credentials(self, run: Run) -> list[tuple[str, str]]:
        return PROGRAMS[run.kind].credentials(run, self._home)


def starting_page(state: str) -> Response:
    """The page of a program that does not answer yet. It reloads itself."""
    answer = pages.page(503, "Starting", f"{html.escape(state)}. This page reloads every second.")
    answer.headers["Refresh"] = answer.headers["Retry-After"] = str(_STARTING_S)
    return answer


async def _unless_ended(work: Coroutine[Any, Any, T], *ends: Coroutine[Any, Any, object]) -> T:
    """The result of the work. Raises ClientDisconnect: one of `ends` came first."""
    working, ending = asyncio.ensure_future(work), [asyncio.ensure_future(each) for each in ends]
    try:
        await asyncio.wait((working, *ending), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, *ending):
            task.cancel()


async def _wait_for_disconnect(request: Request, is_read: asyncio.Event) -> None:
    """Wait until the client leaves; before `is_read`, the reader of the body would notice that."""
    await is_read.wait()
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def _read_body(request: Request, is_read: asyncio.Event) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        yield chunk
    is_read.set()


def _no_cookies() -> CookieJar:
    """A jar that stays empty: with cookies, it would send those of one program to all others."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


async def _stream_body(answer: httpx2.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()


async def _relay(socket: WebSocket, other: ClientConnection, over: asyncio.Event) -> None:
    """Pass messages on until one end closes, then close the other with the same code; or until the permission ends."""
    from websockets.exceptions import ConnectionClosedError

    async def out() -> None:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                await other.close(_close_code(message.get("code")), message.get("reason") or "")
                return
            text = message.get("text")
            await other.send(text if text is not None else message["bytes"])

    async def back() -> None:
        with suppress(ConnectionClosedError):  # the close code is passed on below
            async for message in other:
                await (socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message))
        ended = other.protocol.close_rcvd or other.protocol.close_sent  # we close after a message that is too long
        await socket.close(_close_code(ended.code if ended else None), ended.reason if ended else "")

    async def end() -> None:
        await over.wait()
        await socket.close(1008, long_responses.OVER)

    tasks = [asyncio.ensure_future(each) for each in (out(), back(), end())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect | RuntimeError):
            log.debug("a websocket ended: %r", result)


def _close_code(code: int | None) -> int:
    """A close code that may be sent: some codes only mean that there was none."""
    return code if code and code not in (1005, 1006, 1015) else 1000
