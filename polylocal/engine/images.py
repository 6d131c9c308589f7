"""Protocol: build, pull, inspect and remove images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from polylocal.engine.ledger import NOTHING_BUILT, Ledger
from polylocal.engine.plan import Labels

OnLine = Callable[[str], None]


class Cancellation(Protocol):
    """Ends an operation from another thread."""

    @property
    def called(self) -> bool:
        """Whether the operation is to end. Once true it stays true."""

    def on_call(self, action: Callable[[], None]) -> None:
        """Set the action that ends the present operation. It runs at once if the operation is to end already."""


@dataclass(frozen=True)
class Image:
    """An image that this installation made. Images may share layers."""

    id: str
    build: str  # the uuid of the build
    names: Sequence[str]  # the names that the build gave it
    layers: Mapping[str, int]  # the layers on top of its base image: bytes by id
    created_at: str
    has_other_names: bool = False  # a user named it, too
    is_proven: bool = True  # it is in the ledger; otherwise it only has its labels, which any image can have

    @property
    def size_bytes(self) -> int:
        return sum(self.layers.values())


@dataclass(frozen=True)
class ImageConfig:
    """The defaults that an image sets for its containers."""

    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""  # with or without a group; "" is root


@dataclass(frozen=True)
class LocalImage:
    """Any image that the engine has."""

    id: str
    names: Sequence[str]  # with their tags or digests
    labels: Labels = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    triggers: Sequence[str] = ()  # its ONBUILD instructions, which the next build executes
    ancestors: Sequence[str] = ()  # ids of the images below it, as far as the engine knows them
    made_by: str = ""  # the newest line of its history
    user: str = ""  # the user of its programs, with or without a group; "" is root


@dataclass(frozen=True)
class BuildRequest:
    context: BinaryIO  # an uncompressed tar with a Dockerfile at its root; read once
    tag: str
    labels: Labels
    nocache: bool = False
    arguments: Mapping[str, str] = field(default_factory=dict)
    on_image: Callable[[str], None] = lambda image_id: None  # gets each intermediate image: an id or its prefix


@dataclass(frozen=True)
class BuildResult:
    """`image_id` None: the build failed, with `error`, at `step` (`Step 3/5 : RUN …`, "" before the first)."""

    image_id: str | None
    error: str = ""
    step: str = ""


class Images(Protocol):
    """Builds, pulls, inspects and removes images. `base` has the rules that hold for every method."""

    def builder(self) -> str:
        """The name of the builder, for the record: `classic (Docker 20.10)`, `buildkit (…)`."""

    def platform(self) -> str:
        """The platform of built images, as `linux/amd64`."""

    def image_id(self, name: str) -> str | None:
        """The id of a local image; None: there is none of this name."""

    def image(self, name: str) -> LocalImage | None:
        """The local image of this name; None: there is none. An id, or a prefix of one, is not a name."""

    def image_config(self, image: str) -> ImageConfig:
        """The configuration of a local image, by its name or its id. Raises ImageMissing.

        An answer for an id may come from a cache, so the image may have been removed.
        """

    def pull(self, name: str, on_line: OnLine, cancel: Cancellation, *, anew: bool = False) -> None:
        """Pull one image. Threads that need the same name share one pull. A local image is pulled again only with
        `anew`.

        Raises EngineError: the image can't be pulled, or `cancel` was called.
        """

    def build(self, request: BuildRequest, on_line: OnLine, cancel: Cancellation) -> BuildResult:
        """Build and tag an image, and pass each line of output on at once. A cancelled build is a failed one.

        Raises EngineUnreachable: the connection was cut, and the outcome is unknown.
        """

    def remove_image(self, name: str) -> bool:
        """Remove an image; one that is missing or in use is not an error. False: a container needs it."""

    def images(self, installation: str, ledger: Ledger = NOTHING_BUILT) -> Sequence[Image]:
        """The images that this installation made by the ledger, and those with its label only.

        Images that others made from them inherit the label and are not listed.
        """

    def image_ids(self) -> Sequence[str]:
        """The ids of all images of the engine, intermediate ones included."""

    def build_containers(self, ledger: Ledger) -> Sequence[str]:
        """Ids of the stopped containers of build steps. An engine that ends in the middle of a build leaves them."""
