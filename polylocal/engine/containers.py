"""Protocol: create, follow, stop and remove containers, and the states and frames that they return."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol, Self

from polylocal.engine.plan import ContainerPlan

LOOPBACK = "127.0.0.1"
STORED_PIECE = 16 * 1024  # bytes; a stored log has longer lines in pieces of this size


@dataclass(frozen=True)
class Endpoint:
    """Where the daemon reaches a port of a container."""

    host: str
    port: int


@dataclass(frozen=True)
class ContainerState:
    id: str
    status: str  # created, running, paused, restarting, removing, exited, dead
    exit_code: int
    out_of_memory: bool
    error: str
    created_at: str  # the engine's text, as the next two
    started_at: str  # "" if it was never started
    finished_at: str  # "" if it has never ended
    image_id: str
    node: str  # the name of the machine that runs it
    published: Mapping[int, Endpoint] = field(default_factory=dict)  # by the container's port, while it runs
    address: str | None = None  # under which the daemon reaches its other ports, while it runs

    @property
    def is_running(self) -> bool:
        return self.status in ("running", "paused", "restarting", "removing")

    @property
    def is_finished(self) -> bool:
        return self.status in ("exited", "dead")

    def endpoint(self, port: int) -> Endpoint | None:
        """Where the daemon reaches this port of the container; None: nowhere, or the container does not run."""
        return self.published.get(port) or (Endpoint(self.address, port) if self.address else None)


@dataclass(frozen=True)
class Found:
    """A container with the label of an installation."""

    id: str
    run: str  # the value of the run label: `<kind>/<uuid>`; "" for a helper
    status: str
    created_at: float = 0.0  # seconds since 1970
    network: str = ""  # the name or id of its network

    @property
    def run_uuid(self) -> str:
        return self.run.partition("/")[2]


@dataclass(frozen=True)
class Frame:
    """A piece of a container's output."""

    stream: int  # 1 stdout, 2 stderr
    data: bytes
    time_us: int | None = None  # the engine's time, in microseconds since 1970; None: now


@dataclass(frozen=True)
class Died:
    """The death of a container."""

    container_id: str
    exit_code: int
    was_signalled: bool = False  # the engine sent it a signal before: for the daemon, for a person, or at its own end


@dataclass(frozen=True)
class Usage:
    """The resources that a container has used since its start, or uses now. None: unknown."""

    cpu_ns: int  # of all cores together
    per_cpu_ns: Sequence[int]  # of each core; empty where the kernel does not count them
    machine_ns: int  # the busy and idle time of all cores of the machine together
    cpus: int
    memory_bytes: int | None
    memory_limit_bytes: int | None


class Stream(Protocol):
    """A container's output as it comes.

    Iteration over an attached stream ends at the end of the output, at a cut connection, or after `close()`. These
    three look the same, so the end of a stream is never the end of a run. A stored log that is cut raises
    EngineUnreachable, so its end is the end of the log.
    """

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """End the iteration. Any thread may call it; idempotent."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def is_root(user: str) -> bool:
    """Whether the user of an image or a container is root."""
    return user.partition(":")[0] in ("", "0", "root")


class Containers(Protocol):
    """Creates, follows, stops and removes containers. `base` has the rules that hold for every method."""

    def create(self, plan: ContainerPlan) -> str:
        """Create a container and return its id. Adopts a container of this name with the same labels.

        Raises ImageMissing; EngineError: another container has this name, or the engine refuses the plan.
        """

    def has_file(self, container_id: str, path: str) -> bool:
        """Whether a path exists in a container. Where no container exists before the start, look into its image."""

    def read_file(self, container_id: str, path: str, most_bytes: int) -> bytes | None:
        """The first bytes of a file, as `has_file` finds it; None: the file does not exist."""

    def open_folder(self, container_id: str, path: PurePosixPath) -> bool:
        """Let every user of a container write to one folder in it, but not to the folders below.

        False: nothing had to change. Raises EngineError: the engine refused.
        """

    def start(self, container_id: str) -> None:
        """Start a container; a running one is left alone. Raises EngineError with the engine's reason."""

    def attach(self, container_id: str) -> Stream:
        """The output from now on; before `start` this is the whole output.

        Raises EngineError where the engine cannot attach; `logs` has the output all the same.
        """

    def logs(self, container_id: str, *, follow: bool, tail: int | None = None) -> Stream:
        """The stored output from the first byte, or the last `tail` lines. `follow`: then the live output.

        Line ends are stored as they are. A byte that is not UTF-8 may be stored as U+FFFD, also at the end of a
        `STORED_PIECE`.
        """

    def inspect(self, container_id: str) -> ContainerState: ...

    def has_lost(self, state: ContainerState) -> bool:
        """Whether the engine started after this container, and ended it or recorded its end then.

        Such an exit code is not the program's. False also where the engine does not record its own start.
        """

    def may_have_started(self, state: ContainerState) -> bool:
        """Whether the engine started after the last record of a container that does not run.

        An engine that is killed during a start leaves no record of it, though the program may have run. False also
        where the engine does not record its own start.
        """

    def usage(self, container_id: str) -> Usage | None:
        """A sample of this moment; None: the container does not run, or this engine cannot measure it."""

    def terminate(self, container_id: str) -> bool:
        """Send SIGTERM to every process of the container once, and return when they have it. Another call sends
        nothing.

        False: not all processes could get it. This is so for a container that is paused or does not run.
        """

    def wait(self, container_id: str, timeout_s: float) -> bool:
        """Whether the container ends within this time. A missing container has ended."""

    def kill(self, container_id: str) -> None:
        """Send SIGKILL. A container that does not run, or is missing, is not an error."""

    def stop(self, container_id: str, grace_s: float) -> None:
        """Send the stop signal to the init program, and kill the container after the grace. Returns when it is dead.

        A container that does not run, or is missing, is not an error.
        """

    def remove(self, container_id: str) -> None:
        """Remove a container with its anonymous volumes, running or not. A missing one is not an error."""

    def containers(self, installation: str) -> Sequence[Found]:
        """Every container of this installation, in any state."""

    def events(self, installation: str) -> Iterator[Died]:
        """The deaths of this installation's containers as they happen. Ends silently when the connection is cut."""

    def run_helper(self, plan: ContainerPlan) -> int:
        """Run a short container to its end on the daemon's machine, remove it, and return its exit code.

        Raises EngineError: it can't be started, or it takes too long.
        """
