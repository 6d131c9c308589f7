"""Builds an image: Dockerfile, base images, build context, build. Every line goes into the build's log."""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, cast

from polylocal.engine.images import BuildRequest, BuildResult
from polylocal.engine.plan import IMAGE_LABEL
from polylocal.engine.references import is_image_id
from polylocal.errors import InvalidInput, NotFound
from polylocal.files.logs import LogWriter
from polylocal.files.masking import Mask
from polylocal.planning import container, dockerfile
from polylocal.planning.dockerfile import Base, Reference
from polylocal.planning.instructions import Unreadable
from polylocal.planning.requirements import includes
from polylocal.polyaxonfile import Build, build_variables
from polylocal.runner import images, outcome
from polylocal.runner.build_context import Stoppable, build_context
from polylocal.runner.execution import Execution, StillInUse, Work
from polylocal.runner.images import Chosen
from polylocal.runner.outcome import Outcome
from polylocal.runner.runner_context import RunnerContext
from polylocal.statuses import Status
from polylocal.store.rows import Run
from polylocal.system.cancellation import Cancel, Cancelled, cancelled_by

log = logging.getLogger(__name__)

MOST_REQUIREMENTS = 4 << 20  # bytes of a requirements file that is read for the files that it includes
AGAIN_S = 3.0  # the time in which an ending engine is gone
# failures of the engine itself, which no line of a Dockerfile can cause
_OF_THE_ENGINE = re.compile(
    r"(?!.*returned a non-zero code).*(libnetwork|of sandbox|containerd|shim|transport is closing|ttrpc|grpc)",
    re.IGNORECASE | re.DOTALL,
)

_PLAIN_USER = re.compile(r"(?!(root|0)(:|$))[\w.-]+(:[\w.-]+)?", re.ASCII)

Patiently = Callable[..., Any]


@dataclass(frozen=True)
class _Images:
    """The Dockerfile with its base images, and the projects whose code is in them. `problem`: why it can't be built."""

    text: str = ""
    projects: frozenset[str] = frozenset()
    problem: str = ""


@dataclass(frozen=True)
class _Recipe:
    build: Build
    text: str  # the Dockerfile as documented and recorded
    folder: str  # the folder of the code that becomes build/


class BuildWork(Work):
    """A build makes an image. It has no container of its own."""

    def operation(self, execution: Execution) -> BuildOperation:
        return BuildOperation(execution)

    def remove(self, run: Run, context: RunnerContext) -> int:
        """Remove all images that the build made. One that was stopped or repeated may have left some without a name."""
        engine, freed = context.engine, 0
        for image in engine.images(context.installation_id, context.store.built_images.ledger()):
            if image.build != run.uuid or not image.is_proven:
                continue
            for name in image.names or [image.id]:  # the project may have had another name
                if not engine.remove_image(name):
                    raise StillInUse(f"a container uses the image {name}")
            freed += 0 if image.has_other_names else image.size_bytes
        return freed


class BuildOperation:
    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def __call__(self) -> None:
        execution = self._execution
        execution.start_clock()
        result = make_image(execution.run, execution.context, execution.cancel, execution.patiently)
        if result is None or execution.is_stopping:
            self.finish(execution.stopped())
        elif result.image_id is None:
            self.finish(outcome.build_failed(result.error, result.step))
        else:
            done = Outcome(Status.SUCCEEDED, "Completed", {"image_id": result.image_id})
            self.finish(done, image_id=result.image_id)

    def stop(self) -> None:
        """Nothing more to do: the cancellation ends the build."""

    def finish(self, end: Outcome, **recorded: object) -> None:
        if self._execution.end(end, recorded) is not None:
            log.info("run=%s %s: %s", self._execution.run.label, end.status, end.message)


def make_image(run: Run, context: RunnerContext, cancel: Cancel, patiently: Patiently) -> BuildResult | None:
    """Build the image of a run. Returns None if it was stopped. Raises StoreError."""
    try:
        with cancelled_by(cancel):
            return _make_image(run, context, cancel, patiently)
    except Cancelled:
        return None


