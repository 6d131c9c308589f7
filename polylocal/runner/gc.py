"""Garbage collection: decides which images, containers and files of this installation can be removed. Pure."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from polylocal import clock
from polylocal.engine.containers import Found
from polylocal.engine.images import Image
from polylocal.files.disk import Item
from polylocal.statuses import is_done
from polylocal.store.rows import BuildUse, Run

_UNSTARTED_S = 600.0  # a helper is started right after its creation
UNPROVEN = "has the labels of this home, but no build of it made this image; `docker rmi` removes it"
OVER_BUDGET = "least recently used, and the images are over the budget"


@dataclass(frozen=True)
class Leftover:
    """A file or folder in the home folder: the log of a run, or one that no run needs."""

    path: str  # relative to the home folder
    size_bytes: int
    last_used: str
    why: str
    needs_request: bool  # it may belong to a user: only a request of a person removes it
    stays: bool = False  # it belongs to a user


def images(
    found: Sequence[Image], uses: Mapping[str, BuildUse], budget_bytes: int, steps_before: str = ""
) -> list[Item]:
    """Decide on each image. Returns them with the least recently used first.

    Images without a build are removed, images in use or pinned are kept. The others are removed until the rest takes
    no more than the budget. `steps_before`: steps of unfinished builds that are older are removed; another attempt
    reuses younger ones.
    """
    layers = _SharedLayers([image for image in found if image.is_proven])
    items = sorted(
        ((_image(image, uses.get(image.build), steps_before), image) for image in found),
        key=lambda both: both[0].last_used,
    )
    for item, image in items:
        if item.goes and image.is_proven:
            layers.remove(image)
    judged = []
    for item, image in items:
        if not item.goes and item.can_go and (layers.taken > budget_bytes or not budget_bytes):
            layers.remove(image)
            item = replace(item, goes=True, reason=OVER_BUDGET)
        judged.append(replace(item, size_bytes=layers.exclusive_bytes(image)))
    return judged


class _SharedLayers:
    """Counts the bytes of images together. A layer that several of them share is counted once."""

    def __init__(self, found: Collection[Image]) -> None:
        self._users = Counter(layer for image in found for layer in image.layers)
        self._all = dict(self._users)
        self.taken = sum({layer: size for image in found for layer, size in image.layers.items()}.values())

    def remove(self, image: Image) -> None:
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
        return Item("image", name, image.id, image.size_bytes, image.created_at, "a user gave it another name")
    if not image.build:
        reason, goes = "steps of an unfinished build", image.created_at < steps_before
        return Item("image", name, image.id, image.size_bytes, image.created_at, reason, goes=goes)
    if use is None:
        return Item("image", name, image.id, image.size_bytes, image.created_at, "of an unknown build", goes=True)
    reason = f"of {use.label}"
    if not image.names and use.image_id != image.id and not use.is_open:
        return Item("image", name, image.id, image.size_bytes, use.last_used, f"left over from {use.label}", goes=True)
    if use.is_open:
        reason = f"{use.label} is running, or a run that needs it"
    elif use.is_pinned:
        reason = f"pinned: {use.label}, or a run of it, is bookmarked"
    can_go = not (use.is_open or use.is_pinned)
    return Item("image", name, image.id, image.size_bytes, use.last_used, reason, can_go=can_go)


@dataclass(frozen=True)
class Removal:
    """A container that no run needs any more."""

    container_id: str
    run: str  # uuid; there may be no such run
    why: str


def unneeded_containers(
    found: Iterable[Found], runs: dict[str, Run], active: Collection[str], now: str, started_at: str = ""
) -> list[Removal]:
    """The containers of this installation that must be removed: a crash left them, or their time to live is over.

    `runs` are the rows by uuid. `active` are the uuids of runs that have a thread, which removes their containers.
    A container is removed if it has no row, or if its run is done and its ttl has passed. A container without a run is
    a helper. It is removed after its end, if it was not started for a while, or if an earlier daemon created it;
    `started_at` is the start of this one.
    """
    removals = []
    for container in found:
        uuid = container.run_uuid
        if uuid in active:
            continue
        run = runs.get(uuid)
        if not container.run and not _is_left_over(container, now, started_at):
            continue
        if run is None:
            removals.append(Removal(container.id, uuid, "no run knows it"))
        elif is_done(run.status) and not _is_kept(run, now):
            removals.append(Removal(container.id, uuid, f"{run.label} is {run.status}"))
    return removals


def _is_left_over(helper: Found, now: str, started_at: str) -> bool:
    if helper.status == "created":
        if started_at and helper.created_at and helper.created_at < clock.parse(started_at).timestamp() - 1:
            return True  # the engine's times are whole seconds
        return clock.parse(now).timestamp() - helper.created_at > _UNSTARTED_S
    return helper.status in ("exited", "dead")


def _is_kept(run: Run, now: str) -> bool:
    if not run.ttl or not run.finished_at or run.deleted_at:
        return False
    return clock.seconds_between(run.finished_at, now) < run.ttl


def containers(found: Iterable[Found], removals: Mapping[str, str]) -> list[Item]:
    """`removals`: ids of the containers to remove, and the reasons."""
    return [
        Item(
            "container",
            container.run or container.id[:12],
            container.id,
            0,
            "",
            removals.get(container.id, f"{container.status}, of a run that is kept or running"),
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
            goes=not left.stays and (asked or not left.needs_request),
        )
        for left in leftovers
    ]
