"""A separate container engine that tests may kill. Its processes, files and mounts are removed at the end."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
from docker.errors import DockerException
from requests.exceptions import RequestException

READY_S = 90.0  # it takes more than ten if an orphan has to be stopped
STOP_S = 40.0
_POLL_S = 0.02


class OwnEngine:
    """A dockerd with its containerd below one short-named folder, in a separate network namespace."""

    def __init__(self, folder: Path, image: bytes) -> None:
        self.folder = folder
        self.socket = folder / "engine.sock"
        self._image = image
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"unix://{self.socket}"

    def prepare(self) -> None:
        """Start for the first time, and load the image."""
        self.start()
        with self.client() as client:
            client.images.load(self._image)

    def start(self) -> None:
        self._forget_pids()
        # in the host's network namespace, it would change the bridge of the other engine
        command = ["unshare", "--net", "--", "dockerd", "--data-root", str(self.folder / "data")]
        command += ["--exec-root", str(self._exec_root)]
        command += ["--pidfile", str(self._pid_file), "-H", self.address, "--iptables=false"]
        command += ["--ip-forward=false", "--ip-masq=false"]
        with (self.folder / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        process = self._process

        def ready() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"dockerd ended: {self._last_words()}")
            return self._answers()

        _until(ready, READY_S, "dockerd does not answer")

    def kill(self) -> None:
        """kill -9. containerd dies with dockerd or is killed as well. Shims and containers live on."""
        containerd = self._containerd()
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
        if containerd:
            with contextlib.suppress(ProcessLookupError):
                os.kill(containerd, signal.SIGKILL)
            _until(lambda: not _is_alive(containerd), 10, "containerd does not end")

    def freeze(self) -> None:
        """Stop dockerd, as a machine without free memory or processor time does. `kill` ends it all the same."""
        if self._process:
            self._process.send_signal(signal.SIGSTOP)

    def kill_with_containers(self) -> None:
        """kill -9 of the engine, then of all shims and containers. The next start reports exit code 255."""
        self.kill()
        for pid in self._leftover_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _until(lambda: not self._leftover_pids(), 10, "shims do not end")

    def stop(self) -> None:
        """Stop as on a shutdown of the host: containers are stopped first."""
        if self._process:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        self.kill()

    @contextlib.contextmanager
    def client(self) -> Iterator[docker.DockerClient]:
        client = docker.DockerClient(base_url=self.address, timeout=60)
        try:
            yield client
        finally:
            client.close()

    def close(self) -> None:
        """Remove containers, processes, mounts and files. Works in any state, and repeatedly."""
        if self._process and self._process.poll() is None:
            with contextlib.suppress(DockerException, RequestException), self.client() as client:
                for container in client.containers.list(all=True, ignore_removed=True):
                    with contextlib.suppress(DockerException):
                        container.remove(force=True)
            self.stop()
        self.kill_with_containers()
        for address in self._exec_root.glob("containerd/daemon/io.containerd.runtime.v2.task/*/*/address"):
            Path(address.read_text().removeprefix("unix://")).unlink(missing_ok=True)
        unmount_below(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- helpers --------------------------------------------------------------------------------------------------

    @property
    def _exec_root(self) -> Path:
        return self.folder / "exec"

    @property
    def _pid_file(self) -> Path:
        return self.folder / "dockerd.pid"

    @property
    def _containerd_pid_file(self) -> Path:
        return self._exec_root / "containerd" / "containerd.pid"

    def _containerd(self) -> int | None:
        try:
            pid = int(self._containerd_pid_file.read_text())
        except (OSError, ValueError):
            return None
        return pid if str(self._exec_root) in _command_of(pid) else None

    def _forget_pids(self) -> None:
        """A stale pid file prevents the next start if another process has the number by now."""
        for file in (self._pid_file, self._containerd_pid_file):
            file.unlink(missing_ok=True)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("engine")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(2)
            connection.sock.connect(str(self.socket))
            connection.request("GET", "/_ping")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _last_words(self) -> str:
        return (self.folder / "dockerd.log").read_text(errors="replace")[-2000:]

    def _leftover_pids(self) -> set[int]:
        """Processes with this engine's folder in their command, and their children: shims and containers."""
        roots = {pid for pid in _pids() if str(self._exec_root) in _command_of(pid)}
        return roots | {child for root in roots for child in _descendants(root)}


def save_image(address: str, name: str) -> bytes:
    """Save an image of another engine."""
    client = docker.DockerClient(base_url=address)
    try:
        return b"".join(client.images.get(name).save(named=True))
    finally:
        client.close()


def unmount_below(folder: Path) -> None:
    with Path("/proc/mounts").open() as mounts:
        points = [line.split()[1] for line in mounts]
    for point in sorted((p for p in points if Path(p).is_relative_to(folder)), reverse=True):
        subprocess.run(["umount", "-l", point], check=False, capture_output=True)


def _until(check: Callable[[], bool], within_s: float, trouble: str) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{trouble} within {within_s:g} s")
        time.sleep(_POLL_S)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _is_alive(pid: int) -> bool:
    return bool(_command_of(pid))  # a zombie has none


def _descendants(pid: int) -> Iterator[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in map(int, children):
        yield child
        yield from _descendants(child)
