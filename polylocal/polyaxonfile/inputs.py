"""Computes the params of a run from the declared inputs and the given params, and checks their types. Pure.

Source: the platform's schemas of version 0.6 for `inputs`.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

Path = tuple[str | int, ...]
Problems = list[tuple[Path, str]]

_TRUE, _FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})


class Ports:
    """The `inputs` of a file."""

    def __init__(self, declared: object) -> None:
        ports = declared if isinstance(declared, list) else []
        self._ports = [(index, port) for index, port in enumerate(ports) if _is_port(port)]

    def __bool__(self) -> bool:
        return bool(self._ports)

    @property
    def names(self) -> list[str]:
        return [port["name"] for _, port in self._ports]

    def values(
        self, given: Mapping[str, Any], section: str, known: Collection[str], problems: Problems
    ) -> Mapping[str, Any]:
        """The params of a run: the given ones, and the defaults of the others, each converted to its declared type.

        `section`: the name of the section with the given params. `known`: names that need no declaration; another
        section defines them, and reports the problems of their values. All other problems are added to `problems`.
        """
        if not self._ports:
            return given
        unexpected = sorted(set(given) - {*self.names, *known}, key=str)
        if unexpected:
            problems.append(((section,), f"Received unexpected params `{unexpected}`."))
        found: dict[str, Any] = {}
        for index, port in self._ports:
            name, place = port["name"], ("inputs", index)
            default, is_optional = port.get("default"), bool(port.get("is_optional"))
            if name not in given and default is None and not is_optional:
                problems.append((place, f"Input {name} is required, no param was passed."))
            if default is not None and not is_optional:
                problems.append((place, f"Input {name} has a default: it must be `is_optional: true`."))
            if name in given:
                found[name] = _convert(port, given[name], (section, name), [] if name in known else problems)
            else:
                found[name] = _convert(port, default, (*place, "default"), problems) if default is not None else None
        return {**{name: value for name, value in given.items() if name not in found}, **found}

    def find_mismatch(self, name: str, values: Iterable[Any]) -> str | None:
        """The problem of the first value that does not have the declared type of a param. None: there is none."""
        port = next((port for _, port in self._ports if port["name"] == name), None)
        problems: Problems = []
        for value in values if port else ():
            _convert(port or {}, value, (), problems)
            if problems:
                return problems[0][1]
        return None

    def in_templates(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The values for templates: a true flag becomes `--name`, a false one the empty string."""
        flags = {port["name"] for _, port in self._ports if port.get("is_flag")}
        shown = {name: f"--{name}" if values[name] else "" for name in values if name in flags}
        return {**values, **shown}


def _is_port(port: object) -> bool:
    return isinstance(port, dict) and isinstance(port.get("name"), str)


def _convert(port: Mapping[str, Any], value: Any, path: Path, problems: Problems) -> Any:
    """Convert a value to the type of its port. A value that can't be converted stays, and adds a problem."""
    if value is None:
        if not port.get("is_optional"):
            problems.append((path, "This input may not be null."))
        return value
    try:
        made = _to_type(port, value)
        options = port.get("options")
        if isinstance(options, list) and options:
            allowed = [_to_type({**port, "is_list": False}, option) for option in options]
            for item in made if port.get("is_list") else [made]:
                _check_option(item, allowed)
    except ValueError as error:
        problems.append((path, str(error)))
        return value
    return made


def _check_option(value: Any, allowed: list[Any]) -> None:
    if not any(value == option and isinstance(value, bool) == isinstance(option, bool) for option in allowed):
        raise ValueError(
            f"`{_shorten(value)}` is not one of the options {', '.join(f'`{_shorten(each)}`' for each in allowed)}."
        )


def _to_type(port: Mapping[str, Any], value: Any) -> Any:
    kind = port.get("type") or ("bool" if port.get("is_flag") else None)
    convert = _TYPES.get(str(kind), lambda item: item)
    if not port.get("is_list"):
        return convert(value)
    if not isinstance(value, list):
        raise ValueError(f"`{_shorten(value)}` is not a list.")
    return [convert(item) for item in value]


def _int(value: Any) -> int:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            raise _Wrong(value, "a whole number") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != math.floor(value):
        raise _Wrong(value, "a whole number")
    return int(value)


def _float(value: Any) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        found = float(value)
    except (ValueError, OverflowError):
        raise _Wrong(value, "a number") from None
    if not math.isfinite(found):
        raise _Wrong(value, "a finite number")
    return found


def _bool(value: Any) -> bool:
    word = str(value).lower()
    if isinstance(value, bool | int | str) and word in _TRUE | _FALSE:
        return word in _TRUE
    raise _Wrong(value, "true or false")


def _str(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _Wrong(value, "a text")
    return str(value)


def _instance(kind: type, wanted: str, value: Any) -> Any:
    if not isinstance(value, kind):
        raise _Wrong(value, wanted)
    return value


_TYPES: Mapping[str, Callable[[Any], Any]] = {
    **{"int": _int, "float": _float, "bool": _bool, "str": _str},
    "dict": partial(_instance, dict, "a mapping"),
    "list": partial(_instance, list, "a list"),
}


class _Wrong(ValueError):
    def __init__(self, value: Any, wanted: str) -> None:
        super().__init__(f"`{_shorten(value)}` is not {wanted}.")


def _shorten(value: Any) -> str:
    return str(value)[:100]
