"""A row in the form that a TypedDict describes: its keys, in its order. Pure."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

Shape = TypeVar("Shape")

# where the API's word is not the row's
_OTHERWISE = {
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


def shaped(shape: type[Shape], row: object, **known: Any) -> Shape:
    """`known` are values that the row does not have, or says otherwise; all others are its attributes.

    Keys of a TypedDict that is not total are there only where they say something.
    """
    attributes, optional = _attributes(cast(Any, shape))
    found = {key: known[key] if key in known else getattr(row, attribute) for key, attribute in attributes}
    for key in optional:
        if not found[key]:
            del found[key]
    return cast(Shape, found)


@cache
def _attributes(shape: type[Any]) -> tuple[tuple[tuple[str, str], ...], frozenset[str]]:
    keys = tuple((key, _OTHERWISE.get(key, key)) for key in shape.__annotations__)
    return keys, frozenset(shape.__optional_keys__)