def _make_image(run: Run, context: RunnerContext, cancel: Cancel, patiently: Patiently) -> BuildResult | None:
    store, tag = context.store.runs, container.image_name(run)
    taken_up = run.status not in (Status.CREATED, Status.UNSCHEDULABLE)
    specification = run.specification
    try:
        secrets = context.secrets(run, specification)
    except NotFound as error:
        return BuildResult(None, str(error))
    mask = Mask(secrets.values())

    def hide(line: bytes) -> bytes:
        return mask.hide(line.replace(dockerfile.TAKE_SECRETS.encode(), b""))

    with LogWriter(context.log_path(run), context.log_grew, max_mib=context.settings.max_log_mib, hide=hide) as writer:
        if not taken_up:
            store.transition(run, Status.SCHEDULED, recorded={"node": context.engine.node})
        else:
            found = patiently(lambda: context.engine.image_id(tag))
            if found and context.store.built_images.knows(run, found):
                # the image was built, but the daemon ended before it recorded that
                context.store.built_images.complete(run, found)
                return BuildResult(found)
            writer.write_message("polylocal: the daemon was restarted, building again")
        store.transition(run, Status.BUILDING, "Preparing the build context")
        try:
            recipe = _recipe(run, context)
        except (NotFound, InvalidInput) as error:
            writer.write_message(str(error))
            return BuildResult(None, str(error))
        store.record(run, dockerfile=recipe.text)
        chosen = patiently(lambda: _with_images(run, recipe, context, writer, cancel))
        if cancel.called:
            return None
        if chosen.problem:
            writer.write_message(chosen.problem)
            return BuildResult(None, chosen.problem)
        store.transition(run, Status.RUNNING, recorded={"builder": patiently(context.engine.builder)})
        result = _made(run, recipe, chosen, secrets, context, writer, cancel, patiently)
        return replace(result, error=_hidden(result.error, hide), step=_hidden(result.step, hide))


def _made(
    run: Run,
    recipe: _Recipe,
    chosen: _Images,
    secrets: Mapping[str, str],
    context: RunnerContext,
    writer: LogWriter,
    cancel: Cancel,
    patiently: Patiently,
) -> BuildResult:
    """Build with the engine, and once more if the engine ends during the build. Raises Cancelled."""

    def again() -> None:
        writer.write_message("polylocal: the engine went away in the middle of the build, building again")

    def note(image_id: str) -> None:
        context.store.built_images.add(run, image_id, is_whole=False, sources=chosen.projects)

    text = dockerfile.with_label(chosen.text, IMAGE_LABEL, context.installation_id)
    if secrets:
        text = dockerfile.with_secrets(text)
    arguments = dockerfile.secrets_argument(secrets)

    def build() -> BuildResult:
        return _build(run, recipe, text, arguments, context, writer, cancel, note)

    result: BuildResult = patiently(build, again)
    if result.image_id is None and not cancel.called and _OF_THE_ENGINE.match(result.error):
        again()  # an ending engine still answers, and fails its running builds
        if cancel.wait(AGAIN_S):
            raise Cancelled("The build was stopped.")
        result = patiently(build, again)
    if result.image_id:
        context.store.built_images.add(run, result.image_id, is_whole=True, sources=chosen.projects)
    return result


def _hidden(text: str, hide: Callable[[bytes], bytes]) -> str:
    return hide(text.encode()).decode()


def _recipe(run: Run, context: RunnerContext) -> _Recipe:
    build = run.specification.build
    repository = context.repository(run)
    folder = posixpath.normpath(build.context) if build.context else ""
    folder = "" if folder == "." else folder
    if build.dockerfile:
        if not run.commit:
            raise NotFound(f"`dockerfile: {build.dockerfile}` needs uploaded code, and this project has none")
        path = posixpath.normpath(build.dockerfile)
        try:
            return _Recipe(build, repository.read(run.commit, path, follows=True).decode(), folder)
        except UnicodeDecodeError as error:
            raise InvalidInput([f"`dockerfile: {build.dockerfile}` is no text in UTF-8"]) from error
    if problems := build_variables.problems(build.env_vars):  # an older version stored it unchecked
        raise InvalidInput([f"{'.'.join(map(str, path))}: {text}" for path, text in problems])
    files = repository.files(run.commit, folder) if run.commit else set()

    def read(path: str) -> bytes:
        return repository.read(run.commit or "", posixpath.join(folder, path), MOST_REQUIREMENTS, follows=True)

    included = dict.fromkeys(path for name in dockerfile.files_with_includes(files) for path in includes(name, read))
    settings = context.settings
    text = dockerfile.render(build, files, settings.lang_env, settings.nvidia_bin, included=list(included))
    return _Recipe(build, text, folder)


