"""Early stopping: decides by the metrics which experiments to end, and whether the search is over. Pure.

Sources: the platform's rules; the median rule is that of Golovin et al., "Google Vizier" (2017).
"""

import math
import statistics
from collections.abc import Mapping, Sequence

from polylocal.polyaxonfile import EarlyStopping

Series = Mapping[int, Sequence[float]]  # values of one metric by experiment, the oldest first


def to_end(rule: EarlyStopping, series: Series, running: Sequence[int]) -> dict[int, str]:
    """The running experiments to end, each with the reason.

    They are judged at every `evaluation_interval`-th value that they tell, against what the others had told by then.
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
            limit = _limit(rule, own, others)
            if limit is not None and _worse(rule, _judged(rule, own), limit):
                ended[pk] = (
                    f"Early stopping: {rule.metric} {_judged(rule, own):g} after {step}, {policy.kind} {limit:g}"
                )
    return ended


def _judged(rule: EarlyStopping, values: Sequence[float]) -> float:
    """The value that the rule compares: the best so far for the median, the last one for the others."""
    if rule.policy and rule.policy.kind == "median":
        return max(values) if rule.optimization == "maximize" else min(values)
    return values[-1]


def _limit(rule: EarlyStopping, own: Sequence[float], others: Sequence[Sequence[float]]) -> float | None:
    """The value below (or above) which an experiment is ended; None: too few have come as far."""
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


def _worse(rule: EarlyStopping, value: float, limit: float) -> bool:
    return value < limit if rule.optimization == "maximize" else value > limit
