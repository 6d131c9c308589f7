"""Resolves image names of users to images of the engine.

The engine is shared, also with other home folders, and accepts ids and prefixes of ids as names. An image that a build
made contains the code of its project. So a name is looked up only among the names of the engine's images, and an image
of a build is used only for users who may read every project whose code is in it. For other users it does not exist.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from polylocal.engine import references
from polylocal.engine.images import LocalImage
from polylocal.engine.ledger import short_id
from polylocal.engine.plan import BUILD_LABEL, IMAGE_LABEL
from polylocal.engine.references import is_image_id
from polylocal.errors import EngineError, EngineUnreachable
from polylocal.runner.runner_context import RunnerContext
from polylocal.store.rows import Run, User
from polylocal.system import addresses
from polylocal.system.cancellation import Cancel
from polylocal.text import visible

WriteLine = Callable[[str], None]

STOPPED = "The build was stopped."


@dataclass(frozen=True)
class ChosenImage:
    """An image to use, and the uuids of the projects whose code is in it. `problem`: the reason why there is none."""

    name: str = ""
    image: LocalImage | None = None
    projects: frozenset[str] = frozenset()
    problem: str = ""


def choose(run: Run, name: str, context: RunnerContext, write_line: WriteLine, cancel: Cancel) -> ChosenImage:
    """Choose the image of this name. A missing one is pulled; where that fails, `image_fallbacks` may name another.

    `write_line` receives lines for the run's log. Raises Cancelled, EngineUnreachable.
    """
    user = context.store.users.get(run.user)
    if problem := refusal(name):
        return ChosenImage(problem=problem)
    found = context.engine.image(name)
    if found and (projects := projects_in(found, user, context)) is not None:
        return ChosenImage(name, found, projects)
    if references.build_of(name):
        return ChosenImage(problem=_missing(name))
    registry = references.registry_host(name)
    if not user.is_superuser and registry != references.HUB and (problem := host_refusal(name, [registry])):
        return ChosenImage(problem=problem)
    try:
        write_line(visible.one_line(f"Pulling {name}"))
        context.engine.pull(name, write_line, cancel, anew=found is not None)
    except (EngineError, EngineUnreachable) as error:
        if cancel.called:
            return ChosenImage(problem=STOPPED)
        context.link.wait_until_back()
        return _fallback(run, name, error, user, context, write_line)
    return _local_image(name, user, context)


def refusal(name: str) -> str:
    """The reason why a name is refused, whatever images there are; "": it is valid."""
    if is_image_id(name):
        return f"{name} is the id of an image; write the image's name."
    return "" if references.is_name(name) else f"{name!r} is not the name of an image."


def projects_in(image: LocalImage, user: User, context: RunnerContext) -> frozenset[str] | None:
    """The uuids of the projects whose code is in an image; None: the user may not read all of them."""
    built = context.store.built_images
    known = built.source_projects([image.id, *image.ancestors])
    own = known.pop(short_id(image.id), None)
    if own is None:
        return frozenset() if _is_foreign(image) else None
    found = set[str]()
    for contents in (own, *known.values()):
        projects = next((each for each in contents if built.may_read(user, each)), None)
        if projects is None:
            return None
        found |= projects
    return frozenset(found)


def _is_foreign(image: LocalImage) -> bool:
    """Whether no build made the image: it has no labels of ours, or was built from one of our images."""
    build = image.labels.get(BUILD_LABEL)
    if not build:  # an intermediate step has only the other label
        return not image.labels.get(IMAGE_LABEL)
    is_ours = any(f"LABEL {label}=" in image.made_by for label in (BUILD_LABEL, IMAGE_LABEL))
    return not is_ours and not any(references.build_of(name) == build for name in image.names)


def _local_image(name: str, user: User, context: RunnerContext) -> ChosenImage:
    found = context.engine.image(name)
    projects = projects_in(found, user, context) if found else None
    return ChosenImage(problem=_missing(name)) if projects is None else ChosenImage(name, found, projects)


def _fallback(
    run: Run, name: str, error: Exception, user: User, context: RunnerContext, write_line: WriteLine
) -> ChosenImage:
    fallback = context.settings.image_fallbacks.get(name)
    chosen = _local_image(fallback, user, context) if fallback and not refusal(fallback) else ChosenImage()
    if not chosen.image:
        return ChosenImage(problem=f"{name} is not on this machine and could not be pulled: {error}")
    message = f"{name} could not be pulled ({error}); using the local {fallback} instead"
    write_line(visible.message(message))
    context.store.runs.note(run, message, {"image": name, "used": fallback})
    return chosen


def _missing(name: str) -> str:
    return f"{name} is not on this machine, or it may not be used here."


def host_refusal(what: str, hosts: Collection[str]) -> str:
    """The refusal of hosts that only an admin may let the engine connect to, as a sentence; "": none is among them.

    The engine reaches what this machine reaches.
    """
    for host in hosts:
        port = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(:\d*)?", host)
        try:
            addresses.check(port[1] if port else host, by_proxy=True)
        except (addresses.LocalAddress, addresses.UnknownHost) as error:
            return f"{what} can't be fetched: {error}"
    return ""
