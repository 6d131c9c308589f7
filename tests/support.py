"""Shared by all tests: waiting without fixed pauses, polyaxonfiles, running daemons."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import docker
import pytest
from hypothesis import settings as hypothesis_settings
from programs import Process, start_polylocal

from polylocal.client.http import Client
from polylocal.daemon import home_lock
from polylocal.engine.docker.engine import DockerEngine
from polylocal.engine.plan import IMAGE_LABEL
from polylocal.paths import Home
from polylocal.planning import queue
from polylocal.store import Store
from polylocal.store.rows import Run

T = TypeVar("T")

BUSYBOX = "polylocal/busybox:test"  # made by scripts/base-images; has no bash
USUAL_INPUTS = 200  # generated examples of a test that states no number
_POLL_S, _MAX_POLL_S = 0.01, 0.25
_CAP_SYS_ADMIN = 21  # capabilities(7): the right to mount
_LOCAL_GIT = {"POLYLOCAL_LOCAL_GIT_HOSTS": '["127.0.0.1"]'}  # lets plain users of tests fetch from test servers


def eventually(check: Callable[[], T], within_s: float = 20.0) -> T:
    """Poll until `check` returns a true value, and return it. Each pause is a twentieth of the time since the start."""
    began = time.monotonic()
    while True:
        found = check()
        if found:
            return found
        waited_s = time.monotonic() - began
        if waited_s > within_s:
            raise AssertionError(f"not true within {within_s:g} s: {check}; last: {found!r}")
        time.sleep(min(max(_POLL_S, waited_s / 20), _MAX_POLL_S))


def inputs(usually: int) -> int:
    """The number of generated examples: `usually`, or the number of `--hypothesis-profile=long`."""
    wanted = hypothesis_settings.default.max_examples
    return usually if wanted <= USUAL_INPUTS else wanted


def job(cmd: str = "true", image: str = BUSYBOX, **sections: Any) -> dict[str, Any]:
    """A polyaxonfile of kind job."""
    return {"version": 1, "kind": "job", "build": {"image": image}, "run": {"cmd": cmd}, **sections}


def build(image: str = BUSYBOX, **more: Any) -> dict[str, Any]:
    """A polyaxonfile of kind build."""
    return {"version": 1, "kind": "build", "build": {"image": image, **more}}


@dataclass
class Daemon:
    """A real daemon process with a separate home folder. `kill()` is kill -9."""

    home: Path
    process: Process
    url: str

    @property
    def token(self) -> str:
        return (self.home / "token").read_text().strip()

    def client(self) -> Client:
        return Client(self.url, self.token)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def start_daemon(
    home: Path,
    *flags: str,
    env: dict[str, str] | None = None,
    prefix: Sequence[str] = (),
    program: Sequence[str] = ("-m", "polylocal"),
) -> Daemon:
    """Start `polylocal serve` and wait until it listens. The caller ends it. `prefix`: a command that runs the daemon.

    `program`: the Python program and its first arguments.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "test-daemon.log").open("ab") as log:
        process = start_polylocal(
            [*program, "serve", "--home", str(home), "--port", "0", *flags],
            {**os.environ, "POLYLOCAL_POLL_S": "0.5", **_LOCAL_GIT, **(env or {})},
            log,
            prefix,
        )

    def ready() -> home_lock.Running | None:
        if process.poll() is not None:
            raise AssertionError((home / "test-daemon.log").read_text())
        found = home_lock.running(Home(home))
        return found if found and found.pid == process.pid and found.url else None

    try:
        return Daemon(home, process, eventually(ready, 120).url)
    except BaseException:
        process.kill()  # no one else could kill it
        process.wait()
        raise


def count_ahead(store: Store, run: Run) -> int:
    """The number of runs that wait before this one while no slot is free."""
    waiting = store.queue.not_begun()
    pks = [each.pk for each in waiting]
    decision = queue.decide(waiting, (), None, 0)[pks.index(run.pk)]
    assert isinstance(decision, queue.Wait)
    assert isinstance(decision.reason, queue.NoSlot)
    return decision.reason.ahead


def make_deep_folder(folder: Path, levels: int) -> None:
    """Nested folders called `d`, deeper than a path can express. Remove them with `remove_tree`."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)


def unpack(tar: tarfile.TarFile, folder: Path, by: str = "data") -> None:
    """Extract everything with tarfile's filter `by`. Python before 3.11.4 lacks filters, and needs none."""
    tar.extraction_filter = getattr(tarfile, f"{by}_filter", None)
    tar.extractall(folder)


def list_tree(folder: Path) -> list[Path]:
    """All files and folders below it. Unlike `rglob`, it ignores entries that disappear meanwhile."""
    return [Path(parent, name) for parent, folders, files in os.walk(folder) for name in (*folders, *files)]


def sweep(address: str, installation: str) -> None:
    """Remove all containers and images of an installation. Objects that are already being removed are ignored."""
    engine = DockerEngine(address)
    client = docker.DockerClient(base_url=address)

    def is_swept() -> bool:
        for found in engine.containers(installation):
            engine.remove(found.id)
        # the low-level list: `images.list` also inspects each image and fails if one is removed meanwhile
        for image in client.api.images(filters={"label": f"{IMAGE_LABEL}={installation}"}):
            try:
                client.api.remove_image(image["Id"], force=True)
            except docker.errors.ImageNotFound:
                continue
            except docker.errors.APIError as error:
                if error.status_code != 409:
                    raise
                return False  # a step of an interrupted build runs in it, and ends in a moment
        # again: the engine may still have been creating one for a killed daemon
        return not engine.containers(installation)

    eventually(is_swept, 60)
    engine.close()
    client.close()


@contextmanager
def running_daemon(home: Path, *flags: str, env: dict[str, str] | None = None) -> Iterator[Daemon]:
    daemon = start_daemon(home, *flags, env=env)
    try:
        yield daemon
    finally:
        daemon.kill()


@contextmanager
def small_disk(folder: Path, mib: int, *options: str) -> Iterator[Path]:
    """A tmpfs of `mib` MiB at `folder`, with `options` of mount. Skips the test if this process may not mount."""
    if not _may_mount():
        pytest.skip("only root may mount a disk; scripts/test --quick makes a user namespace for it")
    folder.mkdir(parents=True, exist_ok=True)
    chosen = ",".join((f"size={mib}m", "mode=755", *options))
    subprocess.run(["mount", "-t", "tmpfs", "-o", chosen, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        # a thread or the engine may still have an open file; the disk disappears when it is closed
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _may_mount() -> bool:
    """Root always tries to mount. If that fails, so does the test."""
    status = Path("/proc/self/status")
    if os.geteuid() == 0 or not status.exists():
        return os.geteuid() == 0
    effective = next(line for line in status.read_text().splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) & 1 << _CAP_SYS_ADMIN)


def fill(folder: Path, leave_bytes: int = 0) -> Path:
    """Fill the disk of `folder`, except for `leave_bytes`. Remove the returned file to free the space."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while (left := shutil.disk_usage(folder).free - leave_bytes) > 0:
            file.write(bytes(min(left, 1 << 20)))
    return ballast
