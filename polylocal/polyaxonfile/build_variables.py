"""Environment variables of a build: `env_vars`, and the ENV instructions that set them. Pure.

The builders' grammar is moby/buildkit's `frontend/dockerfile/parser` and `frontend/dockerfile/shell`. The documents use
the form `ENV NAME VALUE`. It stays for every value that it does not change. Other values get the form
`ENV NAME="VALUE"`: in it `\\"`, `\\$` and `\\\\` stand for the second character, and all builders read it alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_LINE = 65_535  # bytes of one line of a Dockerfile, for the builders' parser

# the spaces of Go's unicode.IsSpace, which builders strip from both ends of a plain value
_SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_BYTE_ORDER_MARK = "\ufeff"  # the builders' scanner drops it at the start of a word
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIGNS = re.compile(r"\$+|\}")
_WHOLE = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*(?:[#%/][^\"'\\${}\s]*)?\}")  # `${NAME}`, and newer forms with a pattern
_OPENING = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(:?[-+?])")
_IN_A_NAME = re.compile(r"[\s\x00-\x1f\x7f=]")
_PLAIN_NAME = re.compile(r"(?!--)[^\"'\\$]+")
_MAX_DEPTH = 10  # levels of nested substitutions

Problems = list[tuple[tuple[str | int, ...], str]]
_REFUSED = {"\n": "a line end", "\r": "a carriage return", "\0": "a NUL character"}
_QUOTING = "\"'\\$"


def instruction(name: object, value: object) -> str:
    """The ENV instruction that sets a variable. `problem` must have found no problem in the pair."""
    plain, text = str(name), str(value)
    word = _escape(_parse(text))
    is_bare = word == text and "'" not in text and text == text.strip(_SPACES) and text[:1] != _BYTE_ORDER_MARK
    if text and is_bare and _PLAIN_NAME.fullmatch(plain):
        return f"ENV {plain} {text}"
    return f'ENV {_escape_name(plain)}="{word}"'


def expand(variables: Sequence[Sequence[Any]] | None, inherited: Mapping[str, str]) -> dict[str, str]:
    """The values that a build gives to its variables. They can use `inherited` (of the base image) and earlier ones."""
    found: dict[str, str] = {}
    for name, value in variables or ():
        found[str(name)] = _fill(_parse(str(value)), {**inherited, **found})
    return found


def problem(name: object, value: object) -> str:
    """The reason why no Dockerfile can set the variable, as a sentence; "": there is none."""
    name, value = str(name), str(value)
    if not name:
        return "A variable needs a name."
    if _IN_A_NAME.search(name):
        return f"`{name[:100]}` can't be the name of a variable: it has a blank, a control character or `=`."
    if found := next((word for sign, word in _REFUSED.items() if sign in value), None):
        return f"The value of `{name[:100]}` has {found}, which no Dockerfile can set: put it into a file of the code."
    size = len(instruction(name, value).encode())
    if size > MAX_LINE:
        return f"`{name[:100]}` takes {size} bytes, and a line of a Dockerfile has at most {MAX_LINE}."
    return ""


def problems(variables: Sequence[Sequence[Any]] | None) -> Problems:
    """The problems of `build.env_vars`, with their paths."""
    found = ((index, problem(name, value)) for index, (name, value) in enumerate(variables or ()))
    return [(("build", "env_vars", index), text) for index, text in found if text]


@dataclass(frozen=True)
class _Substitution:
    """A substitution, such as `${NAME}` or `${NAME:-word}`. `text`: its source; "": it has an operator and a word."""

    name: str
    operator: str = ""
    word: Sequence[str | _Substitution] = ()
    text: str = ""


def _parse(text: str) -> list[str | _Substitution]:
    """Split a value into plain texts and substitutions, as builders do.

    A `$` that begins no substitution is plain, and so is each `$` in a row of several. A backslash before a
    substitution makes it plain, and is dropped.
    """
    parts: list[str | _Substitution] = []
    opened: list[tuple[list[str | _Substitution], str, str, str]] = []  # parts before, source, name, operator
    begin = place = 0
    while sign := _SIGNS.search(text, place):
        start, place = sign.span()
        found: _Substitution | None = None
        if sign[0] == "$" and _begins_substitution(text, place) and _is_escaped(text, begin, start):
            parts.append(text[begin : start - 1])
            begin = start
        elif sign[0] == "}" and opened:
            before, _, name, operator = opened.pop()
            word, parts = [*parts, text[begin:start]], before
            found, begin = _Substitution(name, operator, word), start
        elif sign[0] == "$" and (whole := _WHOLE.match(text, place)):
            name = _NAME.match(text, place + 1)[0]  # type: ignore[index]  # _WHOLE begins with a name
            found, place = _Substitution(name, text=f"${whole[0]}"), whole.end()
        elif sign[0] == "$" and (bare := _NAME.match(text, place)):
            # for builders, a name can have letters of any script
            is_longer = text[bare.end() : bare.end() + 1] > "\x7f"
            found, place = _Substitution(bare[0], text=f"${{{bare[0]}}}" if is_longer else f"${bare[0]}"), bare.end()
        elif sign[0] == "$" and len(opened) < _MAX_DEPTH and (opening := _OPENING.match(text, place)):
            opened.append(([*parts, text[begin:start]], text[start : opening.end()], opening[1], opening[2]))
            parts, begin, place = [], opening.end(), opening.end()
        if found:
            parts += [text[begin:start], found]
            begin = place
    parts.append(text[begin:])
    while opened:  # the closing brace is missing
        before, plain, _, _ = opened.pop()
        parts = [*before, plain, *parts]
    return parts


def _begins_substitution(text: str, place: int) -> bool:
    return any(pattern.match(text, place) for pattern in (_NAME, _WHOLE, _OPENING))


def _is_escaped(text: str, begin: int, place: int) -> bool:
    before = text[begin:place]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _escape(parts: Sequence[str | _Substitution], signs: str = '"\\$') -> str:
    """The value for use in double quotes. `signs`: the characters to escape in its plain parts."""
    return "".join(
        re.sub(f"[{re.escape(signs)}]", r"\\\g<0>", part) if isinstance(part, str) else _source(part) for part in parts
    )


def _source(part: _Substitution) -> str:
    if part.text:
        return part.text
    return f"${{{part.name}{part.operator}{_escape(part.word, _QUOTING)}}}"


def _fill(parts: Sequence[str | _Substitution], variables: Mapping[str, str]) -> str:
    """The value with its variables replaced."""
    return "".join(part if isinstance(part, str) else _value(part, variables) for part in parts)


def _value(part: _Substitution, variables: Mapping[str, str]) -> str:
    if part.text and not part.text.endswith(part.name) and part.text != f"${{{part.name}}}":
        return part.text  # with a pattern, which is not expanded
    value = variables.get(part.name)
    is_set = bool(value) if part.operator.startswith(":") else value is not None
    if part.operator.endswith("+"):
        return _fill(part.word, variables) if is_set else ""
    if part.operator.endswith("-") and not is_set:
        return _fill(part.word, variables)
    return value or ""


def _escape_name(name: str) -> str:
    return re.sub(r"[\"'\\$]|^--", lambda found: "".join(f"\\{sign}" for sign in found[0]), name)
