"""`run --watch`: starts a new run when the code or a polyaxonfile differs from the last upload.

File system events only trigger a comparison of names, kinds, executable bits and contents. A `touch`, a `git add` or an
editor's temporary files therefore start no run.
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
from polylocal.cli.uploading import list_names
from polylocal.client.http import Client, RunReference
from polylocal.client.ignore import IGNORE_FILES, Ignored
from polylocal.client.packing import Item, survey
from polylocal.errors import InvalidInput, SetupError
from polylocal.statuses import is_done

DEBOUNCE_S = 0.2  # without an event, after which a change is complete
MAX_DEBOUNCE_S = 2.0  # after which files are compared even if events continue
STRIKES = 3  # consecutive runs that the same file may start
MAX_SOON_RUNS = 10  # consecutive runs that any files may start within AFTER_START_S
AFTER_START_S = 10.0  # after the start of a run, in which a change may come from the run itself
AFTER_END_S = 2.0  # after the end of a run, in which a change may still come from it
QUIET_S = 5.0  # without a change, after which a restless file may start a run
_RESCUES = 2  # runs that a restless file may start in this way
_POLL_MS = 200  # interval at which a watcher checks whether it has to end
_RACY_NS = 2_000_000_000  # a file changed this recently may change again with the same time stamp


def watch(
    api: Client,
    folder: Path,
    files: Sequence[Path],
    begin: Callable[[], RunReference],
    follow: Callable[[RunReference], object],
) -> None:
    """Start a run; on each change, stop it and start the next. Raises typer.Exit when interrupted.

    `begin` uploads the folder and creates the run. `files` are the polyaxonfiles, inside or outside the folder.
    """
    snapshots, restless = Snapshots(folder, files), LoopGuard()
    current = _CurrentRun(api, follow, restless)
    with watch_folders(snapshots) as changed:
        try:
            while True:
                before = snapshots.take_or_none()
                try:
                    run = begin()
                except InvalidInput as error:  # a half-finished edit; the next change starts another try
                    console.complain(f"polylocal: {error}")
                    restless.run_started()
                else:
                    restless.run_started()
                    current.show(run)
                names = _next_change(changed, snapshots, before, restless)
                current.stop()
                console.say(f"Changed: {', '.join(sorted({Path(name).name for name in names}))}", "bold")
        except KeyboardInterrupt:
            current.stop()
            raise typer.Exit(130) from None


class _CurrentRun:
    """The current run and the thread that follows it."""

    def __init__(self, api: Client, follow: Callable[[RunReference], object], restless: LoopGuard) -> None:
        self._api, self._follow, self._restless = api, follow, restless
        self._run: RunReference | None = None
        self._shown: threading.Thread | None = None

    def show(self, run: RunReference) -> None:
        self._run = run
        self._shown = threading.Thread(target=self._follow_to_its_end, args=(run,), daemon=True)
        self._shown.start()

    def _follow_to_its_end(self, run: RunReference) -> None:
        self._follow(run)
        self._restless.run_ended()

    def stop(self) -> None:
        run, shown = self._run, self._shown
        self._run = self._shown = None
        if run and not is_done(self._api.run(run)["last_status"]):
            self._api.stop(run)
        if shown:
            shown.join()


def _next_change(changed: ChangeSignal, snapshots: Snapshots, before: Snapshot | None, restless: LoopGuard) -> set[str]:
    """Wait for a change that starts a run. Returns the paths that differ from `before`."""
    look_at, complaint = None, ""
    while True:
        changed.wait(look_at)
        try:
            names = snapshots.changes(before)
            if names:
                changed.debounce()
                names = snapshots.changes(before)
        except InvalidInput as error:  # the folder can't be read now; the next event starts another try
            if str(error) != complaint:
                console.complain(f"polylocal: {error}")
            look_at, complaint = None, str(error)
            continue
        starts, look_at = restless.decide(names, snapshots.version)
        if starts:
            return names


# -- events -----------------------------------------------------------------------------------------------------------


class ChangeSignal:
    """Signals that files may have changed. Events during a comparison trigger another one."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._failure: Exception | None = None

    def set(self) -> None:
        self._event.set()

    def fail(self, error: Exception) -> None:
        self._failure = error
        self._event.set()

    def wait(self, until: float | None = None) -> None:
        """Wait for an event, at most until the monotonic time `until`. Raises SetupError if watching failed."""
        self._event.wait(None if until is None else max(0.0, until - time.monotonic()))
        self._event.clear()
        if self._failure is not None:
            hint = "set WATCHFILES_FORCE_POLLING=true to poll the files instead"
            raise SetupError(f"can't watch the folder: {self._failure}; {hint}") from self._failure

    def debounce(self) -> None:
        """Wait until no event has come for DEBOUNCE_S, at most MAX_DEBOUNCE_S."""
        until = time.monotonic() + MAX_DEBOUNCE_S
        while time.monotonic() < until and self._event.wait(DEBOUNCE_S):
            self._event.clear()


