"""Rights of open streams: asked again when users, tokens, projects or runs changed, and a stream without one ends.

The database counts such changes by triggers, so those of other processes count as well. One look a second at that
counter serves all streams; only after a change are the rights themselves asked for, those that are alike once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool

from polylocal.errors import NotAllowed, NotAuthenticated, NotFound, PolylocalError
from polylocal.store import Store

log = logging.getLogger(__name__)

LOOK_S = 1.0
WHOLE_LOOK_S = 60.0  # without any change: sessions end by their age
_LEAST_REST = 10  # times what the last look at all rights took: many streams cost a tenth of a core
MOST_REST_S = 5.0  # whatever they cost: who opens many different streams must not keep reading by that


@dataclass(eq=False)
class Right:
    """Of one open stream. Belongs to one event loop."""

    check: Callable[[], object]  # raises NotAuthenticated, NotAllowed or NotFound; runs in a thread
    key: Hashable  # the same for rights that are alike
    is_new: bool = True  # not asked for since the stream was opened: it may have ended just before
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Rights:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._watched: dict[asyncio.AbstractEventLoop, set[Right]] = {}
        self._tasks: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}

    @contextmanager
    def watching(self, check: Callable[[], object], key: Hashable) -> Iterator[Right]:
        """A right that was found a moment ago: its `ended` is set within seconds of its end."""
        right = Right(check, key)
        loop = asyncio.get_running_loop()
        rights = self._watched.setdefault(loop, set())
        rights.add(right)
        if loop not in self._tasks:
            self._tasks[loop] = loop.create_task(self._look_while_there_are(loop, rights))
        try:
            yield right
        finally:
            rights.discard(right)

    async def _look_while_there_are(self, loop: asyncio.AbstractEventLoop, rights: set[Right]) -> None:
        seen, asked_at, rest_s = -1, time.monotonic(), 0.0
        try:
            while True:
                await asyncio.sleep(max(LOOK_S, rest_s))
                if not rights:
                    return
                try:
                    version = await run_in_threadpool(self._store.rights_version)
                    is_whole = version != seen or time.monotonic() - asked_at > WHOLE_LOOK_S
                    began = time.monotonic()
                    asked = [each for each in rights if is_whole or each.is_new]
                    ended, problem = await run_in_threadpool(_ended, asked)
                except PolylocalError as error:
                    ended, problem = [], error
                for right in ended:
                    right.ended.set()
                if problem:  # a database that is busy now: asked again at the next look
                    log.warning("the rights of open streams could not be asked for: %s", problem)
                    continue
                rest_s = min(MOST_REST_S, _LEAST_REST * (time.monotonic() - began))
                seen, asked_at = version, began if is_whole else asked_at
        finally:
            del self._tasks[loop], self._watched[loop]


def _ended(rights: list[Right]) -> tuple[list[Right], PolylocalError | None]:
    """Those that have ended; and why others could not be asked for, if so."""
    answers: dict[Hashable, bool] = {}
    found: list[Right] = []
    problem = None
    for right in rights:
        try:
            if right.key not in answers:
                answers[right.key] = _has_ended(right)
        except PolylocalError as error:
            problem = error
            continue
        if answers[right.key]:
            found.append(right)
        right.is_new = False
    return found, problem


def _has_ended(right: Right) -> bool:
    """Raises PolylocalError: nobody can say now."""
    try:
        right.check()
    except (NotAuthenticated, NotAllowed, NotFound):
        return True
    except PolylocalError:
        raise
    except Exception:  # a bug of ours must not leave this stream open, nor all others unwatched
        log.exception("a right could not be asked for: its stream ends")
        return True
    return False
