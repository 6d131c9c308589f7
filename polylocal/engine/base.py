"""The engine as polylocal needs it: a protocol, the values it speaks in, and its contract. Imports nothing of Docker.

The contract holds for every engine and is tested on the fake and on the real one (`tests/engine/`):
every method may be called from any thread; every method but `build`, `attach`, `logs` and `events` is idempotent and
may be called again after an EngineUnreachable; a missing container is ContainerMissing, a missing image is
ImageMissing, any other refusal is EngineError with the engine's own words, an engine that does not answer is
EngineUnreachable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO, Protocol, Self

from polylocal.engine.machine import Usage
from polylocal.planning.container import ContainerPlan, Labels
from polylocal.store.rows import NOTHING_BUILT, Ledger
from polylocal.system.cancellation import Cancel

OnLine = Callable[[str], None]


@dataclass(frozen=True)
class EngineInfo:
    name: str  # "Docker" or "Podman"
    version: str
    api_version: str
    address: str
    cpus: int
    memory_mib: float
    root: str  # where the engine keeps its images
    is_rootless: bool
    is_desktop: bool  # the engine runs in a virtual machine of its own
    gives_gpus: bool = False  # by its own word; it may all the same, see `cards`


@dataclass(frozen=True)
class GpuSupport:
    """How many GPUs the engine can give to containers; None: it can't be seen from here. `problem`: why none."""

    count: int | None
    problem: str = ""


@dataclass(frozen=True)
class ContainerState:
    id: str
    status: str  # created, running, paused, restarting, removing, exited, dead
    exit_code: int
    out_of_memory: bool
    error: str
    started_at: str  # the engine's text; "" if never
    finished_at: str
    image_id: str
    port: int | None = None  # on loopback, where the plan's port is published while it runs
    address: str | None = None  # its own IPv4 address on its network while it runs; None on `host` and `none`

    @property
    def is_running(self) -> bool:
        return self.status in ("running", "paused", "restarting", "removing")

    @property
    def is_finished(self) -> bool:
        return self.status in ("exited", "dead")


@dataclass(frozen=True)
class Found:
    """A container that carries our label."""

    id: str
    run: str  # the value of the run label: `<kind>/<uuid>`; "" for a helper
    status: str
    created_at: float = 0.0  # seconds since 1970
    network: str = ""  # name or id of the network that it was made for


@dataclass(frozen=True)
class Image:
    """An image that we made. `layers` are those on top of the one that it was built from, in bytes by id: images of
    ours may share some."""

    id: str
    build: str  # the uuid of the build
    names: Sequence[str]  # that we gave it
    layers: Mapping[str, int]
    created_at: str
    has_other_names: bool = False  # somebody else wants it, too
    is_proven: bool = True  # the rows say that it is ours; without that its labels alone do, which anybody can write

    @property
    def size_bytes(self) -> int:
        return sum(self.layers.values())


@dataclass(frozen=True)
class ImageConfig:
    """What a container has of its image where it says nothing itself."""

    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""  # with or without a group; "" is root


@dataclass(frozen=True)
class LocalImage:
    """An image of the engine, whoever made it. `made_by` is the newest line of its history, `ancestors` the ids of the
    images that it was made from, as far as the engine knows them."""

    id: str
    names: Sequence[str]  # with their tags or digests
    labels: Labels = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    triggers: Sequence[str] = ()  # what ONBUILD left: instructions for the next build
    ancestors: Sequence[str] = ()
    made_by: str = ""
    user: str = ""  # that its programs run as, with or without a group; "" is root


@dataclass(frozen=True)
class Frame:
    """A piece of a container's output. `time_us` is the engine's time of it; None: now."""

    stream: int  # 1 stdout, 2 stderr
    data: bytes
    time_us: int | None = None


@dataclass(frozen=True)
class Died:
    """`was_signalled`: somebody had the engine send it a signal before: polylocal, a person, the engine's own end."""

    container_id: str
    exit_code: int
    was_signalled: bool = False


