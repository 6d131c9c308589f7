"""Compiles `?query=` and `?sort=` into parametrised SQL. Pure.

The grammar is the platform's: `field:operation[,field:operation…]`, `~` after the colon negates, `a|b` is one of,
`<` `<=` `>` `>=` compare, `low .. high` is a range of dates, `%` at an end of a text is the rest of it.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from polylocal import clock
from polylocal.errors import InvalidInput
from polylocal.packages.statuses import BuildStatus, ContainerStatus
from polylocal.statuses import DONE, POLYAXON_KINDS, Kind, Status
from polylocal.store.rows import Run


@dataclass(frozen=True)
class Where:
    """A condition over the columns of a run, and the values of its parameters, in order."""

    sql: str
    values: tuple[Any, ...]


MAX_METRIC_NAMES = 1000  # of one run


def sql_list(members: Collection[Status | Kind | BuildStatus | ContainerStatus]) -> str:
    """Members of an enum as an SQL list, in the order of their definition: `('created', 'running')`, `(0, 8000)`."""
    ordered = [member for enum in {type(member) for member in members} for member in enum if member in members]
    return f"({', '.join(repr(member.value) for member in ordered)})"


# exactly the expressions of the indexes in the schema, or SQLite does not use them
OPEN = f"r.status not in {sql_list(DONE)}"
SERVERS = sql_list([kind for kind in Kind if kind.is_server])
VISIBLE = "r.deleted_at is null and r.archived_at is null"


@dataclass(frozen=True)
class Page:
    """The page of a list, and its order."""

    limit: int
    offset: int
    sort: str | None = None


_JOINS = {
    "p": "join projects p on p.id = r.project_id",
    "o": "join users o on o.id = p.user_id",
    "u": "join users u on u.id = r.user_id",
    "b": "left join runs b on b.pk = r.build_pk and b.deleted_at is null",
    "a": "left join runs a on a.pk = r.original_pk",
    "g": "left join runs g on g.pk = r.group_pk",
    "e": "left join runs e on e.pk = r.experiment_pk",
    "c": "left join code_references c on c.id = r.code_id",
}
# numbers as their text, since SQLite's own JSON keeps 15 digits; a word for one that is not finite. Values beyond the
# bound are in `metrics` only
LAST_METRIC = f"""(select '{{' || group_concat(json_quote(v.name) || ':' ||
    iif(v.number is null, json_quote(v.text), v.text)) || '}}' from
    (select name, number, text from run_values where run_pk = r.pk and space = 'metric' limit {MAX_METRIC_NAMES}) v)"""
SELECT = f"""
select {LAST_METRIC} as measured,
    r.*, p.uuid as project_uuid, p.name as project_name, o.username as owner, u.username as user,
    b.id as build_id, a.id as original_id, g.id as group_id, e.id as experiment_id, c."commit" as "commit"