def _with_images(run: Run, recipe: _Recipe, context: RunnerContext, writer: LogWriter, cancel: Cancel) -> _Images:
    """The Dockerfile to build, after all images that it names were pulled or found."""
    user, found = context.store.users.get(run.user), dict[str, Chosen]()
    is_buildkit = context.engine.builder().startswith("buildkit")
    arguments = dockerfile.platform_arguments(context.engine.platform()) if is_buildkit else {}
    try:
        if not user.is_superuser and (frontends := dockerfile.foreign_frontends(recipe.text)):
            return _Images(problem=f"Only an admin may build with the frontend {frontends[0]}.")
        wanted = dockerfile.references(recipe.text, arguments)
        for reference in wanted:  # the triggers of base images are appended
            chosen = _chosen(reference, run, found, context, writer, cancel)
            if chosen.problem:
                return _Images(problem=chosen.problem)
            if reference.is_base and chosen.image:
                wanted += dockerfile.triggers(chosen.image.triggers, reference)
        if not user.is_superuser and (problem := _downloads(recipe.text, arguments, found)):
            return _Images(problem=problem)
        replaced = {name: chosen.name for name, chosen in found.items()}
        text = dockerfile.with_base_images(_owned(recipe, found), replaced, arguments)
    except Unreadable as error:
        return _Images(problem=f"The Dockerfile can't be built: {error}.")
    return _Images(text, frozenset().union(*(chosen.projects for chosen in found.values())))


def _owned(recipe: _Recipe, found: Mapping[str, Chosen]) -> str:
    """The Dockerfile. In a rendered one the code belongs to the user of the base image."""
    base = found.get(recipe.build.image or "")
    user = base.image.user if base and base.image else ""
    is_rendered = recipe.build.dockerfile is None
    return dockerfile.with_owner(recipe.text, user) if is_rendered and _PLAIN_USER.fullmatch(user) else recipe.text


def _chosen(
    reference: Reference, run: Run, found: dict[str, Chosen], context: RunnerContext, writer: LogWriter, cancel: Cancel
) -> Chosen:
    """The image of one reference. The image of a trigger is checked by the later build that uses it."""
    name = reference.image
    if reference.is_trigger:
        return Chosen(problem=images.refusal(name) if is_image_id(name) else "")
    if name not in found:
        found[name] = images.choose(run, name, context, writer.write_line, cancel)
    return found[name]


def _downloads(text: str, arguments: Mapping[str, str], found: Mapping[str, Chosen]) -> str:
    """The refusal of an ADD from hosts that only an admin may let the engine connect to; "": there is none."""
    bases = {name: Base(chosen.image.env, chosen.image.triggers) for name, chosen in found.items() if chosen.image}
    return images.unreachable("What ADD names", dockerfile.downloads(text, arguments, bases))


def _build(
    run: Run,
    recipe: _Recipe,
    text: str,
    arguments: Mapping[str, str],
    context: RunnerContext,
    writer: LogWriter,
    cancel: Cancel,
    on_image: Callable[[str], None],
) -> BuildResult:
    with ExitStack() as stack:
        try:
            file = stack.enter_context(
                build_context(text, context.repository(run), run.commit, recipe.folder, scratch=context.home.scratch)
            )
        except (NotFound, InvalidInput) as error:
            writer.write_message(str(error))
            return BuildResult(None, str(error))
        request = BuildRequest(
            context=cast(BinaryIO, Stoppable(file, cancel)),
            tag=container.image_name(run),
            labels=container.image_labels(run),
            nocache=bool(recipe.build.nocache),
            arguments=arguments,
            on_image=on_image,
        )
        return context.engine.build(request, writer.write_line, cancel)
