"""Checks the version of a Docker engine, and whether its network isolates runs."""

from pathlib import Path

from polylocal.engine.docker.host import DockerHost
from polylocal.engine.host import Isolation
from polylocal.engine.plan import OWN_NETWORK
from polylocal.errors import EngineError

OLDEST_API = (1, 40)  # Docker Engine 19.03; host-gateway and device requests need it or newer versions
_BRIDGE_FILTER = "net/bridge/bridge-nf-call-iptables"


class DockerDiagnosis(DockerHost):
    """The part of `engine.host.Host` that `polylocal doctor` calls."""

    def unsupported(self) -> str:
        is_old = tuple(map(int, self.known().api_version.split("."))) < OLDEST_API
        return f"at least API {'.'.join(map(str, OLDEST_API))} is needed" if is_old else ""

    def isolation(self) -> Isolation:
        if self.known().name == "Podman":
            return Isolation(is_supported=False)
        try:
            exists = self.own_network()
        except EngineError as error:
            return Isolation(problem=str(error), fix=f"Type: docker network rm {OWN_NETWORK}")
        if exists and self._filters_bridges() is False:
            problem = f"{OWN_NETWORK}: the kernel does not filter between its containers, so runs can reach each other"
            return Isolation(problem=problem, fix=f"Type: sysctl -w {_BRIDGE_FILTER.replace('/', '.')}=1")
        return Isolation(exists=exists)

    def _filters_bridges(self) -> bool | None:
        """Whether the kernel filters traffic between containers of one bridge; None: unknown."""
        about = self.known()
        if about.is_desktop or about.is_rootless or not self.is_local:
            return None
        try:
            return (Path("/proc/sys") / _BRIDGE_FILTER).read_text().strip() == "1"
        except OSError:
            return None  # no such kernel module, or another system
