"""The composition root: settings → store → engine → supervisor → app → uvicorn.

There is no shutdown to get wrong: the process ends, containers go on, the next start takes them up.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette

from polylocal import occupancy, serving
from polylocal.api import app as api
from polylocal.api.services import Services
from polylocal.disk import write_private
from polylocal.errors import SetupError
from polylocal.folders import remove_tree
from polylocal.machine import Machine, look
from polylocal.paths import Home
from polylocal.project_links import ProjectLinks
from polylocal.relocation import relocate
from polylocal.runner.engine import probe
from polylocal.runner.engine.dockerengine import DockerEngine
from polylocal.runner.engine.events import Deaths
from polylocal.runner.engine.link import EngineLink
from polylocal.runner.supervisor import Supervisor
from polylocal.runner.tools import Tools
from polylocal.settings import Settings
from polylocal.store import Store
from polylocal.store.rows import User
from polylocal.store.users import Users, personal_platform
from polylocal.vault import Vault

log = logging.getLogger("polylocal.daemon")

BRIDGE_S = 5.0  # how long a start waits for the address that containers use
LEAST_TOKEN = 32  # characters, where other machines may try
DEFAULT_ENGINE = "unix:///var/run/docker.sock"


def serve(settings: Settings, on_ready: Callable[[str], None] = lambda url: None) -> None:
    """Run the daemon in the foreground until a signal ends it. Raises SetupError before anything was started."""
    home = settings.folders
    _make_home(home)
    lock = occupancy.take(home)
    listener = _listen(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    url = f"http://{_reachable(host)}:{port}"
    store = Store(home.database)
    relocate(home, store)
    links = ProjectLinks(home, store)
    links.refresh_all()
    store.subscribe_to_projects(links.refresh)
    first_user(store.users, settings, home)
    settle_deleted_users(store, home)
    _check_exposure(settings, home)
    serving.allow_many_files()
    report = probe.probe(settings.engine)
    address = report.found.url if report.found else settings.engine or os.environ.get("DOCKER_HOST") or DEFAULT_ENGINE
    log.info("home %s, engine %s", home.root, address if report.found else f"none yet: {report.problem}")
    engine = DockerEngine(address, use_buildkit=settings.builder == "buildkit", pull_timeout_s=settings.pull_timeout_s)
    link = EngineLink(engine, address)
    installation = store.installation()
    deaths = Deaths(engine, installation, link.listen_again)

    def engine_state() -> str | None:
        return None if link.info and not link.is_away else f"the engine at {address} to answer"

    def machine() -> Machine:
        about = link.info
        name = f"{about.name} {about.version}" if about else None
        return look(settings.node, name, about.api_version if about else None)

    bridge = Bridge(engine, settings, port, store)
    grown = Grown()
    supervisor = Supervisor(Tools(settings, store, engine, link, deaths, installation, bridge.url, grown))
    services = Services(
        settings,
        store,
        engine_state=engine_state,
        scheduler_state=supervisor.state,
        look=supervisor.collector.look,
        collect=supervisor.collector.collect,
        image_sizes=lambda: [(image.build, image.size_bytes) for image in engine.images(installation)],
        usage=engine.usage,
        machine=machine,
    )
    engine.observe = services.monitor.observe_engine
    app = bridge.app = api.build(services)
    grown.listener = app.state.changes.grew
    store.subscribe(lambda pk: supervisor.wake())
    deaths.start()
    supervisor.start()
    # runs that are taken up have the address of the daemon before this one: it is opened without being asked for,
    # and before anybody is told that the daemon is there
    opener = threading.Thread(target=link.patiently, args=(bridge.url,), name="bridge-opener", daemon=True)
    opener.start()
    opener.join(BRIDGE_S if report.found else 0)
    occupancy.announce(lock, occupancy.Running(os.getpid(), url))
    on_ready(url)
    log.info("listening on %s", url)
    serving.server(app).run(sockets=[listener])
    log.info("ended; running containers go on and are taken up by the next start")


def first_user(users: Users, settings: Settings, home: Home) -> None:
    """The admin and the token file: made at the first start, and kept true at each further one."""
    names = {user.username for user in users.all()}
    if settings.user not in names:
        users.add(settings.user, is_superuser=True)
    admin = users.get(settings.user)
    if not home.token.exists() or not home.token.read_text().strip():
        write_private(home.token, users.new_token(admin) + "\n")
    users.keep_token(admin, home.token.read_text().strip())


def settle_deleted_users(store: Store, home: Home) -> None:
    """What a deleted user left is removed, where a process before this one did not come to it: their name is free."""
    names = {user.username for user in store.users.all()}
    Vault(home.secrets).settle(names)
    for folder in home.downloads.glob(f"*{personal_platform('')}"):
        if folder.name.removesuffix(personal_platform("")) not in names:
            remove_tree(folder)


def revoke(users: Users, user: User, home: Home) -> tuple[int, bool]:
    """Make a user's tokens worthless. Returns how many, and whether the token file had one and has a new one."""
    token = home.token.read_text().strip() if home.token.exists() else ""
    held = users.by_token(token) if token else None
    count = users.revoke(user)
    if held is None or held.user.id != user.id:
        return count, False
    write_private(home.token, users.new_token(user) + "\n")
    return count, True


