"""A small server of the tests: the program behind the page of a notebook or tensorboard."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from support import eventually

# browsers read each of these, except for the last three, as one of our cookies
POSING = [
    *(b"polylocal_session=x", b"polylocal_session =x", b"=polylocal_session=x", b"user=x; Path=/", b"user\t=x"),
    *(b"users=1", b"_xsrf=user=x", b"mine=1; Path=/; x=polylocal_session=x"),
]


@dataclass
class Program:
    """An ASGI application that records and returns its requests, on a separate port."""

    port: int = 0
    go_on: threading.Event = field(default_factory=threading.Event)
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]]
        raw = scope["raw_path"].decode()
        told = {"path": raw, "query": scope["query_string"].decode(), "headers": headers}
        self.asked.append(told)
        await (self._answer if scope["type"] == "http" else self._talk)(scope, told, receive, send)

    async def _answer(self, scope: Any, told: dict[str, Any], receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        told |= {"method": scope["method"], "body": body}
        word = told["path"].rstrip("/").rpartition("/")[2]
        answers: dict[str, tuple[int, list[tuple[bytes, bytes]], bytes]] = {
            "moved": (302, [(b"location", b"/elsewhere?a=b")], b""),
            "cookies": (200, [(b"set-cookie", b"_xsrf=2|a; Path=/"), (b"set-cookie", b"other=1")], b""),
            "posing": (200, [(b"set-cookie", cookie) for cookie in POSING], b""),
            "teapot": (418, [(b"x-own", b"1")], b"short and stout"),
            "none": (204, [], b""),
            "packed": (200, [(b"content-encoding", b"gzip"), (b"content-type", b"x/y")], b"\x1f\x8bas it is"),
        }
        shown = {**told, "body": body.decode("latin-1")}
        status, more_headers, content = answers.get(word, (200, [], json.dumps(shown).encode()))
        if word != "none":
            more_headers = [*more_headers, (b"content-length", str(len(content)).encode())] if word != "stream" else []
        await send({"type": "http.response.start", "status": status, "headers": more_headers})
        if word == "stream":
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            while not self.go_on.is_set():
                await asyncio.sleep(0.01)
            content = b"two"
        await send({"type": "http.response.body", "body": content})

    async def _talk(self, scope: Any, told: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        wanted = scope["subprotocols"]
        if told["path"].endswith("refused"):
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "websocket.accept", "subprotocol": wanted[-1] if wanted else None})
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("text", "") and message["text"].startswith("close "):
                await send({"type": "websocket.close", "code": int(message["text"].split()[1]), "reason": "bye"})
                return
            await send({**message, "type": "websocket.send"})
        told["closed"] = message["code"]


@contextmanager
def running(program: Program, address: str = "127.0.0.1") -> Iterator[Program]:
    listener = socket.socket()
    listener.bind((address, 0))
    listener.listen(64)
    config = uvicorn.Config(program, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    eventually(lambda: server.started)
    program.port = listener.getsockname()[1]
    try:
        yield program
    finally:
        program.go_on.set()
        server.should_exit = True
        thread.join()
        listener.close()
