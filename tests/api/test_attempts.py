"""Passwords that are tried one after the other."""

from __future__ import annotations

from typing import Any

import pytest

from polylocal.api.attempts import MOST, WITHIN_S, Attempts
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
    for _ in range(MOST):
        assert tried(nobody, "ann", "wrong").status_code == 400
    answer = tried(nobody, "ann", "right horse")
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= WITHIN_S
    assert "Too many wrong passwords; try again in" in answer.json()["detail"]
    assert tried(nobody, "bob", "right horse").status_code == 200


@pytest.mark.usefixtures("passwords")
def test_the_right_one_forgets_the_wrong_ones(nobody: Caller) -> None:
    for _ in range(2):
        for _ in range(MOST - 1):
            assert tried(nobody, "ann", "wrong").status_code == 400
        assert tried(nobody, "ann", "right horse").status_code == 200


def test_names_that_nobody_has_are_counted_alike(nobody: Caller) -> None:
    """Else the answer would tell which names there are."""
    for _ in range(MOST):
        assert tried(nobody, "nobody", "wrong").status_code == 400
    assert tried(nobody, "nobody", "wrong").status_code == 429


def test_a_while_later_it_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("polylocal.api.attempts.time.monotonic", lambda: now[0])
    attempts = Attempts(most=2, within_s=60.0)
    attempts.was_wrong("ann")
    now[0] += 30
    attempts.was_wrong("ann")
    assert attempts.wait_s("ann") == 30.0
    now[0] += 30
    assert attempts.wait_s("ann") == 0.0
    attempts.was_wrong("ann")
    assert attempts.wait_s("ann") == 30.0


def test_no_more_names_are_kept_than_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polylocal.api.attempts._NAMES", 3)
    attempts = Attempts(most=1)
    for name in "abcd":
        attempts.was_wrong(name)
    assert [name for name in "abcd" if attempts.wait_s(name)] == ["b", "c", "d"]
