"""The images that the builds of one installation made, as the daemon recorded them. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field


def short_id(image_id: str) -> str:
    """The part of an image's id that builders print."""
    return image_id.removeprefix("sha256:")[:12]


@dataclass(frozen=True)
class Ledger:
    """Maps the `short_id` of image ids to the uuids of the builds that made them."""

    images: Mapping[str, str] = field(default_factory=dict)  # the images that builds ended with
    steps: Mapping[str, str] = field(default_factory=dict)  # the intermediate images
    builds: Collection[str] = ()  # uuids of builds without an image; their image may exist without a record

    def find_build(self, image_id: str, names: Collection[str], ancestors: Iterable[str]) -> str | None:
        """The uuid of the build that made an image; None: no build of this installation made it.

        An image without a name, directly on top of a recorded step, is a step without a record. The image of a build
        has a name, so users may have built other images on top of it.
        """
        key = short_id(image_id)
        if known := self.images.get(key) or self.steps.get(key):
            return known
        for name in names:
            if (uuid := name.rpartition(":")[2]) in self.builds:
                return uuid
        for ancestor in () if names else map(short_id, ancestors):
            if ancestor in self.images:
                return None
            if ancestor in self.steps:
                return self.steps[ancestor]
        return None


NOTHING_BUILT = Ledger()
