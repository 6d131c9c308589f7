"""From a body to a run: everything that is checked before a run exists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from polylocal.api import bodies
from polylocal.api.endpoint import Call, refuse
from polylocal.errors import InvalidInput, InvalidPolyaxonfile, NotFound
from polylocal.polyaxonfile import ExperimentFile, Specification, merge, parse, read
from polylocal.statuses import Kind
from polylocal.store import NewRun
from polylocal.store.rows import Project, Run
from polylocal.store.runs import build_key

_ABOUT = ("name", "description", "readme", "tags", "backend", "data_refs", "run_env", "ttl", "priority", "framework")


def make(call: Call, kind: Kind, body: bodies.NewRunBody) -> Run:
    """A new run of a project. Raises InvalidInput."""
    values = {name: getattr(body, name) for name in _ABOUT if getattr(body, name) is not None}
    params = body.params or body.declarations
    original = _original(call, kind, body.original_experiment)
    if body.source is None:
        # an experiment without a polyaxonfile is one that its client runs and reports
        if body.check_specification:
            raise InvalidInput({"non_field_errors": ["Experiment expects a `config`."]})
        if body.managed and kind is not Kind.EXPERIMENT:
            raise InvalidInput({"config": ["This field is required."]})
        tracked = NewRun(kind, values={**values, "params": params, "is_managed": False}, original=original)
        return call.store.runs.insert(call.project, call.user, tracked)
    specification = _parse(body.source, kind, body.source_field, params)
    _check_data(call, specification, body.source_field)
    commit = _commit(call, specification, body.source_field)
    new = NewRun(
        kind,
        content=specification.content,
        config=specification.config,
        values={**_values_of(specification), **values, "is_managed": body.managed},
        resources=specification.config.get("environment", {}).get("resources"),
        code_id=_code(call, commit, specification),
        build_pk=_build(call, kind, body.build_job, specification),
        build_key=build_key(call.project.id, specification.build_config(), commit) if kind is Kind.BUILD else None,
        original=original,
        message=_warning(specification),
    )
    return call.store.runs.insert(call.project, call.user, new)


def clone(call: Call, original: Run, strategy: str, body: bodies.Cloning) -> Run:
    """A run made from another one: its polyaxonfile, changed where the body says so, on the same code."""
    kind = Kind(original.kind)
    if original.config is None:
        raise refuse(f"The {kind} has no polyaxonfile to run again.")
    specification = _changed(original, kind, body)
    _check_data(call, specification, "content")
    if strategy == "resume" and original.cloning_strategy == "resume" and original.original_pk:
        original = call.store.runs.by_pk(original.original_pk)
    commit = _commit(call, specification, "content") if body.update_code else original.commit
    values = {name: value for name, value in body.given().items() if name in _ABOUT and value is not None}
    new = NewRun(
        kind,
        content=specification.content,
        config=specification.config,
        values={**_values_of(specification), **values, "priority": values.get("priority", original.priority)},
        resources=specification.config.get("environment", {}).get("resources"),
        code_id=_code(call, commit, specification) if body.update_code else original.code_id,
        build_pk=_build(call, kind, None, specification),
        original=original,
        cloning_strategy=strategy,
        outputs=original.outputs if strategy == "resume" else None,
        message=_warning(specification),
    )
    return call.store.runs.insert(call.project, call.user, new)


def _original(call: Call, kind: Kind, run_id: int | None) -> Run | None:
    if run_id is None or kind is not Kind.EXPERIMENT:
        return None
    try:
        return call.store.runs.get(call.project, kind, run_id)
    except NotFound as error:
        raise InvalidInput({"original_experiment": [f'Invalid pk "{run_id}" - object does not exist.']}) from error


def _parse(
    source: Mapping[str, Any] | str, kind: Kind, field: str, params: Mapping[str, Any] | None = None
) -> Specification:
    try:
        return parse(source, kind, params if kind is Kind.EXPERIMENT else None)
    except InvalidPolyaxonfile as error:
        intro = f"Received non valid {kind} specification config."
        raise InvalidInput({field: [f"{intro} {problem}" for problem in error.problems]}) from error


def _changed(original: Run, kind: Kind, body: bodies.Cloning) -> Specification:
    if body.source is None:
        return Specification(kind, original.content or "", original.config or {})
    try:
        above, _ = read(body.source)
        below, _ = read(original.content or json.dumps(original.config))
        return parse(merge(below, above), kind)
    except InvalidPolyaxonfile as error:
        intro = f"Received non valid {kind} specification config."
        raise InvalidInput([f"{intro} {problem}" for problem in error.problems]) from error


def _check_data(call: Call, specification: Specification, field: str) -> None:
    known = call.services.settings.data
    unknown = [name for name in specification.environment.data_names if name not in known]
    if unknown:
        names = ", ".join(sorted(known)) or "none"
        message = f"environment.data_refs: no data folder `{unknown[0]}`; polylocal.toml [data] names {names}."
        raise InvalidInput({field: [message]})


def _commit(call: Call, specification: Specification, field: str) -> str | None:
    """The commit that the run is built from: the one it names, or the newest; None without code."""
    build, repository = specification.build, call.services.repository(call.project)
    named = build.commit or build.branch or (build.ref if build.image and isinstance(build.ref, str) else None)
    commit = repository.resolve(named or "HEAD")
    if named and commit is None:
        raise InvalidInput({field: [f"build: the code of this project has no commit or branch `{named}`."]})
    return commit


def _code(call: Call, commit: str | None, specification: Specification) -> int | None:
    if commit is None:
        return None
    branch = specification.build.branch or "master"
    return call.store.projects.reference_code(call.project, {"commit": commit, "head": commit, "branch": branch}).id


def _build(call: Call, kind: Kind, build_job: int | None, specification: Specification) -> int | None:
    """The build that a run names instead of describing one."""
    wanted: int | str | None = build_job if build_job is not None else specification.build.ref
    if wanted is None or kind is Kind.BUILD or (specification.build.image and build_job is None):
        return None
    return _find_build(call, call.project, wanted).pk


def _find_build(call: Call, project: Project, wanted: int | str) -> Run:
    try:
        if isinstance(wanted, int) or (wanted.isascii() and wanted.isdigit() and len(wanted) < 19):
            return call.store.runs.get(project, Kind.BUILD, int(wanted))
        return call.store.runs.named(project, Kind.BUILD, wanted)
    except NotFound as error:
        raise refuse(f"There is no build `{wanted}` in this project.") from error


def _values_of(specification: Specification) -> dict[str, Any]:
    """What the polyaxonfile itself says about the run."""
    file = specification.file
    about: dict[str, Any] = {
        "name": file.name,
        "description": file.description,
        "tags": file.tags,
        "backend": file.backend,
    }
    if isinstance(file, ExperimentFile):
        about |= {"params": specification.params or None, "framework": file.framework}
    return {name: value for name, value in about.items() if value is not None}


def _warning(specification: Specification) -> str | None:
    if not specification.ignored:
        return None
    return f"Without effect on a single node: {', '.join(specification.ignored)}"