class Stream(Protocol):
    """A container's output as it comes. Iterating an attached stream ends at the end of the output, when the link is
    cut, or after `close()`: the three look the same, so the end of a stream is never the end of a run. A stored log
    that is cut raises EngineUnreachable: its end is the end."""

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """From any thread; idempotent."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


@dataclass(frozen=True)
class BuildRequest:
    context: BinaryIO  # an uncompressed tar with a Dockerfile at its root; read once
    tag: str
    labels: Labels
    nocache: bool = False
    arguments: Mapping[str, str] = field(default_factory=dict)
    on_image: Callable[[str], None] = lambda image_id: None  # each image on the way; the id may be a prefix


@dataclass(frozen=True)
class BuildResult:
    """`image_id` None: the build failed, by `error`, at `step` (`Step 3/5 : RUN …`, "" before the first)."""

    image_id: str | None
    error: str = ""
    step: str = ""


def is_root(user: str) -> bool:
    """Whether the user of an image or a container is root."""
    return user.partition(":")[0] in ("", "0", "root")


class Engine(Protocol):
    """The network `settings.OWN_NETWORK` needs no making by callers: the engine makes it when a container or its
    gateway is asked for. Containers on it can't reach each other."""

    @property
    def is_local(self) -> bool:
        """Reached without a network: a connection to it is cut only by the engine's own end."""

    def info(self) -> EngineInfo: ...

    def gpus(self) -> GpuSupport:
        """Counted by their driver at each call; of the engine by what its last `info` said."""

    def builder(self) -> str:
        """The name of what builds, for the record: `classic (Docker 20.10)`, `buildkit (…)`."""

    def platform(self) -> str:
        """What it builds for, as `linux/amd64`."""

    def image_id(self, name: str) -> str | None:
        """The id of a local image; None if it is not here."""

    def image(self, name: str) -> LocalImage | None:
        """The local image that has this name; None if there is none. An id, or the start of one, is no name."""

    def image_config(self, image: str) -> ImageConfig:
        """Of a local image, by its name or its id. ImageMissing: it is not here; one that was asked for by its id
        before may be gone."""

    def pull(self, name: str, on_line: OnLine, cancel: Cancel, *, anew: bool = False) -> None:
        """Fetch one image. At once for several callers of the same name, and if it is here, unless `anew`.
        EngineError: not to be had, or cancelled."""

    def build(self, request: BuildRequest, on_line: OnLine, cancel: Cancel) -> BuildResult:
        """Build and tag an image; each line of output as it comes. A cancelled build is a failed one.

        EngineUnreachable: the link was cut before the end, and nothing is known.
        """

    def remove_image(self, name: str) -> bool:
        """Missing or still in use is fine. False: a container is made of it, and it stays for that."""

    def images(self, installation: str, ledger: Ledger = NOTHING_BUILT) -> Sequence[Image]:
        """Every image that this installation made by the ledger, and those that only carry its label; not those that
        others made from ours, which inherit the label."""

    def image_ids(self) -> Sequence[str]:
        """Every image that there is, also those that others are made of."""

    def build_containers(self, ledger: Ledger) -> Sequence[str]:
        """Ids of containers that do not run and were made of a step of a build: an engine that ended in the middle of
        it left them."""

    def create(self, plan: ContainerPlan) -> str:
        """The id of a container made by this plan. A container of this name that carries the same run label is
        adopted; another one is an EngineError."""

    def has_file(self, container_id: str, path: str) -> bool: ...

    def read_file(self, container_id: str, path: str, most_bytes: int) -> bytes | None:
        """The beginning of a file of a container; None: there is none."""

    def open_folder(self, container_id: str, path: PurePosixPath) -> bool:
        """Let every user of a container write to a folder in it, not to what is below. False: there was nothing to do.
        EngineError: the engine would not."""

    def start(self, container_id: str) -> None:
        """Starting a running container is fine. EngineError: it can't be started, with the engine's reason."""

    def attach(self, container_id: str) -> Stream:
        """Live output from now on; before `start` this is all of it."""

    def logs(self, container_id: str, *, follow: bool, tail: int | None = None) -> Stream:
        """Stored output from the first byte (or the last `tail` lines), then live if `follow`."""

    def inspect(self, container_id: str) -> ContainerState: ...

    def usage(self, container_id: str) -> Usage | None:
        """A sample at this moment; None: the container does not run."""

    def terminate(self, container_id: str) -> bool:
        """SIGTERM to every process of the container, once; returns when they have it. A further call sends nothing.

        False: it could not be sent to them all, as to a container that does not run or is paused.
        """

    def wait(self, container_id: str, timeout_s: float) -> bool:
        """Whether the container has ended within this time; gone is ended."""

    def kill(self, container_id: str) -> None:
        """SIGKILL. Not running, or gone, is fine."""

    def stop(self, container_id: str, grace_s: float) -> None:
        """The stop signal to the init program, then after the grace a kill. Returns when the container is dead; not
        running, or gone, is fine."""

    def remove(self, container_id: str) -> None:
        """With its anonymous volumes, running or not; gone is fine."""

    def containers(self, installation: str) -> Sequence[Found]:
        """Every container of this installation, whatever its state."""

    def events(self, installation: str) -> Iterator[Died]:
        """Deaths of our containers as they come. Ends without an exception when the link is cut."""

    def run_helper(self, plan: ContainerPlan) -> int:
        """Run a small container to its end, remove it, return its exit code."""

    def gateway(self, network: str) -> str | None:
        """The host's address on this network, where containers can reach it; None if there is none.

        ContainerMissing: no such network. EngineError: polylocal's own can't be had."""

    def close(self) -> None:
        """Idempotent; open streams end."""
