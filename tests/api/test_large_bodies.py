"""Large and hostile bodies: they are not parsed on the event loop, so other clients don't wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.formparsers import MultiPartParser

from polylocal.api import bodies, body_parsing, responses
from polylocal.api.abf import table
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, User

from .conftest import Caller, P, tar_of

NEW = f"{P}/jobs/"
MIB = 2**20


def send(api: Caller, content: bytes, media: str = "application/json", path: str = NEW) -> Any:
    return api("POST", path, content=content, headers={"Content-Type": media})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" + b"[]," * (5 * MIB) + b"[]]", "lists and objects"),
        (b'{"run_env": {"a": [' + b"{}," * (4 * MIB) + b"{}]}}", "lists and objects"),
        (b"[" + b"1," * (7 * MIB) + b"1]", "values"),
        (b'{"x":' * 200 + b"1" + b"}" * 200, "brackets in each other"),
        (b"[" * (15 * MIB), "brackets in each other"),
    ],
    ids=["lists", "objects", "numbers", "nested", "no end"],
)
@pytest.mark.parametrize("path", [NEW, "/api/v1/projects/", "/api/v1/build_lists.json", "/api/v1/projects.json"])
def test_a_body_of_more_values_than_are_read(
    api: Caller, project: Project, content: bytes, words: str, path: str
) -> None:
    answer = send(api, content, path=path)
    if answer.status_code == 413:  # the build lists API accepts smaller bodies only
        assert path.endswith(".json")
        return
    assert answer.status_code == 400
    assert words in answer.text


def test_a_text_inside_of_a_body_has_the_same_bounds(api: Caller, project: Project) -> None:
    for name in ("run_env", "data_refs", "params"):
        answer = api.post(f"{P}/experiments/", {name: "[" + "[]," * 1_000_000 + "[]]"})
        assert answer.status_code == 400, name


def test_a_long_readme_and_a_long_polyaxonfile_pass(api: Caller, project: Project) -> None:
    readme = 'A [list], {of} "words".\n' * 40_000
    assert api.patch(f"{P}/", {"readme": readme}).status_code == 200
    assert api.get(f"{P}/").json()["readme"] == readme
    head = "version: 1\nkind: job\nbuild: {image: busybox}\nrun: {cmd: 'true'}\ndescription: |\n"
    text = head + "  Notes a, b [c] {d}\n" * 40_000
    made = api.post(NEW, {"content": text})
    assert made.status_code == 201, made.text


@pytest.mark.parametrize("count", [1001, 500_000])
@pytest.mark.parametrize("media", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
def test_a_form_with_many_fields_is_refused(api: Caller, project: Project, media: str, count: int) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
    content = b"a=&" * count if "urlencoded" in media else part * min(count, 200_000) + b"--b--\r\n"
    answer = send(api, content, media)
    assert answer.status_code == 400
    assert "Too many fields" in answer.text


@pytest.mark.parametrize("path", [NEW, "/api/v1/build_lists.json", "/healthz", "/notebook/root/quick-start/"])
def test_an_address_with_many_parameters_is_refused(api: Caller, project: Project, path: str) -> None:
    answer = api.get(f"{path}?{'a&' * 20_000}")
    assert (answer.status_code, "parameters" in answer.text) == (400, True)
    assert api.get(f"{NEW}?{urlencode([('x', n) for n in range(500)])}").status_code == 200


def test_no_part_of_a_body_or_an_answer_is_read_by_the_event_loop(
    api: Caller, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def in_a_thread(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*arguments: Any, **more: Any) -> Any:
            with pytest.raises(RuntimeError, match="no running event loop"):
                asyncio.get_running_loop()
            called.append(name)
            return function(*arguments, **more)

        return checked

    for owner, name in (
        (body_parsing, "parse_json"),
        (body_parsing, "parse_qsl"),
        (bodies, "read"),
        (responses, "JSONResponse"),
        (table, "json_response"),
        (MultiPartParser, "on_headers_finished"),
    ):
        monkeypatch.setattr(owner, name, in_a_thread(name, getattr(owner, name)))
    description = {"name": "other", "description": "d"}
    assert send(api, json.dumps(description).encode(), path="/api/v1/projects/").status_code == 201
    assert send(api, b"description=x", "application/x-www-form-urlencoded", f"{P}/bookmark/").status_code == 201
    assert api("PUT", f"{P}/repo/upload/", files={"repo": ("a.tgz", tar_of({"a": "1"}))}).status_code == 200
    assert api("PATCH", f"{P}/", data={"description": "x"}).status_code == 200
    assert api.get("/api/v1/user.json").status_code == 200
    assert set(called) == {"parse_json", "parse_qsl", "read", "JSONResponse", "json_response", "on_headers_finished"}


def test_a_long_list_is_encoded_in_parts_and_reads_the_same(
    api: Caller, store: Store, project: Project, root: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.runs.insert(project, root, NewRun(Kind.EXPERIMENT, values={"is_managed": False}))
    store.metrics.add(run, [({"lösß": n / 7}, None) for n in range(25)])
    whole = api.get(f"{P}/experiments/1/metrics/")
    monkeypatch.setattr(responses, "_AT_ONCE", 10)
    assert api.get(f"{P}/experiments/1/metrics/").content == whole.content
    assert len(whole.json()["results"]) == 25


def test_the_files_of_a_form_that_is_cut_off_are_closed(api: Caller, project: Project) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="repo"; filename="a"\r\n\r\n'
    for content in (head + b"x" * (2 * MIB), head + b"x" * (2 * MIB) + b"\r\n--b\r\nContent-Disposition: x\r\n\r\n"):
        answer = api(
            "PUT", f"{P}/repo/upload/", content=content, headers={"Content-Type": "multipart/form-data; boundary=b"}
        )
        assert answer.status_code == 400, answer.text
