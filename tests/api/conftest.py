"""The API with a separate store for each test, in process and on a real socket, and callers with tokens."""

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
from api_support import api_context
from in_process import InProcess
from starlette.testclient import TestClient
from starlette.types import ASGIApp
from support import build as build_file
from support import eventually, job

from polylocal.api import app as api_module
from polylocal.api.api_context import ApiContext
from polylocal.api.app import FromContainers, build
from polylocal.api.endpoint import Endpoint
from polylocal.engine.machine import Gpu, Machine
from polylocal.settings import Settings, load
from polylocal.statuses import POLYAXON_KINDS, Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

P = "/api/v1/root/quick-start"
CARD = Gpu(
    index=0,
    uuid="GPU-5e1f7a52",
    name="Tesla T4",
    minor=0,
    bus_id="00000000:00:04.0",
    serial="0320418000000",
    temperature_gpu=41,
    utilization_gpu=93,
    power_draw=30,
    power_limit=70,
    memory_total=16 * 2**30,
    memory_free=12 * 2**30,
    memory_used=4 * 2**30,
)
MACHINE = Machine(
    name="box",
    cpus=4,
    memory_mib=16000,
    os_image="Debian GNU/Linux 12",
    kernel="6.1.0",
    engine="Docker 27.3.1",
    engine_api="1.47",
    gpus=[CARD],
)
Json = dict[str, Any]


class Caller:
    """A caller with or without a token."""

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


WITH_CONTAINER = ("job", "experiment", "notebook", "tensorboard", "group")  # kinds whose runs get a container


def creation_of(kind: str, **sections: Any) -> tuple[str, Json]:
    """The path to create a run of one of these kinds, and the body."""
    content = {**job(), "kind": kind, **sections}
    if kind in ("notebook", "tensorboard"):
        del content["run"]
        return f"{P}/{kind}/start/", {"content": content}
    tuning = {"matrix": {"lr": {"values": [0.1, 0.2]}}}
    return f"{P}/{kind}s/", {"content": content | ({"hptuning": tuning} if kind == "group" else {})}


@pytest.fixture(autouse=True)
def _cached_openapi_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """Creates the OpenAPI document once: all applications share it, and it takes most of the time to build one."""
    monkeypatch.setattr(api_module.openapi, "document", lambda endpoints: _document())


_make_document = api_module.openapi.document


@cache
def _document() -> Json:
    return _make_document(api_module.ENDPOINTS)


@pytest.fixture
def context(settings: Settings, store: Store) -> ApiContext:
    return api_context(settings, store, machine=lambda: MACHINE)


@pytest.fixture
def serving(context: ApiContext) -> Iterator[Callable[..., TestClient]]:
    """serving(context, bridge=False) → an HTTP client of the in-process application. An exception becomes a 500."""
    with ExitStack() as stack:

        def start(over: ApiContext = context, bridge: bool = False) -> TestClient:
            app = build(over)
            client = InProcess(FromContainers(app) if bridge else app)
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
def token_of(store: Store) -> Callable[[Run], str]:
    """token_of(run) → the token that the run's container gets."""
    return lambda run: store.users.new_token(store.users.get(run.user), run.pk)


@pytest.fixture
def as_job(http: TestClient, a_job: Run, token_of: Callable[[Run], str]) -> Caller:
    """Job 1 of root's project, as a caller with the run's token."""
    return Caller(http, token_of(a_job))


@pytest.fixture
def live(context: ApiContext) -> Iterator[str]:
    """The URL of the application on a real socket."""
    with on_loopback(context) as url:
        yield url


@pytest.fixture
def live_api(live: str, store: Store, root: User) -> Iterator[Caller]:
    with httpx2.Client(base_url=live, timeout=30.0) as client:
        yield Caller(client, store.users.new_token(root))


