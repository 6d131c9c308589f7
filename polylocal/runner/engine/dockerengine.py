"""The engine over the Docker API: Docker Engine 20.10 and newer, Podman's compatible API. The only importer of docker.

What docker-py gets wrong for a daemon is worked around here and nowhere else; each place names the issue.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import logging
import re
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import urlsplit

import docker
import requests
import urllib3
from docker.errors import (
    APIError,
    DockerException,
    ImageNotFound,
    NotFound,
    create_api_error_from_http_exception,
)
from docker.types import CancellableStream, DeviceRequest
from docker.utils import kwargs_from_env

from polylocal import clock
from polylocal.cancelling import Cancel, holding
from polylocal.errors import ContainerMissing, EngineError, EngineUnreachable, ImageMissing
from polylocal.machine import Usage
from polylocal.runner.container import (
    BUILD_LABEL,
    HOME_LABEL,
    IMAGE_LABEL,
    RUN_LABEL,
    ContainerPlan,
    Mount,
    is_name_of,
)
from polylocal.runner.engine import buildkit, stats
from polylocal.runner.engine.base import (
    BuildRequest,
    BuildResult,
    ContainerState,
    Died,
    EngineInfo,
    Found,
    Frame,
    Image,
    OnLine,
)
from polylocal.runner.engine.buildlog import BuildLog
from polylocal.runner.engine.frames import Demultiplexer, joined, timed

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 120  # docker-py's 60 s are too short for a busy engine (docker-py#2266)
HELPER_S = 600.0  # that handing over a large folder may take
POOL_SIZE = 64  # docker-py's pool of 10 drops connections under parallel runs (docker-py#1636)
_RECEIVE = 1 << 18
# last words of the API's paths; anything else there is a name
_VERBS = frozenset("archive attach create history json kill logs prune start stats stop tag wait".split())
# what a lost connection looks like: docker-py lets requests', urllib3's and the socket's errors through
_CUT = (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)


class DockerEngine:
    """See `base.Engine` for the contract. Connects at the first call; `address` is as in DOCKER_HOST."""

    def __init__(self, address: str, *, use_buildkit: bool = False, pull_timeout_s: float = 60.0) -> None:
        self.address = address
        self._buildkit = buildkit.find(address) if use_buildkit else None
        if use_buildkit and not self._buildkit:
            log.warning("builder = buildkit, but no docker command here has buildx: the classic builder is used")
        self._pull_timeout_s = pull_timeout_s
        self._connecting = threading.Lock()
        self._client: docker.APIClient | None = None
        self._pulls: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._about: EngineInfo | None = None
        self.observe: Callable[[str, float], None] = lambda call, seconds: None  # each answer: to what, after how long

    # -- the engine itself ----------------------------------------------------------------------------------------

    @property
    def is_local(self) -> bool:
        return self.address.startswith("unix://")

    def info(self) -> EngineInfo:
        with _translated():
            client = self._connected()
            about, version = client.info(), client.version()
        components = {component["Name"] for component in version.get("Components") or []}
        security = " ".join(about.get("SecurityOptions") or [])
        self._about = EngineInfo(
            name="Podman" if "Podman Engine" in components else "Docker",
            version=version["Version"],
            api_version=version["ApiVersion"],
            address=self.address,
            cpus=about.get("NCPU", 1),
            memory_mib=about.get("MemTotal", 0) / 2**20,
            root=about.get("DockerRootDir", ""),
            is_rootless="rootless" in security,
            is_desktop="desktop" in about.get("OperatingSystem", "").lower(),
        )
        return self._about

    def time(self) -> datetime:
        """The engine's clock."""
        with _translated():
            text = self._connected().info()["SystemTime"]
        return datetime.fromisoformat(text[:19] + text[-6:] if text[-6] in "+-" else text[:19] + "+00:00")

    def builder(self) -> str:
        if self._buildkit:
            return self._buildkit.name
        about = self._known()
        return f"classic ({about.name} {about.version})"

    def gateway(self, network: str) -> str | None:
        with _translated():
            found = self._connected().inspect_network(network)
        pools = (found.get("IPAM") or {}).get("Config") or []
        return next(filter(None, map(_gateway_of, pools)), None) if found["Driver"] == "bridge" else None

    def close(self) -> None:
        client, self._client = self._client, None
        if client:
            client.close()

    # -- images ---------------------------------------------------------------------------------------------------

    def image_id(self, name: str) -> str | None:
        try:
            with _translated():
                found: str = self._connected().inspect_image(name)["Id"]
        except ImageMissing:
            return None
        return found

    def pull(self, name: str, on_line: OnLine, cancel: Cancel) -> None:
        with holding(self._pulls[name], cancel):
            if self.image_id(name):
                return
            repository, tag = _repository_and_tag(name)
            with _translated(), self._new_client(self._pull_timeout_s, _StreamClient) as client:
                events = client.pull(repository, tag=tag, stream=True, decode=True)
                cancel.on_call(CancellableStream(events, client.response).close)
                try:
                    _show_pull(events, on_line)
                except _CUT:
                    if not cancel.called:
                        raise
            if cancel.called:
                raise EngineError("the pull was stopped")

    def build(self, request: BuildRequest, on_line: OnLine, cancel: Cancel) -> BuildResult:
        if self._buildkit:
            result = self._buildkit.build(request, on_line, cancel)
            return BuildResult(self.image_id(request.tag)) if result.image_id is not None else result
        lines = BuildLog(on_line)
        with _translated(), self._new_client(CALL_TIMEOUT_S, _StreamClient) as client:
            try:
                self._build_classic(client, request, lines, cancel)
            except APIError as error:  # refused before the first line: a Dockerfile that can't be parsed
                if cancel.called or error.status_code is None or error.status_code >= 500:
                    raise
                return lines.result(error.explanation or str(error))
            except _CUT:
                if not cancel.called:
                    raise
        if cancel.called:
            return lines.result("The build was stopped.")
        if not lines.is_whole:
            raise EngineUnreachable("the engine's answer ended in the middle of the build")
        return lines.result()

    def _build_classic(self, client: _StreamClient, request: BuildRequest, lines: BuildLog, cancel: Cancel) -> None:
        # the low-level call: images.build() holds the log back until the end
        stream = client.build(
            fileobj=request.context,
            custom_context=True,
            tag=request.tag,
            labels=dict(request.labels),
            nocache=request.nocache,
            buildargs=dict(request.arguments) or None,
            rm=True,
            forcerm=True,
            decode=True,
        )
        # closing the connection is how the classic builder is told to stop
        cancel.on_call(CancellableStream(stream, client.response).close)
        if not cancel.called:
            lines.read(stream)

    def remove_image(self, name: str) -> None:
        with suppress(ImageMissing, EngineError), _translated():
            self._connected().remove_image(name)

    def images(self, installation: str) -> Sequence[Image]:
        with _translated():
            # not `df`, which would tell what is shared: it also measures every volume and container there is
            found = self._connected().images(filters={"label": f"{IMAGE_LABEL}={installation}"})
        return list(filter(None, map(self._as_ours, found)))

    def _as_ours(self, image: dict[str, Any]) -> Image | None:
        """None: it was made by others on top of ours, or it is gone meanwhile."""
        try:
            with _translated():
                history = self._connected().history(image["Id"])
        except ImageMissing:
            return None
        build = image["Labels"].get(BUILD_LABEL, "")  # none: the steps of a build that came to no end
        names = [name for name in image.get("RepoTags") or [] if name != "<none>:<none>"]
        ours = [name for name in names if is_name_of(name, build)]
        # a label is the last that we put on an image: what was made from it has something else on top
        is_top = any(label in history[0]["CreatedBy"] for label in (BUILD_LABEL, IMAGE_LABEL))
        if not ours and (names or (build and not is_top)):
            return None
        created_at = clock.stamp(datetime.fromtimestamp(image["Created"], UTC))
        return Image(image["Id"], build, ours, _layers(image["Id"], history), created_at, len(names) > len(ours))

    # -- containers -----------------------------------------------------------------------------------------------

    def create(self, plan: ContainerPlan) -> str:
        if plan.limits.gpus and self._known().name == "Podman":
            # its compatible API ignores device requests without a word (podman#22645): a silent run on the CPU
            raise EngineError("Podman's Docker API can't give GPUs; use Docker Engine for runs that need one")
        with _translated():
            try:
                found: str = self._create(plan, init=True)
            except APIError as error:
                if error.status_code == 409:
                    return self._adopt(plan, error)
                if "container-init" not in str(error.explanation):
                    raise
                log.warning("the engine has no init program (install catatonit): zombies are not reaped in runs")
                found = self._create(plan, init=False)
        return found

    def has_file(self, container_id: str, path: str) -> bool:
        with _translated():
            client = self._connected()
            url = f"{client.base_url}/v{client.api_version}/containers/{container_id}/archive"
            answer = client.head(url, params={"path": path}, timeout=CALL_TIMEOUT_S)
        if not answer.ok and answer.status_code != 404:
            raise EngineError(f"the engine could not say whether {path} is in the container: {answer.status_code}")
        return bool(answer.ok)

    def start(self, container_id: str) -> None:
        with _translated():
            self._connected().start(container_id)

    def attach(self, container_id: str) -> _Attached:
        with _translated():
            raw = self._connected().attach_socket(container_id, params={"stdout": 1, "stderr": 1, "stream": 1})
        return _Attached(raw)

    def logs(self, container_id: str, *, follow: bool, tail: int | None = None) -> _Stored:
        with _translated():
            client = self._connected()
        url = f"{client.base_url}/v{client.api_version}/containers/{container_id}/logs"
        params = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": int(follow), "tail": tail or "all"}
        with _translated():
            # docker-py's logs() hides the stream of each piece, and ends without a word when the link is cut
            response = client.get(
                url, params=params, stream=True, timeout=(CALL_TIMEOUT_S, None if follow else CALL_TIMEOUT_S)
            )
            try:
                response.raise_for_status()
            except requests.exceptions.HTTPError as error:
                create_api_error_from_http_exception(error)
        return _Stored(response)

    def inspect(self, container_id: str) -> ContainerState:
        with _translated():
            found = self._connected().inspect_container(container_id)
        state = found["State"]
        return ContainerState(
            id=found["Id"],
            status=state["Status"],
            exit_code=state["ExitCode"],
            out_of_memory=bool(state.get("OOMKilled")),
            error=state.get("Error") or "",
            started_at="" if state["StartedAt"].startswith("0001") else state["StartedAt"],
            finished_at="" if state["FinishedAt"].startswith("0001") else state["FinishedAt"],
            image_id=found["Image"],
            port=_published(found["NetworkSettings"].get("Ports") or {}),
        )

    def usage(self, container_id: str) -> Usage | None:
        with _translated():
            client = self._connected()
            # `one-shot` gives the sample at once; without it the engine takes a second to have two of them
            url = f"{client.base_url}/v{client.api_version}/containers/{container_id}/stats"
            answer = client.get(url, params={"stream": 0, "one-shot": 1}, timeout=CALL_TIMEOUT_S)
            try:
                answer.raise_for_status()
            except requests.exceptions.HTTPError as error:
                create_api_error_from_http_exception(error)
            sample = stats.read(answer.json())
            if sample is None or sample.memory_bytes is not None or not self.is_local:
                return sample
            pid = client.inspect_container(container_id)["State"]["Pid"]
        return stats.with_memory(sample, stats.memory_of(pid))

    def stop(self, container_id: str, grace_s: float) -> None:
        with suppress(ContainerMissing), _translated():
            self._connected().stop(container_id, timeout=max(0, round(grace_s)))

    def remove(self, container_id: str) -> None:
        with _translated():
            try:
                self._connected().remove_container(container_id, v=True, force=True)
            except NotFound:
                log.debug("container %s was gone already", container_id[:12])
            except APIError as error:
                if error.status_code != 409:  # 409: its removal is under way
                    raise

    def containers(self, installation: str) -> Sequence[Found]:
        with _translated():
            found = self._connected().containers(all=True, filters={"label": f"{HOME_LABEL}={installation}"})
        return [
            Found(item["Id"], item["Labels"].get(RUN_LABEL, ""), item["State"], float(item["Created"]))
            for item in found
        ]

    def events(self, installation: str) -> Iterator[Died]:
        filters = {"type": "container", "event": ["die", "kill"], "label": f"{HOME_LABEL}={installation}"}
        signalled = set[str]()
        with _translated(), self._new_client(None) as client:
            for event in client.events(filters=filters, decode=True):
                container_id, attributes = event["Actor"]["ID"], event["Actor"]["Attributes"]
                if event["Action"] == "kill":
                    signalled.add(container_id)
                    continue
                code = attributes.get("exitCode", attributes.get("containerExitCode"))
                yield Died(container_id, int(code), container_id in signalled)
                signalled.discard(container_id)

    def run_helper(self, plan: ContainerPlan) -> int:
        container_id = self.create(plan)
        try:
            self.start(container_id)
            with _translated():  # docker-py takes no time limit for this call from its client
                return int(self._connected().wait(container_id, timeout=HELPER_S)["StatusCode"])
        except EngineUnreachable as error:  # if it is the engine that is silent, the next call says so
            raise EngineError(f"it has not come to its end within {HELPER_S:.0f} s") from error
        finally:
            self.remove(container_id)

    # -- helpers --------------------------------------------------------------------------------------------------

    def _connected(self) -> docker.APIClient:
        with self._connecting:
            if self._client is None:
                self._client = self._make_client(CALL_TIMEOUT_S, docker.APIClient)
            return self._client

    def _make_client(self, timeout_s: float | None, cls: type[docker.APIClient]) -> docker.APIClient:
        # no version: it is negotiated. A pinned one breaks on engines that are older or much newer (moby 29)
        tls = kwargs_from_env().get("tls") if self.address.startswith(("tcp://", "https://")) else None
        try:
            client = cls(base_url=self.address, timeout=timeout_s, max_pool_size=POOL_SIZE, tls=tls or False)
        except DockerException as error:  # it asks for the engine's version, and hides what went wrong
            raise EngineUnreachable(f"the engine does not answer: {error}") from error
        client.hooks["response"].append(self._answered)
        return client

    def _answered(self, response: requests.Response, *arguments: Any, **more: Any) -> None:
        self.observe(_call_of(response.request), response.elapsed.total_seconds())

    @contextmanager
    def _new_client(self, timeout_s: float | None, cls: type[docker.APIClient] = docker.APIClient) -> Iterator[Any]:
        """A client of its own for a call that holds its connection for long (docker-py#2477)."""
        client = self._make_client(timeout_s, cls)
        try:
            yield client
        finally:
            client.close()

    def _known(self) -> EngineInfo:
        return self._about or self.info()

    def _create(self, plan: ContainerPlan, *, init: bool) -> str:
        client = self._connected()
        limits = plan.limits
        memory = int(limits.memory_mib * 2**20) if limits.memory_mib else None
        is_published = plan.port is not None and plan.network != "host"
        host_config = client.create_host_config(
            init=init,
            binds=[_bind(mount) for mount in plan.mounts],
            network_mode=plan.network,
            extra_hosts={"host.docker.internal": "host-gateway"} if plan.network != "host" else None,
            nano_cpus=int(limits.cpus * 1e9) if limits.cpus else None,
            mem_limit=memory,
            port_bindings={plan.port: ("127.0.0.1", None)} if is_published else None,
            memswap_limit=memory,  # the engine's value is memory plus swap: no swap on top
            pids_limit=limits.pids,
            security_opt=None if plan.new_privileges else ["no-new-privileges"],
            mem_reservation=int(limits.memory_reservation_mib * 2**20) if limits.memory_reservation_mib else None,
            device_requests=[DeviceRequest(count=limits.gpus, capabilities=[["gpu"]])] if limits.gpus else None,
            shm_size=memory or int(self._known().memory_mib / 2) << 20,  # as on a host; 64 MiB break data loaders
            # json-file: the engine's `local` driver loses the older part of a long log
            log_config={"Type": "json-file", "Config": {}} if self._known().name == "Docker" else None,
        )
        created = client.create_container(
            image=plan.image,
            entrypoint=list(plan.command),
            command=[],
            name=plan.name,
            labels=dict(plan.labels),
            environment=dict(plan.env),
            user=plan.user,
            platform=plan.platform,
            ports=[plan.port] if is_published else None,
            host_config=host_config,
        )
        found: str = created["Id"]
        return found

    def _adopt(self, plan: ContainerPlan, conflict: APIError) -> str:
        found = self._connected().inspect_container(plan.name)
        carried = found["Config"]["Labels"] or {}
        if any(carried.get(label) != plan.labels.get(label) for label in (HOME_LABEL, RUN_LABEL)):
            raise EngineError(f"a container named {plan.name} is there and is not ours") from conflict
        if found["State"]["Status"] == "removing":
            raise EngineUnreachable(f"a container named {plan.name} is being removed") from conflict
        adopted: str = found["Id"]
        return adopted


