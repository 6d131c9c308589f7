"""Creates, follows, stops and removes the containers of a Docker engine."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

from docker.errors import APIError, NotFound

from polylocal import clock
from polylocal.engine import termination
from polylocal.engine.containers import LOOPBACK, ContainerState, Died, Endpoint, Found, Usage
from polylocal.engine.docker import archives, creation, gpu_support, stats
from polylocal.engine.docker.client import Client
from polylocal.engine.docker.connection import CALL_TIMEOUT_S, Connection, translate_errors
from polylocal.engine.docker.host import DockerHost
from polylocal.engine.docker.images import DockerImages
from polylocal.engine.docker.streams import Attached, Stored
from polylocal.engine.plan import HOME_LABEL, RUN_LABEL, ContainerPlan, is_our_name
from polylocal.errors import ContainerMissing, EngineError, EngineUnreachable

log = logging.getLogger(__name__)

HELPER_S = 600.0  # to hand over a large folder
TELL_S = 10.0  # to send SIGTERM to all processes of a container; its limits slow this down
_ANYBODY_WRITES = 0o002
_EXIT_LOOK_S = 0.01
_END_S = 2.0  # to record the end of a container
_RESTORE = timedelta(minutes=1)  # a starting engine records ends that it missed before it creates its networks
_SHORTEST_S = 0.01  # docker-py takes a time limit of 0 for none


class DockerContainers:
    """See `engine.containers.Containers`."""

    def __init__(self, connection: Connection, host: DockerHost, images: DockerImages) -> None:
        self._connection = connection
        self._host = host
        self._images = images

    def create(self, plan: ContainerPlan) -> str:
        if plan.limits.gpus and self._host.known().name == "Podman":
            # its Docker API silently ignores device requests (podman#22645): the run would use the CPU instead
            raise EngineError(gpu_support.PODMAN)
        with translate_errors():
            try:
                return self._create(plan, init=True)
            except APIError as error:
                if error.status_code == 409:
                    return self._adopt(plan, error)
                if "container-init" not in str(error.explanation):
                    raise
                log.warning("the engine has no init program (install catatonit): zombies are not reaped in runs")
                return self._create(plan, init=False)

    def _create(self, plan: ContainerPlan, *, init: bool) -> str:
        client, network = self._connection.client(), self._host.network(plan.network)
        inherited: Mapping[str, str] = {}
        if plan.direct_hosts:
            inherited = {**self._images.image_config(plan.image).env, **client.proxy_variables()}
        return creation.create(client, plan, self._host.known(), network, inherited, init=init)

    def _adopt(self, plan: ContainerPlan, conflict: APIError) -> str:
        found = self._connection.client().inspect_container(plan.name)
        carried = found["Config"]["Labels"] or {}
        if any(carried.get(label, "") != plan.labels.get(label, "") for label in (HOME_LABEL, RUN_LABEL)):
            raise EngineError(f"a container named {plan.name} exists and is not ours") from conflict
        if found["State"]["Status"] == "removing":
            raise EngineUnreachable(f"a container named {plan.name} is being removed") from conflict
        adopted: str = found["Id"]
        return adopted

    def has_file(self, container_id: str, path: str) -> bool:
        with self._connection.call() as client:
            return archives.exists(client, container_id, path)

    def read_file(self, container_id: str, path: str, most_bytes: int) -> bytes | None:
        with self._connection.call() as client:
            return archives.read_start(client, container_id, path, most_bytes)

    def open_folder(self, container_id: str, path: PurePosixPath) -> bool:
        with self._connection.call() as client:
            folder = archives.first_member(client, container_id, path)
            if folder is None or not folder.isdir() or folder.mode & _ANYBODY_WRITES:
                return False
            return archives.set_mode(client, container_id, path, folder, 0o777)

    def start(self, container_id: str) -> None:
        with self._connection.call() as client:
            client.start(container_id)

    def attach(self, container_id: str) -> Attached:
        with self._connection.call() as client:
            params = {"stdout": 1, "stderr": 1, "stream": 1}
            return Attached(client.attach_socket(container_id, params=params))

    def logs(self, container_id: str, *, follow: bool, tail: int | None = None) -> Stored:
        params = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": int(follow), "tail": tail or "all"}
        timeout_s = (CALL_TIMEOUT_S, None if follow else CALL_TIMEOUT_S)
        with self._connection.call() as client:
            # docker-py's logs() does not return the stream of a piece, and ends silently at a cut connection
            url = f"{client.base_url}/v{client.api_version}/containers/{container_id}/logs"
            response = client.get(url, params=params, stream=True, timeout=timeout_s)
            response.raise_for_status()
        return Stored(response)

    def inspect(self, container_id: str) -> ContainerState:
        with self._connection.call() as client:
            found = client.inspect_container(container_id)
        state = found["State"]
        return ContainerState(
            id=found["Id"],
            status=state["Status"],
            exit_code=state["ExitCode"],
            out_of_memory=bool(state.get("OOMKilled")),
            error=state.get("Error") or "",
            created_at=found["Created"],
            started_at="" if state["StartedAt"].startswith("0001") else state["StartedAt"],
            finished_at="" if state["FinishedAt"].startswith("0001") else state["FinishedAt"],
            image_id=found["Image"],
            node=self._host.node,
            published=_published(found["NetworkSettings"].get("Ports") or {}),
            address=_address(found),
        )

    def has_lost(self, state: ContainerState) -> bool:
        engine_started_at = self._host.started_at()
        if engine_started_at is None or not (state.started_at and state.finished_at):
            return False
        started, finished = clock.parse(state.started_at), clock.parse(state.finished_at)
        return started < engine_started_at <= finished + _RESTORE

    def may_have_started(self, state: ContainerState) -> bool:
        engine_started_at = self._host.started_at()
        return engine_started_at is not None and clock.parse(state.finished_at or state.created_at) < engine_started_at

    def usage(self, container_id: str) -> Usage | None:
        with self._connection.call() as client:
            # `one-shot` returns a sample at once; without it the engine waits a second for a second sample
            url = f"{client.base_url}/v{client.api_version}/containers/{container_id}/stats"
            answer = client.get(url, params={"stream": 0, "one-shot": 1}, timeout=CALL_TIMEOUT_S)
            answer.raise_for_status()
            sample = stats.read(answer.json())
            if sample is None or sample.memory_bytes is not None or not self._host.is_local:
                return sample
            pid = client.inspect_container(container_id)["State"]["Pid"]
        return stats.with_memory(sample, stats.memory_of(pid))

    def terminate(self, container_id: str) -> bool:
        try:
            output = self._execute(container_id, termination.TERMINATE)
            if others := [word for word in output.split() if word.isdigit()]:
                # programs with the rights of another user than the image's
                self._execute(container_id, termination.terminate_others(others), user="0")
        except EngineError as error:  # it does not run, is paused, has no shell, or may not have another process
            log.debug("container %s: its processes could not be terminated: %s", container_id[:12], error)
            return False
        return True

    def _execute(self, container_id: str, command: Sequence[str], user: str = "") -> str:
        """Run a command in a running container, and return its output. The container may end with the command."""
        until = time.monotonic() + TELL_S
        with self._connection.call() as client:
            made: str = client.exec_create(container_id, list(command), stderr=False, user=user, workdir="/")["Id"]
            # docker-py would read without a time limit
            with Attached(client.exec_start(made, socket=True)) as stream:
                output = stream.read(TELL_S)
            # the engine records the end a moment after the end of the output
            while (code := client.exec_inspect(made)["ExitCode"]) is None and time.monotonic() < until:
                time.sleep(_EXIT_LOOK_S)
        # the end of a container kills the commands in it, and the engine records that end a moment later
        if code != 0 and not self.wait(container_id, _END_S):
            raise EngineError(f"exit code {code}" if code is not None else f"it takes longer than {TELL_S:g} s")
        return output.decode("ascii", "replace")

    def wait(self, container_id: str, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        try:
            with self._connection.call() as client:
                client.wait(container_id, timeout=max(timeout_s, _SHORTEST_S))
        except ContainerMissing:
            return True
        except EngineUnreachable:  # docker-py's time limit looks like an engine that does not answer (docker-py#1966)
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
            with suppress(ContainerMissing), self._connection.call() as client:
                client.kill(container_id)
        except EngineError:
            if not self._has_ended(container_id):
                raise

    def stop(self, container_id: str, grace_s: float) -> None:
        with suppress(ContainerMissing), self._connection.call() as client:
            client.stop(container_id, timeout=max(0, round(grace_s)))

    def remove(self, container_id: str) -> None:
        with self._connection.call() as client:
            try:
                client.remove_container(container_id, v=True, force=True)
            except NotFound:
                log.debug("container %s was removed already", container_id[:12])
            except APIError as error:
                if error.status_code != 409:  # 409: its removal is under way
                    raise

    def containers(self, installation: str) -> Sequence[Found]:
        with self._connection.call() as client:
            filters = {"label": f"{HOME_LABEL}={installation}"}
            found = client.containers(all=True, filters=filters)
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

    def events(self, installation: str) -> Iterator[Died]:
        filters = {"type": "container", "event": ["die", "kill"], "label": f"{HOME_LABEL}={installation}"}
        signalled = set[str]()
        with self._connection.new_client(None, Client) as client:
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
            with self._connection.call() as client:  # docker-py does not apply the client's time limit here
                return int(client.wait(container_id, timeout=HELPER_S)["StatusCode"])
        except EngineUnreachable as error:  # if the engine itself does not answer, the next call raises that
            raise EngineError(f"it has not come to its end within {HELPER_S:.0f} s") from error
        finally:
            self.remove(container_id)


def _published(ports: Mapping[str, list[dict[str, str]] | None]) -> dict[int, Endpoint]:
    """The published ports, from the engine's `{"8888/tcp": [{"HostIp": …, "HostPort": …}]}`."""
    return {
        int(port.partition("/")[0]): Endpoint(LOOPBACK, int(bindings[0]["HostPort"]))
        for port, bindings in ports.items()
        if bindings
    }


def _address(container: Mapping[str, Any]) -> str | None:
    """The IPv4 address of a running container; that of the host, if the container shares its network.

    The engine's `NetworkSettings.IPAddress` is for the default bridge only.
    """
    if container["HostConfig"]["NetworkMode"] == "host":
        return LOOPBACK if container["State"]["Running"] else None
    networks = (container["NetworkSettings"].get("Networks") or {}).values()
    return next((network["IPAddress"] for network in networks if network and network.get("IPAddress")), None)
