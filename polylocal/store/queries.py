"""Compiles `?query=` and `?sort=` into parametrised SQL. Pure.

The grammar is the platform's: `field:operation[,field:operation…]`, `~` after the colon negates, `a|b` is one of,
`<` `<=` `>` `>=` compare, `low .. high` is a range of dates, `%` at an end of a text is the rest of it.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from polylocal import clock
from polylocal.errors import InvalidInput
from polylocal.packages.statuses import BuildStatus, ContainerStatus
from polylocal.statuses import DONE, Kind, Status
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
_MOST = 2**63 - 1
_VALUE = "(select {what} from run_values v where v.run_pk = r.pk and v.space = '{space}' and v.name = ?)"
_HAVING = "select v.run_pk from run_values v where v.space = '{space}' and v.name = ? and {condition}"
_AMONG = f"r.pk in ({_HAVING})"
NEWEST = "r.updated_at desc, r.pk desc"  # the default order of lists
SORTABLE = ("created_at", "updated_at", "started_at", "finished_at")


def where(query: str, kind: str | None) -> Where:
    """Compile all expressions of a query, joined by `and`. `kind` None: a list of all kinds.

    Raises InvalidInput, a list of one sentence, as documented.
    """
    if len(query) > MAX_QUERY:
        raise InvalidInput([f"The query has {len(query)} characters, more than {MAX_QUERY}."])
    parts = [_expression(text.strip(), kind) for text in query.split(",") if text.strip()]
    return Where(" and ".join(part.sql for part in parts) or "1", tuple(v for part in parts for v in part.values))


def order(sort: str | None, kind: str | None) -> Where:
    """An `order by` list. Unknown keys are ignored, as the platform does; nulls come last in both directions."""
    found = [term for key, way in _sort_keys(sort) if (term := _sorting(key, way, kind))]
    terms = [term.sql for term in found]
    values = [value for term in found for value in term.values]
    return Where(", ".join([*terms, "r.pk desc"]) if terms else NEWEST, tuple(values))


def check_sort(sort: str | None, kind: str | None) -> None:
    """Raises InvalidInput for the first key that `order` would ignore."""
    for key, way in _sort_keys(sort):
        if _sorting(key, way, kind):
            continue
        if _sorting(key, way, "experiment"):
            raise InvalidInput([_name_a_kind(key, ["experiment"])])
        members = "".join(f", {space}.NAME" for space in ("metric", "params")) if kind in (None, "experiment") else ""
        of_experiments = " (of experiments)" if members and kind is None else ""
        keys = f"{', '.join(SORTABLE)}{members}{of_experiments}"
        raise InvalidInput([f"`{key}` is no key to sort by; the keys are {keys}."])


def _sort_keys(sort: str | None) -> list[tuple[str, str]]:
    """Each key with its direction."""
    terms = [term.strip() for term in (sort or "")[:MAX_QUERY].split(",")]
    return [(term.removeprefix("-"), "desc" if term.startswith("-") else "asc") for term in terms if term]


def _sorting(key: str, way: str, kind: str | None) -> Where | None:
    if key in SORTABLE:
        return Where(f"r.{key} {way} nulls last", ())
    group, _, name = key.partition(".")
    if kind != "experiment" or not name or group not in _SPACES:
        return None
    space = _SPACES[group]
    number = f"{_VALUE.format(what='v.number', space=space)} {way} nulls last"
    if space == "metric":
        return Where(number, (name,))
    text = f"{_VALUE.format(what='iif(v.number is null, v.text, null)', space=space)} {way} nulls last"
    return Where(f"{number}, {text}", (name, name))  # texts come after numbers


def _name_a_kind(field: str, kinds: Iterable[str]) -> str:
    *others, last = sorted(kinds)
    shown = f"{', '.join(f'{kind}s' for kind in others)} and {last}s" if others else f"{last}s"
    return f"`{field}` is known of {shown} only: name a kind (`--kind {last}`)."


def joins(sql: str) -> str:
    """The tables beside `runs r` that a condition needs. A count should not read others."""
    wanted = {alias for alias in _JOINS if re.search(rf"\b{alias}\.", sql)}
    wanted |= {"p"} if "o" in wanted else set()
    return " ".join(join for alias, join in _JOINS.items() if alias in wanted)


def of_group(group: Run) -> Where:
    """The condition for experiments of a group: those that it created, or those that were selected."""
    if group.group_type == "selection":
        return Where("r.pk in (select experiment_pk from selections where group_pk = ?)", (group.pk,))
    return Where("r.group_pk = ?", (group.pk,))


def by_dates(sort: str | None, alias: str, otherwise: str) -> str:
    """An `order by` list for objects that are sorted by `created_at` and `updated_at` only."""
    terms = []
    for term in (sort or "")[:MAX_QUERY].split(","):
        field, way = term.strip().removeprefix("-"), "desc" if term.strip().startswith("-") else "asc"
        if field in ("created_at", "updated_at"):
            terms.append(f"{alias}.{field} {way}")
    return ", ".join(terms) or otherwise


def _expression(text: str, kind: str | None) -> Where:
    field, colon, operation = (part.strip() for part in text.partition(":"))
    if not colon or not field or not operation:
        raise InvalidInput([f"Expression is not valid, it must be formatted as name:operation, Expression: {text}"])
    group, dot, name = field.partition(".")
    if dot and name and kind == "experiment" and group in _MEMBERS:
        negated = operation.startswith("~")
        built = _MEMBERS[group](name, operation.removeprefix("~").strip(), text)
        return Where(f"not coalesce({built.sql}, 0)", built.values) if negated else built
    if field not in _FIELDS or kind not in (None, *_FIELDS[field].kinds):
        if kind is None and name and group in _MEMBERS:
            raise InvalidInput([_name_a_kind(field, _EXPERIMENT)])
        raise InvalidInput([f"key `{field}` is not supported by query manager `{kind or 'run'}`."])
    if kind is None and _FIELDS[field].kinds != _ALL:
        raise InvalidInput([_name_a_kind(field, _FIELDS[field].kinds)])
    negated = operation.startswith("~")
    known = _FIELDS[field]
    if ":" in operation and known.build is not _date:  # only times contain colons
        raise InvalidInput([f"Expression is not valid, it must be formatted as name:operation, Expression: {text}"])
    built = known.build(known.column, operation.removeprefix("~").strip(), text)
    return Where(f"not coalesce({built.sql}, 0)", built.values) if negated else built


def _values(operation: str, text: str) -> list[str]:
    values = [value.strip() for value in operation.split("|")]
    if not all(values) or any(value[0] in "<>=" for value in values) or ".." in operation:
        raise InvalidInput([f"Expression is not valid, it takes a value or several joined by `|`, Expression: {text}"])
    return values


def _value(column: str, operation: str, text: str) -> Where:
    values = _values(operation, text)
    return Where(f"{column} in ({_marks(values)})", tuple(values))


def _id(column: str, operation: str, text: str) -> Where:
    for sign, sql in _COMPARISONS:
        if operation.startswith(sign):
            return Where(f"{column} {sql} ?", (_number(operation[len(sign) :], text),))
    values = [_number(value, text) for value in _values(operation, text)]
    return Where(f"{column} in ({_marks(values)})", tuple(values))


def _status(column: str, operation: str, text: str) -> Where:
    values = ["succeeded" if value == "done" else value for value in _values(operation, text)]
    return Where(f"{column} in ({_marks(values)})", tuple(values))


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
    return Where(f"exists (select 1 from json_each({column}) where value in ({_marks(values)}))", tuple(values))


def _owner(column: str, operation: str, text: str) -> Where:
    """The condition for a user, by id or name."""
    values = _values(operation, text)
    return Where(f"({column} in ({_marks(values)}) or cast(r.user_id as text) in ({_marks(values)}))", (*values,) * 2)


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
    having = _HAVING.format(space="param", condition=f"v.text in ({_marks(values)})")
    if not numbers:
        return Where(f"r.pk in ({having})", (name, *values))
    equal = _HAVING.format(space="param", condition=f"v.number in ({_marks(numbers)})")
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
    values = [value.rpartition(".")[2] for value in _values(operation, text)]
    return Where(f"cast({column} as text) in ({_marks(values)})", tuple(values))


def _scalar(column: str, operation: str, text: str) -> Where:
    for sign, sql in _COMPARISONS:
        if operation.startswith(sign):
            return Where(f"{column} {sql} ?", (_float(operation[len(sign) :], text),))
    return Where(f"{column} = ?", (_float(operation, text),))


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
        return Where(f"{column} between ? and ?", (_moment(low, text), _moment(high, text)))
    for sign, sql in _COMPARISONS:
        if operation.startswith(sign):
            return Where(f"{column} {sql} ?", (_moment(operation[len(sign) :].strip(), text),))
    moment = _moment(operation, text)
    if len(operation) > len("2018-08-23"):
        return Where(f"{column} = ?", (moment,))
    try:
        next_day = clock.stamp(clock.parse(moment) + timedelta(days=1))  # a date without a time means the whole day
    except OverflowError:
        next_day = "~"  # sorts after the last date
    return Where(f"({column} >= ? and {column} < ?)", (moment, next_day))


def _moment(value: str, text: str) -> str:
    try:
        return clock.stamp(clock.parse(value))
    except (ValueError, OverflowError) as error:
        message = f"`{value}` is not a date like 2018-08-23 or 2018-08-23 10:10, Expression: {text}"
        raise InvalidInput([message]) from error


def _number(value: str, text: str) -> int:
    try:
        number = int(value)
        if abs(number) > _MOST:
            raise ValueError(value)
        return number
    except ValueError as error:
        raise InvalidInput([f"`{value.strip()}` is not a whole number, Expression: {text}"]) from error


def _marks(values: list[Any]) -> str:
    return ", ".join("?" * len(values))


@dataclass(frozen=True)
class _Field:
    column: str
    build: _Build
    kinds: frozenset[str]


_MEMBERS = {"metric": _metric, "metrics": _metric, "params": _param, "declarations": _param}
_SPACES = {"metric": "metric", "metrics": "metric", "params": "param", "declarations": "param"}  # in run_values
_YES, _NO = ("true", "1", "yes"), ("false", "0", "no")
_ALL = frozenset({"build", "job", "experiment", "group", "notebook", "tensorboard"})
_EXPERIMENT = frozenset({"experiment"})
_GROUP = frozenset({"group"})
_WITH_IMAGE = _ALL - {"build", "group"}

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
    "commit": _Field('c."commit"', _value, _ALL - {"group"}),
    "build": _Field("b.id", _run_id, _WITH_IMAGE),
    "backend": _Field("r.backend", _value, _ALL),
    "framework": _Field("r.framework", _value, _EXPERIMENT),
    "independent": _Field("r.group_pk", _independent, _EXPERIMENT),
    "group": _Field("g.id", _run_id, frozenset({"experiment", "tensorboard"})),
    "experiment": _Field("e.id", _run_id, frozenset({"tensorboard"})),
    "search_algorithm": _Field("r.search_algorithm", _value, _GROUP),
    "concurrency": _Field("r.concurrency", _scalar, _GROUP),
    "type": _Field("r.group_type", _value, _GROUP),
}
