"""The API over a store of the test's own, in process and on a real socket; and callers with tokens."""

from __future__ import annotations

import io
import re
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from starlette.testclient import TestClient
from support import eventually, job

from polylocal.api import app as api_module
from polylocal.api.app import FromContainers, build
from polylocal.api.services import Services
from polylocal.settings import Settings
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

P = "/api/v1/root/quick-start"
Json = dict[str, Any]


class Caller:
    """Somebody with a token, or nobody."""

    def __init__(self, http: httpx2.Client, token: str | None = None) -> None:
        self.http = http
        self.token = token
        self._headers = {"Authorization": f"Token {token}"} if token else {}

    def __call__(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> httpx2.Response:
        return self.http.request(method, path, headers={**self._headers, **(headers or {})}, **more)

    def get(self, path: str, **more: Any) -> httpx2.Response:
        return self("GET", path, **more)

    def post(self, path: str, body: object = None, **more: Any) -> httpx2.Response:
        return self("POST", path, **({"json": body} if body is not None else {}), **more)

    def patch(self, path: str, body: object, **more: Any) -> httpx2.Response:
        return self("PATCH", path, json=body, **more)

    def put(self, path: str, **more: Any) -> httpx2.Response:
        return self("PUT", path, **more)

    def delete(self, path: str, **more: Any) -> httpx2.Response:
        return self("DELETE", path, **more)


@pytest.fixture(autouse=True)
def _document_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The OpenAPI document is the same for every application and takes most of the time of building one."""
    monkeypatch.setattr(api_module.openapi, "document", lambda endpoints: _document())


_make_document = api_module.openapi.document


@cache
def _document() -> Json:
    return _make_document(api_module.ENDPOINTS)


@pytest.fixture
def services(settings: Settings, store: Store) -> Services:
    return Services(settings, store)


@pytest.fixture
def serving(services: Services) -> Iterator[Callable[..., TestClient]]:
    """serving(services, bridge=False) → an HTTP client of the application in this process; a bug is a 500 there."""
    with ExitStack() as stack:

        def start(over: Services = services, bridge: bool = False) -> TestClient:
            app = build(over)
            client = TestClient(FromContainers(app) if bridge else app, raise_server_exceptions=False)
            client.follow_redirects = False
            return stack.enter_context(client)

        yield start


@pytest.fixture
def http(serving: Callable[..., TestClient]) -> TestClient:
    return serving()


@pytest.fixture
def nobody(http: TestClient) -> Caller:
    return Caller(http)


@pytest.fixture
def api(http: TestClient, store: Store, root: User) -> Caller:
    """The admin, who also owns the project of most tests."""
    return Caller(http, store.users.new_token(root))


@pytest.fixture
def ann(store: Store) -> User:
    return store.users.add("ann")


@pytest.fixture
def as_ann(http: TestClient, store: Store, ann: User) -> Caller:
    """A plain user."""
    return Caller(http, store.users.new_token(ann))


@pytest.fixture
def as_bob(http: TestClient, store: Store) -> Caller:
    """Another plain user."""
    return Caller(http, store.users.new_token(store.users.add("bob")))


@pytest.fixture
def live(services: Services) -> Iterator[str]:
    """The URL of the application on a real socket."""
    with on_loopback(services) as url:
        yield url


@pytest.fixture
def live_api(live: str, store: Store, root: User) -> Iterator[Caller]:
    with httpx2.Client(base_url=live, timeout=30.0) as client:
        yield Caller(client, store.users.new_token(root))


@contextmanager
def on_loopback(services: Services) -> Iterator[str]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    config = uvicorn.Config(
        build(services), log_config=None, access_log=False, lifespan="on", ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    eventually(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def make_job(store: Store, root: User, project: Project) -> Callable[..., Run]:
    """make_job(name=…, …) → a job straight in the store."""

    def make(in_project: Project = project, user: User = root, managed: bool = True, **values: Any) -> Run:
        config = job()
        new = NewRun(Kind.JOB, content=None, config=config, values={**values, "is_managed": managed})
        return store.runs.insert(in_project, user, new)

    return make


@pytest.fixture
def a_job(make_job: Callable[..., Run]) -> Run:
    return make_job()


def finish(store: Store, run: Run, to: Status = Status.SUCCEEDED, message: str | None = None) -> None:
    assert store.runs.transition(run, to, message)


def tar_of(files: Mapping[str, str | bytes], mode: str = "w:gz") -> bytes:
    """An archive as the command line packs it: names that start with `./`."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def names_in(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return sorted(tar.getnames())


def put_code(services: Services, project: Project, files: Mapping[str, str | bytes]) -> str:
    """Code without an upload; returns the commit."""
    return services.repository(project).upload(io.BytesIO(tar_of(files)), project.user)


def upload(caller: Caller, files: Mapping[str, str | bytes], path: str = P) -> httpx2.Response:
    """As the original client does it: the name is a path of its own machine, the type is wrong."""
    part = ("/tmp/polyaxon_quick-start.tar.gz", tar_of(files), "text/plain")
    return caller.put(f"{path}/repo/upload/", files={"repo": part})


def plain(path: str) -> str:
    """A path of the route table with something in each place."""
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: _EXAMPLES[found[1]], path)


_EXAMPLES = {"user": "root", "project": "quick-start", "id": "1", "uuid": "0" * 32, "kind": "job", "jid": "1"}
_EXAMPLES |= {"cid": "1", "sid": "1", "sequence": "1", "index": "0", "username": "ann"}


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path
