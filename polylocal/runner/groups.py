"""Groups: make the experiments that a search asks for, let go as many as may run at a time, see the end."""

from __future__ import annotations

import itertools
import logging

from polylocal.errors import InvalidInput
from polylocal.polyaxonfile import Specification, of_config, of_member
from polylocal.runner import search
from polylocal.runner.tools import Tools
from polylocal.statuses import Kind, Status, is_done
from polylocal.store import NewRun
from polylocal.store.rows import Run

log = logging.getLogger(__name__)

CHUNK = 50  # experiments made in one go: others want to write, too


def tend(group: Run, tools: Tools) -> None:
    """One look at a group. Each step is recorded, so the next look goes on wherever this one ends."""
    try:
        is_complete = _suggest(group, tools)
    except (InvalidInput, ValueError, ArithmeticError) as error:
        message = f"Experiment group could not create new suggestions: {error}"
        tools.store.runs.transition(group, Status.FAILED, message, details={"reason": "search"})
        tools.store.groups.stop(group, pending_only=True)
        return
    counts = tools.store.groups.counts(group)
    if any(n for status, n in counts.items() if not is_done(status)):
        tools.store.groups.release(group)
    elif is_complete:
        shown = ", ".join(f"{n} {status}" for status, n in sorted(counts.items())) or "none is left"
        if tools.store.runs.transition(group, Status.SUCCEEDED, f"All experiments are done: {shown}"):
            log.info("run=%s succeeded: %s", group.label, shown)


def _suggest(group: Run, tools: Tools) -> bool:
    """Make the next chunk of experiments. True: all are made, which is the end of the first iteration."""
    if group.iteration:
        return True
    specification = of_config(Kind.GROUP, group.content or "", group.config or {})
    made = group.suggested
    wanted = itertools.islice(search.suggestions(specification.hptuning, group.uuid), made, made + CHUNK)
    new = [_experiment(group, specification, suggestion) for suggestion in wanted]
    if new:
        store = tools.store
        store.groups.suggest(group, store.projects.by_id(group.project_id), store.users.get(group.user), new)
        return False  # the hint of this brings the next look
    if not made:
        raise ValueError("the search space is empty")
    tools.store.runs.record(group, iteration=1)
    return True


def _experiment(group: Run, specification: Specification, suggestion: search.Suggestion) -> NewRun:
    member = of_member(specification, suggestion)
    about = {
        "params": member.params or None,
        "tags": group.tags,
        "framework": group.framework,
        "priority": group.priority,
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
    )
