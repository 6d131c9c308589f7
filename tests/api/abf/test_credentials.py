"""Credentials of the ABF API: a name or an e-mail address with a password or a token, or a token alone."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from support import job

from polylocal.api.abf.calls import Authenticator
from polylocal.errors import NotAuthenticated
from polylocal.statuses import Kind
from polylocal.store import NewRun

from .farm import FORBIDDEN, NO_CREDENTIALS, NOT_FOUND, PASSWORD, WRONG_CREDENTIALS, Farm, Person, basic


def signed_in(farm: Farm, headers: dict[str, str], query: str = "") -> str:
    answer = farm.nobody.get(f"user.json{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["user"]["uname"]
    return found


@pytest.mark.parametrize("name", ["ivan", "IVAN@example.ORG"])
def test_a_name_or_an_email_with_a_password(name: str, farm: Farm) -> None:
    assert signed_in(farm, basic(name, PASSWORD)) == "ivan"


@pytest.mark.parametrize("name", ["ivan", "ivan@example.org", "IVAN@example.org"])
def test_a_name_or_an_email_with_a_token(name: str, shared: Farm) -> None:
    assert signed_in(shared, basic(name, shared.ids.tokens["ivan"])) == "ivan"


def test_a_token_as_the_name_with_an_empty_secret(shared: Farm) -> None:
    assert signed_in(shared, basic(shared.ids.tokens["ivan"], "")) == "ivan"


def test_a_token_in_the_query(shared: Farm) -> None:
    assert signed_in(shared, {}, f"?authentication_token={shared.ids.tokens['ivan']}") == "ivan"


def test_a_token_in_the_query_makes_nobody_else_this_user(farm: Farm) -> None:
    """Requests without credentials don't use up the limit of a user whose token is in a query."""
    work = farm.context.quotas.requests
    signed_in(farm, {}, f"?authentication_token={farm.ids.tokens['ivan']}")
    with ExitStack() as stack:
        with suppress(HTTPException):
            while True:
                stack.enter_context(work._quota.slot(("user", farm.ids.people["ivan"])))
        assert farm.nobody.get("platforms.json").status_code == 401
        olga = farm.nobody.get(f"user.json?authentication_token={farm.ids.tokens['olga']}")
        assert olga.json()["user"]["uname"] == "olga"
        ivan = farm.nobody.get(f"user.json?authentication_token={farm.ids.tokens['ivan']}")
        assert ivan.status_code == 503


def test_a_token_in_a_header_of_the_other_api(shared: Farm) -> None:
    assert signed_in(shared, {"Authorization": f"Token {shared.ids.tokens['ivan']}"}) == "ivan"


@pytest.mark.parametrize("scheme", ["basic", "BASIC"])
def test_the_scheme_is_written_as_one_likes(scheme: str, shared: Farm) -> None:
    words = basic("ivan", shared.ids.tokens["ivan"])["Authorization"]
    assert signed_in(shared, {"Authorization": words.replace("Basic", scheme)}) == "ivan"


def test_a_password_with_a_colon_and_non_ascii_letters(farm: Farm) -> None:
    farm.store.users.add("eve", password="a:b:пароль", email="eve@example.org")
    assert signed_in(farm, basic("eve", "a:b:пароль")) == "eve"


def test_a_change_with_a_token_in_the_query(farm: Farm) -> None:
    answer = farm.nobody.post(f"build_lists.json?authentication_token={farm.ids.tokens['ivan']}", farm.body())
    assert answer.status_code == 200
    assert farm.show(answer.json()["build_list"]["id"])["user"]["uname"] == "ivan"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "build_lists.json"),
        ("GET", "build_lists/1.json"),
        ("GET", "build_lists/99.json"),
        ("POST", "build_lists.json"),
        ("PUT", "build_lists/1/cancel.json"),
        ("PUT", "build_lists/1/publish.json"),
        ("PUT", "build_lists/1/create_container.json"),
        ("PUT", "build_lists/1/reject_publish.json"),
        ("GET", "user.json"),
        ("GET", "users/ivan.json"),
        ("GET", "arches.json"),
        ("GET", "projects.json"),
        ("GET", "projects/1.json"),
        ("GET", "projects/1/build_lists.json"),
        ("GET", "projects/get_id.json?owner=ivan&name=evil_tools"),
        ("POST", "projects.json"),
        ("GET", "platforms.json"),
        ("GET", "platforms/platforms_for_build.json"),
        ("POST", "platforms.json"),
        ("GET", "repositories/1.json"),
        ("POST", "repositories.json"),
        ("PUT", "repositories/1/add_project.json"),
        ("DELETE", "repositories/1/remove_project.json"),
        ("GET", "search.json?query=x"),
        ("POST", "upload"),
    ],
)
def test_requests_without_credentials_get_nothing(method: str, path: str, shared: Farm) -> None:
    shared.new()
    answer = shared.nobody(method, path)
    assert (answer.status_code, answer.json()) == (401, NO_CREDENTIALS)
    assert answer.headers["www-authenticate"].startswith("Basic")


