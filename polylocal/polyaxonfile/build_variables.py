"""Environment variables of a build: `env_vars` and the ENV instructions that carry them. Pure.

The builders' grammar is moby/buildkit's `frontend/dockerfile/parser` and `frontend/dockerfile/shell`. The form
`ENV NAME VALUE` of the documents is kept for every value that it carries unchanged. The form `ENV NAME="VALUE"` carries
the others: in it `\\"`, `\\$` and `\\\\` stand for the second character, and all builders read it alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_LINE = 65_535  # bytes of one line of a Dockerfile, for the builders' parser

# what Go's unicode.IsSpace takes for a space: builders strip it from both ends of a plain value
_SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_BYTE_ORDER_MARK = "\ufeff"  # left out at the start of a word by the scanner of the builders
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIGNS = re.compile(r"\$+|\}")
_WHOLE = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*(?:[#%/][^\"'\\${}\s]*)?\}")  # `${NAME}`, and newer ones by pattern
_OPENING = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(:?[-+?])")
_IN_A_NAME = re.compile(r"[\s\x00-\x1f\x7f=]")
_PLAIN_NAME = re.compile(r"(?!--)[^\"'\\$]+")
_DEEPEST = 10  # substitutions inside each other

Problems = list[tuple[tuple[str | int, ...], str]]


def instruction(name: object, value: object) -> str:
    """The ENV instruction that sets a variable, for a pair without `problem`."""
    plain, text = str(name), str(value)
    word = _escaped(_parsed(text))
    is_bare = word == text and "'" not in text and text == text.strip(_SPACES) and text[:1] != _BYTE_ORDER_MARK
    if text and is_bare and _PLAIN_NAME.fullmatch(plain):
        return f"ENV {plain} {text}"
    return f'ENV {_escaped_name(plain)}="{word}"'


def expanded(variables: Sequence[Sequence[Any]] | None, inherited: Mapping[str, str]) -> dict[str, str]:
    """The same variables as a build sets them on top of `inherited`: each sees those before it."""
    found: dict[str, str] = {}
    for name, value in variables or ():
        found[str(name)] = _filled(_parsed(str(value)), {**inherited, **found})
    return found


def problem(name: object, value: object) -> str:
    """Why no environment takes the variable, as a sentence; "" if it does."""
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


_REFUSED = {"\n": "a line end", "\r": "a carriage return", "\0": "a NUL character"}


def problems(variables: Sequence[Sequence[Any]] | None) -> Problems:
    """Those of `build.env_vars`, with their paths."""
    found = ((index, problem(name, value)) for index, (name, value) in enumerate(variables or ()))
    return [(("build", "env_vars", index), text) for index, text in found if text]


# -- values ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Substitution:
    """`${NAME}`, or `${NAME:-word}` and its kin; `text` as builders read it, where it has no word."""

    name: str
    operator: str = ""
    word: Sequence[str | _Substitution] = ()
    text: str = ""


def _parsed(text: str) -> list[str | _Substitution]:
    """A value as plain texts and substitutions.

    A `$` that begins no substitution is plain, and so is each of several in a row. A backslash before one that does
    makes it plain, and is left out, as builders have it.
    """
    parts: list[str | _Substitution] = []
    opened: list[tuple[list[str | _Substitution], str, str, str]] = []  # what stands before, text, name, operator
    begin = place = 0
    while sign := _SIGNS.search(text, place):
        start, place = sign.span()
        found: _Substitution | None = None
        if sign[0] == "$" and _begins(text, place) and _is_escaped(text, begin, start):
            parts.append(text[begin : start - 1])
            begin = start
        elif sign[0] == "}" and opened:
            before, _, name, operator = opened.pop()
            word, parts = [*parts, text[begin:start]], before
            found, begin = _Substitution(name, operator, word), start
        elif sign[0] == "$" and (whole := _WHOLE.match(text, place)):
            name = _NAME.match(text, place + 1)[0]  # type: ignore[index]  # a whole one begins with it
            found, place = _Substitution(name, text=f"${whole[0]}"), whole.end()
        elif sign[0] == "$" and (bare := _NAME.match(text, place)):
            # builders take letters of any script into a name
            is_longer = text[bare.end() : bare.end() + 1] > "\x7f"
            found, place = _Substitution(bare[0], text=f"${{{bare[0]}}}" if is_longer else f"${bare[0]}"), bare.end()
        elif sign[0] == "$" and len(opened) < _DEEPEST and (opening := _OPENING.match(text, place)):
            opened.append(([*parts, text[begin:start]], text[start : opening.end()], opening[1], opening[2]))
            parts, begin, place = [], opening.end(), opening.end()
        if found:
            parts += [text[begin:start], found]
            begin = place
    parts.append(text[begin:])
    while opened:  # without an end
        before, plain, _, _ = opened.pop()
        parts = [*before, plain, *parts]
    return parts


def _begins(text: str, place: int) -> bool:
    return any(pattern.match(text, place) for pattern in (_NAME, _WHOLE, _OPENING))


def _is_escaped(text: str, begin: int, place: int) -> bool:
    before = text[begin:place]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _escaped(parts: Sequence[str | _Substitution], signs: str = '"\\$') -> str:
    """A value as it stands between double quotes; `signs` are escaped in its plain parts."""
    return "".join(
        re.sub(f"[{re.escape(signs)}]", r"\\\g<0>", part) if isinstance(part, str) else _written(part) for part in parts
    )


def _written(part: _Substitution) -> str:
    if part.text:
        return part.text
    return f"${{{part.name}{part.operator}{_escaped(part.word, _QUOTING)}}}"


def _filled(parts: Sequence[str | _Substitution], variables: Mapping[str, str]) -> str:
    """A value with its variables put in."""
    return "".join(part if isinstance(part, str) else _value(part, variables) for part in parts)


def _value(part: _Substitution, variables: Mapping[str, str]) -> str:
    if part.text and not part.text.endswith(part.name) and part.text != f"${{{part.name}}}":
        return part.text  # by pattern
    value = variables.get(part.name)
    is_set = bool(value) if part.operator.startswith(":") else value is not None
    if part.operator.endswith("+"):
        return _filled(part.word, variables) if is_set else ""
    if part.operator.endswith("-") and not is_set:
        return _filled(part.word, variables)
    return value or ""


_QUOTING = "\"'\\$"


def _escaped_name(name: str) -> str:
    return re.sub(r"[\"'\\$]|^--", lambda found: "".join(f"\\{sign}" for sign in found[0]), name)
