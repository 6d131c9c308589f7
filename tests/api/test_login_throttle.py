"""The log-in throttle: wrong passwords lock a name at an address."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from polylocal.api.api_context import ApiContext
from polylocal.api.login_throttle import MAX_AT_ONCE, MAX_FAILURES, WITHIN_S, LoginThrottle
from polylocal.store import Store

from .conftest import Caller

LOGIN = "/api/v1/users/token"


def tried(nobody: Caller, name: str, password: str) -> Any:
    return nobody.post(LOGIN, {"username": name, "password": password})


@pytest.fixture
def passwords(store: Store) -> None:
    for name in ("ann", "bob"):
        store.users.add(name, password="right horse")


@pytest.mark.usefixtures("passwords")
def test_after_some_that_were_wrong_even_the_right_one_has_to_wait(nobody: Caller) -> None:
    for _ in range(MAX_FAILURES):
        assert tried(nobody, "ann", "wrong").status_code == 400
    answer = tried(nobody, "ann", "right horse")
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= WITHIN_S
    assert "Too many wrong passwords; try again in" in answer.json()["detail"]
    assert tried(nobody, "bob", "right horse").status_code == 200


@pytest.mark.usefixtures("passwords")
def test_the_right_one_forgets_the_wrong_ones(nobody: Caller) -> None:
    for _ in range(2):
        for _ in range(MAX_FAILURES - 1):
            assert tried(nobody, "ann", "wrong").status_code == 400
        assert tried(nobody, "ann", "right horse").status_code == 200


def test_names_that_nobody_has_are_counted_alike(nobody: Caller) -> None:
    """Otherwise the response would reveal which names exist."""
    for _ in range(MAX_FAILURES):
        assert tried(nobody, "nobody", "wrong").status_code == 400
    assert tried(nobody, "nobody", "wrong").status_code == 429


def test_a_while_later_it_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("polylocal.api.login_throttle.time.monotonic", lambda: now[0])
    attempts = LoginThrottle(max_failures=2, within_s=60.0)
    attempts.record_failure("ann")
    now[0] += 30
    attempts.record_failure("ann")
    assert attempts.wait_s("ann") == 30.0
    now[0] += 30
    assert attempts.wait_s("ann") == 0.0
    attempts.record_failure("ann")
    assert attempts.wait_s("ann") == 30.0


def test_no_more_names_are_kept_than_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polylocal.api.login_throttle._MAX_NAMES", 3)
    attempts = LoginThrottle(max_failures=1)
    for name in "abcd":
        attempts.record_failure(name)
    assert [name for name in "abcd" if attempts.wait_s(name)] == ["b", "c", "d"]


# -- many at once ----------------------------------------------------------------------------------------------------


def test_the_number_of_concurrent_password_checks_is_limited() -> None:
    """Every slot becomes free again, also after an exception."""
    attempts = LoginThrottle()
    for _ in range(2):
        with ExitStack() as stack:
            for _ in range(MAX_AT_ONCE):
                stack.enter_context(attempts.slot())
            with pytest.raises(HTTPException) as refused, attempts.slot():
                pytest.fail("it was looked at")
            assert refused.value.status_code == 503
    for _ in range(MAX_AT_ONCE + 1):
        with pytest.raises(ZeroDivisionError), attempts.slot():
            _ = 1 / 0


@pytest.mark.usefixtures("passwords")
def test_further_callers_during_many_logins_get_503(nobody: Caller, context: ApiContext) -> None:
    with ExitStack() as stack:
        for _ in range(MAX_AT_ONCE):
            stack.enter_context(context.login_throttle.slot())
        for _ in range(MAX_FAILURES + 1):  # these attempts are not wrong passwords
            answer = tried(nobody, "ann", "right horse")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "try again in a moment" in answer.json()["detail"]
    assert tried(nobody, "ann", "right horse").status_code == 200


# -- callers that may not log in -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("passwords")
def test_containers_can_not_log_in_with_passwords(
    serving: Callable[..., TestClient], context: ApiContext, nobody: Caller
) -> None:
    inside = Caller(serving(bridge=True))
    for name, password in (("ann", "right horse"), ("ann", "wrong"), ("nobody", "wrong")):
        answer = tried(inside, name, password)
        assert answer.status_code == 401
        assert "no passwords" in answer.json()["detail"]
        assert "set-cookie" not in answer.headers
    assert context.login_throttle._wrong == {}
    assert tried(nobody, "ann", "right horse").status_code == 200


@pytest.mark.parametrize(("name", "password"), [("x" * 257, "wrong"), ("ann", "x" * 4097)])
def test_overlong_names_and_passwords_are_not_stored(
    name: str, password: str, nobody: Caller, context: ApiContext
) -> None:
    answer = tried(nobody, name, password)
    assert (answer.status_code, len(answer.json())) == (400, 1)
    assert "non_field_errors" not in answer.json()
    assert context.login_throttle._wrong == {}
    assert tried(nobody, "x" * 256, "x" * 4096).json() == {
        "non_field_errors": ["Unable to log in with provided credentials."]
    }
    assert len(context.login_throttle._wrong) == 1
