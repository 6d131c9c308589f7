"""Checks the body of a new run or of a clone, and returns the run to insert. Writes nothing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from polylocal.api import bodies, secrets_owner
from polylocal.api.api_context import ApiContext
from polylocal.api.kinds import TRAITS
from polylocal.errors import InvalidInput, InvalidPolyaxonfile, NotFound, SetupError
from polylocal.files import data_folders
from polylocal.git import revisions
from polylocal.polyaxonfile import (
    ExperimentFile,
    GroupFile,
    Resources,
    Specification,
    merge,
    of_member,
    parse,
    read,
    requested_resources,
    resources,
)
from polylocal.statuses import Kind
from polylocal.store import NewRun
from polylocal.store.rows import Project, Run, User
from polylocal.store.runs import build_key

_COPIED = ("name", "description", "readme", "tags", "backend", "data_refs", "run_env", "ttl", "priority", "framework")


def check(
    project: Project,
    user: User,
    kind: Kind,
    body: bodies.NewRunBody,
    context: ApiContext,
    *,
    shown: Run | None = None,
    secrets_user_id: int | None = None,
) -> NewRun:
    """Check a new run. `store.runs.insert` creates it.

    `shown`: the experiment or the group that a tensorboard shows. `secrets_user_id`: the user whose secrets the
    polyaxonfile names; None: `user`. Raises InvalidInput with all messages; StoreError: the disk is full.
    """
    context.check_room()
    values = {name: getattr(body, name) for name in _COPIED if getattr(body, name) is not None}
    traits = TRAITS[kind]
    original = group = None
    if shown and shown.kind is Kind.EXPERIMENT:
        values["experiment_pk"] = shown.pk
    elif shown:
        group = shown
    if traits.is_tracked:
        group = _find(project, Kind.GROUP, body.experiment_group, context, ["Received an invalid group."])
        unknown = {"original_experiment": [f'Invalid pk "{body.original_experiment}" - object does not exist.']}
        original = _find(project, Kind.EXPERIMENT, body.original_experiment, context, unknown)
    if body.source is None:
        return NewRun(kind, values={**values, **_values_without_file(kind, body)}, original=original, group=group)
    specification = _parse(body, kind)
    if traits.has_experiments:
        _check_members(specification, body.source_field)
    checks = _Checks(project, user, context, specification, body.source_field, secrets_user_id or user.id)
    cuts = checks.check_all(with_resources=body.managed)  # a run that its client executes may use any machine
    commit = checks.find_commit()
    return replace(
        checks.new_run(commit, cuts),
        values={**_columns_of(specification), **values, "is_managed": body.managed},
        code=_code_reference(commit, specification),
        build_pk=checks.find_build(body.build_job),
        build_key=build_key(project.id, specification.build_config(), commit) if traits.makes_image else None,
        original=original,
        group=group,
        message=_ignored_keys_message(specification),
    )


def check_clone(
    project: Project, user: User, original: Run, strategy: str, body: bodies.Cloning, context: ApiContext
) -> NewRun:
    """Check a clone: the polyaxonfile of another run with the changes of the body, on the same code.

    `strategy`: `restart`, `resume` or `copy`. Raises InvalidInput; NotAllowed: the secrets are another user's;
    StoreError: the disk is full.
    """
    context.check_room()
    kind, store = original.kind, context.store
    if original.config is None:
        raise InvalidInput([f"The {kind} has no polyaxonfile to run again."])
    specification = _merged_specification(original, body)
    secrets_user_id = secrets_owner.of_clone(user, original, specification, wants_own=body.secrets == "mine")
    checks = _Checks(project, user, context, specification, "content", secrets_user_id)
    cuts = checks.check_all()
    if strategy == "resume" and original.cloning_strategy == "resume" and original.original_pk:
        original = store.runs.by_pk(original.original_pk)
    commit = checks.find_commit() if body.update_code else original.commit
    values = {name: value for name, value in body.given().items() if name in _COPIED and value is not None}
    return replace(
        checks.new_run(commit, cuts),
        values={**_columns_of(specification), **values, "priority": values.get("priority", original.priority)},
        code=_code_reference(commit, specification) if body.update_code else None,
        code_id=None if body.update_code else original.code_id,
        build_pk=checks.find_build(None),
        original=original,
        group=store.runs.by_pk(original.group_pk) if original.group_pk and TRAITS[kind].is_tracked else None,
        cloning_strategy=strategy,
        outputs=original.outputs if strategy == "resume" else None,
        message=checks.first_message(),
    )


def without_effect(specification: Specification) -> list[str]:
    """A sentence for each key that is accepted and has no effect on a single node."""
    return [f"`{key}` has no effect on a single node." for key in specification.ignored]


@dataclass(frozen=True)
class _Checks:
    """The checks of one polyaxonfile against a project, a user and this machine. `field`: its field in the body."""

    project: Project
    user: User
    context: ApiContext
    specification: Specification
    field: str
    secrets_user_id: int

    def new_run(self, commit: str | None, cuts: Sequence[str]) -> NewRun:
        specification = self.specification
        notes = [*specification.undefined, *_unused_build_keys(specification), *self._missing_code(commit), *cuts]
        return NewRun(
            specification.kind,
            content=specification.content,
            config=specification.config,
            resources=specification.config.get("environment", {}).get("resources"),
            warnings=[*without_effect(specification), *notes],
            notes=notes,
            secrets_user_id=self.secrets_user_id,
        )

    def check_all(self, *, with_resources: bool = True) -> list[str]:
        """Returns a sentence for each resource that is cut to the size of this machine. Raises InvalidInput."""
        self._check_data()
        self._check_secrets()
        self._check_outputs()
        self._check_amounts()
        return self._check_resources() if with_resources else []

    def find_commit(self) -> str | None:
        """The commit that the run is built from: the named one, or the newest; None: the project has no code."""
        build, repository = self.specification.build, self.context.repository(self.project)
        ref = build.ref if build.image and isinstance(build.ref, str) else None
        names = (("commit", build.commit), ("branch", build.branch), ("ref", ref))
        key, named = next(((key, name) for key, name in names if name), ("", None))
        if named and not revisions.candidates(named):
            raise self._problem(("build", key), f"`{named[:100]}` names no commit: give {revisions.SYNTAX}.")
        commit = repository.resolve(named or "HEAD")
        if named and commit is None:
            raise self._problem(("build", key), f"the code of this project has no commit or branch `{named}`.")
        return commit

    def find_build(self, build_job: int | None) -> int | None:
        """The pk of the build that the run names; None: it describes one. Raises InvalidInput."""
        build = self.specification.build
        wanted: int | str | None = build_job if build_job is not None else build.ref
        if wanted is None or self._makes_image or (build.image and build_job is None):
            return None
        store = self.context.store
        try:
            found = store.runs.by_name(self.project, Kind.BUILD, str(wanted))
        except NotFound as error:
            raise InvalidInput([f"There is no build `{wanted}` in this project."]) from error
        if not store.built_images.may_use(self.user, found):
            message = f"The image of build `{wanted}` contains the code of a project that you may not read."
            raise InvalidInput([message])
        return found.pk

    def first_message(self) -> str | None:
        """The message of a clone's first status."""
        messages = [_ignored_keys_message(self.specification)]
        if self.secrets_user_id != self.user.id and secrets_owner.names_secrets(self.specification):
            messages.append(f"With the secrets of {self._secrets_user.username}")
        return "; ".join(filter(None, messages)) or None

    @property
    def _makes_image(self) -> bool:
        return TRAITS[self.specification.kind].makes_image

    @property
    def _secrets_user(self) -> User:
        is_own = self.secrets_user_id == self.user.id
        return self.user if is_own else self.context.store.users.by_id(self.secrets_user_id)

    def _check_data(self) -> None:
        """The data folders that the run names, and those that every run sees."""
        listed, environment = self.context.settings.data, self.specification.environment
        for name in environment.data_names:
            if name not in listed:
                raise self._problem(environment.path_of_data(name), data_folders.unknown_message(listed, name))
        if self._makes_image:  # builds see none
            return
        wants_all = environment.wants_all_data
        for name, folder in data_folders.select(listed, environment.data_names, all_of_them=wants_all).items():
            message = folder.problem(name)
            if message and folder.always:  # the polyaxonfile does not name it
                raise InvalidInput({self.field: [message]})
            if message:
                raise self._problem(environment.path_of_data(name), message)

    def _check_secrets(self) -> None:
        owner, specification = self._secrets_user, self.specification
        for name, keys in specification.secrets.items():
            try:
                found = self.context.secret_store.read(owner.username, name, keys, identity=owner.identity)
            except NotFound as error:
                raise self._problem(specification.path_of_secret(name), str(error)) from error
            if both := sorted(set(found) & set(specification.environment.variables)):
                message = f"the secret `{name}` sets this variable as well; take one of the two out."
                raise self._problem(("environment", "env_vars", both[0]), message)

    def _check_outputs(self) -> None:
        """The other runs whose outputs the run names."""
        for kind, wanted in self.specification.environment.references.items():
            for index, name in enumerate(wanted):
                try:
                    self.context.store.runs.by_name(self.project, kind, name)
                except NotFound as error:
                    path = ("environment", "outputs", kind.plural, index)
                    raise self._problem(path, f"this project has no {kind} `{name}`.") from error

    def _check_amounts(self) -> None:
        """The bounds of a body hold for the same values in a polyaxonfile."""
        specification = self.specification
        values = {specification.key_of_params: specification.params, "tags": specification.file.tags}
        try:
            bodies.read(bodies.ChangedRun, values)
        except InvalidInput as error:
            found = error.messages if isinstance(error.messages, Mapping) else {}
            where = specification.source.sentence
            messages = [where((key,), text) for key in found for text in found[key]]
            raise InvalidInput({self.field: messages}) from error

    def _check_resources(self) -> list[str]:
        """Returns the cuts. Before the engine answered once, nothing is known of it, and the runner checks instead."""
        found: list[str] = []
        cuts: list[str] = []
        where = self.specification.source.sentence
        for wanted in self._resources():
            machine = self.context.capacity(resources.asks_for_gpus(wanted))
            found += [where(path, text) for path, text in resources.problems(wanted, machine)]
            cuts += [where(path, text) for path, text in resources.cuts(wanted, machine)] if machine else []
        if found:
            raise InvalidInput({self.field: list(dict.fromkeys(found))})
        return list(dict.fromkeys(cuts))

    def _resources(self) -> list[Resources | None]:
        try:
            return list(requested_resources(self.specification))
        except InvalidPolyaxonfile as error:
            raise _problems_of_members(self.field, error) from error

    def _missing_code(self, commit: str | None) -> list[str]:
        """A sentence for each part that the code of another repository names and that was not fetched."""
        if commit is None or not self.project.git_url:
            return []
        try:
            return self.context.repository(self.project).missing_parts(commit).sentences()
        except (NotFound, SetupError):
            return []  # the repository is damaged or lost: the build fails with the reason

    def _problem(self, path: Sequence[str | int], message: str) -> InvalidInput:
        """The error for one part of the polyaxonfile, with its line."""
        return InvalidInput({self.field: [self.specification.source.sentence(path, message)]})


