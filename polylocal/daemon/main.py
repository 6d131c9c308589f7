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

from starlette.applications import Starlette

from polylocal.api import app as api
from polylocal.api.api_context import ApiContext
from polylocal.api.feed import Feed
from polylocal.api.metrics import EngineTimes
from polylocal.daemon import home_lock, leftovers, web_server
from polylocal.daemon.engine_setup import engine_at
from polylocal.daemon.project_links import ProjectLinks
from polylocal.daemon.relocation import relocate
from polylocal.engine.base import Engine, Images
from polylocal.engine.events import Deaths
from polylocal.engine.opening import address_of, find_engine
from polylocal.errors import EngineError, EngineUnreachable, SetupError
from polylocal.files.disk import write_private
from polylocal.files.folders import remove_tree
from polylocal.files.secrets import SecretStore
from polylocal.paths import Home
from polylocal.runner.engine_link import EngineLink
from polylocal.runner.runner_context import RunnerContext
from polylocal.runner.supervisor import Supervisor
from polylocal.settings import Settings
from polylocal.store import Store
from polylocal.store.rows import User
from polylocal.store.users import Users, personal_platform

log = logging.getLogger("polylocal.daemon")

BRIDGE_S = 5.0  # how long a start waits for the address that containers use
LEAST_TOKEN = 32  # characters, where other machines may try


def serve(settings: Settings, on_ready: Callable[[str], None] = lambda url: None) -> None:
    """Run the daemon in the foreground until a signal ends it. Raises SetupError before anything was started."""
    home = settings.folders
    check_data(settings)
    _make_home(home)
    lock = home_lock.take(home)
    left = leftovers.set_aside(home)
    # beside the start: large trees take their time
    threading.Thread(target=leftovers.remove, args=(left,), name="leftovers", daemon=True).start()
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
    web_server.allow_many_files()
    report = find_engine(settings.engine)
    address = address_of(report, settings.engine)
    log.info("home %s, engine %s", home.root, address if report.found else f"none yet: {report.problem}")
    feed, engine_times = Feed(), EngineTimes()
    engine = engine_at(address, settings, use_buildkit=settings.builder == "buildkit")
    engine.observe = engine_times.observe
    link = EngineLink(engine, address)
    installation = store.installation()
    deaths = Deaths(engine, installation, link.listen_again)

    def engine_state() -> str | None:
        return None if link.info and not link.is_away else f"the engine at {address} to answer"

    bridge = Bridge(engine, settings, port, store, installation)
    tools = RunnerContext(
        settings, store, engine, link, deaths, installation, bridge.url, bridge.reaches_containers, feed.log_grew
    )
    supervisor = Supervisor(tools)
    services = ApiContext(
        settings,
        store,
        feed=feed,
        engine_times=engine_times,
        engine_state=engine_state,
        scheduler_state=supervisor.state,
        queue_state=supervisor.queue_state,
        look=supervisor.housekeeping.collector.look,
        collect=supervisor.housekeeping.collector.collect,
        image_sizes=lambda: image_sizes(engine, installation, store),
        reaches_containers=bridge.reaches_containers,
        has_image=known_images(engine),
        usage=engine.usage,
        machine=engine.machine,
        capacity=lambda with_gpus: link.capacity(with_gpus=with_gpus),
    )
    app = bridge.app = api.build(services)
    store.subscribe(lambda pk: supervisor.wake())
    deaths.start()
    supervisor.start()

    def reach_engine() -> None:
        link.check()  # so that what its machine can't run is refused from the first request on
        link.patiently(bridge.open)

    # runs that are taken up have the address of the daemon before this one: it is opened without being asked for,
    # and before anybody is told that the daemon is there
    opener = threading.Thread(target=reach_engine, name="bridge-opener", daemon=True)
    opener.start()
    opener.join(BRIDGE_S if report.found else 0)
    home_lock.announce(lock, home_lock.Running(os.getpid(), url))
    on_ready(url)
    log.info("listening on %s", url)
    web_server.server(app).run(sockets=[listener])
    log.info("ended; running containers go on and are taken up by the next start")


