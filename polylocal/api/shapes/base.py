"""A row as the JSON object that a TypedDict describes. Pure."""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

from polylocal.api.shapes import Json

Shape = TypeVar("Shape")

_DOCUMENTED: dict[str, tuple[str, ...]] = {}  # name of a shape → its first keys
_ATTRIBUTES = {  # key → the attribute of the row, where their names differ
    "last_status": "status",
    "node_scheduled": "node",
    "build_job": "build_name",
    "original": "original_name",
    "original_experiment": "original_id",
    "experiment_group": "group_name",
    "declarations": "params",
    "code_reference": "code_id",
    "current_iteration": "iterations_begun",
}


def documented(keys: str) -> Callable[[type[Shape]], type[Shape]]:
    """A decorator that puts these keys first, in the order of the documents' examples."""

    def register(shape: type[Shape]) -> type[Shape]:
        _DOCUMENTED[shape.__name__] = tuple(keys.split())
        return shape

    return register


def as_shape(shape: type[Shape], row: object, **known: Any) -> Shape:
    """The object of a row. `known` has the values that are not attributes of the row.

    Optional keys (of a TypedDict with `total=False`) are left out where their values are empty.
    """
    attributes, optional = _attributes(cast(Any, shape))
    found = {key: known[key] if key in known else getattr(row, attribute) for key, attribute in attributes}
    for key in optional:
        if not found[key]:
            del found[key]
    return cast(Shape, found)


def pick(row: object, keys: str) -> Json:
    """Attributes of a row under their own names."""
    return {key: getattr(row, key) for key in keys.split()}


@cache
def _attributes(shape: type[Any]) -> tuple[tuple[tuple[str, str], ...], frozenset[str]]:
    keys = dict.fromkeys((*_DOCUMENTED.get(shape.__name__, ()), *shape.__annotations__))
    return tuple((key, _ATTRIBUTES.get(key, key)) for key in keys), frozenset(shape.__optional_keys__)
