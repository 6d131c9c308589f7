"""Authentication and access: users, owners, admins, runs, and callers on the engine's network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import httpx2
import pytest
from starlette.testclient import TestClient
from support import build, job

from polylocal.api.app import ENDPOINTS
from polylocal.api.endpoint import Access, Endpoint
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

from .conftest import Caller, P, deletions_last, fill_path, finish, is_personal, one_of_each

NOT_ALLOWED = {"detail": "You do not have permission to perform this action."}
GUARDED = [endpoint for endpoint in ENDPOINTS if endpoint.access is not Access.ANYONE]
OPEN = [endpoint for endpoint in ENDPOINTS if endpoint.access is Access.ANYONE]


def answers(
    caller: Caller, endpoints: Iterable[Endpoint], path_of: Callable[[Endpoint], str] = lambda e: fill_path(e.path)
) -> dict[str, httpx2.Response]:
    """The responses to a caller's requests to these endpoints."""
    return {f"{e.method} {e.path}": caller(e.method, path_of(e)) for e in sorted(endpoints, key=deletions_last)}


def not_refused(given: dict[str, httpx2.Response]) -> dict[str, int]:
    return {
        name: answer.status_code
        for name, answer in given.items()
        if answer.status_code != 403 or answer.json() != NOT_ALLOWED
    }


def not_let_in(given: dict[str, httpx2.Response]) -> dict[str, int]:
    return {
        name: a.status_code for name, a in given.items() if a.status_code in (401, 403, 405) or a.status_code >= 500
    }


# -- authentication -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("world")
def test_callers_without_a_token_are_refused(nobody: Caller) -> None:
    for name, answer in answers(nobody, GUARDED).items():
        assert (name, answer.status_code) == (name, 401)
        assert answer.json() == {"detail": "Authentication credentials were not provided."}
        assert answer.headers["www-authenticate"] == "Token"


def test_public_endpoints(nobody: Caller) -> None:
    for name, answer in answers(nobody, OPEN).items():
        needs_body = name.endswith(("users/token", "v1/session", "session/one-origin"))
        assert (name, answer.status_code) == (name, 400 if needs_body else 200)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("header", "detail"),
    [
        ("", "Authentication credentials were not provided."),
        ("Digest abc", "Authentication credentials were not provided."),
        ("Bearer abc", "Invalid token."),
        ("Basic cm9vdDpyb290", "Authentication credentials were not provided."),
        ("Token", "Invalid token header. No credentials provided."),
        ("token ", "Invalid token header. No credentials provided."),
        ("Token a b", "Invalid token header. Token string should not contain spaces."),
        ("Token 0123456789abcdef0123456789abcdef01234567", "Invalid token."),
        ("Token ü", "Invalid token."),
    ],
)
def test_invalid_headers(header: str, detail: str, nobody: Caller) -> None:
    answer = nobody.get(P, headers={"Authorization": header.encode("latin-1")})  # type: ignore[dict-item]
    assert answer.status_code == 401
    assert answer.json() == {"detail": detail}
    assert answer.headers["www-authenticate"] == "Token"


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("scheme", ["Token", "token", "TOKEN", "tOKEN"])
def test_the_case_of_the_scheme_does_not_matter(scheme: str, api: Caller, nobody: Caller) -> None:
    assert nobody.get(P, headers={"Authorization": f"{scheme} {api.token}"}).status_code == 200


@pytest.mark.usefixtures("project")
def test_a_token_is_case_sensitive(api: Caller, nobody: Caller) -> None:
    assert api.token
    swapped = api.token.upper()
    assert nobody.get(P, headers={"Authorization": f"Token {swapped}"}).json() == {"detail": "Invalid token."}


def test_an_inactive_user(as_ann: Caller, store: Store) -> None:
    with store.database.write() as db:
        db.execute("update users set is_active = 0 where username = 'ann'")
    answer = as_ann.get("/api/v1/users/")
    assert answer.status_code == 401
    assert answer.json() == {"detail": "User inactive or deleted."}
    assert answer.headers["www-authenticate"] == "Token"


def test_the_path_that_a_client_without_a_login_requests(nobody: Caller, as_ann: Caller) -> None:
    assert nobody.get("/api/v1/").status_code == 401
    assert as_ann.get("/api/v1/").status_code == 404


