"""Paths and methods: with and without slashes, never redirected; errors as JSON."""

from __future__ import annotations

import httpx2
import pytest
from api_support import api_context
from support import eventually, job

from polylocal import __version__
from polylocal.api.app import ENDPOINTS
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

from .conftest import Caller, P, fill_path, one_of_each

pytestmark = pytest.mark.usefixtures("project")


def test_missing_paths(api: Caller) -> None:
    for path in (
        "/",
        "/nosuch",
        "/api",
        "/api/v2/root/quick-start",
        f"{P}/nosuch",
        f"{P}/jobs/x",
        f"{P}/jobs/1.5",
        f"{P}/jobs/-1",
        f"{P}/jobs/1/nosuch",
        f"{P}/builds/1/restart",
        f"{P}/builds/1/outputs",
        f"{P}/jobs/1/",
        f"{P}/jobs/0",
        f"{P}/jobs/{2**63}",
        f"{P}/jobs/{'9' * 400}",
        "/api/v1/root/nosuch",
        "/api/v1/nosuch/quick-start",
        "/api/v1/nosuch",
        "/polylocal/v1/runs/job/1",
        "/polylocal/v1/runs/nosuch/1",
        "/polylocal/v1/runs/experiment/1",
    ):
        answer = api.get(path)
        assert (path, answer.status_code, answer.json()) == (path, 404, {"detail": "Not found."})


def test_a_number_with_thousands_of_digits(api: Caller) -> None:
    assert api.get(f"{P}/jobs/{'9' * 5000}").status_code == 404
    assert api.get(f"/polylocal/v1/runs/job/{'9' * 5000}").status_code == 404


def test_a_wrong_method(api: Caller) -> None:
    for method, path in (
        ("PUT", f"{P}/jobs/"),
        ("DELETE", f"{P}/jobs/"),
        ("POST", f"{P}/jobs/1/"),
        ("GET", f"{P}/jobs/1/stop/"),
        ("GET", f"{P}/bookmark"),
        ("POST", f"{P}/repo/upload"),
        ("GET", f"{P}/repo/upload"),
        ("POST", f"{P}/"),
        ("PATCH", "/healthz"),
        ("OPTIONS", f"{P}/"),
        ("TRACE", f"{P}/"),
    ):
        answer = api(method, path)
        assert (path, answer.status_code) == (path, 405)
        assert answer.json() == {"detail": f'Method "{method}" not allowed.'}
        assert answer.headers["allow"]


def test_projects_are_not_listed_where_they_are_made(api: Caller) -> None:
    answer = api.get("/api/v1/projects/")
    assert (answer.status_code, answer.json()) == (405, {"detail": 'Method "GET" not allowed.'})


def test_all_forms_of_a_path_are_equivalent(api: Caller, a_job: Run) -> None:
    for path in (f"{P}/jobs/1", f"{P}/jobs/1/", f"{P}//jobs/1", "/api//v1/root///quick-start/jobs//1//"):
        answer = api.get(path)
        assert (answer.status_code, answer.json()["id"]) == (200, 1)