class Grown:
    """Passes on which log has grown."""

    def __init__(self) -> None:
        self.listener: Callable[[Path], None] = lambda path: None

    def __call__(self, path: Path) -> None:
        self.listener(path)


class Bridge:
    """The API as containers reach it.

    A daemon on loopback can't be reached from the engine's network: a second listener on the network's gateway
    address takes run tokens only. Where that address is not this host's (the engine has a virtual machine of its own),
    the engine's name for the host leads to loopback.
    """

    def __init__(self, engine: DockerEngine, settings: Settings, port: int, store: Store) -> None:
        self.app: Starlette | None = None  # made after what it shows
        self._store = store
        self._engine = engine
        self._settings = settings
        self._port = port
        self._lock = threading.Lock()
        self._url: str | None = None

    def url(self) -> str:
        """Opens the listener at the first call. Raises EngineUnreachable."""
        with self._lock:
            if self._url is None:
                self._url = self._open()
            return self._url

    def _open(self) -> str:
        if self._settings.network == "host":
            return f"http://127.0.0.1:{self._port}"
        gateway = self._engine.gateway(self._settings.network)
        listener = self._bind(gateway) if gateway and self._settings.host != "0.0.0.0" else None
        if listener is None:
            return f"http://host.docker.internal:{self._port}"
        if self.app is None:
            raise RuntimeError("there is no application yet that could be opened")
        port = listener.getsockname()[1]
        server = serving.server(api.FromContainers(self.app), has_lifespan=False)
        threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="bridge", daemon=True).start()
        log.info("listening on http://%s:%s for runs", gateway, port)
        return f"http://{gateway}:{port}"

    def _bind(self, gateway: str) -> socket.socket | None:
        last = int(self._store.recall("bridge_port") or 0)
        for port in (last or self._port, self._port, 0):
            try:
                listener = serving.bound(gateway, port)
                self._store.remember("bridge_port", str(listener.getsockname()[1]))
                return listener
            except OSError as error:
                log.debug("%s:%s: %s", gateway, port, error)
        return None


def _make_home(home: Home) -> None:
    try:
        home.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        home.root.chmod(0o700)
        home.logs.mkdir(exist_ok=True)
    except OSError as error:
        raise SetupError(f"the home folder {home.root} can't be made or written: {error}") from error


def _reachable(host: str) -> str:
    """How a client on this machine names what listens on `host`."""
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1" if host == "0.0.0.0" else "[::1]"
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    try:
        return serving.bound(host, port)
    except OSError as error:
        hint = "; choose another one with --port" if error.errno == errno.EADDRINUSE else ""
        raise SetupError(f"can't listen on {host}:{port}: {error.strerror or error}{hint}") from error


def _check_exposure(settings: Settings, home: Home) -> None:
    """Whoever opens the daemon to other machines is told so, and needs a token that nobody guesses."""
    if settings.is_private:
        return
    found = len(home.token.read_text().strip())
    if found < LEAST_TOKEN:
        raise SetupError(
            f"{settings.host} is open to other machines, and the token in {home.token} has only {found} characters, not"
            f" {LEAST_TOKEN}: delete that file, and the next start makes a new one"
        )
    log.warning("%s is open to other machines: all they need is the token, and nothing is encrypted", settings.host)
