"""Creates the container of a run or finds the existing one, follows it to its end, and removes it."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from polylocal import clock
from polylocal.engine.containers import ContainerState
from polylocal.engine.events import Waiter
from polylocal.errors import ContainerMissing, EngineError, InvalidInput, NotFound
from polylocal.planning import container
from polylocal.runner import outcome, ownership
from polylocal.runner.execution import Execution, Work
from polylocal.runner.following import Follower, last_line
from polylocal.runner.outcome import Ending, Outcome
from polylocal.runner.runner_context import RunnerContext
from polylocal.statuses import Status, is_done
from polylocal.store.rows import Run
from polylocal.system.cancellation import Cancelled, cancelled_by

log = logging.getLogger(__name__)

SETTLE_S = 1.0  # for a start request whose connection was lost
DEATH_EVENT_S = 1.0  # for the event of a death that was already seen
INSPECT_S = 0.2  # how often a container is inspected after the end of its output, until it has ended


class ContainerWork(Work):
    """A kind whose runs have a container."""

    has_address = False  # whether the daemon reaches its programs, so that `address_columns` has an answer

    def operation(self, execution: Execution) -> ContainerOperation:
        return ContainerOperation(execution, self)

    @abstractmethod
    def create(self, operation: ContainerOperation) -> str:
        """Create the container of the run, or find the existing one. Returns its id.

        Raises Cancelled; NotReady: the run waits for something; InvalidInput: it can never start; EngineError,
        NotFound: it can't start now.
        """

    @abstractmethod
    def image(self, run: Run, context: RunnerContext) -> str:
        """The name or the id of the run's image. Raises NotFound."""

    def writable_folders(self, run: Run, context: RunnerContext) -> list[Path]:
        """The folders that the container may write to. Their files are given to the daemon's user at the end."""
        return [context.outputs_path(run)]

    def address_columns(self, run: Run, state: ContainerState) -> dict[str, Any]:
        """The columns with the address under which the daemon reaches the program of a running container."""
        return {}

    def max_restarts(self, run: Run) -> int:
        """The number of times that a run starts again after its program failed."""
        return run.specification.environment.max_restarts or 0

    def max_losses(self, run: Run) -> int:
        """The number of times that a run starts again after the engine lost its container."""
        return self.max_restarts(run)

    def retries_failed_start(self, operation: ContainerOperation, reason: str) -> bool:
        """Whether to try again after the engine refused to start the container, for this reason."""
        return False

    def before_final_status(self, operation: ContainerOperation, recorded: Mapping[str, object]) -> None:
        """Called before the final status is recorded, so that readers of the status see its effects."""

    def end(self, operation: ContainerOperation, end: Outcome, recorded: Mapping[str, object]) -> Outcome | None:
        """Record the final status. Returns it as recorded; None if the run had one already."""
        return operation.execution.end(end, recorded)


class NotReady(Exception):
    """The container can't be created yet. The supervisor resumes the run later."""


class StartUnknown(Exception):
    """The engine ended during the start of the container, so its program may have run."""


