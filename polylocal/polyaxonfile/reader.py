"""Reads a text or an object as plain data, with the line of every path in the text. Pure."""

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from polylocal.errors import InvalidPolyaxonfile
from polylocal.polyaxonfile import scalars, variables
from polylocal.text import bounded_json

# PyYAML does not catch the errors of its converters, for example for `!!int ""` or `!!timestamp x`
_YAML_FAULTS = (yaml.YAMLError, ValueError, LookupError, ArithmeticError, AttributeError, TypeError, RecursionError)

MAX_TEXT = 1_000_000  # characters
MAX_VALUES = 50_000
MAX_DEPTH = 50
MAX_BITS = 4096  # of a whole number; Python limits the digits of `str(int)`
MAX_OTHER_KEYS = 1000

MAX_TOKENS = 3 * MAX_VALUES  # of a Python literal: each value has a comma or a colon, and perhaps brackets

# the tokens that `repr` writes for plain data: Python's parser takes minutes for a megabyte of f-strings, for example
_VALUE = r"""(?P<value>[bu]?(?:''(?!')|""(?!")|'(?:[^'\\]|\\.)++'|"(?:[^"\\]|\\.)++")|(?:True|False|None)\b"""
_VALUE += r"|[0-9][0-9a-zA-Z_.]*+(?:(?<=[eE])[-+][0-9]++)?|\.[0-9]++)"
_LITERAL = re.compile(rf"(?:{_VALUE}|(?P<open>[\[{{(])|(?P<close>[\]}})])|(?P<between>[,:])|-)\s*+", re.DOTALL)
_YAML_SIGNS = ("#", "&", "|", ">")
Path = tuple[str | int, ...]
Lines = Mapping[Path, int]
_TOO_MANY = f"The polyaxonfile unfolds into more than {MAX_VALUES} values."
_TOO_DEEP = f"The polyaxonfile is nested more than {MAX_DEPTH} levels deep."


class Document(NamedTuple):
    """One document of a text: its data, and the line of each path, counted from the start of the text, from 1."""

    data: Any
    lines: Lines


def read(source: object) -> tuple[dict[str, Any], Lines]:
    """Read a polyaxonfile as data, with 1-based line numbers by path (empty for objects).

    `source`: a mapping, a list of mappings, or a text in YAML, in JSON or as a Python literal: some clients send
    `repr(dict)`. Later mappings of a list, and later documents of a YAML text, are merged over the earlier ones. Raises
    InvalidPolyaxonfile.
    """
    documents: Sequence[Document]
    if isinstance(source, str):
        _check_length(source)
        documents = _read_text(source)
    else:
        documents = [Document(scalars.unfold(source), {})]
    _check_size([document.data for document in documents])
    parts = [part for document in documents for part in _mappings(document)]
    merged, lines = parts[0] if parts else Document(None, {})
    for part in parts:
        if not isinstance(part.data, dict):
            what = "empty" if part.data is None else f"a {type(part.data).__name__}"
            raise InvalidPolyaxonfile([f"A polyaxonfile is a mapping of sections, this is {what}."])
    for part in parts[1:]:
        lines = _merge_lines(lines, part)
        merged = merge(merged, part.data)
    return merged if len(parts) > 1 else dict(merged), lines


def load(text: str) -> object:
    """Read a YAML text as plain data, with the size limits of a polyaxonfile. Raises InvalidPolyaxonfile."""
    _check_length(text)
    documents = _read_yaml(text)
    if len(documents) > 1:
        raise InvalidPolyaxonfile(["not valid YAML: expected a single document in the stream"])
    _check_size(documents[0].data)
    return documents[0].data


def value(text: str) -> object:
    """Read the value of an argument `name=value` as a polyaxonfile would. A text that is not YAML stays a text.

    So does a text that starts with a sign of YAML for a comment, an anchor or a block.
    """
    if text.lstrip().startswith(_YAML_SIGNS):
        return text
    try:
        found = read(f"params:\n  value: {text}")[0]["params"]
    except InvalidPolyaxonfile:
        return text
    return found["value"] if isinstance(found, dict) and len(found) == 1 else text


