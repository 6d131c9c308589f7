"""Checks this machine and proposes a fix for each problem."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from polylocal.api import origins
from polylocal.daemon import home_lock, web_server
from polylocal.daemon.engine_setup import engine_at
from polylocal.engine.base import Engine
from polylocal.engine.host import EngineInfo, Host, Isolation
from polylocal.engine.images import Images
from polylocal.engine.opening import Report, find_engine, registry_problems
from polylocal.engine.plan import OWN_NETWORK
from polylocal.errors import ContainerMissing, EngineError, EngineUnreachable, SetupError
from polylocal.git import command
from polylocal.settings import Settings

BASE_IMAGE = "python:3.11-slim"
LITTLE_DISK_MIB = 5 * 1024
MUCH_SKEW_S = 30.0
_HELPER_S = 2.0  # seconds to wait for a credential helper
_EACH_S = 4.0  # seconds for the checks of the engine

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    subject: str
    state: State
    message: str
    fix: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Run all checks. Takes a few seconds at most, even if an engine hangs."""
    report = find_engine(settings.engine, timeout_s=2.0)
    findings = [_home(settings), *_data(settings), _git(), _port(settings), _credentials()]
    findings.append(_engine(report))
    if report.found:
        url = report.found.url
        findings += _within(_EACH_S, lambda: list(_of_engine(engine_at(url, settings), settings)), url)
    return findings


