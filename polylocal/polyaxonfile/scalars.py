"""Corrects YAML scalars that would lose the meaning of their written form: continued commands, and numbers. Pure.

A YAML reader joins a plain, quoted or folded scalar on several lines into one line. A backslash that continued a line
is then in the middle of the line, where it escapes a blank in a shell.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from polylocal.polyaxonfile import commands

_COMMANDS = ("cmd", "build_steps")  # keys of shell commands
_SECTIONS = (*_COMMANDS, "run", "build", "<<")  # sections that can contain them; a param may have the same name
_NUMBERS = ("params", "declarations", "inputs", "outputs", "hptuning")  # sections whose values can be numbers
_PLAIN = (None, "")  # style of plain scalars in the loaders in Python and in C
_HASHES = ("commit", "branch", "ref")  # keys whose values are names, even if all characters are digits

_BREAK = re.compile("(\r\n|[\r\n\x85\u2028\u2029])")  # the line ends of YAML 1.1
_CONTINUED = re.compile("\\\\[ \t]*(?:[\r\n\x85\u2028\u2029]|$)")
_LAST_BACKSLASH = re.compile(r"(?<!\\)((?:\\\\)*)\\(?=[ \t]*$)")
_LAST_IN_QUOTES = re.compile(r"(?<!\\)((?:\\\\\\\\)*)\\\\(?=[ \t]*$)")  # in double quotes, a backslash is written twice
# numbers in YAML 1.2 (Core schema, 10.3.2), strings in YAML 1.1
_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+")
_STR, _INT, _NUMBER, _BOOL = (f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool"))


def may_have_folds(text: str) -> bool:
    """Whether a line of a text ends with a backslash, so that a reader may fold a continued line."""
    return _CONTINUED.search(text) is not None


def mark(text: str, nodes: Sequence[yaml.Node]) -> tuple[str, str]:
    """Replace each backslash that continues a line of a folded command with a marker, a character that is not in use.

    `nodes`: the documents of the text. Returns the text and the marker.
    """
    marker = next(sign for sign in map(chr, range(0xE000, 0xF8FF)) if sign not in text)
    pieces = _BREAK.split(text)  # lines at even indexes, line ends at odd ones
    for node in {id(scalar): scalar for root in nodes for scalar in _command_scalars(root)}.values():
        backslash = _LAST_IN_QUOTES if node.style == '"' else _LAST_BACKSLASH
        for line in range(node.start_mark.line, node.end_mark.line):
            pieces[2 * line] = backslash.sub(lambda found: found[1] + marker, pieces[2 * line])
    return "".join(pieces), marker


def unmark(value: Any, marker: str) -> Any:
    """Remove the markers from the data of a marked text.

    A marker before a fold becomes one blank. Any other becomes a backslash again: deeper indented lines of a folded
    scalar keep their line ends, and need their backslashes.
    """
    if isinstance(value, str):
        return re.sub(f"[ \t]*{marker}[ \t]+(?![ \t\n])", " ", value).replace(marker, "\\")
    if isinstance(value, list):
        return [unmark(item, marker) for item in value]
    if isinstance(value, dict):
        return {unmark(key, marker): unmark(item, marker) for key, item in value.items()}
    return value


def unfold(data: Any) -> Any:
    """Remove the backslashes of folded lines from the commands of data that a client read from YAML."""
    if isinstance(data, list):  # mappings to be merged
        return [unfold(part) for part in data]
    if not isinstance(data, dict):
        return data
    return {key: _unfold(value, key in _COMMANDS) if key in _SECTIONS else value for key, value in data.items()}


def retag(root: yaml.Node) -> None:
    """Change the types of scalars before they are converted.

    Numbers of YAML 1.2 become numbers in sections with values. Names of commits, variables of a run, and the names of
    variables of a build become strings.
    """
    for key, node in _pairs(root):
        if key in _NUMBERS:
            for scalar in _scalars(node):
                if scalar.style in _PLAIN and scalar.tag == _STR and _FLOAT.fullmatch(scalar.value):
                    scalar.tag = _NUMBER
        elif key == "build":
            for name, value in _pairs(node):
                _keep_text(name, value)
                _keep_names(name, value)
        elif key == "environment" and isinstance(node, yaml.MappingNode):
            node.value = [(name, _as_text(value) if name.value == "env_vars" else value) for name, value in node.value]
        else:  # a build file may lack the section `build`
            _keep_text(key, node)
            _keep_names(key, node)


def _as_text(node: yaml.Node) -> yaml.Node:
    """A copy of a node with strings instead of numbers and booleans: variables keep `1.10`, `on` and `0777` as written.

    The node itself does not change, because aliases may use it elsewhere.
    """
    copied = copy.deepcopy(node)
    for scalar in _scalars(copied):
        if scalar.style in _PLAIN and scalar.tag in (_INT, _NUMBER, _BOOL):
            scalar.tag = _STR
    return copied


def _keep_names(key: str, node: yaml.Node) -> None:
    """Make the names of a build's variables strings, such as `NO` and `ON`. The variables are pairs."""
    for pair in node.value if key == "env_vars" and isinstance(node, yaml.SequenceNode) else ():
        if isinstance(pair, yaml.SequenceNode) and pair.value:
            pair.value = [_as_text(pair.value[0]), *pair.value[1:]]


def _keep_text(key: str, node: yaml.Node) -> None:
    """Make the name of a commit or branch a string. An integer `ref` stays: it is the id of a build."""
    is_plain = key in _HASHES and isinstance(node, yaml.ScalarNode) and node.style in _PLAIN
    if is_plain and (node.tag == _NUMBER or (node.tag == _INT and key != "ref")):
        node.tag = _STR


def _unfold(value: Any, is_command: bool) -> Any:
    if isinstance(value, str):
        return commands.unfold(value) if is_command else value
    if isinstance(value, list):
        return [_unfold(item, is_command) for item in value] if is_command else value
    if isinstance(value, dict):
        return {key: _unfold(item, is_command or key in _COMMANDS) for key, item in value.items()}
    return value


def _command_scalars(root: yaml.Node) -> Iterator[yaml.ScalarNode]:
    for part in root.value if isinstance(root, yaml.SequenceNode) else [root]:
        for section, below in _pairs(part):
            if section in _COMMANDS:
                yield from _foldable(below)
            elif section in _SECTIONS:
                named = (pair for node in _all(below) for pair in _pairs(node))
                yield from (scalar for key, value in named if key in _COMMANDS for scalar in _foldable(value))


def _foldable(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    return (scalar for scalar in _scalars(node) if scalar.style != "|")


def _pairs(node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((str(key.value), value) for key, value in node.value)


def _scalars(root: yaml.Node) -> Iterator[yaml.ScalarNode]:
    return (node for node in _all(root) if isinstance(node, yaml.ScalarNode))


def _all(root: yaml.Node) -> Iterator[yaml.Node]:
    """Yield a node and its descendants, each once, because aliases can make loops."""
    stack, seen = [root], {id(root)}
    while stack:
        node = stack.pop()
        yield node
        below: Sequence[yaml.Node] = ()
        if isinstance(node, yaml.SequenceNode):
            below = node.value
        elif isinstance(node, yaml.MappingNode):
            below = [each for pair in node.value for each in pair]
        for each in below:
            if id(each) not in seen:
                seen.add(id(each))
                stack.append(each)
