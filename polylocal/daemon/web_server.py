"""The web server: listening sockets, and uvicorn with limits on the head of a request and on connections."""

import asyncio
import resource
import socket
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from polylocal.api.middleware import ABORT
from polylocal.engine.host import Host
from polylocal.system import addresses

HEAD_S = 15.0  # for the head of a request
MAX_HEAD = 64 * 1024  # bytes of the head
MAX_CONNECTIONS = 8192
_KEEP_ALIVE_S = 75  # an idle connection is closed
_MAX_MESSAGE = 16 * 2**20  # bytes of one websocket message, such as a cell of a notebook
_FILES = 65_536  # open files and connections


def server(app: ASGIApp, *, has_lifespan: bool = True) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        http=LimitedHttp,
        ws=cast(Any, _websocket_protocol),  # uvicorn only calls it
        log_config=None,
        access_log=False,
        lifespan="on" if has_lifespan else "off",
        timeout_graceful_shutdown=1,  # followers of logs stay connected
        timeout_keep_alive=_KEEP_ALIVE_S,
        server_header=False,
        proxy_headers=False,  # no client may claim another address
        ws_max_size=_MAX_MESSAGE,
        ws_ping_interval=20.0,  # detects clients that left without closing
        ws_ping_timeout=20.0,
    )
    return uvicorn.Server(config)


def _websocket_protocol(**arguments: Any) -> asyncio.Protocol:
    """uvicorn's protocol, imported at the first websocket: most daemons have none for hours."""
    from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

    assert AutoWebSocketsProtocol is not None  # `websockets` is a dependency
    return AutoWebSocketsProtocol(**arguments)


class LimitedHttp(HttpToolsProtocol):
    """uvicorn's protocol with limits on the head of a request, `HEAD_S` and `MAX_HEAD`, which uvicorn lacks."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._deadline: asyncio.TimerHandle | None = None
        self._head = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:  # runs need descriptors, too
            transport.abort()
            return
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        super().data_received(data)
        if self._deadline is None and self._is_between_requests():
            self._start_timer()  # an empty line before a head ends uvicorn's own timeout
        if self._deadline is not None and self._head > MAX_HEAD:
            self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)[ABORT] = self.transport.abort
        if self._deadline is None:
            self._start_timer()

    def on_headers_complete(self) -> None:
        self._stop_timer()
        super().on_headers_complete()

    def _is_between_requests(self) -> bool:
        if self.transport is None or self.transport.is_closing() or self.transport.get_protocol() is not self:
            return False  # closed, or a websocket
        return self.cycle is None or bool(self.cycle.response_complete)

    def _start_timer(self) -> None:
        self._head = 0
        self._deadline = self.loop.call_later(HEAD_S, self._close_if_open)

    def _stop_timer(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close_if_open(self) -> None:
        self._deadline = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


def reaches(engine: Host, network: str) -> bool:
    """Whether this machine has an address on a network of the engine, and so reaches the containers there.

    It has none if the engine runs in a virtual machine or in a separate network namespace. Raises EngineError,
    EngineUnreachable.
    """
    gateway = engine.gateway(network) if network not in ("host", "none") else None
    address = addresses.parse(gateway) if gateway else None
    return address is not None and addresses.is_own(address)


def allow_many_files() -> None:
    """Raise the limit of open files, since each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
