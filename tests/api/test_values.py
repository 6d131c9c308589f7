"""Values of a polyaxonfile in the rows, the responses and the histories of runs."""

from __future__ import annotations

from typing import Any

import pytest

from polylocal.settings import Settings

from .conftest import Caller, P

pytestmark = pytest.mark.usefixtures("project")
BASE: dict[str, Any] = {"version": 1, "kind": "experiment", "build": {"image": "a"}, "run": {"cmd": "x"}}
TEXT = """\
version: 1
kind: job
build: {image: a}
run:
  cmd: x --lr={{ lrr }}
"""


def messages(api: Caller, path: str) -> list[str | None]:
    return [row["message"] for row in api.get(f"{P}/{path}/statuses/").json()["results"]]


@pytest.mark.parametrize("query", ["params.bs:8", "declarations.bs:8"])
def test_a_default_is_in_the_row_and_found_by_a_filter(api: Caller, query: str) -> None:
    port = {"name": "bs", "type": "int", "is_optional": True, "default": 8}
    made = api.post(f"{P}/experiments/", {"content": {**BASE, "inputs": [port]}}).json()
    assert (made["params"], made["declarations"]) == ({"bs": 8}, {"bs": 8})
    assert api.get(f"{P}/experiments/?query={query}").json()["count"] == 1
    assert api.get(f"{P}/experiments/?query=params.bs:9").json()["count"] == 0


def test_a_number_in_a_text_is_a_number(api: Caller) -> None:
    text = "version: 1\nkind: experiment\nbuild: {image: a}\nrun: {cmd: 'x {{ lr * 3 }}'}\nparams: {lr: 1e-3}\n"
    made = api.post(f"{P}/experiments/", {"content": text}).json()
    assert (made["params"], made["config"]["run"]["cmd"]) == ({"lr": 0.001}, "x 0.003")
    assert api.get(f"{P}/experiments/?query=params.lr:0.001").json()["count"] == 1


def test_a_value_of_another_type_is_refused_with_its_path(api: Caller) -> None:
    content = {**BASE, "inputs": [{"name": "bs", "type": "int"}], "params": {"bs": "xx"}}
    answer = api.post(f"{P}/experiments/", {"content": content})
    assert answer.status_code == 400
    assert "params.bs: `xx` is not a whole number." in answer.json()["content"][0]


def test_an_undefined_name_is_reported_with_its_path(api: Caller) -> None:
    body = {"content": TEXT, "files": [{"name": "job.yml", "line": 1}]}
    made = api.post(f"{P}/jobs/", body).json()
    wanted = "job.yml, line 5, run.cmd: `lrr` in a template is not a param of this run: it is replaced by nothing."
    assert made["warnings"] == [wanted]
    assert messages(api, "jobs/1") == [wanted]
    assert api.get(f"{P}/jobs/1/").json()["warnings"] == [wanted]


def test_each_warning_is_an_entry_of_the_history(api: Caller) -> None:
    content = {**BASE, "environment": {"tolerations": [1]}, "run": {"cmd": "x {{ a }} {{ b }}"}}
    made = api.post(f"{P}/experiments/", {"content": content}).json()
    assert len(made["warnings"]) == 3
    told = messages(api, "experiments/1")
    assert told[0] == "Without effect on a single node: environment.tolerations"
    assert [word.partition(" ")[0] for word in map(str, told[1:])] == ["run.cmd:", "run.cmd:"]


def test_a_group_is_warned_once(api: Caller) -> None:
    content = {**BASE, "kind": "group", "run": {"cmd": "x {{ a }}"}, "hptuning": {"matrix": {"lr": {"values": [1, 2]}}}}
    assert len(api.post(f"{P}/groups/", {"content": content}).json()["warnings"]) == 1


def test_a_group_keeps_its_templates_as_text(api: Caller) -> None:
    said = {"name": "m-{{ lr }}", "tags": ["lr={{ lr }}"]}
    tuning = {"matrix": {"lr": {"values": [0.1, 0.2]}}}
    made = api.post(f"{P}/groups/", {"content": {**BASE, **said, "kind": "group", "hptuning": tuning}}).json()
    assert (made["name"], made["tags"]) == ("m-{{ lr }}", ["lr={{ lr }}"])


def test_inputs_and_a_matrix_go_together(api: Caller) -> None:
    port = {"name": "bs", "type": "int", "is_optional": True, "default": 8}
    tuning = {"matrix": {"lr": {"values": [0.1, 0.2]}}}
    content = {**BASE, "kind": "group", "inputs": [port], "hptuning": tuning}
    assert api.post(f"{P}/groups/", {"content": content}).status_code == 201


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("  data_refs: [nope]", "environment.data_refs.0"),
        ("  persistence: {data: [nope]}", "environment.persistence.data"),
    ],
)
def test_a_missing_value_is_reported_under_the_files_own_key(api: Caller, section: str, key: str) -> None:
    text = TEXT.replace("lrr", "lr | d(1)") + f"environment:\n  {section}\n"
    answer = api.post(f"{P}/jobs/", {"content": text, "files": [{"name": "a.yml", "line": 1}]})
    wanted = f"a.yml, line 7, {key}: no data folder `nope`; polylocal.toml [data] names none."
    assert (answer.status_code, answer.json()) == (400, {"content": [wanted]})


def test_problems_name_their_file(api: Caller, settings: Settings) -> None:
    text = f"{TEXT}---\nenvironment:\n  data_refs: [nope]\n"
    files = [{"name": "a.yml", "line": 1}, {"name": "b\x1b.yml", "line": 7}]
    (told,) = api.post(f"{P}/jobs/", {"content": text, "files": files}).json()["content"]
    assert told.startswith("b\\x1b.yml, line 2, environment.data_refs.0: ")


@pytest.mark.parametrize(
    "files", [[{"name": "", "line": 1}], [{"name": "a", "line": 0}], "a", [{"name": "a" * 300, "line": 1}]]
)
def test_invalid_files(api: Caller, files: object) -> None:
    assert api.post(f"{P}/jobs/", {"content": TEXT, "files": files}).status_code == 400


def test_a_restart_with_params_over_older_declarations(api: Caller) -> None:
    api.post(f"{P}/experiments/", {"content": {**BASE, "declarations": {"lr": 1, "n": 2}}})
    again = api.post(f"{P}/experiments/1/restart/", {"content": "params: {lr: 3}"})
    assert (again.status_code, again.json()["declarations"]) == (201, {"lr": 3, "n": 2})


def test_an_old_run_still_reports_keys_without_effect(api: Caller, store: Any) -> None:
    api.post(f"{P}/jobs/", {"content": {**BASE, "kind": "job", "environment": {"tolerations": [1]}}})
    with store.database.write() as db:
        db.execute("update runs set warnings = null")
    wanted = ["`environment.tolerations` has no effect on a single node."]
    assert api.get(f"{P}/jobs/1/").json()["warnings"] == wanted
