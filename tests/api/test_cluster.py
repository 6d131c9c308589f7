"""The cluster with its single node, for admins."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from polylocal.api.api_context import ApiContext
from polylocal.engine.machine import Machine
from polylocal.store import Store
from polylocal.store.rows import User

from .conftest import CARD, MACHINE, Caller

NODE = ["uuid", "sequence", "name", "hostname", "role", "memory", "cpu", "n_gpus"]
REFUSED = ["The one node is this machine. The daemon finds out its properties, so they can't be written."]


def test_the_cluster(api: Caller) -> None:
    found = api.get("/api/v1/cluster/").json()
    assert list(found) == ["uuid", "version_api", "created_at", "updated_at", "nodes"]
    assert re.fullmatch("[0-9a-f]{32}", found["uuid"])
    assert isinstance(found["version_api"], dict)
    assert found["created_at"] <= found["updated_at"]
    [node] = found["nodes"]
    assert list(node) == NODE  # clients refuse a response with any other key
    assert (node["name"], node["hostname"], node["sequence"], node["role"]) == ("box", "box", 1, "master")
    assert (node["memory"], node["cpu"], node["n_gpus"]) == (16000, 4.0, 1)
    assert api.get("/api/v1/cluster/").json()["uuid"] == found["uuid"]


def test_the_nodes(api: Caller) -> None:
    found = api.get("/api/v1/cluster/nodes/").json()
    assert (found["count"], found["next"], found["previous"]) == (1, None, None)
    assert found["results"] == api.get("/api/v1/cluster/").json()["nodes"]


def test_the_node(api: Caller) -> None:
    found = api.get("/api/v1/nodes/1/").json()
    assert list(found)[: len(NODE)] == NODE
    assert (found["status"], found["is_current"], found["schedulable_state"]) == ("ready", True, True)
    assert (found["docker_version"], found["os_image"]) == (MACHINE.engine, MACHINE.os_image)
    assert found["kernel_version"] == MACHINE.kernel
    [card] = found["gpus"]
    assert list(card) == ["uuid", "cluster_node", "index", "serial", "name", "memory", "created_at", "updated_at"]
    assert (card["uuid"], card["name"], card["memory"]) == (CARD.uuid, CARD.name, 16 * 1024)
    assert card["cluster_node"] == found["uuid"]


def test_its_gpus(api: Caller) -> None:
    found = api.get("/api/v1/nodes/1/gpus/").json()
    assert (found["count"], [item["index"] for item in found["results"]]) == (1, [0])
    assert api.get("/api/v1/nodes/1/gpus/0/").json()["name"] == "Tesla T4"


def test_missing_nodes(api: Caller) -> None:
    for path in ("nodes/0", "nodes/2", "nodes/2/gpus", "nodes/2/gpus/0", "nodes/1/gpus/1", "nodes/x", "nodes"):
        answer = api.get(f"/api/v1/{path}")
        assert (path, answer.status_code, answer.json()) == (path, 404, {"detail": "Not found."})


def test_nothing_of_it_can_be_written(api: Caller) -> None:
    paths = {"POST": ["cluster/nodes", "nodes/1/gpus"]}
    paths |= {method: ["nodes/1", "nodes/1/gpus/0"] for method in ("PUT", "PATCH", "DELETE")}
    for method, places in paths.items():
        for path in places:
            answer = api(method, f"/api/v1/{path}/", json={"name": "x"})
            assert (answer.status_code, answer.json()) == (400, REFUSED)


def test_it_is_for_admins(as_ann: Caller, nobody: Caller, api: Caller) -> None:
    for path in ("cluster", "cluster/nodes", "nodes/1", "nodes/1/gpus", "nodes/1/gpus/0"):
        assert nobody.get(f"/api/v1/{path}/").status_code == 401
        assert as_ann.get(f"/api/v1/{path}/").status_code == 403
        assert api.get(f"/api/v1/{path}/").status_code == 200


@pytest.mark.usefixtures("project")
def test_a_run_of_an_admin_gets_no_access(as_job: Caller) -> None:
    for path in ("cluster", "cluster/nodes", "nodes/1", "nodes/1/gpus/0"):
        assert as_job.get(f"/api/v1/{path}/").status_code == 403


def test_without_an_engine_and_without_gpus(
    context: ApiContext, serving: Callable[..., TestClient], store: Store, root: User
) -> None:
    bare = Machine(name="box", cpus=1, memory_mib=512, os_image="Linux", kernel="6")
    api = Caller(serving(replace(context, machine=lambda: bare)), store.users.new_token(root))
    found = api.get("/api/v1/nodes/1/").json()
    assert (found["status"], found["schedulable_state"], found["docker_version"]) == ("notReady", False, None)
    assert (found["gpus"], found["n_gpus"]) == ([], 0)
    assert api.get("/api/v1/nodes/1/gpus/").json()["results"] == []
    assert api.get("/api/v1/cluster/").json()["version_api"]["engine"] is None
