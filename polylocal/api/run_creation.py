"""From a body to a run: everything that is checked before a run exists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from polylocal.api import bodies, secrets_owner
from polylocal.api.endpoint import Call, refuse
from polylocal.errors import InvalidInput, InvalidPolyaxonfile, NotFound, SetupError
from polylocal.files import data_folders
from polylocal.git import revisions
from polylocal.polyaxonfile import (
    ExperimentFile,
    GroupFile,
    Resources,
    Specification,
    asked,
    merge,
    of_member,
    parse,
    read,
    resources,
)
from polylocal.statuses import Kind
from polylocal.store import NewRun
from polylocal.store.rows import Project, Run
from polylocal.store.runs import build_key

_ABOUT = ("name", "description", "readme", "tags", "backend", "data_refs", "run_env", "ttl", "priority", "framework")
_INTRO = "Received non valid {kind} specification config."


def make(
    call: Call,
    kind: Kind,
    body: bodies.NewRunBody,
    *,
    of: Run | None = None,
    more: Mapping[str, Any] | None = None,
    secrets_user_id: int | None = None,
) -> Run:
    """A new run of a project. Raises InvalidInput.

    `of`: the experiment or the group that a tensorboard shows; `more`: columns that no body says;
    `secrets_user_id`: whose secrets the polyaxonfile names, where it is not the caller's own.
    """
    call.context.check_room()
    values = {name: getattr(body, name) for name in _ABOUT if getattr(body, name) is not None} | dict(more or {})
    group = _group(call, kind, body.experiment_group)
    if of:
        group = of if of.kind == Kind.GROUP else None
        values |= {"experiment_pk": of.pk} if of.kind == Kind.EXPERIMENT else {}
    params = body.params or body.declarations
    original = _original(call, kind, body.original_experiment)
    if body.source is None:
        # an experiment without a polyaxonfile is one that its client runs and reports
        if body.check_specification:
            raise InvalidInput({"non_field_errors": ["Experiment expects a `config`."]})
        if body.managed and kind not in (Kind.EXPERIMENT, Kind.GROUP):
            raise InvalidInput({"config": ["This field is required."]})
        if kind is Kind.GROUP:
            values |= {"group_type": "selection"}
        tracked = NewRun(kind, values={**values, "params": params, "is_managed": False}, original=original, group=group)
        return call.store.runs.insert(call.project, call.user, tracked)
    specification = _parse(body, kind, params)
    if kind is Kind.GROUP:
        _check_members(specification, body.source_field)
    secrets_user_id = secrets_user_id or call.user.id
    _check_environment(call, specification, body.source_field, secrets_user_id)
    _check_amounts(specification, body.source_field)
    # one that its client runs may run anywhere
    cuts = _check_resources(call, specification, body.source_field) if body.managed else []
    commit = _commit(call, specification, body.source_field)
    warnings = _warnings(call, specification, commit) + cuts
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
        group=group,
        warnings=[*without_effect(specification), *warnings],
        message=_ignored(specification),
        notes=warnings,
        secrets_user_id=secrets_user_id,
    )
    return call.store.runs.insert(call.project, call.user, new)


def clone(call: Call, original: Run, strategy: str, body: bodies.Cloning) -> Run:
    """A run made from another one: its polyaxonfile, changed where the body says so, on the same code."""
    call.context.check_room()
    kind = original.kind
    if original.config is None:
        raise refuse(f"The {kind} has no polyaxonfile to run again.")
    specification = _changed(original, kind, body)
    secrets_user_id = secrets_owner.of_clone(call.user, original, specification, wants_own=body.secrets == "mine")
    _check_environment(call, specification, "content", secrets_user_id)
    _check_amounts(specification, "content")
    cuts = _check_resources(call, specification, "content")
    if strategy == "resume" and original.cloning_strategy == "resume" and original.original_pk:
        original = call.store.runs.by_pk(original.original_pk)
    commit = _commit(call, specification, "content") if body.update_code else original.commit
    warnings = _warnings(call, specification, commit) + cuts
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
        group=call.store.runs.by_pk(original.group_pk) if original.group_pk and kind is Kind.EXPERIMENT else None,
        cloning_strategy=strategy,
        outputs=original.outputs if strategy == "resume" else None,
        warnings=[*without_effect(specification), *warnings],
        message=_first_words(call, specification, secrets_user_id),
        notes=warnings,
        secrets_user_id=secrets_user_id,
    )
    return call.store.runs.insert(call.project, call.user, new)


def _original(call: Call, kind: Kind, run_id: int | None) -> Run | None:
    if run_id is None or kind is not Kind.EXPERIMENT:
        return None
    try:
        return call.store.runs.get(call.project, kind, run_id)
    except NotFound as error:
        raise InvalidInput({"original_experiment": [f'Invalid pk "{run_id}" - object does not exist.']}) from error


def _group(call: Call, kind: Kind, group_id: int | None) -> Run | None:
    if group_id is None or kind is not Kind.EXPERIMENT:
        return None
    try:
        return call.store.runs.get(call.project, Kind.GROUP, group_id)
    except NotFound as error:
        raise refuse("Received an invalid group.") from error


def _parse(body: bodies.NewRunBody, kind: Kind, params: Mapping[str, Any] | None = None) -> Specification:
    try:
        return parse(body.source, kind, params if kind is Kind.EXPERIMENT else None, body.source_files)
    except InvalidPolyaxonfile as error:
        intro = _INTRO.format(kind=kind) if kind is not Kind.GROUP else "Received non valid specification content."
        raise InvalidInput({body.source_field: [f"{intro} {problem}" for problem in error.problems]}) from error


def _changed(original: Run, kind: Kind, body: bodies.Cloning) -> Specification:
    if body.source is None:
        return Specification(kind, original.content or "", original.config or {})
    try:
        above, _ = read(body.source)
        below, _ = read(original.content or json.dumps(original.config))
        if "params" in above and "declarations" in below:  # the older name of the same section
            below["params"] = below.pop("declarations")
        return parse(merge(below, above), kind)
    except InvalidPolyaxonfile as error:
        intro = _INTRO.format(kind=kind)
        raise InvalidInput([f"{intro} {problem}" for problem in error.problems]) from error


def _check_members(group: Specification, field: str) -> None:
    """The experiments must be possible: one is compiled to see."""
    tuning = group.hptuning
    try:
        of_member(group, tuning.sample)
    except InvalidPolyaxonfile as error:
        raise InvalidInput({field: [f"In its experiments: {problem}" for problem in error.problems]}) from error


def _check_amounts(specification: Specification, field: str) -> None:
    """The bounds of a body hold for what a polyaxonfile says in its place."""
    told = {specification.key_of_params: specification.params, "tags": specification.file.tags}
    try:
        bodies.read(bodies.ChangedRun, told)
    except InvalidInput as error:
        found = error.messages if isinstance(error.messages, Mapping) else {}
        where = specification.source.sentence
        raise InvalidInput({field: [where((key,), text) for key in found for text in found[key]]}) from error


def _check_resources(call: Call, specification: Specification, field: str) -> list[str]:
    """What the run asks for must be something that this machine can give. Returns what is cut to it.

    Where the engine has not answered yet, the runner judges as soon as it does.
    """
    found: list[str] = []
    cut: list[str] = []
    where = specification.source.sentence
    for wanted in _asked(specification, field):
        machine = call.context.capacity(resources.asks_for_gpus(wanted))
        found += [where(path, text) for path, text in resources.problems(wanted, machine)]
        cut += [where(path, text) for path, text in resources.cuts(wanted, machine)] if machine else []
    if found:
        raise InvalidInput({field: list(dict.fromkeys(found))})
    return list(dict.fromkeys(cut))


def _asked(specification: Specification, field: str) -> list[Resources | None]:
    try:
        return list(asked(specification))
    except InvalidPolyaxonfile as error:
        raise InvalidInput({field: [f"In its experiments: {problem}" for problem in error.problems]}) from error


def _check_environment(call: Call, specification: Specification, field: str, secrets_user_id: int) -> None:
    """What the run names outside of itself must be there: data folders, secrets, outputs of other runs."""
    _check_data(call, specification, field)
    owner = call.user if secrets_user_id == call.user.id else call.store.users.by_id(secrets_user_id)
    for name, keys in specification.secrets.items():
        try:
            found = call.context.secret_store.read(owner.username, name, keys, identity=owner.identity)
        except NotFound as error:
            raise _problem(specification, field, specification.path_of_secret(name), str(error)) from error
        if both := sorted(set(found) & set(specification.environment.variables)):
            message = f"the secret `{name}` sets this variable as well; take one of the two out."
            raise _problem(specification, field, ("environment", "env_vars", both[0]), message)
    for kind, wanted in specification.environment.references.items():
        for index, name in enumerate(wanted):
            try:
                call.store.runs.named(call.project, kind, name)
            except NotFound as error:
                path, message = ("environment", "outputs", kind.plural, index), f"this project has no {kind} `{name}`."
                raise _problem(specification, field, path, message) from error


def _check_data(call: Call, specification: Specification, field: str) -> None:
    """Data folders that the run names, or that every run sees."""
    listed, environment = call.context.settings.data, specification.environment
    for name in environment.data_names:
        if name not in listed:
            raise _problem(specification, field, environment.path_of_data(name), data_folders.unknown(listed, name))
    if specification.kind is Kind.BUILD:  # builds see none
        return
    wants_all = environment.wants_all_data
    for name, folder in data_folders.chosen(listed, environment.data_names, all_of_them=wants_all).items():
        message = folder.problem(name)
        if message and folder.always:  # no part of the polyaxonfile is to blame
            raise InvalidInput({field: [message]})
        if message:
            raise _problem(specification, field, environment.path_of_data(name), message)


def _problem(specification: Specification, field: str, path: Sequence[str | int], message: str) -> InvalidInput:
    """What is wrong with a part of the polyaxonfile, told with its place."""
    return InvalidInput({field: [specification.source.sentence(path, message)]})


def _commit(call: Call, specification: Specification, field: str) -> str | None:
    """The commit that the run is built from: the one it names, or the newest; None without code."""
    build, repository = specification.build, call.context.repository(call.project)
    ref = build.ref if build.image and isinstance(build.ref, str) else None
    named, key = next(
        ((v, k) for v, k in ((build.commit, "commit"), (build.branch, "branch"), (ref, "ref")) if v), (None, "")
    )
    if named and not revisions.candidates(named):
        message = f"`{named[:100]}` names no commit: give {revisions.SYNTAX}."
        raise _problem(specification, field, ("build", key), message)
    commit = repository.resolve(named or "HEAD")
    if named and commit is None:
        message = f"the code of this project has no commit or branch `{named}`."
        raise _problem(specification, field, ("build", key), message)
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
        found = call.store.runs.named(project, Kind.BUILD, str(wanted))
    except NotFound as error:
        raise refuse(f"There is no build `{wanted}` in this project.") from error
    if not call.store.built_images.may_use(call.user, found):
        raise refuse(f"The image of build `{wanted}` holds the code of a project that you may not read.")
    return found


def _values_of(specification: Specification) -> dict[str, Any]:
    """What the polyaxonfile itself says about the run."""
    file = specification.file
    about: dict[str, Any] = {**specification.words, "backend": file.backend}
    if isinstance(file, GroupFile):
        tuning = file.hptuning
        about |= {"group_type": "study", "concurrency": tuning.concurrency, "search_algorithm": tuning.algorithm}
    if isinstance(file, ExperimentFile):
        about |= {"params": specification.params or None, "framework": file.framework}
    return {name: value for name, value in about.items() if value is not None}


def _first_words(call: Call, specification: Specification, secrets_user_id: int) -> str | None:
    """The message of a clone's first status."""
    words = [_ignored(specification)]
    if secrets_user_id != call.user.id and secrets_owner.names_secrets(specification):
        words.append(f"With the secrets of {call.store.users.by_id(secrets_user_id).username}")
    return "; ".join(filter(None, words)) or None


