"""The history of an image: the build that made it, and the layers that only it has. Pure."""

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from polylocal import clock
from polylocal.engine.images import Image
from polylocal.engine.ledger import Ledger, short_id
from polylocal.engine.plan import BUILD_LABEL, IMAGE_LABEL, is_name_of

Json = Mapping[str, Any]
History = Sequence[Json]  # the newest layer first


def may_be_ours(image: Json, installation: str, ledger: Ledger) -> bool:
    """Whether the history of an entry of the engine's list of images must be read."""
    labels = image.get("Labels") or {}
    is_labelled = labels.get(IMAGE_LABEL) == installation or labels.get(BUILD_LABEL) in ledger.builds
    is_known = short_id(image["Id"]) in ledger.images or short_id(image["Id"]) in ledger.steps
    return is_labelled or is_known or bool(ledger.steps and not _names(image))


def own_image(image: Json, history: History, installation: str, ledger: Ledger) -> Image | None:
    """An entry of the engine's list of images; None: others made it, maybe on top of ours."""
    names, labels = _names(image), image.get("Labels") or {}
    is_known = short_id(image["Id"]) in ledger.images
    # a Dockerfile may override the label of an image, but not the one in the history of each step
    is_labelled = (
        labels.get(IMAGE_LABEL) == installation
        or labels.get(BUILD_LABEL) in ledger.builds
        or any(f"LABEL {IMAGE_LABEL}={installation}" in instruction(entry) for entry in history)
    )
    if not is_known and not is_labelled:
        return None  # the output of a step can look like the builder's own lines
    maker = ledger.find_build(image["Id"], names, ancestors(history))
    build = maker or labels.get(BUILD_LABEL, "")
    ours = [name for name in names if is_name_of(name, build)]
    if maker is None and not ours and (names or (build and not _is_labelled_last(history))):
        return None
    if not is_known and not ours and labels.get(BUILD_LABEL) != build:
        build = ""  # a step
    return Image(
        id=image["Id"],
        build=build,
        names=ours,
        layers=_layers(image["Id"], history),
        created_at=clock.stamp(datetime.fromtimestamp(image["Created"], UTC)),
        has_other_names=len(names) > len(ours),
        is_proven=maker is not None,
    )


def ancestors(history: History) -> list[str]:
    """Ids of the images below. The images of a pull, and those that BuildKit made, have none."""
    return [entry["Id"] for entry in history[1:] if entry["Id"].startswith("sha256:")]


def is_made_by_a_build(history: History) -> bool:
    """Whether an image is a step of a build of ours. A step has our label below it. An image that others made from a
    build's image has further layers above the label."""
    for number, entry in enumerate(history):
        if f"LABEL {IMAGE_LABEL}=" in instruction(entry):
            return True
        if BUILD_LABEL in instruction(entry):
            return number == 0
    return False


def instruction(entry: Json) -> str:
    """The instruction that made a layer."""
    return entry["CreatedBy"] or ""


def _names(image: Json) -> list[str]:
    return [name for name in image.get("RepoTags") or [] if name != "<none>:<none>"]


def _layers(image_id: str, history: History) -> dict[str, int]:
    """The sizes of an image's layers down to the next image with a name."""
    own = itertools.takewhile(lambda numbered: numbered[0] == 0 or not numbered[1].get("Tags"), enumerate(history))
    # the layers of BuildKit have no ids, so it is unknown whether images share them
    return {e["Id"] if e["Id"].startswith("sha256:") else f"{image_id} {n}": e["Size"] for n, e in own}


def _is_labelled_last(history: History) -> bool:
    """Whether the newest layer is a label of ours. A build adds it last; others put further layers on top."""
    return any(label in instruction(history[0]) for label in (BUILD_LABEL, IMAGE_LABEL))