WRONG = {
    "wrong password": basic("ivan", "wrong password"),
    "wrong password of an email": basic("ivan@example.org", "wrong password"),
    "unknown name": basic("nosuch", PASSWORD),
    "empty secret": basic("ivan", ""),
    "wrong token": basic("0" * 40, ""),
    "nothing at all": basic("", ""),
    "wrong token in the other api's header": {"Authorization": f"Token {'0' * 40}"},
    "zero byte": basic("iv\0an", "pass\0word"),
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG.keys())
def test_wrong_credentials(headers: dict[str, str], farm: Farm) -> None:
    answer = farm.nobody.get("build_lists.json", headers=headers)
    assert (answer.status_code, answer.json()) == (401, WRONG_CREDENTIALS)


def test_a_wrong_token_in_the_query(farm: Farm) -> None:
    answer = farm.nobody.get(f"user.json?authentication_token={'0' * 40}")
    assert (answer.status_code, answer.json()) == (401, WRONG_CREDENTIALS)


@pytest.mark.parametrize("words", ["Basic", "Basic ", "Basic %%%", "Basic aXZhbg==", "Basic /w==", "Bearer x", "x"])
def test_credentials_that_cannot_be_read(words: str, shared: Farm) -> None:
    answer = shared.nobody.get("user.json", headers={"Authorization": words})
    assert answer.status_code == 401
    assert answer.json() in (NO_CREDENTIALS, WRONG_CREDENTIALS)


def test_a_name_with_the_token_of_another_user(shared: Farm) -> None:
    answer = shared.nobody.get("user.json", headers=basic("petr", shared.ids.tokens["ivan"]))
    assert (answer.status_code, answer.json()) == (401, WRONG_CREDENTIALS)


def test_a_deactivated_user(farm: Farm) -> None:
    """This includes users who logged in a moment ago."""
    token = farm.ids.tokens["ivan"]
    known = [basic("ivan", PASSWORD), basic("ivan", token), basic(token, ""), {"Authorization": f"Token {token}"}]
    for is_active, expected in ((True, 200), (False, 401), (True, 200)):
        farm.store.users.update(farm.store.users.get("ivan"), is_active=is_active)
        assert [farm.nobody.get("user.json", headers=headers).status_code for headers in known] == [expected] * 4


def test_the_token_of_a_run_opens_nothing(farm: Farm) -> None:
    """A job's container does not have the permissions of its user."""
    store, owner = farm.store, farm.store.users.get("ivan")
    project = store.projects.create(owner, {"name": "learning"})
    run = store.runs.insert(project, owner, NewRun(Kind.JOB, content=None, config=job(), values={}))
    token = store.users.new_token(owner, run.pk)
    build_list = farm.new()
    for headers in (basic("ivan", token), basic(token, ""), {"Authorization": f"Token {token}"}):
        caller = Person(farm.nobody.http, headers)
        assert caller.get("user.json").status_code in (401, 403)
        assert caller.put(f"build_lists/{build_list}/cancel.json").status_code in (401, 403)
        assert caller.post("build_lists.json", farm.body()).status_code in (401, 403)
    assert farm.row(build_list)["status"] == 2000


def test_credentials_are_checked_before_existence_and_permissions(farm: Farm) -> None:
    hidden = farm.new(farm.of_secret_tools(), status=666)
    for build_list, person, expected in (
        (999, farm.nobody, (401, NO_CREDENTIALS)),
        (999, farm.petr, (404, NOT_FOUND)),
        (hidden, farm.petr, (403, FORBIDDEN)),
    ):
        answer = person.put(f"build_lists/{build_list}/cancel.json")
        assert (answer.status_code, answer.json()) == expected
    assert farm.ivan.put(f"build_lists/{hidden}/cancel.json").status_code == 422


def asked_by(name: str, secret: str) -> Request:
    headers = [(b"authorization", basic(name, secret)["Authorization"].encode())]
    about = {"type": "http", "method": "GET", "query_string": b"", "client": ("127.0.0.1", 1)}
    return Request({**about, "headers": headers})


def test_an_open_stream_stays_valid_while_its_password_is_the_users(farm: Farm) -> None:
    """An open stream checks the credentials again, even while further log-ins are blocked."""
    request = asked_by("ivan", PASSWORD)
    user = (authenticator := Authenticator(farm.context)).identify(request)
    assert user is not None
    for _ in range(12):
        farm.nobody.get("user.json", headers=basic("ivan", "wrong"))
    assert farm.nobody.get("user.json", headers=basic("ivan", PASSWORD)).status_code == 429
    assert authenticator.identify_again(request, user) == user
    farm.store.users.update(user, is_active=False)
    with pytest.raises(NotAuthenticated):
        authenticator.identify_again(request, user)


def test_a_token_is_asked_for_again(farm: Farm) -> None:
    request = asked_by("ivan", farm.ids.tokens["ivan"])
    user = (authenticator := Authenticator(farm.context)).identify(request)
    assert user is not None
    assert authenticator.identify_again(request, user) == user
    farm.store.users.revoke(user)
    with pytest.raises(NotAuthenticated):
        authenticator.identify_again(request, user)
