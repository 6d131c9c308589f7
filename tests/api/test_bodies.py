"""Bodies of requests: all errors in one response, with the platform's messages; unknown keys are ignored as there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from api_support import api_context
from support import job

from polylocal.api import body_parsing
from polylocal.api.api_context import ApiContext
from polylocal.settings import load
from polylocal.store.rows import Project, Run

from .conftest import Caller, Json, P, write

pytestmark = pytest.mark.usefixtures("project")

REQUIRED = "This field is required."
NULL = "This field may not be null."
BLANK = "This field may not be blank."
SLUG = "Enter a valid 'slug' consisting of letters, numbers, underscores or hyphens."
RESERVED = "The name is a reserved word or already taken."
BOOLEAN = "Must be a valid boolean."
INTEGER = "A valid integer is required."
STRING = "Not a valid string."
CONFIG = job("python3 -u download_data.py")
INTRO = "Received non valid job specification config."


# -- messages -------------------------------------------------------------------------------------------------------


WRONG_PROJECTS: list[tuple[object, Json]] = [
    ({}, {"name": [REQUIRED]}),
    ({"name": None}, {"name": [NULL]}),
    ({"name": ""}, {"name": [BLANK]}),
    ({"name": 5}, {"name": [STRING]}),
    ({"name": ["a"]}, {"name": [STRING]}),
    ({"name": "a b"}, {"name": [SLUG]}),
    ({"name": "a.b"}, {"name": [SLUG]}),
    ({"name": "ä"}, {"name": [SLUG]}),
    ({"name": "a\n"}, {"name": [SLUG]}),
    ({"name": "a/b"}, {"name": [SLUG]}),
    ({"name": "x" * 129}, {"name": ["Ensure this field has no more than 128 characters."]}),
    ({"name": "user"}, {"name": [RESERVED]}),
    ({"name": "Experiments"}, {"name": [RESERVED]}),
    ({"name": "events"}, {"name": [RESERVED]}),
    ({"name": "experiment_groups"}, {"name": [RESERVED]}),
    ({"name": "a", "is_public": "perhaps"}, {"is_public": [BOOLEAN]}),
    ({"name": "a", "is_public": []}, {"is_public": [BOOLEAN]}),
    ({"name": "a", "description": 5}, {"description": [STRING]}),
    ({"name": "a", "tags": 5}, {"tags": ['Expected a list of items but got type "int".']}),
    ({"name": "a", "tags": {"b": 1}}, {"tags": ['Expected a list of items but got type "dict".']}),
    ({"name": "a", "tags": [5]}, {"tags": [STRING]}),
    ({"name": "a", "tags": ["x" * 65]}, {"tags": ["Ensure this field has no more than 64 characters."]}),
    (
        {"name": "a b", "is_public": "x", "description": [], "tags": 1},
        {
            "name": [SLUG],
            "is_public": [BOOLEAN],
            "description": [STRING],
            "tags": ['Expected a list of items but got type "int".'],
        },
    ),
    ([], {"non_field_errors": ["Invalid data. Expected a dictionary, but got list."]}),
    ("text", {"non_field_errors": ["Invalid data. Expected a dictionary, but got str."]}),
    (5, {"non_field_errors": ["Invalid data. Expected a dictionary, but got int."]}),
]


def test_a_project_that_can_not_be(api: Caller) -> None:
    for body, messages in WRONG_PROJECTS:
        answer = api.post("/api/v1/projects/", body)
        assert (body, answer.status_code, answer.json()) == (body, 400, messages)
    assert api.get("/api/v1/root/").json()["count"] == 1


def test_names_that_are_good(api: Caller) -> None:
    for name in ("x" * 128, "a", "A-b_9", "build", "notebook", "bookmark", "-", "0"):
        assert api.post("/api/v1/projects/", {"name": name}).status_code == 201
        assert api.get(f"/api/v1/root/{name}/").json()["unique_name"] == f"root.{name}"


WRONG_RUNS: list[tuple[Json, Json]] = [
    ({}, {"config": [REQUIRED]}),
    ({"config": None, "content": None}, {"config": [REQUIRED]}),
    ({"config": CONFIG, "name": "a b"}, {"name": [SLUG]}),
    ({"config": CONFIG, "name": ""}, {"name": [BLANK]}),
    ({"config": CONFIG, "name": "jobs"}, {"name": [RESERVED]}),
    ({"config": CONFIG, "ttl": "soon"}, {"ttl": [INTEGER]}),
    ({"config": CONFIG, "ttl": 1.5}, {"ttl": [INTEGER]}),
    ({"config": CONFIG, "build_job": "x"}, {"build_job": [INTEGER]}),
    ({"config": CONFIG, "is_managed": "perhaps"}, {"is_managed": [BOOLEAN]}),
    ({"config": CONFIG, "ttl": "x", "name": "a b"}, {"ttl": [INTEGER], "name": [SLUG]}),
]


@pytest.mark.parametrize("kind", ["jobs", "builds"])
def test_a_run_that_can_not_be(kind: str, api: Caller) -> None:
    for body, messages in WRONG_RUNS:
        answer = api.post(f"{P}/{kind}/", body)
        assert (body, answer.status_code, answer.json()) == (body, 400, messages)
    assert api.get(f"{P}/{kind}/").json()["count"] == 0


@pytest.mark.parametrize("value", [5, ["a"], True, 1.5])
def test_a_polyaxonfile_is_an_object_or_a_text(value: object, api: Caller) -> None:
    answer = api.post(f"{P}/jobs/", {"config": value})
    assert answer.status_code == 400
    assert list(answer.json()) == ["config"]


@pytest.mark.parametrize(
    ("body", "field"), [({"ttl": -1}, "ttl"), ({"priority": 1001}, "priority"), ({"priority": -1001}, "priority")]
)
def test_numbers_have_bounds(body: Json, field: str, api: Caller) -> None:
    answer = api.post(f"{P}/jobs/", {"config": CONFIG, **body})
    assert (answer.status_code, list(answer.json())) == (400, [field])


WRONG_FILES = [
    ("", "A polyaxonfile is a mapping of sections, this is empty."),
    ("...", "line 1"),
    ("text", "A polyaxonfile is a mapping of sections, this is a str."),
    ("kind: job", "The Polyaxonfile `version` must be specified."),
    ("version: 1", "The Polyaxonfile `kind` must be specified"),
    ("version: 1\nkind: build\n", "line 2, kind: Must be equal to job."),
    ("version: 1\nkind: job\nrun: {cmd: date}\n", "build is a required section"),
    ("version: 1\nkind: job\nbuild: {image: b}\n", "run is a required section"),
    ("version: 1\nkind: job\nbuild: {image: b}\nrun: {cmd: date}\nbild: {}\n", "line 5, bild: Unknown field."),
    ("version: 1\nkind: job\nbuild: {image: 'a b'}\nrun: {cmd: date}\n", "Invalid docker image `a b`"),
    ("version: 1\nkind: job\n\tbuild: x\n", "line 3, column 1"),
    ("version: 1\nkind: job\nbuild:\n  image: b\nrun:\n  cmd: ''\n", "the command is empty"),
]


@pytest.mark.parametrize("field", ["content", "config"])
def test_a_wrong_polyaxonfile(field: str, api: Caller) -> None:
    for content, problem in WRONG_FILES:
        answer = api.post(f"{P}/jobs/", {field: content})
        assert (content, answer.status_code, list(answer.json())) == (content, 400, [field])
        sentences = answer.json()[field]
        assert problem in " ".join(sentences)
        assert all(sentence.startswith(INTRO) for sentence in sentences)


def test_all_problems_of_a_polyaxonfile_are_reported_at_once(api: Caller) -> None:
    config = {"version": 2, "kind": "job", "build": {"image": "a b", "nocache": "x"}, "run": {}, "other": 1}
    sentences = " ".join(api.post(f"{P}/jobs/", {"config": config}).json()["config"])
    for path in ("version", "build.image", "build.nocache", "run.cmd", "other"):
        assert f"{path}:" in sentences


def test_messages_about_builds_speak_of_builds(api: Caller) -> None:
    answer = api.post(f"{P}/builds/", {"config": {"version": 1, "kind": "job"}})
    assert answer.json() == {"config": ["Received non valid build specification config. kind: Must be equal to build."]}


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({}, {"status": [REQUIRED]}),
        ({"status": "nosuch"}, {"status": ['"nosuch" is not a valid choice.']}),
        ({"status": None}, {"status": [NULL]}),
        ({"status": 5}, {"status": ['"5" is not a valid choice.']}),
        (
            {"status": "running", "message": "x" * 257},
            {"message": ["Ensure this field has no more than 256 characters."]},
        ),
    ],
)
def test_a_status_that_can_not_be(body: Json, messages: Json, api: Caller, a_job: Run) -> None:
    answer = api.post(f"{P}/jobs/1/statuses/", body)
    assert (answer.status_code, answer.json()) == (400, messages)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"name": "a b", "tags": 5}, {"name", "tags"}),
        ({"data_refs": "x"}, {"data_refs"}),
        ({"run_env": [1]}, {"run_env"}),
        ({"merge": "perhaps"}, {"merge"}),
        ([], {"non_field_errors"}),
    ],
)
def test_a_change_that_can_not_be(body: object, fields: set[str], api: Caller, a_job: Run) -> None:
    for method in ("PATCH", "PUT"):
        answer = api(method, f"{P}/jobs/1/", json=body)
        assert (answer.status_code, set(answer.json())) == (400, fields)


def test_put_of_a_project_needs_its_name(api: Caller) -> None:
    answer = api.put(f"{P}/", json={"description": "x"})
    assert (answer.status_code, answer.json()) == (400, {"name": [REQUIRED]})
    answer = api.put(f"{P}/", json={"name": "quick-start", "description": "x"})
    assert (answer.status_code, answer.json()["description"]) == (200, "x")


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({}, {"username": [REQUIRED], "password": [REQUIRED]}),
        ({"username": "", "password": "x"}, {"username": [BLANK]}),
        ({"username": "root", "password": ""}, {"password": [BLANK]}),
        ({"username": "root", "password": None}, {"password": [NULL]}),
    ],
)
def test_a_login_that_can_not_be(body: Json, messages: Json, nobody: Caller) -> None:
    answer = nobody.post("/api/v1/users/token/", body)
    assert (answer.status_code, answer.json()) == (400, messages)


@pytest.mark.parametrize("body", [{"update_code": "perhaps"}, {"update_code": []}])
def test_update_code_is_a_boolean(body: Json, api: Caller, a_job: Run) -> None:
    answer = api.post(f"{P}/jobs/1/restart/", body)
    assert answer.status_code == 400
    assert answer.json() in (["update_code should be a boolean"], {"update_code": [BOOLEAN]})


# -- forms of a body ------------------------------------------------------------------------------------------------


def test_json_form_and_multipart(api: Caller) -> None:
    values = {"name": "one", "description": "d", "is_public": "false", "tags": "a,b"}
    boundary = {part: (None, value) for part, value in {**values, "name": "two"}.items()}
    first = api("POST", "/api/v1/projects/", data=values)
    second = api("POST", "/api/v1/projects/", files=boundary)
    third = api.post("/api/v1/projects/", {**values, "name": "three"})
    for answer, name in ((first, "one"), (second, "two"), (third, "three")):
        assert answer.status_code == 201
        made = answer.json()
        assert (made["name"], made["description"], made["is_public"]) == (name, "d", False)
        assert made["tags"] == ["a", "b"]


def test_a_form_may_say_a_thing_twice(api: Caller) -> None:
    made = api("POST", "/api/v1/projects/", data={"name": "one", "tags": ["a", "b"]})
    assert made.json()["tags"] == ["a", "b"]


def test_a_run_from_a_form(api: Caller) -> None:
    body = {"config": json.dumps(CONFIG), "ttl": "60", "data_refs": '{"train": "8d777f385d3d"}'}
    for answer in (
        api("POST", f"{P}/jobs/", data=body),
        api("POST", f"{P}/jobs/", files={k: (None, v) for k, v in body.items()}),
    ):
        assert answer.status_code == 201
        assert (answer.json()["ttl"], answer.json()["data_refs"]) == (60, {"train": "8d777f385d3d"})
        assert answer.json()["config"] == CONFIG


def test_json_without_a_content_type(api: Caller) -> None:
    made = api("POST", "/api/v1/projects/", content=b'{"name": "one"}')
    assert made.status_code == 201


@pytest.mark.parametrize("content", [b"", b"  \n"])
def test_a_missing_body_is_an_empty_one(content: bytes, api: Caller, a_job: Run) -> None:
    headers = {"Content-Type": "application/json"}
    assert api("POST", f"{P}/jobs/1/restart/", content=content, headers=headers).status_code == 201
    assert api("PATCH", f"{P}/jobs/1/", content=content, headers=headers).status_code == 200
    assert api("POST", f"{P}/jobs/", content=content, headers=headers).json() == {"config": [REQUIRED]}


@pytest.mark.parametrize(
    "content", [b"{", b"{broken}", b'{"name": }', b"\xff\xfe", b"[" * 5000, b'{"a": 1} {', b"1" * 5000, b"'a'"]
)
def test_what_is_not_json(content: bytes, api: Caller) -> None:
    answer = api("POST", "/api/v1/projects/", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("JSON parse error - ")


def test_a_broken_multipart_body(api: Caller) -> None:
    for content, boundary in ((b"nonsense", "x"), (b"--x\r\nbroken", "x"), (b"--x\r\n", "")):
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        assert api("POST", "/api/v1/projects/", content=content, headers=headers).status_code == 400
    headers = {"Content-Type": "multipart/form-data"}
    assert api("POST", "/api/v1/projects/", content=b"--x", headers=headers).status_code == 400


def test_a_file_where_a_text_belongs(api: Caller) -> None:
    answer = api("POST", "/api/v1/projects/", files={"name": ("name.txt", b"one")})
    assert (answer.status_code, answer.json()) == (400, {"name": [STRING]})


# -- limits ---------------------------------------------------------------------------------------------------------

TOO_MUCH = 16 * 2**20 + 1


def test_a_body_that_is_too_large(api: Caller) -> None:
    answer = api("POST", "/api/v1/projects/", content=b" " * TOO_MUCH)
    assert answer.status_code == 413
    assert f"{TOO_MUCH} bytes" in answer.json()["detail"]


def in_pieces(head: bytes, size: int) -> Iterator[bytes]:
    yield head
    for _ in range(size // 2**20 + 1):
        yield b"a" * 2**20


def test_a_body_that_does_not_say_how_large_it_is(api: Caller) -> None:
    assert api("POST", "/api/v1/projects/", content=in_pieces(b'{"name": "', TOO_MUCH)).status_code == 413


def test_a_form_that_does_not_say_how_large_it_is(api: Caller) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = api("POST", "/api/v1/projects/", content=in_pieces(b"name=one&x=", TOO_MUCH), headers=headers)
    assert answer.status_code in (400, 413)


LOGIN, SESSION = "/api/v1/users/token/", "/polylocal/v1/session"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize("path", [LOGIN, SESSION])
def test_little_is_read_from_unknown_callers(path: str, nobody: Caller) -> None:
    for headers in ({}, FORM):
        whole = b"x=" + b"a" * body_parsing.MAX_ANONYMOUS
        assert nobody("POST", path, content=whole, headers=headers).status_code == 413
        assert nobody("POST", path, content=in_pieces(b"x=", 2**20), headers=headers).status_code in (400, 413)
    whole = json.dumps({"username": "root", "password": "x"}).encode()
    answer = nobody("POST", LOGIN, content=whole.ljust(body_parsing.MAX_ANONYMOUS))
    assert answer.json() == {"non_field_errors": ["Unable to log in with provided credentials."]}


def test_of_a_user_more_is_read(api: Caller) -> None:
    readme = "x" * (2 * body_parsing.MAX_ANONYMOUS)
    assert api.post("/api/v1/projects/", {"name": "long", "readme": readme}).status_code == 201


# -- characters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("charset", ["utf-16", "latin-1", "cp1252", "utf-8-sig", "no-such", '"utf-16"', "x" * 5000])
@pytest.mark.parametrize("media", ["application/json", "application/x-www-form-urlencoded"])
def test_bodies_are_read_as_utf_8_only(media: str, charset: str, api: Caller) -> None:
    body = b'{"name": "one"}' if media.endswith("json") else b"name=one"
    answer = api("POST", "/api/v1/projects/", content=body, headers={"Content-Type": f"{media}; charset={charset}"})
    assert answer.status_code == 400
    assert "Bodies are read as UTF-8" in answer.json()["detail"]
    assert len(answer.json()["detail"]) < 200
    assert api.get("/api/v1/root/").json()["count"] == 1


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "utf8", '"utf-8"', "US-ASCII"])
def test_names_of_utf_8(charset: str, api: Caller) -> None:
    headers = {"Content-Type": f"application/json; charset={charset}"}
    body = json.dumps({"name": "one", "description": "ü✓"}, ensure_ascii=charset.startswith("US")).encode()
    answer = api("POST", "/api/v1/projects/", content=body, headers=headers)
    assert (answer.status_code, answer.json()["description"]) == (201, "ü✓")


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "one", "description": "\xed\xa0\x80"}',
        b'{"name": "one", "description": "\xff"}',
        '{"name": "one"}'.encode("utf-16"),
        '{"name": "one"}'.encode("utf-16-le"),
        '{"name": "one"}'.encode("utf-32"),
    ],
    ids=["half a character", "no character", "UTF-16", "UTF-16 without a mark", "UTF-32"],
)
def test_json_of_other_letters(body: bytes, api: Caller) -> None:
    answer = api("POST", "/api/v1/projects/", content=body)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("JSON parse error - ")
    assert api.get("/api/v1/root/").json()["count"] == 1


def test_json_may_begin_with_its_mark(api: Caller) -> None:
    assert api("POST", "/api/v1/projects/", content='{"name": "one"}'.encode("utf-8-sig")).status_code == 201


# -- JSON in a form -------------------------------------------------------------------------------------------------

UNKEPT = {
    "half a character": '{"a": "\\ud800"}',
    "brackets": "[" * 100_000,
    "braces": '{"a":' * 50_000,
}


@pytest.mark.parametrize("what", UNKEPT)
@pytest.mark.parametrize(
    ("kind", "field"),
    [("jobs", "run_env"), ("jobs", "data_refs"), ("builds", "params"), ("experiments", "declarations")],
)
def test_a_form_allows_no_more_than_json(kind: str, field: str, what: str, api: Caller) -> None:
    answer = api("POST", f"{P}/{kind}/", data={"is_managed": "false", field: UNKEPT[what]})
    assert (answer.status_code, list(answer.json())) == (400, [field])
    assert api.get(f"{P}/{kind}/").json()["count"] == 0


@pytest.mark.parametrize("what", UNKEPT)
def test_the_details_of_a_status_in_a_form(what: str, api: Caller, a_job: Run) -> None:
    answer = api("POST", f"{P}/jobs/1/statuses/", data={"status": "scheduled", "details": UNKEPT[what]})
    assert (answer.status_code, list(answer.json())) == (400, ["details"])
    assert api.get(f"{P}/jobs/1/statuses/").json()["count"] == 1
    good = {"status": "scheduled", "details": '{"a": [1.5]}'}
    assert api("POST", f"{P}/jobs/1/statuses/", data=good).json()["details"] == {"a": [1.5]}


# -- ignored keys ---------------------------------------------------------------------------------------------------

NULLS = (
    "id uuid unique_name pod_id name user project build_job description tags last_status created_at updated_at "
    "started_at finished_at total_run is_clone ttl resources definition backend"
).split()


def test_a_job_as_the_last_client_posts_it(api: Caller) -> None:
    body = {**dict.fromkeys(NULLS), "content": json.dumps(CONFIG), "is_managed": True}
    made = api.post(f"{P}/jobs/", body)
    assert made.status_code == 201
    assert (made.json()["id"], made.json()["config"], made.json()["content"]) == (1, CONFIG, json.dumps(CONFIG))
    assert (made.json()["name"], made.json()["tags"], made.json()["is_managed"]) == (None, None, True)


def test_a_build_as_the_last_client_posts_it(api: Caller) -> None:
    content = json.dumps({"version": 1, "kind": "build", "image": "busybox", "build_steps": ["date"]})
    body = {**dict.fromkeys([*NULLS, "dockerfile"]), "content": content, "is_managed": True, "num_jobs": 0}
    made = api.post(f"{P}/builds/", body)
    assert made.status_code == 201
    nested = {"build": {"build_steps": ["date"], "image": "busybox"}, "version": 1, "kind": "build"}
    assert json.dumps(made.json()["config"]) == json.dumps(nested)
    assert made.json()["content"] == content


def test_a_project_as_the_last_client_posts_it(api: Caller) -> None:
    nulls = "id uuid user owner unique_name description created_at updated_at experiments groups tags".split()
    zeros = "num_experiments num_independent_experiments num_experiment_groups num_jobs num_builds".split()
    body: Json = {**dict.fromkeys(nulls), **dict.fromkeys(zeros, 0), "name": "new", "is_public": True}
    made = api.post("/api/v1/projects/", {**body, "has_code": False, "has_tensorboard": False, "has_notebook": False})
    assert made.status_code == 201
    assert (made.json()["name"], made.json()["is_public"], made.json()["user"]) == ("new", True, "root")
    assert made.json()["id"] == 2


def test_is_public_null_is_the_default(api: Caller) -> None:
    assert api.post("/api/v1/projects/", {"name": "new", "is_public": None}).json()["is_public"] is True
    api.patch(f"{P}/", {"is_public": False})
    assert api.patch(f"{P}/", {"is_public": None, "name": None}).json()["is_public"] is False


READ_ONLY = {
    "id": 77,
    "uuid": "0" * 32,
    "user": "ann",
    "project": "ann.other",
    "unique_name": "x.y",
    "last_status": "succeeded",
    "created_at": "2018-08-19T22:06:35.963000+02:00",
    "is_clone": True,
    "bookmarked": True,
    "exit_code": 3,
    "nonsense": {"a": [1]},
}


def test_read_only_and_unknown_keys_are_ignored(api: Caller) -> None:
    made = api.post(f"{P}/jobs/", {**READ_ONLY, "config": CONFIG}).json()
    for name, value in READ_ONLY.items():
        assert made.get(name) != value
    changed = api.patch(f"{P}/jobs/1/", READ_ONLY).json()
    assert {**changed, "updated_at": ""} == {**made, "updated_at": ""}
    assert api.patch(f"{P}/jobs/1/", {"config": {"version": 2}, "content": "x"}).json()["config"] == made["config"]


# -- polyaxonfiles --------------------------------------------------------------------------------------------------


FORMS: list[Json] = [
    {"config": CONFIG},
    {"config": json.dumps(CONFIG)},
    {"config": yaml.safe_dump(CONFIG)},
    {"config": repr(CONFIG)},
    {"content": CONFIG},
    {"content": json.dumps(CONFIG)},
    {"content": yaml.safe_dump(CONFIG)},
    {"content": repr(CONFIG)},
    {"content": json.dumps(CONFIG), "config": {"version": 2}},
]


def test_all_forms_of_a_polyaxonfile(api: Caller) -> None:
    for body in FORMS:
        made = api.post(f"{P}/jobs/", body)
        assert (body, made.status_code, made.json()["config"]) == (body, 201, CONFIG)
        assert list(made.json()["config"]) == ["run", "build", "version", "kind"]
        assert isinstance(made.json()["content"], str)
        if isinstance(body.get("content"), str):
            assert made.json()["content"] == body["content"]


@pytest.mark.parametrize(
    "source",
    [
        {"version": 1, "kind": "build", "build": {"image": "busybox", "build_steps": ["date"]}},
        {"version": 1, "kind": "build", "image": "busybox", "build_steps": ["date"]},
    ],
)
def test_builds_nested_and_flat(source: Json, api: Caller) -> None:
    for body in ({"config": source}, {"content": json.dumps(source)}, {"content": yaml.safe_dump(source)}):
        made = api.post(f"{P}/builds/", body)
        assert made.status_code == 201
        assert made.json()["config"]["build"] == {"build_steps": ["date"], "image": "busybox"}


def test_keys_in_the_polyaxonfile_and_in_the_body(api: Caller) -> None:
    config = {**CONFIG, "name": "from-file", "description": "of the file", "tags": ["file"]}
    made = api.post(f"{P}/jobs/", {"config": config}).json()
    assert (made["name"], made["description"], made["tags"]) == ("from-file", "of the file", ["file"])
    made = api.post(
        f"{P}/jobs/", {"config": config, "name": "body", "description": "of the body", "tags": ["b"]}
    ).json()
    assert (made["name"], made["description"], made["tags"]) == ("body", "of the body", ["b"])


def test_templates_are_rendered_here(api: Caller) -> None:
    config = {**CONFIG, "params": {"lr": 0.1}, "run": {"cmd": "train --lr={{ lr }}"}}
    made = api.post(f"{P}/jobs/", {"content": json.dumps(config)}).json()
    assert made["config"]["run"]["cmd"] == "train --lr=0.1"
    assert json.loads(made["content"])["run"]["cmd"] == "train --lr={{ lr }}"


def test_resources_are_in_the_response(api: Caller) -> None:
    resources = {"cpu": {"requests": 1, "limits": 2}, "memory": {"limits": 512}}
    made = api.post(f"{P}/jobs/", {"config": {**CONFIG, "environment": {"resources": resources}}}).json()
    assert made["resources"] == resources


def test_keys_without_effect_are_reported(api: Caller) -> None:
    made = api.post(f"{P}/jobs/", {"config": {**CONFIG, "environment": {"node_selector": {"a": "b"}}}}).json()
    assert made["warnings"] == ["`environment.node_selector` has no effect on a single node."]


def test_unmanaged_runs_need_no_polyaxonfile(api: Caller) -> None:
    for flag in ("is_managed", "in_cluster"):
        made = api.post(f"{P}/jobs/", {flag: False, "name": "tracked"})
        assert made.status_code == 201
        assert (made.json()["config"], made.json()["content"], made.json()["is_managed"]) == (None, None, False)
    assert api.post(f"{P}/jobs/", {"is_managed": False, "config": CONFIG}).json()["is_managed"] is False


def test_data_folders_must_be_known(serving: Any, settings: Any, store: Any, api: Caller, tmp_path: Any) -> None:
    config = {**CONFIG, "environment": {"data_refs": ["images"]}}
    answer = api.post(f"{P}/jobs/", {"config": config})
    assert answer.status_code == 400
    assert "no data folder `images`" in answer.json()["config"][0]
    write(tmp_path / "images" / "a.png", b"x")
    known = load(home=settings.home, data={"images": tmp_path / "images"})
    elsewhere = Caller(serving(api_context(known, store)), api.token)
    assert elsewhere.post(f"{P}/jobs/", {"config": config}).status_code == 201


# -- hostile bodies -------------------------------------------------------------------------------------------------


HOSTILE_CONTENT = {
    "a tag that a text is no value of": "!!timestamp nonsense",
    "an empty float": "version: !!float ''",
    "an empty integer": "version: !!int ''",
    "a boolean that is none": "version: !!bool perhaps",
    "an alias of itself": "&a {version: 1, kind: job, build: {image: b}, run: {cmd: date}, params: {x: *a}}",
    "a date in a free section": json.dumps(CONFIG)[:-1] + ', "environment": {"node_selector": {"a": 2018-08-23}}}',
    "a date in a list": json.dumps(CONFIG)[:-1] + ', "params": {"days": [2018-08-23]}}',
    "a set": json.dumps(CONFIG)[:-1] + ', "environment": {"tolerations": [!!set {a, b}]}}',
    "bytes": json.dumps(CONFIG)[:-1] + ', "params": {"x": [!!binary aGVsbG8=]}}',
    "not a number": json.dumps(CONFIG)[:-1] + ', "params": {"x": .nan}}',
    "a name that is no text": json.dumps(CONFIG)[:-1] + ", 5: 6}",
    "a very deep list": "[" * 600 + "]" * 600,
    "a very deep template": json.dumps({**CONFIG, "run": {"cmd": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}"}}),
    "a half of a character": json.dumps({**CONFIG, "description": "\ud800"}),
    "a build that is no number": json.dumps({**CONFIG, "build": {"ref": "²"}}),
    "a build that is too large a number": json.dumps({**CONFIG, "build": {"ref": 10**30}}),
    "a build that is too large a text": json.dumps({**CONFIG, "build": {"ref": "9" * 30}}),
    "a build that is much too large a text": json.dumps({**CONFIG, "build": {"ref": "9" * 5000}}),
    "a commit with a zero byte": json.dumps({**CONFIG, "build": {"image": "b", "commit": "a\0b"}}),
    "a priority that is too large": json.dumps({**CONFIG, "environment": {"max_restarts": 10**30}}),
}


@pytest.mark.parametrize("what", HOSTILE_CONTENT)
def test_a_hostile_polyaxonfile(what: str, api: Caller, context: ApiContext, project: Project) -> None:
    write(context.home.code(project.uuid) / "HEAD", "ref: refs/heads/master\n")
    answer = api.post(f"{P}/jobs/", {"content": HOSTILE_CONTENT[what]})
    assert answer.status_code in (201, 400)
    assert api.get(f"{P}/jobs/").status_code == 200
    if answer.status_code == 201:
        assert api.get(f"{P}/jobs/{answer.json()['id']}/").status_code == 200
        assert api.post(f"{P}/jobs/{answer.json()['id']}/restart/", {"content": "tags: [x]"}).status_code == 201


@pytest.mark.parametrize(
    "body",
    [
        b'{"is_managed": false, "run_env": {"a": NaN}}',
        b'{"is_managed": false, "data_refs": {"a": Infinity}}',
        b'{"is_managed": false, "run_env": {"a": 1e999}}',
        b'{"is_managed": false, "description": "\\ud800"}',
        b'{"is_managed": false, "tags": ["\\udfff"]}',
        b'{"is_managed": false, "run_env": {"a": "\\ud800"}}',
        b'{"is_managed": false, "run_env": {"\\ud800": 1}}',
        b'{"is_managed": false, "description": "zero \\u0000 byte"}',
        b'{"is_managed": false, "ttl": ' + b"9" * 30 + b"}",
        b'{"is_managed": false, "ttl": 1e300}',
        b'{"is_managed": false, "run_env": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}",
    ],
)
def test_values_that_json_can_say_and_few_can_take(body: bytes, api: Caller) -> None:
    answer = api("POST", f"{P}/jobs/", content=body)
    assert answer.status_code in (201, 400)
    assert api.get(f"{P}/jobs/").status_code == 200
    if answer.status_code == 201:
        assert api.get(f"{P}/jobs/{answer.json()['id']}/").status_code == 200


def test_a_build_with_a_number_that_is_too_large(api: Caller) -> None:
    assert api.post(f"{P}/jobs/", {"config": CONFIG, "build_job": 10**30}).status_code == 400


@pytest.mark.parametrize("name", ["\ud800", "a\ud800"])
def test_half_a_character_in_a_message(name: str, api: Caller, a_job: Run) -> None:
    body = json.dumps({"status": name, "name": name}).encode()
    assert api("POST", f"{P}/jobs/1/statuses/", content=body).status_code == 400
    assert api("POST", "/api/v1/projects/", content=body).status_code == 400
    broken = json.dumps({"config": {"version": 1, "kind": "job", name: 1}}).encode()
    assert api("POST", f"{P}/jobs/", content=broken).status_code == 400


def test_a_password_with_half_a_character(nobody: Caller) -> None:
    body = json.dumps({"username": "root", "password": "\ud800"}).encode()
    assert nobody("POST", "/api/v1/users/token/", content=body).status_code == 400
    body = json.dumps({"username": "\ud800", "password": "password"}).encode()
    assert nobody("POST", "/api/v1/users/token/", content=body).status_code == 400


@pytest.mark.parametrize("levels", [300, 500, 700, 900])
def test_deep_json_is_taken_or_refused(levels: int, api: Caller) -> None:
    lists = "[" * levels + "]" * levels
    config = json.dumps(CONFIG)[:-1] + f', "params": {{"x": {lists}}}}}'
    answer = api("POST", f"{P}/jobs/", content=f'{{"config": {config}}}'.encode())
    assert answer.status_code in (201, 400)
    if answer.status_code == 201:
        assert api.get(f"{P}/jobs/{answer.json()['id']}/").status_code == 200
