"""Fields of bodies, query parameters and parts of paths with extreme values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from polylocal import clock
from polylocal.api.app import ENDPOINTS
from polylocal.api.endpoint import Endpoint
from polylocal.api.paging import number
from polylocal.statuses import Kind

from .conftest import Caller, Json, restore

DATES = [
    *("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00Z", "0001-01-01", "9999-12-31T23:59:59.999999-12:00"),
    *("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.9999999+23:59", "0000-01-01T00:00:00", "10000-01-01T00:00"),
    *("2016-12-31T23:59:60Z", "2020-02-30T00:00:00", "-0001-01-01T00:00:00Z", "infinity", "nan", "now", "24:00:00"),
]
EPOCHS = [-1, 0, 253402300799, 253402300800, -62135596800, -62135596801, 1e308, -1e308, 5e-324, 1e11, -1e11, 2e10]
NOT_FINITE = [float("nan"), float("inf"), float("-inf")]
NUMBERS = [2**31, 2**53, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**4000, -0.0, 1.5, *EPOCHS, *NOT_FINITE]
TEXTS = [
    *(
        "",
        " ",
        "\0",
        "a\0b",
        "\ud800",
        "\udfff\ud800",
        "\ufffe",
        "\u202e",
        "é" * 200,
        "x" * 100_000,
        "'",
        '"',
        "%",
        "\\",
    ),
    *("1" * 5000, "1e999", "NaN", "null", "true", "{}", "[]", '{"a": NaN}', "[" * 2000, '{"a":' * 2000, "{{ 1 }}"),
]
INSIDE = ("values", "run_env", "details", "params", "config", "content", "meta")  # may contain nested values
DEEP = json.loads("[" * 90 + "]" * 90)
NESTED: list[Any] = [
    *(True, False, None, [], {}, [None], [[]], [True], {"": ""}, {"\0": 1}, {"a" * 10_000: 1}, {"a": None}, DEEP),
    *({"a": DEEP}, [{"a": "\ud800"}], {"\ud800": 1}, {"a": 2**64}, [2**64], {"a": 1e308}, {"a": True}, ["x"] * 2000),
    *({"a": NOT_FINITE}, NOT_FINITE, {"a": {"b": [{"c": NOT_FINITE[0]}]}}),
    *({"a": [1, {"b": "\0"}]}, [-1], [0], {str(n): n for n in range(3000)}, [1.5], ["1"], {"$": 1, ".": 2, '"': 3}),
]
FEW = [None, True, -1, 2**64, 1.5, "", "\0", "\ud800", [], {}, [[None]], {"a": DEEP}]  # for fields of any other type
NEEDED: Json = {
    "name": "new",
    "query": {},
    "charts": [],
    "experiment_ids": [],
    "status": "running",
    "values": {"a": 1},
    "git_url": "http://127.0.0.1:9/x",
    "token": "x",
}


def values_for(endpoint: Endpoint, field: str) -> list[Any]:
    """The values to try for a field, by its type."""
    said = str(endpoint.body.model_fields[field].annotation) if endpoint.body else ""
    chosen = list(FEW)
    for words, values in (
        (("dict", "list"), NESTED),
        (("int", "float"), NUMBERS),
        (("str",), TEXTS),
        (("datetime",), DATES + NUMBERS),
    ):
        chosen += values if any(word in said for word in words) else []
    return chosen


def shown(value: object) -> str:
    return f"{json.dumps(value):.60}"


def filled(path: str) -> str:
    path = re.sub(r"\{(id|jid|cid|sid|sequence|index):id\}", "1", path)
    return path.format(user="root", project="quick-start", uuid="0" * 32, kind="job", username="nosuch")


def of_one_kind() -> Iterator[Endpoint]:
    """Endpoints with a body. Endpoints that exist for several kinds are tried for one kind."""
    seen = set()
    for endpoint in ENDPOINTS:
        key = (endpoint.handler, endpoint.body)
        is_left_out = endpoint.path.endswith(("users/token", "/copy", "/resume"))
        if endpoint.body is None or is_left_out or key in seen:
            continue
        seen.add(key)
        yield endpoint


def cases() -> Iterator[Any]:
    for endpoint in of_one_kind():
        for field in endpoint.body.model_fields if endpoint.body else ():
            yield pytest.param(endpoint, field, id=f"{endpoint.method}-{endpoint.path.partition('v1/')[2]}-{field}")


def check(world: Caller, endpoint: Endpoint, body: object) -> int:
    content = json.dumps(body).encode()
    answer = world(endpoint.method, filled(endpoint.path), content=content)
    assert answer.status_code < 500, f"{shown(body)}: {answer.text[:200]}"
    return int(answer.status_code)


@pytest.mark.parametrize(("endpoint", "field"), list(cases()))
def test_a_field_of_a_body(world: Caller, endpoint: Endpoint, field: str) -> None:
    restore(world)
    needed = {name: value for name, value in NEEDED.items() if endpoint.body and name in endpoint.body.model_fields}
    if endpoint.kind and endpoint.status == 201 and endpoint.path.endswith(endpoint.kind.plural):
        needed = {"is_managed": False}
    for value in values_for(endpoint, field):
        check(world, endpoint, {**needed, field: value})
        if field in INSIDE:
            check(world, endpoint, {**needed, field: {"a": value}})
    for path in ("", "/statuses", "/metrics"):
        assert world.get(f"/api/v1/root/quick-start/experiments/1{path}").status_code in (200, 404)
    assert world.get("/api/v1/root/quick-start/experiments?sort=-metric.a&query=metric.a:>0").status_code == 200


@pytest.mark.parametrize("kind", [Kind.EXPERIMENT, Kind.GROUP])
def test_a_query_parameter(world: Caller, kind: Kind) -> None:
    restore(world)
    words = [text.encode("utf-8", "replace").decode() for text in (*TEXTS, *DATES, *map(repr, NUMBERS))]
    fields = ("created_at", "finished_at", "id", "concurrency", "metric.loss", "params.a", "build", "tags", "name")
    for word in dict.fromkeys(word[:500] for word in words):
        for name in ("limit", "offset", "sort"):
            answer = world.get(f"/api/v1/root/quick-start/{kind.plural}", params={name: word})
            assert answer.status_code in (200, 400), f"{name}={word[:60]!r}: {answer.text[:200]}"
        query = ",".join(f"{field}:{word[:300]}" for field in fields)
        several = (
            (f"{field}:{sign}{word[:300]}" for field in fields for sign in ("", "<")) if kind is Kind.EXPERIMENT else ()
        )
        for text in (word, query, *several):
            answer = world.get(f"/api/v1/root/quick-start/{kind.plural}", params={"query": text})
            assert answer.status_code in (200, 400), f"query={text[:60]!r}: {answer.text[:200]}"


PATHS = sorted({endpoint.path for endpoint in ENDPOINTS if endpoint.method == "GET"})


def test_a_part_of_a_path_and_every_query_parameter_of_an_endpoint(world: Caller) -> None:
    restore(world)
    words = ["%00", "%ed%a0%80", "1" * 18, "9" * 19, "%2e%2e"]
    for path in PATHS:
        for word in words:
            for part in set(re.findall(r"\{[^}]*\}", path)):
                answer = world.get(filled(path.replace(part, word)))
                assert answer.status_code < 500, f"{path} with {word[:40]}: {answer.text[:200]}"
    for endpoint in ENDPOINTS:
        for name in [parameter.name for parameter in endpoint.query] if endpoint.method == "GET" else []:
            if name == "follow":
                continue
            for word in ("\0", "1" * 5000, "-1", "é" * 3000, "true"):
                answer = world.get(filled(endpoint.path), params={name: word})
                assert answer.status_code < 500, f"{endpoint.path}?{name}={word[:40]!r}: {answer.text[:200]}"


HEADERS = [
    "authorization",
    "content-type",
    "cookie",
    "if-none-match",
    "range",
    "accept",
    "origin",
    "host",
    "content-length",
]


@pytest.mark.parametrize("name", HEADERS)
def test_a_header(world: Caller, name: str) -> None:
    restore(world)
    words = [
        b"\xff",
        b"",
        b"a" * 30_000,
        b"\xed\xa0\x80",
        b"Token \xff",
        b"Token " + b"a" * 9000,
        b"multipart/form-data",
    ]
    words += [b"multipart/form-data; boundary=", b"multipart/form-data; boundary=" + b"b" * 5000, b"x; charset=\xff"]
    words += [b"application/json; charset=nosuch", b"9" * 5000, b"-1", b"1e5", b"polylocal_session=\xff", b"Basic \xff"]
    for path in ("/api/v1/root/quick-start/jobs/1/logs/", "/api/v1/users/", "/notebook/root/quick-start/", "/healthz"):
        for word in words:
            for method in ("GET", "POST"):
                answer = world.http.request(
                    method,
                    path,
                    headers=[(b"Authorization", f"Token {world.token}".encode()), (name.encode(), word)],
                    content=b"{}" if method == "POST" else None,
                )
                assert answer.status_code < 500 or answer.status_code == 503, f"{word[:40]!r}: {answer.text[:200]}"


@pytest.mark.parametrize("moment", [datetime.min, datetime.max])
@pytest.mark.parametrize("hours", [-23, 0, 23])
def test_a_moment_is_stamped_or_refused(moment: datetime, hours: int) -> None:
    there = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    if hours == (23 if moment is datetime.min else -23):
        with pytest.raises(ValueError, match="UTC"):
            clock.stamp(there)
        return
    stamped = clock.stamp(there)
    assert clock.parse(stamped) == there
    assert len(stamped) == len(clock.stamp(datetime(2020, 1, 1, tzinfo=UTC)))


@pytest.mark.parametrize("moment", DATES)
def test_a_metric_of_any_time_is_kept_or_refused(world: Caller, moment: str) -> None:
    restore(world)
    before = world.get("/api/v1/root/quick-start/experiments/1/metrics/").json()["count"]
    answer = world.post("/api/v1/root/quick-start/experiments/1/metrics/", [{"values": {"a": 1}, "created_at": moment}])
    after = world.get("/api/v1/root/quick-start/experiments/1/metrics/").json()["count"]
    assert (answer.status_code, after - before) in ((201, 1), (400, 0)), answer.text


def test_page_numbers_stay_in_a_sensible_range() -> None:
    assert [number(text) for text in ("1" * 5000, "²", "-1", "1.5", "", None)] == [2**31, None, None, None, None, None]