def _ignored(specification: Specification) -> str | None:
    if not specification.ignored:
        return None
    return f"Without effect on a single node: {', '.join(specification.ignored)}"


def without_effect(specification: Specification) -> list[str]:
    """Keys that are accepted and that one node has no use for, a sentence each."""
    return [f"`{key}` has no effect on a single node." for key in specification.ignored]


def _warnings(call: Call, specification: Specification, commit: str | None) -> list[str]:
    """What is likely not meant, an entry each in the history of the run."""
    return [*specification.undefined, *_unused_parts_of_the_build(specification), *_lacks(call, commit)]


def _lacks(call: Call, commit: str | None) -> list[str]:
    """What the code of another repository names and does not hold."""
    if commit is None or not call.project.git_url:
        return []
    try:
        return call.context.repository(call.project).lacks(commit).sentences()
    except (NotFound, SetupError):
        return []  # damaged or lost code: its build says so


def _unused_parts_of_the_build(specification: Specification) -> list[str]:
    """Parts of a rendered Dockerfile, where the image comes from a Dockerfile of the user's own or another build."""
    build = specification.build
    if build.image:
        return []
    source = "dockerfile" if build.dockerfile else "ref"
    names = [name for name in ("build_steps", "lang_env") if getattr(build, name)]
    told = {name: f"it has no effect beside `{source}`, which the image comes from." for name in names}
    if build.env_vars and specification.kind is Kind.BUILD:
        told["env_vars"] = f"the image comes from `{source}` without them; runs with this build section get them."
    return [specification.source.sentence(("build", name), text) for name, text in told.items()]