def _find(project: Project, kind: Kind, run_id: int | None, context: ApiContext, fault: Any) -> Run | None:
    """The run that a body names; None: it names none. Raises InvalidInput with `fault`: it does not exist."""
    try:
        return None if run_id is None else context.store.runs.get(project, kind, run_id)
    except NotFound as error:
        raise InvalidInput(fault) from error


def _values_without_file(kind: Kind, body: bodies.NewRunBody) -> dict[str, Any]:
    """The columns of a run without a polyaxonfile: a selection, or an experiment that its client runs and reports."""
    if body.check_specification:
        raise InvalidInput({"non_field_errors": ["Experiment expects a `config`."]})
    if body.managed and TRAITS[kind].needs_file:
        raise InvalidInput({"config": ["This field is required."]})
    return {"params": body.params or body.declarations, "is_managed": False, **TRAITS[kind].without_file}


def _parse(body: bodies.NewRunBody, kind: Kind) -> Specification:
    params = body.params or body.declarations if TRAITS[kind].is_tracked else None
    try:
        return parse(body.source, kind, params, body.source_files)
    except InvalidPolyaxonfile as error:
        raise InvalidInput({body.source_field: _faults(kind, error)}) from error


def _faults(kind: Kind, error: InvalidPolyaxonfile) -> list[str]:
    return [f"{TRAITS[kind].fault.format(kind=kind)} {problem}" for problem in error.problems]