def test_the_caller_is_checked_before_the_project(nobody: Caller) -> None:
    """Otherwise a stranger would learn whether a project exists."""
    assert nobody.get("/api/v1/root/nosuch").status_code == 401
    assert nobody.post("/api/v1/projects", content=b"{broken").status_code == 401


# -- users ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def world(store: Store, ann: User) -> dict[str, Project]:
    """Ann's projects, one public and one private, with a run of each kind and without bookmarks."""
    made = {
        name: store.projects.create(ann, {"name": name, "is_public": name == "public"})
        for name in ("public", "private")
    }
    for project in made.values():
        one_of_each(store, project, ann)
    return made


def path_in(project: str, endpoint: Endpoint) -> str:
    path = endpoint.path.replace("{user}", "ann").replace("{project}", project)
    return fill_path(path, 1 if project == "public" else 2)


IN_PROJECT = [e for e in ENDPOINTS if "{project}" in e.path]
READS = [e for e in IN_PROJECT if e.access is Access.READ]
WRITES = [e for e in IN_PROJECT if e.access in (Access.WRITE, Access.TRACK)]
NOT_THERE = ("/repo", "/delete", "/ci", "/jobs/{jid:id}")  # objects that the tests must not delete
BEFORE_AN_UPLOAD = [e for e in WRITES if e.method == "GET"]  # answers as the upload would: refuses during a notebook
OF_RUNS = ("/token", "/ephemeraltoken", "/impersonatetoken")  # answered for the run itself only


def test_which_endpoints_write() -> None:
    """Endpoints that change something are for owners, except for a user's own bookmarks and searches."""
    assert [e.path for e in BEFORE_AN_UPLOAD] == ["/polylocal/v1/code/{user}/{project}/upload"]
    assert {e.method for e in WRITES if e not in BEFORE_AN_UPLOAD} <= {"POST", "PUT", "PATCH", "DELETE"}
    assert {e.method for e in READS if not is_personal(e) and not e.path.endswith(OF_RUNS)} == {"GET"}


def test_endpoints_for_admins() -> None:
    words = {e.path.split("/")[3] for e in ENDPOINTS if e.access is Access.ADMIN}
    assert words == {"users", "superusers", "cluster", "nodes", "disk", "gc"}


@pytest.mark.usefixtures("world")
def test_other_users_are_refused_by_endpoints_for_admins(as_bob: Caller, as_job: Caller, store: Store) -> None:
    store.users.add("eve")
    of_admins = [e for e in ENDPOINTS if e.access is Access.ADMIN]
    for caller in (as_bob, as_job):
        assert not_refused(answers(caller, of_admins)) == {}
    assert store.users.get("ann").is_active


@pytest.mark.usefixtures("world")
def test_others_do_nothing_with_a_private_project(as_bob: Caller) -> None:
    assert not_refused(answers(as_bob, IN_PROJECT, partial(path_in, "private"))) == {}


@pytest.mark.usefixtures("world")
def test_others_do_not_write_to_a_public_project(as_bob: Caller) -> None:
    assert not_refused(answers(as_bob, WRITES, partial(path_in, "public"))) == {}


@pytest.mark.usefixtures("root")
def test_writes_to_missing_objects_are_refused(as_bob: Caller) -> None:
    given = answers(as_bob, WRITES, lambda e: fill_path(e.path).replace("quick-start", "nosuch"))
    assert {name: answer.status_code for name, answer in given.items() if answer.status_code != 404} == {}


@pytest.mark.usefixtures("world")
def test_missing_permission_to_write_is_reported_before_the_body_is_read(as_bob: Caller) -> None:
    answer = as_bob.post("/api/v1/ann/public/jobs/", content=b"{broken")
    assert (answer.status_code, answer.json()) == (403, NOT_ALLOWED)


@pytest.mark.usefixtures("world")
def test_others_read_a_public_project(as_bob: Caller) -> None:
    reads = [e for e in READS if not e.path.endswith(OF_RUNS)]
    assert not_let_in(answers(as_bob, reads, partial(path_in, "public"))) == {}


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("project", ["public", "private"])
@pytest.mark.parametrize("who", ["as_ann", "api"])
def test_the_owner_and_admins_do_everything(project: str, who: str, request: pytest.FixtureRequest) -> None:
    of_people = [e for e in IN_PROJECT if not e.path.endswith(OF_RUNS) and e not in BEFORE_AN_UPLOAD]
    given = answers(request.getfixturevalue(who), of_people, partial(path_in, project))
    assert not_let_in(given) == {}
    there = [e for e in of_people if e.method == "DELETE" and not e.path.endswith(NOT_THERE)]
    deleted = {n: given[n].status_code for n in (f"DELETE {e.path}" for e in there if not is_personal(e))}
    assert {name: status for name, status in deleted.items() if status != 204} == {}


