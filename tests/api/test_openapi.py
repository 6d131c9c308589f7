"""The OpenAPI document: well formed, complete, and true of what is answered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter
from support import build, job

from polylocal.api.app import ENDPOINTS
from polylocal.api.endpoint import Access, Endpoint
from polylocal.api.services import Services
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, User

from .conftest import Caller, Json, plain, put_code, tar_of, write

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


def test_who_may_call_is_described(document: Json) -> None:
    for endpoint in ENDPOINTS:
        [operation] = [
            o for p, m, o in operations(document) if (m.upper(), p.rstrip("/")) == (endpoint.method, path_of(endpoint))
        ]
        assert bool(operation["security"]) is (endpoint.access is not Access.ANYONE)
        assert ("401" in operation["responses"]) is (endpoint.access is not Access.ANYONE)
        assert str(endpoint.status) in operation["responses"]
        assert ("requestBody" in operation) is (bool(endpoint.body) or endpoint.is_upload)


# -- what is answered -----------------------------------------------------------------------------------------------

BODIES: dict[str, Json] = {
    "/projects": {"name": "new"},
    "/users/token": {"username": "eve", "password": "correct horse"},
    "/{project}": {"name": "quick-start", "description": "d"},
    "/jobs": {"config": job()},
    "/builds": {"config": build()},
    "/statuses": {"status": "running", "message": "m", "details": {"a": 1}},
    "/metrics": {"values": {"loss": 0.5}},
    "/experiments/stop": {"ids": [1]},
    "/experiments/delete": {"ids": []},
}


@pytest.fixture
def everything(project: Project, root: User, store: Store, services: Services) -> str:
    """A project with code, a build and a job with log and outputs; returns the uuid of a status of the job."""
    put_code(services, project, {"train.py": "1"})
    store.users.add("eve", password="correct horse")
    made = store.runs.insert(project, root, NewRun(Kind.BUILD, content="x", config=build(), resources={"cpu": {}}))
    run = store.runs.insert(project, root, NewRun(Kind.JOB, content="x", config=job(), build_pk=made.pk))
    trial = NewRun(Kind.EXPERIMENT, content="x", config={**job(), "kind": "experiment"}, build_pk=made.pk)
    measured = store.runs.insert(project, root, trial)
    store.runs.record(measured, container_id="c")
    store.runs.add_metrics(measured, [({"loss": 1.0}, None)])
    write(services.home.root / str(measured.outputs) / "model.txt", "weights")
    for each in (made, run, measured):
        write(services.log(each), "hello\n")
        store.bookmarks.add(root, each)
    store.bookmarks.add(root, project)
    write(services.home.root / str(run.outputs) / "model.txt", "weights")
    return store.runs.statuses(run, limit=1, offset=0)[1][0].uuid


def answer_to(endpoint: Endpoint, api: Caller, uuid: str) -> Any:
    ends = [end for end in BODIES if endpoint.path.endswith(end)]
    more: Json = {"json": BODIES[ends[0]]} if ends and endpoint.method != "GET" else {}
    if endpoint.is_upload:
        more = {"files": {"repo": ("x", tar_of({"a": "1"}))}}
    path = plain(endpoint.path).replace("0" * 32, uuid)
    if endpoint.path.endswith("/files"):
        path += "?path=model.txt"
    return api(endpoint.method, path, **more)


def test_every_answer_is_as_described(everything: str, api: Caller, store: Store) -> None:
    """Deletions last, the inner before the outer; an upload is told apart by its tests."""
    of_runs = ("/api/v1", "/token", "/ephemeraltoken")
    chosen = [
        e for e in ENDPOINTS if not e.is_upload and not e.path.endswith(of_runs) or e.path.endswith("users/token")
    ]
    for endpoint in sorted(chosen, key=lambda e: (e.method == "DELETE", -len(e.path))):
        uuid = everything
        if endpoint.path.endswith("/statuses/{uuid}") and endpoint.kind:
            uuid = store.runs.statuses(store.runs.find(endpoint.kind, 1), limit=1, offset=0)[1][0].uuid
        answer = answer_to(endpoint, api, uuid)
        name = f"{endpoint.method} {endpoint.path}"
        assert (name, answer.status_code) == (name, endpoint.status)
        if endpoint.answer is None:
            assert endpoint.media != "application/json" or answer.content == b""
            continue
        assert answer.headers["content-type"] == endpoint.media
        found = answer.json()
        items = found["results"] if endpoint.many else [found]
        assert items
        described = TypeAdapter(endpoint.answer)
        for item in items:
            described.validate_json(json.dumps(item), strict=True)
            extra = set(item) - set(getattr(endpoint.answer, "__annotations__", item))
            assert (name, extra) == (name, set())
