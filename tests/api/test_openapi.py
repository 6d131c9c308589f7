"""The OpenAPI document: well-formed, complete, and consistent with the responses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from polylocal.api import cluster, experiments
from polylocal.api.api_context import ApiContext
from polylocal.api.app import ENDPOINTS
from polylocal.api.endpoint import Access, Endpoint
from polylocal.statuses import POLYAXON_KINDS, Kind, Status
from polylocal.store import Store
from polylocal.store.rows import Project, Run, User

from .conftest import FILES, Caller, Json, fill_path, one_of_each, put_code, write

PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


@pytest.fixture
def document(nobody: Caller) -> Json:
    answer = nobody.get("/api/v1/openapi.json")
    assert answer.status_code == 200
    found: Json = answer.json()
    return found


def path_of(endpoint: Endpoint) -> str:
    return PARAMETER.sub(r"{\1}", endpoint.path)


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def test_the_frame(document: Json) -> None:
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= set(document["info"])
    assert set(document) <= {"openapi", "info", "paths", "components", "servers", "tags", "security"}
    assert set(document["components"]) <= {"schemas", "securitySchemes", "parameters", "responses"}


def test_every_route_is_described(document: Json) -> None:
    described = {(method.upper(), path.rstrip("/")) for path, method, _ in operations(document)}
    assert described == {(endpoint.method, path_of(endpoint)) for endpoint in ENDPOINTS}


def test_no_route_stands_twice() -> None:
    names = [(endpoint.method, path_of(endpoint)) for endpoint in ENDPOINTS]
    assert len(names) == len(set(names))


def test_operations_are_well_formed(document: Json) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for path, method, operation in operations(document):
        assert path.startswith("/")
        assert method in METHODS
        assert operation["summary"]
        assert set(operation) <= {"summary", "operationId", "parameters", "responses", "security", "requestBody"}
        assert operation["responses"]
        for status, answer in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d", status)
            assert answer["description"]
            for media, content in answer.get("content", {}).items():
                assert re.match(r"[a-z]+/[-.+a-z]+", media)
                assert set(content) <= {"schema"}


def test_parameters_are_declared(document: Json) -> None:
    for path, _, operation in operations(document):
        parameters = operation["parameters"]
        assert [p["name"] for p in parameters if p["in"] == "path"] == PARAMETER.findall(path)
        names = [(p["in"], p["name"]) for p in parameters]
        assert len(names) == len(set(names))
        for parameter in parameters:
            assert parameter["in"] in ("path", "query")
            assert parameter["schema"]["type"] in ("string", "integer")
            assert parameter.get("required", False) is (parameter["in"] == "path")


def test_all_references_lead_somewhere(document: Json) -> None:
    known = document["components"]["schemas"]
    found = set(re.findall(r'"\$ref": "([^"]*)"', json.dumps(document)))
    assert found == {f"#/components/schemas/{name}" for name in known}


def test_schemas_are_well_formed(document: Json) -> None:
    types = {"object", "array", "string", "integer", "number", "boolean", "null"}

    def check(schema: Any) -> None:
        if isinstance(schema, list):
            for item in schema:
                check(item)
        if not isinstance(schema, dict):
            return
        if isinstance(schema.get("type"), str):
            assert schema["type"] in types
        for name in schema.get("required", []) if isinstance(schema.get("required"), list) else []:
            assert name in schema["properties"]
        for item in schema.values():
            check(item)

    check(document["components"]["schemas"])


def test_required_access_is_described(document: Json) -> None:
    for endpoint in ENDPOINTS:
        [operation] = [
            o for p, m, o in operations(document) if (m.upper(), p.rstrip("/")) == (endpoint.method, path_of(endpoint))
        ]
        assert bool(operation["security"]) is (endpoint.access is not Access.ANYONE)
        assert ("401" in operation["responses"]) is (endpoint.access is not Access.ANYONE or bool(endpoint.refusal))
        assert str(endpoint.status) in operation["responses"]
        assert ("requestBody" in operation) is (bool(endpoint.body) or endpoint.is_upload)


# -- responses ------------------------------------------------------------------------------------------------------

# request bodies by the end of the path; the longest match counts
BODIES: dict[str, Json] = {
    "/projects": {"name": "new"},
    "/users/token": {"username": "ann", "password": "correct horse"},
    "/{project}": {"name": "quick-start", "description": "d"},
    **{f"/{{project}}/{kind.plural}": {"content": file} for kind, file in FILES.items()},
    "/notebook/start": {"content": FILES[Kind.NOTEBOOK]},
    "/tensorboard/start": {"content": FILES[Kind.TENSORBOARD]},
    "/statuses": {"status": "running", "message": "m", "details": {"a": 1}},
    "/jobs/{jid:id}/statuses": {"status": "scheduled"},
    "/_reconcile": {"status": "running"},
    "/metrics": {"values": {"loss": 0.5}},
    "/experiments/stop": {"ids": [1]},
    "/experiments/delete": {"ids": []},
    "/selections/{id:id}": {"experiment_ids": [1]},
    "/chartviews": {"charts": [], "name": "loss"},
    "/chartviews/{cid:id}": {"charts": [], "name": "accuracy"},
    **{f"/searches/{{user}}/{{project}}/{kind.plural}": {"query": {"sort": "-created_at"}} for kind in POLYAXON_KINDS},
    "/ci": {"config": {}},
    "/session/one-origin": {"next": "/tensorboard/root/quick-start/"},
}
# covered by separate tests: endpoints for runs only, endpoints that are never called, and those with several responses
OTHERS = ("/api/v1", "/token", "/ephemeraltoken", "/impersonatetoken", "/upload", "/external", "/sync", "/v1/session")


@pytest.fixture
def everything(project: Project, root: User, store: Store, context: ApiContext) -> dict[Kind, Run]:
    """A project with code and CI, and a run of each kind with a log and outputs, all bookmarked and viewed; an archived
    copy of it; and a user `ann` who owns nothing.
    """
    put_code(context, project, {"train.py": "1"})
    store.users.add("ann", password="correct horse")
    store.projects.set_ci(project, {})
    runs = one_of_each(store, project, root)
    build_pk = runs[Kind.BUILD].pk
    with store.database.write() as db:
        db.execute("update runs set build_pk = ?, resources = '{}' where kind not in ('build', 'group')", (build_pk,))
        db.execute("update runs set group_type = 'selection' where kind = 'group'")
    store.runs.record(runs[Kind.EXPERIMENT], container_id="c")
    store.metrics.add(runs[Kind.EXPERIMENT], [({"loss": 1.0}, None)])
    store.groups.select(runs[Kind.GROUP], [runs[Kind.EXPERIMENT]], None)
    for run in runs.values():
        write(context.log_path(run), "hello\n")
        if run.outputs:
            write(context.home.root / run.outputs / "model.txt", "weights")
    for thing in (project, *runs.values()):
        store.bookmarks.add(root, thing)
        store.activities.view(root, thing)
        store.activities.add(root, "created", thing)
    twin = store.projects.create(root, {"name": "twin"})
    one_of_each(store, twin, root)
    store.projects.archive(twin)
    return runs


def answer_to(endpoint: Endpoint, api: Caller, uuid: str) -> Any:
    end = max((end for end in BODIES if endpoint.path.endswith(end)), key=len, default="")
    more: Json = {"json": BODIES[end]} if end and endpoint.method != "GET" else {}
    path = fill_path(endpoint.path).replace("0" * 32, uuid)
    if endpoint.path.endswith("/files"):
        path += "?path=model.txt"
    return api(endpoint.method, path, **more)


def in_order(endpoint: Endpoint) -> tuple[bool, bool, int]:
    """Deletions come last, after archiving and restoring; inner objects before outer ones."""
    return endpoint.method == "DELETE", endpoint.path.endswith(("/archive", "/restore")), -len(endpoint.path)


def test_every_answer_is_as_described(everything: dict[Kind, Run], api: Caller, store: Store) -> None:
    chosen = [e for e in ENDPOINTS if not e.path.endswith(OTHERS) or e.path.endswith("users/token")]
    chosen = [e for e in chosen if e.handler not in (cluster.refuse_change, experiments.refuse_change)]
    for endpoint in sorted(chosen, key=in_order):
        for kind in (Kind.NOTEBOOK, Kind.TENSORBOARD):
            if endpoint.path.endswith((f"/{{project}}/{kind}/start", "/repo")):  # a notebook protects the code
                end_all(store, kind)
        about = everything[endpoint.kind or Kind.JOB]
        uuid = store.runs.statuses(about, limit=1, offset=0)[1][0].uuid
        answer = answer_to(endpoint, api, uuid)
        name = f"{endpoint.method} {endpoint.path}"
        assert (name, answer.status_code, answer.text) == (name, endpoint.status, answer.text)
        if endpoint.answer is None:
            assert endpoint.media != "application/json" or answer.content == b""
            continue
        assert answer.headers["content-type"] == endpoint.media
        found = answer.json()
        items = found["results"] if endpoint.many else [found]
        assert (name, bool(items)) == (name, True)
        described = TypeAdapter(endpoint.answer)
        for item in items:
            described.validate_json(json.dumps(item), strict=True)
            extra = set(item) - set(getattr(endpoint.answer, "__annotations__", item))
            assert (name, extra) == (name, set())


def end_all(store: Store, kind: Kind) -> None:
    for run in store.runs.latest(store.users.get("root"), kind=kind, is_open=True, limit=100):
        store.runs.transition(run, Status.STOPPED)
