"""Answers that last: each holds a place of its user's share, and ends when the right to it does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from polylocal.api import access
from polylocal.api.api_context import ApiContext
from polylocal.api.endpoint import Call, MadeAnswer
from polylocal.api.file_responses import FileAnswer
from polylocal.api.middleware import ABORT
from polylocal.api.permission_watch import Right
from polylocal.api.quotas import Holder, holders_of

log = logging.getLogger(__name__)

OVER = "You may not see this any longer."


@contextmanager
def opened(call: Call) -> Iterator[Right]:
    """A stream of an authenticated call, for as long as the block runs. Raises HTTPException 503: no place is left."""
    if call.credentials is None:
        raise RuntimeError(f"{call.endpoint.path} is open to anyone and knows no user")
    check = partial(access.check_again, call)
    with _opened(call.context, holders_of(call.credentials), check, access.key_of(call)) as right:
        yield right


def kept(call: Call, answer: Response) -> Response:
    """An answer; if its body comes piece by piece, it holds a place and is sent while there is a right to it."""
    if call.credentials is None or not isinstance(answer, StreamingResponse):
        return answer
    check = partial(access.check_again, call)
    return Lasting(call.context, answer, holders_of(call.credentials), check, access.key_of(call))


@contextmanager
def _opened(
    context: ApiContext, holders: Sequence[Holder], check: Callable[[], object], key: Hashable
) -> Iterator[Right]:
    with context.shares.streams.place(*holders), context.rights.watching(check, key) as right:
        yield right


async def dropped(answer: Response) -> Response:
    """A refusal in place of an answer that came when there was no right to it any more: what that holds is let go."""
    if isinstance(answer, FileAnswer):
        answer.file.close()
    if answer.background is not None:
        await answer.background()
    return JSONResponse({"detail": OVER}, 403)


class Lasting(Response):
    """Another answer, sent within a place and while there is a right to it."""

    def __init__(
        self,
        context: ApiContext,
        answer: Response,
        holders: Sequence[Holder],
        check: Callable[[], object],
        key: Hashable,
    ) -> None:
        self._context = context
        self._answer = answer
        self._holders = holders
        self._right = (check, key)
        self.status_code = answer.status_code
        self.raw_headers = answer.raw_headers
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with ExitStack() as stack:
            try:
                if isinstance(self._answer, MadeAnswer):
                    stack.enter_context(self._context.shares.made.place(*self._holders))
                right = stack.enter_context(_opened(self._context, self._holders, *self._right))
            except HTTPException as error:
                await dropped(self._answer)
                await JSONResponse({"detail": error.detail}, error.status_code, error.headers)(scope, receive, send)
                return
            await _until_ended(right, self._answer, scope, receive, send)


async def _until_ended(right: Right, answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
    sending = asyncio.ensure_future(answer(scope, receive, send))
    ending = asyncio.ensure_future(right.ended.wait())
    try:
        await asyncio.wait((sending, ending), return_when=asyncio.FIRST_COMPLETED)
        if not sending.done():
            log.info("%s: ended: there is no right to it any more", scope["path"])
            scope.get(ABORT, _nothing)()  # nothing can be said in an answer that has begun
            return
        sending.result()
    finally:
        for task in (sending, ending):
            task.cancel()
        await asyncio.gather(sending, ending, return_exceptions=True)


def _nothing() -> None:
    """A server that has no way to end a connection at once ends it when it can."""
