"""Shared by all measurements: daemons with separate home folders, a plain HTTP client, the raw engine.

A stage ends what it started by process id, and removes from the engine what carries its labels, nothing else.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raw import BENCH_LABEL, RawEngine

from polylocal.client.http import Client
from polylocal.daemon import home_lock
from polylocal.engine.docker import probe
from polylocal.engine.plan import HOME_LABEL
from polylocal.paths import Home
from polylocal.store import Store

BUSYBOX = "polylocal/busybox:test"  # made by scripts/base-images
OWNER = "root"
_IDLE_S = 2.0  # the server closes a connection that was idle for five seconds

Json = dict[str, Any]


class Api:
    """A persistent connection to the API with a minimal client, so that mainly the daemon is measured."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._headers = {"Authorization": f"Token {token}", "Content-Type": "application/json"}
        self._kept = http.client.HTTPConnection(self._host, self._port, timeout=120)
        self._last_used = time.monotonic()

    def post(self, path: str, body: Json | None = None) -> Json:
        return self._call("POST", path, json.dumps(body or {}).encode())

    def get(self, path: str) -> Json:
        return self._call("GET", path, None)

    @contextmanager
    def stream(self, path: str) -> Iterator[http.client.HTTPResponse]:
        """A streamed answer on a separate connection."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=300)
        try:
            connection.request("GET", path, headers=self._headers)
            yield connection.getresponse()
        finally:
            connection.close()

    def close(self) -> None:
        self._kept.close()

    def _call(self, method: str, path: str, body: bytes | None) -> Json:
        if time.monotonic() - self._last_used > _IDLE_S:
            self._kept.close()  # reopened automatically
        self._kept.request(method, path, body, self._headers)
        response = self._kept.getresponse()
        data = response.read()
        self._last_used = time.monotonic()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {data.decode(errors='replace')}")
        found: Json = json.loads(data) if data else {}
        return found


@dataclass
class Daemon:
    """A real daemon process."""

    home: Path
    process: subprocess.Popen[bytes]
    url: str
    api: Api

    def project(self, name: str, code: Path | None = None) -> str:
        """Create a project, with code if given. Returns its path in the API."""
        self.api.post("/api/v1/projects/", {"name": name})
        if code:
            self.upload(name, code)
        return f"/api/v1/{OWNER}/{name}"

    def upload(self, name: str, archive: Path) -> None:
        client = Client(self.url, _token(self.home))
        with archive.open("rb") as file:
            client.upload(OWNER, name, file)
        client.close()

    def submit(self, project: str, body: Json, kind: str = "job") -> Json:
        return self.api.post(f"{project}/{kind}s/", body)

    def follow(self, project: str, run: Json, kind: str = "job") -> bytes:
        """Follow the log until the run is done."""
        with self.api.stream(f"{project}/{kind}s/{run['id']}/logs/?follow=true") as response:
            return response.read()

    def finish(self, project: str, run: Json, kind: str = "job") -> Json:
        """Wait until the API says that the run succeeded."""
        self.follow(project, run, kind)
        found = self.api.get(f"{project}/{kind}s/{run['id']}/")
        if found["last_status"] != "succeeded":
            history = self.api.get(f"{project}/{kind}s/{run['id']}/statuses/")["results"]
            raise RuntimeError(f"{run['unique_name']} is {found['last_status']}: {history[-1]['message']}")
        return found

    def ready_project(self, name: str, code: Path | None = None) -> tuple[str, str]:
        """Create a project and build its image. Returns (path of the project, name of the image)."""
        project = self.project(name, code)
        run = self.finish(project, self.submit(project, job("true")))
        number = run["build_job"].rpartition(".")[2]
        build = self.api.get(f"{project}/builds/{number}/")
        project_id = self.api.get(f"{project}/")["id"]
        return project, f"{name}_{project_id}:{build['uuid']}"


class Stage:
    """All resources of a benchmark."""

    def __init__(self) -> None:
        found = probe.probe().found
        if found is None:
            raise SystemExit("bench: no container engine answers; scripts/ensure-docker starts one")
        self.folder = Path(tempfile.mkdtemp(prefix="polylocal-bench-"))
        self.engine = RawEngine(found.url, uuid.uuid4().hex[:12])
        self._installations: list[str] = []

    @contextmanager
    def daemon(self, *flags: str, home: Path | None = None, env: dict[str, str] | None = None) -> Iterator[Daemon]:
        home = home or self.new_home()
        daemon = start(home, *flags, env=env)
        self._installations.append(installation_of(home))
        try:
            yield daemon
        finally:
            daemon.api.close()
            end(daemon.process)

    def new_home(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="home-", dir=self.folder))

    def close(self) -> None:
        """Remove all containers, images and files of this benchmark."""
        labels = [f"{HOME_LABEL}={found}" for found in dict.fromkeys(self._installations)]
        self.engine.sweep([*labels, f"{BENCH_LABEL}={self.engine.mark}"])
        self.engine.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def start(home: Path, *flags: str, env: dict[str, str] | None = None) -> Daemon:
    """Start `polylocal serve` and wait until it listens. The caller must stop it."""
    with (home / "bench-daemon.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "polylocal", "serve", "--home", str(home), "--port", "0", *flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**_environment(home.parent), **(env or {})},
        )
    try:
        url = _address(home, process)
        return Daemon(home, process, url, Api(url, _token(home)))
    except BaseException:
        end(process)
        raise


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def installation_of(home: Path) -> str:
    store = Store(Home(home).database)
    with contextlib.closing(store):
        return store.installation()


def job(cmd: str, image: str = BUSYBOX, **sections: Any) -> Json:
    """The request body of a job."""
    return {"config": {"version": 1, "kind": "job", "build": {"image": image}, "run": {"cmd": cmd}, **sections}}


def _address(home: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        found = home_lock.running(Home(home))
        if found and found.pid == process.pid and found.url:
            return found.url
        time.sleep(0.005)
    raise RuntimeError("the daemon did not start: " + (home / "bench-daemon.log").read_text())


def _environment(scratch: Path) -> dict[str, str]:
    """The environment without the user's settings, except the engine's address. Byte code is written as usual."""
    hidden = ("POLYLOCAL_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return {**kept, "PYTHONPYCACHEPREFIX": str(scratch / "bytecode")}


def _token(home: Path) -> str:
    return Home(home).token.read_text().strip()
