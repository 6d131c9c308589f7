"""`run --watch`: run, and run again whenever the code or the polyaxonfile differs from what was uploaded last.

Events of the file system only say that it is time to look. What counts is the comparison: names, kinds, the executable
bit, contents. So a mere `touch`, `git add` or the passing files of an editor start nothing.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import typer
from watchfiles import watch as events_of

from polylocal.cli import console
from polylocal.cli.uploading import named
from polylocal.client.http import Client, RunReference
from polylocal.client.ignore import IGNORE_FILES, Ignored
from polylocal.client.packing import Item, survey
from polylocal.errors import InvalidInput, SetupError
from polylocal.statuses import is_done

SETTLE_S = 0.2  # without an event, after which a change counts as whole
MOST_SETTLE_S = 2.0  # then it is looked at in any case
STRIKES = 3  # runs in a row that the same files may start
MOST_SOON = 10  # runs in a row that any files may start
SOON_S = 10.0  # after the begin of a run: a change in it may be the work of that run
REST_S = 2.0  # after a run has ended and was shown to the end; a later change is none of its work
QUIET_S = 5.0  # that a file which changes again and again has to stay as it is
_RESCUES = 2  # runs that such a file starts by staying so
_LOOK_MS = 200  # between two looks of a watcher at whether it is to end
_RACY_NS = 2_000_000_000  # a file as young as this may change again without another time of change


def watch(
    api: Client,
    folder: Path,
    files: Sequence[Path],
    begin: Callable[[], RunReference],
    follow: Callable[[RunReference], object],
) -> None:
    """Begin a run, stop it when something changes and begin the next, until interrupted: then typer.Exit is raised.

    `begin` uploads the folder and makes the run; `files`: the polyaxonfiles, wherever they lie.
    """
    snapshots, restless = Snapshots(folder, files), Restless()
    current = _Current(api, follow, restless)
    with watched(snapshots) as changed:
        try:
            while True:
                before = snapshots.take_or_none()
                try:
                    run = begin()
                except InvalidInput as error:  # saved in the middle of a change: the next one mends it
                    console.complain(f"polylocal: {error}")
                    restless.begun()
                else:
                    restless.begun()
                    current.show(run)
                names = _next_change(changed, snapshots, before, restless)
                current.stop()
                console.say(f"Changed: {', '.join(sorted({Path(name).name for name in names}))}", "bold")
        except KeyboardInterrupt:
            current.stop()
            raise typer.Exit(130) from None


class _Current:
    """The run that goes on, and the thread that shows it."""

    def __init__(self, api: Client, follow: Callable[[RunReference], object], restless: Restless) -> None:
        self._api, self._follow, self._restless = api, follow, restless
        self._run: RunReference | None = None
        self._shown: threading.Thread | None = None

    def show(self, run: RunReference) -> None:
        self._run = run
        self._shown = threading.Thread(target=self._follow_to_its_end, args=(run,), daemon=True)
        self._shown.start()

    def _follow_to_its_end(self, run: RunReference) -> None:
        self._follow(run)
        self._restless.ended()

    def stop(self) -> None:
        run, shown = self._run, self._shown
        self._run = self._shown = None
        if run and not is_done(self._api.run(run)["last_status"]):
            self._api.stop(run)
        if shown:
            shown.join()


def _next_change(changed: Changed, snapshots: Snapshots, before: Snapshot | None, restless: Restless) -> set[str]:
    """The paths that differ from `before`, as soon as they are to start a run."""
    look_at, complaint = None, ""
    while True:
        changed.wait(look_at)
        try:
            names = snapshots.changes(before)
            if names:
                changed.settle()
                names = snapshots.changes(before)
        except InvalidInput as error:  # a folder that can't be read now: the next event is another try
            if str(error) != complaint:
                console.complain(f"polylocal: {error}")
            look_at, complaint = None, str(error)
            continue
        starts, look_at = restless.decide(names, snapshots.version)
        if starts:
            return names


# -- events ----------------------------------------------------------------------------------------------------------


class Changed:
    """Says that it is time to look. Nothing that happens after a look began is lost."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._failure: Exception | None = None

    def set(self) -> None:
        self._event.set()

    def fail(self, error: Exception) -> None:
        self._failure = error
        self._event.set()

    def wait(self, until: float | None = None) -> None:
        """Raises SetupError: the system does not watch the folder."""
        self._event.wait(None if until is None else max(0.0, until - time.monotonic()))
        self._event.clear()
        if self._failure is not None:
            hint = "WATCHFILES_FORCE_POLLING=true looks at the files without the system's help"
            raise SetupError(f"the folder can't be watched: {self._failure}; {hint}") from self._failure

    def settle(self) -> None:
        """Wait until nothing happens any more, for a while at most."""
        until = time.monotonic() + MOST_SETTLE_S
        while time.monotonic() < until and self._event.wait(SETTLE_S):
            self._event.clear()


