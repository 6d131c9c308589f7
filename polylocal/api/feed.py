"""The feed of changes: wakes followers when a log grows or a run changes.

Every message is only a hint: followers read the state themselves, without a hint once a second.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from watchfiles import awatch

from polylocal.statuses import Kind
from polylocal.store.rows import Run

POLL_S = 1.0  # between two reads of the state without a hint
_ALL = None  # the key of followers of all runs

Key = str | int | None  # the path of a log, the pk of a run, or all runs


@dataclass(eq=False)
class Wakeup:
    """Wakes one follower. `runs` are the pks of the runs that changed since the follower last cleared them."""

    event: asyncio.Event = field(default_factory=asyncio.Event)
    runs: set[int] = field(default_factory=set)

    async def wait(self) -> bool:
        """Wait for a hint. False: none came within `POLL_S`."""
        try:
            await asyncio.wait_for(self.event.wait(), POLL_S)
        except TimeoutError:
            return False
        self.event.clear()
        return True


class Feed:
    """Takes reports from any thread and wakes followers on any event loop."""

    def __init__(self) -> None:
        self._wakeups: dict[asyncio.AbstractEventLoop, dict[Key, set[Wakeup]]] = {}

    def run_changed(self, pk: int) -> None:
        """From any thread."""
        for key in (pk, _ALL):
            self._report(key, pk)

    def log_grew(self, path: Path) -> None:
        """From any thread."""
        self._report(str(path))

    async def watch(self, folder: Path, stop: asyncio.Event) -> None:
        """Report the growth of logs that others write, until `stop` is set."""
        for kind in Kind:  # changes in a folder that is made later are noticed with a delay
            (folder / kind.plural).mkdir(parents=True, exist_ok=True)
        async for changed in awatch(folder, debounce=40, step=20, stop_event=stop, recursive=True):
            for _, path in changed:
                self._report(path)

    def follow(self, path: Path, run: Run) -> AbstractContextManager[Wakeup]:
        """Follow one run and its log until the block ends."""
        return self._follow(str(path), run.pk)

    def follow_all(self) -> AbstractContextManager[Wakeup]:
        """Follow all runs until the block ends."""
        return self._follow(_ALL)

    @contextmanager
    def _follow(self, *keys: Key) -> Iterator[Wakeup]:
        loop, wakeup = asyncio.get_running_loop(), Wakeup()
        wakeups = self._wakeups.setdefault(loop, {})
        for key in keys:
            wakeups.setdefault(key, set()).add(wakeup)
        try:
            yield wakeup
        finally:
            for key in keys:
                wakeups[key].discard(wakeup)
                if not wakeups[key]:
                    del wakeups[key]
            if not wakeups:
                self._wakeups.pop(loop, None)

    def _report(self, key: Key, *runs: int) -> None:
        for loop, wakeups in list(self._wakeups.items()):
            if key in wakeups and not loop.is_closed():
                loop.call_soon_threadsafe(_wake, wakeups, key, runs)


def _wake(wakeups: dict[Key, set[Wakeup]], key: Key, runs: Iterable[int]) -> None:
    for wakeup in wakeups.get(key, ()):
        wakeup.runs.update(runs)
        wakeup.event.set()
