"""Creates the container of a run, after everything that it mounts was prepared."""

import itertools
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from polylocal.engine.containers import is_root
from polylocal.errors import ContainerMissing, EngineError, InvalidInput, NotFound
from polylocal.files import data_folders, folders
from polylocal.files.data_folders import DataFolder
from polylocal.files.disk import write_private
from polylocal.planning import container
from polylocal.planning.container import Surroundings
from polylocal.polyaxonfile import Specification, build_variables
from polylocal.polyaxonfile.commands import BASH, SH
from polylocal.runner import locales, ownership
from polylocal.runner.runner_context import RunnerContext
from polylocal.runner.workspace import Workspace
from polylocal.statuses import Kind
from polylocal.store.rows import Run

log = logging.getLogger(__name__)

Prepare = Callable[[Run, RunnerContext], Workspace]


def make_container(
    run: Run, build: Run, context: RunnerContext, prepare: Prepare = lambda run, context: Workspace()
) -> str:
    """Create the container of a run, or find the one that is there. Returns its id.

    The first run of an image finds out its shell and its locale, and records them for the others. The engine would not
    report a missing bash, since the init program starts in any case. `prepare` makes the folders of the run's kind.

    Raises EngineError, EngineUnreachable; NotFound: something that the run names is gone, or its user may not use it;
    InvalidInput: a secret sets a variable that the polyaxonfile sets as well.
    """
    if not context.store.built_images.may_use(context.store.users.get(run.user), build):
        raise NotFound(f"the image of {build.label} holds the code of a project that {run.user} may not read")

    def made(shell: str, locale: str) -> str:
        return _make(run, build, prepare, context, shell, locale)

    config = context.engine.image_config(_image(build))  # raises ImageMissing before anything is created
    guess = (build.shell or BASH, locales.likely(config.env) if build.locale is None else build.locale)
    container_id = made(*guess)
    found = guess
    if not build.shell or build.locale is None:
        has_bash = context.engine.has_file(container_id, BASH)
        found = (BASH if has_bash else SH, _locale(container_id, config.env, context, has_bash=has_bash))
        if found != guess:
            context.engine.remove(container_id)
            container_id = made(*found)
        context.store.runs.record(build, shell=found[0], locale=found[1])
    if not run.restarts:
        _tell_of_locales(run, container_id, run.specification, config.env, found, context)
    return container_id


def _image(build: Run) -> str:
    return build.image_id or container.image_name(build)


def _locale(container_id: str, environment: Mapping[str, str], context: RunnerContext, *, has_bash: bool) -> str:
    """The locale to use instead of the named ones. "" also if the engine can't read the container's files."""
    try:
        return locales.substitute(context.engine, container_id, environment, has_bash=has_bash)
    except ContainerMissing:
        raise
    except EngineError as error:
        log.warning("container %s: its locales can't be looked for: %s", container_id[:12], error)
        return ""


def _tell_of_locales(
    run: Run,
    container_id: str,
    specification: Specification,
    inherited: Mapping[str, str],
    found: tuple[str, str],
    context: RunnerContext,
) -> None:
    """Note in the history, once, the locales that the polyaxonfile names and the image lacks."""
    shell, instead = found
    build, own = specification.build, specification.environment.variables
    said = []
    if instead:
        in_build = [("build.lang_env", build.lang_env), *((f"build.env_vars.{n}", v) for n, v in build.env_vars or ())]
        wanted = locales.named(inherited)
        lacking = next((f"{path}: the image has no locale {value}" for path, value in in_build if value in wanted), "")
        said += [f"{lacking}; the run has {instead}"] if lacking else []
    for name, value in locales.named_by(own, {**inherited, **container.locale_variables(instead)}):
        if _locale(container_id, {name: value}, context, has_bash=shell == BASH):
            said.append(f"environment.env_vars.{name}: the image has no locale {value}")
    known = [row.message for row in context.store.runs.statuses(run, limit=100, offset=0)[1]] if said else []
    for words in said:
        message = f"{words}. Install it in build.build_steps, or name one that the image has."
        if message not in known:
            context.store.runs.note(run, message)


