"""Routes that a room above the API adds to the application, as a dashboard does."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from polylocal.api import kernel, run_objects, runs
from polylocal.api.api_context import ApiContext
from polylocal.api.app import build
from polylocal.api.endpoint import Access, Call, Endpoint
from polylocal.api.shapes import Json
from polylocal.errors import NotFound
from polylocal.store import Store
from polylocal.store.rows import Project, Run, User


def overview(call: Call) -> Json:
    """The jobs of a project, without the path of the API."""
    found = call.store.projects.get("root", call.query("project") or "")
    _, jobs = call.store.runs.page(found, None, **runs.selection(call))
    return {"jobs": run_objects.items(jobs, call.user, call.store)}


@pytest.fixture
def pages(context: ApiContext) -> Iterator[TestClient]:
    """An application with the page /overview."""
    endpoint = Endpoint("GET", "/overview", overview, "The jobs of a project", Access.USER)
    table = kernel.Table(
        [endpoint], Call, lambda request, call: nullcontext(dict), lambda call, result: JSONResponse(result)
    )
    with TestClient(build(context, table.routes(context)), "http://127.0.0.1") as client:
        yield client


@pytest.fixture
def token(root: User, store: Store) -> dict[str, str]:
    return {"Authorization": f"Token {store.users.new_token(root)}"}


def test_a_page_lists_runs(pages: TestClient, token: dict[str, str], project: Project, a_job: Run) -> None:
    [job] = pages.get(f"/overview?project={project.name}", headers=token).json()["jobs"]
    assert (job["id"], job["unique_name"], job["bookmarked"]) == (a_job.id, a_job.unique_name, False)


def test_a_page_has_the_admission_of_the_api(pages: TestClient, token: dict[str, str]) -> None:
    assert pages.get("/overview").status_code == 401
    assert pages.get("/overview", headers={**token, "Host": "elsewhere.example"}).status_code == 403


def test_a_page_has_the_error_texts_of_the_api(pages: TestClient, token: dict[str, str]) -> None:
    missing = pages.get("/overview?project=nosuch", headers=token)
    assert (missing.status_code, missing.json()) == (404, {"detail": str(NotFound())})


def test_the_api_is_served_beside_the_page(pages: TestClient, token: dict[str, str]) -> None:
    assert pages.get("/api/v1/users/", headers=token).json()["username"] == "root"
