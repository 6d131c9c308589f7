"""The containers of the fake engine. Their programs are a small shell, which threads of this process interpret."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from queue import SimpleQueue
from typing import Self

from fake_engine.images import FakeImages
from polylocal.engine.containers import LOOPBACK, ContainerState, Died, Endpoint, Found, Frame, Usage
from polylocal.engine.plan import HOME_LABEL, RUN_LABEL, ContainerPlan
from polylocal.errors import ContainerMissing, EngineError, ImageMissing

TERMINATED = 143  # the exit code of a program that SIGTERM ended


@dataclass
class FakeContainer:
    id: str
    plan: ContainerPlan
    image_id: str
    status: str = "created"
    exit_code: int = 0
    starts: int = 0
    finishes: int = 0
    output: list[Frame] = field(default_factory=list)
    listeners: list[SimpleQueue[Frame | None]] = field(default_factory=list)
    was_signalled: bool = False
    handled: int | None = None  # the exit code of a program that handles SIGTERM
    open_folders: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


class FakeContainers(FakeImages):
    """See `engine.containers.Containers`. `shells` are files that every image has."""

    is_local = True
    places_containers = False

    def __init__(self, images: Sequence[str], shells: Sequence[str], node: str) -> None:
        super().__init__(images)
        self.shells = set(shells)
        self.node = node
        self.files: dict[str, bytes] = {}  # further files of every image
        self.made: dict[str, FakeContainer] = {}
        self.helpers: list[ContainerPlan] = []
        self.lost_at_start: set[str] = set()  # ids of containers whose ends the engine recorded at its own start
        self.killed_at_start: set[str] = set()  # ids of containers that it was about to start when it was killed
        self.chown_exit_code = 0
        self.on_death: Callable[[Died], None] = lambda died: None
        self._events: list[SimpleQueue[Died | None]] = []

    def cut(self) -> None:
        """End every open stream silently."""
        with self._lock:
            for container in self.made.values():
                for listener in container.listeners:
                    listener.put(None)
                container.listeners.clear()
            for queue in self._events:
                queue.put(None)

    def lose(self, container_id: str) -> None:
        """Remove a container as `docker rm -f` of a user does."""
        with self._lock:
            container = self._get(container_id)
            container.stopping.set()
            del self.made[container_id]

    def create(self, plan: ContainerPlan) -> str:
        self._answer()
        with self._lock:
            if plan.image not in self.local and plan.image not in self.local.values():
                raise ImageMissing(f"No such image: {plan.image}")
            for container in self.made.values():
                if container.plan.name == plan.name:
                    if any(container.plan.labels.get(k) != plan.labels.get(k) for k in (HOME_LABEL, RUN_LABEL)):
                        raise EngineError(f"a container named {plan.name} exists and is not ours")
                    return container.id
            container_id = f"{next(self._numbers):064x}"
            self.made[container_id] = FakeContainer(container_id, plan, self.local.get(plan.image, plan.image))
            return container_id

    def has_file(self, container_id: str, path: str) -> bool:
        self._answer()
        self._get(container_id)
        return path in self.shells or path in self.files

    def read_file(self, container_id: str, path: str, most_bytes: int) -> bytes | None:
        self._answer()
        self._get(container_id)
        found = self.files.get(path)
        return None if found is None else found[:most_bytes]

    def open_folder(self, container_id: str, path: PurePosixPath) -> bool:
        self._answer()
        self._get(container_id).open_folders.append(str(path))
        return True

    def start(self, container_id: str) -> None:
        self._answer()
        with self._lock:
            container = self._get(container_id)
            if container.status == "running":
                return
            container.starts += 1
            container.status = "running"
            container.was_signalled = False
            container.stopping.clear()
            container.ended.clear()
        threading.Thread(target=self._play, args=(container,), name=container.plan.name, daemon=True).start()

    def attach(self, container_id: str) -> FakeStream:
        self._answer()
        with self._lock:
            return FakeStream(self._get(container_id), [], listens=True)

    def logs(self, container_id: str, *, follow: bool, tail: int | None = None) -> FakeStream:
        self._answer()
        with self._lock:
            container = self._get(container_id)
            stored = list(container.output) if tail is None else _tail(container.output, tail)
            return FakeStream(container, stored, listens=follow and container.status == "running")

    def inspect(self, container_id: str) -> ContainerState:
        self._answer()
        with self._lock:
            container = self._get(container_id)
            return ContainerState(
                id=container.id,
                status=container.status,
                exit_code=container.exit_code,
                out_of_memory=False,
                error="",
                created_at="creation",
                started_at=f"start {container.starts}" if container.starts else "",
                finished_at=f"finish {container.finishes}" if container.finishes else "",
                image_id=container.image_id,
                node=self.node,
                published=_published(container),
                address=_address(container),
            )

    def has_lost(self, state: ContainerState) -> bool:
        self._answer()
        return state.id in self.lost_at_start

    def may_have_started(self, state: ContainerState) -> bool:
        self._answer()
        return state.id in self.killed_at_start

    def usage(self, container_id: str) -> Usage | None:
        self._answer()
        with self._lock:
            container = self._get(container_id)
            now = time.monotonic_ns()
            running = container.status == "running"
        return Usage(now // 4, [now // 4, 0, 0, 0], now, 4, 100 << 20, 4096 << 20) if running else None

    def terminate(self, container_id: str) -> bool:
        self._answer()
        container = self.made.get(container_id)
        if container is None or container.status != "running":
            return False
        container.stopping.set()
        return True

    def wait(self, container_id: str, timeout_s: float = 10.0) -> bool:
        self._answer()
        container = self.made.get(container_id)
        return container is None or container.status != "running" or container.ended.wait(timeout_s)

    def kill(self, container_id: str) -> None:
        self.stop(container_id, 0)

    def stop(self, container_id: str, grace_s: float) -> None:
        self._answer()
        container = self.made.get(container_id)
        if container and container.status == "running":
            container.was_signalled = True
            container.stopping.set()
            container.ended.wait(grace_s + 5)

    def remove(self, container_id: str) -> None:
        self._answer()
        with self._lock:
            container = self.made.pop(container_id, None)
        if container:
            container.stopping.set()

    def containers(self, installation: str) -> Sequence[Found]:
        self._answer()
        with self._lock:
            ours = [c for c in self.made.values() if c.plan.labels.get(HOME_LABEL) == installation]
            return [Found(c.id, c.plan.labels.get(RUN_LABEL, ""), c.status, network=c.plan.network) for c in ours]

    def events(self, installation: str) -> Iterator[Died]:
        self._answer()
        queue: SimpleQueue[Died | None] = SimpleQueue()
        with self._lock:
            self._events.append(queue)
        while died := queue.get():
            yield died
        with self._lock:
            self._events.remove(queue)

    def run_helper(self, plan: ContainerPlan) -> int:
        """Beside the programs of `_step` it knows `chown`, which does nothing."""
        self.helpers.append(plan)
        if plan.command[0] == "chown":
            self._answer()
            return self.chown_exit_code
        container_id = self.create(plan)
        self.start(container_id)
        self.wait(container_id)
        code = self._get(container_id).exit_code
        self.remove(container_id)
        return code

    def _get(self, container_id: str) -> FakeContainer:
        container = self.made.get(container_id)
        if container is None:
            raise ContainerMissing(f"No such container: {container_id}")
        return container

    def _is_in_use(self, image_id: str) -> bool:
        return any(container.image_id == image_id for container in self.made.values())

    def _play(self, container: FakeContainer) -> None:
        code = 0
        if container.plan.port:
            self._say(container, 1, b"serving\n")
            container.stopping.wait()
        for word in container.plan.command[-1].split(";"):
            if container.stopping.is_set():
                code = self._ended(container)
                break
            done = self._step(container, word.strip())
            if done is not None:
                code = done
                break
        with self._lock:
            container.exit_code, container.status = code, "exited"
            container.finishes += 1
            for listener in container.listeners:
                listener.put(None)
            container.listeners.clear()
            queues = list(self._events) if container.id in self.made else []
        container.ended.set()
        for queue in queues:
            queue.put(Died(container.id, code, container.was_signalled))
        self.on_death(Died(container.id, code, container.was_signalled))

    def _step(self, container: FakeContainer, word: str) -> int | None:
        """Execute one command. Returns the exit code of the program; None: it goes on."""
        name, _, rest = word.partition(" ")
        text, to_stderr, _ = rest.partition(" >&2")
        if name in ("echo", "printf"):
            self._say(container, 2 if to_stderr else 1, text.encode() + (b"\n" if name == "echo" else b""))
        elif name == "sleep" and container.stopping.wait(float(rest)):
            return self._ended(container)
        elif name in ("exit", "false"):
            return int(rest or "1")
        elif name not in ("sleep", "true", ""):
            self._say(container, 2, f"sh: {name}: not found\n".encode())
            return 127
        return None

    @staticmethod
    def _ended(container: FakeContainer) -> int:
        return TERMINATED if container.handled is None else container.handled

    def _say(self, container: FakeContainer, stream: int, data: bytes) -> None:
        frame = Frame(stream, data, time.time_ns() // 1000)
        with self._lock:
            container.output.append(frame)
            for listener in container.listeners:
                listener.put(frame)


class FakeStream:
    def __init__(self, container: FakeContainer, stored: list[Frame], *, listens: bool) -> None:
        self._stored = stored
        self._queue: SimpleQueue[Frame | None] = SimpleQueue()
        if listens:
            container.listeners.append(self._queue)
        else:
            self._queue.put(None)

    def __iter__(self) -> Iterator[Frame]:
        yield from self._stored
        while frame := self._queue.get():
            yield frame

    def close(self) -> None:
        self._queue.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _published(container: FakeContainer) -> dict[int, Endpoint]:
    plan, port = container.plan, container.plan.port
    if not port or not plan.publishes_port or plan.network == "host" or container.status != "running":
        return {}
    return {port: Endpoint(LOOPBACK, 40_000 + int(container.id[-3:], 16))}


def _address(container: FakeContainer) -> str | None:
    """One of the many addresses of loopback, so that a test can listen there."""
    if container.status != "running" or container.plan.network == "none":
        return None
    number = int(container.id, 16)
    return LOOPBACK if container.plan.network == "host" else f"127.1.{number >> 8 & 255}.{number & 255}"


def _tail(frames: list[Frame], lines: int) -> list[Frame]:
    kept: list[Frame] = []
    for frame in reversed(frames):
        if lines <= 0:
            break
        kept.insert(0, frame)
        lines -= frame.data.count(b"\n")
    return kept