@contextmanager
def watch_folders(snapshots: Snapshots) -> Iterator[ChangeSignal]:
    """Watch a folder recursively, and the parent folders of polyaxonfiles outside of it."""
    changed, end = ChangeSignal(), threading.Event()
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
                rust_timeout=_POLL_MS,
                yield_on_timeout=True,
                raise_interrupt=False,
                recursive=is_deep,
            ):
                if events or is_first:  # the first time, watching has just begun: compare earlier changes
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


# -- comparison -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Version:
    """The state of a file. If `about` (device, inode, size, times) is equal, `digest` need not be computed again."""

    kind: str  # includes the executable bit of a file and the target of a link
    about: tuple[int, ...] | None = None
    size: int = 0
    digest: bytes = b""


Snapshot = Mapping[str, Version]
_GONE = Version("gone")


class Snapshots:
    """Takes snapshots of a folder's code and of polyaxonfiles inside or outside of it."""

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        self.folder, self._files = folder, files
        self._last: dict[str, Version] = {}
        self._ignored: Ignored | None = None

    @property
    def all_files(self) -> list[Path]:
        """The polyaxonfiles and the targets of those that are links."""
        return list(dict.fromkeys([*self._files, *(file.resolve() for file in self._files)]))

    def take(self) -> Snapshot:
        """Read the current state. Raises InvalidInput if a file can't be read."""
        self._ignored = Ignored(self.folder)
        found = {path: self._version_of_item(item) for path, item in survey(self.folder).items.items()}
        for file in self._files:
            name = file.relative_to(self.folder).as_posix() if file.is_relative_to(self.folder) else str(file)
            if name not in found:
                with suppress(OSError):
                    found[name] = self._version_of_file(name, file, file.stat(), "file")
        self._last = found
        return found

    def take_or_none(self) -> Snapshot | None:
        """As `take`; None if a file can't be read. Packing reports the error."""
        try:
            return self.take()
        except InvalidInput:
            return None

    def changes(self, before: Snapshot | None) -> set[str]:
        """The paths that differ from an earlier snapshot. Raises InvalidInput if a file can't be read."""
        now = self.take()
        before = before or {}
        return {path for path in {*before, *now} if not _is_same(before.get(path, _GONE), now.get(path, _GONE))}

    def version(self, path: str) -> Version:
        """The state of a path in the last snapshot."""
        return self._last.get(path, _GONE)

    def _version_of_item(self, item: Item) -> Version:
        if item.target is not None:
            return Version(f"link to {item.target}")
        if item.is_folder:
            return Version("folder")
        kind = "program" if item.stat.st_mode & 0o100 else "file"
        return self._version_of_file(item.path, self.folder / item.path, item.stat, kind)

    def _version_of_file(self, name: str, path: Path, about: os.stat_result, kind: str) -> Version:
        key: tuple[int, ...] | None = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
        last = self._last.get(name)
        if last is not None and last.about == key:
            return Version(kind, key, last.size, last.digest)
        digest = _digest(path)
        if time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns) < _RACY_NS:
            key = None  # compute the digest again next time
        return Version(kind, key, about.st_size, digest)

    def matters(self, changed: str) -> bool:
        """Whether an event at a path requires a comparison."""
        path = Path(changed)
        if path in self._files or path.name in IGNORE_FILES or not path.is_relative_to(self.folder):
            return True
        if self._ignored is None:
            return True
        parts = path.relative_to(self.folder).parts
        inside = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
        try:
            return not self._ignored("/".join(parts), False) and not any(map(self._ignored.excludes_tree, inside))
        except InvalidInput:  # an unreadable ignore file; the comparison reports it
            return True


