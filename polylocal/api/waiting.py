"""Texts for the reasons why a run waits."""

import math
from collections.abc import Callable, Sequence

from polylocal.api.api_context import ApiContext
from polylocal.planning import queue
from polylocal.polyaxonfile.resources import format_number, in_words
from polylocal.statuses import is_done
from polylocal.store.rows import Run, User

_MAX_NAMES = 3


def waits_for(context: ApiContext, user: User, runs: Sequence[Run]) -> dict[int, str]:
    """The reasons of the runs that have not begun, by pk, as texts for this user."""
    pks = {run.pk for run in runs if not is_done(run.status) and not run.container_id}
    if not pks:
        return {}
    state = context.queue_state()  # first: a run that begins meanwhile still waits
    active = {run.pk for run in state.active}
    waiting = [run for run in context.store.queue.not_begun(held=pks) if run.pk not in active]
    decisions = queue.decide(
        waiting,
        state.active,
        context.capacity(False),
        context.settings.max_runs,
        prerequisites=queue.prerequisites(waiting, state.retries),
        pause=_pause(context),
    )

    def is_visible(holder: queue.Holder) -> bool:
        return user.is_superuser or holder.owner == user.username

    found: dict[int, str] = {}
    for run, decision in zip(waiting, decisions, strict=True):
        if run.pk not in pks:
            continue
        if isinstance(decision, queue.Wait):
            found[run.pk] = words(decision.reason, is_visible)
        elif isinstance(decision, queue.Begin) and run.kind.takes_slot:
            found[run.pk] = words(queue.Starting(), is_visible)
    return found


def _pause(context: ApiContext) -> queue.Pause | None:
    if problem := context.disk.problem():
        return queue.Pause("disk", problem)
    if problem := context.engine_state():
        return queue.Pause("engine", problem)
    problem = context.scheduler_state()
    return queue.Pause("scheduler", problem) if problem else None


def words(reason: queue.Reason, is_visible: Callable[[queue.Holder], bool]) -> str:
    """The text of a reason, as the end of "It waits for …". `is_visible`: whether the reader may know a run's name."""
    match reason:
        case queue.NoSlot(ahead=ahead, slots=slots):
            return f"a free slot: {ahead} before it, {slots} at a time"
        case queue.BehindBlockedRun(ahead=ahead, first=first, shortage=shortage):
            name = first.name if is_visible(first) else "the first one"
            return f"its turn: {ahead} before it, and {name} waits for {words(shortage, is_visible)}"
        case queue.Shortage(resource=resource, wanted=wanted, total=total):
            free = f"{_whole(resource, max(reason.free, 0.0))} of {_whole(resource, total)} free"
            return f"{in_words(resource, wanted)}: {free}{_held_by(reason.holders, is_visible)}"
        case queue.BuildPending(name=name):
            return f"its build, {name}"
        case queue.GroupLimit(group=group, limit=limit, active=active):
            return f"its group, {group}: {active} begun, {limit} at a time"
        case queue.Starting():
            return "the scheduler, which starts it next"
        case queue.Retry(in_s=in_s):
            return f"another try, in {math.ceil(in_s)} s"
        case queue.Pause(cause=cause, problem=problem):
            return f"the scheduler: {problem}" if cause == "scheduler" else problem


def _whole(resource: str, amount: float) -> str:
    """The amount without fractions of a MiB; fractions of a core stay."""
    return format_number(math.floor(amount) if resource == "memory" else amount)


def _held_by(holders: Sequence[queue.Holder], is_visible: Callable[[queue.Holder], bool]) -> str:
    """` (held by A, B and 2 others)`, the largest first."""
    largest = sorted(filter(is_visible, holders), key=lambda holder: -holder.amount)
    names = [holder.name for holder in largest[:_MAX_NAMES]]
    if others := len(holders) - len(names):
        plural = "" if others == 1 else "s"
        names.append(f"{others} other run{plural}" if names else f"{others} run{plural} of other users")
    if not names:
        return ""
    *most, last = names
    return f" (held by {', '.join(most)} and {last})" if most else f" (held by {last})"
