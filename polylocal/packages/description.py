"""The name, version and type of a package of any kind. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

_MAX_EPOCH = 2**31


@dataclass(frozen=True)
class Description:
    """The metadata of a package.

    `epoch`: None: the package has none. `parts`: the names of the other files of a source package. `requires_python`:
    the version specifier of a Python distribution.
    """

    name: str
    type: str  # source, binary
    epoch: int | None
    version: str
    release: str
    parts: Sequence[str] = ()
    requires_python: str | None = None


def is_epoch(text: str) -> bool:
    """Whether a text is a valid epoch: decimal digits, below 2³¹."""
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < _MAX_EPOCH
