"""A client of an application in this process."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import unquote

import anyio
import httpx2
from starlette.testclient import TestClient
from starlette.types import Message

HOST = "127.0.0.1"  # a name that the API accepts


class InProcess(TestClient):
    """A client on this machine, which follows no redirects. An exception becomes a 500.

    Starlette's client enters the loop's thread eight times for each response, to return it while it is still sent. Here
    a request enters it once, unless its response is a stream.
    """

    def __init__(self, app: Any) -> None:
        super().__init__(app, f"http://{HOST}", raise_server_exceptions=False, follow_redirects=False)

    def websocket_connect(self, url: str, *arguments: Any, **more: Any) -> Any:
        return super().websocket_connect(f"ws://{HOST}{url}", *arguments, **more)

    def send(
        self,
        request: httpx2.Request,
        *,
        stream: bool = False,
        auth: Any = httpx2.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx2.USE_CLIENT_DEFAULT,
    ) -> httpx2.Response:
        follows = self.follow_redirects if follow_redirects is httpx2.USE_CLIENT_DEFAULT else follow_redirects
        is_plain = request.url.scheme == "http" and auth is httpx2.USE_CLIENT_DEFAULT and not request.url.userinfo
        if self.portal is None or stream or follows or not is_plain:
            return super().send(request, stream=stream, auth=auth, follow_redirects=follow_redirects)
        began = time.monotonic()
        status, headers, body = self.portal.call(self._respond, request, request.read())
        sent = httpx2.ByteStream(b"" if request.method == "HEAD" else body)
        response = httpx2.Response(status, headers=headers, stream=sent, request=request)
        self.cookies.extract_cookies(response)
        response.read()
        response.elapsed = timedelta(seconds=time.monotonic() - began)
        return response

    async def _respond(self, request: httpx2.Request, body: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """The status, the headers and the body of the response."""
        url = request.url
        path, _, query = url.raw_path.partition(b"?")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": request.method,
            "path": unquote(url.path),
            "raw_path": path,
            "root_path": "",
            "scheme": "http",
            "query_string": query,
            "headers": [(key.lower(), value) for key, value in request.headers.raw],
            "client": ("testclient", 50000),
            "server": [url.host, url.port or 80],
            "state": self.app_state.copy(),
        }
        received, completed = [body], anyio.Event()
        status, headers, sent = 500, [], bytearray()

        async def receive() -> Message:
            if received:
                return {"type": "http.request", "body": received.pop()}
            await completed.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message.get("headers", ()))
            elif message["type"] == "http.response.body":
                assert not completed.is_set(), "there was more after the end of the body"
                sent.extend(message.get("body", b""))
                if not message.get("more_body"):
                    completed.set()

        with suppress(Exception):  # its response has been sent by then
            await self.app(scope, receive, send)
        return status, headers, bytes(sent)
