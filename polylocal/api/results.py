"""The results of the experiments of a group: the best one, the table, and the importance of each param."""

import csv
import io
import itertools
from collections.abc import Sequence

from polylocal import clock
from polylocal.api.shapes import Json
from polylocal.api.shapes.base import as_shape
from polylocal.api.shapes.experiments import GroupResults, ResultItem
from polylocal.api.shapes.runs import BestExperiment
from polylocal.polyaxonfile import SearchMetric
from polylocal.statuses import Status
from polylocal.store import Store
from polylocal.store.groups import ExperimentSummary
from polylocal.store.rows import Run

MIN_EXPERIMENTS = 4  # experiments that the importance of a param is computed from


def metric_of(group: Run) -> SearchMetric | None:
    if not group.config:
        return None
    return group.specification.hptuning.metric


def best(store: Store, group: Run, named: SearchMetric | None = None) -> BestExperiment | None:
    """The best experiment by the metric `named`, or by that of the search; None: no metric, or no value of it."""
    metric = named or metric_of(group)
    return _best(group, _rank(store.groups.members(group), metric), metric) if metric else None


def results(store: Store, group: Run, named: SearchMetric | None = None) -> GroupResults:
    """The table of all experiments, the best first, by the same metric."""
    metric = named or metric_of(group)
    members = store.groups.members(group)
    ranked = _rank(members, metric) if metric else members
    return {
        "metric": metric.name if metric else None,
        "optimization": metric.optimization if metric else None,
        "best_experiment": _best(group, ranked, metric) if metric else None,
        "importance": _importance(members, metric) if metric else {},
        "results": [_item(group, member) for member in ranked],
    }


def as_csv(table: GroupResults) -> str:
    """A row for each experiment, a column for each param (`params.x`) and each metric (`metric.x`).

    Values that are not finite are `nan`, `inf` or `-inf`, which readers of CSV know.
    """
    rows = table["results"]
    params = list(dict.fromkeys(name for row in rows for name in row["params"]))
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["id", "unique_name", "status", "iteration", "seconds"]
    writer.writerow([*head, *(f"params.{name}" for name in params), *(f"metric.{name}" for name in metrics)])
    for row in rows:
        about = [row["id"], row["unique_name"], row["status"], row["iteration"], row["seconds"]]
        measured = {**row["metrics"], **row.get("not_finite", {})}
        values = [row["params"].get(name) for name in params] + [measured.get(name) for name in metrics]
        writer.writerow([*about, *values])
    return text.getvalue()


def _best(group: Run, ranked: Sequence[ExperimentSummary], metric: SearchMetric) -> BestExperiment | None:
    if not ranked or _value(ranked[0], metric) is None:
        return None
    first = ranked[0]
    return {
        "id": first.id,
        "unique_name": _name(group, first),
        "metric": metric.name,
        "value": first.last_metric[metric.name],
        "params": first.params,
    }


def _item(group: Run, member: ExperimentSummary) -> ResultItem:
    took = member.has_begun and member.started_at and member.finished_at
    return as_shape(
        ResultItem,
        member,
        unique_name=_name(group, member),
        metrics=member.last_metric,
        not_finite=member.last_metric_not_finite,
        seconds=clock.seconds_between(member.started_at or "", member.finished_at or "") if took else None,
    )


def _name(group: Run, member: ExperimentSummary) -> str:
    return f"{group.unique_name}.{member.id}" if member.is_own else f"{group.project}.{member.id}"


def _value(member: ExperimentSummary, metric: SearchMetric) -> float | None:
    """The last value of an experiment that succeeded; None: it failed, so its value is not comparable."""
    return member.last_metric.get(metric.name) if member.status == Status.SUCCEEDED else None


def _rank(members: Sequence[ExperimentSummary], metric: SearchMetric) -> list[ExperimentSummary]:
    sign = -1 if metric.optimization == "maximize" else 1

    def key(member: ExperimentSummary) -> tuple[bool, float]:
        value = _value(member, metric)
        return value is None, sign * (value or 0.0)

    return sorted(members, key=key)


def _importance(members: Sequence[ExperimentSummary], metric: SearchMetric) -> dict[str, float]:
    """The squared rank correlation of each numeric param with the metric. Params with one value are left out."""
    import statistics  # large, and used only here

    valued = [(member.params, value) for member in members if (value := _value(member, metric)) is not None]
    names = dict.fromkeys(name for params, _ in valued for name in params)
    found = {}
    for name in names:
        pairs = [(params[name], value) for params, value in valued if _is_number(params.get(name))]
        xs, ys = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        if len(pairs) >= MIN_EXPERIMENTS and len(set(xs)) > 1 and len(set(ys)) > 1:
            found[name] = round(statistics.correlation(_ranks(xs), _ranks(ys)) ** 2, 4)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value. Equal values have the mean of their ranks."""
    ranks: dict[float, float] = {}
    start = 0
    for value, equal in itertools.groupby(sorted(values)):
        count = sum(1 for _ in equal)
        ranks[value] = start + (count - 1) / 2
        start += count
    return [ranks[value] for value in values]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parameters(metric: str | None, optimization: str | None) -> SearchMetric | None:
    """The metric of a query string; None: it names none. Raises ValueError: the optimization is unknown."""
    wanted: Json = {"name": metric, "optimization": optimization or "maximize"}
    return SearchMetric.model_validate(wanted) if metric else None