@contextmanager
def on_loopback(context: ApiContext, around: Callable[[ASGIApp], ASGIApp] = lambda app: app) -> Iterator[str]:
    """The API on a socket. `around` may wrap the application."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    config = uvicorn.Config(
        around(build(context)), log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=1
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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """One application for all examples of a property test. `restore` creates deleted objects again."""
    home = tmp_path_factory.mktemp("home")
    store = Store(home / "polylocal.db")
    context = api_context(load(home=home), store)
    root = store.users.add("root", is_superuser=True)
    with InProcess(build(context)) as http:
        caller = Caller(http, store.users.new_token(root))
        caller.context = context  # type: ignore[attr-defined]
        yield caller
    store.close()


def restore(caller: Caller) -> None:
    """Create the project `quick-start` with code and run 1 of each kind, with logs and outputs."""
    context: ApiContext = caller.context  # type: ignore[attr-defined]
    store = context.store
    with store.database.write() as db:
        seen = "deleted_at is null and archived_at is null"
        has_project = db.execute(f"select 1 from projects where {seen} and name = 'quick-start'").fetchone()
        alive = db.execute(f"select count(*) from runs where id = 1 and {seen}").fetchone()[0]
        if has_project and alive == len(POLYAXON_KINDS):
            return
        for table in ("runs", "projects", "sequences", "searches", "chart_views"):
            db.execute(f"delete from {table}")
    root = store.users.get("root")
    project = store.projects.create(root, {"name": "quick-start"})
    context.repository(project).upload(io.BytesIO(tar_of({"a": "1"})), "root")
    for run in one_of_each(store, project, root).values():
        with store.database.write() as db:
            db.execute("update runs set is_managed = 0")
        write(context.log_path(run), "hello\n")
        if run.outputs:
            write(context.home.root / run.outputs / "model.txt", "weights")


def clear_store(store: Store) -> Store:
    """Empty the store, for tests that share a socket. Opening a socket takes longer than most of these tests."""
    with store.database.write() as db:
        for table in ("bookmarks", "runs", "projects", "users", "sequences", "activities"):
            db.execute(f"delete from {table}")
    return store


@pytest.fixture
def make_job(store: Store, root: User, project: Project) -> Callable[..., Run]:
    """make_job(name=…, …) → a job, inserted into the store directly."""

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
    """An archive as the command line creates it, with names that start with `./`."""
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


def put_code(context: ApiContext, project: Project, files: Mapping[str, str | bytes]) -> str:
    """Commit code without an upload. Returns the commit."""
    return context.repository(project).upload(io.BytesIO(tar_of(files)), project.user)


def upload(caller: Caller, files: Mapping[str, str | bytes], path: str = P) -> httpx2.Response:
    """Upload like the original client: the name is a path of the client's machine, and the type is wrong."""
    part = ("/tmp/polyaxon_quick-start.tar.gz", tar_of(files), "text/plain")
    return caller.put(f"{path}/repo/upload/", files={"repo": part})


GROUP: Json = {
    "version": 1,
    "kind": "group",
    "hptuning": {"concurrency": 2, "matrix": {"lr": {"values": [0.1, 0.2]}}},
    "build": {"image": "busybox"},
    "run": {"cmd": "echo {{ lr }}"},
}
FILES: dict[Kind, Json] = {
    Kind.BUILD: build_file(),
    Kind.JOB: job(),
    Kind.EXPERIMENT: {**job(), "kind": "experiment"},
    Kind.GROUP: GROUP,
    Kind.NOTEBOOK: {**build_file(), "kind": "notebook"},
    Kind.TENSORBOARD: {**build_file(), "kind": "tensorboard"},
}


def one_of_each(store: Store, project: Project, user: User) -> dict[Kind, Run]:
    """Insert a run of each kind, with a search for each, and chart views for the experiment and the group."""
    made = {}
    for kind in POLYAXON_KINDS:
        values = {"group_type": "study", "concurrency": 2, "search_algorithm": "grid"} if kind is Kind.GROUP else {}
        new = NewRun(kind, content="{}", config=FILES[kind], values=values)
        made[kind] = store.runs.insert(project, user, new)
        store.searches.add(user, project, kind, {"query": {"query": "status:running"}, "name": f"open-{kind}"})
        if kind in (Kind.EXPERIMENT, Kind.GROUP):
            store.chart_views.add(made[kind], {"charts": [{"title": "loss"}]})
    return made


def fill_path(path: str, number: int = 1) -> str:
    """A path with all parameters filled, for the objects of the `number`th call of `one_of_each`."""
    values = {**_EXAMPLES, "id": str(number), "jid": str(number)}
    values["cid"] = str(2 * number - 1 if "/experiments/" in path else 2 * number)
    word = path.rpartition("/{sid")[0].rpartition("/")[2]
    place = next((place for place, kind in enumerate(Kind, 1) if kind.plural == word), 1)
    values["sid"] = str(len(POLYAXON_KINDS) * (number - 1) + place)
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: values[found[1]], path)


def is_personal(endpoint: Endpoint) -> bool:
    """Whether the endpoint is about personal objects of a user in a project, not about the project itself."""
    return endpoint.path.endswith(("/bookmark", "/unbookmark")) or endpoint.path.startswith("/api/v1/searches/")


def deletions_last(endpoint: Endpoint) -> tuple[bool, int]:
    """A sort key by which all endpoints can be called: deletions last, inner objects before outer ones."""
    return endpoint.method == "DELETE", -len(endpoint.path)


_EXAMPLES = {"user": "root", "project": "quick-start", "uuid": "0" * 32, "kind": "job"}
_EXAMPLES |= {"sequence": "1", "index": "0", "username": "ann"}


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path
