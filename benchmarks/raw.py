"""The baseline of every ratio: the same work with the Docker SDK only."""

from __future__ import annotations

import contextlib
import io
import queue
import tarfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError

from polylocal.engine.plan import HOME_LABEL

BENCH_LABEL = "polylocal.bench"
_TIMEOUT_S = 300


@dataclass(frozen=True)
class Death:
    """A `die` event: its time according to the engine and its arrival, in seconds since 1970."""

    container_id: str
    at: float
    arrived: float


class RawEngine:
    """The SDK's low-level client. All containers and images get the label `polylocal.bench=<mark>`."""

    def __init__(self, address: str, mark: str) -> None:
        self.mark = mark
        self._address = address
        self._labels = {BENCH_LABEL: mark}
        self.api = self._client(_TIMEOUT_S)

    def about(self) -> str:
        version = self.api.version()
        about = self.api.info()
        return f"Docker {version['Version']}, {about['Driver']}, cgroup v{about.get('CgroupVersion', '1')}"

    def close(self) -> None:
        self.api.close()

    # -- containers -----------------------------------------------------------------------------------------------

    def create(self, image: str, cmd: str, binds: Iterable[str] = (), **host: Any) -> str:
        """Create a container on the bridge network with the json-file driver, as polylocal does."""
        config = self.api.create_host_config(
            binds=list(binds), network_mode="bridge", log_config={"Type": "json-file", "Config": {}}, **host
        )
        # overrides the label that the container inherits from its image: the daemon would remove the container
        labels = {**self._labels, HOME_LABEL: ""}
        made = self.api.create_container(
            image, entrypoint=["/bin/sh", "-c", cmd], command=[], labels=labels, host_config=config
        )
        found: str = made["Id"]
        return found

    def run(self, image: str, cmd: str, binds: Iterable[str] = (), **host: Any) -> float:
        """Seconds of create + start + wait. The removal of the container is not measured."""
        began = time.perf_counter()
        container = self.create(image, cmd, binds, **host)
        self.api.start(container)
        code = self.api.wait(container)["StatusCode"]
        took = time.perf_counter() - began
        self.remove(container)
        if code:
            raise RuntimeError(f"`{cmd}` ended with exit code {code}")
        return took

    def run_and_follow(self, image: str, cmd: str, binds: Iterable[str] = ()) -> tuple[float, int]:
        """The same while the SDK follows the log: (seconds, received bytes)."""
        began = time.perf_counter()
        container = self.create(image, cmd, binds)
        self.api.start(container)
        size = sum(map(len, self.api.logs(container, stream=True, follow=True)))
        self.api.wait(container)
        took = time.perf_counter() - began
        self.remove(container)
        return took, size

    def run_many(self, image: str, cmd: str, count: int, at_once: int) -> float:
        """Run `count` containers with `at_once` threads. Returns the seconds until the last one has ended."""
        began = time.perf_counter()

        def one(_: int) -> float:
            container = self.create(image, cmd)
            self.api.start(container)
            self.api.wait(container)
            ended = time.perf_counter()
            self.remove(container)  # part of the measured time, as in an ordinary script
            return ended

        with ThreadPoolExecutor(at_once) as pool:
            return max(pool.map(one, range(count))) - began

    def remove(self, container: str) -> None:
        self.api.remove_container(container, v=True, force=True)

    def read_back(self, image: str, cmd: str, binds: Iterable[str], lines: int) -> float:
        """The speed in MB/s at which the SDK reads the last `lines` lines of a finished container."""
        container = self.create(image, cmd, binds)
        self.api.start(container)
        self.api.wait(container)
        began = time.perf_counter()
        size = sum(map(len, self.api.logs(container, stream=True, tail=lines)))
        took = time.perf_counter() - began
        self.remove(container)
        return size / took / 1e6

    # -- builds ---------------------------------------------------------------------------------------------------

    def build(self, context: bytes, tag: str) -> None:
        """Build a prepared context with the SDK."""
        stream = self.api.build(
            fileobj=io.BytesIO(context),
            custom_context=True,
            tag=tag,
            labels=self._labels,
            rm=True,
            forcerm=True,
            decode=True,
        )
        for event in stream:
            if "error" in event:
                raise RuntimeError(event["error"])

    # -- events ---------------------------------------------------------------------------------------------------

    @contextmanager
    def deaths(self, label: str) -> Iterator[queue.SimpleQueue[Death]]:
        """Collect `die` events of containers with this label, on a separate connection and thread."""
        found: queue.SimpleQueue[Death] = queue.SimpleQueue()
        client = self._client(None)
        stream = client.events(filters={"type": "container", "event": "die", "label": label}, decode=True)

        def listen() -> None:
            with contextlib.suppress(requests.exceptions.RequestException, OSError, ValueError, AttributeError):
                for event in stream:
                    found.put(Death(event["Actor"]["ID"], event["timeNano"] / 1e9, time.time()))

        threading.Thread(target=listen, daemon=True).start()
        try:
            yield found
        finally:
            with contextlib.suppress(OSError, AttributeError):
                stream.close()
            client.close()

    # -- cleaning up ----------------------------------------------------------------------------------------------

    def has_containers(self, label: str) -> bool:
        return bool(self.api.containers(all=True, filters={"label": label}))

    def sweep(self, labels: Iterable[str]) -> None:
        """Remove the containers and images that carry one of these labels."""
        for label in labels:
            for container in self.api.containers(all=True, filters={"label": label}):
                self.remove(container["Id"])
            for image in self.api.images(filters={"label": label}):
                with contextlib.suppress(APIError):  # it was removed together with another one
                    self.api.remove_image(image["Id"], force=True)

    def _client(self, timeout_s: float | None) -> docker.APIClient:
        return docker.APIClient(base_url=self._address, timeout=timeout_s, max_pool_size=64)


def context_of(dockerfile: str, code: Path) -> bytes:
    """A build context: the Dockerfile at its root, the code under build/."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("Dockerfile")
        text = dockerfile.encode()
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
        tar.add(code, "build")
    return buffer.getvalue()
