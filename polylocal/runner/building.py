"""Builds an image: Dockerfile, base images, build context, build. Every line goes into the build's log."""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from polylocal.engine.images import BuildRequest, BuildResult
from polylocal.engine.plan import IMAGE_LABEL
from polylocal.engine.references import is_image_id
from polylocal.errors import InvalidInput, NotFound
from polylocal.files.logs import MARK, LogWriter
from polylocal.files.masking import Mask
from polylocal.planning import container, dockerfile
from polylocal.planning.dockerfile import Base, Reference
from polylocal.planning.instructions import Unreadable
from polylocal.planning.requirements import includes
from polylocal.polyaxonfile import Build, build_variables
from polylocal.runner import images, outcome
from polylocal.runner.build_context import Stoppable, build_context
from polylocal.runner.execution import Execution, StillInUse, Work
from polylocal.runner.images import ChosenImage
from polylocal.runner.outcome import Outcome
from polylocal.runner.runner_context import RunnerContext
from polylocal.statuses import Status
from polylocal.store.rows import Run
from polylocal.system.cancellation import Cancelled, cancelled_by

log = logging.getLogger(__name__)

MAX_REQUIREMENTS = 4 << 20  # bytes of a requirements file that is read for the files that it includes
ENGINE_END_S = 3.0  # an engine that is ending is gone after this time
# Errors of the engine itself, which no line of a Dockerfile can cause. The last two: the image of a step, which the
# classic builder had found in its cache, was removed together with another image.
_ENGINE_ERROR = re.compile(
    r"(?!.*returned a non-zero code).*(libnetwork|of sandbox|containerd|shim|transport is closing|ttrpc|grpc"
    r"|failed to get digest sha256:|unable to find image \"sha256:)",
    re.IGNORECASE | re.DOTALL,
)
_PLAIN_USER = re.compile(r"(?!(root|0)(:|$))[\w.-]+(:[\w.-]+)?", re.ASCII)