@contextmanager
def watched(snapshots: Snapshots) -> Iterator[Changed]:
    """Watch a folder with all in it, and polyaxonfiles elsewhere by the folders that they lie in."""
    changed, end = Changed(), threading.Event()
    jobs: list[tuple[list[Path], bool, Callable[[str], bool]]] = [([snapshots.folder], True, snapshots.matters)]
    if elsewhere := [file for file in snapshots.all_files if not file.is_relative_to(snapshots.folder)]:
        jobs.append((sorted({file.parent for file in elsewhere}), False, lambda path: Path(path) in elsewhere))

    def work(paths: list[Path], is_deep: bool, matters: Callable[[str], bool]) -> None:
        try:
            is_first = True
            for events in events_of(
                *paths,
                watch_filter=lambda change, path: matters(path),
                stop_event=end,
                rust_timeout=_LOOK_MS,
                yield_on_timeout=True,
                raise_interrupt=False,
                recursive=is_deep,
            ):
                if events or is_first:  # by the first time all is watched, and what was before is compared
                    changed.set()
                is_first = False
        except (OSError, RuntimeError) as error:
            changed.fail(error)

    threads = [threading.Thread(target=work, args=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield changed
    finally:
        end.set()
        for thread in threads:
            thread.join()


# -- what is compared ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Version:
    """A file as it was looked at. `digest` is of its content; `about` tells cheaply that it can't have changed."""

    kind: str  # with the executable bit of a file, and the target of a link
    about: tuple[int, ...] | None = None
    size: int = 0
    digest: bytes = b""


Snapshot = Mapping[str, Version]
_GONE = Version("gone")


class Snapshots:
    """The code of a folder, and polyaxonfiles wherever they lie, as they are now."""

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        self.folder, self._files = folder, files
        self._last: dict[str, Version] = {}
        self._ignored: Ignored | None = None

    @property
    def all_files(self) -> list[Path]:
        """The polyaxonfiles, and what they are links to."""
        return list(dict.fromkeys([*self._files, *(file.resolve() for file in self._files)]))

    def take(self) -> Snapshot:
        """Raises InvalidInput for what can't be read."""
        self._ignored = Ignored(self.folder)
        found = {path: self._of_item(item) for path, item in survey(self.folder).items.items()}
        for file in self._files:
            name = self._name(file)
            if name not in found:
                with suppress(OSError):
                    found[name] = self._of_file(name, file, file.stat(), "file")
        self._last = found
        return found

    def take_or_none(self) -> Snapshot | None:
        """None: it can't be read, as packing will say."""
        try:
            return self.take()
        except InvalidInput:
            return None

    def changes(self, before: Snapshot | None) -> set[str]:
        """The paths at which something else is now. Raises InvalidInput."""
        now = self.take()
        before = before or {}
        return {path for path in {*before, *now} if not _is_same(before.get(path, _GONE), now.get(path, _GONE))}

    def version(self, path: str) -> Version:
        """As of the last look."""
        return self._last.get(path, _GONE)

    def _name(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix() if file.is_relative_to(self.folder) else str(file)

    def _of_item(self, item: Item) -> Version:
        if item.target is not None:
            return Version(f"link to {item.target}")
        if item.is_folder:
            return Version("folder")
        kind = "program" if item.stat.st_mode & 0o100 else "file"
        return self._of_file(item.path, self.folder / item.path, item.stat, kind)

    def _of_file(self, name: str, path: Path, about: os.stat_result, kind: str) -> Version:
        key: tuple[int, ...] | None = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
        last = self._last.get(name)
        if last is not None and last.about == key:
            return Version(kind, key, last.size, last.digest)
        digest = _digest(path)
        if time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns) < _RACY_NS:
            key = None  # looked at again the next time
        return Version(kind, key, about.st_size, digest)

    def matters(self, changed: str) -> bool:
        """Whether an event at a path is worth a look."""
        path = Path(changed)
        if path in self._files or path.name in IGNORE_FILES or not path.is_relative_to(self.folder):
            return True
        if self._ignored is None:
            return True
        parts = path.relative_to(self.folder).parts
        inside = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
        try:
            return not self._ignored("/".join(parts), False) and not any(map(self._ignored.excludes_tree, inside))
        except InvalidInput:  # an ignore file that can't be read: the look says so
            return True


def _is_same(one: Version, other: Version) -> bool:
    return (one.kind, one.size, one.digest) == (other.kind, other.size, other.digest)


def _digest(path: Path) -> bytes:
    """Empty for a file that is gone or can't be read: packing says so."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, hashlib.blake2b).digest()
    except OSError:
        return b""


# -- files that change by themselves ---------------------------------------------------------------------------------


@dataclass
class Restless:
    """Files that a program writes while a run goes on: each run would make it write, which would start the next one.

    A file that has changed before each of STRIKES runs, soon after the begin of the run before and not long after its
    end, starts another one only when it has stayed as it is for QUIET_S, and that a few times at most: until a change
    in it comes late again.
    """

    soon_s: float = SOON_S
    quiet_s: float = QUIET_S
    rest_s: float = REST_S
    _began: float = 0.0
    _ended: float | None = None
    _strikes: dict[str, int] = field(default_factory=dict)  # path → runs in a row that it took part in starting
    _soon: int = 0  # runs in a row that were started soon
    _rescues: dict[str, int] = field(default_factory=dict)  # restless path → runs that it may start by staying quiet
    _touched: set[str] = field(default_factory=set)  # restless ones that have changed since the run began
    _told: set[str] = field(default_factory=set)
    _held: dict[str, Version] = field(default_factory=dict)
    _held_since: float = 0.0

    def begun(self) -> None:
        """A run has begun."""
        self._began, self._ended = time.monotonic(), None
        self._touched.clear()
        self._held.clear()

    def ended(self) -> None:
        """It has ended, and nothing more is printed of it."""
        self._ended = time.monotonic()

    def _is_soon(self, now: float) -> bool:
        """Whether a change may be the work of the run."""
        ended = self._ended
        return now - self._began <= self.soon_s and (ended is None or now - ended <= self.rest_s)

    def decide(
        self, names: Collection[str], version: Callable[[str], Version], now: float | None = None
    ) -> tuple[bool, float | None]:
        """Whether a change starts a run; if not, when to look again. None: at the next event."""
        if not names:
            return False, None
        now = time.monotonic() if now is None else now
        is_soon = self._is_soon(now)
        for path in set(names) & set(self._rescues) - self._touched:
            if not is_soon:  # nothing that the run does when it begins
                del self._rescues[path]
        self._touched |= set(names) & set(self._rescues)
        fresh = [path for path in names if path not in self._rescues]
        if fresh:
            self._strikes = {path: self._strikes.get(path, 0) + 1 for path in fresh} if is_soon else {}
            is_flood = self._soon >= MOST_SOON and bool(self._held)  # nothing began, since too much changed
            self._soon = self._soon + 1 if is_soon or is_flood else 0
            if self._soon <= MOST_SOON and min(self._strikes.values(), default=0) <= STRIKES:
                return True, None
            self._rescues |= dict.fromkeys(fresh, _RESCUES)
            self._touched.update(fresh)
            self._tell(sorted(fresh))
        return self._when_quiet(names, version, now)

    def _when_quiet(
        self, names: Collection[str], version: Callable[[str], Version], now: float
    ) -> tuple[bool, float | None]:
        held = {path: version(path) for path in names}
        if held != self._held:
            self._held, self._held_since = held, now
        if not all(self._rescues[path] for path in names):
            return False, None
        if now - self._held_since < self.quiet_s:
            return False, self._held_since + self.quiet_s
        for path in names:
            self._rescues[path] -= 1
        return True, None

    def _tell(self, paths: Sequence[str]) -> None:
        if new := [path for path in paths if path not in self._told]:
            self._told.update(new)
            words = f"{named(new)} keeps changing while runs go on, and starts no more of them for now"
            console.say(f"{words}; if a run writes it, name it in .polyaxonignore", "yellow")
