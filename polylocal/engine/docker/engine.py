"""The engine over the Docker API: Docker Engine 20.10 and newer, Podman's compatible API.

Only this module and `dockerclient` import docker. What docker-py gets wrong for a daemon is worked around in the two
and nowhere else; each place names the issue.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import logging
import re
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Self
from urllib.parse import urlsplit

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
from docker.types import Mount as BindMount
from docker.utils import kwargs_from_env

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
from polylocal.engine.docker import archives, buildkit, gpu_support, networks, stats
from polylocal.engine.docker.build_log import BuildLog
from polylocal.engine.docker.client import Client
from polylocal.engine.docker.frames import Demultiplexer, joined, timed
from polylocal.engine.machine import Usage
from polylocal.errors import ContainerMissing, EngineError, EngineUnreachable, ImageMissing
from polylocal.planning import references, termination
from polylocal.planning.container import (
    BUILD_LABEL,
    HOME_LABEL,
    IMAGE_LABEL,
    RUN_LABEL,
    ContainerPlan,
    Mount,
    is_name_of,
    is_our_name,
)
from polylocal.settings import OWN_NETWORK
from polylocal.store.rows import NOTHING_BUILT, Ledger, digits
from polylocal.system import proxies
from polylocal.system.cancellation import Cancel, holding

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 120  # docker-py's 60 s are too short for a busy engine (docker-py#2266)
HELPER_S = 600.0  # that handing over a large folder may take
_CONFIGS = 256  # kept; each has some KiB
POOL_SIZE = 64  # docker-py's pool of 10 drops connections under parallel runs (docker-py#1636)
_RECEIVE = 1 << 18
_ANYBODY_WRITES = 0o002
_LOOKS, _LOOK_S = 10, 0.1  # for a network that another daemon makes
TELL_S = 10.0  # that telling the processes of a container to end may take; its limits slow this down, too
_EXIT_LOOK_S = 0.01
_END_S = 2.0  # that recording the end of a container may take
_SHORTEST_S = 0.01  # docker-py takes a time limit of 0 for none
# last words of the API's paths; anything else there is a name
_VERBS = frozenset("archive attach create exec history json kill logs prune start stats stop tag wait".split())
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
        self._client: Client | None = None
        self._pulls: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._about: EngineInfo | None = None
        self._configs: dict[str, ImageConfig] = {}  # by the id of their image, which never changes
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
            gives_gpus=gpu_support.gives_gpus(about),
        )
        return self._about

    def gpus(self) -> GpuSupport:
        return gpu_support.support(self._known(), is_local=self.is_local)

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
            found = self._connected().inspect_network(self._network(network))
        pools = (found.get("IPAM") or {}).get("Config") or []
        return next(filter(None, map(_gateway_of, pools)), None) if found["Driver"] == "bridge" else None

    def own_network(self) -> bool:
        """Whether polylocal's network is there; makes nothing. EngineError: there is one that is not to be used."""
        with _translated():
            return networks.ours(self._connected().networks(names=[OWN_NETWORK])) is not None

    def _network(self, name: str) -> str:
        """What the engine calls the network: polylocal's own is made if it is not there."""
        if name != OWN_NETWORK:
            return name
        if self._known().name == "Podman":
            return "bridge"  # its networks have no switch that keeps their containers apart
        client = self._connected()
        found = networks.ours(client.networks(names=[OWN_NETWORK]))
        return found["Id"] if found else self._make_network(client)

    def _make_network(self, client: Client) -> str:
        default: dict[str, Any] = {}
        with suppress(NotFound):  # an engine may have none
            default = client.inspect_network("bridge")
        try:
            made: str = client.create_network(**networks.arguments(default))["Id"]
        except APIError as error:
            for _ in range(_LOOKS):  # another daemon makes it at this moment
                if found := networks.ours(client.networks(names=[OWN_NETWORK])):
                    return str(found["Id"])
                time.sleep(_LOOK_S)
            raise EngineError(networks.refusal(_words(error))) from None
        log.info("made the network %s, on which runs can't reach each other", OWN_NETWORK)
        return made

    def close(self) -> None:
        client, self._client = self._client, None
        if client:
            client.close()

    # -- images ---------------------------------------------------------------------------------------------------

    def platform(self) -> str:
        with _translated():
            version = self._connected().version()
        return f"{version['Os']}/{version['Arch']}"

    def image_id(self, name: str) -> str | None:
        try:
            with _translated():
                found: str = self._connected().inspect_image(name)["Id"]
        except ImageMissing:
            return None
        return found

    def image(self, name: str) -> LocalImage | None:
        if not references.is_name(name):
            return None
        wanted = references.familiar(name)
        try:
            with _translated():
                found = self._connected().inspect_image(name)
                names = [*(found.get("RepoTags") or []), *(found.get("RepoDigests") or [])]
                if wanted not in map(references.familiar, map(_without_local_host(wanted), names)):
                    return None  # the engine takes the start of an id for a name
                history = self._connected().history(found["Id"])
        except ImageMissing:
            return None
        except EngineError as error:
            if "invalid reference" not in str(error):
                raise
            return None
        labels = found.get("Config") or {}
        config = _config(found)
        return LocalImage(
            id=found["Id"],
            names=names,
            labels=labels.get("Labels") or {},
            env=config.env,
            triggers=labels.get("OnBuild") or [],
            ancestors=_ancestors(history),
            user=config.user,
            made_by=_line(history[0]) if history else "",
        )

    def image_config(self, image: str) -> ImageConfig:
        known = self._configs.get(image)
        if known is None:
            with _translated():
                found = self._connected().inspect_image(image)
            known = _config(found)
            if found["Id"] == image:  # a name may be another image's the next time
                if len(self._configs) >= _CONFIGS:
                    self._configs.clear()
                self._configs[image] = known
        return known

    def pull(self, name: str, on_line: OnLine, cancel: Cancel, *, anew: bool = False) -> None:
        with holding(self._pulls[name], cancel):
            if not anew and self.image(name):
                return
            repository, tag = _repository_and_tag(name)
            with _translated(), self._new_client(self._pull_timeout_s, _StreamClient) as client:
                events = client.pull(repository, tag=tag, stream=True, decode=True)
                cancel.on_call(CancellableStream(events, client.response).close)
                for problem in client.credentials.problems:
                    on_line(f"polylocal: {problem}")
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
        made = set[str]()

        def on_image(image_id: str) -> None:
            if image_id not in made and self._is_of_a_build(image_id):
                made.add(image_id)
                request.on_image(image_id)

        lines = BuildLog(on_line, on_image)
        with _translated(), self._new_client(CALL_TIMEOUT_S, _StreamClient) as client:
            try:
                self._build_classic(client, request, lines, cancel, on_line)
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

    def _is_of_a_build(self, image_id: str) -> bool:
        """Whether a build made it: what a step prints can look like the builder's lines, with any image's id in it."""
        try:
            with _translated():
                history = self._connected().history(image_id)
        except (ImageMissing, ContainerMissing):  # there is none, or it was removed meanwhile
            return False
        return _is_made_by_a_build(history)

    def _build_classic(
        self, client: _StreamClient, request: BuildRequest, lines: BuildLog, cancel: Cancel, on_line: OnLine
    ) -> None:
        client.credentials.get_all_credentials()  # asks the helpers that fail once
        for problem in client.credentials.problems:
            on_line(f"polylocal: {problem}")
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

    def remove_image(self, name: str) -> bool:
        try:
            with _translated():
                self._connected().remove_image(name)
        except ImageMissing:
            return True
        except EngineError as error:  # a conflict: another image, a name of somebody's, or a container needs it
            return "container" not in str(error)
        return True

    def images(self, installation: str, ledger: Ledger = NOTHING_BUILT) -> Sequence[Image]:
        with _translated():
            # not `df`, which would tell what is shared: it also measures every volume and container there is
            found = self._connected().images()
        return [ours for image in found if (ours := self._as_ours(image, installation, ledger))]

    def image_ids(self) -> Sequence[str]:
        with _translated():
            return [image["Id"] for image in self._connected().images(all=True)]

    def _as_ours(self, image: dict[str, Any], installation: str, ledger: Ledger) -> Image | None:
        """None: it was made by others, maybe on top of ours, or it is gone meanwhile."""
        names = [name for name in image.get("RepoTags") or [] if name != "<none>:<none>"]
        labels = image.get("Labels") or {}
        is_labelled = labels.get(IMAGE_LABEL) == installation or labels.get(BUILD_LABEL) in ledger.builds
        is_known = digits(image["Id"]) in ledger.images or digits(image["Id"]) in ledger.steps
        if not (is_labelled or is_known or (ledger.steps and not names)):
            return None
        try:
            with _translated():
                history = self._connected().history(image["Id"])
        except ImageMissing:
            return None
        # whatever a Dockerfile sets later: the label that stands below each step is in the history
        is_labelled |= any(f"LABEL {IMAGE_LABEL}={installation}" in _line(entry) for entry in history)
        maker = ledger.maker(image["Id"], names, _ancestors(history))
        if digits(image["Id"]) not in ledger.images and not is_labelled:
            return None  # the output of a step can look like the builder's own lines
        build = maker or labels.get(BUILD_LABEL, "")
        ours = [name for name in names if is_name_of(name, build)]
        if maker is None and not ours and (names or (build and not _is_labelled_last(history))):
            return None
        if digits(image["Id"]) not in ledger.images and not ours and labels.get(BUILD_LABEL) != build:
            build = ""  # a step
        created_at = clock.stamp(datetime.fromtimestamp(image["Created"], UTC))
        return Image(
            id=image["Id"],
            build=build,
            names=ours,
            layers=_layers(image["Id"], history),
            created_at=created_at,
            has_other_names=len(names) > len(ours),
            is_proven=maker is not None,
        )

    # -- containers -----------------------------------------------------------------------------------------------

    def create(self, plan: ContainerPlan) -> str:
        if plan.limits.gpus and self._known().name == "Podman":
            # its compatible API ignores device requests without a word (podman#22645): a silent run on the CPU
            raise EngineError(gpu_support.PODMAN)
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
            return archives.has(self._connected(), container_id, path)

    def read_file(self, container_id: str, path: str, most_bytes: int) -> bytes | None:
        with _translated():
            return archives.beginning(self._connected(), container_id, path, most_bytes)

    def open_folder(self, container_id: str, path: PurePosixPath) -> bool:
        with _translated():
            client = self._connected()
            folder = archives.first_member(client, container_id, path)
            if folder is None or not folder.isdir() or folder.mode & _ANYBODY_WRITES:
                return False
            return archives.set_mode(client, container_id, path, folder, 0o777)

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
            response.raise_for_status()
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
            address=_address(found["NetworkSettings"].get("Networks") or {}),
        )

    def usage(self, container_id: str) -> Usage | None:
        with _translated():
            client = self._connected()
            # `one-shot` gives the sample at once; without it the engine takes a second to have two of them
            url = f"{client.base_url}/v{client.api_version}/containers/{container_id}/stats"
            answer = client.get(url, params={"stream": 0, "one-shot": 1}, timeout=CALL_TIMEOUT_S)
            answer.raise_for_status()
            sample = stats.read(answer.json())
            if sample is None or sample.memory_bytes is not None or not self.is_local:
                return sample
            pid = client.inspect_container(container_id)["State"]["Pid"]
        return stats.with_memory(sample, stats.memory_of(pid))

    def terminate(self, container_id: str) -> bool:
        try:
            output = self._execute(container_id, termination.TERMINATE)
            if others := [word for word in output.split() if word.isdigit()]:
                # programs with the rights of another user, in an image that has a user of its own
                self._execute(container_id, termination.terminate_others(others), user="0")
        except EngineError as error:  # it does not run, is paused, has no shell, or no room for a process
            log.debug("container %s: its processes could not be told to end: %s", container_id[:12], error)
            return False
        return True

    def _execute(self, container_id: str, command: Sequence[str], user: str = "") -> str:
        """Runs a command in a running container to its end, which may be the container's; returns its output."""
        until = time.monotonic() + TELL_S
        with _translated():
            client = self._connected()
            made: str = client.exec_create(container_id, list(command), stderr=False, user=user, workdir="/")["Id"]
            # docker-py's own reading waits without a limit
            with _Attached(client.exec_start(made, socket=True)) as stream:
                output = stream.read(TELL_S)
            # the engine knows of the end a moment after the end of the output
            while (code := client.exec_inspect(made)["ExitCode"]) is None and time.monotonic() < until:
                time.sleep(_EXIT_LOOK_S)
        # a container that ends kills what is executed in it, and the engine records its end a moment later
        if code != 0 and not self.wait(container_id, _END_S):
            raise EngineError(f"exit code {code}" if code is not None else f"it takes longer than {TELL_S:g} s")
        return output.decode("ascii", "replace")

    def wait(self, container_id: str, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        try:
            with _translated():
                self._connected().wait(container_id, timeout=max(timeout_s, _SHORTEST_S))
        except ContainerMissing:
            return True
        except EngineUnreachable:  # docker-py's time limit looks like an engine that is silent (docker-py#1966)
            if time.monotonic() < until:
                raise
            return self._has_ended(container_id)
        return True

    def _has_ended(self, container_id: str) -> bool:
        try:
            return not self.inspect(container_id).is_running
        except ContainerMissing:
            return True

    def kill(self, container_id: str) -> None:
        try:
            with suppress(ContainerMissing), _translated():
                self._connected().kill(container_id)
        except EngineError:
            if not self._has_ended(container_id):
                raise

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
            Found(
                id=item["Id"],
                run=item["Labels"].get(RUN_LABEL, ""),
                status=item["State"],
                created_at=float(item["Created"]),
                network=(item.get("HostConfig") or {}).get("NetworkMode", ""),
            )
            for item in found
            if any(is_our_name(name.strip("/"), item["Labels"].get(RUN_LABEL, "")) for name in item["Names"] or ())
        ]

    def build_containers(self, ledger: Ledger) -> Sequence[str]:
        with _translated():
            found = self._connected().containers(all=True)
        return [
            item["Id"]
            for item in found
            if item["State"] in ("created", "exited", "dead")
            and digits(item["ImageID"]) in ledger.steps
            and digits(item["ImageID"]) not in ledger.images  # people start containers of those
            and HOME_LABEL not in (item["Labels"] or {})
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

    def _connected(self) -> Client:
        with self._connecting:
            if self._client is None:
                self._client = self._make_client(CALL_TIMEOUT_S, Client)
            return self._client

    def _make_client(self, timeout_s: float | None, cls: type[Client]) -> Client:
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
    def _new_client(self, timeout_s: float | None, cls: type[Client] = Client) -> Iterator[Any]:
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
        is_published = plan.port is not None and plan.publishes_port and plan.network != "host"
        host_config = client.create_host_config(
            init=init,
            mounts=[_bind(mount) for mount in plan.mounts],
            network_mode=self._network(plan.network),
            cap_drop=list(plan.cap_drop),
            cap_add=list(plan.cap_add) or None,
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
            entrypoint=list(plan.entrypoint or plan.command),
            command=list(plan.command) if plan.entrypoint else [],
            name=plan.name,
            labels={RUN_LABEL: "", **plan.labels},  # those of the image would count otherwise
            environment={**self._environment(client, plan), **(termination.INIT_ENVIRONMENT if init else {})},
            stop_signal=termination.STOP_SIGNAL,
            user=plan.user,
            platform=plan.platform,
            ports=[plan.port] if is_published else None,
            host_config=host_config,
        )
        found: str = created["Id"]
        return found

    def _environment(self, client: Client, plan: ContainerPlan) -> dict[str, str]:
        """The plan's variables, with its hosts among those that are reached without a proxy, whoever names one: the
        image, the settings of Docker's own client, the run or its program."""
        if not plan.direct_hosts:
            return dict(plan.env)
        inherited = {**self.image_config(plan.image).env, **client.proxy_variables()}
        return {**plan.env, **proxies.without_proxy(plan.direct_hosts, plan.env, inherited)}

    def _adopt(self, plan: ContainerPlan, conflict: APIError) -> str:
        found = self._connected().inspect_container(plan.name)
        carried = found["Config"]["Labels"] or {}
        if any(carried.get(label, "") != plan.labels.get(label, "") for label in (HOME_LABEL, RUN_LABEL)):
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

    def read(self, within_s: float) -> bytes:
        """All of a short output, or what has come of it within this time."""
        until, output = time.monotonic() + within_s, b""
        frames = iter(self)
        while (left_s := until - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            frame = next(frames, None)
            if frame is None:
                break
            output += frame.data
        return output

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


class _StreamClient(Client):
    """Keeps the response of a pull or a build, so that it can be cancelled: docker-py gives only the lines."""

    response: requests.Response

    def _post(self, url: str, **kwargs: Any) -> requests.Response:
        self.response = super()._post(url, **kwargs)
        return self.response


def _config(image: dict[str, Any]) -> ImageConfig:
    config = image.get("Config") or {}
    env = dict(text.split("=", 1) for text in config.get("Env") or [] if "=" in text)
    return ImageConfig(env, config.get("User") or "")


def _layers(image_id: str, history: Sequence[dict[str, Any]]) -> dict[str, int]:
    """The sizes of an image's layers down to the next image with a name."""
    own = itertools.takewhile(lambda numbered: numbered[0] == 0 or not numbered[1].get("Tags"), enumerate(history))
    # what BuildKit made has no ids: nobody knows whether it is shared
    return {e["Id"] if e["Id"].startswith("sha256:") else f"{image_id} {n}": e["Size"] for n, e in own}


def _ancestors(history: Sequence[dict[str, Any]]) -> list[str]:
    """Ids of the images below; those of pulled ones, and what BuildKit made, have none."""
    return [entry["Id"] for entry in history[1:] if entry["Id"].startswith("sha256:")]


def _is_labelled_last(history: Sequence[dict[str, Any]]) -> bool:
    """A label is the last that we put on an image: what was made from it has something else on top."""
    return any(label in _line(history[0]) for label in (BUILD_LABEL, IMAGE_LABEL))


def _is_made_by_a_build(history: Sequence[dict[str, Any]]) -> bool:
    """A step of a build has our label below it; what others made from the image of a build has more over that."""
    for number, entry in enumerate(history):
        if f"LABEL {IMAGE_LABEL}=" in _line(entry):
            return True
        if BUILD_LABEL in _line(entry):
            return number == 0
    return False


def _line(entry: dict[str, Any]) -> str:
    """The instruction that made a layer."""
    return entry["CreatedBy"] or ""


def _without_local_host(wanted: str) -> Callable[[str], str]:
    """Podman lists what it built under `localhost/`, and finds it without."""
    return lambda name: name if wanted.startswith("localhost/") else name.removeprefix("localhost/")


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


def _address(networks: dict[str, dict[str, Any] | None]) -> str | None:
    """The container's IPv4 address. The engine's `NetworkSettings.IPAddress` knows the default bridge only."""
    return next((network["IPAddress"] for network in networks.values() if network and network.get("IPAddress")), None)


def _bind(mount: Mount) -> BindMount:
    """Not the older text `source:target:mode`, in which no path may have a colon."""
    return BindMount(str(mount.target), str(mount.source), type="bind", read_only=mount.read_only)


@contextmanager
def _translated() -> Iterator[None]:
    """docker-py's, requests' and the socket's errors as ours: the one border where that happens.

    Theirs are not kept as causes: they carry URLs, and in the URL of a build are its arguments, with secrets in them.
    """
    try:
        try:
            yield
        except APIError:  # which is an HTTPError
            raise
        except requests.exceptions.HTTPError as error:  # of a call that docker-py does not make itself
            create_api_error_from_http_exception(error)
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
