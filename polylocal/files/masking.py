"""Hides secret values in what programs write: each as a whole, with as many asterisks as it has bytes. Pure.

The length stays, so that positions in a log mean the same as in what the engine has stored.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

LEAST_HIDDEN = 8  # characters: a shorter value is a word that others use too, and is not hidden


Span = tuple[int, int]  # from, and up to but not including


class Mask:
    """Hides values line by line, also as base64, in a URL or in JSON; what is shorter than `LEAST_HIDDEN` stays."""

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values for form in _forms(value) if len(form) >= LEAST_HIDDEN}
        self._forms = sorted(forms, key=len, reverse=True)

    def __bool__(self) -> bool:
        return bool(self._forms)

    def hide(self, data: bytes) -> bytes:
        return painted(data, self.spans(data))

    def spans(self, data: bytes) -> list[Span]:
        """Where values stand, in order; those that share bytes are one."""
        found = sorted((at, at + len(form)) for form in self._forms for at in _places(form, data))
        joined: list[Span] = []
        for start, end in found:
            if joined and start < joined[-1][1]:
                start, end = joined[-1][0], max(end, joined.pop()[1])
            joined.append((start, end))
        return joined

    def open_from(self, data: bytes) -> int:
        """Where in `data` the beginning of a value may stand whose rest has not come yet; its length if nowhere."""
        return len(data) - max((_begun(form, data) for form in self._forms), default=0)


class Masked:
    """One stream of a program as it comes. Values come torn: what may be the beginning of one waits for the rest."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = b""
        self._hidden = 0  # so many bytes at the begin of what is held belong to a value that was seen whole

    def __call__(self, data: bytes) -> bytes:
        if not self._mask:
            return data
        whole = self._held + data
        spans = [(0, self._hidden), *self._mask.spans(whole)]
        cut = self._mask.open_from(whole)
        self._held = whole[cut:]
        self._hidden = max(0, *(end - cut for start, end in spans if start < cut or start == 0))
        return painted(whole, spans)[:cut]

    def rest(self) -> bytes:
        """What was held back, when nothing more comes."""
        held = painted(self._held, [(0, self._hidden), *self._mask.spans(self._held)])
        self._held, self._hidden = b"", 0
        return held


def painted(data: bytes, spans: Iterable[Span]) -> bytes:
    """The same with an asterisk for each byte within the spans."""
    hidden = bytearray(data)
    for start, end in spans:
        hidden[start:end] = b"*" * (end - start)
    return bytes(hidden)


def _places(form: bytes, data: bytes) -> Iterator[int]:
    """Everywhere that it stands, also where it overlaps itself."""
    at = data.find(form)
    while at >= 0:
        yield at
        at = data.find(form, at + 1)


def _begun(form: bytes, data: bytes) -> int:
    """How many bytes at the end of `data` are the beginning of `form`, and not all of it: the most that can be."""
    tail = data[-(len(form) - 1) :]
    at = tail.find(form[:1])
    while at >= 0:
        if form.startswith(tail[at:]):
            return len(tail) - at
        at = tail.find(form[:1], at + 1)
    return 0


def _forms(value: str) -> Iterator[bytes]:
    """How programs write a value: as it is, line by line, and in what goes over a line."""
    whole = value.strip()
    yield from (line.strip().encode() for line in whole.splitlines())
    for text in {value, whole}:
        yield from _in_base64(text.encode())
        yield json.dumps(text)[1:-1].encode()
        yield json.dumps(text, ensure_ascii=False)[1:-1].encode()
    if "\n" not in whole:
        for quoted in (quote(whole, safe=""), quote(whole), quote_plus(whole)):
            yield quoted.encode()
            yield _with_small_digits(quoted).encode()


def _in_base64(raw: bytes) -> Iterator[bytes]:
    """Also behind one or two bytes of something else, as in `user:value`: what of it is the value's alone."""
    for before in range(3):
        first = (0, 2, 3)[before]
        digits = base64.b64encode(b"\0" * before + raw).rstrip(b"=")
        inside = digits[first : len(digits) - (1 if (before + len(raw)) % 3 else 0)]
        for form in (inside, digits) if before == 0 else (inside,):
            yield form
            yield form.translate(_URL_SAFE)


def _with_small_digits(quoted: str) -> str:
    first, *others = quoted.split("%")
    return "%".join([first, *(other[:2].lower() + other[2:] for other in others)])


_URL_SAFE = bytes.maketrans(b"+/", b"-_")
