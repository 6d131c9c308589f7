"""What the API does differently for each kind of run. Pure. `shapes.runs.SHAPES` has the JSON objects of each kind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from polylocal.statuses import POLYAXON_KINDS, Kind


@dataclass(frozen=True)
class Traits:
    """The properties of one kind. The defaults are those of a run that only runs in a container."""

    noun: str = "Job"  # in messages of streams
    fault: str = "Received non valid {kind} specification config."  # before each problem of a polyaxonfile
    needs_file: bool = True  # a managed run needs a polyaxonfile
    without_file: Mapping[str, Any] = field(default_factory=dict)  # columns of a run without a polyaxonfile
    is_carried_out: bool = True  # has a container or a build, and so a log
    makes_image: bool = False
    has_checkout: bool = False  # the daemon checks out the commit that a client reports
    is_tracked: bool = False  # has params, metrics and a task, and may belong to a group
    has_experiments: bool = False  # the polyaxonfile describes experiments
    has_outputs: bool = False
    has_charts: bool = False
    is_started_by_ci: bool = False


TRAITS: Mapping[Kind, Traits] = {
    Kind.BUILD: Traits(makes_image=True, has_checkout=True, is_started_by_ci=True),
    Kind.JOB: Traits(has_outputs=True, is_started_by_ci=True),
    Kind.EXPERIMENT: Traits(
        noun="Experiment", needs_file=False, is_tracked=True, has_outputs=True, has_charts=True, is_started_by_ci=True
    ),
    Kind.GROUP: Traits(
        fault="Received non valid specification content.",
        needs_file=False,
        without_file={"group_type": "selection"},
        is_carried_out=False,
        has_experiments=True,
        has_charts=True,
        is_started_by_ci=True,
    ),
    Kind.NOTEBOOK: Traits(has_checkout=True),
    Kind.TENSORBOARD: Traits(),
    Kind.PACKAGE: Traits(),
}


def kinds_with(trait: str) -> list[Kind]:
    """The kinds of the Polyaxon API that have this trait."""
    return [kind for kind in POLYAXON_KINDS if getattr(TRAITS[kind], trait)]


def with_article(kind: Kind) -> str:
    return f"{'an' if kind is Kind.EXPERIMENT else 'a'} {kind}"
