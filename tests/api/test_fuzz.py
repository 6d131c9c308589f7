"""Random requests to every endpoint are refused with a reason, and never break the daemon."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support import job

from polylocal.api.app import ENDPOINTS
from polylocal.api.endpoint import Access, Endpoint
from polylocal.statuses import POLYAXON_KINDS, Kind
from polylocal.store import Store

from .conftest import FILES as FILES_OF_KINDS
from .conftest import Caller, Json, restore

TIMES = max(1, settings.default.max_examples // 200)  # more with `--hypothesis-profile=long`
BOUNDED = settings(
    max_examples=300 * TIMES,
    deadline=timedelta(seconds=5),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # shrinking a failing example takes longer than finding it
)

# -- requests -------------------------------------------------------------------------------------------------------

FIELDS = sorted({name for e in ENDPOINTS if e.body for name in e.body.model_fields})
WORDS = st.sampled_from(
    [
        *("quick-start", "root", "running", "succeeded", "true", "a,b", "{{ 1 / 0 }}", "{{", "{% for %}", "!!int ''"),
        *(
            "²",
            "-1",
            "1e999",
            "\0",
            "\ud800",
            "9999-12-31",
            "..",
            "../..",
            "%",
            "master",
            "HEAD",
            "a: b",
            "[",
            "{",
            "- *a",
        ),
    ]
)
TEXTS = st.one_of(WORDS, st.text(max_size=20), st.text(alphabet="0123456789", min_size=1, max_size=30))
NUMBERS = st.one_of(st.integers(), st.sampled_from([2**31, 2**63, -(2**63) - 1, 10**30]), st.floats())
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
SECTIONS = [
    "hptuning",
    "build",
    "run",
    "environment",
    "params",
    "inputs",
    "outputs",
    "logging",
    "name",
    "tags",
    "description",
]


@st.composite
def polyaxonfiles(draw: st.DrawFn) -> Any:
    """A valid polyaxonfile with some values replaced, as an object or as a text."""
    limited = job(environment={"resources": {"cpu": {"limits": 1}}})
    found: Json = draw(st.sampled_from([limited, *FILES_OF_KINDS.values()]))
    changes = draw(st.dictionaries(st.sampled_from([*SECTIONS, "version", "kind", "x"]), VALUES, max_size=2))
    inner = draw(
        st.dictionaries(st.sampled_from(["image", "ref", "commit", "env_vars", "build_steps"]), VALUES, max_size=2)
    )
    made = {**found, **changes}
    if isinstance(made.get("build"), dict):
        made["build"] = {**made["build"], **inner}
    return draw(st.sampled_from([made, json.dumps(made), repr(made)]))


CREATED = ["jobs", "builds", "experiments", "groups"]
BODIES = st.one_of(
    VALUES,
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4),
    st.fixed_dictionaries({}, optional={"config": polyaxonfiles(), "content": polyaxonfiles(), "name": TEXTS}),
    st.fixed_dictionaries({"status": WORDS, "message": TEXTS, "details": VALUES}),
    st.fixed_dictionaries(
        {"is_managed": st.just(False)},
        optional={
            "ttl": NUMBERS,
            "build_job": NUMBERS,
            "run_env": st.dictionaries(TEXTS, VALUES, max_size=2),
            "tags": st.lists(TEXTS, max_size=2),
            "description": TEXTS,
            "merge": st.booleans(),
        },
    ),
)
QUERY_FIELDS = ["id", "status", "name", "tags", "user", "project", "created_at", "finished_at", "build", "commit", "x"]
QUERY_FIELDS += ["group", "experiment", "independent", "metric.loss", "params.lr", "type", "concurrency", "framework"]


@st.composite
def expressions(draw: st.DrawFn) -> str:
    signs = st.sampled_from(["", "~", "<", ">", "<=", ">=", "=>", "~<", "%", "|", ".."])
    parts = (draw(st.sampled_from(QUERY_FIELDS)), draw(signs), draw(TEXTS), draw(signs), draw(TEXTS))
    return f"{parts[0]}:{''.join(parts[1:])}"


QUERIES = st.fixed_dictionaries(
    {},
    optional={
        "query": st.one_of(TEXTS, expressions(), st.lists(expressions(), max_size=3).map(",".join)),
        "sort": st.one_of(TEXTS, st.sampled_from(["-created_at", "started_at,-id", ",", "-"])),
        "limit": TEXTS,
        "offset": TEXTS,
        "path": TEXTS,
        "commit": TEXTS,
        "timestamps": TEXTS,
        "kind": TEXTS,
        "open": TEXTS,
    },
)
IDS = st.sampled_from(["1", "1", "1", "2", "0", "-1", "x", str(2**63), "9" * 30, "9" * 4400, "²", "1.5", "%00"])
NAMES = st.sampled_from(
    ["quick-start", "quick-start", "quick-start", "nosuch", "ü", "a b", "..", "%2e%2e", "\0", "users"]
)


# verifying a password is slow by design; without its admin the world would be inaccessible
TARGETS = [e for e in ENDPOINTS if not e.path.endswith(("users/token", "{username}"))]


@st.composite
def requests(draw: st.DrawFn) -> tuple[Endpoint, str]:
    endpoint = draw(st.sampled_from(TARGETS))
    path = endpoint.path.replace("{user}", draw(st.sampled_from(["root", "root", "root", "nosuch", "\0"])))
    path = path.replace("{project}", draw(NAMES)).replace("{id:id}", draw(IDS))
    path = path.replace("{jid:id}", draw(IDS)).replace("{cid:id}", draw(IDS)).replace("{sid:id}", draw(IDS))
    path = path.replace("{sequence:id}", draw(IDS)).replace("{index:id}", draw(IDS))
    path = path.replace("{uuid}", draw(st.sampled_from(["0" * 32, "x", "ü"]))).replace("{kind}", draw(NAMES))
    return endpoint, path.replace("\0", "%00").replace(" ", "%20") + draw(st.sampled_from(["", "/", "//"]))


# -- responses ------------------------------------------------------------------------------------------------------


def check(endpoint: Endpoint, path: str, answer: Any) -> None:
    assert answer.status_code < 500, f"{endpoint.method} {path[:200]}: {answer.text}"
    if answer.status_code >= 400 and answer.content:
        answer.json()


@BOUNDED
@given(request=requests(), body=BODIES, query=QUERIES)
def test_any_json(world: Caller, request: tuple[Endpoint, str], body: object, query: dict[str, str]) -> None:
    restore(world)
    endpoint, path = request
    parameters = {name: value.encode("utf-8", "replace").decode() for name, value in query.items()}
    content = json.dumps(body).encode() if endpoint.method != "GET" else b""
    check(endpoint, path, world(endpoint.method, path, content=content, params=parameters))


@settings(BOUNDED, max_examples=150 * TIMES)
@given(request=requests(), body=BODIES, query=QUERIES, who=st.sampled_from(["nobody", "a run", "a wrong token"]))
def test_any_json_from_others(
    world: Caller, request: tuple[Endpoint, str], body: object, query: dict[str, str], who: str
) -> None:
    """Callers without a token, with a wrong token, and with a run's token get an answer or a refusal."""
    restore(world)
    endpoint, path = request
    caller = Caller(world.http, {"nobody": None, "a run": run_token(world), "a wrong token": "0" * 40}[who])
    parameters = {name: value.encode("utf-8", "replace").decode() for name, value in query.items()}
    content = json.dumps(body).encode() if endpoint.method != "GET" else b""
    answer = caller(endpoint.method, path, content=content, params=parameters)
    check(endpoint, path, answer)
    if who != "a run" and endpoint.access is not Access.ANYONE:
        assert answer.status_code in (401, 404, 405, 302, 303), f"{endpoint.method} {path[:200]}: {answer.status_code}"


