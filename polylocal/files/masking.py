"""Masks secret values in the output of programs, with one asterisk per byte. Pure.

Masking keeps the length, so a position in a log is the same as in the engine's own storage.
"""

import base64
import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

MIN_HIDDEN = 8  # characters; shorter values occur in ordinary text, and are not masked


Span = tuple[int, int]  # start, and end (exclusive)
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class Mask:
    """Masks each line of the values, also as base64, in URLs and in JSON; not those below `MIN_HIDDEN` characters."""

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values for form in _forms(value) if len(form) >= MIN_HIDDEN}
        self._forms = sorted(forms, key=len, reverse=True)

    def __bool__(self) -> bool:
        return bool(self._forms)

    def hide(self, data: bytes) -> bytes:
        return paint(data, self.spans(data))

    def spans(self, data: bytes) -> list[Span]:
        """The spans of all values in `data`, in order; overlapping spans are joined."""
        found = sorted((at, at + len(form)) for form in self._forms for at in _positions(form, data))
        joined: list[Span] = []
        for start, end in found:
            if joined and start < joined[-1][1]:
                start, end = joined[-1][0], max(end, joined.pop()[1])
            joined.append((start, end))
        return joined

    def open_from(self, data: bytes) -> int:
        """The start of a possible incomplete value at the end of `data`; its length if there is none."""
        return len(data) - max((_prefix_length(form, data) for form in self._forms), default=0)


class Masked:
    """Masks a stream in chunks. A value may be split: the possible beginning of one is held back."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = b""
        self._hidden = 0  # bytes at the start of `_held` that belong to a complete value

    def __call__(self, data: bytes) -> bytes:
        if not self._mask:
            return data
        whole = self._held + data
        spans = [(0, self._hidden), *self._mask.spans(whole)]
        cut = self._mask.open_from(whole)
        self._held = whole[cut:]
        self._hidden = max(0, *(end - cut for start, end in spans if start < cut or start == 0))
        return paint(whole, spans)[:cut]

    def rest(self) -> bytes:
        """The bytes held back, at the end of the stream."""
        held = paint(self._held, [(0, self._hidden), *self._mask.spans(self._held)])
        self._held, self._hidden = b"", 0
        return held


def paint(data: bytes, spans: Iterable[Span]) -> bytes:
    """The data with an asterisk for each byte within the spans."""
    hidden = bytearray(data)
    for start, end in spans:
        hidden[start:end] = b"*" * (end - start)
    return bytes(hidden)


def _positions(form: bytes, data: bytes) -> Iterator[int]:
    """All positions of `form`, including overlapping ones."""
    at = data.find(form)
    while at >= 0:
        yield at
        at = data.find(form, at + 1)


def _prefix_length(form: bytes, data: bytes) -> int:
    """The length of the longest proper prefix of `form` at the end of `data`."""
    tail = data[-(len(form) - 1) :]
    at = tail.find(form[:1])
    while at >= 0:
        if form.startswith(tail[at:]):
            return len(tail) - at
        at = tail.find(form[:1], at + 1)
    return 0


def _forms(value: str) -> Iterator[bytes]:
    """The forms in which programs write a value: verbatim, and encoded for a URL, for JSON or as base64."""
    whole = value.strip()
    yield from (line.strip().encode() for line in whole.splitlines())
    for text in {value, whole}:
        yield from _in_base64(text.encode())
        yield json.dumps(text)[1:-1].encode()
        yield json.dumps(text, ensure_ascii=False)[1:-1].encode()
    if "\n" not in whole:
        for quoted in (quote(whole, safe=""), quote(whole), quote_plus(whole)):
            yield quoted.encode()
            yield _with_lower_case_escapes(quoted).encode()


def _in_base64(raw: bytes) -> Iterator[bytes]:
    """base64 at each alignment, as in `user:value`: the digits that depend on the value only."""
    for before in range(3):
        first = (0, 2, 3)[before]
        digits = base64.b64encode(b"\0" * before + raw).rstrip(b"=")
        inside = digits[first : len(digits) - (1 if (before + len(raw)) % 3 else 0)]
        for form in (inside, digits) if before == 0 else (inside,):
            yield form
            yield form.translate(_URL_SAFE)


def _with_lower_case_escapes(quoted: str) -> str:
    first, *others = quoted.split("%")
    return "%".join([first, *(other[:2].lower() + other[2:] for other in others)])
