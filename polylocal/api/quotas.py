"""Concurrency limits per user, per run's token and per address.

The last slots of each limit are reserved for callers that hold few, so that no caller can take all of them.
"""

import asyncio
import hashlib
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from ipaddress import ip_address

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from polylocal.api.login_throttle import MAX_AT_ONCE
from polylocal.store.users import Credentials

RETRY_S = 2
THREADS = 16  # for the requests of one holder
_REMEMBERED = 10_000  # tokens

Holder = tuple[str, int | str]  # ("user", id), ("run", pk), ("address", text), ("name", text)
_HOLDERS = {"user": "this user", "run": "this run's token", "address": "this address", "name": "this name"}


def holders_of(credentials: Credentials) -> tuple[Holder, ...]:
    """All tokens of a user count together. A run's token counts for the run and for the user who started it."""
    user: Holder = ("user", credentials.user.id)
    return (user,) if credentials.run_pk is None else (user, ("run", credentials.run_pk))


def client_address(request: HTTPConnection) -> str:
    """The address of a request. All loopback addresses count as one, since a local client can use any of them."""
    address = request.client.host if request.client else ""
    try:
        return "here" if ip_address(address).is_loopback else address
    except ValueError:
        return address


def credential_of(request: HTTPConnection) -> str:
    """A digest of the credentials of a request: header, cookies and token in the query. Empty if there are none."""
    query = request.query_params
    shown = (
        *(request.headers.get(name, "") for name in ("authorization", "cookie")),
        *(query.get(name, "") for name in ("token", "authentication_token")),
    )
    if not any(shown):
        return ""
    return hashlib.sha256("\0".join(shown).encode("utf-8", "surrogatepass")).hexdigest()


class Quota:
    """One limit. Thread-safe, since containers have a separate event loop."""

    def __init__(self, noun: str, slots: int, *, reserved: int, reserved_below: int, **shares: int) -> None:
        """`noun`: in messages. `shares`: the slots that one holder of each kind may have, as `user=`, `run=`.

        The last `reserved` slots are only for callers that hold fewer than `reserved_below`.
        """
        self._noun = noun
        self._slots = slots
        self._reserved = reserved
        self._reserved_below = reserved_below
        self._shares = shares
        self._held: Counter[Holder] = Counter()
        self._in_use = 0
        self._lock = threading.Lock()

    @property
    def in_use(self) -> int:
        return self._in_use

    def held(self, holder: Holder) -> int:
        return self._held[holder]

    @contextmanager
    def slot(self, *holders: Holder) -> Iterator[None]:
        """Hold a slot until the block ends. Raises HTTPException 503: none is left for these holders."""
        with self._lock:
            if problem := self._problem(holders):
                raise HTTPException(503, problem, {"Retry-After": str(RETRY_S)})
            self._in_use += 1
            self._held.update(holders)
        try:
            yield
        finally:
            with self._lock:
                self._in_use -= 1
                self._held -= Counter(holders)

    def _problem(self, holders: Sequence[Holder]) -> str | None:
        for holder in holders:
            if self._held[holder] >= (share := self._shares[holder[0]]):
                whose = _HOLDERS[holder[0]]
                return f"All {share} {self._noun} that {whose} may have at a time are in use; try again soon."
        free = self._slots - self._in_use
        has_many = any(self._held[holder] >= self._reserved_below for holder in holders)
        if free <= (self._reserved if has_many else 0):
            reserved = "; the last ones are kept for others" if free else ""
            return f"All {self._slots} {self._noun} of this daemon are in use{reserved}; try again soon."
        return None


class RequestQueue:
    """Limits the requests at work: a holder's requests beyond `threads` wait, and those beyond its share are refused.

    The holder is looked up before the request is authenticated, by the credentials of earlier requests. This decides
    which requests wait, never which are admitted.
    """

    def __init__(self, quota: Quota, threads: int = THREADS) -> None:
        self._quota = quota
        self._threads = threads
        self._known: dict[str, tuple[Holder, ...]] = {}
        self._queues: dict[tuple[int, Holder], asyncio.Semaphore] = {}

    def remember(self, credential: str, holders: tuple[Holder, ...]) -> None:
        """Note the holders of a valid credential. Does nothing for a request without credentials."""
        if credential and credential not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[credential] = holders

    def admit(self, request: HTTPConnection) -> AbstractAsyncContextManager[None]:
        """A thread for a request or for the handshake of a websocket. Raises HTTPException 503."""
        return self.admit_as(credential_of(request), client_address(request))

    @asynccontextmanager
    async def admit_as(self, credential: str, address: str) -> AsyncIterator[None]:
        """Raises HTTPException 503."""
        holders = self._known.get(credential) or (("address", address),)
        with self._quota.slot(*holders):
            key = (id(asyncio.get_running_loop()), holders[0])
            queue = self._queues.setdefault(key, asyncio.Semaphore(self._threads))
            try:
                async with queue:
                    yield
            finally:
                if self._quota.held(holders[0]) <= 1:  # the last one
                    self._queues.pop(key, None)


class Quotas:
    """All limits of this daemon."""

    def __init__(self) -> None:
        # fewer than connections, so that short requests always find one
        self.streams = Quota("open streams", 1900, reserved=190, reserved_below=10, user=1000, run=50, address=100)
        # each may be 16 MiB in memory
        self.bodies = Quota("uploads", 512, reserved=64, reserved_below=4, user=256, run=32, address=128)
        # each takes a process or a thread until it is sent
        self.generated = Quota("archives and clones", 128, reserved=16, reserved_below=4, user=64, run=16, address=16)
        self.logins = Quota("log-ins", MAX_AT_ONCE, reserved=2, reserved_below=1, name=4)
        requests = Quota("requests", 240, reserved=40, reserved_below=4, user=160, run=64, address=64)
        self.requests = RequestQueue(requests)
