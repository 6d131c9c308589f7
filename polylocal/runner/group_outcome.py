"""Decides how a group ends from the ends of its experiments, and which experiments early stopping ends. Pure."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from polylocal.polyaxonfile import EarlyStopping, HPTuning
from polylocal.runner.outcome import Outcome
from polylocal.statuses import Status

DONE = "All experiments are done"
FAILED = (Status.FAILED, Status.UPSTREAM_FAILED)

Series = Mapping[int, Sequence[float]]  # values of one metric by experiment, the oldest first


@dataclass(frozen=True)
class FinishedGroup:
    """A group whose experiments have all ended.

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
    def counts_as_text(self) -> str:
        return ", ".join(f"{n} {status}" for status, n in sorted(self.counts.items())) or "none is left"


def too_many_failures(tuning: HPTuning, failures: int) -> str | None:
    """The reason why no further experiment of the search starts."""
    most = tuning.max_failures
    return f"{_experiments(failures)} failed, and `max_failures` is {most}" if most and failures >= most else None


def outcome(tuning: HPTuning, ended: FinishedGroup) -> Outcome:
    """The end of a search. It succeeds if at least one experiment has a result that can be chosen."""
    if limit := too_many_failures(tuning, ended.failed):
        return _no_result(f"{limit}: {ended.counts_as_text}", ended, "max_failures")
    if ended.total and not ended.counts.get(Status.SUCCEEDED):
        return _without_success(ended)
    not_reported = [name for name in metrics(tuning) if name not in ended.reported] if ended.total else []
    compared = tuning.metric if ended.total and (tuning.hyperband or tuning.bo) else None
    if compared and not ended.reported.get(compared.name):
        without = f"No experiment ended with a finite value of the metric `{compared.name}`"
        why = _metric_not_reported([compared.name]) if compared.name in not_reported else without
        return _no_result(f"{why}: {ended.counts_as_text}", ended, "metric")
    message = f"{DONE}: {ended.counts_as_text}"
    return Outcome(
        Status.SUCCEEDED,
        f"{message}. {_metric_not_reported(not_reported)}: early stopping judged none" if not_reported else message,
    )


def metrics(tuning: HPTuning) -> list[str]:
    """The metrics that the search and its early stopping compare."""
    own = [tuning.metric.name] if tuning.metric else []
    return list(dict.fromkeys([*own, *(rule.metric for rule in tuning.early_stopping or [])]))


def _without_success(ended: FinishedGroup) -> Outcome:
    if ended.failed == ended.total:
        way = f"All {_experiments(ended.total)} failed" if ended.total > 1 else "The only experiment failed"
        return _no_result(f"{way}: {ended.counts_as_text}", ended, "build" if ended.build else "experiments")
    if ended.failed or ended.is_late:
        late = "The budget is used up: " if ended.is_late else ""
        message = f"{late}No experiment of {ended.total} succeeded: {ended.counts_as_text}"
        return _no_result(message, ended, "experiments")
    way = f"All {_experiments(ended.total)} were stopped" if ended.total > 1 else "The only experiment was stopped"
    return Outcome(Status.STOPPED, f"{way}: {ended.counts_as_text}")


def _no_result(message: str, ended: FinishedGroup, reason: str) -> Outcome:
    build = {"build_job": ended.build} if ended.build else {}
    details = {"reason": reason, "experiments": ended.total, "failed": ended.failed, **build}
    return Outcome(Status.FAILED, message, details)


def _experiments(number: int) -> str:
    return f"{number} experiment{'' if number == 1 else 's'}"


def _metric_not_reported(names: Collection[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names)
    return f"No experiment reported the metric{'s' if len(names) > 1 else ''} {shown}"


def experiments_to_end(rule: EarlyStopping, series: Series, running: Sequence[int]) -> dict[int, str]:
    """The running experiments that an early stopping rule ends, each with the reason.

    Each experiment is compared at every `evaluation_interval`-th value with the values that the others had reported by
    then. Sources: the platform's rules; the median rule is that of Golovin et al., "Google Vizier" (2017).
    """
    policy = rule.policy
    if policy is None:
        return {}
    ended = {}
    for pk in running:
        step = len(series.get(pk, ())) // policy.evaluation_interval * policy.evaluation_interval
        others = [values[:step] for other, values in series.items() if other != pk and len(values) >= step]
        if step and others:
            own = series[pk][:step]
            value, limit = _compared_value(rule, own), _limit(rule, own, others)
            if limit is not None and (value < limit if rule.optimization == "maximize" else value > limit):
                ended[pk] = f"Early stopping: {rule.metric} {value:g} after {step}, {policy.kind} {limit:g}"
    return ended


def _compared_value(rule: EarlyStopping, values: Sequence[float]) -> float:
    """The value that the rule compares: the best so far for the median, the last one for the others."""
    if rule.policy and rule.policy.kind == "median":
        return max(values) if rule.optimization == "maximize" else min(values)
    return values[-1]


def _limit(rule: EarlyStopping, own: Sequence[float], others: Sequence[Sequence[float]]) -> float | None:
    """The value below (or above) which an experiment is ended; None: too few experiments have as many values."""
    import statistics  # large, and used only here

    policy = rule.policy
    if policy is None:
        return None
    if policy.kind == "median":
        return statistics.median(statistics.fmean(values) for values in others)
    last = [values[-1] for values in others]
    if policy.kind == "average":
        return statistics.fmean(last)
    ranked = sorted([*last, own[-1]], reverse=rule.optimization == "maximize")  # the best first
    cut = math.floor(len(ranked) * (policy.percent or 0) / 100)
    return ranked[len(ranked) - cut - 1] if cut else None
