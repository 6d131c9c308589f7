"""The text of a pyproject.toml, which anybody may have written, as a mapping. Pure."""

from __future__ import annotations

import re
import tomllib
from typing import Any

_MOST_PARTS = 100  # of a dotted key: the parser takes memory for each of them by the square of their number
_LONG_KEY = re.compile(rf"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){{{_MOST_PARTS}}}""", re.ASCII)


def load(text: str | None) -> dict[str, Any]:
    """None is an empty file. Raises ValueError, whose words name the file."""
    if _LONG_KEY.search(text or ""):
        raise ValueError(f"pyproject.toml has a key of more than {_MOST_PARTS} parts")
    try:
        return tomllib.loads(text or "")
    except (ValueError, RecursionError) as error:  # the first of a number with too many digits, too
        raise ValueError(f"pyproject.toml is no TOML: {' '.join(str(error).split())}") from error


def table(data: Any, *names: str) -> dict[str, Any]:
    """The table of these names, one in the other; an empty one where there is none."""
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}