class _Attached:
    """The hijacked connection of an attach."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw  # keeps the response's file object, and so the connection, alive
        self._socket: socket.socket = getattr(raw, "_sock", raw)

    def __iter__(self) -> Iterator[Frame]:
        frames = Demultiplexer()
        while data := self._receive():
            yield from joined(frames.feed(data))

    def close(self) -> None:
        with suppress(OSError):  # not connected any more: closed is closed
            self._socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
        self._raw.close()
        self._socket.close()

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE)
        except OSError:
            return b""


class _Stored:
    """The engine's own log of a container, with its times."""

    def __init__(self, response: requests.Response) -> None:
        self._response = response
        self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        frames = Demultiplexer()
        try:
            for data in self._response.iter_content(_RECEIVE if self._is_plain else None):
                for frame in frames.feed(data):
                    yield timed(frame)
        except (*_CUT, AttributeError) as error:
            # AttributeError: urllib3 meets a response that close() took away from under it
            if not self._closed:
                raise EngineUnreachable(f"the engine's log was cut: {error}") from error

    def close(self) -> None:
        self._closed = True
        CancellableStream(iter(()), self._response).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._response.close()

    @property
    def _is_plain(self) -> bool:
        return "content-length" in self._response.headers


class _StreamClient(docker.APIClient):
    """Keeps the response of a pull or a build, so that it can be cancelled: docker-py gives only the lines."""

    response: requests.Response

    def _post(self, url: str, **kwargs: Any) -> requests.Response:
        self.response = super()._post(url, **kwargs)
        return self.response