def _make(run: Run, build: Run, prepare: Prepare, context: RunnerContext, shell: str, locale: str) -> str:
    specification = run.specification
    outputs, handover = context.outputs_path(run), context.home.handover(run.uuid)
    ownership.make_writable(outputs)
    if run.cloning_strategy == "copy" and run.original_pk and not run.restarts:  # a restart keeps its own files
        original = context.outputs_path(context.store.runs.by_pk(run.original_pk))
        if original.is_dir():
            folders.copy_tree(original, outputs)
    token = _token(run, context, handover)
    data = _data(specification, context)
    secrets = context.secrets(run, specification)
    if both := sorted(set(secrets) & set(specification.environment.variables)):
        raise InvalidInput([f"environment.env_vars.{both[0]}: a secret of the run sets this variable as well."])
    if secrets:
        write_private(context.home.hidden(run.uuid), json.dumps(list(secrets.values())))
    workspace = prepare(run, context)
    around = Surroundings(
        installation=context.installation_id,
        node=context.engine.node,
        network=context.settings.network,
        outputs=outputs,
        handover=handover,
        data=data,
        api_url=context.api_url(),
        token=token,
        references=_references(run, specification, context),
        home=context.home.root,
        work=workspace.code,
        watched=workspace.watched,
        server_token=workspace.server_token,
        variables=_variables(build, specification, context),
        secrets=secrets,
        pids_limit=context.settings.pids_limit,
        new_privileges=context.settings.new_privileges,
        publishes_port=not context.reaches_containers(),
        capacity=context.capacity(specification.environment.resources),
        locale=locale,
    )
    made = context.engine.create(container.plan(run, specification, _image(build), shell, around))
    if is_root(context.engine.image_config(_image(build)).user):
        return made
    try:
        context.engine.open_folder(made, container.CODE)  # the builder creates it as root, whatever the image's user
    except ContainerMissing:
        raise
    except EngineError as error:
        advice = "let its Dockerfile make that folder the user's, as in `RUN chown USER /code` before `USER`"
        context.store.runs.note(
            run, f"The image's user may not be able to write to {container.CODE}: {error}; {advice}"
        )
    return made


def _data(specification: Specification, context: RunnerContext) -> dict[str, DataFolder]:
    """The data folders that the run sees. Raises NotFound."""
    listed, environment = context.settings.data, specification.environment
    for name in environment.data_names:
        if name not in listed:
            path = ".".join(map(str, environment.path_of_data(name)))
            raise NotFound(f"{path}: {data_folders.unknown_message(listed, name)}")
    found = data_folders.select(listed, environment.data_names, all_of_them=environment.wants_all_data)
    for problem in filter(None, (folder.problem(name) for name, folder in found.items())):
        raise NotFound(problem)
    return found


def _variables(build: Run, specification: Specification, context: RunnerContext) -> dict[str, str]:
    """The variables of `build.env_vars`, if the image lacks them.

    It lacks them if it was built from the user's own Dockerfile, from another build section, or by an older version.
    """
    wanted = specification.build.env_vars or []
    own = build.specification.build.dockerfile
    written = (
        [] if own else (build.dockerfile or "").split("\n")
    )  # the user's own Dockerfile may set them in an earlier stage
    if all(build_variables.instruction(name, value) in written for name, value in wanted):
        return {}
    return build_variables.expand(wanted, context.engine.image_config(_image(build)).env)


def _references(run: Run, specification: Specification, context: RunnerContext) -> dict[str, list[Run]]:
    """The runs whose outputs this one reads, by the plural of their kind. Raises NotFound."""
    runs, project = context.store.runs, context.store.projects.by_id(run.project_id)
    wanted = specification.environment.references

    def named(kind: Kind, name: str) -> Run:
        try:
            return runs.named(project, kind, name)
        except NotFound as error:
            raise NotFound(f"environment.outputs: this project has no {kind} `{name}` any more") from error

    found = {kind.plural: [named(kind, name) for name in names] for kind, names in wanted.items()}
    for other in itertools.chain.from_iterable(found.values()):
        context.outputs_path(other).mkdir(parents=True, exist_ok=True)
    return found


def _token(run: Run, context: RunnerContext, handover: Path) -> str:
    """The run's token, which is also written to its hand-over file. An existing one is kept: a container may use it."""
    users, file = context.store.users, handover / container.TOKEN_FILE
    handover.mkdir(parents=True, exist_ok=True)
    if file.exists():
        found = container.token_in(file.read_text())
        known = users.by_token(found) if found else None
        if found and known and known.run_pk == run.pk:
            return found
    token = users.new_token(users.get(run.user), run.pk)
    file.write_text(container.token_file(token))
    return token
