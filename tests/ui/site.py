"""The site under test: a daemon, its REST API, and an image with Jupyter and TensorBoard."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from playwright.sync_api import Page
from programs import run_polylocal
from support import Daemon, eventually, start_daemon

from polylocal.client import packing
from polylocal.statuses import is_done

Json = dict[str, Any]
Visitor = Callable[[], Page]

# One image with both programs, built once for all tests of this folder. uv installs them in half of pip's time.
IMAGE: Json = {
    "image": "python:3.11-slim",
    "lang_env": "C.UTF-8",
    "build_steps": [
        "pip3 install --no-cache-dir --no-compile uv"
        " && UV_NATIVE_TLS=1 uv pip install --system --no-cache notebook tensorboard"
    ],
}
TIMEOUT_S = 240.0  # for steps that may wait for the image
TIMEOUT_MS = TIMEOUT_S * 1000


@dataclass
class Site:
    """One daemon. All calls are made by its admin, in the admin's projects."""

    daemon: Daemon
    flags: tuple[str, ...]
    env: dict[str, str]

    @property
    def url(self) -> str:
        return self.daemon.url

    @property
    def token(self) -> str:
        return self.daemon.token

    def restart(self) -> None:
        """Kill the daemon with kill -9, and start a new one at the same address."""
        self.daemon.kill()
        port = self.url.rpartition(":")[2]
        self.daemon.process = start_daemon(self.daemon.home, *self.flags, "--port", port, env=self.env).process

    def add_user(self, name: str) -> str:
        """Create a plain user and return the token."""
        done = run_polylocal("user", "add", name, "--home", str(self.daemon.home))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    # -- the REST API ---------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, **more: Any) -> httpx2.Response:
        headers = {"Authorization": f"Token {self.token}"}
        answer = httpx2.request(method, f"{self.url}/api/v1/{path}", headers=headers, timeout=60, **more)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    def project(self, name: str, files: dict[str, str] | None = None, **values: Any) -> str:
        """Create a project with code, and return its path."""
        self.call("POST", "projects/", json={"name": name, **values})
        if files:
            self.call("PUT", f"root/{name}/repo/upload/", files={"repo": ("repo.tar.gz", self.archive(files))})
        return f"root/{name}"

    @staticmethod
    def archive(files: dict[str, str]) -> bytes:
        """The code as an uploaded archive."""
        with tempfile.TemporaryDirectory() as folder:
            for path, text in files.items():
                Path(folder, path).write_text(text)
            archive = io.BytesIO()
            packing.pack(Path(folder), archive)
        return archive.getvalue()

    def code(self, project: str) -> dict[str, str]:
        """The files of the newest commit."""
        packed = io.BytesIO(self.call("GET", f"{project}/repo/download").content)
        with tarfile.open(fileobj=packed) as tar:
            files = [member for member in tar.getmembers() if member.isfile()]
            return {file.name.removeprefix("./"): tar.extractfile(file).read().decode() for file in files}

    def start(self, path: str, config: Json) -> str:
        """Start a notebook or tensorboard by its endpoint, wait until it runs, and return the path of the run."""
        run = self.launch(path, config)
        self.wait_for_status(run, "running")
        return run

    def launch(self, path: str, config: Json) -> str:
        answer = self.call("POST", f"{path}/start/", json={"config": {"version": 1, **config}})
        assert answer.status_code == 201
        made = answer.json()
        return f"{made['project'].replace('.', '/', 1)}/{config['kind']}s/{made['id']}"

    def wait_for_status(self, run: str, wanted: str) -> Json:
        """Wait for a status. Any other final status is a failure with the run's messages."""

        def look() -> Json | None:
            found = self.call("GET", f"{run}/").json()
            return found if found["last_status"] == wanted or is_done(found["last_status"]) else None

        found = eventually(look, TIMEOUT_S)
        assert found["last_status"] == wanted, self.history(run)
        return found

    def history(self, run: str) -> list[tuple[str, str]]:
        found = self.call("GET", f"{run}/statuses/").json()["results"]
        return [(status["status"], status["message"]) for status in found]
