"""Make the image of a build: Dockerfile, base images, context, build; every line into the build's log."""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, cast

from polylocal.cancelling import Cancel, Cancelled, cancelled_by
from polylocal.errors import EngineError, EngineUnreachable, InvalidInput, NotFound
from polylocal.logs import LogWriter
from polylocal.masking import Mask
from polylocal.polyaxonfile import Build, of_config
from polylocal.runner import container, dockerfile
from polylocal.runner.context import Stoppable, context
from polylocal.runner.engine.base import BuildRequest, BuildResult
from polylocal.runner.tools import Tools
from polylocal.statuses import Kind, Status
from polylocal.store.rows import Run

log = logging.getLogger(__name__)

AGAIN_S = 3.0  # an engine that ends is gone by then
# failures that no line of a Dockerfile can bring about; what a step says of itself is not among them
_OF_THE_ENGINE = re.compile(
    r"(?!.*returned a non-zero code).*(libnetwork|of sandbox|containerd|shim|transport is closing|ttrpc|grpc)",
    re.IGNORECASE | re.DOTALL,
)

Patiently = Callable[..., Any]


@dataclass(frozen=True)
class _Recipe:
    build: Build
    text: str  # the Dockerfile as documented and recorded
    folder: str  # of the code, that becomes build/


def make_image(run: Run, tools: Tools, cancel: Cancel, patiently: Patiently) -> BuildResult | None:
    """From row to image. None: it was stopped, at whatever step."""
    try:
        with cancelled_by(cancel):
            return _make_image(run, tools, cancel, patiently)
    except Cancelled:
        return None


def _make_image(run: Run, tools: Tools, cancel: Cancel, patiently: Patiently) -> BuildResult | None:
    store, tag = tools.store.runs, container.image_name(run)
    taken_up = run.status not in (Status.CREATED, Status.UNSCHEDULABLE)
    specification = of_config(Kind.BUILD, run.content or "", run.config or {})
    try:
        secrets = tools.secrets(run, specification)
    except NotFound as error:
        return BuildResult(None, str(error))
    mask = Mask(secrets.values())

    def hide(line: bytes) -> bytes:
        return mask.hide(line.replace(dockerfile.TAKE_SECRETS.encode(), b""))

    with LogWriter(tools.log_path(run), tools.log_grew, max_mib=tools.settings.max_log_mib, hide=hide) as writer:
        if not taken_up:
            store.transition(run, Status.SCHEDULED, recorded={"node": tools.settings.node})
        else:
            found = patiently(lambda: tools.engine.image_id(tag))
            if found:  # it was made, and the daemon ended before it could say so
                return BuildResult(found)
            writer.line("polylocal: the daemon was restarted, building again")
        store.transition(run, Status.BUILDING, "Preparing the build context")
        try:
            recipe = _recipe(run, tools)
        except (NotFound, InvalidInput) as error:
            writer.line(str(error))
            return BuildResult(None, str(error))
        store.record(run, dockerfile=recipe.text)
        text, problem = patiently(lambda: _with_base_images(run, recipe, tools, writer, cancel))
        if cancel.called:
            return None
        if problem:
            writer.line(problem)
            return BuildResult(None, problem)
        store.transition(run, Status.RUNNING, recorded={"builder": patiently(tools.engine.builder)})

        def again() -> None:
            writer.line("polylocal: the engine went away in the middle of the build, building again")

        text = dockerfile.with_label(text, container.IMAGE_LABEL, tools.installation)
        if secrets:
            text = dockerfile.with_secrets(text)
        arguments = dockerfile.secrets_argument(secrets)

        def build() -> BuildResult:
            return _build(run, recipe, text, arguments, tools, writer, cancel)

        result = _built(build, again, cancel, patiently)
        return replace(result, error=_hidden(result.error, hide), step=_hidden(result.step, hide))


def _built(
    build: Callable[[], BuildResult], again: Callable[[], None], cancel: Cancel, patiently: Patiently
) -> BuildResult:
    """What the engine makes of it; once more, if the engine itself has failed. Raises Cancelled."""
    result: BuildResult = patiently(build, again)
    if result.image_id is None and not cancel.called and _OF_THE_ENGINE.match(result.error):
        again()  # as it ends it fails what it has in hand, and still answers
        if cancel.wait(AGAIN_S):
            raise Cancelled("The build was stopped.")
        result = patiently(build, again)
    return result


def _hidden(text: str, hide: Callable[[bytes], bytes]) -> str:
    return hide(text.encode()).decode()


def _recipe(run: Run, tools: Tools) -> _Recipe:
    build = of_config(Kind.BUILD, run.content or "", run.config or {}).build
    repository = tools.repository(run)
    folder = posixpath.normpath(build.context) if build.context else ""
    folder = "" if folder == "." else folder
    if build.dockerfile:
        if not run.commit:
            raise NotFound(f"`dockerfile: {build.dockerfile}` needs uploaded code, and this project has none")
        path = posixpath.normpath(build.dockerfile)
        try:
            return _Recipe(build, repository.read(run.commit, path).decode(), folder)
        except UnicodeDecodeError as error:
            raise InvalidInput([f"`dockerfile: {build.dockerfile}` is no text in UTF-8"]) from error
    files = repository.files(run.commit, folder) if run.commit else set()
    text = dockerfile.render(build, files, tools.settings.lang_env, tools.settings.nvidia_bin)
    return _Recipe(build, text, folder)


def _with_base_images(run: Run, recipe: _Recipe, tools: Tools, writer: LogWriter, cancel: Cancel) -> tuple[str, str]:
    """The Dockerfile to build, its base images being here, and a sentence if one of them can't be had."""
    replaced = {}
    for image in dockerfile.base_images(recipe.text):
        found, problem = fetch_image(run, image, tools, writer.line, cancel)
        if problem:
            return "", problem
        if found != image:
            replaced[image] = found
    return dockerfile.with_base_images(recipe.text, replaced), ""


def fetch_image(run: Run, image: str, tools: Tools, say: Callable[[str], None], cancel: Cancel) -> tuple[str, str]:
    """An image that is here, or is pulled, or else what stands for it by the settings; and a sentence if none can be
    had. `say` takes lines for the run's log."""
    if tools.engine.image_id(image):
        return image, ""
    fallback = tools.settings.image_fallbacks.get(image)
    try:
        say(f"Pulling {image}")
        tools.engine.pull(image, say, cancel)
    except (EngineError, EngineUnreachable) as error:
        if cancel.called:
            return "", "The build was stopped."
        tools.link.wait_until_back()
        if not fallback or not tools.engine.image_id(fallback):
            return "", f"{image} is not on this machine and could not be pulled: {error}"
        message = f"{image} could not be pulled ({error}); using the local {fallback} instead"
        say(message)
        tools.store.runs.note(run, message, {"image": image, "used": fallback})
        return fallback, ""
    return image, ""


def _build(
    run: Run,
    recipe: _Recipe,
    text: str,
    arguments: Mapping[str, str],
    tools: Tools,
    writer: LogWriter,
    cancel: Cancel,
) -> BuildResult:
    with ExitStack() as stack:
        try:
            file = stack.enter_context(context(text, tools.repository(run), run.commit, recipe.folder))
        except (NotFound, InvalidInput) as error:
            writer.line(str(error))
            return BuildResult(None, str(error))
        request = BuildRequest(
            context=cast(BinaryIO, Stoppable(file, cancel)),
            tag=container.image_name(run),
            labels=container.image_labels(run),
            nocache=bool(recipe.build.nocache),
            arguments=arguments,
        )
        return tools.engine.build(request, writer.line, cancel)