from runs r {" ".join(_JOINS.values())}
"""

_Build = Callable[[str, str, str], Where]  # (column, operation without `~`, whole expression) → Where

_COMPARISONS = (("<=", "<="), ("=<", "<="), (">=", ">="), ("=>", ">="), ("<", "<"), (">", ">"))
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)
MAX_QUERY = 4000  # characters; far below what would be too many terms for SQLite
_MAX_INTEGER = 2**63 - 1
_VALUE = "(select {what} from run_values v where v.run_pk = r.pk and v.space = '{space}' and v.name = ?)"
_HAVING = "select v.run_pk from run_values v where v.space = '{space}' and v.name = ? and {condition}"
_AMONG = f"r.pk in ({_HAVING})"
NEWEST = "r.updated_at desc, r.pk desc"  # the default order of a list
SORTABLE = ("created_at", "updated_at", "started_at", "finished_at")


def where(query: str, kind: Kind | None) -> Where:
    """Compile all expressions of a query, joined by `and`. `kind` None: a list of all kinds.

    Raises InvalidInput, a list of one sentence, as documented.
    """
    if len(query) > MAX_QUERY:
        raise InvalidInput([f"The query has {len(query)} characters, more than {MAX_QUERY}."])
    parts = [_expression(text.strip(), kind) for text in query.split(",") if text.strip()]
    return Where(" and ".join(part.sql for part in parts) or "1", tuple(v for part in parts for v in part.values))


def order(sort: str | None, kind: Kind | None) -> Where:
    """An `order by` list. Unknown keys are ignored, as the platform does; nulls come last in both directions."""
    found = [term for key, way in _sort_keys(sort) if (term := _sort_term(key, way, kind))]
    terms = [term.sql for term in found]
    values = [value for term in found for value in term.values]
    return Where(", ".join([*terms, "r.pk desc"]) if terms else NEWEST, tuple(values))


def check_sort(sort: str | None, kind: Kind | None) -> None:
    """Raises InvalidInput for the first key that `order` would ignore."""
    for key, way in _sort_keys(sort):
        if _sort_term(key, way, kind):
            continue
        if _sort_term(key, way, Kind.EXPERIMENT):
            raise InvalidInput([_name_a_kind(key, _EXPERIMENT)])
        members = ", metric.NAME, params.NAME" if kind in (None, Kind.EXPERIMENT) else ""
        of_experiments = " (of experiments)" if kind is None else ""
        keys = f"{', '.join(SORTABLE)}{members}{of_experiments}"
        raise InvalidInput([f"`{key}` is not a key to sort by; the keys are {keys}."])


def _sort_keys(sort: str | None) -> list[tuple[str, str]]:
    """Each key with its direction."""
    terms = [term.strip() for term in (sort or "")[:MAX_QUERY].split(",")]
    return [(term.removeprefix("-"), "desc" if term.startswith("-") else "asc") for term in terms if term]


def _sort_term(key: str, way: str, kind: Kind | None) -> Where | None:
    if key in SORTABLE:
        return Where(f"r.{key} {way} nulls last", ())
    group, _, name = key.partition(".")
    if kind is not Kind.EXPERIMENT or not name or group not in _SPACES:
        return None
    space = _SPACES[group]
    number = f"{_VALUE.format(what='v.number', space=space)} {way} nulls last"
    if space == "metric":
        return Where(number, (name,))
    text = f"{_VALUE.format(what='iif(v.number is null, v.text, null)', space=space)} {way} nulls last"
    return Where(f"{number}, {text}", (name, name))  # texts come after numbers


def _name_a_kind(field: str, kinds: Iterable[Kind]) -> str:
    *others, last = sorted(kinds)
    shown = f"{', '.join(kind.plural for kind in others)} and {last.plural}" if others else last.plural
    return f"`{field}` is known of {shown} only: name a kind (`--kind {last}`)."


def joins(sql: str) -> str:
    """The tables beside `runs r` that a condition needs. A count should not read others."""
    wanted = {alias for alias in _JOINS if re.search(rf"\b{alias}\.", sql)}
    wanted |= {"p"} if "o" in wanted else set()
    return " ".join(join for alias, join in _JOINS.items() if alias in wanted)


def members_of(group: Run) -> Where:
    """The condition for experiments of a group: those that it created, or those that were selected."""
    if group.group_type == "selection":
        return Where("r.pk in (select experiment_pk from selections where group_pk = ?)", (group.pk,))
    return Where("r.group_pk = ?", (group.pk,))


def order_by_dates(sort: str | None, alias: str, otherwise: str) -> str:
    """An `order by` list for objects that are sorted by `created_at` and `updated_at` only."""
    terms = [f"{alias}.{key} {way}" for key, way in _sort_keys(sort) if key in ("created_at", "updated_at")]
    return ", ".join(terms) or otherwise


def _expression(text: str, kind: Kind | None) -> Where:
    field, colon, operation = (part.strip() for part in text.partition(":"))
    if not colon or not field or not operation:
        raise InvalidInput([f"Expression is not valid, it must be formatted as name:operation, Expression: {text}"])
    group, _, name = field.partition(".")
    if name and kind is Kind.EXPERIMENT and group in _MEMBERS:
        column, build = name, _MEMBERS[group]
    else:
        known = _field(field, kind, is_member=bool(name) and group in _MEMBERS)
        column, build = known.column, known.build
        if ":" in operation and build is not _date:  # only times contain colons
            raise InvalidInput([f"Expression is not valid, it must be formatted as name:operation, Expression: {text}"])
    built = build(column, operation.removeprefix("~").strip(), text)
    return Where(f"not coalesce({built.sql}, 0)", built.values) if operation.startswith("~") else built


def _field(name: str, kind: Kind | None, *, is_member: bool) -> "_Field":
    """A field of the runs of a list. `is_member`: the name is that of a metric or param. Raises InvalidInput."""
    if name not in _FIELDS or kind not in (None, *_FIELDS[name].kinds):
        if kind is None and is_member:
            raise InvalidInput([_name_a_kind(name, _EXPERIMENT)])
        raise InvalidInput([f"key `{name}` is not supported by query manager `{kind or 'run'}`."])
    if kind is None and _FIELDS[name].kinds != _ALL:
        raise InvalidInput([_name_a_kind(name, _FIELDS[name].kinds)])
    return _FIELDS[name]


def _values(operation: str, text: str) -> list[str]:
    values = [value.strip() for value in operation.split("|")]
    if not all(values) or any(value[0] in "<>=" for value in values) or ".." in operation:
        raise InvalidInput([f"Expression is not valid, it takes a value or several joined by `|`, Expression: {text}"])
    return values


def _is_in(column: str, values: Sequence[Any]) -> Where:
    return Where(f"{column} in ({_placeholders(values)})", tuple(values))


def _comparison(column: str, operation: str, number: Callable[[str], Any]) -> Where | None:
    """The condition of an operation that begins with `<`, `<=`, `>` or `>=`. None: it begins with something else."""
    for sign, sql in _COMPARISONS:
        if operation.startswith(sign):
            return Where(f"{column} {sql} ?", (number(operation[len(sign) :].strip()),))
    return None


def _value(column: str, operation: str, text: str) -> Where:
    return _is_in(column, _values(operation, text))


def _id(column: str, operation: str, text: str) -> Where:
    compared = _comparison(column, operation, lambda value: _number(value, text))
    return compared or _is_in(column, [_number(value, text) for value in _values(operation, text)])


def _status(column: str, operation: str, text: str) -> Where:
    return _is_in(column, ["succeeded" if value == "done" else value for value in _values(operation, text)])


def _search(column: str, operation: str, text: str) -> Where:
    values = _values(operation, text)
    if len(values) > 1 or "%" not in (values[0][0], values[0][-1]):
        return _value(column, operation, text)
    start, end = values[0].startswith("%"), values[0].endswith("%")
    escaped = values[0].strip("%").replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    pattern = f"{'%' if start else ''}{escaped}{'%' if end else ''}"
    return Where(f"casefold({column}) like ? escape '\\'", (pattern.casefold(),))


def _tags(column: str, operation: str, text: str) -> Where:
    values = _values(operation, text)
    return Where(f"exists (select 1 from json_each({column}) where value in ({_placeholders(values)}))", tuple(values))


def _owner(column: str, operation: str, text: str) -> Where:
    """The condition for a user, by id or name."""
    values = _values(operation, text)
    name, number = _is_in(column, values), _is_in("cast(r.user_id as text)", values)
    return Where(f"({name.sql} or {number.sql})", name.values + number.values)


def _project(column: str, operation: str, text: str) -> Where:
    """The condition for a project, by id, name or unique name."""
    values = _values(operation, text)
    names = f"({column}, o.username || '.' || {column}, cast(r.project_id as text))"
    either = " or ".join(f"? in {names}" for _ in values)
    return Where(f"({either})", tuple(values))


def _metric(name: str, operation: str, text: str) -> Where:
    """The condition that compares the last value of a metric with a number."""
    compared = _scalar("v.number", operation, text)
    return Where(_AMONG.format(space="metric", condition=compared.sql), (name, *compared.values))


def _param(name: str, operation: str, text: str) -> Where:
    """The condition that compares a param with a number, an inclusive range, or values: `adam`, `0.1`, `true`.

    A value that is a number finds the params that are this number, however it is written, and texts that read so.
    """
    low, between, high = (part.strip() for part in operation.partition(".."))
    if between:
        condition, ends = "v.number between ? and ?", (_float(low, text), _float(high, text))
        return Where(_AMONG.format(space="param", condition=condition), (name, *ends))
    if operation.startswith(tuple(sign for sign, _ in _COMPARISONS)):
        compared = _scalar("v.number", operation, text)
        return Where(_AMONG.format(space="param", condition=compared.sql), (name, *compared.values))
    values = _values(operation, text)
    numbers = [number for value in values if (number := _number_in(value)) is not None]
    having = _HAVING.format(space="param", condition=f"v.text in ({_placeholders(values)})")
    if not numbers:
        return Where(f"r.pk in ({having})", (name, *values))
    equal = _HAVING.format(space="param", condition=f"v.number in ({_placeholders(numbers)})")
    return Where(f"r.pk in ({having} union all {equal})", (name, *values, name, *numbers))


def _number_in(value: str) -> float | None:
    return float(value) if _NUMBER.fullmatch(value) and math.isfinite(float(value)) else None


def _independent(column: str, operation: str, text: str) -> Where:
    word = operation.lower()
    if word not in _YES + _NO:
        raise InvalidInput([f"`{operation}` is neither true nor false, Expression: {text}"])
    return Where(f"{column} is {'' if word in _YES else 'not '}null", ())


def _run_id(column: str, operation: str, text: str) -> Where:
    """The condition for another run, by id or unique name."""
    return _is_in(f"cast({column} as text)", [value.rpartition(".")[2] for value in _values(operation, text)])


def _scalar(column: str, operation: str, text: str) -> Where:
    compared = _comparison(column, operation, lambda value: _float(value, text))
    return compared or Where(f"{column} = ?", (_float(operation, text),))


def _float(value: str, text: str) -> float:
    try:
        number = float(value)
    except ValueError as error:
        raise InvalidInput([f"`{value.strip()}` is not a number, Expression: {text}"]) from error
    if not math.isfinite(number):
        raise InvalidInput([f"`{value.strip()}` is not a number, Expression: {text}"])
    return number


def _date(column: str, operation: str, text: str) -> Where:
    low, between, high = (part.strip() for part in operation.partition(".."))
    if between:
        return Where(f"{column} between ? and ?", (_timestamp(low, text), _timestamp(high, text)))
    if compared := _comparison(column, operation, lambda value: _timestamp(value, text)):
        return compared
    moment = _timestamp(operation, text)
    if len(operation) > len("2018-08-23"):
        return Where(f"{column} = ?", (moment,))
    try:
        next_day = clock.stamp(clock.parse(moment) + timedelta(days=1))  # a date without a time means the whole day
    except OverflowError:
        next_day = "~"  # sorts after the last date
    return Where(f"({column} >= ? and {column} < ?)", (moment, next_day))


def _timestamp(value: str, text: str) -> str:
    try:
        return clock.stamp(clock.parse(value))
    except (ValueError, OverflowError) as error:
        message = f"`{value}` is not a date like 2018-08-23 or 2018-08-23 10:10, Expression: {text}"
        raise InvalidInput([message]) from error


def _number(value: str, text: str) -> int:
    try:
        number = int(value)
        if abs(number) > _MAX_INTEGER:
            raise ValueError(value)
        return number
    except ValueError as error:
        raise InvalidInput([f"`{value.strip()}` is not a whole number, Expression: {text}"]) from error


def _placeholders(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


@dataclass(frozen=True)
class _Field:
    column: str
    build: _Build
    kinds: frozenset[Kind]


_MEMBERS: Mapping[str, _Build] = {"metric": _metric, "metrics": _metric, "params": _param, "declarations": _param}
_SPACES = {"metric": "metric", "metrics": "metric", "params": "param", "declarations": "param"}  # in run_values
_YES, _NO = ("true", "1", "yes"), ("false", "0", "no")
_ALL = frozenset(POLYAXON_KINDS)
_EXPERIMENT = frozenset({Kind.EXPERIMENT})
_GROUP = frozenset({Kind.GROUP})
_WITH_IMAGE = _ALL - {Kind.BUILD, Kind.GROUP}

_FIELDS: Mapping[str, _Field] = {
    "id": _Field("r.id", _id, _ALL),
    "created_at": _Field("r.created_at", _date, _ALL),
    "updated_at": _Field("r.updated_at", _date, _ALL),
    "started_at": _Field("r.started_at", _date, _ALL),
    "finished_at": _Field("r.finished_at", _date, _ALL),
    "name": _Field("r.name", _search, _ALL),
    "description": _Field("r.description", _search, _ALL),
    "user": _Field("u.username", _owner, _ALL),
    "status": _Field("r.status", _status, _ALL),
    "project": _Field("p.name", _project, _ALL),
    "tags": _Field("r.tags", _tags, _ALL),
    "commit": _Field('c."commit"', _value, _ALL - _GROUP),
    "build": _Field("b.id", _run_id, _WITH_IMAGE),
    "backend": _Field("r.backend", _value, _ALL),
    "framework": _Field("r.framework", _value, _EXPERIMENT),
    "independent": _Field("r.group_pk", _independent, _EXPERIMENT),
    "group": _Field("g.id", _run_id, frozenset({Kind.EXPERIMENT, Kind.TENSORBOARD})),
    "experiment": _Field("e.id", _run_id, frozenset({Kind.TENSORBOARD})),
    "search_algorithm": _Field("r.search_algorithm", _value, _GROUP),
    "concurrency": _Field("r.concurrency", _scalar, _GROUP),
    "type": _Field("r.group_type", _value, _GROUP),
}
