"""Text or object → data, and the line of every path in it. Pure."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from polylocal.errors import InvalidPolyaxonfile

# PyYAML lets the errors of its converters through, for `!!int ""` or `!!timestamp x`
_YAML_FAULTS = (yaml.YAMLError, ValueError, LookupError, ArithmeticError, AttributeError, TypeError, RecursionError)

MAX_TEXT = 1_000_000  # characters
MAX_VALUES = 50_000
MAX_DEPTH = 50

Path = tuple[str | int, ...]
Lines = Mapping[Path, int]


def read(source: object) -> tuple[dict[str, Any], Lines]:
    """A polyaxonfile as data, with 1-based line numbers by path (empty for objects).

    Takes a mapping, a list of mappings (later ones merge over earlier ones), or a text that is YAML, JSON or a
    Python literal: some clients send `repr(dict)`. Raises InvalidPolyaxonfile.
    """
    lines: Lines = {}
    if isinstance(source, str):
        if len(source) > MAX_TEXT:
            raise InvalidPolyaxonfile([f"The polyaxonfile has {len(source)} characters, more than {MAX_TEXT}."])
        source, lines = _read_text(source)
    _check_size(source)
    parts = source if isinstance(source, list) else [source]
    merged: dict[str, Any] = {}
    for part in parts or [None]:
        if not isinstance(part, dict):
            raise InvalidPolyaxonfile([f"A polyaxonfile is a mapping of sections, this is {_name_of(part)}."])
        merged = merge(merged, part)
    return merged, lines if len(parts) == 1 else {}


def line_of(path: Path, lines: Lines) -> int | None:
    """The line of a path, or of the nearest part of it that stands in the text."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path) if path else None


def _read_text(text: str) -> tuple[object, Lines]:
    if text.lstrip().startswith(("{", "[")):
        for load in (_load_json, ast.literal_eval):
            try:
                return load(text), _lines_or_none(text)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue  # another notation, or none: YAML's error message is the best of the three
    try:
        return yaml.load(text, Loader=_Loader), _lines(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidPolyaxonfile([f"{where}not valid YAML: {error.problem or error.context}"]) from error
    except _YAML_FAULTS as error:
        raise InvalidPolyaxonfile([f"not valid YAML: {error}"]) from error


def _load_json(text: str) -> object:
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(word: str) -> object:
    raise InvalidPolyaxonfile([f"`{word}` is not a number that can be kept; write a finite one, or a text in quotes"])


class _Loader(yaml.SafeLoader):
    """Plain data only: what looks like a date is text, and there are no sets, pairs or binaries. `1:5:1` is text as
    well: YAML 1.1 takes it for a number to the base of 60, and people mean a range by it."""


# PyYAML's own patterns without the forms that have colons
_INT = re.compile(r"^(?:[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_PATTERNS = {"tag:yaml.org,2002:int": _INT, "tag:yaml.org,2002:float": _FLOAT}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, _PATTERNS.get(tag, pattern)) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
}


def _check_size(value: object) -> None:
    """Bounds on what a text can unfold into: aliases make bombs and loops out of a few lines."""
    left, stack = MAX_VALUES, [(value, 0)]
    while stack:
        item, depth = stack.pop()
        left -= 1
        if left < 0:
            raise InvalidPolyaxonfile([f"The polyaxonfile unfolds into more than {MAX_VALUES} values."])
        if depth > MAX_DEPTH:
            raise InvalidPolyaxonfile([f"The polyaxonfile is nested more than {MAX_DEPTH} levels deep."])
        if isinstance(item, float) and not math.isfinite(item):
            raise InvalidPolyaxonfile([f"`{item}` is not a number that can be kept; write a finite one."])
        if isinstance(item, dict):
            stack += [(child, depth + 1) for child in (*item.keys(), *item.values())]
        elif isinstance(item, list | tuple | set):
            stack += [(child, depth + 1) for child in item]
        elif isinstance(item, str) and not _is_text(item):
            raise InvalidPolyaxonfile([f"{item!a:.100} holds half a character."])
        elif not isinstance(item, str | int | float | bool | None):
            raise InvalidPolyaxonfile([f"`{item!r:.100}` is no value of a polyaxonfile."])


def _is_text(value: str) -> bool:
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _lines_or_none(text: str) -> Lines:
    try:
        return _lines(text)
    except _YAML_FAULTS:
        return {}  # a Python literal need not be YAML; its errors come without lines


def _lines(text: str) -> Lines:
    found: dict[Path, int] = {}
    stack: list[tuple[Path, yaml.Node | None]] = [((), yaml.compose(text, Loader=yaml.SafeLoader))]
    seen: set[int] = set()  # an alias leads to the same node again
    while stack:
        path, node = stack.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        found.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = str(key.value)
                found[(*path, name)] = key.start_mark.line + 1
                stack.append(((*path, name), value))
        elif isinstance(node, yaml.SequenceNode):
            stack.extend(((*path, index), value) for index, value in enumerate(node.value))
    return found


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, mapping by mapping: how a restart's polyaxonfile changes the original's."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _name_of(value: object) -> str:
    return "empty" if value is None else f"a {type(value).__name__}"