def _check_length(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise InvalidPolyaxonfile([f"The polyaxonfile has {len(text)} characters, more than {MAX_TEXT}."])


def _mappings(document: Document) -> list[Document]:
    """The documents of a list of mappings, or the document itself."""
    if not isinstance(document.data, list):
        return [document]
    return [Document(part, {}) for part in document.data] or [Document(None, {})]


def _merge_lines(below: Lines, above: Document) -> Lines:
    """Merge the lines of two documents. A value of `above` that is not a mapping replaces all lines below its path."""
    whole = {path for path in above.lines if not isinstance(_value_at(above.data, path), dict)}
    kept = {
        path: line for path, line in below.items() if not any(path[:count] in whole for count in range(1, len(path)))
    }
    return {**kept, **above.lines}


def _value_at(data: Any, path: Path) -> Any:
    for part in path:
        try:
            data = data[part]
        except (LookupError, TypeError):
            return None
    return data


def line_of(path: Path, lines: Lines) -> int | None:
    """The line of a path, or of its nearest parent that is in the text. None: there is none."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path) if path else None


def _read_text(text: str) -> Sequence[Document]:
    if text.lstrip().startswith(("{", "[")):
        for load in (_load_json, _load_literal):
            try:
                found = load(text)
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                continue  # try the next notation; of the three error messages, YAML's is the best
            _check_size(found)
            return [Document(scalars.unfold(found), _lines_or_none(text))]
    return _read_yaml(text)


def _read_yaml(text: str) -> Sequence[Document]:
    try:
        return _load_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidPolyaxonfile([f"{where}not valid YAML: {error.problem or error.context}"]) from error
    except _YAML_FAULTS as error:
        raise InvalidPolyaxonfile([f"not valid YAML: {error}"]) from error


def _load_json(text: str) -> object:
    bounded_json.check(text, MAX_VALUES, MAX_VALUES, MAX_DEPTH)  # raises ValueError: then the next notation is tried
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(word: str) -> object:
    raise InvalidPolyaxonfile([f"`{word}` is not a number that can be stored; write a finite one, or a text in quotes"])


def _load_literal(text: str) -> object:
    _check_literal(text.strip())
    tree = ast.parse(text.strip(), mode="eval")
    keys = (key for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys)
    _check_keys(sum(not (isinstance(key, ast.Constant) and isinstance(key.value, str)) for key in keys))
    return ast.literal_eval(tree)


def _check_literal(text: str) -> None:
    """Raises ValueError: the text is not a Python literal; InvalidPolyaxonfile: it has too many tokens."""
    place, left, is_complete = 0, MAX_TOKENS, False  # is_complete: a comma, a colon or a bracket must follow
    while place < len(text):
        found = _LITERAL.match(text, place)
        kind = found.lastgroup if found else None
        if found is None or (is_complete and kind not in ("between", "close")):
            raise ValueError("no literal of Python")
        place, left, is_complete = found.end(), left - 1, kind in ("value", "close")
        if left < 0:  # Python's parser takes a kilobyte for each token
            raise InvalidPolyaxonfile([_TOO_MANY])


def _check_keys(other: int) -> None:
    """Limit keys that are not strings: colliding numbers make a dict slow. Raises InvalidPolyaxonfile."""
    if other > MAX_OTHER_KEYS:
        raise InvalidPolyaxonfile([f"The polyaxonfile has more than {MAX_OTHER_KEYS} names that are not texts."])


def _load_yaml(text: str) -> Sequence[Document]:
    _check_events(text)
    if not scalars.may_have_folds(text):
        return _documents(text)
    marked, marker = scalars.mark(text, [node for _, node in _nodes(text)])
    return [Document(scalars.unmark(document.data, marker), document.lines) for document in _documents(marked)]


def _documents(text: str) -> list[Document]:
    found = []
    for loader, node in _nodes(text):
        scalars.retag(node)
        lines = _lines(node)  # before merge keys are resolved
        found.append(Document(loader.construct_document(node), lines))
    written = [document for document in found if document.data is not None]
    return written or found or [Document(None, {})]


def _nodes(text: str) -> Iterator[tuple[Any, yaml.Node]]:
    """Yield the node of each document, with its loader."""
    loader = _Loader(text)
    try:
        while loader.check_node():
            yield loader, loader.get_node()
    finally:
        loader.dispose()


def _check_events(text: str) -> None:
    """Limit the size of a text before its composition. Raises InvalidPolyaxonfile.

    Deep nesting overflows the stack of libyaml's composer, and PyYAML's takes a second for some thousand values.
    """
    left, depth = MAX_VALUES, 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.NodeEvent):
            left -= 1
        if left < 0:
            raise InvalidPolyaxonfile([_TOO_MANY])
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH + 1:
            raise InvalidPolyaxonfile([_TOO_DEEP])


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the base depends on the wheel
    """Loads plain data only: a date is a string, and sets, pairs and binary data are errors.

    `1:5:1` is a string, too: in YAML 1.1 it is a number in base 60, but users mean a range.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._merged = self._other_keys = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Limit nested merge keys: their sizes multiply, so ten lines can exceed the memory."""
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                several = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for one in several:
                    if isinstance(one, yaml.MappingNode):
                        self.flatten_mapping(one)
                        self._merged += 1 + len(one.value)
                    if self._merged > MAX_VALUES:
                        raise InvalidPolyaxonfile([_TOO_MANY])
        super().flatten_mapping(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self._other_keys += sum(key.tag != "tag:yaml.org,2002:str" for key, _ in node.value)
        _check_keys(self._other_keys)
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return made


# PyYAML's patterns without the forms with colons
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
    """Limit the size of the data: aliases can make a few lines huge or endless. Raises InvalidPolyaxonfile."""
    left, characters, stack = MAX_VALUES, MAX_TEXT, [(value, 0)]
    while stack:
        item, depth = stack.pop()
        left -= 1
        if left < 0:
            raise InvalidPolyaxonfile([_TOO_MANY])
        if depth > MAX_DEPTH:
            raise InvalidPolyaxonfile([_TOO_DEEP])
        if isinstance(item, dict):
            stack += [(child, depth + 1) for child in (*item.keys(), *item.values())]
        elif isinstance(item, list | tuple | set):
            stack += [(child, depth + 1) for child in item]
        else:
            characters -= _check_scalar(item)
        if characters < 0:
            raise InvalidPolyaxonfile([f"The texts of the polyaxonfile unfold into more than {MAX_TEXT} characters."])


def _check_scalar(item: object) -> int:
    """The number of characters of a scalar. Raises InvalidPolyaxonfile: the scalar can't be stored."""
    if isinstance(item, float) and not math.isfinite(item):
        raise InvalidPolyaxonfile([f"`{item}` is not a number that can be stored; write a finite one."])
    if isinstance(item, int) and item.bit_length() > MAX_BITS:
        raise InvalidPolyaxonfile([f"A number of {item.bit_length()} bits can't be stored; write a smaller one."])
    if isinstance(item, str) and not _is_text(item):
        raise InvalidPolyaxonfile([f"{item!a:.100} contains half of a surrogate pair."])
    if not isinstance(item, str | int | float | bool | None):
        raise InvalidPolyaxonfile([f"`{item!r:.100}` is not a valid value in a polyaxonfile."])
    return len(item) if isinstance(item, str) else 0


def _is_text(value: str) -> bool:
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _lines_or_none(text: str) -> Lines:
    try:
        _check_events(text)
        return _lines(yaml.compose(text, Loader=_Loader))
    except (*_YAML_FAULTS, InvalidPolyaxonfile):
        return {}  # a Python literal may not be YAML; then errors have no lines


def _lines(top: yaml.Node | None) -> Lines:
    found: dict[Path, int] = {}
    stack: list[tuple[Path, yaml.Node | None]] = [((), top)]
    seen: set[int] = set()  # aliases can make loops
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
    """Merge `above` over `below`, mapping by mapping. Restarts apply changes to the original file with it."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if key == "env_vars" and isinstance(value, dict):  # a list of pairs, the other form
            old = variables.as_mapping(old)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
