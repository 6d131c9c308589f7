"""Masking of secrets in output: complete, however the output is split, and without other changes."""

from __future__ import annotations

import base64
import json
import tracemalloc
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylocal.files.masking import Mask, Masked

SECRET = "tok/en+with=signs"


def through(mask: Mask, pieces: list[bytes]) -> bytes:
    """The masked output of a stream that arrives in these pieces."""
    masked = Masked(mask)
    return b"".join([masked(piece) for piece in pieces]) + masked.rest()


def test_a_value_is_hidden_and_its_length_stays() -> None:
    assert Mask([SECRET]).hide(f"a {SECRET} b".encode()) == b"a " + b"*" * len(SECRET) + b" b"


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        quote(SECRET, safe=""),
        quote(SECRET),
        quote_plus(SECRET),
        quote(SECRET, safe="").replace("%2F", "%2f").replace("%3D", "%3d").replace("%2B", "%2b"),
        f"https://me:{SECRET}@host/",
    ],
)
def test_every_form_of_it_is_hidden(form: str) -> None:
    hidden = Mask([SECRET]).hide(form.encode())
    assert SECRET.encode() not in hidden
    assert b"********" in hidden
    assert len(hidden) == len(form)


@pytest.mark.parametrize("user", ["", "a", "me", "bob", "somebody"])
@pytest.mark.parametrize("behind", ["", "x", "yz", ":abc"])
def test_base64_of_more_than_the_value(user: str, behind: str) -> None:
    """As in `Authorization: Basic`: all digits, except those that also encode neighbouring bytes."""
    whole = f"{user}:{SECRET}{behind}".encode()
    hidden = Mask([SECRET]).hide(base64.b64encode(whole))
    assert hidden.count(b"*") >= len(SECRET) * 8 // 6 - 2


def test_a_value_in_json_is_hidden() -> None:
    value = 'say "ä\\b"'
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert Mask([value]).hide(text.encode()) == b'"' + b"*" * (len(text.encode()) - 2) + b'"'


def test_values_that_overlap_are_hidden_together() -> None:
    mask = Mask(["abcdefgh", "efghijkl"])
    whole = b"-abcdefghijkl-"
    for cut in range(len(whole)):
        assert through(mask, [whole[:cut], whole[cut:]]) == b"-" + b"*" * 12 + b"-"


def test_a_value_that_begins_again_in_itself_is_held_back_no_longer_than_it_is() -> None:
    masked, pieces = Masked(Mask(["a" * 8])), 1000
    shown = b"".join(masked(b"a" * 5) for _ in range(pieces))
    assert len(shown) >= 5 * pieces - 8
    assert shown + masked.rest() == b"*" * 5 * pieces


def test_long_values_take_no_memory() -> None:
    value = "".join(chr(33 + (n * 7919) % 90) for n in range(64 * 1024))
    tracemalloc.start()
    masked = Masked(Mask([value]))
    assert b"".join([masked(value.encode()[:40_000]), masked(value.encode()[40_000:]), masked.rest()]) == b"*" * len(
        value
    )
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_each_line_of_a_value_of_several_is_hidden() -> None:
    key = "-----BEGIN KEY-----\r\nMIIEowIBAAKCAQEA\nshort\n-----END KEY-----\n"
    hidden = Mask([key]).hide(b"x MIIEowIBAAKCAQEA y\nshort\n")
    assert hidden == b"x **************** y\nshort\n"


def test_short_values_wreck_no_other_lines() -> None:
    assert Mask(["true", "1", ""]).hide(b"true 1\n") == b"true 1\n"
    assert not Mask(["true"])


def test_of_two_values_the_longer_is_hidden_whole() -> None:
    assert Mask(["password", "password-and-more"]).hide(b"password-and-more!") == b"*" * 17 + b"!"


def test_invalid_utf8_passes() -> None:
    assert Mask([SECRET]).hide(b"\xff\xfe") == b"\xff\xfe"


@settings(max_examples=300, deadline=2000)
@given(
    secret=st.text("ab-", min_size=8, max_size=12),
    around=st.lists(st.text("ab-\n", max_size=12), min_size=2, max_size=4),
    cuts=st.lists(st.integers(0, 80), max_size=6),
)
def test_however_it_is_torn(secret: str, around: list[str], cuts: list[int]) -> None:
    """The result is the same as for a single piece, and no byte is lost."""
    whole = secret.join(around).encode()
    places = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
    pieces = [whole[a:b] for a, b in zip(places, places[1:], strict=False)]
    mask = Mask([secret])
    kept = through(mask, pieces)
    assert len(kept) == len(whole)
    assert secret.encode() not in kept
    assert all(ours in (theirs, ord("*")) for ours, theirs in zip(kept, whole, strict=True))
    assert kept == mask.hide(whole)


def test_a_false_beginning_is_written() -> None:
    assert through(Mask(["secret-value"]), [b"a secret", b"-vault\n", b"secret-"]) == b"a secret-vault\nsecret-"


def test_of_two_values_the_longer_is_hidden_however_it_is_torn() -> None:
    """`password` is complete before it is known that the longer value follows."""
    whole = b"a password123 b password c"
    for cut in range(len(whole)):
        assert through(Mask(["password", "password123"]), [whole[:cut], whole[cut:]]) == (
            b"a " + b"*" * 11 + b" b " + b"*" * 8 + b" c"
        )


def test_a_value_whose_end_may_begin_another_is_not_cut_apart() -> None:
    mask = Mask(["secretvalue", "valuefoo12"])
    assert through(mask, [b"x secretvalue", b" y"]) == b"x " + b"*" * 11 + b" y"
    assert through(mask, [b"x secretvalue", b"foo12"]) == b"x " + b"*" * 16
