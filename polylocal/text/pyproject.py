"""Parses an untrusted pyproject.toml. Pure."""

import re
import tomllib
from typing import Any

_MAX_PARTS = 100  # parts of a dotted key; the parser needs memory quadratic in their number
_LONG_KEY = re.compile(rf"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){{{_MAX_PARTS}}}""", re.ASCII)


def load(text: str | None) -> dict[str, Any]:
    """Parse a file; None counts as empty. Raises ValueError with a message that names the file."""
    if _LONG_KEY.search(text or ""):
        raise ValueError(f"pyproject.toml has a key of more than {_MAX_PARTS} parts")
    try:
        return tomllib.loads(text or "")
    except (ValueError, RecursionError) as error:  # ValueError also for numbers with too many digits
        raise ValueError(f"pyproject.toml is not TOML: {' '.join(str(error).split())}") from error


def table(data: Any, *names: str) -> dict[str, Any]:
    """The nested table with these names; empty if it does not exist."""
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}
