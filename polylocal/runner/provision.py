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
from polylocal.planning.container import RunEnvironment
from polylocal.polyaxonfile import build_variables
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
    """Create the container of a run, or find the existing one. Returns its id.

    `prepare` makes the folders of the run's kind. Raises EngineError, EngineUnreachable; NotFound: something that the
    run names was deleted, or its user may not use it; InvalidInput: a secret sets a variable that the polyaxonfile sets
    as well.
    """
    if not context.store.built_images.may_use(context.store.users.get(run.user), build):
        raise NotFound(f"the image of {build.label} contains the code of a project that {run.user} may not read")
    return _Provision(run, build, context, prepare).make()


class _Provision:
    """Prepares and creates the container of one run, from the image of one build."""

    def __init__(self, run: Run, build: Run, context: RunnerContext, prepare: Prepare) -> None:
        self._run = run
        self._build = build
        self._context = context
        self._prepare = prepare
        self._specification = run.specification
        self._image = build.image_id or container.image_name(build)

    def make(self) -> str:
        """Create the container. The first run of an image finds its shell and its locale, and records them for others.

        The engine would not report a missing bash, since the init program starts in any case.
        """
        engine, build = self._context.engine, self._build
        inherited = engine.image_config(self._image).env  # raises ImageMissing before anything is created
        guess = (build.shell or BASH, locales.likely_locale(inherited) if build.locale is None else build.locale)
        container_id = self._create(*guess)
        found = guess
        if not build.shell or build.locale is None:
            has_bash = engine.has_file(container_id, BASH)
            found = (BASH if has_bash else SH, self._locale(container_id, inherited, has_bash=has_bash))
            if found != guess:
                engine.remove(container_id)
                container_id = self._create(*found)
            self._context.store.runs.record(build, shell=found[0], locale=found[1])
        if not self._run.restarts:
            self._note_missing_locales(container_id, inherited, *found)
        return container_id

    def _locale(self, container_id: str, environment: Mapping[str, str], *, has_bash: bool) -> str:
        """The locale to use instead of the named ones. "" also if the engine can't read the container's files."""
        try:
            return locales.substitute(self._context.engine, container_id, environment, has_bash=has_bash)
        except ContainerMissing:
            raise
        except EngineError as error:
            log.warning("container %s: its locales can't be read: %s", container_id[:12], error)
            return ""

    def _note_missing_locales(self, container_id: str, inherited: Mapping[str, str], shell: str, locale: str) -> None:
        """Note in the history, once, the locales that the polyaxonfile names and the image lacks."""
        build, runs = self._specification.build, self._context.store.runs
        problems = []
        if locale:
            in_build = [
                ("build.lang_env", build.lang_env),
                *((f"build.env_vars.{n}", v) for n, v in build.env_vars or ()),
            ]
            wanted = locales.named_locales(inherited)
            missing = [f"{path}: the image has no locale {value}" for path, value in in_build if value in wanted]
            problems += [f"{each}; the run has {locale}" for each in missing[:1]]
        variables = self._specification.environment.variables
        for name, value in locales.locales_set_by_run(variables, {**inherited, **container.locale_variables(locale)}):
            if self._locale(container_id, {name: value}, has_bash=shell == BASH):
                problems.append(f"environment.env_vars.{name}: the image has no locale {value}")
        known = [row.message for row in runs.statuses(self._run, limit=100, offset=0)[1]] if problems else []
        for problem in problems:
            message = f"{problem}. Install it in build.build_steps, or name one that the image has."
            if message not in known:
                runs.note(self._run, message)

    def _create(self, shell: str, locale: str) -> str:
        run, context, specification = self._run, self._context, self._specification
        outputs, handover = context.outputs_path(run), context.home.handover(run.uuid)
        ownership.make_writable(outputs)
        if run.cloning_strategy == "copy" and run.original_pk and not run.restarts:  # a restart keeps its own files
            original = context.outputs_path(context.store.runs.by_pk(run.original_pk))
            if original.is_dir():
                folders.copy_tree(original, outputs)
        token, data, secrets = self._token(handover), self._data(), context.secrets(run, specification)
        if both := sorted(set(secrets) & set(specification.environment.variables)):
            raise InvalidInput([f"environment.env_vars.{both[0]}: a secret of the run sets this variable as well."])
        if secrets:
            write_private(context.home.hidden(run.uuid), json.dumps(list(secrets.values())))
        workspace = self._prepare(run, context)
        inputs = RunEnvironment(
            installation=context.installation_id,
            node=context.engine.node,
            network=context.settings.network,
            outputs=outputs,
            handover=handover,
            data=data,
            api_url=context.api_url(),
            token=token,
            references=self._references(),
            home=context.home.root,
            work=workspace.code,
            watched=workspace.watched,
            server_token=workspace.server_token,
            variables=self._build_variables(),
            secrets=secrets,
            pids_limit=context.settings.pids_limit,
            new_privileges=context.settings.new_privileges,
            publishes_port=not context.reaches_containers(),
            capacity=context.capacity(specification.environment.resources),
            locale=locale,
        )
        container_id = context.engine.create(container.plan(run, specification, self._image, shell, inputs))
        if not is_root(context.engine.image_config(self._image).user):
            self._open_code(container_id)
        return container_id

    def _open_code(self, container_id: str) -> None:
        """Let the image's user write to the folder of the code: the builder creates it as root."""
        try:
            self._context.engine.open_folder(container_id, container.CODE)
        except ContainerMissing:
            raise
        except EngineError as error:
            problem = f"The image's user may not be able to write to {container.CODE}: {error}"
            advice = "let its Dockerfile make that folder the user's, as in `RUN chown USER /code` before `USER`"
            self._context.store.runs.note(self._run, f"{problem}; {advice}")

    def _data(self) -> dict[str, DataFolder]:
        """The data folders that the run sees. Raises NotFound."""
        listed, environment = self._context.settings.data, self._specification.environment
        for name in environment.data_names:
            if name not in listed:
                path = ".".join(map(str, environment.path_of_data(name)))
                raise NotFound(f"{path}: {data_folders.unknown_message(listed, name)}")
        found = data_folders.select(listed, environment.data_names, all_of_them=environment.wants_all_data)
        for problem in filter(None, (folder.problem(name) for name, folder in found.items())):
            raise NotFound(problem)
        return found

    def _build_variables(self) -> dict[str, str]:
        """The variables of `build.env_vars`, if the image lacks them.

        It lacks them if it was built from the user's Dockerfile, from another build section, or by an older version.
        The user's own Dockerfile may set them in an earlier stage.
        """
        wanted, build = self._specification.build.env_vars or [], self._build
        lines = [] if build.specification.build.dockerfile else (build.dockerfile or "").split("\n")
        if all(build_variables.instruction(name, value) in lines for name, value in wanted):
            return {}
        return build_variables.expand(wanted, self._context.engine.image_config(self._image).env)

    def _references(self) -> dict[str, list[Run]]:
        """The runs whose outputs this one reads, by the plural of their kind. Raises NotFound."""
        runs, project = self._context.store.runs, self._context.store.projects.by_id(self._run.project_id)

        def find(kind: Kind, name: str) -> Run:
            try:
                return runs.by_name(project, kind, name)
            except NotFound as error:
                raise NotFound(f"environment.outputs: this project has no {kind} `{name}` any more") from error

        wanted = self._specification.environment.references
        found = {kind.plural: [find(kind, name) for name in names] for kind, names in wanted.items()}
        for other in itertools.chain.from_iterable(found.values()):
            self._context.outputs_path(other).mkdir(parents=True, exist_ok=True)
        return found

    def _token(self, handover: Path) -> str:
        """The run's token, also in its hand-over file. An existing one is kept: a container may use it."""
        users, file = self._context.store.users, handover / container.TOKEN_FILE
        handover.mkdir(parents=True, exist_ok=True)
        if file.exists():
            found = container.parse_token(file.read_text())
            known = users.by_token(found) if found else None
            if found and known and known.run_pk == self._run.pk:
                return found
        token = users.new_token(users.get(self._run.user), self._run.pk)
        file.write_text(container.token_file(token))
        return token
