"""The composition root: makes the objects of a daemon, connects them and serves the API.

The daemon needs no shutdown: its process ends, containers go on, and the next start finds them again.
"""

import errno
import logging
import os
import socket
import threading
from collections.abc import Callable

from polylocal.api import app as api
from polylocal.api.api_context import ApiContext
from polylocal.api.engine_times import EngineTimes
from polylocal.api.feed import Feed
from polylocal.daemon import accounts, home_lock, leftovers, web_server
from polylocal.daemon.bridge import Gateways, serve_containers
from polylocal.daemon.engine_setup import engine_at
from polylocal.daemon.project_links import ProjectLinks
from polylocal.daemon.relocation import relocate
from polylocal.engine.base import Engine
from polylocal.engine.events import Deaths
from polylocal.engine.images import Images
from polylocal.engine.opening import address_of, find_engine
from polylocal.errors import EngineError, EngineUnreachable, SetupError
from polylocal.installation import Installation
from polylocal.paths import Home
from polylocal.runner.engine_link import EngineLink
from polylocal.runner.runner_context import RunnerContext
from polylocal.runner.supervisor import Supervisor
from polylocal.settings import Settings
from polylocal.store import Store

log = logging.getLogger("polylocal.daemon")

BRIDGE_S = 5.0  # seconds that a start waits for the bridge


