"""Ends open streams whose readers lost their permission.

Triggers of the database count each change of users, tokens, projects and runs, including changes by other processes.
Once a second the watch reads this counter. Only after a change it checks the permissions, equal ones once.
"""

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

POLL_S = 1.0
FULL_CHECK_S = 60.0  # between checks without any change, since sessions expire
_PAUSE_FACTOR = 10  # pause after a check, in durations of that check: it takes at most a tenth of a core
MAX_PAUSE_S = 5.0  # a user can't delay the end of a stream by opening many different ones


@dataclass(eq=False)
class Permission:
    """The permission to read one open stream. Belongs to one event loop."""

    check: Callable[[], object]  # raises NotAuthenticated, NotAllowed or NotFound; runs in a thread
    key: Hashable  # equal for permissions whose checks have the same result
    is_new: bool = True  # not checked since the stream was opened, and may have ended just before
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class PermissionWatch:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._watched: dict[asyncio.AbstractEventLoop, set[Permission]] = {}
        self._tasks: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}

    @contextmanager
    def watch(self, check: Callable[[], object], key: Hashable) -> Iterator[Permission]:
        """Watch a permission until the block ends: its `ended` is set within seconds of its end."""
        permission = Permission(check, key)
        loop = asyncio.get_running_loop()
        watched = self._watched.setdefault(loop, set())
        watched.add(permission)
        if loop not in self._tasks:
            self._tasks[loop] = loop.create_task(self._watch(loop, watched))
        try:
            yield permission
        finally:
            watched.discard(permission)

    async def _watch(self, loop: asyncio.AbstractEventLoop, watched: set[Permission]) -> None:
        """Runs as long as anything is watched."""
        seen, checked_at, rest_s = -1, time.monotonic(), 0.0
        try:
            while True:
                await asyncio.sleep(max(POLL_S, rest_s))
                if not watched:
                    return
                try:
                    version = await run_in_threadpool(self._store.rights_version)
                    is_whole = version != seen or time.monotonic() - checked_at > FULL_CHECK_S
                    began = time.monotonic()
                    due = [each for each in watched if is_whole or each.is_new]
                    ended, problem = await run_in_threadpool(_find_ended, due)
                except PolylocalError as error:
                    ended, problem = [], error
                for permission in ended:
                    permission.ended.set()
                if problem:  # such as a busy database: checked again at the next look
                    log.warning("the permissions of open streams could not be checked: %s", problem)
                    continue
                rest_s = min(MAX_PAUSE_S, _PAUSE_FACTOR * (time.monotonic() - began))
                seen, checked_at = version, began if is_whole else checked_at
        finally:
            del self._tasks[loop], self._watched[loop]


def _find_ended(permissions: list[Permission]) -> tuple[list[Permission], PolylocalError | None]:
    """The permissions that have ended, and the error if some could not be checked."""
    answers: dict[Hashable, bool] = {}
    found: list[Permission] = []
    problem = None
    for each in permissions:
        try:
            if each.key not in answers:
                answers[each.key] = _has_ended(each)
        except PolylocalError as error:
            problem = error
            continue
        if answers[each.key]:
            found.append(each)
        each.is_new = False
    return found, problem


def _has_ended(permission: Permission) -> bool:
    """Raises PolylocalError: it can't be checked now."""
    try:
        permission.check()
    except (NotAuthenticated, NotAllowed, NotFound):
        return True
    except PolylocalError:
        raise
    except Exception:  # a bug must neither leave this stream open nor end the watch of all others
        log.exception("a permission could not be checked: its stream ends")
        return True
    return False