class ContainerOperation:
    """The operation of a run with a container. Called on the run's thread; other threads call `stop()`."""

    def __init__(self, execution: Execution, work: ContainerWork) -> None:
        self.execution = execution
        self.context = execution.context
        self.work = work
        self.engine_was_away = False
        self._must_check_log = False
        self._was_unseen = False  # no daemon was there when the container ended
        self._engine_was_restarted = False  # since the container started
        self._was_followed = True
        self._was_terminated = False  # a stop request terminated its processes

    @property
    def run(self) -> Run:
        return self.execution.run

    def __call__(self) -> None:
        is_fresh = not self.run.container_id
        container_id = self.run.container_id or self.create()
        while container_id is not None:
            try:
                ending = self._attempt(container_id, is_fresh)
                again = ending is not None and self._restart_if_allowed(container_id, ending)
            except (ContainerMissing, StartUnknown) as error:
                how = outcome.GONE if isinstance(error, ContainerMissing) else outcome.START_UNKNOWN
                if not self._retry_after_loss(container_id, how):
                    self.reclaim_folders(None)
                    is_stopping, lost = self.execution.is_stopping, outcome.lost(how)
                    self.finish(self.execution.stop_outcome() if is_stopping else lost)
                    return
                again = True
            except EngineError as error:
                if not self.work.retries_failed_start(self, str(error)):
                    self.finish(outcome.not_started(str(error)))
                    return
                again = True
            is_fresh = not self.run.container_id
            if again:
                container_id = self.run.container_id or self.create()
                continue
            if ending is None:
                self.finish(self.execution.stop_outcome())
                return
            self.reclaim_folders(container_id)
            self.finish(outcome.of(self.run.kind, ending), exit_code=ending.exit_code)
            return

    def create(self) -> str | None:
        """Create the container. Returns its id; None: the run has ended, or waits for another image."""
        execution, context = self.execution, self.context
        if execution.is_stopping:
            self.finish(self.execution.stop_outcome())
            return None
        container_id = self._create_with_retries()
        if container_id is None:
            return None
        recorded = {"container_id": container_id, "node": context.engine.node}
        if not execution.move(Status.SCHEDULED, recorded=recorded):
            context.store.runs.record(self.run, **recorded)
        execution.refresh()
        if is_done(self.run.status):  # by its own report in the meantime: nothing may be started any more
            self.finish(self.execution.stop_outcome())
            return None
        return container_id

    def _create_with_retries(self) -> str | None:
        execution = self.execution
        while True:
            try:
                with cancelled_by(execution.cancel):
                    return self.work.create(self)
            except Cancelled:
                self.finish(self.execution.stop_outcome())
            except NotReady:
                log.info("run=%s: waits, its container can't be created yet", self.run.label)
            except InvalidInput as error:  # another attempt would fail in the same way
                self.finish(outcome.not_started(str(error)))
            except (EngineError, NotFound) as error:
                if self.work.retries_failed_start(self, str(error)):
                    execution.refresh()
                    continue
                self.finish(outcome.not_started(str(error)))
            return None

    def _attempt(self, container_id: str, is_fresh: bool) -> Ending | None:
        """Start the container, or resume it, and follow it to its end. None: stopped before its start."""
        execution, context = self.execution, self.context
        with context.deaths.watch(container_id) as waiter, Follower(self.run, container_id, context) as follower:
            try:
                if not self._begin(container_id, follower, is_fresh):
                    return None
            except StartUnknown:
                execution.call_engine(follower.complete)
                raise
            state = self.wait(container_id, waiter, follower)
            if state is None:
                if follower.has_changed():
                    execution.call_engine(follower.complete)
                self._must_check_log = True  # after the final status: an engine answers slowly just after a death
                return self._ending(0, out_of_memory=False)
            if state.exit_code in outcome.KILLS and waiter.wait(DEATH_EVENT_S) is None:
                self._was_unseen = True  # without the event it is unknown whether it was killed through the engine
            if self._was_unseen and state.exit_code in outcome.KILLS:
                self._engine_was_restarted = execution.call_engine(lambda: context.engine.has_lost(state))
            execution.call_engine(follower.complete)
        return self._ending(state.exit_code, state.out_of_memory, was_signalled=waiter.was_signalled)

    def _begin(self, container_id: str, follower: Follower, is_fresh: bool) -> bool:
        """Start the container, or resume it. Returns False if it was stopped before its start.

        Raises StartUnknown.
        """
        self._was_unseen = self._engine_was_restarted = False
        found = None
        if not is_fresh:
            found = self.execution.call_engine(lambda: self._state_after_lost_start(container_id), self._note_absence)
        if found is not None and not needs_start(self.run, found):
            self._was_unseen = found.is_finished
            self._was_followed = not found.is_finished
            self.mark_running(container_id)
            return True
        if self.execution.is_stopping:
            return False
        self.start(container_id, follower)
        return True

    def _state_after_lost_start(self, container_id: str) -> ContainerState:
        """The container state after a start request whose response was lost. Raises StartUnknown."""
        engine = self.context.engine
        state = engine.inspect(container_id)
        if needs_start(self.run, state):
            threading.Event().wait(SETTLE_S)
            state = engine.inspect(container_id)
        if needs_start(self.run, state) and engine.may_have_started(state):
            raise StartUnknown
        return state

    def start(self, container_id: str, follower: Follower) -> None:
        follower.attach()

        def start() -> None:
            # after a lost response the program may have ended already, and it must not run twice
            if not self.engine_was_away or needs_start(self.run, self._state_after_lost_start(container_id)):
                self.context.engine.start(container_id)

        self.execution.call_engine(start, self._note_absence)
        self.mark_running(container_id)
        if self.execution.is_stopping:
            self.stop()  # the request came while the container was starting, when there was nothing to stop

    def mark_running(self, container_id: str) -> None:
        execution, runs = self.execution, self.context.store.runs
        recorded: dict[str, Any] = {}
        # otherwise nothing in the state is new, and the engine answers late about a container that is ending
        if self.work.has_address or self.context.engine.places_containers:
            state = self.inspect(container_id)
            recorded = {"node": state.node, **self.work.address_columns(self.run, state)}
        if not execution.move(Status.RUNNING, recorded=recorded) and recorded:
            runs.record(self.run, **recorded)
        execution.refresh()
        execution.start_clock(runs.seconds_since_running(self.run))

    def wait(self, container_id: str, waiter: Waiter, follower: Follower) -> ContainerState | None:
        """Follow the output until the container has ended.

        Returns None if the engine's event reported exit code 0 and the output ended normally. Every other end is
        inspected, since the state has more than the exit code.
        """
        while True:
            follower.follow(waiter)
            code = waiter.wait(INSPECT_S)
            if code == 0 and follower.is_orderly and not self.engine_was_away and not self.context.link.has_failed:
                return None
            state = self.inspect(container_id)
            if state.is_finished:
                return state
            if state.is_running:  # the stream ended before the container did
                self.engine_was_away = follower.is_orderly = False
            if code is not None:
                # the event comes a moment before the engine's own records; or it was of the attempt before
                threading.Event().wait(0.005)
                state = self.inspect(container_id)
                if state.is_finished:
                    return state
                waiter.reset()

    def _ending(self, exit_code: int, out_of_memory: bool, *, was_signalled: bool = False) -> Ending:
        context, execution = self.context, self.execution
        run = context.store.runs.by_pk(self.run.pk)
        was_rebooted = self._was_unseen and not self._was_followed and execution.seconds_running > clock.uptime_s()
        resources = run.specification.environment.resources
        return Ending(
            exit_code=exit_code,
            out_of_memory=out_of_memory,
            stop_requested=run.stop_requested_at is not None,
            deleted=run.deleted_at is not None,
            engine_was_away=self.engine_was_away,
            was_signalled=was_signalled,
            was_unseen=self._was_unseen,
            was_rebooted=was_rebooted,
            engine_was_restarted=self._engine_was_restarted,
            was_terminated=self._was_terminated,
            time_limit_s=(execution.time_limit_s or 0.0) if run.stop_reason == outcome.TIME_LIMIT else None,
            disk_was_full=bool(exit_code) and context.disk.problem() is not None,
            memory_limit_mib=container.limits(resources, context.link.capacity(with_gpus=False)).memory_mib,
            last_line=last_line(context.log_path(run)) if exit_code else "",
        )

    def finish(self, end: Outcome, **recorded: object) -> None:
        """Record the final status, then remove the container: the run needs nothing of it any more."""
        execution, context, run = self.execution, self.context, self.run
        self.work.before_final_status(self, recorded)
        if (ended := self.work.end(self, end, recorded)) is not None:
            log.info("run=%s %s: %s", run.label, ended.status, ended.message)
        self.complete_log()
        shutil.rmtree(context.home.handover(run.uuid), ignore_errors=True)
        if run.container_id and not run.ttl:
            with suppress(EngineError):  # a container that stays is found by its label and removed later
                execution.call_engine(lambda: context.engine.remove(run.container_id or ""))

    def complete_log(self) -> None:
        """Fetch the output that the live stream may have missed, if this was postponed until the end was recorded."""
        run = self.run
        if run.container_id and self._must_check_log:
            with Follower(run, run.container_id, self.context) as follower:
                follower.is_orderly = True  # otherwise the log was completed before
                self.execution.call_engine(follower.complete)

    def _restart_if_allowed(self, container_id: str, ending: Ending) -> bool:
        """Whether the run starts again. This is recorded first, so that no attempt is made twice."""
        run, allowed = self.run, self.work.max_restarts(self.run)
        if ending.is_lost:
            return self._retry_after_loss(container_id, outcome.loss(ending))
        if not outcome.should_restart(ending, run.restarts, allowed):
            return False
        finished_at = self.inspect(container_id).finished_at
        recorded = {"restarts": run.restarts + 1, "restarted_after": finished_at}
        return self.record_restart(f"Exit code {ending.exit_code}: restart {run.restarts + 1} of {allowed}", recorded)

    def _retry_after_loss(self, container_id: str, how: str) -> bool:
        """Whether a run whose container the engine lost starts again.

        It gets a new container, since the state of the lost one is unknown. The log marks the start of the new output.
        """
        run, allowed = self.run, self.work.max_losses(self.run)
        again = not self.execution.is_cancelled() and run.restarts < allowed
        words = f"engine-lost: {how}"
        with Follower(run, container_id, self.context) as follower:
            further = f"; the following output is from a new one, restart {run.restarts + 1} of {allowed}"
            size = follower.mark(f"{words}: its last output may be missing here{further if again else ''}")
        if not again:
            return False
        recorded = {"restarts": run.restarts + 1, "container_id": None, "log_start": size}
        if not self.record_restart(f"{words}: restart {run.restarts + 1} of {allowed}", recorded):
            return False
        self.engine_was_away = False
        with suppress(EngineError):  # a container that stays is found by its label and removed later
            self.execution.call_engine(lambda: self.context.engine.remove(container_id))
        return True

    def record_restart(self, message: str, recorded: Mapping[str, object]) -> bool:
        """Record another attempt. Returns False if the run is done by its own report, and must not start again."""
        runs = self.context.store.runs
        if not self.execution.move(Status.WARNING, message, recorded=recorded):
            if is_done(runs.by_pk(self.run.pk).status):
                return False
            runs.record(self.run, **recorded)  # its status is `warning` already: only the history gets an entry
            runs.note(self.run, message)
        self.execution.refresh()
        return True

    def reclaim_folders(self, container_id: str | None) -> None:
        for folder in self.work.writable_folders(self.run, self.context):
            reclaim(self, container_id, folder)

    def stop(self) -> None:
        container_id = self.run.container_id
        if container_id:
            args = (container_id, self.context.settings.grace_s)
            threading.Thread(target=self._stop, args=args, name=f"stop {self.run.label}", daemon=True).start()

    def _stop(self, container_id: str, grace_s: float) -> None:
        self._was_terminated = True  # before the signal: the end may be recorded while this thread still waits
        try:
            if not terminate(self, container_id, grace_s):
                self._was_terminated = False
                self.execution.call_engine(lambda: self.context.engine.stop(container_id, grace_s))
        except EngineError as error:
            log.warning("run=%s: the engine refused to stop it, it is tried again: %s", self.run.label, error)
            self.execution.allow_stop_again()

    def inspect(self, container_id: str) -> ContainerState:
        """Inspect the container. Raises ContainerMissing, EngineError."""
        return self.execution.call_engine(lambda: self.context.engine.inspect(container_id), self._note_absence)

    def _note_absence(self) -> None:
        self.engine_was_away = True


