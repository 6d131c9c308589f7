"""What a package says of itself, whatever kind it is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    """What a package says of itself. `epoch` None: it names none. `parts`: files that belong to a source package.
    `requires_python`: of a distribution of Python's."""

    name: str
    type: str  # source, binary
    epoch: int | None
    version: str
    release: str
    parts: Sequence[str] = ()
    requires_python: str | None = None