def run_token(world: Caller) -> str:
    store: Store = world.context.store  # type: ignore[attr-defined]
    run = store.runs.get(store.projects.get("root", "quick-start"), Kind.JOB, 1)
    return store.users.new_token(store.users.get("root"), run.pk)


def test_every_endpoint_is_among_the_targets() -> None:
    """Except for endpoints that are slow by design, and those that would lock all users out."""
    left_out = {f"{e.method} {e.path}" for e in ENDPOINTS} - {f"{e.method} {e.path}" for e in TARGETS}
    assert all(path.endswith(("users/token", "{username}")) for path in left_out)
    assert len(TARGETS) > 100


@settings(BOUNDED, max_examples=100 * TIMES)
@given(request=requests(), content=st.binary(max_size=200), media=st.sampled_from(["application/json", "x", ""]))
def test_any_bytes(world: Caller, request: tuple[Endpoint, str], content: bytes, media: str) -> None:
    restore(world)
    endpoint, path = request
    check(endpoint, path, world(endpoint.method, path, content=content, headers={"Content-Type": media}))


@settings(BOUNDED, max_examples=100 * TIMES)
@given(request=requests(), form=st.dictionaries(st.sampled_from([*FIELDS, "repo", "x"]), TEXTS, max_size=4))
def test_any_form(world: Caller, request: tuple[Endpoint, str], form: dict[str, str]) -> None:
    restore(world)
    endpoint, path = request
    data = {name: value.encode("utf-8", "replace").decode() for name, value in form.items()}
    check(endpoint, path, world(endpoint.method, path, data=data))


@settings(BOUNDED, max_examples=120 * TIMES)
@given(query=QUERIES, kind=st.sampled_from([kind.plural for kind in POLYAXON_KINDS]))
def test_any_list(world: Caller, query: dict[str, str], kind: str) -> None:
    restore(world)
    parameters = {name: value.encode("utf-8", "replace").decode() for name, value in query.items()}
    answer = world.get(f"/api/v1/root/quick-start/{kind}/", params=parameters)
    assert answer.status_code in (200, 400), f"{parameters}: {answer.text}"
    if answer.status_code == 200:
        assert list(answer.json()) == ["count", "next", "previous", "results"]


@settings(BOUNDED, max_examples=120 * TIMES)
@given(
    body=polyaxonfiles(),
    kind=st.sampled_from(["jobs", "builds", "experiments", "groups"]),
    field=st.sampled_from(["config", "content"]),
)
def test_any_polyaxonfile(world: Caller, body: object, kind: str, field: str) -> None:
    """An accepted file can be read, and run again."""
    restore(world)
    path = f"/api/v1/root/quick-start/{kind}/"
    made = world("POST", path, content=json.dumps({field: body}).encode())
    assert made.status_code in (201, 400), made.text
    assert world.get(path).status_code == 200
    if made.status_code == 201 and kind in ("jobs", "experiments"):
        assert world.post(f"{path}{made.json()['id']}/restart/").status_code == 201
