"""Hides secret values in what programs write: each as a whole, with as many asterisks as it has bytes. Pure.

The length stays, so that positions in a log mean the same as in what the engine has stored.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote

LEAST_HIDDEN = 8  # characters: a shorter value is a word that others use too, and is not hidden


class Mask:
    """Hides values line by line, also as base64 or in a URL; shorter ones than `LEAST_HIDDEN` are left alone."""

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values for form in _forms(value) if len(form) >= LEAST_HIDDEN}
        parts = sorted(forms, key=len, reverse=True)  # the longest first: no rest of one stays
        self._pattern = re.compile(b"|".join(map(re.escape, parts))) if parts else None
        self._beginnings = {part[:length] for part in parts for length in range(1, len(part))}
        self._longest = len(parts[0]) if parts else 0

    def __bool__(self) -> bool:
        return self._pattern is not None

    def hide(self, data: bytes) -> bytes:
        return self._pattern.sub(lambda found: b"*" * len(found[0]), data) if self._pattern else data

    def certain(self, data: bytes) -> int:
        """How many bytes of `data` can be judged: what comes after may be the beginning of a value, or of a longer one,
        whose rest has not come yet."""
        room = min(len(data), self._longest - 1)
        cut = len(data) - next((n for n in range(room, 0, -1) if data[-n:] in self._beginnings), 0)
        for found in self._pattern.finditer(data) if self._pattern else ():
            if found.start() < cut < found.end():
                return found.start()
        return cut


class Masked:
    """One stream of a program as it comes. Values come torn: what may be the beginning of one waits for the rest."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = b""

    def __call__(self, data: bytes) -> bytes:
        if not self._mask:
            return data
        whole = self._held + data
        cut = self._mask.certain(whole)
        self._held = whole[cut:]
        return self._mask.hide(whole[:cut])

    def rest(self) -> bytes:
        """What was held back, when nothing more comes."""
        held, self._held = self._held, b""
        return self._mask.hide(held)


def _forms(value: str) -> Iterable[bytes]:
    whole = value.strip().encode()
    yield from (line.strip() for line in whole.splitlines())
    yield base64.b64encode(value.encode()).rstrip(b"=")
    yield base64.b64encode(whole).rstrip(b"=")
    if b"\n" not in whole:
        yield quote(whole, safe="").encode()
