"""The API's second listener, for containers: on the gateway addresses of the engine's networks.

Containers cannot reach a daemon that listens on loopback. The bridge listens on the gateway of each network that runs
use, and accepts the tokens of runs only. If a gateway is not an address of this host (the engine runs in a virtual
machine), containers use the engine's name for the host, `host.docker.internal`, which leads to loopback.
"""

import logging
import socket
import threading
from queue import SimpleQueue

from starlette.types import ASGIApp

from polylocal.api.app import FromContainers
from polylocal.daemon import web_server
from polylocal.engine.base import Engine
from polylocal.errors import EngineError
from polylocal.settings import Settings
from polylocal.store import Store

log = logging.getLogger("polylocal.daemon")


class Gateways:
    """The addresses of the API for containers, with a listening socket on each. `port` is the daemon's own port.

    `listeners` has the sockets that have no server yet. Clients that connect to one of them wait for its server.
    Thread-safe.
    """

    def __init__(self, engine: Engine, settings: Settings, port: int, store: Store, installation_id: str) -> None:
        self._store = store
        self._engine = engine
        self._settings = settings
        self._port = port
        self._installation_id = installation_id
        self._lock = threading.Lock()
        self._urls: dict[str, str] = {}  # of the listeners, by gateway
        self.listeners: SimpleQueue[socket.socket] = SimpleQueue()

    def open(self) -> None:
        """Listen on the network of new runs and on those of existing containers. Raises EngineUnreachable."""
        networks = {self._settings.network}
        # an earlier daemon may have used another network: its containers know that gateway's address
        networks |= {found.network for found in self._engine.containers(self._installation_id) if found.run}
        for network in sorted(networks - {"", "none"}):
            try:
                self._address(network)
            except EngineError as error:
                log.warning("runs on the network %s can't reach the API: %s", network, error)

    def url(self) -> str:
        """The API's address for a new container. Raises EngineUnreachable, EngineError."""
        return self._address(self._settings.network)

    def _address(self, network: str) -> str:
        if network == "host":
            return f"http://127.0.0.1:{self._port}"
        # ask the engine each time: a network that was removed and made again may have another gateway
        gateway = self._engine.gateway("bridge" if network == "default" else network)
        with self._lock:
            if not gateway or self._settings.host == "0.0.0.0":
                return f"http://host.docker.internal:{self._port}"
            if gateway not in self._urls and (url := self._listen(gateway)):
                self._urls[gateway] = url
            return self._urls.get(gateway, f"http://host.docker.internal:{self._port}")

    def _listen(self, gateway: str) -> str | None:
        listener = self._bind(gateway)
        if listener is None:
            return None
        url = f"http://{gateway}:{listener.getsockname()[1]}"
        self.listeners.put(listener)
        log.info("listening on %s for runs", url)
        return url

    def _bind(self, gateway: str) -> socket.socket | None:
        """Prefers the port of the previous daemon, which running containers know. None: the address is not ours."""
        name = f"bridge_port {gateway}"
        last = int(self._store.fact(name) or self._store.fact("bridge_port") or 0)
        for port in (last or self._port, self._port, 0):
            try:
                listener = web_server.listen(gateway, port)
                self._store.save_fact(name, str(listener.getsockname()[1]))
                return listener
            except OSError as error:
                log.debug("%s:%s: %s", gateway, port, error)
        return None


def serve_containers(app: ASGIApp, listeners: SimpleQueue[socket.socket]) -> None:
    """Serve the API on each listener of the queue, now and later, in threads."""

    def serve() -> None:
        while True:
            sockets = {"sockets": [listeners.get()]}
            server = web_server.server(FromContainers(app), has_lifespan=False)
            threading.Thread(target=server.run, kwargs=sockets, name="bridge", daemon=True).start()

    threading.Thread(target=serve, name="bridge-server", daemon=True).start()