def _is_same(one: Version, other: Version) -> bool:
    return (one.kind, one.size, one.digest) == (other.kind, other.size, other.digest)


def _digest(path: Path) -> bytes:
    """The digest of a file; empty if it is missing or unreadable, which packing reports."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, hashlib.blake2b).digest()
    except OSError:
        return b""


# -- loops of runs and changes ----------------------------------------------------------------------------------------


@dataclass
class LoopGuard:
    """Prevents endless loops in which a run writes a file and the change of the file starts the next run.

    A file becomes restless when it has started STRIKES consecutive runs, each time at most AFTER_START_S after the
    start of the previous run and at most AFTER_END_S after its end. A restless file starts a run only after QUIET_S
    without a change, at most _RESCUES times. A change outside these times makes it an ordinary file again.
    """

    after_start_s: float = AFTER_START_S
    quiet_s: float = QUIET_S
    after_end_s: float = AFTER_END_S
    _began: float = 0.0
    _ended: float | None = None
    _strikes: dict[str, int] = field(default_factory=dict)  # path → consecutive runs that it helped to start
    _soon: int = 0  # consecutive runs that started within AFTER_START_S of the one before
    _rescues: dict[str, int] = field(default_factory=dict)  # restless path → runs that it may still start
    _touched: set[str] = field(default_factory=set)  # restless paths that have changed since the run started
    _told: set[str] = field(default_factory=set)
    _held: dict[str, Version] = field(default_factory=dict)
    _held_since: float = 0.0

    def run_started(self) -> None:
        """Record the start of a run."""
        self._began, self._ended = time.monotonic(), None
        self._touched.clear()
        self._held.clear()

    def run_ended(self) -> None:
        """Record the end of the run; its log has been printed."""
        self._ended = time.monotonic()

    def _is_soon(self, now: float) -> bool:
        """Whether a change may come from the run."""
        ended = self._ended
        return now - self._began <= self.after_start_s and (ended is None or now - ended <= self.after_end_s)

    def decide(
        self, names: Collection[str], version: Callable[[str], Version], now: float | None = None
    ) -> tuple[bool, float | None]:
        """(whether a change starts a run, the monotonic time to compare again or None for the next event)."""
        if not names:
            return False, None
        now = time.monotonic() if now is None else now
        is_soon = self._is_soon(now)
        for path in set(names) & set(self._rescues) - self._touched:
            if not is_soon:  # too late to come from the start of the run
                del self._rescues[path]
        self._touched |= set(names) & set(self._rescues)
        fresh = [path for path in names if path not in self._rescues]
        if fresh:
            self._strikes = {path: self._strikes.get(path, 0) + 1 for path in fresh} if is_soon else {}
            is_flood = self._soon >= MAX_SOON_RUNS and bool(self._held)  # no run started, because too much changed
            self._soon = self._soon + 1 if is_soon or is_flood else 0
            if self._soon <= MAX_SOON_RUNS and min(self._strikes.values(), default=0) <= STRIKES:
                return True, None
            self._rescues |= dict.fromkeys(fresh, _RESCUES)
            self._touched.update(fresh)
            self._warn(sorted(fresh))
        return self._decide_when_quiet(names, version, now)

    def _decide_when_quiet(
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

    def _warn(self, paths: Sequence[str]) -> None:
        if new := [path for path in paths if path not in self._told]:
            self._told.update(new)
            words = f"{list_names(new)} changed during several runs and starts no more runs for now"
            console.say(f"{words}; if runs write it, add it to .polyaxonignore", "yellow")
