"""The engine over the Docker API: Docker Engine 20.10 and newer, and the Docker API of Podman."""

import platform
from collections.abc import Callable

from polylocal.engine.docker.connection import Connection
from polylocal.engine.docker.containers import DockerContainers
from polylocal.engine.docker.diagnosis import DockerDiagnosis
from polylocal.engine.docker.host import DockerHost
from polylocal.engine.docker.images import DockerImages


class DockerEngine(DockerImages, DockerContainers, DockerDiagnosis):
    """See `engine.base.Engine` for the contract. `address` is as in DOCKER_HOST."""

    def __init__(
        self,
        address: str,
        *,
        node: str = "",
        uses_proxy: bool = False,
        use_buildkit: bool = False,
        pull_timeout_s: float = 60.0,
        observe: Callable[[str, float], None] = lambda call, seconds: None,
    ) -> None:
        """Connects at the first call.

        `node`: the name of the engine's machine; "" is that of this machine. `uses_proxy`: reach the engine through the
        proxy that the environment names. `pull_timeout_s`: a pull ends after this time without progress. `observe` gets
        each call of the engine with its seconds.
        """
        self.address = address
        connection = Connection(address, observe, uses_proxy=uses_proxy)
        DockerHost.__init__(self, connection, node or platform.node())
        DockerImages.__init__(self, connection, self, use_buildkit=use_buildkit, pull_timeout_s=pull_timeout_s)
        DockerContainers.__init__(self, connection, self, self)
