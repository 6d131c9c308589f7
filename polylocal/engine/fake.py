"""An engine without containers, for tests and benchmarks: the same contract, in memory.

Its programs are a little shell: `echo TEXT`, `printf TEXT` (with ` >&2` for stderr), `sleep SECONDS`, `exit N`, `true`,
`false`, joined by `;`. What publishes a port is a server, and runs until it is stopped. It asserts the protocol:
nothing is started that was not created, no run has two containers.
"""

from __future__ import annotations

import itertools
import re
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from queue import SimpleQueue
from typing import Self

from polylocal import clock
from polylocal.engine.base import (
    BuildRequest,
    BuildResult,
    ContainerState,
    Died,
    EngineInfo,
    Found,
    Frame,
    GpuSupport,
    Image,
    ImageConfig,
    LocalImage,
    OnLine,
)
from polylocal.engine.machine import Usage
from polylocal.errors import ContainerMissing, EngineError, EngineUnreachable, ImageMissing
from polylocal.planning.container import BUILD_LABEL, HOME_LABEL, IMAGE_LABEL, RUN_LABEL, ContainerPlan
from polylocal.store.rows import NOTHING_BUILT, Ledger
from polylocal.system.cancellation import Cancel

KILLED, TERMINATED = 137, 143
IMAGE_BYTES = 1 << 20  # of each image that it builds


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


