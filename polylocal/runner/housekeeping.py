"""Housekeeping beside the queue: publishing, garbage collection, and the removal of deleted runs and stray containers.

An engine or a large folder can delay a task for minutes. So each task has its own thread, and the queue does not wait
for it.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping

from polylocal import clock
from polylocal.errors import ContainerMissing, EngineError, EngineUnreachable, StoreError
from polylocal.files.folders import remove_tree
from polylocal.runner import gc
from polylocal.runner.collector import Collector
from polylocal.runner.execution import StillInUse
from polylocal.runner.following import Follower
from polylocal.runner.publisher import Publisher
from polylocal.runner.removal import remove
from polylocal.runner.runner_context import RunnerContext
from polylocal.store.rows import Run

log = logging.getLogger(__name__)

RECONCILE_S = 30.0
JOIN_S = 1.0  # nearly every task is done by then, and its effect is seen in the same step
RETRY_REMOVAL_S = 600.0  # until a removal that failed is tried again

Attempt = Callable[[Callable[[], None]], None]  # runs a step and logs its errors


class Retries:
    """Delays before something is tried again, by the pk of its run. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due_at: dict[int, float] = {}  # on the monotonic clock

    def delay(self, pk: int, seconds: float) -> None:
        with self._lock:
            self._due_at[pk] = time.monotonic() + seconds

    def clear(self) -> None:
        """Make all of them due."""
        with self._lock:
            self._due_at.clear()

    def pending(self) -> dict[int, float]:
        """The remaining seconds of those that are not due."""
        now = time.monotonic()
        with self._lock:
            self._due_at = {pk: due_at for pk, due_at in self._due_at.items() if due_at > now}
            return {pk: due_at - now for pk, due_at in self._due_at.items()}


class Housekeeping:
    """Its methods are called by the supervisor's thread and by the threads of the tasks."""

    def __init__(self, context: RunnerContext, active: Callable[[], Collection[Run]], attempt: Attempt) -> None:
        """`active`: the runs that have a thread."""
        self._context = context
        self._active = active
        self._attempt = attempt
        self.collector = Collector(context, self._active_uuids)
        self._publisher = Publisher(context)
        self._threads: dict[str, threading.Thread] = {}  # by the name of the task
        self._retries = Retries()  # failed removals
        self._in_use = Retries()  # removals of builds whose image a container uses
        self._reconcile_at = 0.0
        self._started_at = clock.now()

    def step(self) -> None:
        """Start the tasks that are due."""
        self._attempt(self._publish)
        for task in (self.remove_deleted, self.reconcile):
            if self._is_idle(task.__name__):
                self._start(task).join(JOIN_S)
        self._attempt(self._collect)

    @property
    def is_idle(self) -> bool:
        return all(map(self._is_idle, self._threads))

    def run_ended(self) -> None:
        """Try the removal of images in use again: the container may have been that of the run."""
        self._in_use.clear()

    def retry_removals(self) -> None:
        """Try every removal that failed again at the next step."""
        self._retries.clear()
        self._in_use.clear()

    def _publish(self) -> None:
        # one publication at a time, in whatever repository: a reader could not distinguish two
        if self._is_idle("publish") and self._publisher.is_due():
            self._start(self._publisher.publish)

    def _collect(self) -> None:
        if self.collector.is_due():
            self._start(self.collector.collect_automatically)

    def _is_idle(self, name: str) -> bool:
        return name not in self._threads or not self._threads[name].is_alive()

    def _start(self, task: Callable[[], None]) -> threading.Thread:
        name = task.__name__
        self._threads[name] = threading.Thread(target=self._attempt, args=(task,), name=name, daemon=True)
        self._threads[name].start()
        return self._threads[name]

    def _active_uuids(self) -> set[str]:
        return {run.uuid for run in self._active()}

    def reconcile(self) -> None:
        """Remove containers with our label that no run needs: a crash left them, or their time is over."""
        now = time.monotonic()
        if now < self._reconcile_at or self._context.link.info is None:
            return
        self._reconcile_at = now + RECONCILE_S
        context = self._context
        found = context.engine.containers(context.installation_id)
        rows = (context.store.runs.by_uuid(container.run_uuid) for container in found)
        runs = {run.uuid: run for run in rows if run}
        for removal in gc.unneeded_containers(found, runs, self._active_uuids(), clock.now(), self._started_at):
            try:
                context.engine.inspect(removal.container_id)
                self._complete_log(removal, runs)  # first: on a full disk the container stays, with its output
                context.engine.remove(removal.container_id)
            except ContainerMissing:  # the thread of the run has completed the log and removed the container since
                log.debug("container %s was removed", removal.container_id[:12])
            except (StoreError, EngineError) as error:
                log.warning("container %s stays for now: %s", removal.container_id[:12], error)
            else:
                log.info("container %s removed: %s", removal.container_id[:12], removal.why)

    def _complete_log(self, removal: gc.Removal, runs: Mapping[str, Run]) -> None:
        """Complete the log of a run whose end an earlier daemon recorded just before it died.

        Only from the container in which the run ended: the output of a lost one has its part of the log already.
        """
        run = runs.get(removal.run)
        if run and not run.deleted_at and run.container_id == removal.container_id:
            with Follower(run, removal.container_id, self._context) as follower:
                follower.complete()

    def remove_deleted(self) -> None:
        """Remove the files, images and rows of deleted runs that have ended, then deleted projects."""
        context = self._context
        if context.link.info is None:
            return
        tried = set[int]()
        while runs := [run for run in context.store.queue.deleted() if run.pk not in tried]:
            for run in runs:  # a build appears only when its runs are removed
                tried.add(run.pk)
                delayed = self._retries.pending() | self._in_use.pending()
                if run.uuid not in self._active_uuids() and run.pk not in delayed:
                    self._remove(run)
        for project in context.store.projects.removable():
            remove_tree(context.home.code(project.uuid))
            try:
                remove_tree(context.home.project_outputs(project.uuid))
            except OSError as error:
                log.warning("project %s: some of its outputs stay: %s", project.unique_name, error)
            context.store.projects.remove(project)
            log.info("project %s removed", project.unique_name)

    def _remove(self, run: Run) -> None:
        try:
            remove(run, self._context)
        except StillInUse as error:
            log.info("run=%s: removed a while later: %s", run.label, error)
            self._in_use.delay(run.pk, RECONCILE_S)
        except (OSError, EngineError, EngineUnreachable) as error:
            log.warning("run=%s: not all of it can be removed, it is tried again later: %s", run.label, error)
            self._retries.delay(run.pk, RETRY_REMOVAL_S)
