"""One run, top to bottom, on a thread of its own.

Every step may be the last one of this process: the next one finds what is there and goes on. So each step first looks
(is there a container? did it start? did it end?), then does, then records.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from polylocal import clock
from polylocal.engine.base import ContainerState
from polylocal.engine.events import Waiter
from polylocal.errors import (
    ContainerMissing,
    EngineError,
    ImageMissing,
    InvalidInput,
    NotFound,
    PolylocalError,
    StoreError,
)
from polylocal.files.disk import is_shortage, is_trouble
from polylocal.planning import container, servers
from polylocal.runner import outcome, ownership, provision, workspace
from polylocal.runner.building import make_image
from polylocal.runner.following import Follower, last_line
from polylocal.runner.outcome import Ending, Outcome
from polylocal.runner.runner_context import RunnerContext
from polylocal.statuses import Kind, Status, is_done
from polylocal.store.rows import Run
from polylocal.system.cancellation import Cancel, Cancelled, cancelled_by

log = logging.getLogger(__name__)

T = TypeVar("T")

SETTLE_S = 1.0  # for a start that was asked for over a connection that is no more
SIGNAL_S = 1.0  # for the event of a death that was seen already
LOOK_S = 0.2  # after the end of its output a container is looked at this often until it has ended


class Execution:
    """Call it on the run's thread; `stop()` comes from another."""

    def __init__(self, run: Run, context: RunnerContext) -> None:
        self.run = run
        self._context = context
        self._cancel = Cancel()
        self._stopping = threading.Event()
        self._engine_was_away = False
        self._must_check_log = False
        self._was_unseen = False  # its end
        self._was_followed = True
        self._was_told = False  # to end
        self._running_since: float | None = None  # on the clock that nobody sets

    def __call__(self) -> bool:
        """False: nothing can be kept at the moment. The run stays as it is, for another thread later on."""
        run = self.run
        try:
            if run.kind == Kind.BUILD:
                self._build()
            else:
                self._run_container()
        except StoreError as error:
            log.warning("run=%s: put off, %s", run.label, error)
            return False
        except Exception as error:  # a bug or a broken host: the run must not hang for ever because of it
            if isinstance(error, OSError) and self._may_pass(error):
                log.warning("run=%s: put off, %s", run.label, error)
                return False
            log.exception("run=%s: could not be carried on", run.label)
            reason = str(error) if isinstance(error, PolylocalError | OSError) else f"{type(error).__name__}: {error}"
            return self._give_up(outcome.host_failed(reason))
        return True

    def _may_pass(self, error: OSError) -> bool:
        return is_shortage(error) or (is_trouble(error) and self._context.disk.problem() is not None)

    @property
    def time_limit_s(self) -> float | None:
        """How long it may run; None: as long as it wants."""
        return None if self.run.kind.is_server else self._context.settings.time_limit_s

    @property
    def seconds_running(self) -> float:
        since = self._running_since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self) -> None:
        """Ends the build or the container, never the thread: what waits for them then returns by itself."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._cancel()
            self._kill()

    # -- a build --------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self._running_since = time.monotonic()
        result = make_image(self.run, self._context, self._cancel, self._patiently)
        if result is None or self._stopping.is_set():
            self._finish(self._stopped())
        elif result.image_id is None:
            self._finish(outcome.build_failed(result.error, result.step))
        else:
            done = Outcome(Status.SUCCEEDED, "Completed", {"image_id": result.image_id})
            self._finish(done, image_id=result.image_id)

    # -- a container ----------------------------------------------------------------------------------------------

    def _run_container(self) -> None:
        is_fresh = not self.run.container_id
        container_id = self.run.container_id or self._create()
        while container_id is not None:
            try:
                ending = self._attempt(container_id, is_fresh)
                again = ending is not None and self._restarted(container_id, ending)
            except ContainerMissing:
                if not self._again_after_loss(container_id, outcome.GONE):
                    self._hand_over_outputs(None)
                    self._finish(self._stopped() if self._stopping.is_set() else outcome.lost(outcome.GONE))
                    return
                again = True
            except EngineError as error:
                if not self._again_after_no_start(str(error)):
                    self._finish(outcome.not_started(str(error)))
                    return
                again = True
            is_fresh = not self.run.container_id
            if again:
                container_id = self.run.container_id or self._create()
                continue
            if ending is None:
                self._finish(self._stopped())
                return
            self._hand_over_outputs(container_id)
            self._finish(outcome.of(self.run.kind, ending), exit_code=ending.exit_code)
            return

    def _create(self) -> str | None:
        """A container for the run; None: it ended here, or it waits for another image."""
        if self._stopping.is_set():
            self._finish(self._stopped())
            return None
        context, run = self._context, self.run
        container_id = self._make()
        if container_id is None:
            return None
        recorded = {"container_id": container_id, "node": context.settings.node}
        if not self._move(Status.SCHEDULED, recorded=recorded):
            context.store.runs.record(run, **recorded)
        self._refresh()
        if is_done(self.run.status):  # ended by somebody else in the meantime: nothing is to be started any more
            self._finish(self._stopped())
            return None
        return container_id

    def _make(self) -> str | None:
        """The container itself, by the engine. None: the run ended here, or waits for something."""
        context, run = self._context, self.run
        build = context.store.runs.by_pk(run.build_pk) if run.build_pk else None
        if build is None:
            self._finish(outcome.not_started("its build is gone"))
            return None
        try:
            with cancelled_by(self._cancel):
                made: str = self._patiently(
                    lambda: provision.make_container(run, build, self.run.specification, context)
                )
        except Cancelled:
            self._finish(self._stopped())
            return None
        except ImageMissing:
            log.info("run=%s: the image of %s is gone, it is built again", run.label, build.label)
            context.store.runs.detach_build(run, build)
            return None
        except (EngineError, NotFound, InvalidInput) as error:
            self._finish(outcome.not_started(str(error)))
            return None
        return made

    def _attempt(self, container_id: str, is_fresh: bool) -> Ending | None:
        """Start the container, or take it up where it is, and follow it to its end. None: stopped before its start."""
        context = self._context
        with context.deaths.watch(container_id) as waiter, Follower(self.run, container_id, context) as follower:
            self._was_unseen = False
            found = None if is_fresh else self._patiently(lambda: self._settled(container_id), self._note_trouble)
            if found is None or self._is_to_start(found):
                if self._stopping.is_set():
                    return None
                self._start(container_id, follower)
            else:
                self._was_unseen = found.is_finished
                self._was_followed = not found.is_finished
                self._say_running(container_id)
            state = self._wait(container_id, waiter, follower)
            if state is None:
                if follower.has_changed():
                    self._patiently(follower.complete)
                self._must_check_log = True  # it is told first: the engine is slow to answer just after a death
                return self._ending(0, out_of_memory=False)
            if state.exit_code in outcome.KILLS and waiter.wait(SIGNAL_S) is None:
                self._was_unseen = True  # the event would have told whether it was killed through the engine
            self._patiently(follower.complete)
        return self._ending(state.exit_code, state.out_of_memory, was_signalled=waiter.was_signalled)

    def _settled(self, container_id: str) -> ContainerState:
        """As it is when a start that somebody may have asked for has come to the engine: its answer was never seen."""
        state = self._context.engine.inspect(container_id)
        if self._is_to_start(state):
            threading.Event().wait(SETTLE_S)
            state = self._context.engine.inspect(container_id)
        return state

    def _is_to_start(self, state: ContainerState) -> bool:
        restart_is_due = state.is_finished and state.finished_at == self.run.restarted_after
        return state.status == "created" or restart_is_due

    def _start(self, container_id: str, follower: Follower) -> None:
        context = self._context
        follower.attach()

        def start() -> None:
            # where the answer to a start was lost, the program may have come to its end already: it must not run again
            if not self._engine_was_away or self._is_to_start(self._settled(container_id)):
                context.engine.start(container_id)

        self._patiently(start, self._note_trouble)
        self._say_running(container_id)
        if self._stopping.is_set():
            self._kill()  # the request came while the container was starting, when there was nothing to stop

    def _say_running(self, container_id: str) -> None:
        recorded = _place(self.run.kind, self._look(container_id)) if self.run.kind.is_server else {}
        if not self._move(Status.RUNNING, recorded=recorded) and recorded:
            self._context.store.runs.record(self.run, **recorded)
        self._refresh()
        if self._running_since is None:
            self._running_since = time.monotonic() - self._context.store.runs.seconds_since_running(self.run)

    def _wait(self, container_id: str, waiter: Waiter, follower: Follower) -> ContainerState | None:
        """Until the container has ended; its output is followed meanwhile.

        None: by the engine's own word it ended with exit code 0, and its output came to an orderly end. Everything
        else is looked at: a container that is gone, killed or cut off tells more than its exit code.
        """
        while True:
            follower.follow(waiter)
            code = waiter.wait(LOOK_S)
            if code == 0 and follower.is_orderly and not self._engine_was_away and not self._context.link.has_failed:
                return None
            state = self._look(container_id)
            if state.is_finished:
                return state
            if state.is_running:  # it has outlived what was in between; and the end of the stream was none
                self._engine_was_away = follower.is_orderly = False
            if code is not None:
                # the event comes a moment before the engine's own records; or it was of the attempt before
                threading.Event().wait(0.005)
                state = self._look(container_id)
                if state.is_finished:
                    return state
                waiter.forget()

    def _ending(self, exit_code: int, out_of_memory: bool, *, was_signalled: bool = False) -> Ending:
        run = self._context.store.runs.by_pk(self.run.pk)
        resources = self.run.specification.environment.resources
        return Ending(
            exit_code=exit_code,
            out_of_memory=out_of_memory,
            stop_requested=run.stop_requested_at is not None,
            deleted=run.deleted_at is not None,
            engine_was_away=self._engine_was_away,
            was_signalled=was_signalled,
            was_unseen=self._was_unseen,
            was_rebooted=self._was_unseen and not self._was_followed and self.seconds_running > clock.uptime_s(),
            was_told=self._was_told,
            time_limit_s=(self.time_limit_s or 0.0) if run.stop_reason == outcome.TIME_LIMIT else None,
            disk_was_full=bool(exit_code) and self._context.disk.problem() is not None,
            memory_limit_mib=container.limits(resources, self._context.link.capacity(with_gpus=False)).memory_mib,
            last_line=last_line(self._context.log_path(run)) if exit_code else "",
        )

    def _restarted(self, container_id: str, ending: Ending) -> bool:
        """Whether the run has another try: recorded first, so that a try is never given twice."""
        run, allowed = self.run, self._max_restarts
        if ending.is_lost:
            return self._again_after_loss(container_id, outcome.loss(ending))
        if not outcome.should_restart(ending, run.restarts, allowed):
            return False
        finished_at = self._look(container_id).finished_at
        recorded = {"restarts": run.restarts + 1, "restarted_after": finished_at}
        return self._record_restart(f"Exit code {ending.exit_code}: restart {run.restarts + 1} of {allowed}", recorded)

    def _again_after_loss(self, container_id: str, how: str) -> bool:
        """Whether a run that the engine lost has another try: in a container of its own, since nobody knows what the
        engine still has of the one before. The log says where its output begins."""
        run, allowed = self.run, self._max_losses
        again = not self._is_unwanted() and run.restarts < allowed
        words = f"engine-lost: {how}"
        with Follower(run, container_id, self._context) as follower:
            further = f"; what comes now is of another one, restart {run.restarts + 1} of {allowed}" if again else ""
            size = follower.mark(f"{words}: what it wrote last may be missing here{further}")
        if not again:
            return False
        recorded = {"restarts": run.restarts + 1, "container_id": None, "log_start": size}
        if not self._record_restart(f"{words}: restart {run.restarts + 1} of {allowed}", recorded):
            return False
        self._engine_was_away = False
        with suppress(EngineError):  # what stays behind is found by its label and removed later
            self._patiently(lambda: self._context.engine.remove(container_id))
        return True

    def _again_after_no_start(self, words: str) -> bool:
        """Whether a container that the engine would not start is tried once more. It would say the same again."""
        return False

    def _record_restart(self, message: str, recorded: Mapping[str, object]) -> bool:
        """False: the run is done by now, by its own report, and has no further try."""
        runs = self._context.store.runs
        if not self._move(Status.WARNING, message, recorded=recorded):
            if is_done(runs.by_pk(self.run.pk).status):
                return False
            runs.record(self.run, **recorded)  # it is `warning` already: said once more
            runs.note(self.run, message)
        self._refresh()
        return True

    @property
    def _max_restarts(self) -> int:
        return self.run.specification.environment.max_restarts or 0

    @property
    def _max_losses(self) -> int:
        """How often a run begins again that the engine lost."""
        return self._max_restarts

    def _is_unwanted(self) -> bool:
        run = self._context.store.runs.by_pk(self.run.pk)
        wanted = run.stop_requested_at is None and run.deleted_at is None and not is_done(run.status)
        return self._stopping.is_set() or not wanted

    def _hand_over_outputs(self, container_id: str | None) -> None:
        for folder in self._handed_out():
            self._hand_over(container_id, folder)

    def _handed_out(self) -> list[Path]:
        """Folders that the container may write to."""
        folders = [self._context.outputs_path(self.run)]
        if self.run.kind == Kind.NOTEBOOK:
            folders.append(self._context.home.work(self.run.uuid))
        return folders

    def _hand_over(self, container_id: str | None, folder: Path) -> None:
        """By the image of the container; where that is gone, by the one that it was made from."""
        context = self._context

        def reclaim() -> str | None:
            if not ownership.has_foreign(folder, context.uid):
                return None
            image = context.engine.inspect(container_id).image_id if container_id else self._image()
            return ownership.reclaim(folder, context.uid, context.gid, context.engine, image, context.installation)

        try:
            problem = self._patiently(reclaim)
        except (ContainerMissing, NotFound):
            problem = "outputs may belong to another user: the container was removed before they were handed over"
        if problem:
            log.warning("run=%s: %s", self.run.label, problem)
            context.store.runs.note(self.run, problem)

    # -- small things ---------------------------------------------------------------------------------------------

    def _finish(self, end: Outcome, **recorded: object) -> None:
        """The final status, then the container: nothing of the run is needed any more."""
        context, run = self._context, self.run
        if run.kind == Kind.NOTEBOOK:
            workspace.put_away(run, context)
        if (ended := self._end(end, recorded)) is not None:
            log.info("run=%s %s: %s", run.label, ended.status, ended.message)
        if run.container_id and self._must_check_log:
            with Follower(run, run.container_id, context) as follower:
                follower.is_orderly = True  # or else it would have been looked at before
                self._patiently(follower.complete)
        shutil.rmtree(context.home.handover(run.uuid), ignore_errors=True)
        if run.container_id and not run.ttl:
            with suppress(EngineError):  # what stays behind is found by its label and removed later
                self._patiently(lambda: context.engine.remove(run.container_id or ""))

    def _end(self, end: Outcome, recorded: Mapping[str, object]) -> Outcome | None:
        """Record the final status, and return it. None: the run had one already."""
        return end if self._move(end.status, end.message, details=end.details, recorded=recorded) else None

    def _give_up(self, end: Outcome) -> bool:
        """`_finish` where nothing is certain any more. False: even that can't be kept."""
        try:
            self._finish(end)
        except (StoreError, OSError) as error:
            log.warning("run=%s: put off, %s", self.run.label, error)
            return False
        return True

    def _image(self) -> str:
        """The image of the run's build. Raises NotFound."""
        build = self._context.store.runs.by_pk(self.run.build_pk or 0)
        return build.image_id or container.image_name(build)

    def _stopped(self) -> Outcome:
        run, kind = self._context.store.runs.by_pk(self.run.pk), self.run.kind
        if run.stop_reason == outcome.TIME_LIMIT and not run.deleted_at:
            return outcome.timed_out(self.time_limit_s or 0.0)
        return Outcome(Status.STOPPED, (outcome.DELETED if run.deleted_at else outcome.STOPPED)[kind])

    def _kill(self) -> None:
        container_id = self.run.container_id
        if container_id:
            grace_s = self._context.settings.grace_s
            threading.Thread(
                target=self._stop_container, args=(container_id, grace_s), name=f"stop {self.run.label}", daemon=True
            ).start()

    def _stop_container(self, container_id: str, grace_s: float) -> None:
        try:
            if not self._terminated(container_id, grace_s):
                self._patiently(lambda: self._context.engine.stop(container_id, grace_s))
        except EngineError as error:
            log.warning("run=%s: the engine would not stop it, it is asked again: %s", self.run.label, error)
            self._stopping.clear()

    def _terminated(self, container_id: str, grace_s: float) -> bool:
        """Tells every process of the container once, and kills it after the grace. False: they could not be told."""
        engine = self._context.engine
        self._was_told = True  # before the signal: the program's end may be recorded while this thread still waits
        if not grace_s or not self._patiently(lambda: engine.terminate(container_id)):
            self._was_told = False
            return False
        until = time.monotonic() + grace_s
        if not self._patiently(lambda: engine.wait(container_id, max(0.0, until - time.monotonic()))):
            self._patiently(lambda: engine.kill(container_id))
        return True

    def _move(self, to: Status, message: str | None = None, **more: Any) -> bool:
        return self._context.store.runs.transition(self.run, to, message, **more)

    def _refresh(self) -> None:
        self.run = self._context.store.runs.by_pk(self.run.pk)

    def _look(self, container_id: str) -> ContainerState:
        return self._patiently(lambda: self._context.engine.inspect(container_id), self._note_trouble)

    def _note_trouble(self) -> None:
        self._engine_was_away = True

    def _patiently(self, call: Callable[[], T], on_trouble: Callable[[], None] = lambda: None) -> T:
        return self._context.link.patiently(call, on_trouble)


def _place(kind: Kind, state: ContainerState) -> dict[str, Any]:
    """Where the daemon reaches a server: at a port published on loopback, or at the container's own address."""
    if state.port is not None:
        return {"port": state.port, "address": None}
    return {"port": servers.PORTS[kind], "address": state.address}
