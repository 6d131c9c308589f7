"""Decides how a group ends from how its experiments ended. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from polylocal.polyaxonfile import HPTuning
from polylocal.statuses import Status

DONE = "All experiments are done"
FAILED = (Status.FAILED, Status.UPSTREAM_FAILED)


@dataclass(frozen=True)
class GroupOutcome:
    status: Status
    message: str
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Ended:
    """The experiments of a group after the last of them has ended.

    `counts`: their number by status. `reported`: the metrics that any of them reported, and whether one ended with a
    finite value. `build`: their common build, if it failed. `is_late`: the budget of seconds is used up.
    """

    counts: Mapping[str, int]
    reported: Mapping[str, bool] = field(default_factory=dict)
    build: str | None = None
    is_late: bool = False

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def failed(self) -> int:
        return sum(self.counts.get(status, 0) for status in FAILED)

    @property
    def shown(self) -> str:
        return ", ".join(f"{n} {status}" for status, n in sorted(self.counts.items())) or "none is left"


def too_many_failures(tuning: HPTuning, failures: int) -> str | None:
    """The reason why no further experiment of the search starts."""
    most = tuning.max_failures
    return f"{_experiments(failures)} failed, and `max_failures` is {most}" if most and failures >= most else None


def outcome(tuning: HPTuning, ended: Ended) -> GroupOutcome:
    """A search succeeds if at least one experiment has a result to choose."""
    if limit := too_many_failures(tuning, ended.failed):
        return _nothing(f"{limit}: {ended.shown}", ended, "max_failures")
    if ended.total and not ended.counts.get(Status.SUCCEEDED):
        return _without_success(ended)
    untold = [name for name in metrics(tuning) if name not in ended.reported] if ended.total else []
    compared = tuning.metric if ended.total and (tuning.hyperband or tuning.bo) else None
    if compared and not ended.reported.get(compared.name):
        without = f"No experiment ended with a finite value of the metric `{compared.name}`"
        why = _untold([compared.name]) if compared.name in untold else without
        return _nothing(f"{why}: {ended.shown}", ended, "metric")
    message = f"{DONE}: {ended.shown}"
    return GroupOutcome(
        Status.SUCCEEDED, f"{message}. {_untold(untold)}: early stopping judged none" if untold else message
    )


def metrics(tuning: HPTuning) -> list[str]:
    """The metrics that the search and its early stopping compare."""
    own = [tuning.metric.name] if tuning.metric else []
    return list(dict.fromkeys([*own, *(rule.metric for rule in tuning.early_stopping or [])]))


def _without_success(ended: Ended) -> GroupOutcome:
    if ended.failed == ended.total:
        way = f"All {_experiments(ended.total)} failed" if ended.total > 1 else "The only experiment failed"
        return _nothing(f"{way}: {ended.shown}", ended, "build" if ended.build else "experiments")
    if ended.failed or ended.is_late:
        late = "The budget is used up: " if ended.is_late else ""
        return _nothing(f"{late}No experiment of {ended.total} succeeded: {ended.shown}", ended, "experiments")
    way = f"All {_experiments(ended.total)} were stopped" if ended.total > 1 else "The only experiment was stopped"
    return GroupOutcome(Status.STOPPED, f"{way}: {ended.shown}")


def _nothing(message: str, ended: Ended, reason: str) -> GroupOutcome:
    build = {"build_job": ended.build} if ended.build else {}
    details = {"reason": reason, "experiments": ended.total, "failed": ended.failed, **build}
    return GroupOutcome(Status.FAILED, message, details)


def _experiments(number: int) -> str:
    return f"{number} experiment{'' if number == 1 else 's'}"


def _untold(names: Collection[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names)
    return f"No experiment reported the metric{'s' if len(names) > 1 else ''} {shown}"
