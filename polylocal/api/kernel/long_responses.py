"""Streamed responses: each holds a slot of its user's quota, and ends when its reader loses the permission."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from polylocal.api.file_responses import GeneratedResponse, OpenFileResponse
from polylocal.api.kernel.call import BaseCall
from polylocal.api.middleware import abort
from polylocal.api.permission_watch import Permission

log = logging.getLogger(__name__)

OVER = "You no longer have access to this."


@contextmanager
def stream_slot(call: BaseCall[Any]) -> Iterator[Permission]:
    """A slot for a stream and a watch on its permission, until the block ends.

    Raises HTTPException 503: the quota is used up.
    """
    slot = call.context.quotas.streams.slot(*call.holders)
    watch = call.context.permission_watch.watch(call.check_again, call.permission_key)
    with slot, watch as permission:
        yield permission


def while_permitted(call: BaseCall[Any], response: Response) -> Response:
    """The response; a streamed one holds a slot, and is sent only while its reader is permitted to read it."""
    return _PermittedResponse(call, response) if isinstance(response, StreamingResponse) else response


async def revoked_response(response: Response) -> Response:
    """A 403 instead of a response whose reader has lost the permission. Releases what the response holds."""
    if isinstance(response, OpenFileResponse):
        response.file.close()
    if response.background is not None:
        await response.background()
    return JSONResponse({"detail": OVER}, 403)


async def wait_for_disconnect(socket: WebSocket) -> None:
    """Wait until the client of a websocket leaves, ignoring its messages."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        continue


class _PermittedResponse(Response):
    def __init__(self, call: BaseCall[Any], response: StreamingResponse) -> None:
        self._call = call
        self._response = response
        self.status_code = response.status_code
        self.raw_headers = response.raw_headers
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = self._call
        with ExitStack() as stack:
            try:
                if isinstance(self._response, GeneratedResponse):
                    stack.enter_context(call.context.quotas.generated.slot(*call.holders))
                permission = stack.enter_context(stream_slot(call))
            except HTTPException as error:
                await revoked_response(self._response)
                await JSONResponse({"detail": error.detail}, error.status_code, error.headers)(scope, receive, send)
                return
            await _send_while_permitted(permission, self._response, scope, receive, send)


async def _send_while_permitted(
    permission: Permission, response: Response, scope: Scope, receive: Receive, send: Send
) -> None:
    sending = asyncio.ensure_future(response(scope, receive, send))
    ending = asyncio.ensure_future(permission.ended.wait())
    try:
        await asyncio.wait((sending, ending), return_when=asyncio.FIRST_COMPLETED)
        if not sending.done():
            log.info("%s: ended, since its reader lost the permission", scope["path"])
            abort(scope)  # a response that has begun can't become an error
            return
        sending.result()
    finally:
        for task in (sending, ending):
            task.cancel()
        await asyncio.gather(sending, ending, return_exceptions=True)
