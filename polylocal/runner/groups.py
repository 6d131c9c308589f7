"""Groups: creates the experiments of a search, releases as many as may run at a time, and ends the group.

Each step first reads the rows and then records what it did, so a crash between two steps loses nothing. The
suggestions of an iteration follow from the results of the iterations before it; they are cached in memory only to save
time.
"""

import json
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress

from polylocal import clock
from polylocal.errors import InvalidInput, NotFound, SetupError
from polylocal.polyaxonfile import EarlyStopping, HPTuning, Specification, metadata_of_member, of_member
from polylocal.polyaxonfile.templating import has_template
from polylocal.runner import bayes, group_outcome, search
from polylocal.runner.group_outcome import FinishedGroup
from polylocal.runner.runner_context import RunnerContext
from polylocal.runner.search import Suggestion, Trial
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun
from polylocal.store.groups import ExperimentSummary, Progress
from polylocal.store.rows import Run

log = logging.getLogger(__name__)

CHUNK = 50  # experiments in one transaction: other writers must get their turn
EARLY_STOPPING = "Early stopping"
BUDGET_USED = "The budget is used up"


class Groups:
    """Advances groups. Not thread-safe: only the supervisor's thread calls it."""

    def __init__(self, context: RunnerContext, wake: Callable[[], None]) -> None:
        self._context = context
        self._wake = wake
        self._evaluated: dict[int, int] = {}  # by group: the newest metric when its early stopping was last evaluated
        self._bayes = bayes.OptimizerProcess()
        self._computed: dict[int, tuple[int, Future[list[Suggestion]]]] = {}  # by group: iteration, suggestions
        self._may_begin = True

    def advance_all(self, *, may_begin: bool = True) -> None:
        """Advance every open group by one step. `may_begin`: further experiments may be created and released."""
        self._may_begin = may_begin
        found = self._context.store.groups.open_groups()
        for pk in self._computed.keys() - {group.pk for group in found}:
            del self._computed[pk]
            self._evaluated.pop(pk, None)
        if not found:
            self._bayes.close()
        for group in found:
            try:
                self._advance_safely(group)
            except Exception:  # a bug in one group must not stop all other runs
                log.exception("run=%s: could not be advanced", group.label)

    def _advance_safely(self, group: Run) -> None:
        try:
            specification = group.specification
            self._advance(group, specification)
        except (InvalidInput, SetupError, ValueError, ArithmeticError) as error:
            self._fail(group, str(error))

    def _fail(self, group: Run, why: str) -> None:
        message = f"Experiment group could not create new suggestions: {why}"
        self._context.store.runs.transition(group, Status.FAILED, message, details={"reason": "search"})
        self._context.store.groups.stop(group, pending_only=True)

    def _advance(self, group: Run, specification: Specification) -> None:
        store, tuning = self._context.store, specification.hptuning
        if self._stop_early(group, tuning):
            return
        progress = store.groups.progress(group)
        is_late, is_full = _is_late(group, tuning), _is_full(tuning, progress)
        if is_late:
            store.groups.cancel_held(group, BUDGET_USED)
        is_hopeless = self._has_failed_too_often(group, specification, progress)
        is_over = is_late or is_full or is_hopeless
        plan = [] if is_over else self._suggestions(group, tuning)
        if plan is None:
            return  # the suggestions are being computed
        if not self._may_begin and (group.suggested < len(plan) or progress.open):
            return
        if group.suggested < len(plan):
            self._create_experiments(group, specification, plan, progress)
        elif progress.open:
            store.groups.release(group)
        elif group.suggested and not is_over:
            store.groups.advance(group)
        elif not progress.made and not group.iteration and not is_late:
            self._fail(group, "the search space is empty")
        else:
            self._end(group, specification, is_late=is_late)

    def _has_failed_too_often(self, group: Run, specification: Specification, progress: Progress) -> bool:
        """Whether failures prevent further experiments. Running experiments continue."""
        store = self._context.store
        if not progress.failed:
            return False
        if limit := group_outcome.too_many_failures(specification.hptuning, progress.failed):
            store.groups.cancel_pending(group, limit)
            return True
        build = store.groups.failed_build(group) if _has_one_build(group) else None
        if build:
            store.groups.fail_unresolved(group, "Build failed", {"build_job": build})
        return build is not None

    def _end(self, group: Run, specification: Specification, *, is_late: bool) -> None:
        store, tuning = self._context.store, specification.hptuning
        ended = FinishedGroup(
            store.groups.counts(group),
            store.groups.reported_metrics(group, group_outcome.metrics(tuning)),
            store.groups.failed_build(group),
            is_late,
        )
        end = group_outcome.outcome(tuning, ended)
        if store.runs.transition(group, end.status, end.message, details=end.details):
            log.info("run=%s %s: %s", group.label, end.status, end.message)

    def _suggestions(self, group: Run, tuning: HPTuning) -> list[Suggestion] | None:
        """The suggestions of the group's iteration; None: they are being computed, and the supervisor is woken then."""
        known = self._computed.get(group.pk)
        if known is None or known[0] != group.iteration:
            past = (
                _earlier_trials(tuning, self._context.store.groups.members(group), group.iteration)
                if group.iteration
                else []
            )
            known = (group.iteration, self._compute_suggestions(group, tuning, past))
            self._computed[group.pk] = known
        found = known[1]
        return found.result() if found.done() else None

    def _compute_suggestions(self, group: Run, tuning: HPTuning, past: search.Past) -> Future[list[Suggestion]]:
        found: Future[list[Suggestion]] = Future()

        def compute() -> None:
            try:
                found.set_result(search.next_suggestions(tuning, group.uuid, past, self._bayes))
            except Exception as error:  # raised again where the result is read
                found.set_exception(error)

        if tuning.bo and past:  # a child process that takes seconds: neither the queue nor an exit waits for it
            found.add_done_callback(lambda done: self._wake())
            threading.Thread(target=compute, name=f"search {group.label}", daemon=True).start()
        else:
            compute()
        return found

    def _create_experiments(
        self, group: Run, specification: Specification, plan: Sequence[Suggestion], progress: Progress
    ) -> None:
        """Create the next chunk of the iteration's experiments."""
        store, budget = self._context.store, specification.hptuning.budget
        room = budget.n_experiments - progress.made if budget and budget.n_experiments else CHUNK
        wanted = plan[group.suggested : group.suggested + max(0, min(CHUNK, room))]
        new = [self._new_experiment(group, specification, suggestion) for suggestion in wanted]
        store.groups.suggest(group, store.projects.by_id(group.project_id), store.users.get(group.user), new)

    def _new_experiment(self, group: Run, specification: Specification, suggestion: Suggestion) -> NewRun:
        member = of_member(specification, suggestion.params)
        band, runs = specification.hptuning.hyperband, self._context.store.runs
        origin = None
        if suggestion.of is not None:
            with suppress(NotFound):  # it was deleted: its params are tried all the same
                origin = runs.find(Kind.EXPERIMENT, suggestion.of)
        is_resumed = bool(origin and band and band.resume)
        about = {
            "params": member.params or None,
            **metadata_of_member(member, group.name, group.description, group.tags),
            "framework": group.framework,
            "priority": group.priority,
            "iteration": group.iteration,
            "is_held": True,
        }
        return NewRun(
            Kind.EXPERIMENT,
            content=member.content,
            config=member.config,
            values=about,
            resources=member.config.get("environment", {}).get("resources"),
            code_id=group.code_id,
            build_pk=group.build_pk,
            group=group,
            original=origin,
            cloning_strategy=None if origin is None else "resume" if is_resumed else "restart",
            outputs=origin.outputs if origin and is_resumed else None,
        )

    def _stop_early(self, group: Run, tuning: HPTuning) -> bool:
        """Apply the early stopping policies: end bad experiments, and the whole search once its goal is reached."""
        if not tuning.early_stopping:
            return False
        newest = self._context.store.metrics.last_id()
        if self._evaluated.get(group.pk) == newest:
            return False  # no metric was reported since
        store = self._context.store
        for rule in tuning.early_stopping:
            if rule.policy:
                self._end_bad_experiments(group, rule)
            elif rule.value is not None and store.groups.has_reached(
                group, rule.metric, rule.value, maximize=rule.optimization == "maximize"
            ):
                store.groups.stop(group, pending_only=True, message=EARLY_STOPPING)
                log.info("run=%s stopped: %s has reached %s", group.label, rule.metric, rule.value)
                return True
        self._evaluated[group.pk] = newest  # after the evaluation: one that failed is repeated
        return False

    def _end_bad_experiments(self, group: Run, rule: EarlyStopping) -> None:
        store = self._context.store
        running = store.groups.running_experiments(group)
        series = store.metrics.series(group, rule.metric) if running else {}
        for pk, why in group_outcome.experiments_to_end(rule, series, running).items():
            run = store.runs.by_pk(pk)
            store.runs.note(run, why)
            store.runs.request_stop(run)


def _has_one_build(group: Run) -> bool:
    """Whether all experiments have the same build: it does not depend on their params."""
    return not has_template(json.dumps((group.config or {}).get("build")))


def _earlier_trials(tuning: HPTuning, members: Sequence[ExperimentSummary], iteration: int) -> list[list[Trial]]:
    metric = tuning.metric
    past: list[list[Trial]] = [[] for _ in range(iteration)]
    for member in members:
        if member.iteration < iteration:
            told = member.last_metric.get(metric.name) if metric else None
            # a failed or stopped experiment has no value, whatever it reported before
            value = float(told) if told is not None and member.status == Status.SUCCEEDED else None
            past[member.iteration].append(Trial(member.id, member.params, value))
    return past


def _is_late(group: Run, tuning: HPTuning) -> bool:
    seconds, started = tuning.budget and tuning.budget.seconds, group.started_at
    return bool(seconds and started and clock.seconds_between(started, clock.now()) >= seconds)


def _is_full(tuning: HPTuning, progress: Progress) -> bool:
    most = tuning.budget and tuning.budget.n_experiments
    return bool(most and progress.made >= most)