class FakeEngine:
    """See `base.Engine`. `shells` are the files that every image has."""

    def __init__(self, images: Sequence[str] = ("base",), shells: Sequence[str] = ("/bin/bash", "/bin/sh")) -> None:
        self.local = {name: f"sha256:{name}" for name in images}
        self._built: dict[str, tuple[str, Image]] = {}  # by id: whose, and what
        self.labels: dict[str, dict[str, str]] = {}  # of images, by id
        self.triggers: dict[str, list[str]] = {}  # what ONBUILD left in images, by id
        self.users: dict[str, str] = {}  # of images, by id
        self.texts: list[str] = []  # the Dockerfiles that it was given
        self.remote: set[str] = set()  # what a pull finds
        self.shells = set(shells)
        self.files: dict[str, bytes] = {}  # further ones of every image
        self.environment: dict[str, str] = {}  # of every image
        self.made: dict[str, FakeContainer] = {}
        self.builds = 0
        self.helpers: list[ContainerPlan] = []
        self.chown_exit_code = 0
        self.cards = 0  # GPUs
        self.is_away = False
        self.on_death: Callable[[Died], None] = lambda died: None
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._events: list[SimpleQueue[Died | None]] = []

    # -- what tests do behind its back ----------------------------------------------------------------------------

    @contextmanager
    def away(self) -> Iterator[None]:
        """The engine does not answer; containers go on."""
        self.is_away = True
        self.cut()
        try:
            yield
        finally:
            self.is_away = False

    def cut(self) -> None:
        """Every open stream ends, without a word."""
        with self._lock:
            for container in self.made.values():
                for listener in container.listeners:
                    listener.put(None)
                container.listeners.clear()
            for queue in self._events:
                queue.put(None)

    def lose(self, container_id: str) -> None:
        """`docker rm -f` by somebody else."""
        with self._lock:
            container = self._get(container_id)
            container.stopping.set()
            del self.made[container_id]

    # -- the contract ---------------------------------------------------------------------------------------------

    is_local = True

    def info(self) -> EngineInfo:
        self._answer()
        return EngineInfo("Fake", "1.0", "1.41", "fake://", 4, 4096.0, "/", False, False)

    def gpus(self) -> GpuSupport:
        return GpuSupport(self.cards, "" if self.cards else "the fake engine has no cards")

    def builder(self) -> str:
        return "classic (Fake 1.0)"

    def platform(self) -> str:
        return "linux/amd64"

    def image_id(self, name: str) -> str | None:
        self._answer()
        return self.local.get(name) or (name if name in self.local.values() else None)

    def image(self, name: str) -> LocalImage | None:
        self._answer()
        found = self.local.get(name)
        if found is None:
            return None
        names = [tag for tag, image_id in self.local.items() if image_id == found]
        made = self._built.get(found)
        labels = {IMAGE_LABEL: made[0], BUILD_LABEL: made[1].build} if made else self.labels.get(found, {})
        made_by = f"LABEL {BUILD_LABEL}={made[1].build}" if made else ""
        triggers, user = self.triggers.get(found, []), self.users.get(found, "")
        return LocalImage(found, names, labels, triggers=triggers, made_by=made_by, user=user)

    def image_config(self, image: str) -> ImageConfig:
        image_id = self.image_id(image)
        if image_id is None:
            raise ImageMissing(f"No such image: {image}")
        return ImageConfig(self.environment, self.users.get(image_id, ""))

    def pull(self, name: str, on_line: OnLine, cancel: Cancel, *, anew: bool = False) -> None:
        self._answer()
        if name in self.local and not anew:
            return
        if name not in self.remote:
            raise EngineError(f"pull access denied for {name}")
        on_line(f"{name} pulled")
        self.local[name] = f"sha256:{name}"

    def build(self, request: BuildRequest, on_line: OnLine, cancel: Cancel) -> BuildResult:
        self._answer()
        self.builds += 1
        with tarfile.open(fileobj=request.context) as tar:
            member = tar.extractfile("Dockerfile")
            text = member.read().decode() if member else ""
        self.texts.append(text)
        owner = re.search(rf"^LABEL {re.escape(IMAGE_LABEL)}=(.*)$", text, re.MULTILINE)
        lines = [line for line in text.splitlines() if line and not line.startswith(("#", "LABEL "))]
        for number, line in enumerate(lines, 1):
            step = f"Step {number}/{len(lines)} : {line}"
            on_line(step)
            if cancel.called:
                return BuildResult(None, "The build was stopped.", step)
            if line.startswith("RUN sleep "):
                self._sleep_until_cancelled(float(line.split()[2]), cancel)
            if line.startswith("RUN exit ") and line != "RUN exit 0":
                error = f"The command '/bin/sh -c {line[4:]}' returned a non-zero code: {line.split()[2]}"
                on_line(error)
                return BuildResult(None, error, step)
        if cancel.called:
            return BuildResult(None, "The build was stopped.", step)
        made = f"sha256:{next(self._numbers):012x}{'0' * 52}"
        request.on_image(made)
        self.local[request.tag] = made
        installation, uuid = owner[1] if owner else "", request.labels.get(BUILD_LABEL, "")
        self._built[made] = (installation, Image(made, uuid, [request.tag], {made: IMAGE_BYTES}, clock.now()))
        return BuildResult(made)

    def remove_image(self, name: str) -> bool:
        self._answer()
        image_id = self.local.get(name, name)
        if any(container.image_id == image_id for container in self.made.values()):
            return False
        for tag in [tag for tag, known in self.local.items() if name in (tag, known)]:
            del self.local[tag]
        return True

    def images(self, installation: str, ledger: Ledger = NOTHING_BUILT) -> Sequence[Image]:
        self._answer()
        here = set(self.local.values())
        found = []
        for of, image in self._built.values():
            maker = ledger.maker(image.id, image.names, ())
            if image.id in here and (maker or of == installation):
                build = maker or image.build
                found.append(replace(image, build=build, is_proven=maker is not None))
        return found

    def image_ids(self) -> Sequence[str]:
        self._answer()
        return list(self.local.values())

    def build_containers(self, ledger: Ledger) -> Sequence[str]:
        self._answer()
        return []

    def create(self, plan: ContainerPlan) -> str:
        self._answer()
        with self._lock:
            if plan.image not in self.local and plan.image not in self.local.values():
                raise ImageMissing(f"No such image: {plan.image}")
            for container in self.made.values():
                if container.plan.name == plan.name:
                    if any(container.plan.labels.get(k) != plan.labels.get(k) for k in (HOME_LABEL, RUN_LABEL)):
                        raise EngineError(f"a container named {plan.name} is there and is not ours")
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

    def attach(self, container_id: str) -> _FakeStream:
        self._answer()
        with self._lock:
            return _FakeStream(self._get(container_id), [], listens=True)

    def logs(self, container_id: str, *, follow: bool, tail: int | None = None) -> _FakeStream:
        self._answer()
        with self._lock:
            container = self._get(container_id)
            stored = list(container.output) if tail is None else _tail(container.output, tail)
            return _FakeStream(container, stored, listens=follow and container.status == "running")

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
                started_at=f"start {container.starts}" if container.starts else "",
                finished_at=f"finish {container.finishes}" if container.finishes else "",
                image_id=container.image_id,
                port=_port(container),
                address=_address(container),
            )

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
        """`chown` is the one program that it pretends to have, beside those of `_step`."""
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

    def gateway(self, network: str) -> str | None:
        self._answer()
        return None

    def close(self) -> None:
        self.cut()

    # -- helpers --------------------------------------------------------------------------------------------------

    def _answer(self) -> None:
        if self.is_away:
            raise EngineUnreachable("the fake engine is away")

    def _get(self, container_id: str) -> FakeContainer:
        container = self.made.get(container_id)
        if container is None:
            raise ContainerMissing(f"No such container: {container_id}")
        return container

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

    @staticmethod
    def _sleep_until_cancelled(seconds: float, cancel: Cancel) -> None:
        called = threading.Event()
        cancel.on_call(called.set)
        called.wait(seconds)


class _FakeStream:
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


def _port(container: FakeContainer) -> int | None:
    is_published = container.plan.port and container.plan.publishes_port and container.status == "running"
    return 40_000 + int(container.id[-3:], 16) if is_published else None


def _address(container: FakeContainer) -> str | None:
    """One of loopback's many addresses, so that a test can listen there."""
    if container.status != "running" or container.plan.network in ("host", "none"):
        return None
    number = int(container.id, 16)
    return f"127.1.{number >> 8 & 255}.{number & 255}"


def _tail(frames: list[Frame], lines: int) -> list[Frame]:
    kept: list[Frame] = []
    for frame in reversed(frames):
        if lines <= 0:
            break
        kept.insert(0, frame)
        lines -= frame.data.count(b"\n")
    return kept
