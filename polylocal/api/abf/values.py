"""Values of bodies and query strings as clients send them. Pure."""

from typing import Any

from polylocal.errors import InvalidInput

Json = dict[str, Any]
MAX_TEXT = 256 * 1024  # characters
MAX_NUMBERS = 1000  # of one list
MAX_ID = 2**63 - 1


def integer(value: object) -> int | None:
    """A number, which may come as text; None for anything else and for numbers that no row can have."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, float) and not value.is_integer():
        return None
    try:
        found = int(value) if isinstance(value, int | float) else int(str(value)[:20])
    except ValueError:
        return None
    return found if abs(found) <= MAX_ID else None


def integers(value: object) -> list[int]:
    """Numbers without repetitions, in their order. A single one may stand for a list. Raises InvalidInput: too many."""
    many = value if isinstance(value, list) else [] if value is None else [value]
    if len(many) > MAX_NUMBERS:
        raise InvalidInput([f"A list of {len(many)} numbers is longer than the limit of {MAX_NUMBERS}."])
    return list(dict.fromkeys(number for item in many if (number := integer(item)) is not None))


def boolean(value: object, otherwise: bool) -> bool:
    if value is None or value == "":
        return otherwise
    if isinstance(value, str):
        return value.lower() in ("true", "1", "yes", "on", "t")
    return bool(value)


def text(value: object) -> str | None:
    """A text or a number as text; None for anything else and for blanks. Raises InvalidInput: too long."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    found = str(value).strip()
    if len(found) > MAX_TEXT:
        raise InvalidInput([f"A text of {len(found)} characters is longer than the limit of {MAX_TEXT}."])
    return found or None
