"""What a package says of itself, whatever kind it is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_MOST_EPOCH = 2**31


@dataclass(frozen=True)
class Description:
    """`epoch` is None where the package names none. `parts`: the files that belong to a source package.
    `requires_python`: of a Python distribution."""

    name: str
    type: str  # source, binary
    epoch: int | None
    version: str
    release: str
    parts: Sequence[str] = ()
    requires_python: str | None = None


def is_epoch(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < _MOST_EPOCH
