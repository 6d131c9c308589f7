"""Scalars of a polyaxonfile in YAML whose written form matters: continued lines of commands, and numbers. Pure.

A plain, quoted or folded scalar over several lines comes out of a YAML reader as one line. A backslash that continued
a line then stands in the middle of it, where a shell takes it for an escaped blank.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from polylocal.polyaxonfile import commands

_COMMANDS = ("cmd", "build_steps")  # keys of the values that a shell reads
_SECTIONS = (*_COMMANDS, "run", "build", "<<")  # in which these stand; a param may have the same name
_NUMBERS = ("params", "declarations", "inputs", "outputs", "hptuning")  # sections whose values are computed with
_PLAIN = (None, "")  # as the loaders in Python and in C tell it
_HASHES = ("commit", "branch", "ref")  # a name of seven digits is no number

_BREAK = re.compile("(\r\n|[\r\n\x85\u2028\u2029])")  # as YAML 1.1 has them
_CONTINUED = re.compile("\\\\[ \t]*(?:[\r\n\x85\u2028\u2029]|$)")
_LAST_BACKSLASH = re.compile(r"(?<!\\)((?:\\\\)*)\\(?=[ \t]*$)")
_LAST_IN_QUOTES = re.compile(r"(?<!\\)((?:\\\\\\\\)*)\\\\(?=[ \t]*$)")  # double ones: there each is written as two
# YAML 1.2 (Core schema, 10.3.2) reads these as numbers, YAML 1.1 as texts
_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+")
_STR, _INT, _NUMBER, _BOOL = (f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool"))


def may_have_folds(text: str) -> bool:
    return _CONTINUED.search(text) is not None


def marked(text: str, nodes: Sequence[yaml.Node]) -> tuple[str, str]:
    """The text with a character of its own in the place of each backslash that continues a line of a folded command,
    and that character; `nodes` are the documents of the text."""
    marker = next(sign for sign in map(chr, range(0xE000, 0xF8FF)) if sign not in text)
    pieces = _BREAK.split(text)  # lines at even places, their ends between them
    for node in {id(scalar): scalar for root in nodes for scalar in _command_scalars(root)}.values():
        backslash = _LAST_IN_QUOTES if node.style == '"' else _LAST_BACKSLASH
        for line in range(node.start_mark.line, node.end_mark.line):
            pieces[2 * line] = backslash.sub(lambda found: found[1] + marker, pieces[2 * line])
    return "".join(pieces), marker


def joined(value: Any, marker: str) -> Any:
    """The data of a marked text: a marker and the fold behind it are one blank, any other is a backslash again.

    Lines of a folded text that are indented deeper keep their ends: their backslashes stay, too.
    """
    if isinstance(value, str):
        return re.sub(f"[ \t]*{marker}[ \t]+(?![ \t\n])", " ", value).replace(marker, "\\")
    if isinstance(value, list):
        return [joined(item, marker) for item in value]
    if isinstance(value, dict):
        return {joined(key, marker): joined(item, marker) for key, item in value.items()}
    return value


def unfolded(data: Any) -> Any:
    """Data that another reader has made of YAML, with the backslashes taken out that it left in commands."""
    if isinstance(data, list):  # later mappings go over earlier ones
        return [_sections_unfolded(part) for part in data]
    return _sections_unfolded(data)


def retag(root: yaml.Node) -> None:
    """Has numbers of YAML 1.2 read as such in the sections that hold values, and names of commits and variables of a
    run as the texts that they were written as; of variables of a build the names."""
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
            node.value = [(name, _words(value) if name.value == "env_vars" else value) for name, value in node.value]
        else:  # a build may be written flat
            _keep_text(key, node)
            _keep_names(key, node)


def _words(node: yaml.Node) -> yaml.Node:
    """A copy, since an alias may have its numbers elsewhere as well. `1.10`, `on` and `0777` in a variable are what a
    shell would make of them."""
    copied = copy.deepcopy(node)
    for scalar in _scalars(copied):
        if scalar.style in _PLAIN and scalar.tag in (_INT, _NUMBER, _BOOL):
            scalar.tag = _STR
    return copied


def _keep_names(key: str, node: yaml.Node) -> None:
    """Of the variables of a build, which are pairs: `NO` and `ON` are names, and no booleans."""
    for pair in node.value if key == "env_vars" and isinstance(node, yaml.SequenceNode) else ():
        if isinstance(pair, yaml.SequenceNode) and pair.value:
            pair.value = [_words(pair.value[0]), *pair.value[1:]]


def _keep_text(key: str, node: yaml.Node) -> None:
    """A build may also be named by its number, with `ref`."""
    is_plain = key in _HASHES and isinstance(node, yaml.ScalarNode) and node.style in _PLAIN
    if is_plain and (node.tag == _NUMBER or (node.tag == _INT and key != "ref")):
        node.tag = _STR


def _sections_unfolded(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    return {key: _unfolded(value, key in _COMMANDS) if key in _SECTIONS else value for key, value in data.items()}


def _unfolded(value: Any, is_command: bool) -> Any:
    if isinstance(value, str):
        return commands.unfolded(value) if is_command else value
    if isinstance(value, list):
        return [_unfolded(item, is_command) for item in value] if is_command else value
    if isinstance(value, dict):
        return {key: _unfolded(item, is_command or key in _COMMANDS) for key, item in value.items()}
    return value


def _command_scalars(root: yaml.Node) -> Iterator[yaml.ScalarNode]:
    for part in root.value if isinstance(root, yaml.SequenceNode) else [root]:
        for section, below in _pairs(part):
            if section in _COMMANDS:
                yield from _folded(below)
            elif section in _SECTIONS:
                named = (pair for node in _all(below) for pair in _pairs(node))
                yield from (scalar for key, value in named if key in _COMMANDS for scalar in _folded(value))


def _folded(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    return (scalar for scalar in _scalars(node) if scalar.style != "|")


def _pairs(node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((str(key.value), value) for key, value in node.value)


def _scalars(root: yaml.Node) -> Iterator[yaml.ScalarNode]:
    return (node for node in _all(root) if isinstance(node, yaml.ScalarNode))


def _all(root: yaml.Node) -> Iterator[yaml.Node]:
    """A node and those below it, each once: aliases make loops."""
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
