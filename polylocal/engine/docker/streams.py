"""The output of a container over HTTP: a live connection, and the stored log."""

import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any

import requests
from docker.types import CancellableStream

from polylocal.engine.containers import Frame
from polylocal.engine.docker.connection import CUT
from polylocal.engine.docker.frames import Demultiplexer, join_frames, with_time
from polylocal.errors import EngineUnreachable

_RECEIVE = 1 << 18


class Attached(AbstractContextManager["Attached"]):
    """The hijacked connection of an attach."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw  # holds the file object of the response, which keeps the connection open
        self._socket: socket.socket = getattr(raw, "_sock", raw)

    def __iter__(self) -> Iterator[Frame]:
        frames = Demultiplexer()
        while data := self._receive():
            yield from join_frames(frames.feed(data))

    def read(self, within_s: float) -> bytes:
        """The whole of a short output, or the part that came within this time."""
        until, output = time.monotonic() + within_s, b""
        frames = iter(self)
        while (left_s := until - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            frame = next(frames, None)
            if frame is None:
                break
            output += frame.data
        return output

    def close(self) -> None:
        with suppress(OSError):  # it is not connected any more
            self._socket.shutdown(socket.SHUT_RDWR)

    def __exit__(self, *exc: object) -> None:
        self.close()
        self._raw.close()
        self._socket.close()

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE)
        except OSError:
            return b""


class Stored(AbstractContextManager["Stored"]):
    """The engine's own log of a container, with its times."""

    def __init__(self, response: requests.Response) -> None:
        self._response = response
        self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        frames = Demultiplexer()
        try:
            is_plain = "content-length" in self._response.headers
            for data in self._response.iter_content(_RECEIVE if is_plain else None):
                for frame in frames.feed(data):
                    yield with_time(frame)
        except (*CUT, AttributeError) as error:
            # AttributeError: `close()` took the response away while urllib3 read from it
            if not self._closed:
                raise EngineUnreachable(f"the engine's log was cut: {error}") from error

    def close(self) -> None:
        self._closed = True
        CancellableStream(iter(()), self._response).close()

    def __exit__(self, *exc: object) -> None:
        self._response.close()
