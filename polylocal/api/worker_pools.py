"""Thread pools for long operations (archives, git, unpacking), streams and the status.

A long operation that waits for a slot holds no thread, and one caller can take only a part of the slots.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from starlette.exceptions import HTTPException
from starlette.requests import Request

from polylocal.api.quotas import Holder
from polylocal.system.cancellation import Cancel, Cancelled, cancelled_by

T = TypeVar("T")
Holders = tuple[Holder, ...]  # the user or the address first

MAX_OPERATIONS = 8  # operations at a time
MAX_PER_HOLDER = 4  # for one user or address
MAX_PER_RUN = 2  # for one run's token
RESERVED = 2  # the last slots are for holders of none
MAX_WAITING = 64
MAX_WAITING_PER_HOLDER = 32
STREAM_THREADS = 16  # read files of streamed responses
PROGRAM_THREADS = 128  # wait for output of programs: as many as `Quotas.generated` has slots
STATUS_THREADS = 2
_BUSY = "Too many long operations are under way; try again in a moment."


class FairPool:
    """The slots of long operations, shared between their holders. Belongs to one event loop."""

    def __init__(
        self,
        max_running: int = MAX_OPERATIONS,
        max_per_holder: int = MAX_PER_HOLDER,
        max_waiting: int = MAX_WAITING,
        max_waiting_per_holder: int = MAX_WAITING_PER_HOLDER,
        reserved: int = RESERVED,
    ) -> None:
        self._max_running = max_running
        self._max_per_holder = max_per_holder
        self._max_waiting = max_waiting
        self._max_waiting_per_holder = max_waiting_per_holder
        self._reserved = reserved
        self._in_use = 0
        self._held = Counter[Holder]()
        self._waiting: list[tuple[Holders, asyncio.Future[None]]] = []

    async def run(self, request: Request, holders: Holders, work: Callable[[], T]) -> T:
        """Do the work on a thread when there is a slot. Cancels it when the client leaves.

        Raises HTTPException 503: too many operations wait already; Cancelled: the client has left.
        """
        async with _cancel_on_disconnect(request) as cancel:
            await self._acquire(holders, cancel)
            try:
                return await anyio.to_thread.run_sync(work, limiter=self._limiter)
            finally:
                self._release(holders)

    async def _acquire(self, holders: Holders, cancel: Cancel) -> None:
        if self._has_slot(holders):
            self._hold(holders)
            return
        waiting_of_holder = sum(waiter[0] == holders[0] for waiter, _ in self._waiting)
        if len(self._waiting) >= self._max_waiting or waiting_of_holder >= self._max_waiting_per_holder:
            raise HTTPException(503, _BUSY, {"Retry-After": "5"})
        turn = asyncio.get_running_loop().create_future()
        entry = (holders, turn)
        self._waiting.append(entry)

        def give_up() -> None:
            if not turn.done():
                turn.set_exception(Cancelled("The client has left."))

        try:
            with cancel.hook(give_up):
                await turn
        except BaseException:
            if entry in self._waiting:
                self._waiting.remove(entry)
            elif turn.done() and not turn.cancelled() and turn.exception() is None:  # the slot came in the same moment
                self._release(holders)
            raise

    def _hold(self, holders: Holders) -> None:
        self._in_use += 1
        self._held.update(holders)

    def _release(self, holders: Holders) -> None:
        self._in_use -= 1
        self._held -= Counter(holders)
        self._wake_waiting()

    def _wake_waiting(self) -> None:
        for entry in list(self._waiting):
            holders, turn = entry
            if self._has_slot(holders):
                self._waiting.remove(entry)
                if not turn.done():
                    self._hold(holders)
                    turn.set_result(None)

    def _has_slot(self, holders: Holders) -> bool:
        free = self._max_running - self._in_use
        has_one = any(self._held[holder] for holder in holders)
        return free > (self._reserved if has_one else 0) and all(
            self._held[holder] < (MAX_PER_RUN if holder[0] == "run" else self._max_per_holder) for holder in holders
        )

    @cached_property
    def _limiter(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(self._max_running)


_pools: RunVar[FairPool] = RunVar("pool")
_limiters: RunVar[dict[str, anyio.CapacityLimiter]] = RunVar("limiters")


async def run(request: Request, holders: Holders, work: Callable[[], T]) -> T:
    """Do long work in the pool of this event loop; see `FairPool.run`."""
    try:
        pool = _pools.get()
    except LookupError:
        pool = FairPool()
        _pools.set(pool)
    return await pool.run(request, holders, work)


async def status(work: Callable[[], T]) -> T:
    """Do work on a thread that is reserved for the status endpoints."""
    return await anyio.to_thread.run_sync(work, limiter=_limiter("status", STATUS_THREADS))


async def stream(pieces: Iterator[bytes], *, of_program: bool = False) -> AsyncIterator[bytes]:
    """The pieces of a response, each read on a thread of streams. Closes the iterator at the end.

    `of_program`: a program or another thread makes the pieces. Slow programs don't delay files.
    """
    limiter = _limiter("programs", PROGRAM_THREADS) if of_program else _limiter("files", STREAM_THREADS)
    try:
        while (piece := await anyio.to_thread.run_sync(next, pieces, None, limiter=limiter)) is not None:
            yield piece
    finally:
        if close := getattr(pieces, "close", None):
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(close, limiter=limiter)


def _limiter(name: str, threads: int) -> anyio.CapacityLimiter:
    """The limiter of this name and event loop."""
    try:
        limiters = _limiters.get()
    except LookupError:
        limiters = {}
        _limiters.set(limiters)
    return limiters.setdefault(name, anyio.CapacityLimiter(threads))


@asynccontextmanager
async def _cancel_on_disconnect(request: Request) -> AsyncIterator[Cancel]:
    """Cancel the operations in the block when the client leaves. The body must have been read before."""
    cancel = Cancel()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        cancel()

    watching = asyncio.create_task(watch())
    try:
        with cancelled_by(cancel):
            yield cancel
    finally:
        watching.cancel()
        await asyncio.wait([watching])