def _layers(image_id: str, history: Sequence[dict[str, Any]]) -> dict[str, int]:
    """The sizes of an image's layers down to the next image with a name."""
    own = itertools.takewhile(lambda numbered: numbered[0] == 0 or not numbered[1].get("Tags"), enumerate(history))
    # what BuildKit made has no ids: nobody knows whether it is shared
    return {e["Id"] if e["Id"].startswith("sha256:") else f"{image_id} {n}": e["Size"] for n, e in own}


def _show_pull(events: Iterable[Any], on_line: OnLine) -> None:
    said = set[str]()
    for event in events:
        if "error" in event:
            raise EngineError(event["error"])
        text = " ".join(str(event[key]) for key in ("id", "status") if event.get(key))
        if text and text not in said:  # each layer repeats its state with every bit of progress
            said.add(text)
            on_line(text)


def _repository_and_tag(name: str) -> tuple[str, str]:
    """Always with a tag: without one older engines fetch every tag (docker-py#1643)."""
    if "@" in name:
        repository, _, digest = name.partition("@")
        return repository, digest
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (name, "latest")


def _call_of(request: requests.PreparedRequest) -> str:
    """What was asked for, without whom: `POST containers/start`."""
    parts = [part for part in urlsplit(request.url or "").path.split("/") if part]
    words = [part for part in parts if not part.startswith("v1.")]
    named = words[:1] + [word for word in words[-1:] if len(words) > 1 and word in _VERBS]
    return f"{request.method} {'/'.join(named)}"


