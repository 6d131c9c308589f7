"""Takes runs from the database to threads: the queue, the capacity, the stop requests, what a crash left behind."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping

from polylocal import clock
from polylocal.engine.base import EngineInfo
from polylocal.errors import EngineError, EngineUnreachable, InvalidPolyaxonfile, StoreError
from polylocal.files.folders import remove_tree
from polylocal.polyaxonfile import Capacity, Resources, asked, of_config
from polylocal.polyaxonfile.resources import cuts, fits, problems
from polylocal.runner import outcome, recovery
from polylocal.runner.collector import Collector
from polylocal.runner.execution import Execution, StillInUse
from polylocal.runner.following import Follower
from polylocal.runner.groups import Groups
from polylocal.runner.publisher import Publisher
from polylocal.runner.removal import remove
from polylocal.runner.runner_context import RunnerContext
from polylocal.runner.work import WORKS, execution_of
from polylocal.statuses import Kind, Status, is_done
from polylocal.store import NewRun
from polylocal.store.rows import Run
from polylocal.store.runs import build_key

log = logging.getLogger(__name__)

RECONCILE_S = 30.0
MOMENT_S = 1.0
SILENT_S = 60.0  # a look takes less
REMOVE_AGAIN_S = 600.0  # what could not be removed is tried again
RETRY_S = 2.0  # after nothing could be kept of a run, it is left alone this long
_BATCH = 100


class Supervisor:
    """One thread that looks at the database whenever it is woken, and every `poll_s` if nobody wakes it."""

    def __init__(self, context: RunnerContext) -> None:
        self._context = context
        self._wake = threading.Event()
        self._active: dict[int, Execution] = {}
        self._lock = threading.Lock()
        self._groups = Groups(context, self.wake)
        self._publisher = Publisher(context)
        self._publishing: threading.Thread | None = None
        self._aside: dict[str, threading.Thread] = {}  # what goes on beside the looks, by the name of the step
        self._reconcile_at = 0.0
        self._started_at = clock.now()
        self.collector = Collector(context, lambda: {execution.run.uuid for execution in self._in_hand().values()})
        self._looked_at = time.monotonic()
        self._put_off: dict[int, float] = {}  # until when
        self._in_use = set[int]()  # deleted builds of which a container is left
        self._troubles: dict[str, str] = {}  # what each step said last
        self._judged_for: EngineInfo | None = None  # the machine for which all that waits was judged

    def wake(self) -> None:
        """A hint, from any thread: something may be to do."""
        self._wake.set()

    def start(self) -> None:
        threading.Thread(target=self._forever, name="supervisor", daemon=True).start()

    def state(self) -> str | None:
        """Why nothing is taken from the queue; None: all is well."""
        silent_s = time.monotonic() - self._looked_at
        return f"The queue was not looked at for {silent_s:.0f} s." if silent_s > SILENT_S else None

    def _forever(self) -> None:
        while True:
            self.once()
            self._looked_at = time.monotonic()
            self._wake.wait(self._context.settings.poll_s)
            self._wake.clear()

    def once(self) -> None:
        """One look at everything. What goes wrong in one step holds back no other: the next look comes."""
        self._do(self._take_up)
        self._do(self._stop_wanted)
        self._do(self._stop_overdue)
        self._do(self._begin_new)
        self._do(self._publish)
        self._beside(self._remove_deleted)
        self._beside(self._reconcile)
        self._do(self._collect)

    def _collect(self) -> None:
        if self.collector.is_due():
            threading.Thread(target=self._do, args=(self.collector.collect_by_itself,), name="gc", daemon=True).start()

    def _publish(self) -> None:
        """One publication at a time, whatever the repository: two could not be told apart by who reads them."""
        if (self._publishing is None or not self._publishing.is_alive()) and self._publisher.is_due():
            work = threading.Thread(target=self._do, args=(self._publisher.work,), name="publisher", daemon=True)
            work.start()
            self._publishing = work

    def _beside(self, step: Callable[[], None]) -> None:
        """A step that an engine or a large log can hold up for long: runs do not wait for it. Nearly always it is over
        within the moment that is waited for it."""
        going = self._aside.get(step.__name__)
        if going is None or not going.is_alive():
            going = threading.Thread(target=self._do, args=(step,), name=step.__name__.strip("_"), daemon=True)
            going.start()
            self._aside[step.__name__] = going
            going.join(MOMENT_S)

    def _do(self, step: Callable[[], None]) -> None:
        name = step.__name__.strip("_").replace("_", " ")
        try:
            step()
        except (StoreError, EngineError, EngineUnreachable, OSError) as error:
            if self._troubles.get(name) != str(error):  # a disk stays full for a while: once is enough
                log.warning("supervisor: %s: %s", name, error)
            self._troubles[name] = str(error)
        except Exception:
            log.exception("supervisor: %s failed, the next look comes", name)
        else:
            self._troubles.pop(name, None)

    def _begin_new(self) -> None:
        """Nothing is made or built for a run before the engine has answered once: it may be one that can't run."""
        problem = self._context.disk.problem()
        knows_machine = self._context.link.info is not None or self._context.link.check()
        if knows_machine:
            self._refuse_impossible()
        self._groups.tend_all(may_begin=problem is None and knows_machine)
        if problem:
            self._tell_waiting(problem)
        elif knows_machine:
            self._resolve_builds()
            self._fill_capacity()

    def _tell_waiting(self, problem: str) -> None:
        """What would begin now waits; once it is told why."""
        for run in self._context.store.runs.waiting(_BATCH):
            if run.pk not in self._in_hand():
                self._context.store.runs.transition(run, Status.UNSCHEDULABLE, problem, details={"reason": "disk-full"})

    # -- begin and end --------------------------------------------------------------------------------------------

    def _take_up(self) -> None:
        """What was begun and nobody has in hand goes on, whatever the capacity: by a daemon before this one, or on a
        thread that a full disk or a bug has ended."""
        for run in self._context.store.runs.begun():
            if run.pk not in self._in_hand() and not self._is_put_off(run) and not self._has_ended(run):
                log.info("run=%s taken up again, it was %s", run.label, run.status)
                self._begin(run)

    def _has_ended(self, run: Run) -> bool:
        """Asked after it was seen that no thread has it: it may have come to its end in between."""
        return is_done(self._context.store.runs.by_pk(run.pk).status)

    def _begin(self, run: Run) -> None:
        execution = execution_of(run, self._context)
        with self._lock:
            self._active[run.pk] = execution
        try:
            threading.Thread(target=self._carry_out, args=(execution,), name=run.label, daemon=True).start()
        except RuntimeError as error:  # the machine gives no further thread
            log.warning("run=%s: put off, %s", run.label, error)
            with self._lock:
                del self._active[run.pk]
                self._put_off[run.pk] = time.monotonic() + RETRY_S

    def _carry_out(self, execution: Execution) -> None:
        is_over = False
        try:
            is_over = execution()
        finally:
            with self._lock:
                del self._active[execution.run.pk]
                if not is_over:
                    self._put_off[execution.run.pk] = time.monotonic() + RETRY_S
                while self._in_use:  # it may have been the container of this run
                    self._put_off.pop(self._in_use.pop(), None)
            self.wake()

    def _is_put_off(self, run: Run) -> bool:
        with self._lock:
            until = self._put_off.get(run.pk)
            if until is not None and time.monotonic() >= until:
                del self._put_off[run.pk]
                until = None
        return until is not None

    def _in_hand(self) -> dict[int, Execution]:
        with self._lock:
            return dict(self._active)

    # -- the steps of a look --------------------------------------------------------------------------------------

    def _stop_wanted(self) -> None:
        for run in self._context.store.runs.stopping():
            execution = self._in_hand().get(run.pk)
            if execution:
                execution.stop()
            elif run.container_id is None or not run.is_managed:
                message = (outcome.DELETED if run.deleted_at else outcome.STOPPED)[run.kind]
                self._context.store.runs.transition(run, Status.STOPPED, message)
            elif not self._is_put_off(run) and not self._has_ended(run):
                self._begin(run)

    def _stop_overdue(self) -> None:
        """Time is counted on a clock that nobody sets: one that jumps ends no run."""
        for execution in self._in_hand().values():
            limit_s = execution.time_limit_s
            if limit_s is not None and execution.seconds_running > limit_s:
                self._context.store.runs.request_stop(execution.run, outcome.TIME_LIMIT)

    def _resolve_builds(self) -> None:
        """Give every new run its build: one that is there, one under way, or a new one."""
        for run in self._context.store.runs.unresolved(_BATCH):
            try:
                specification = run.specification
                config = specification.build_config()
                recipe = of_config(Kind.BUILD, "", config)
                recipe.build  # noqa: B018  a build that only named another one has no recipe
                if self._is_refused(run):
                    continue
                self._note_cuts(run)
            except ValueError as error:
                problem = f"Could not start build process: {error}"
                self._context.store.runs.transition(run, Status.FAILED, problem, details={"reason": "build"})
                continue
            key = build_key(run.project_id, config, run.commit)
            build = NewRun(
                Kind.BUILD,
                json.dumps(config),
                config,
                code_id=run.code_id,
                build_key=key,
                secrets_user_id=run.secrets_user_id if recipe.secrets else None,
            )
            self._context.store.runs.attach_build(run, build, anew=bool(specification.build.nocache))

    def _fill_capacity(self) -> None:
        """First in, first out within a priority: a run that does not fit yet holds back those behind it."""
        machine = self._context.link.capacity(with_gpus=False)
        if machine is None:
            return
        self._open_servers(machine)
        active = self._in_hand()
        free = self._context.settings.max_runs - sum(execution.work.takes_slot for execution in active.values())
        if free <= 0:
            return
        for run in self._context.store.runs.runnable(free + len(active)):
            if run.pk in active or self._is_put_off(run) or self._is_refused(run):
                continue
            if free <= 0 or not self._fits(run, machine):
                return
            free -= 1
            self._begin(run)

    def _open_servers(self, machine: Capacity) -> None:
        """Notebooks and tensorboards take no place in the queue: somebody sits in front of them. Their limits count."""
        for run in self._context.store.runs.runnable(_BATCH, servers=True):
            active = self._in_hand()
            if run.pk in active or self._is_put_off(run) or self._is_refused(run):
                continue
            if self._fits(run, machine):
                self._begin(run)

    def _refuse_impossible(self) -> None:
        """Judge what was made when the engine had not answered, or when its machine was another one."""
        machine = self._context.link.info
        if machine == self._judged_for:
            return
        for run in self._context.store.runs.with_resources():
            try:
                if run.pk not in self._in_hand() and not self._is_refused(run) and run.build_pk:
                    self._note_cuts(run)  # it will not be given a build, when the others are told
            except ValueError as error:  # a polyaxonfile of another version: told when it is its turn
                log.warning("run=%s: its resources can't be read: %s", run.label, error)
        self._judged_for = machine

    def _is_refused(self, run: Run) -> bool:
        """Whether the run can't run on this machine; it then fails with the reason."""
        try:
            found = [p for wanted in asked(run.specification) for p in problems(wanted, self._context.capacity(wanted))]
        except InvalidPolyaxonfile as error:  # an experiment of a group
            found = [((), problem) for problem in error.problems]
        if not found:
            return False
        path, text = found[0]
        message = ": ".join(filter(None, [".".join(map(str, path)), text]))
        self._context.store.runs.transition(run, Status.FAILED, message, details={"reason": "resources"})
        return True

    def _note_cuts(self, run: Run) -> None:
        """Tell the history of a run that a limit is above what there is, if that was not told when it was made."""
        resources = run.specification.environment.resources
        machine = self._context.capacity(resources)
        for path, text in cuts(resources, machine) if machine else ():
            if not any(text in warning for warning in run.warnings or ()):
                self._context.store.runs.note(run, f"{'.'.join(map(str, path))}: {text}")

    def _fits(self, run: Run, machine: Capacity) -> bool:
        others = [_resources(execution.run) for execution in self._in_hand().values()]
        return fits(_resources(run), others, machine)

    def _reconcile(self) -> None:
        """Containers that carry our label and that nothing waits for: left by a crash, or kept for a while."""
        now = time.monotonic()
        if now < self._reconcile_at or self._context.link.info is None:
            return
        self._reconcile_at = now + RECONCILE_S
        context = self._context
        found = context.engine.containers(context.installation)
        runs = {}
        for item in found:
            run = context.store.runs.by_uuid(item.run.partition("/")[2])
            if run:
                runs[run.uuid] = run
        active = {execution.run.uuid for execution in self._in_hand().values()}
        for removal in recovery.plan(found, runs, active, clock.now(), self._started_at):
            try:
                self._complete_log(removal, runs)  # may find no room: then the container waits, with what it wrote
                context.engine.remove(removal.container_id)
            except (StoreError, EngineError) as error:
                log.warning("container %s stays for now: %s", removal.container_id[:12], error)
            else:
                log.info("container %s removed: %s", removal.container_id[:12], removal.why)

    def _complete_log(self, removal: recovery.Remove, runs: Mapping[str, Run]) -> None:
        """A daemon that died just after it told the end of a run may not have looked whether its log was whole.

        Only of the container that it ended in: one that was lost before has its part of the log, and a mark behind it.
        """
        run = runs.get(removal.run)
        if run and not run.deleted_at and run.container_id == removal.container_id:
            with Follower(run, removal.container_id, self._context) as follower:
                follower.complete()

    def _remove_deleted(self) -> None:
        """Deleted runs that have ended lose their files and images, then their rows; then deleted projects."""
        context = self._context
        if context.link.info is None:
            return
        tried = set[int]()
        while runs := [run for run in context.store.runs.deleted() if run.pk not in tried]:
            for run in runs:  # builds are among them only when their runs are removed
                tried.add(run.pk)
                if run.pk not in self._in_hand() and not self._is_put_off(run):
                    self._remove(run)
        for project in context.store.projects.to_remove():
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
            with self._lock:
                self._put_off[run.pk] = time.monotonic() + RECONCILE_S
                self._in_use.add(run.pk)
        except (OSError, EngineError, EngineUnreachable) as error:
            log.warning("run=%s: not all of it can be removed, it is tried again later: %s", run.label, error)
            with self._lock:
                self._put_off[run.pk] = time.monotonic() + REMOVE_AGAIN_S


def _resources(run: Run) -> Resources | None:
    return WORKS[run.kind].resources(run)