def test_nothing_is_redirected(api: Caller, store: Store, project: Project, root: User) -> None:
    one_of_each(store, project, root)
    store.users.add("ann")
    for endpoint in ENDPOINTS:
        if endpoint.method == "DELETE" or endpoint.status == 303:  # forms of pages redirect
            continue
        for end in ("", "/", "//"):
            status = api(endpoint.method, fill_path(endpoint.path) + end).status_code
            assert (endpoint.path, status, status // 100) != (endpoint.path, status, 3)
            assert (endpoint.path, status) != (endpoint.path, 405)


@pytest.mark.parametrize("end", ["", "/"])
def test_writing_without_and_with_the_last_slash(end: str, api: Caller) -> None:
    assert api.post(f"/api/v1/projects{end}", {"name": "new"}).status_code == 201
    assert api.post(f"{P}/jobs{end}", {"config": job()}).status_code == 201
    assert api.post(f"{P}/jobs/1/stop{end}").status_code == 200
    assert api.patch(f"{P}/jobs/1{end}", {"name": "one"}).status_code == 200
    assert api.delete(f"{P}/jobs/1{end}").status_code == 204


def test_actions_answer_with_nothing(api: Caller, a_job: Run) -> None:
    for path in (f"{P}/jobs/1/stop", f"{P}/jobs/1/bookmark", f"{P}/builds/invalidate", f"{P}/jobs/1/_heartbeat"):
        answer = api.post(path)
        assert answer.is_success
        assert answer.content == b""
        assert "content-type" not in answer.headers


def test_the_head_of_an_answer(api: Caller, a_job: Run) -> None:
    for path in (P, f"{P}/jobs", f"{P}/jobs/1"):
        assert api("HEAD", path).status_code == 200
        assert api("HEAD", path).content == b""
    assert api("HEAD", f"{P}/jobs/9").status_code == 404


# -- the daemon itself ----------------------------------------------------------------------------------------------


def test_health(nobody: Caller) -> None:
    for path in ("/healthz", "/_health", "/healthz/"):
        answer = nobody.get(path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_status(nobody: Caller) -> None:
    healthy = {"is_healthy": True, "message": "", "severity": "info"}
    for path in ("/statusz", "/_status"):
        assert nobody.get(path).json() == dict.fromkeys(("engine", "store", "disk", "scheduler"), healthy)


def test_status_without_an_engine(serving: object, settings: object, store: Store) -> None:
    context = api_context(settings, store, engine_state=lambda: "the engine to answer")  # type: ignore[arg-type]
    answer = serving(context).get("/statusz")  # type: ignore[operator]
    assert answer.status_code == 200
    assert answer.json()["engine"] == {"is_healthy": False, "message": "the engine to answer", "severity": "error"}


@pytest.mark.parametrize("what", ["cli", "platform", "lib"])
def test_versions(what: str, nobody: Caller) -> None:
    found = nobody.get(f"/api/v1/versions/{what}/").json()
    assert list(found) == ["latest_version", "min_version"]
    assert found["latest_version"] == "0.6.1"
    assert tuple(map(int, found["min_version"].split("."))) <= (0, 2, 0)


def test_the_version_of_the_chart_and_the_log_handler(nobody: Caller) -> None:
    assert list(nobody.get("/api/v1/versions/chart/").json()) == ["version"]
    handler = nobody.get("/api/v1/log_handler/").json()
    assert handler["dsn"] is None
    assert isinstance(handler["environment"], str)
    assert handler["tags"] == {"polylocal": __version__}


def test_the_current_user(api: Caller, as_ann: Caller) -> None:
    assert api.get("/api/v1/users/").json() == {"username": "root", "email": None, "is_superuser": True}
    assert as_ann.get("/api/v1/users").json() == {"username": "ann", "email": None, "is_superuser": False}


def test_login_by_password(nobody: Caller, store: Store, http: object) -> None:
    store.users.add("eve", password="correct horse")
    body = {"username": "eve", "password": "correct horse"}
    for answer in (nobody("POST", "/api/v1/users/token/", data=body), nobody.post("/api/v1/users/token", body)):
        assert answer.status_code == 200
        assert list(answer.json()) == ["token"]
        eve = Caller(nobody.http, answer.json()["token"])
        assert eve.get("/api/v1/users/").json()["username"] == "eve"


def test_login_with_a_wrong_password(nobody: Caller, store: Store) -> None:
    store.users.add("eve", password="correct horse")
    for username, password in (("eve", "wrong"), ("nobody", "correct horse"), ("root", "x")):
        answer = nobody.post("/api/v1/users/token/", {"username": username, "password": password})
        assert answer.status_code == 400
        assert answer.json() == {"non_field_errors": ["Unable to log in with provided credentials."]}


def test_an_inactive_user_does_not_log_in(nobody: Caller, store: Store) -> None:
    store.users.add("eve", password="correct horse")
    with store.database.write() as db:
        db.execute("update users set is_active = 0")
    answer = nobody.post("/api/v1/users/token/", {"username": "eve", "password": "correct horse"})
    assert answer.status_code == 400


def test_a_store_that_can_not_be_read(api: Caller, store: Store) -> None:
    with store.database.write() as db:
        db.execute("alter table projects rename to elsewhere")
    answer = api.get(P)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "database" in answer.json()["detail"]


# -- runs of all projects -------------------------------------------------------------------------------------------


def test_the_last_changed_runs(api: Caller, store: Store, root: User, project: Project) -> None:
    other = store.projects.create(root, {"name": "other"})
    first = store.runs.insert(project, root, NewRun(Kind.JOB, config=job()))
    store.runs.insert(other, root, NewRun(Kind.BUILD, config={}))
    store.runs.insert(other, root, NewRun(Kind.JOB, config=job()))
    store.runs.transition(first, Status.FAILED, "broken")

    def named(query: str) -> list[str]:
        found = api.get(f"/polylocal/v1/runs{query}").json()
        assert (found["count"], found["next"], found["previous"]) == (len(found["results"]), None, None)
        return [item["unique_name"] for item in found["results"]]

    assert named("") == ["root.quick-start.jobs.1", "root.other.jobs.2", "root.other.builds.1"]
    assert named("?kind=build") == ["root.other.builds.1"]
    assert named("?open=true") == ["root.other.jobs.2", "root.other.builds.1"]
    assert named("?open=true&kind=job&limit=1") == ["root.other.jobs.2"]
    assert named("?kind=") == named("")


def test_a_run_by_its_number(api: Caller, a_job: Run, store: Store) -> None:
    found = api.get("/polylocal/v1/runs/job/1").json()
    assert (found["kind"], found["id"], found["unique_name"]) == ("job", 1, "root.quick-start.jobs.1")
    assert (found["owner"], found["project"], found["project_name"]) == ("root", "root.quick-start", "quick-start")
    assert found["waits_for"] == "the scheduler, which starts it next"
    store.runs.transition(a_job, Status.STOPPED, "Job was stopped.")
    found = api.get("/polylocal/v1/runs/job/1").json()
    assert (found["message"], found["waits_for"]) == ("Job was stopped.", None)
    store.runs.delete(a_job)
    assert api.get("/polylocal/v1/runs/job/1").status_code == 404


def test_a_wrong_question_about_runs(api: Caller) -> None:
    for query in ("limit=0", "limit=-1", "limit=1001", "limit=x", "limit=1.5", "kind=nosuch"):
        answer = api.get(f"/polylocal/v1/runs?{query}")
        assert answer.status_code == 400
        assert len(answer.json()) == 1


@pytest.mark.parametrize("limit", ["²", "٣", "9" * 5000])
def test_a_limit_that_is_no_number_to_everybody(limit: str, api: Caller) -> None:
    answer = api.get("/polylocal/v1/runs", params={"limit": limit})
    assert answer.status_code in (200, 400)


# -- a real socket --------------------------------------------------------------------------------------------------


def test_over_a_real_socket(live_api: Caller, live: str) -> None:
    made = live_api.post("/api/v1/projects", {"name": "new"})
    assert (made.status_code, made.headers["content-type"]) == (201, "application/json")
    assert live_api.delete("/api/v1/root/new").content == b""
    assert live_api("HEAD", f"{P}/jobs").content == b""
    answer = live_api("POST", "/api/v1/projects", content=b" " * (16 * 2**20 + 1))
    assert answer.status_code == 413
    assert eventually(lambda: httpx2.get(f"{live}/healthz").status_code == 200)