@pytest.mark.usefixtures("world")
def test_bookmarks_belong_to_each_user(as_ann: Caller, as_bob: Caller) -> None:
    assert as_bob.post("/api/v1/ann/public/bookmark/").status_code == 201
    assert as_bob.post("/api/v1/ann/public/jobs/1/bookmark/").status_code == 201
    assert as_bob.get("/api/v1/ann/public/").json()["bookmarked"] is True
    assert as_bob.get("/api/v1/ann/public/jobs/1/").json()["bookmarked"] is True
    assert as_ann.get("/api/v1/ann/public/").json()["bookmarked"] is False
    assert as_ann.get("/api/v1/ann/public/jobs/1/").json()["bookmarked"] is False


@pytest.mark.usefixtures("world")
def test_the_owners_of_listed_projects(as_ann: Caller, as_bob: Caller, api: Caller) -> None:
    def names(caller: Caller) -> set[str]:
        answer = caller.get("/api/v1/ann/")
        assert answer.json()["count"] == len(answer.json()["results"])
        return {item["name"] for item in answer.json()["results"]}

    assert names(as_ann) == names(api) == {"public", "private"}
    assert names(as_bob) == {"public"}


@pytest.mark.usefixtures("world")
def test_the_runs_of_all_projects_that_one_may_see(as_ann: Caller, as_bob: Caller) -> None:
    def seen(caller: Caller) -> set[str]:
        return {item["project"] for item in caller.get("/polylocal/v1/runs").json()["results"]}

    assert seen(as_ann) == {"ann.public", "ann.private"}
    assert seen(as_bob) == {"ann.public"}
    assert as_bob.get("/polylocal/v1/runs/job/1").status_code == 200
    assert as_bob.get("/polylocal/v1/runs/job/2").status_code == 403


@pytest.mark.usefixtures("world")
def test_an_admin_makes_runs_in_the_projects_of_others(api: Caller) -> None:
    made = api.post("/api/v1/ann/private/jobs", {"config": job()})
    assert made.status_code == 201
    assert (made.json()["user"], made.json()["project"]) == ("root", "ann.private")


@pytest.mark.usefixtures("world")
def test_a_run_of_another_project_is_not_found_by_its_number(as_ann: Caller) -> None:
    assert as_ann.get("/api/v1/ann/public/jobs/1").status_code == 200
    assert as_ann.get("/api/v1/ann/private/jobs/1").status_code == 404
    assert as_ann.delete("/api/v1/ann/private/jobs/1").status_code == 404


# -- runs -----------------------------------------------------------------------------------------------------------


TRACKS = [e for e in IN_PROJECT if e.access is Access.TRACK]


def test_tracking_by_a_run() -> None:
    tracked = {(e.method, e.path.partition("{id:id}")[2].replace("/jobs/{jid:id}", "")) for e in TRACKS}
    assert tracked == {
        ("PATCH", ""),
        ("POST", "/statuses"),
        ("POST", "/coderef"),
        ("POST", "/logs"),
        ("POST", "/metrics"),
        ("POST", "/ephemeraltoken"),
        ("POST", "/token"),
        ("POST", "/_heartbeat"),
        ("POST", "/_reconcile"),
        ("POST", "/jobs/{uuid}/_reconcile"),
        ("POST", "/impersonatetoken"),
    }


def test_a_run_writes_its_own_tracking(as_job: Caller, a_job: Run, store: Store) -> None:
    store.runs.transition(a_job, Status.RUNNING)
    assert not_let_in(answers(as_job, [e for e in TRACKS if e.kind is Kind.JOB])) == {}


def test_a_run_reports(as_job: Caller) -> None:
    assert as_job.patch(f"{P}/jobs/1/", {"tags": ["a"], "merge": True}).json()["tags"] == ["a"]
    assert as_job.post(f"{P}/jobs/1/statuses/", {"status": "running"}).status_code == 201
    assert as_job.post(f"{P}/jobs/1/coderef/", {"commit": "a" * 40}).status_code == 201
    assert as_job.post(f"{P}/jobs/1/_heartbeat/").status_code == 200


