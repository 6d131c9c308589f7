"""Garbage collection: decides which images, containers and files of this installation can be removed. Pure.

Images are removed in the order of their last use.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from polylocal.engine.containers import Found
from polylocal.engine.images import Image
from polylocal.files.disk import Item
from polylocal.store.rows import BuildUse

UNPROVEN = "has the labels of this home, but no build of it made this image; `docker rmi` removes it"
OVER_BUDGET = "least recently used, and the images are over the budget"


@dataclass(frozen=True)
class Leftover:
    """A file or folder under the home folder: the log of a run, or something that no run needs."""

    path: str  # relative to the home folder
    size_bytes: int
    last_used: str
    why: str
    needs_word: bool  # it may belong to somebody: only a request of a person removes it
    stays: bool = False  # it belongs to somebody


def images(
    found: Sequence[Image], uses: Mapping[str, BuildUse], budget_bytes: int, steps_before: str = ""
) -> list[Item]:
    """Decide on each image. Returns them with the least recently used first.

    Images without a build are removed, images in use or pinned are kept. Of the others so many are removed that the
    rest takes no more than the budget.

    `steps_before`: the steps of unfinished builds are removed if they are older. Another attempt reuses younger ones.
    """
    room = _Room([image for image in found if image.is_proven])
    items = sorted(
        ((_image(image, uses.get(image.build), steps_before), image) for image in found),
        key=lambda both: both[0].last_used,
    )
    for item, image in items:
        if item.goes and image.is_proven:
            room.without(image)
    judged = []
    for item, image in items:
        if not item.goes and item.can_go and (room.taken > budget_bytes or not budget_bytes):
            room.without(image)
            item = replace(item, goes=True, reason=OVER_BUDGET)
        judged.append(replace(item, size_bytes=room.exclusive_bytes(image)))
    return judged


class _Room:
    """The bytes that images take together. A layer that several of them share is counted once."""

    def __init__(self, found: Collection[Image]) -> None:
        self._users = Counter(layer for image in found for layer in image.layers)
        self._all = dict(self._users)
        self.taken = sum({layer: size for image in found for layer, size in image.layers.items()}.values())

    def without(self, image: Image) -> None:
        self._users.subtract(image.layers.keys())
        self.taken -= sum(size for layer, size in image.layers.items() if not self._users[layer])

    def exclusive_bytes(self, image: Image) -> int:
        """The size of the layers that only this image uses."""
        return sum(size for layer, size in image.layers.items() if self._all.get(layer, 1) == 1)


def _image(image: Image, use: BuildUse | None, steps_before: str) -> Item:
    name = image.names[0] if image.names else image.id
    if not image.is_proven:
        return Item("image", name, image.id, image.size_bytes, image.created_at, UNPROVEN)
    if image.has_other_names:
        return Item("image", name, image.id, image.size_bytes, image.created_at, "somebody gave it a name of theirs")
    if not image.build:
        reason, goes = "steps of a build that came to no end", image.created_at < steps_before
        return Item("image", name, image.id, image.size_bytes, image.created_at, reason, goes=goes)
    if use is None:
        return Item("image", name, image.id, image.size_bytes, image.created_at, "of no build that is known", goes=True)
    reason = f"of {use.label}"
    if not image.names and use.image_id != image.id and not use.is_open:
        return Item("image", name, image.id, image.size_bytes, use.last_used, f"left over from {use.label}", goes=True)
    if use.is_open:
        reason = f"{use.label} is under way, or a run that needs it"
    elif use.is_pinned:
        reason = f"pinned: {use.label}, or a run of it, is bookmarked"
    can_go = not (use.is_open or use.is_pinned)
    return Item("image", name, image.id, image.size_bytes, use.last_used, reason, can_go=can_go)


def containers(found: Iterable[Found], removals: Mapping[str, str]) -> list[Item]:
    """`removals`: ids of the containers to remove, and the reasons."""
    return [
        Item(
            "container",
            container.run or container.id[:12],
            container.id,
            0,
            "",
            removals.get(container.id, f"{container.status}, of a run that is kept or under way"),
            goes=container.id in removals,
        )
        for container in found
    ]


def files(leftovers: Iterable[Leftover], *, asked: bool) -> list[Item]:
    return [
        Item(
            kind="log" if left.path.startswith("logs/") else "folder",
            name=left.path,
            id=left.path,
            size_bytes=left.size_bytes,
            last_used=left.last_used,
            reason=left.why,
            goes=not left.stays and (asked or not left.needs_word),
        )
        for left in leftovers
    ]
