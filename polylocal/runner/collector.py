"""Garbage collection: finds and removes images, containers and files of polylocal that are no longer needed."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from polylocal import clock
from polylocal.errors import EngineError
from polylocal.files import logs
from polylocal.files.disk import Item, size_of
from polylocal.files.folders import remove_tree
from polylocal.runner import gc
from polylocal.runner.gc import Leftover
from polylocal.runner.runner_context import RunnerContext
from polylocal.statuses import is_done

log = logging.getLogger(__name__)

COLLECT_S = 600.0  # between two automatic collections
KEEP_STEPS_S = 86400.0  # the steps of a failed build are kept this long, for its next attempt
COLLECT_ON_FULL_DISK_S = 30.0  # between two automatic collections while the disk is full
_INCOMPLETE_S = 3600.0  # older files are not being written any more
_NEW_S = 60.0  # the row of a younger file may not be committed yet
_BATCH = 500


class Collector:
    """Lists and removes items, one collection at a time. Thread-safe."""

    def __init__(self, context: RunnerContext, active_uuids: Callable[[], set[str]]) -> None:
        """`active_uuids` returns the uuids of the runs that have a thread."""
        self._context = context
        self._active_uuids = active_uuids
        self._lock = threading.RLock()
        self._next_at = time.monotonic() + COLLECT_ON_FULL_DISK_S
        self._started_at = clock.now()

    def list_items(self, budget_gib: float | None = None, *, asked: bool = True) -> list[Item]:
        """List everything that takes space, and whether it would be removed.

        `budget_gib`: space for images, in GiB; None is the setting. `asked`: a person requested it. Otherwise files
        that may belong to a user are kept, even without a row.
        """
        budget, context = self._budget(budget_gib), self._context
        found = context.engine.images(context.installation_id, context.store.built_images.ledger())
        images = gc.images(found, context.store.usage.build_uses(), int(budget * 2**30), self._steps_before(asked))
        return [*images, *self._containers(), *gc.files(self._leftovers(), asked=asked)]

    def collect(self, budget_gib: float | None = None, *, asked: bool = True) -> list[Item]:
        """Remove what is not needed. Returns the list of `list_items`, in which failed removals are marked as kept."""
        with self._lock:
            before = clock.now()  # an older list of images may lack images that are recorded from now on
            self._context.store.built_images.remove_missing(self._context.engine.image_ids(), before)
            items = self.list_items(budget_gib, asked=asked)
            items = [self._remove_item(item) if item.goes else item for item in items]
            self._remove_build_containers()
            if self._budget(budget_gib) <= self._automatic_budget():
                self._next_at = time.monotonic() + COLLECT_S  # the next automatic collection would find nothing
        gone = [item for item in items if item.goes]
        if gone:
            freed = sum(item.size_bytes for item in gone) / 2**20
            log.info("collected %d things, %.0f MiB: %s", len(gone), freed, ", ".join(i.name for i in gone[:10]))
        return items

    def _steps_before(self, asked: bool) -> str:
        """The time before which steps of builds are leftovers; "": none are.

        Intermediate layers of a running build are indistinguishable from leftovers: while one runs, none are removed.
        """
        if self._is_building():
            return ""
        return max(self._started_at, clock.stamp(datetime.now(UTC) - timedelta(seconds=0 if asked else KEEP_STEPS_S)))

    def _is_building(self) -> bool:
        return any(run.kind.makes_image for run in self._context.store.queue.begun())

    def _remove_build_containers(self) -> None:
        """Remove the containers of build steps that an engine left behind when it ended during a build."""
        engine = self._context.engine
        found = engine.build_containers(self._context.store.built_images.ledger())
        for container_id in () if self._is_building() else found:  # listed first: a build may have begun since
            engine.remove(container_id)
            log.info("container %s removed: left over from a build", container_id[:12])

    def is_due(self) -> bool:
        """Whether an automatic collection is due. It is due more often while the disk is full."""
        now = time.monotonic()
        is_full = self._context.disk.problem() is not None
        due_at = self._next_at - COLLECT_S + COLLECT_ON_FULL_DISK_S if is_full else self._next_at
        if self._context.link.info is None or now < due_at:
            return False
        self._next_at = now + COLLECT_S
        return True

    def collect_automatically(self) -> None:
        """Run an automatic collection, unless a requested one is running."""
        called_at = time.monotonic()
        with self._lock:
            if self._next_at - COLLECT_S <= called_at:
                self.collect(self._automatic_budget(), asked=False)

    def _automatic_budget(self) -> float:
        """The budget of an automatic collection, in GiB. On a full disk it is 0: images can be built again."""
        return 0.0 if self._context.disk.problem() else self._budget(None)

    def _budget(self, gib: float | None) -> float:
        return self._context.settings.image_budget_gib if gib is None else gib

    def _containers(self) -> list[Item]:
        context = self._context
        found = context.engine.containers(context.installation_id)
        rows = {run.uuid: run for run in (context.store.runs.by_uuid(item.run_uuid) for item in found) if run}
        removals = gc.unneeded_containers(found, rows, self._active_uuids(), clock.now())
        # the supervisor removes the containers of known runs, once their logs are complete
        return gc.containers(found, {r.container_id: r.why for r in removals if r.run not in rows})

    def _leftovers(self) -> Iterator[Leftover]:
        root = self._context.home.root
        yield from self._leftovers_of_runs(root / "contexts", "files for a run that is done", are_kept=False)
        for path in (*(root / "code").glob("upload-*"), *(root / "code").glob("commit-*")):
            if _age_s(path) > _INCOMPLETE_S:
                yield self._leftover(path, "an unfinished upload", needs_request=False)
        for folder in sorted((root / "logs").glob("*")):
            yield from self._leftovers_of_runs(folder, "the log of an unknown run", are_kept=True)
        known = self._context.store.projects.uuids()
        for path in sorted((root / "code").glob("*")):
            if path.name not in known and "-" not in path.name and _age_s(path) > _INCOMPLETE_S:
                yield self._leftover(path, "the code of an unknown project", needs_request=True)

    def _leftovers_of_runs(self, folder: Path, why: str, *, are_kept: bool) -> Iterator[Leftover]:
        """Files that are named after the uuid of a run that is unknown or done.

        `are_kept`: the files of a known run are never leftovers.
        """
        by_uuid: dict[str, list[Path]] = {}
        with suppress(FileNotFoundError):
            for entry in os.scandir(folder):
                by_uuid.setdefault(entry.name.partition(".")[0], []).append(Path(entry.path))
        names = sorted(by_uuid)
        for uuids in (names[start : start + _BATCH] for start in range(0, len(names), _BATCH)):
            known, active_uuids = self._context.store.usage.by_uuid(uuids), self._active_uuids()
            for uuid in uuids:
                run = known.get(uuid)
                if run and are_kept:
                    yield from (
                        replace(self._leftover(p, f"of {run.label}", needs_request=True), stays=True)
                        for p in by_uuid[uuid]
                    )
                elif uuid not in active_uuids and not (run and not is_done(run.status)):
                    paths = (path for path in by_uuid[uuid] if _age_s(path) > _NEW_S)
                    yield from (self._leftover(path, why, needs_request=are_kept) for path in paths)

    def _leftover(self, path: Path, why: str, *, needs_request: bool) -> Leftover:
        used = clock.stamp(datetime.fromtimestamp(path.lstat().st_mtime, UTC))
        return Leftover(str(path.relative_to(self._context.home.root)), size_of(path), used, why, needs_request)

    def _remove_item(self, item: Item) -> Item:
        """Remove one item. It is kept if it is in use again, or can't be removed."""
        context = self._context
        try:
            if item.kind == "image":
                return item if self._remove_image(item) else replace(item, goes=False, reason=f"in use: {item.reason}")
            if item.kind == "container":
                context.engine.remove(item.id)
            else:
                _remove_path(context.home.root / item.id)
        except (EngineError, OSError) as error:
            log.warning("%s %s can't be removed: %s", item.kind, item.name, error)
            return replace(item, goes=False, reason=f"can't be removed: {error}")
        return item

    def _remove_image(self, item: Item) -> bool:
        context = self._context
        uses = {use.image_id: use for use in context.store.usage.build_uses().values() if use.image_id}
        use = uses.get(item.id)
        if use and use.is_open:
            return False
        if use:  # before the image is removed: a run that needs it from now on has it built again
            build = context.store.runs.by_uuid(use.uuid)
            if build:
                context.store.runs.record(build, is_valid=False)
        context.engine.remove_image(item.name)
        return context.engine.image_id(item.id) is None


def _age_s(path: Path) -> float:
    with suppress(FileNotFoundError):
        return time.time() - path.lstat().st_mtime
    return 0.0


def _remove_path(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)
        logs.times_of(path).unlink(missing_ok=True)
