"""Runs the command line in this process against the API on a real socket. Without an engine, runs stay in the queue."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from api_support import api_context
from support import eventually

from polylocal import cli
from polylocal.api.api_context import ApiContext
from polylocal.api.app import build
from polylocal.cli import console as show
from polylocal.settings import Settings
from polylocal.store import Store
from polylocal.store.rows import User


@dataclass
class Result:
    code: int
    out: str
    err: str


Cli = Callable[..., Result]

JOB = """\
version: 1
kind: job
build:
  image: busybox
run:
  cmd: echo hello
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, which contains a project with a polyaxonfile."""
    found = tmp_path / "quick-start"
    found.mkdir()
    (found / "polyaxonfile.yml").write_text(JOB)
    (found / "train.py").write_text("print(1)\n")
    monkeypatch.chdir(found)
    return found


@pytest.fixture
def context(settings: Settings, store: Store) -> ApiContext:
    return api_context(settings, store)


@pytest.fixture
def daemon(context: ApiContext, store: Store, root: User, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The API. POLYLOCAL_URL and POLYLOCAL_TOKEN contain its address and the admin's token."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    server = uvicorn.Server(uvicorn.Config(build(context), log_config=None, access_log=False, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    eventually(lambda: server.started)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setenv("POLYLOCAL_URL", url)
    monkeypatch.setenv("POLYLOCAL_TOKEN", store.users.new_token(root))
    yield url
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture
def polylocal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """polylocal("run", "-p", "x") returns the output and the exit code of the command."""
    for console in (show.out, show.err):
        monkeypatch.setattr(console, "_width", 300)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # typer sets its own

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["polylocal", *arguments])
        capsys.readouterr()
        code: object = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        return Result(code if isinstance(code, int) else int(code is not None), printed.out, printed.err)

    return run