def _within(timeout_s: float, look: Callable[[], list[Finding]], url: str) -> list[Finding]:
    found: list[Finding] = []

    def try_it() -> None:
        try:
            found.extend(look())
        except (EngineError, EngineUnreachable) as error:
            found.append(Finding("engine", "problem", str(error), "Restart the engine, then try again."))

    thread = threading.Thread(target=try_it, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        return [Finding("engine", "problem", f"{url} did not answer within {timeout_s:g} s", "Restart the engine.")]
    return found


def _home(settings: Settings) -> Finding:
    root = settings.home
    existing = next(path for path in (root, *root.parents) if path.exists())
    if not _is_writable(existing):
        return Finding("home", "problem", f"{existing} can't be written", "Choose another folder with --home.")
    return _space("home", root, existing, "Free some space, or move it with --home.")


def _space(subject: str, folder: Path, existing: Path, fix: str) -> Finding:
    """`existing`: the folder, or its parent on the same disk."""
    free = shutil.disk_usage(existing).free / 2**20
    if free < LITTLE_DISK_MIB:
        return Finding(subject, "problem", f"{folder}: {free:.0f} MiB free", fix)
    return Finding(subject, "ok", f"{folder}, {free / 1024:.0f} GiB free")


def _data(settings: Settings) -> Iterator[Finding]:
    """Each data folder: its path in containers, or its problem."""
    for name, folder in settings.data.items():
        subject = f"data folder {name}"
        if problem := folder.problem(name):
            yield Finding(subject, "problem", problem)
            continue
        words = ["in every run" if folder.always else "in runs that name it"]
        words += ["read-only"] if folder.read_only else []
        message = f"{folder.path} is {folder.target(name)} {', '.join(words)}"
        if folder.path in (settings.home, *settings.home.parents) or settings.home in folder.path.parents:
            hint = f"Name a folder outside the home folder in {settings.folders.settings}."
            yield Finding(subject, "note", f"{message}; runs read polylocal's home folder in it, with secrets", hint)
        else:
            yield Finding(subject, "ok", message)


def _is_writable(folder: Path) -> bool:
    probe_file = folder / f".polylocal-{time.time_ns()}"
    try:
        probe_file.touch()
        probe_file.unlink()
    except OSError:
        return False
    return True


def _git() -> Finding:
    try:
        version = command.version()
    except (SetupError, OSError, subprocess.SubprocessError):
        return Finding("git", "problem", "not installed; polylocal stores code with it", "Install git.")
    shown = ".".join(map(str, version))
    if version < command.PINS_SINCE:
        words = f"{shown}: it can't pin addresses, so a fetch could reach this machine if a name changes its address"
        return Finding("git", "note", words, "Install git 2.37 or newer.")
    return Finding("git", "ok", shown)


def _port(settings: Settings) -> Finding:
    here = home_lock.running(settings.folders)
    if here:
        return Finding("daemon", "ok", f"runs on {here.url} (process {here.pid})")
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((settings.host, settings.port))
        except OSError as error:
            where = f"{settings.host}:{settings.port}: {error.strerror}"
            return Finding("port", "problem", where, "Choose another port with --port or POLYLOCAL_PORT.")
    return Finding("port", "ok", f"{settings.host}:{settings.port} is free; no daemon runs on this home folder")


def _credentials() -> Finding:
    """The settings of Docker's client, and the credential helpers in them."""
    problems = registry_problems(_HELPER_S)
    if problems:
        fix = "Install the helper, or fix that file; until then registries get no credentials."
        return Finding("registry credentials", "problem", "; ".join(problems), fix)
    return Finding("registry credentials", "ok", "all credential helpers in the settings of Docker's client answer")


def _engine(report: Report) -> Finding:
    tried = "; ".join(f"{item.url} ({item.why}): {item.answer}" for item in report.tried)
    if report.found is None:
        return Finding("engine", "problem", f"none found. Tried {tried}", report.problem)
    return Finding("engine", "ok", f"{report.found.url} ({report.found.why}). Tried {tried}")


def _of_engine(engine: Engine, settings: Settings) -> Iterator[Finding]:
    try:
        info, isolation = engine.info(), engine.isolation()
        yield _version(engine, info)
        yield _builder(engine, settings)
        yield _disk(info)
        yield _base_image(engine, settings, info)
        yield _gpus(engine)
        yield _clock(engine)
        yield _network(engine, settings, info, isolation)
        yield _pages(engine, settings, info, isolation)
    finally:
        engine.close()


def _version(engine: Host, info: EngineInfo) -> Finding:
    what = f"{info.name} {info.version}, API {info.api_version}, {info.cpus} cores, {info.memory_mib:.0f} MiB"
    if problem := engine.unsupported():
        return Finding("engine version", "problem", f"{what}; {problem}", "Update the engine.")
    return Finding("engine version", "ok", what + (", rootless" if info.is_rootless else ""))


def _builder(engine: Host, settings: Settings) -> Finding:
    kit = engine.buildkit()
    there = f"{kit} is there" if kit else "BuildKit is not there (no docker command with buildx)"
    if settings.builder == "buildkit" and not kit:
        return Finding("builder", "problem", there, "Install docker-buildx, or set builder = 'classic'.")
    return Finding("builder", "ok", f"{settings.builder}; {there}")


def _disk(info: EngineInfo) -> Finding:
    root = Path(info.root)
    if info.is_desktop or not root.exists():
        return Finding("engine disk", "note", f"{root} is not visible from here")
    return _space("engine disk", root, root, "Remove images that you don't need.")


def _base_image(engine: Images, settings: Settings, info: EngineInfo) -> Finding:
    if engine.image_id(BASE_IMAGE):
        return Finding("base image", "ok", f"{BASE_IMAGE} is here")
    fallback = settings.image_fallbacks.get(BASE_IMAGE)
    if fallback and engine.image_id(fallback):
        return Finding("base image", "ok", f"{BASE_IMAGE} is missing; the local {fallback} stands in for it")
    message = f"{BASE_IMAGE} is missing; it is pulled when a build needs it"
    return Finding("base image", "note", message, f"{info.name.lower()} pull {BASE_IMAGE}")


def _gpus(engine: Host) -> Finding:
    found = engine.gpus()
    if found.count is None:
        return Finding("gpus", "note", "the engine is on another machine, so its GPUs can't be counted from here")
    if found.count:
        cards_here = f"{found.count} NVIDIA card{'s' if found.count > 1 else ''}"
        return Finding("gpus", "ok", f"{cards_here}; runs get them by environment.resources.gpu")
    return Finding("gpus", "note", f"runs get no GPUs: {found.problem}", found.fix)


def _clock(engine: Host) -> Finding:
    skew_s = abs((engine.time() - datetime.now(UTC)).total_seconds())
    if skew_s > MUCH_SKEW_S:
        return Finding("clock", "problem", f"the engine's clock is {skew_s:.0f} s off", "Restart the engine's machine.")
    return Finding("clock", "ok", f"the engine's clock agrees within {skew_s:.1f} s")


def _network(engine: Host, settings: Settings, info: EngineInfo, isolation: Isolation) -> Finding:
    if settings.network != OWN_NETWORK:
        return _other_network(engine, settings)
    if not isolation.is_supported:
        return Finding("network", "note", f"{info.name}'s own; {_OPEN}")
    if isolation.problem:
        return Finding("network", "problem", isolation.problem, isolation.fix)
    gateway = engine.gateway(OWN_NETWORK) if isolation.exists else None
    reached = f"runs reach the API on {gateway}" if isolation.exists else "the first start creates it"
    return Finding("network", "ok", f"{OWN_NETWORK}, on which runs can't reach each other; {reached}")


def _pages(engine: Host, settings: Settings, info: EngineInfo, isolation: Isolation) -> Finding:
    """Whether the pages of notebooks and tensorboards are isolated from each other and from the API's session."""
    lost = []
    if not origins.is_reachable("127.0.0.1", settings.host):
        lost.append(f"the daemon listens on {settings.host} only: all pages share one origin, and can use each other")
    if info.is_rootless or info.is_desktop or not _reaches_containers(engine, settings, isolation):
        lost.append(
            "this machine does not reach the addresses of containers: their ports are published on 127.0.0.1, and a"
            " browser sends them the session's cookie"
        )
    if lost:
        return Finding("pages", "note", "; ".join(lost), "Open only pages of people whom you trust.")
    return Finding("pages", "ok", "each notebook and tensorboard has an origin of its own below localhost")


def _reaches_containers(engine: Host, settings: Settings, isolation: Isolation) -> bool:
    network = settings.network
    if network == OWN_NETWORK and not isolation.exists:
        network = "bridge"  # the first start creates a network of the same kind
    try:
        return web_server.reaches(engine, network)
    except ContainerMissing:
        return False


_OPEN = "runs can reach each other, and whatever listens in one is open to the others"


def _other_network(engine: Host, settings: Settings) -> Finding:
    hint = f"Remove the line `network` from {settings.folders.settings}, unless you need it."
    if settings.network == "host":
        return Finding("network", "note", f"host: runs share all ports of this machine; {_OPEN}", hint)
    try:
        gateway = engine.gateway(settings.network)
    except ContainerMissing:
        return Finding("network", "problem", f"the engine has no network {settings.network}", hint)
    where = f"on {gateway}" if gateway else "by the host's name, since it has no gateway"
    reached = f"runs reach the API {where}"
    return Finding("network", "note", f"{settings.network}, {reached}; {_OPEN}", hint)
