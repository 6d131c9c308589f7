"""Environment variables of a run's container (`environment.env_vars`): a mapping, or a list of pairs. Pure."""

from collections.abc import Iterator, Mapping

from polylocal.polyaxonfile.commands import MAX_ARGUMENT

MAX_VARIABLES = 1000
MAX_VARIABLE = MAX_ARGUMENT  # bytes of NAME=value
MAX_ALL = 256 * 1024  # bytes of all variables: the arguments and variables of a program share 2 MiB

_RESERVED = ("POLYAXON_", "POLYLOCAL_")
_OWN = {
    "NVIDIA_VISIBLE_DEVICES": "`NVIDIA_VISIBLE_DEVICES` follows from environment.resources.gpu.",
    "JUPYTER_TOKEN": "`JUPYTER_TOKEN` is set by polylocal.",
}
Key = tuple[str | int, ...]  # below `env_vars`


def as_mapping(value: object) -> object:
    """Convert a list of pairs to a mapping. Other values are returned unchanged."""
    if isinstance(value, list) and all(_is_pair(item) and isinstance(item[0], str) for item in value):
        return {name: text for name, text in value}
    return value


def normal(value: object) -> object:
    """Convert variables to {name: text}. A value with `problems` is returned unchanged."""
    if value is None or any(problems(value)):
        return value
    found = as_mapping(value)
    return {name: _text(item) for name, item in found.items()} if isinstance(found, dict) else value


def problems(value: object) -> Iterator[tuple[Key, str]]:
    """Yield the problems of variables: the path below `env_vars`, and a sentence."""
    if isinstance(value, Mapping):
        items = [((str(name),), name, item) for name, item in value.items()]
    elif isinstance(value, list):
        items = []
        for index, pair in enumerate(value):
            if _is_pair(pair):
                items.append(((index,), *pair))
            else:
                yield (index,), "A variable is a pair: [name, value]."
    else:
        yield (), "Variables are a mapping of names to values, or a list of pairs."
        return
    if len(items) > MAX_VARIABLES:
        yield (), f"A run has at most {MAX_VARIABLES} variables, these are {len(items)}."
        return
    for place, name, item in items:
        if problem := _problem_of_name(name) or _problem_of_value(item) or _problem_of_size(name, item):
            yield place, problem
    if sum(_size(name, item) for _, name, item in items) > MAX_ALL:
        yield (), f"The variables have more than {MAX_ALL} bytes together; put large values into a file of the code."


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2


def _problem_of_name(name: object) -> str | None:
    if not isinstance(name, str):
        return f"`{str(name)[:100]}` is not a name; write it in quotes."
    if not name:
        return "The name of a variable is empty."
    if "=" in name or not name.isprintable() or any(character.isspace() for character in name):
        return f"{name[:100]!a} can't be the name of a variable: it contains `=`, a blank or a control character."
    if name.startswith(_RESERVED):
        return f"`{name[:100]}`: names that begin with {' or '.join(_RESERVED)} are the platform's own."
    return _OWN.get(name)


def _problem_of_value(value: object) -> str | None:
    if value is None:
        return 'The variable has no value; write "" for an empty one.'
    if not isinstance(value, str | int | float):
        return "The value of a variable is a text, a number, true or false."
    return "The value contains a NUL byte, which no variable can contain." if "\0" in _text(value) else None


def _problem_of_size(name: object, value: object) -> str | None:
    size = _size(name, value)
    if size > MAX_VARIABLE:
        return f"The variable has {size} bytes with its name, more than {MAX_VARIABLE}; put it into a file of the code."
    return None


def _size(name: object, value: object) -> int:
    return len(f"{name}={_text(value)}".encode(errors="replace"))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