@dataclass(frozen=True)
class _ResolvedImages:
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
    """Builds the image of one run. Every call takes place on the thread of the run, except `stop`."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._context = execution.context
        self._cancel = execution.cancel

    def __call__(self) -> None:
        execution = self._execution
        execution.start_clock()
        try:
            with cancelled_by(self._cancel):
                result = self._make_image(execution.run)
        except Cancelled:
            result = None
        if result is None or execution.is_stopping:
            self.finish(execution.stop_outcome())
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

    def _make_image(self, run: Run) -> BuildResult | None:
        """Build the image, or find it if an earlier daemon has built it. None: it was stopped. Raises Cancelled."""
        context = self._context
        try:
            secrets = context.secrets(run, run.specification)
        except NotFound as error:
            return BuildResult(None, str(error))
        mask = Mask(secrets.values())

        def hide(line: bytes) -> bytes:
            return mask.hide(line.replace(dockerfile.TAKE_SECRETS.encode(), b""))

        def hide_text(text: str) -> str:
            return hide(text.encode()).decode()

        max_mib = context.settings.max_log_mib
        with LogWriter(context.log_path(run), context.log_grew, max_mib=max_mib, hide=hide) as writer:
            if run.status in (Status.CREATED, Status.UNSCHEDULABLE):
                context.store.runs.transition(run, Status.SCHEDULED, recorded={"node": context.engine.node})
            else:
                found = self._execution.call_engine(lambda: context.engine.image_id(container.image_name(run)))
                if found and context.store.built_images.has(run, found):
                    # the image was built, but the daemon ended before it recorded that
                    context.store.built_images.complete(run, found)
                    return BuildResult(found)
                writer.write_message(f"{MARK}the daemon was restarted, building again")
            result = self._build_with_log(run, secrets, writer)
            return result and replace(result, error=hide_text(result.error), step=hide_text(result.step))

    def _build_with_log(self, run: Run, secrets: Mapping[str, str], writer: LogWriter) -> BuildResult | None:
        runs, call_engine = self._context.store.runs, self._execution.call_engine
        runs.transition(run, Status.BUILDING, "Preparing the build context")
        try:
            recipe = _recipe(run, self._context)
        except (NotFound, InvalidInput) as error:
            writer.write_message(str(error))
            return BuildResult(None, str(error))
        runs.record(run, dockerfile=recipe.text)
        resolved = call_engine(lambda: self._resolve_images(run, recipe, writer))
        if self._cancel.called:
            return None
        if resolved.problem:
            writer.write_message(resolved.problem)
            return BuildResult(None, resolved.problem)
        runs.transition(run, Status.RUNNING, recorded={"builder": call_engine(self._context.engine.builder)})
        return self._build_with_retries(run, recipe, resolved, secrets, writer)

    def _build_with_retries(
        self, run: Run, recipe: _Recipe, resolved: _ResolvedImages, secrets: Mapping[str, str], writer: LogWriter
    ) -> BuildResult:
        """Build with the engine, and again if the engine ends during the build. Raises Cancelled."""
        built_images, call_engine = self._context.store.built_images, self._execution.call_engine
        text = dockerfile.with_label(resolved.text, IMAGE_LABEL, self._context.installation_id)
        text = dockerfile.with_secrets(text) if secrets else text

        def report_retry(cause: str = "the engine went away in the middle of the build") -> None:
            writer.write_message(f"{MARK}{cause}, building again")

        def note(image_id: str) -> None:
            built_images.add(run, image_id, is_whole=False, sources=resolved.projects)

        def build() -> BuildResult:
            return self._build(run, recipe, text, dockerfile.secrets_argument(secrets), writer, note)

        result = call_engine(build, report_retry)
        if result.image_id is None and not self._cancel.called and _ENGINE_ERROR.match(result.error):
            # an ending engine still answers, and fails its running builds
            report_retry(f"the engine failed the build ({result.error})")
            if self._cancel.wait(ENGINE_END_S):
                raise Cancelled("The build was stopped.")
            result = call_engine(build, report_retry)
        if result.image_id:
            built_images.add(run, result.image_id, is_whole=True, sources=resolved.projects)
        return result

    def _resolve_images(self, run: Run, recipe: _Recipe, writer: LogWriter) -> _ResolvedImages:
        """The Dockerfile to build, after all images that it names were pulled or found."""
        engine, found = self._context.engine, dict[str, ChosenImage]()
        is_restricted = not self._context.store.users.get(run.user).is_superuser
        is_buildkit = engine.builder().startswith("buildkit")
        arguments = dockerfile.platform_arguments(engine.platform()) if is_buildkit else {}
        try:
            if is_restricted and (frontends := dockerfile.foreign_frontends(recipe.text)):
                return _ResolvedImages(problem=f"Only an admin may build with the frontend {frontends[0]}.")
            wanted = dockerfile.references(recipe.text, arguments)
            for reference in wanted:  # the triggers of base images are appended
                chosen = self._choose(reference, run, found, writer)
                if chosen.problem:
                    return _ResolvedImages(problem=chosen.problem)
                if reference.is_base and chosen.image:
                    wanted += dockerfile.triggers(chosen.image.triggers, reference)
            if is_restricted and (problem := _download_refusal(recipe.text, arguments, found)):
                return _ResolvedImages(problem=problem)
            replaced = {name: chosen.name for name, chosen in found.items()}
            text = dockerfile.with_base_images(_with_owner(recipe, found), replaced, arguments)
        except Unreadable as error:
            return _ResolvedImages(problem=f"The Dockerfile can't be built: {error}.")
        return _ResolvedImages(text, frozenset().union(*(chosen.projects for chosen in found.values())))

    def _choose(self, reference: Reference, run: Run, found: dict[str, ChosenImage], writer: LogWriter) -> ChosenImage:
        """The image of one reference. The image of a trigger is checked by the later build that uses it."""
        name = reference.image
        if reference.is_trigger:
            return ChosenImage(problem=images.refusal(name) if is_image_id(name) else "")
        if name not in found:
            found[name] = images.choose(run, name, self._context, writer.write_line, self._cancel)
        return found[name]

    def _build(
        self,
        run: Run,
        recipe: _Recipe,
        text: str,
        arguments: Mapping[str, str],
        writer: LogWriter,
        on_image: Callable[[str], None],
    ) -> BuildResult:
        context = self._context
        with ExitStack() as stack:
            try:
                code, scratch = context.repository(run), context.home.scratch
                file = stack.enter_context(build_context(text, code, run.commit, recipe.folder, scratch=scratch))
            except (NotFound, InvalidInput) as error:
                writer.write_message(str(error))
                return BuildResult(None, str(error))
            request = BuildRequest(
                context=cast(BinaryIO, Stoppable(file, self._cancel)),
                tag=container.image_name(run),
                labels=container.image_labels(run),
                nocache=bool(recipe.build.nocache),
                arguments=arguments,
                on_image=on_image,
            )
            return context.engine.build(request, writer.write_line, self._cancel)


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
            raise InvalidInput([f"`dockerfile: {build.dockerfile}` is not UTF-8 text"]) from error
    if problems := build_variables.problems(build.env_vars):  # an older version stored it unchecked
        raise InvalidInput([f"{'.'.join(map(str, path))}: {text}" for path, text in problems])
    files = repository.files(run.commit, folder) if run.commit else set()

    def read(path: str) -> bytes:
        return repository.read(run.commit or "", posixpath.join(folder, path), MAX_REQUIREMENTS, follows=True)

    included = dict.fromkeys(path for name in dockerfile.files_with_includes(files) for path in includes(name, read))
    settings = context.settings
    text = dockerfile.render(build, files, settings.lang_env, settings.nvidia_bin, included=list(included))
    return _Recipe(build, text, folder)


def _with_owner(recipe: _Recipe, found: Mapping[str, ChosenImage]) -> str:
    """The Dockerfile. In a rendered one the code belongs to the user of the base image."""
    base = found.get(recipe.build.image or "")
    user = base.image.user if base and base.image else ""
    is_rendered = recipe.build.dockerfile is None
    return dockerfile.with_owner(recipe.text, user) if is_rendered and _PLAIN_USER.fullmatch(user) else recipe.text


def _download_refusal(text: str, arguments: Mapping[str, str], found: Mapping[str, ChosenImage]) -> str:
    """The refusal of an ADD from hosts that only an admin may let the engine connect to; "": there is none."""
    bases = {name: Base(chosen.image.env, chosen.image.triggers) for name, chosen in found.items() if chosen.image}
    return images.host_refusal("What ADD names", dockerfile.downloads(text, arguments, bases))
