"""Parses untrusted JSON within limits. Pure.

The standard library's parser holds the interpreter lock for a whole text, and lists and objects take most time. So a
scan, during which other threads can run, checks the limits first.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

MAX_VALUES = 300_000
MAX_CONTAINERS = 50_000  # lists and objects
MAX_DEPTH = 100
_MAX_DIGITS = 4000  # below Python's own limit, and more than a double has

_TOKEN = re.compile(r'["\[\]{},]')
_IN_STRING = re.compile(r'(?:[^"\\]{1,4096}+|\\.){0,64}+', re.DOTALL)  # one chunk; a long string takes several
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class TooLarge(ValueError):
    """Valid JSON that exceeds a limit."""


def load(text: str) -> Any:
    """Parse a text. Raises ValueError, also for lone surrogates, which can't be stored.

    Accepts NaN and infinities inside lists and objects, for the fields to judge, but not as the whole text.
    """
    check(text)
    try:
        data = _parse(text)
    except RecursionError as error:
        raise TooLarge("too many brackets in each other") from error
    if isinstance(data, float) and not math.isfinite(data):
        raise ValueError(f"{text.strip()[:20]} is not a number that can be stored")
    if _SURROGATE.search(text):
        _check_characters(data)
    return data


def check(
    text: str, max_values: int = MAX_VALUES, max_containers: int = MAX_CONTAINERS, max_depth: int = MAX_DEPTH
) -> None:
    """Raises TooLarge. Takes linear time, and little if the text has few brackets and commas."""
    containers = text.count("[") + text.count("{")
    values = containers + text.count(",")
    if values <= max_values and containers <= min(max_containers, max_depth):
        return  # even if all of them are outside strings
    depth = containers = values = strings = 0
    for token in _tokens(text):
        strings += token == '"'  # names and values; invalid JSON may have strings without commas
        values += token in ",[{"
        containers += token in "[{"
        depth += (token in "[{") - (token in "]}")
        if depth > max_depth:
            raise TooLarge(f"more than {max_depth} brackets in each other")
        if containers > max_containers:
            raise TooLarge(f"more than {max_containers} lists and objects")
        if values > max_values or strings > 2 * max_values + 1:
            raise TooLarge(f"more than {max_values} values")


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer with more digits than Python accepts
        return json.loads(text, parse_int=_parse_int)


def _parse_int(digits: str) -> float:
    """An integer; with too many digits an infinity, as a double would be."""
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _tokens(text: str) -> Iterator[str]:
    """Brackets and commas outside strings, and a quote for each string."""
    place = 0
    while found := _TOKEN.search(text, place):
        place = found.end()
        if found[0] == '"':
            place = _end_of_string(text, place)
        yield found[0]


def _end_of_string(text: str, place: int) -> int:
    while found := _IN_STRING.match(text, place):
        if found.end() == place:
            return place + 1  # the quote, or the end of the text
        place = found.end()
    return len(text)


def _check_characters(data: object) -> None:
    stack = [data]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack += (*item.keys(), *item.values())
        elif isinstance(item, list):
            stack += item
        elif isinstance(item, str) and not item.isascii():
            item.encode()
