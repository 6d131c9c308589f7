"""Users: log-in and log-out by password and by session, and their administration."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient
from support import job

from polylocal.api.api_context import ApiContext
from polylocal.api.sessions import SESSION
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

from .conftest import Caller, P

PASSWORD = "correct horse"
LAST_ADMIN = ["This is the last active admin: without one, no user could manage the others."]


@pytest.fixture
def eve(store: Store) -> User:
    return store.users.add("eve", password=PASSWORD)


def log_in(nobody: Caller, **more: object) -> object:
    return nobody.post("/api/v1/users/token/", {"username": "eve", "password": PASSWORD, **more})


# -- log-in and log-out ---------------------------------------------------------------------------------------------


def test_required_fields_of_a_login(nobody: Caller) -> None:
    required = ["This field is required."]
    assert nobody.post("/api/v1/users/token/", {}).json() == {"username": required, "password": required}
    blank = nobody.post("/api/v1/users/token/", {"username": "", "password": ""})
    assert blank.status_code == 400
    assert blank.json() == {"username": ["This field may not be blank."], "password": ["This field may not be blank."]}


def test_each_login_gives_a_token_of_its_own(eve: User, nobody: Caller) -> None:
    first, second = (log_in(nobody).json()["token"] for _ in range(2))  # type: ignore[attr-defined]
    assert first != second
    for token in (first, second):
        assert Caller(nobody.http, token).get("/api/v1/users/").json()["username"] == "eve"


def test_a_login_of_a_client_opens_no_session(eve: User, nobody: Caller) -> None:
    assert "set-cookie" not in log_in(nobody).headers  # type: ignore[attr-defined]
    assert "set-cookie" not in log_in(nobody, login=False).headers  # type: ignore[attr-defined]


def test_a_login_of_a_browser(eve: User, nobody: Caller) -> None:
    answer = log_in(nobody, login=True)
    assert answer.status_code == 200  # type: ignore[attr-defined]
    cookies = {line.partition("=")[0]: line for line in answer.headers.get_list("set-cookie")}  # type: ignore[attr-defined]
    assert {SESSION, "user"} <= set(cookies)
    assert "httponly" in cookies[SESSION].lower()
    assert "samesite" in cookies[SESSION].lower()
    assert cookies["user"].startswith("user=eve;")
    assert answer.json()["token"] not in cookies[SESSION]  # type: ignore[attr-defined]


def test_a_session_is_no_token(eve: User, http: TestClient, nobody: Caller) -> None:
    log_in(nobody, login=True)
    session = http.cookies[SESSION]
    assert http.get("/api/v1/users/").status_code == 401
    assert http.post("/api/v1/projects/", json={"name": "x"}).status_code == 401
    assert Caller(http, session).get("/api/v1/users/").json() == {"detail": "Invalid token."}


def test_logging_out(eve: User, http: TestClient, nobody: Caller, store: Store) -> None:
    token = log_in(nobody, login=True).json()["token"]  # type: ignore[attr-defined]
    session = http.cookies[SESSION]
    assert store.users.by_token(session, is_session=True)
    answer = http.get("/api/v1/users/logout/", headers={"Authorization": f"Token {token}"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert SESSION not in http.cookies
    assert "user" not in http.cookies
    assert store.users.by_token(session, is_session=True) is None
    assert Caller(http, token).get("/api/v1/users/").status_code == 200  # it may be used in a script


@pytest.mark.parametrize("site", ["same-site", "cross-site", "same-origin"])
def test_an_image_on_another_page_can_not_log_out(
    eve: User, http: TestClient, nobody: Caller, store: Store, site: str
) -> None:
    log_in(nobody, login=True)
    session = http.cookies[SESSION]
    for method in ("GET", "HEAD"):
        answer = http.request(method, "/api/v1/users/logout/", headers={"Sec-Fetch-Site": site})
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
    assert store.users.by_token(session, is_session=True)


def test_a_page_of_ours_logs_out(eve: User, http: TestClient, nobody: Caller, store: Store) -> None:
    log_in(nobody, login=True)
    session = http.cookies[SESSION]
    elsewhere = http.post("/api/v1/users/logout/", headers={"Origin": "http://127.0.0.1:1"})
    assert (elsewhere.status_code, http.cookies.get(SESSION)) == (403, session)
    assert http.post("/api/v1/users/logout/", headers={"Origin": "http://127.0.0.1"}).status_code == 200
    assert SESSION not in http.cookies
    assert store.users.by_token(session, is_session=True) is None


def test_logging_out_without_having_been_in(nobody: Caller) -> None:
    for _ in range(2):
        assert nobody.get("/api/v1/users/logout").status_code == 200


def test_logging_out_ends_nothing_but_sessions(http: TestClient, api: Caller) -> None:
    http.cookies.set(SESSION, str(api.token))
    http.get("/api/v1/users/logout/")
    http.cookies.clear()
    assert api.get("/api/v1/users/").status_code == 200


def test_a_session_by_token(http: TestClient, as_ann: Caller, nobody: Caller, store: Store) -> None:
    answer = as_ann.post("/api/v1/users/session/refresh/")
    assert (answer.status_code, answer.content) == (200, b"")
    found = store.users.by_token(http.cookies[SESSION], is_session=True)
    assert found
    assert found.user.username == "ann"
    assert nobody.post("/api/v1/users/session/refresh/").status_code == 401


@pytest.mark.usefixtures("project")
def test_a_run_opens_no_session(as_job: Caller, nobody: Caller) -> None:
    assert as_job.post("/api/v1/users/session/refresh/").status_code == 403
    answer = nobody.post("/polylocal/v1/session", {"token": as_job.token, "next": "/"})
    assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)


def test_the_form_of_a_page(http: TestClient, as_ann: Caller, store: Store) -> None:
    form = {"token": f" {as_ann.token}\n", "next": "/notebook/root/quick-start/tree?x=1"}
    answer = http.post("/polylocal/v1/session", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, form["next"])
    found = store.users.by_token(http.cookies[SESSION], is_session=True)
    assert found
    assert found.user.username == "ann"


@pytest.mark.parametrize(
    "elsewhere", ["https://example.org/", "//example.org/", "/\\example.org", "javascript:alert(1)", "", "notebook/"]
)
def test_a_form_never_redirects_to_another_site(elsewhere: str, http: TestClient, api: Caller) -> None:
    answer = http.post("/polylocal/v1/session", data={"token": api.token, "next": elsewhere})
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/")
    assert answer.headers["location"][1:2] not in ("/", "\\")


@pytest.mark.parametrize("token", ["", "nosuch", "a b"])
def test_a_form_with_a_wrong_token(token: str, nobody: Caller) -> None:
    answer = nobody("POST", "/polylocal/v1/session", data={"token": token, "next": "/notebook/root/x/"})
    assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
    assert 'name="next" value="/notebook/root/x/"' in answer.text  # the form appears again, for the same page


# -- administration -------------------------------------------------------------------------------------------------


def test_letting_a_user_in_again(api: Caller, as_ann: Caller, ann: User, store: Store) -> None:
    store.users.update(ann, is_active=False)
    assert as_ann.get("/api/v1/users/").json() == {"detail": "User inactive or deleted."}
    answer = api.post("/api/v1/users/activate/ann/")
    assert (answer.status_code, answer.content) == (200, b"")
    assert as_ann.get("/api/v1/users/").status_code == 200
    assert api.post("/api/v1/users/activate/ann/").status_code == 200


def test_making_and_unmaking_an_admin(api: Caller, as_ann: Caller) -> None:
    def is_admin() -> bool:
        assert as_ann.get("/api/v1/cluster/").status_code in (200, 403)
        found: bool = as_ann.get("/api/v1/users/").json()["is_superuser"]
        assert (as_ann.get("/api/v1/cluster/").status_code == 200) is found
        return found

    assert not is_admin()
    for _ in range(2):
        answer = api.post("/api/v1/superusers/grant/ann/")
        assert (answer.status_code, answer.content) == (200, b"")
        assert is_admin()
    for _ in range(2):
        answer = api.post("/api/v1/superusers/revoke/ann/")
        assert (answer.status_code, answer.content) == (200, b"")
        assert not is_admin()


def test_the_last_admin_stays_an_admin(api: Caller, as_ann: Caller, store: Store, root: User) -> None:
    for answer in (api.post("/api/v1/superusers/revoke/root/"), api.delete("/api/v1/users/delete/root/")):
        assert (answer.status_code, answer.json()) == (400, LAST_ADMIN)
    assert store.users.get("root") == root
    api.post("/api/v1/superusers/grant/ann/")
    assert as_ann.post("/api/v1/superusers/revoke/root/").status_code == 200
    assert api.post("/api/v1/superusers/grant/root/").status_code == 403


def test_deleting_a_user(api: Caller, as_ann: Caller, store: Store) -> None:
    answer = api.delete("/api/v1/users/delete/ann/")
    assert (answer.status_code, answer.content) == (204, b"")
    assert as_ann.get("/api/v1/users/").json() == {"detail": "Invalid token."}
    assert api.get("/api/v1/ann/").status_code == 404
    assert api.delete("/api/v1/users/delete/ann/").status_code == 404


def test_a_new_user_of_the_same_name_finds_nothing_of_the_one_before(
    api: Caller, as_ann: Caller, store: Store, context: ApiContext
) -> None:
    context.secret_store.write("ann", "aws", {"KEY": "of the one before"})
    published = context.home.downloads / "ann_personal" / "repository"
    published.mkdir(parents=True)
    (published / "a-1.whl").write_text("of the one before")
    assert api.delete("/api/v1/users/delete/ann/").status_code == 204
    again = store.users.add("ann")
    assert context.secret_store.names(again.username) == []
    assert not (context.home.downloads / "ann_personal").exists()


def test_a_user_who_owns_something_is_not_deleted(
    api: Caller, as_ann: Caller, ann: User, store: Store, project: Project, context: ApiContext
) -> None:
    """Their projects, and their runs in projects of others, would become invisible."""
    store.projects.create(ann, {"name": "mine"})
    context.secret_store.write("ann", "aws", {"KEY": "stays"})
    bob = store.users.add("bob")
    store.runs.insert(project, bob, NewRun(Kind.JOB, config=job()))
    for name in ("ann", "bob"):
        answer = api.delete(f"/api/v1/users/delete/{name}/")
        message = f"`{name}` has projects or runs: delete these first."
        assert (answer.status_code, answer.json()) == (400, [message])
    assert context.secret_store.names("ann") == ["aws"]
    assert as_ann.get("/api/v1/ann/mine/").status_code == 200
    assert api.get(f"{P}/jobs/1/").json()["user"] == "bob"


def test_a_deleted_user_leaves_marks_on_nothing(
    api: Caller, as_ann: Caller, store: Store, project: Project, a_job: Run
) -> None:
    """Personal data is deleted with the user, and the viewed objects stay."""
    as_ann.post(f"{P}/bookmark/")
    as_ann.post(f"{P}/jobs/1/bookmark/")
    as_ann.get(f"{P}/jobs/1/")
    as_ann.post("/api/v1/searches/root/quick-start/jobs/", {"query": {}})
    assert api.delete("/api/v1/users/delete/ann/").status_code == 204
    assert api.get(f"{P}/jobs/1/").status_code == 200
    with store.database.read() as db:
        for table in ("bookmarks", "searches", "tokens"):
            assert db.execute(f"select count(*) from {table} where user_id <> 1").fetchone()[0] == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/users/activate/"),
        ("DELETE", "/api/v1/users/delete/"),
        ("POST", "/api/v1/superusers/grant/"),
        ("POST", "/api/v1/superusers/revoke/"),
    ],
)
def test_only_admins_manage_users(
    method: str,
    path: str,
    api: Caller,
    as_ann: Caller,
    as_bob: Caller,
    nobody: Caller,
    project: Project,
    make_job: Callable[..., Run],
    token_of: Callable[[Run], str],
) -> None:
    assert api(method, f"{path}nosuch/").json() == {"detail": "Not found."}
    inside = Caller(api.http, token_of(make_job()))
    for caller in (as_ann, as_bob, inside):
        assert caller(method, f"{path}ann/").status_code == 403
        assert caller(method, f"{path}nosuch/").status_code == 403  # only admins learn which users exist
    assert nobody(method, f"{path}ann/").status_code == 401
    assert as_ann.get("/api/v1/users/").json()["is_superuser"] is False