def check_data(settings: Settings) -> None:
    """Data folders that are not there may be mounted later. Raises SetupError for what is there and no folder."""
    found = [(folder, folder.problem(name)) for name, folder in settings.data.items()]
    if wrong := [problem for folder, problem in found if problem and folder.path.exists()]:
        raise SetupError(f"{settings.folders.settings}: {' '.join(wrong)}")
    for _, problem in found:
        if problem:
            log.warning("%s Runs that see it are refused until then.", problem)


def image_sizes(engine: Images, installation: str, store: Store) -> list[tuple[str, int]]:
    """Builds by their uuid, and the bytes of their images."""
    found = engine.images(installation, store.built_images.ledger())
    return [(image.build, image.size_bytes) for image in found if image.is_proven]


def known_images(engine: Images) -> Callable[[str], bool]:
    """Whether the engine has an image of a name; while it does not answer, what it said last, or False."""
    known: dict[str, bool] = {}

    def has_image(name: str) -> bool:
        try:
            known[name] = engine.image(name) is not None
        except (EngineError, EngineUnreachable) as error:
            log.warning("whether the engine has %s can't be known now: %s", name, error)
        return known.get(name, False)

    return has_image


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
    SecretStore(home.secrets).settle(names)
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


class Bridge:
    """The API as containers reach it.

    A daemon on loopback can't be reached from the engine's network: a second listener on the network's gateway
    address takes run tokens only. Where that address is not this host's (the engine has a virtual machine of its own),
    the engine's name for the host leads to loopback.
    """

    def __init__(self, engine: Engine, settings: Settings, port: int, store: Store, installation: str) -> None:
        self.app: Starlette | None = None  # made after what it shows
        self._store = store
        self._engine = engine
        self._settings = settings
        self._port = port
        self._installation = installation
        self._lock = threading.Lock()
        self._urls: dict[str, str] = {}  # by the gateway that is listened on

    def open(self) -> None:
        """Listen where the runs that are there expect it, and where new ones will. Raises EngineUnreachable."""
        networks = {self._settings.network}
        # an earlier daemon may have started runs on another network: its gateway is the address that they know
        networks |= {found.network for found in self._engine.containers(self._installation) if found.run}
        for network in sorted(networks - {"", "none"}):
            try:
                self._at(network)
            except EngineError as error:
                log.warning("runs on the network %s can't reach the API: %s", network, error)

    def url(self) -> str:
        """The API's address for a new container. Raises EngineUnreachable, EngineError."""
        return self._at(self._settings.network)

    def _at(self, network: str) -> str:
        if network == "host":
            return f"http://127.0.0.1:{self._port}"
        # asked each time: a network that somebody removed is made again, maybe with other addresses
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
        if self.app is None:
            raise RuntimeError("there is no application yet that could be opened")
        port = listener.getsockname()[1]
        server = web_server.server(api.FromContainers(self.app), has_lifespan=False)
        threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="bridge", daemon=True).start()
        log.info("listening on http://%s:%s for runs", gateway, port)
        return f"http://{gateway}:{port}"

    def reaches_containers(self) -> bool:
        """Whether this machine has an address on the network of runs, and so reaches the containers there."""
        return web_server.reaches(self._engine, self._settings.network)

    def _bind(self, gateway: str) -> socket.socket | None:
        """At the port of the daemon before, which running containers know, if it is free."""
        name = f"bridge_port {gateway}"
        last = int(self._store.recall(name) or self._store.recall("bridge_port") or 0)
        for port in (last or self._port, self._port, 0):
            try:
                listener = web_server.bound(gateway, port)
                self._store.remember(name, str(listener.getsockname()[1]))
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
        return web_server.bound(host, port)
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