def _gateway_of(pool: dict[str, str]) -> str | None:
    """The gateway of an IPv4 pool. Older engines leave it out for their default network: it is the first address."""
    network = ipaddress.ip_network(pool["Subnet"], strict=False)
    if network.version != 4:
        return None
    return pool.get("Gateway") or str(network.network_address + 1)


def _published(ports: dict[str, list[dict[str, str]] | None]) -> int | None:
    bound = next((bindings[0] for bindings in ports.values() if bindings), None)
    return int(bound["HostPort"]) if bound else None


def _bind(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}:{'ro' if mount.read_only else 'rw'}"


@contextmanager
def _translated() -> Iterator[None]:
    """docker-py's, requests' and the socket's errors as ours: the one border where that happens.

    Theirs are not kept as causes: they carry URLs, and in the URL of a build are its arguments, with secrets in them.
    """
    try:
        yield
    except ImageNotFound as error:
        raise ImageMissing(_words(error)) from None
    except NotFound as error:
        raise ContainerMissing(_words(error)) from None
    except APIError as error:
        raise EngineError(_words(error)) from None
    except _CUT as error:
        raise EngineUnreachable(f"the engine does not answer: {_plain(error)}") from None
    except json.JSONDecodeError as error:
        raise EngineUnreachable(f"the engine's answer ended in the middle: {error}") from error
    except DockerException as error:  # the SDK itself refuses what was asked
        raise EngineError(str(error)) from error


def _words(error: APIError) -> str:
    return _plain(error.explanation or error)


def _plain(error: object) -> str:
    """Its text without what a URL in it asks for."""
    return re.sub(r"\?[^\s\"']*", "", str(error)) if "://" in str(error) or "url:" in str(error) else str(error)
