"""The scheduler: takes runs from the queue to threads, stops runs, and resumes those that a crash interrupted."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable

from polylocal.engine.host import EngineInfo
from polylocal.errors import EngineError, EngineUnreachable, StoreError
from polylocal.planning import queue
from polylocal.polyaxonfile import Capacity, Specification
from polylocal.polyaxonfile.resources import cuts
from polylocal.runner import outcome
from polylocal.runner.execution import Execution
from polylocal.runner.groups import Groups
from polylocal.runner.housekeeping import Housekeeping, Retries
from polylocal.runner.runner_context import RunnerContext
from polylocal.runner.work import execution_of
from polylocal.statuses import Kind, Status, is_done
from polylocal.store import NewRun
from polylocal.store.rows import Run
from polylocal.store.runs import build_key

log = logging.getLogger(__name__)

MAX_STEP_S = 60.0  # a step takes less
RETRY_S = 2.0  # until a run whose state could not be stored is resumed
_BATCH = 100


class Supervisor:
    """One thread takes a step whenever it is woken, and every `poll_s` without that.

    `step` is a whole step. Its parts are public; each can be called separately, by one thread at a time.
    """

    def __init__(self, context: RunnerContext) -> None:
        self._context = context
        self._wake = threading.Event()
        self._active: dict[int, Execution] = {}
        self._lock = threading.Lock()
        self._retries = Retries()
        self.groups = Groups(context, self.wake)
        self.housekeeping = Housekeeping(context, self.active_runs, self._attempt)
        self._stepped_at = time.monotonic()
        self._last_errors: dict[str, str] = {}  # the last error of each part of a step
        self._checked_for_machine: EngineInfo | None = None  # the machine for which all waiting runs were judged

    def wake(self) -> None:
        """A hint, from any thread: there may be something to do."""
        self._wake.set()

    def start(self) -> None:
        threading.Thread(target=self._loop, name="supervisor", daemon=True).start()

    def state(self) -> str | None:
        """The reason why no run is taken from the queue; None: there is none."""
        silent_s = time.monotonic() - self._stepped_at
        return f"The queue was not processed for {silent_s:.0f} s." if silent_s > MAX_STEP_S else None

    def queue_state(self) -> queue.QueueState:
        """The facts besides the database on which decisions of the queue depend. Thread-safe."""
        return queue.QueueState(self.active_runs(), self._retries.pending())

    def executions(self) -> dict[int, Execution]:
        """The runs that have a thread, by pk. Thread-safe."""
        with self._lock:
            return dict(self._active)

    def active_runs(self) -> list[Run]:
        return [execution.run for execution in self.executions().values()]

    def _loop(self) -> None:
        while True:
            self.step()
            self._stepped_at = time.monotonic()
            self._wake.wait(self._context.settings.poll_s)
            self._wake.clear()

    def step(self) -> None:
        """One step. An error in one part of it does not delay the other parts; the next step tries again."""
        for part in (self.resume_interrupted, self.stop_requested, self.stop_overdue, self.begin_new):
            self._attempt(part)
        self.housekeeping.step()

    def _attempt(self, part: Callable[[], None]) -> None:
        name = part.__name__.strip("_").replace("_", " ")
        try:
            part()
        except (StoreError, EngineError, EngineUnreachable, OSError) as error:
            if self._last_errors.get(name) != str(error):  # one line is enough for a disk that stays full
                log.warning("supervisor: %s: %s", name, error)
            self._last_errors[name] = str(error)
        except Exception:
            log.exception("supervisor: %s failed, the next step tries again", name)
        else:
            self._last_errors.pop(name, None)

    def _begin(self, run: Run) -> None:
        execution = execution_of(run, self._context)
        with self._lock:
            self._active[run.pk] = execution
        try:
            threading.Thread(target=self.carry_out, args=(execution,), name=run.label, daemon=True).start()
        except RuntimeError as error:  # the machine gives no further thread
            log.warning("run=%s: postponed, %s", run.label, error)
            self._retries.delay(run.pk, RETRY_S)
            with self._lock:
                del self._active[run.pk]

    def carry_out(self, execution: Execution) -> None:
        """Carry out a run on this thread, until it has ended or its state can't be stored."""
        is_over = False
        with self._lock:
            self._active[execution.run.pk] = execution
        try:
            is_over = execution()
        finally:
            if not is_over:
                self._retries.delay(execution.run.pk, RETRY_S)
            with self._lock:
                del self._active[execution.run.pk]
            self.housekeeping.run_ended()
            self.wake()

    def _may_resume(self, run: Run) -> bool:
        """Whether the run is interrupted. Called last: a thread may just have ended it."""
        return run.pk not in self._retries.pending() and not is_done(self._context.store.runs.by_pk(run.pk).status)

    def refuse_if_impossible(self, run: Run) -> bool:
        """Whether this machine can never run it; then the run fails, with the reason."""
        refused = queue.refusal(run, self._machine([run]))
        if refused:
            self._refuse(run, refused)
        return refused is not None

    def _refuse(self, run: Run, refused: queue.Refuse) -> None:
        self._context.store.runs.transition(run, Status.FAILED, refused.message, details={"reason": "resources"})

    def _machine(self, runs: Iterable[Run]) -> Capacity | None:
        """The capacity of the engine's machine; its GPUs are counted only where one of the runs asks for some."""
        return self._context.link.capacity(with_gpus=any("gpu" in (run.resources or {}) for run in runs))

    def _note_reduced_limits(self, run: Run) -> None:
        """Note in the run's history that a limit exceeds the machine, unless its creation said so."""
        machine = self._machine([run])
        for path, text in cuts(run.specification.environment.resources, machine) if machine else ():
            if not any(text in warning for warning in run.warnings or ()):
                self._context.store.runs.note(run, f"{'.'.join(map(str, path))}: {text}")

    def resume_interrupted(self) -> None:
        """Resume runs that have begun and have no thread, whatever the capacity.

        An earlier daemon began them, or a full disk or a bug ended their thread.
        """
        for run in self._context.store.queue.begun():
            if run.pk not in self.executions() and self._may_resume(run):
                log.info("run=%s resumed, it was %s", run.label, run.status)
                self._begin(run)

    def stop_requested(self) -> None:
        """Stop the runs that a user wants stopped or deleted."""
        for run in self._context.store.queue.stopping():
            execution = self.executions().get(run.pk)
            if execution:
                execution.stop()
            elif run.container_id is None or not run.is_managed:
                message = (outcome.DELETED if run.deleted_at else outcome.STOPPED)[run.kind]
                self._context.store.runs.transition(run, Status.STOPPED, message)
            elif self._may_resume(run):
                self._begin(run)

    def stop_overdue(self) -> None:
        """Stop the runs that exceed their time limit, on the monotonic clock: setting the time ends no run."""
        for execution in self.executions().values():
            limit_s = execution.time_limit_s
            if limit_s is not None and execution.seconds_running > limit_s:
                self._context.store.runs.request_stop(execution.run, outcome.TIME_LIMIT)

    def begin_new(self) -> None:
        """Take runs from the queue. Before the engine has answered once, nothing is built for a run, since this
        machine may be too small for it.
        """
        problem = self._context.disk.problem()
        knows_machine = self._context.link.info is not None or self._context.link.check()
        if knows_machine:
            self.refuse_impossible()
        self.groups.advance_all(may_begin=problem is None and knows_machine)
        if problem:
            self._mark_blocked(problem)
        elif knows_machine:
            self.resolve_builds()
            self.begin_runs()

    def _mark_blocked(self, problem: str) -> None:
        """Record once in each run that would begin now that the full disk delays it."""
        for run in self._context.store.queue.waiting(_BATCH):
            if run.pk not in self.executions():
                self._context.store.runs.transition(run, Status.UNSCHEDULABLE, problem, details={"reason": "disk-full"})

    def refuse_impossible(self) -> None:
        """Check the runs that were created before the engine answered, or for another machine of the engine."""
        machine = self._context.link.info
        if machine == self._checked_for_machine:
            return
        for run in self._context.store.queue.with_resources():
            try:
                if run.pk not in self.executions() and not self.refuse_if_impossible(run) and run.build_pk:
                    self._note_reduced_limits(run)  # `resolve_builds` notes those of runs without a build
            except ValueError as error:  # an older version stored the polyaxonfile: `resolve_builds` fails the run
                log.warning("run=%s: its resources can't be read: %s", run.label, error)
        self._checked_for_machine = machine

    def resolve_builds(self) -> None:
        """Give each new run its build: a finished one, one under way, or a new one."""
        for run in self._context.store.queue.unresolved(_BATCH):
            try:
                self._resolve_build(run)
            except ValueError as error:
                problem = f"Could not start build process: {error}"
                self._context.store.runs.transition(run, Status.FAILED, problem, details={"reason": "build"})

    def _resolve_build(self, run: Run) -> None:
        """Raises ValueError: the run has no recipe, or its polyaxonfile can't be read."""
        config = run.specification.build_config()
        recipe = Specification(Kind.BUILD, "", config)
        is_fresh = bool(recipe.build.nocache)  # raises ValueError if the build only names another build
        if self.refuse_if_impossible(run):
            return
        self._note_reduced_limits(run)
        key = build_key(run.project_id, config, run.commit)
        user_id = run.secrets_user_id if recipe.secrets else None
        build = NewRun(
            Kind.BUILD, json.dumps(config), config, code_id=run.code_id, build_key=key, secrets_user_id=user_id
        )
        self._context.store.queue.attach_build(run, build, anew=is_fresh)

    def begin_runs(self) -> None:
        """Begin the runs for which the queue decides so."""
        active = self.active_runs()
        runs = self._runnable(active)
        machine = self._machine(runs)
        if machine is None:
            return
        decisions = queue.decide(runs, active, machine, self._context.settings.max_runs)
        for run, decision in zip(runs, decisions, strict=True):
            if isinstance(decision, queue.Begin):
                self._begin(run)
            elif isinstance(decision, queue.Refuse):
                self._refuse(run, decision)

    def _runnable(self, active: list[Run]) -> list[Run]:
        """The first of the waiting runs: as many as there may be slots for, and the servers, which need none."""
        waiting, slots = self._context.store.queue, self._context.settings.max_runs
        free = slots - sum(run.kind.takes_slot for run in active)
        found = waiting.runnable(_BATCH, servers=True)
        if free > 0:
            found += waiting.runnable(free + len(active))
        passed = {run.pk for run in active} | self._retries.pending().keys()
        return [run for run in found if run.pk not in passed]