def needs_start(run: Run, state: ContainerState) -> bool:
    """Whether the container has not begun the present attempt of its run."""
    restart_is_due = state.is_finished and state.finished_at == run.restarted_after
    return state.status == "created" or restart_is_due


def terminate(operation: ContainerOperation, container_id: str, grace_s: float) -> bool:
    """Terminate every process of a container, and kill it after the grace period, in seconds.

    Returns False if not every process could get the signal, or if there is no grace period.
    """
    engine, call_engine = operation.context.engine, operation.execution.call_engine
    if not grace_s or not call_engine(lambda: engine.terminate(container_id)):
        return False
    until = time.monotonic() + grace_s
    if not call_engine(lambda: engine.wait(container_id, max(0.0, until - time.monotonic()))):
        call_engine(lambda: engine.kill(container_id))
    return True


def reclaim(operation: ContainerOperation, container_id: str | None, folder: Path) -> None:
    """Give the files of a folder to the daemon's user, with the image of the container.

    Without the container (None), the image that it was created from is used.
    """
    context, run = operation.context, operation.run

    def reclaimed() -> str | None:
        if not ownership.has_foreign(folder, context.uid):
            return None
        state = context.engine.inspect(container_id) if container_id else None
        image = state.image_id if state else operation.work.image(run, context)
        return ownership.reclaim(folder, context.uid, context.gid, context.engine, image, context.installation_id)

    try:
        problem = operation.execution.call_engine(reclaimed)
    except (ContainerMissing, NotFound):
        problem = "outputs may belong to another user: the container was removed before they were handed over"
    if problem:
        log.warning("run=%s: %s", run.label, problem)
        context.store.runs.note(run, problem)