def serve(settings: Settings, on_ready: Callable[[str], None] = lambda url: None) -> None:
    """Run the daemon in the foreground until a signal ends it. Raises SetupError before it starts anything."""
    home = settings.folders
    check_data(settings)
    _make_home(home)
    lock = home_lock.take(home)
    _remove_leftovers(home)
    listener = _listen(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    url = f"http://{_reachable(host)}:{port}"
    installation = Installation(settings, _open_store(settings))
    web_server.allow_many_files()

    feed, engine_times = Feed(), EngineTimes()
    engine, address, is_there = _find_engine(settings, engine_times)
    link = EngineLink(engine, address)
    installation_id = installation.store.installation()
    gateways = Gateways(engine, settings, port, installation.store, installation_id)
    deaths = Deaths(engine, installation_id, link.listen_again)
    runner_context = RunnerContext(
        installation,
        engine,
        link,
        deaths,
        installation_id,
        api_url=gateways.url,
        reaches_containers=lambda: web_server.reaches(engine, settings.network),
        log_grew=feed.log_grew,
    )
    supervisor = Supervisor(runner_context)
    api_context = _api_context(runner_context, supervisor, address, feed, engine_times)
    app = api.build(api_context)

    installation.store.subscribe(lambda pk: supervisor.wake())
    deaths.start()
    supervisor.start()
    serve_containers(app, gateways.listeners)
    _open_gateways(gateways, link, BRIDGE_S if is_there else 0)
    home_lock.announce(lock, home_lock.Running(os.getpid(), url))
    on_ready(url)
    log.info("listening on %s", url)
    web_server.server(app).run(sockets=[listener])
    log.info("ended; running containers go on, and the next start finds them")


def check_data(settings: Settings) -> None:
    """Warn of data folders that are missing: they may be mounted later. Raises SetupError for one that is a file."""
    found = [(folder, folder.problem(name)) for name, folder in settings.data.items()]
    if wrong := [problem for folder, problem in found if problem and folder.path.exists()]:
        raise SetupError(f"{settings.folders.settings}: {' '.join(wrong)}")
    for _, problem in found:
        if problem:
            log.warning("%s Runs that see it are refused until then.", problem)


def image_sizes(engine: Images, installation_id: str, store: Store) -> list[tuple[str, int]]:
    """(uuid of the build, bytes of its image) for each image of this installation."""
    found = engine.images(installation_id, store.built_images.ledger())
    return [(image.build, image.size_bytes) for image in found if image.is_proven]


def known_images(engine: Images) -> Callable[[str], bool]:
    """A function that tells whether the engine has an image of a given name.

    While the engine does not answer, the function repeats the engine's last answer, or returns False.
    """
    known: dict[str, bool] = {}

    def has_image(name: str) -> bool:
        try:
            known[name] = engine.image(name) is not None
        except (EngineError, EngineUnreachable) as error:
            log.warning("whether the engine has %s can't be known now: %s", name, error)
        return known.get(name, False)

    return has_image


def _make_home(home: Home) -> None:
    try:
        home.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        home.root.chmod(0o700)
        home.logs.mkdir(exist_ok=True)
    except OSError as error:
        raise SetupError(f"the home folder {home.root} can't be made or written: {error}") from error


def _remove_leftovers(home: Home) -> None:
    """Set interrupted work aside now, and remove it in a thread: large trees take long."""
    left = leftovers.set_aside(home)
    threading.Thread(target=leftovers.remove, args=(left,), name="leftovers", daemon=True).start()


def _open_store(settings: Settings) -> Store:
    """The database, with everything on the disk that has to agree with it brought up to date."""
    home = settings.folders
    store = Store(home.database)
    relocate(home, store)
    links = ProjectLinks(home, store)
    links.refresh_all()
    store.subscribe_to_projects(links.refresh)
    accounts.create_first_user(store.users, settings, home)
    accounts.finish_user_removals(store, home)
    accounts.check_exposure(settings, home)
    return store


def _find_engine(settings: Settings, engine_times: EngineTimes) -> tuple[Engine, str, bool]:
    """The engine, its address, and whether it answered. If none answers, the daemon starts and waits for it."""
    report = find_engine(settings.engine)
    address = address_of(report, settings.engine)
    log.info("home %s, engine %s", settings.home, address if report.found else f"none yet: {report.problem}")
    use_buildkit = settings.builder == "buildkit"
    engine = engine_at(address, settings, use_buildkit=use_buildkit, observe=engine_times.observe)
    return engine, address, report.found is not None


def _api_context(
    context: RunnerContext, supervisor: Supervisor, address: str, feed: Feed, engine_times: EngineTimes
) -> ApiContext:
    engine, link = context.engine, context.link

    def engine_state() -> str | None:
        return None if link.info and not link.is_away else f"the engine at {address} to answer"

    return ApiContext(
        context.installation,
        feed=feed,
        engine_times=engine_times,
        engine_state=engine_state,
        scheduler_state=supervisor.state,
        queue_state=supervisor.queue_state,
        disk_usage=supervisor.housekeeping.collector.list_items,
        free_disk=supervisor.housekeeping.collector.collect,
        image_sizes=lambda: image_sizes(engine, context.installation_id, context.store),
        reaches_containers=context.reaches_containers,
        has_image=known_images(engine),
        usage=engine.usage,
        machine=engine.machine,
        capacity=lambda with_gpus: link.capacity(with_gpus=with_gpus),
    )


def _open_gateways(gateways: Gateways, link: EngineLink, timeout_s: float) -> None:
    """Listen for containers in a thread, and wait for it at most `timeout_s` seconds.

    Containers of the previous daemon use its addresses, so these are open before the daemon is announced.
    """

    def reach_engine() -> None:
        link.check()  # learn the capacity first: the API refuses runs that this machine can never hold
        link.call_engine(gateways.open)

    opener = threading.Thread(target=reach_engine, name="bridge-opener", daemon=True)
    opener.start()
    opener.join(timeout_s)


def _reachable(host: str) -> str:
    """The host in the daemon's URL for clients on this machine."""
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1" if host == "0.0.0.0" else "[::1]"
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    try:
        return web_server.listen(host, port)
    except OSError as error:
        hint = "; choose another one with --port" if error.errno == errno.EADDRINUSE else ""
        raise SetupError(f"can't listen on {host}:{port}: {error.strerror or error}{hint}") from error
