"""The resources of a group's experiments, computed before the experiments exist. Pure."""

import itertools
import json
import re
from collections.abc import Iterator

from polylocal.polyaxonfile.models import Resources
from polylocal.polyaxonfile.specification import Specification, of_member
from polylocal.polyaxonfile.templating import has_template
from polylocal.statuses import Kind

_MAX_POINTS = 200  # each costs about a millisecond


def requested_resources(specification: Specification) -> Iterator[Resources | None]:
    """Yield the resources that a run requests. None: it requests none.

    A group yields the resources of its experiments, for each combination of the parameters that they depend on, up to
    200. A build yields nothing. Raises InvalidPolyaxonfile: an experiment of the group would be invalid.
    """
    if specification.kind is Kind.BUILD:
        return
    if specification.kind is not Kind.GROUP:
        yield specification.environment.resources
        return
    matrix = specification.hptuning.matrix or {}
    written = json.dumps((specification.config.get("environment") or {}).get("resources"))
    names = [name for name in matrix if re.search(rf"\b{re.escape(name)}\b", written)] if has_template(written) else []
    named = {name: matrix[name] for name in names}
    if not named:
        yield specification.environment.resources
        return
    if any(option.is_distribution and not option.pvalues for option in named.values()):
        return  # the values are not drawn yet; each experiment is checked before its build
    points = itertools.product(*(option.points for option in named.values()))
    for point in itertools.islice(points, _MAX_POINTS):
        suggestion = {**specification.hptuning.sample, **dict(zip(named, point, strict=True))}
        yield of_member(specification, suggestion).environment.resources
