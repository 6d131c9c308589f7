"""Describes the machine of a Docker engine, and creates polylocal's network."""

import ipaddress
import logging
import time
from contextlib import suppress
from datetime import datetime
from typing import Any

from docker.errors import APIError, NotFound

from polylocal import clock
from polylocal.engine import machine
from polylocal.engine.docker import buildkit, gpu_support, networks
from polylocal.engine.docker.client import Client
from polylocal.engine.docker.connection import Connection, error_text, translate_errors
from polylocal.engine.host import EngineInfo, GpuSupport
from polylocal.engine.machine import Machine
from polylocal.engine.plan import OWN_NETWORK
from polylocal.errors import EngineError

log = logging.getLogger(__name__)

_LOOKS, _LOOK_S = 10, 0.1  # for a network that another daemon makes at this moment


class DockerHost:
    """See `engine.host.Host`. `node` is the name of the engine's machine."""

    def __init__(self, connection: Connection, node: str) -> None:
        self._connection = connection
        self.node = node
        self._about: EngineInfo | None = None

    @property
    def places_containers(self) -> bool:
        return False

    @property
    def is_local(self) -> bool:
        return self._connection.address.startswith("unix://")

    def info(self) -> EngineInfo:
        with translate_errors():
            client = self._connection.client()
            about, version = client.info(), client.version()
        components = {component["Name"] for component in version.get("Components") or []}
        security = " ".join(about.get("SecurityOptions") or [])
        self._about = EngineInfo(
            name="Podman" if "Podman Engine" in components else "Docker",
            version=version["Version"],
            api_version=version["ApiVersion"],
            address=self._connection.address,
            cpus=about.get("NCPU", 1),
            memory_mib=about.get("MemTotal", 0) / 2**20,
            root=about.get("DockerRootDir", ""),
            is_rootless="rootless" in security,
            is_desktop="desktop" in about.get("OperatingSystem", "").lower(),
            gives_gpus=gpu_support.gives_gpus(about),
        )
        return self._about

    def known(self) -> EngineInfo:
        """The last `info`, or the first one."""
        return self._about or self.info()

    def machine(self) -> Machine:
        about = self._about
        engine = f"{about.name} {about.version}" if about else None
        return machine.look(self.node, engine, about.api_version if about else None)

    def gpus(self) -> GpuSupport:
        return gpu_support.support(self.known(), is_local=self.is_local)

    def buildkit(self) -> str | None:
        found = buildkit.find(self._connection.address)
        return found.name if found else None

    def time(self) -> datetime:
        with translate_errors():
            text = self._connection.client().info()["SystemTime"]
        return datetime.fromisoformat(text[:19] + text[-6:] if text[-6] in "+-" else text[:19] + "+00:00")

    def started_at(self) -> datetime | None:
        """The time of the engine's last start; None: unknown. A Docker engine creates its default network then."""
        if self.known().name != "Docker":
            return None
        with translate_errors(), suppress(NotFound):  # an engine may have no default network
            return clock.parse(self._connection.client().inspect_network("bridge")["Created"])
        return None

    def gateway(self, network: str) -> str | None:
        with translate_errors():
            found = self._connection.client().inspect_network(self.network(network))
        pools = (found.get("IPAM") or {}).get("Config") or []
        return next(filter(None, map(_gateway_of, pools)), None) if found["Driver"] == "bridge" else None

    def own_network(self) -> bool:
        with translate_errors():
            return networks.find_own(self._connection.client().networks(names=[OWN_NETWORK])) is not None

    def network(self, name: str) -> str:
        """The engine's own name for a network. Creates polylocal's own network if it is missing."""
        if name != OWN_NETWORK:
            return name
        if self.known().name == "Podman":
            return "bridge"  # Podman has no switch that keeps the containers of a network apart
        client = self._connection.client()
        found = networks.find_own(client.networks(names=[OWN_NETWORK]))
        return found["Id"] if found else _create_network(client)

    def close(self) -> None:
        self._connection.close()


def _create_network(client: Client) -> str:
    default: dict[str, Any] = {}
    with suppress(NotFound):  # an engine may have no default bridge
        default = client.inspect_network("bridge")
    try:
        made: str = client.create_network(**networks.arguments(default))["Id"]
    except APIError as error:
        for _ in range(_LOOKS):  # another daemon makes it at this moment
            if found := networks.find_own(client.networks(names=[OWN_NETWORK])):
                return str(found["Id"])
            time.sleep(_LOOK_S)
        raise EngineError(networks.refusal(error_text(error))) from None
    log.info("made the network %s, on which runs can't reach each other", OWN_NETWORK)
    return made


def _gateway_of(pool: dict[str, str]) -> str | None:
    """The gateway of an IPv4 pool. Older engines leave out that of their default network: it is the first address."""
    network = ipaddress.ip_network(pool["Subnet"], strict=False)
    if network.version != 4:
        return None
    return pool.get("Gateway") or str(network.network_address + 1)
