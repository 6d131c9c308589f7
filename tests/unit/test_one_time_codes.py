"""One-time codes."""

from __future__ import annotations

import threading

from polylocal.api.one_time_codes import LIFE_S, MAX_PER_OWNER, OneTimeCodes


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_code_is_good_once() -> None:
    codes = OneTimeCodes[str]()
    code, other = codes.issue("a", owner=1), codes.issue("b", owner=1)
    assert (codes.redeem(code), codes.redeem(code)) == ("a", None)
    assert codes.redeem(other) == "b"


def test_no_other_text_is_a_code() -> None:
    codes = OneTimeCodes[str]()
    code = codes.issue("a", owner=1)
    assert [codes.redeem(text) for text in ("", code[:-1], code.upper() + " ", "0" * 40)] == [None] * 4
    assert codes.redeem(code) == "a"


def test_a_code_is_good_for_a_minute() -> None:
    clock = Clock()
    codes = OneTimeCodes[str](clock)
    soon, late = codes.issue("soon", owner=1), codes.issue("late", owner=1)
    clock.now += LIFE_S
    assert codes.redeem(soon) == "soon"
    clock.now += 0.1
    assert codes.redeem(late) is None


def test_two_threads_do_not_both_redeem_a_code() -> None:
    codes = OneTimeCodes[int]()
    for number in range(50):
        code, found, begin = codes.issue(number, owner=1), list[int | None](), threading.Barrier(4)

        def redeem(code: str = code, found: list[int | None] = found, begin: threading.Barrier = begin) -> None:
            begin.wait()
            found.append(codes.redeem(code))

        threads = [threading.Thread(target=redeem) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found, key=str) == [number, None, None, None]


def test_many_codes_of_one_owner_push_out_their_own_only() -> None:
    codes = OneTimeCodes[str]()
    mine = codes.issue("mine", owner="ann")
    first, *others = (codes.issue(str(number), owner="eve") for number in range(MAX_PER_OWNER + 1))
    assert codes.redeem(first) is None
    assert codes.redeem(others[0]) == "1"
    assert codes.redeem(mine) == "mine"


def test_an_unused_code_is_seen_to_wait() -> None:
    clock = Clock()
    codes = OneTimeCodes[str](clock)
    assert codes.waiting_s("page") == 0
    code = codes.issue("a", owner=1, about="page")
    codes.issue("b", owner=1, about="another")
    clock.now += 5
    assert codes.waiting_s("page") == 5
    codes.redeem(code)
    assert codes.waiting_s("page") == 0
