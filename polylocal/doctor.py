"""What is wrong with this machine, and how to mend it: each finding with one line to type."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from polylocal import gitrun, occupancy
from polylocal.errors import EngineError, EngineUnreachable, SetupError
from polylocal.packages import tools
from polylocal.runner.engine import buildkit, probe
from polylocal.runner.engine.base import EngineInfo
from polylocal.runner.engine.dockerengine import DockerEngine
from polylocal.settings import Settings

BASE_IMAGE = "python:3.11-slim"
OLDEST_API = (1, 40)  # Docker Engine 19.03: host-gateway and device requests need it, in parts newer
LITTLE_DISK_MIB = 5 * 1024
MUCH_SKEW_S = 30.0
_EACH_S = 4.0  # no single check may hold up the rest

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    subject: str
    state: State
    message: str
    fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine(settings: Settings) -> list[Finding]:
    """Every finding; takes seconds at most, also when an engine hangs."""
    report = probe.probe(settings.engine, timeout_s=2.0)
    findings = [_home(settings), _git(), _package_tools(), _port(settings), _engine(report)]
    if report.found:
        url = report.found.url
        findings += _within(_EACH_S, lambda: list(_of_engine(DockerEngine(url), settings)), url)
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
    free = shutil.disk_usage(existing).free / 2**20
    if free < LITTLE_DISK_MIB:
        return Finding("home", "problem", f"{root}: {free:.0f} MiB free", "Make room, or move it with --home.")
    return Finding("home", "ok", f"{root}, {free / 1024:.0f} GiB free")


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
        version = gitrun.version()
    except (SetupError, OSError, subprocess.SubprocessError):
        return Finding("git", "problem", "not installed; uploaded code is kept with it", "Install git.")
    shown = ".".join(map(str, version))
    if version < gitrun.PINS_SINCE:
        words = f"{shown}: it can't pin addresses, so a name that changes its address may lead a fetch to this machine"
        return Finding("git", "note", words, "Install git 2.37 or newer.")
    return Finding("git", "ok", shown)


def _package_tools() -> Finding:
    missing = tools.missing()
    if missing:
        return Finding("package tools", "note", f"{', '.join(missing)} not installed: no .deb can be published", "")
    return Finding("package tools", "ok", "what .deb repositories are made with is here")


def _port(settings: Settings) -> Finding:
    here = occupancy.running(settings.folders)
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


def _engine(report: probe.Report) -> Finding:
    tried = "; ".join(f"{item.url} ({item.why}): {item.answer}" for item in report.tried)
    if report.found is None:
        return Finding("engine", "problem", f"none found. Tried {tried}", report.problem)
    return Finding("engine", "ok", f"{report.found.url} ({report.found.why}). Tried {tried}")


def _of_engine(engine: DockerEngine, settings: Settings) -> Iterator[Finding]:
    try:
        info = engine.info()
        yield _api(info)
        yield _builder(settings, info)
        yield _disk(info)
        yield _base_image(engine, settings)
        yield _clock(engine)
        yield _network(engine, settings)
    finally:
        engine.close()


def _api(info: EngineInfo) -> Finding:
    what = f"{info.name} {info.version}, API {info.api_version}, {info.cpus} cores, {info.memory_mib:.0f} MiB"
    if tuple(map(int, info.api_version.split("."))) < OLDEST_API:
        oldest = ".".join(map(str, OLDEST_API))
        return Finding("engine version", "problem", f"{what}; at least API {oldest} is needed", "Update the engine.")
    return Finding("engine version", "ok", what + (", rootless" if info.is_rootless else ""))


def _builder(settings: Settings, info: EngineInfo) -> Finding:
    kit = buildkit.find(info.address)
    there = f"{kit.name} is there" if kit else "BuildKit is not there (no docker command with buildx)"
    if settings.builder == "buildkit" and not kit:
        return Finding("builder", "problem", there, "Install docker-buildx, or set builder = 'classic'.")
    return Finding("builder", "ok", f"{settings.builder}; {there}")


def _disk(info: EngineInfo) -> Finding:
    if info.is_desktop or not Path(info.root).exists():
        return Finding("engine disk", "note", f"{info.root} can't be seen from here")
    free = shutil.disk_usage(info.root).free / 2**20
    if free < LITTLE_DISK_MIB:
        return Finding("engine disk", "problem", f"{info.root}: {free:.0f} MiB free", "Remove images you don't need.")
    return Finding("engine disk", "ok", f"{info.root}, {free / 1024:.0f} GiB free")


def _base_image(engine: DockerEngine, settings: Settings) -> Finding:
    if engine.image_id(BASE_IMAGE):
        return Finding("base image", "ok", f"{BASE_IMAGE} is here")
    fallback = settings.image_fallbacks.get(BASE_IMAGE)
    if fallback and engine.image_id(fallback):
        return Finding("base image", "ok", f"{BASE_IMAGE} is not here; the local {fallback} stands in for it")
    return Finding(
        "base image",
        "note",
        f"{BASE_IMAGE} is not here yet; it is pulled when it is needed",
        "docker pull " + BASE_IMAGE,
    )


def _clock(engine: DockerEngine) -> Finding:
    skew_s = abs((engine.time() - datetime.now(UTC)).total_seconds())
    if skew_s > MUCH_SKEW_S:
        return Finding("clock", "problem", f"the engine's clock is {skew_s:.0f} s off", "Restart the engine's machine.")
    return Finding("clock", "ok", f"the engine's clock agrees within {skew_s:.1f} s")


def _network(engine: DockerEngine, settings: Settings) -> Finding:
    gateway = engine.gateway(settings.network) if settings.network != "host" else "127.0.0.1"
    if gateway is None:
        return Finding("network", "note", f"{settings.network} has no gateway: runs reach the API by the host's name")
    return Finding("network", "ok", f"{settings.network}, runs reach the API on {gateway}")
