"""Forms as nested values, by the rules of Rails. Pure.

`build_list[project_id]=3&build_list[include_repos][]=1` → {"build_list": {"project_id": "3", "include_repos": ["1"]}}.
The last of several values of one name counts. `a[][b]=1` begins the next mapping of a list when the last one has `b`.
"""

import re
from collections.abc import Iterable
from typing import Any

from starlette.exceptions import HTTPException

Json = dict[str, Any]
MAX_DEPTH = 32
_NAME = re.compile(r"(?P<head>[^\[\]]+)(?P<inner>(?:\[[^\[\]]*\])+)")
_INNER = re.compile(r"\[([^\[\]]*)\]")


def nest(pairs: Iterable[tuple[str, object]]) -> Json:
    """Nest the fields of a form: texts or files. Raises HTTPException 400: two names exclude each other."""
    found: Json = {}
    for name, value in pairs:
        keys = _keys(name)
        if len(keys) > MAX_DEPTH:
            raise HTTPException(400, f"The field {name[:80]!r} is nested more than {MAX_DEPTH} deep.")
        if any(keys[at] == keys[at + 1] == "" for at in range(len(keys) - 1)):
            raise HTTPException(400, f"The field {name[:80]!r} names a list in a list.")
        try:
            _insert(found, keys, value)
        except TypeError as error:
            raise HTTPException(
                400, f"The field {name[:80]!r} is given twice, in ways that exclude each other."
            ) from error
    return found


def _keys(name: str) -> list[str]:
    """`a[b][]` → ["a", "b", ""]. Any other name is one key."""
    fits = _NAME.fullmatch(name)
    return [fits["head"], *_INNER.findall(fits["inner"])] if fits else [name]


def _insert(into: Json, keys: list[str], value: object) -> None:
    """Raises TypeError: the place has a value of another kind."""
    key, *rest = keys
    if not rest:
        if isinstance(into.get(key), dict | list):
            raise TypeError(key)
        into[key] = value
    elif rest[0]:
        _insert(_require_type(dict, into.setdefault(key, {})), rest, value)
    else:
        items = _require_type(list, into.setdefault(key, []))
        if len(rest) == 1:
            items.append(value)
            return
        if not items or not isinstance(items[-1], dict) or _would_replace(items[-1], rest[1:]):
            items.append({})
        _insert(items[-1], rest[1:], value)


def _would_replace(there: object, keys: list[str]) -> bool:
    """Whether a value for these keys would replace another one."""
    for key in keys:
        if key == "":  # lists grow
            return False
        if not isinstance(there, dict) or key not in there:
            return False
        there = there[key]
    return True


def _require_type(kind: type, there: Any) -> Any:
    if not isinstance(there, kind):
        raise TypeError(kind.__name__)
    return there