def _merged_specification(original: Run, body: bodies.Cloning) -> Specification:
    """The polyaxonfile of the original, with that of the body merged over it."""
    if body.source is None:
        return Specification(original.kind, original.content or "", original.config or {})
    try:
        above, _ = read(body.source)
        below, _ = read(original.content or json.dumps(original.config))
        if "params" in above and "declarations" in below:  # the older name of the same section
            below["params"] = below.pop("declarations")
        return parse(merge(below, above), original.kind)
    except InvalidPolyaxonfile as error:
        raise InvalidInput(_faults(original.kind, error)) from error


def _check_members(group: Specification, field: str) -> None:
    """Compile one experiment of a search: a problem is the problem of all."""
    try:
        of_member(group, group.hptuning.sample)
    except InvalidPolyaxonfile as error:
        raise _problems_of_members(field, error) from error


def _problems_of_members(field: str, error: InvalidPolyaxonfile) -> InvalidInput:
    return InvalidInput({field: [f"In its experiments: {problem}" for problem in error.problems]})


def _code_reference(commit: str | None, specification: Specification) -> dict[str, str] | None:
    branch = specification.build.branch or "master"
    return {"commit": commit, "head": commit, "branch": branch} if commit else None


def _columns_of(specification: Specification) -> dict[str, Any]:
    """The columns that the polyaxonfile itself gives."""
    file = specification.file
    about: dict[str, Any] = {**specification.words, "backend": file.backend}
    if isinstance(file, GroupFile):
        tuning = file.hptuning
        about |= {"group_type": "study", "concurrency": tuning.concurrency, "search_algorithm": tuning.algorithm}
    if isinstance(file, ExperimentFile):
        about |= {"params": specification.params or None, "framework": file.framework}
    return {name: value for name, value in about.items() if value is not None}


def _ignored_keys_message(specification: Specification) -> str | None:
    keys = specification.ignored
    return f"Without effect on a single node: {', '.join(keys)}" if keys else None


def _unused_build_keys(specification: Specification) -> list[str]:
    """A sentence for each key of a rendered Dockerfile, where a Dockerfile or another build gives the image."""
    build = specification.build
    if build.image:
        return []
    source = "dockerfile" if build.dockerfile else "ref"
    names = [name for name in ("build_steps", "lang_env") if getattr(build, name)]
    messages = {name: f"it has no effect beside `{source}`, which the image comes from." for name in names}
    if build.env_vars and TRAITS[specification.kind].makes_image:
        messages["env_vars"] = f"the image comes from `{source}` without them; runs with this build section get them."
    return [specification.source.sentence(("build", name), text) for name, text in messages.items()]