def test_a_run_reads_its_own_project(as_job: Caller) -> None:
    reads = [e for e in READS if not is_personal(e) and not e.path.endswith(OF_RUNS)]
    assert not_let_in(answers(as_job, reads)) == {}


def test_a_run_does_not_track_for_another_run(
    as_job: Caller, make_job: Callable[..., Run], store: Store, project: Project, root: User
) -> None:
    """Neither for the next job nor for the build with the same number."""
    make_job()
    store.runs.insert(project, root, NewRun(Kind.BUILD, config=build()))
    given = answers(as_job, TRACKS, lambda e: fill_path(e.path.replace("jobs/{id:id}", "jobs/2")))
    assert not_refused(given) == {}


def test_a_run_writes_nothing_else(as_job: Caller) -> None:
    assert not_refused(answers(as_job, [e for e in IN_PROJECT if e.access is Access.WRITE])) == {}


def test_a_run_keeps_its_hands_off_its_users_bookmarks_and_searches(
    as_job: Caller, api: Caller, store: Store, project: Project, root: User
) -> None:
    one_of_each(store, project, root)
    own = [e for e in IN_PROJECT if is_personal(e) and e.method != "GET"]
    answers(api, [e for e in own if e.method == "POST"])
    assert not_refused(answers(as_job, own)) == {}


def test_a_run_sees_no_other_project(as_job: Caller, store: Store, root: User, ann: User) -> None:
    store.projects.create(root, {"name": "secret", "is_public": False})
    store.projects.create(ann, {"name": "open"})
    assert as_job.get("/api/v1/root/secret/").status_code == 403
    assert as_job.get("/api/v1/ann/open/").status_code == 403
    assert as_job.get("/polylocal/v1/runs").status_code == 403
    assert as_job.get("/polylocal/v1/runs/job/1").status_code == 403


def test_a_run_does_not_list_the_projects_of_its_user(as_job: Caller, store: Store, root: User) -> None:
    store.projects.create(root, {"name": "secret", "is_public": False, "description": "not for containers"})
    assert "secret" not in as_job.get("/api/v1/root/").text


def test_a_run_makes_no_projects(as_job: Caller) -> None:
    assert as_job.post("/api/v1/projects/", {"name": "mine"}).status_code == 403


def test_a_run_of_an_admin_is_no_admin(as_job: Caller, store: Store, ann: User) -> None:
    store.projects.create(ann, {"name": "theirs", "is_public": False})
    assert as_job.get("/api/v1/ann/theirs/").status_code == 403


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.STOPPED])
def test_the_token_of_a_run_dies_with_it(status: Status, as_job: Caller, a_job: Run, store: Store) -> None:
    assert as_job.get(f"{P}/jobs/1/").status_code == 200
    finish(store, a_job, status)
    answer = as_job.get(f"{P}/jobs/1/")
    assert (answer.status_code, answer.json()) == (401, {"detail": "Invalid token."})


def test_a_run_may_report_its_last_status(as_job: Caller) -> None:
    assert as_job.post(f"{P}/jobs/1/statuses/", {"status": "succeeded"}).status_code == 201
    assert as_job.post(f"{P}/jobs/1/statuses/", {"status": "failed"}).status_code == 401


def test_the_token_of_a_deleted_run_finds_nothing(as_job: Caller, api: Caller) -> None:
    api.delete(f"{P}/jobs/1/")
    assert as_job.get(f"{P}/jobs/1/").status_code == 404


# -- the engine's network -------------------------------------------------------------------------------------------


@pytest.fixture
def bridge(serving: Callable[..., TestClient]) -> TestClient:
    return serving(bridge=True)


def test_containers_get_access_with_a_runs_token_only(
    bridge: TestClient, api: Caller, a_job: Run, token_of: Callable[[Run], str]
) -> None:
    assert Caller(bridge, token_of(a_job)).get(f"{P}/jobs/1/").status_code == 200
    refused = Caller(bridge, api.token).get(f"{P}/jobs/1/")
    assert (refused.status_code, refused.json()) == (401, {"detail": "Invalid token."})
    assert api.get(f"{P}/jobs/1/").status_code == 200


def test_containers_see_that_the_daemon_is_there(bridge: TestClient) -> None:
    assert bridge.get("/healthz").status_code == 200
    assert bridge.get("/api/v1/users/").status_code == 401
