"""Variables of a run: stored, changed by a clone, refused with their line number."""

from __future__ import annotations

import pytest
from support import job

from polylocal.api.api_context import ApiContext

from .conftest import WITH_CONTAINER, Caller, P, creation_of

pytestmark = pytest.mark.usefixtures("project")


@pytest.mark.parametrize("kind", WITH_CONTAINER)
def test_variables_are_kept_in_the_row_of_every_kind_with_a_container(kind: str, api: Caller) -> None:
    path, body = creation_of(kind, environment={"env_vars": {"A": "1"}})
    answer = api.post(path, body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["config"]["environment"] == {"env_vars": {"A": "1"}}


def test_a_refused_variable_is_reported_with_its_line(api: Caller) -> None:
    text = "version: 1\nkind: job\nbuild: {image: a}\nrun: {cmd: x}\n"
    text += "environment:\n  env_vars:\n    A: 1\n    POLYAXON_B: 2\n"
    answer = api.post(f"{P}/jobs/", {"content": text, "files": [{"name": "a.yml", "line": 1}]})
    assert answer.status_code == 400
    assert "a.yml, line 8, environment.env_vars.POLYAXON_B: " in answer.json()["content"][0]


@pytest.mark.parametrize("how", ["restart", "resume", "copy"])
def test_a_clone_changes_one_of_them(how: str, api: Caller) -> None:
    api.post(f"{P}/jobs/", {"content": job(environment={"env_vars": [["A", 1], ["B", 2]]})})
    made = api.post(f"{P}/jobs/1/{how}/", {"content": {"environment": {"env_vars": {"B": 3}}}})
    assert made.json()["config"]["environment"]["env_vars"] == {"A": "1", "B": "3"}


def test_a_secret_and_a_variable_of_one_name_are_refused(api: Caller, context: ApiContext) -> None:
    context.secret_store.write("root", "aws", {"KEY": "secret", "ID": "secret"})
    content = job(environment={"env_vars": {"KEY": "1"}, "secret_refs": ["aws"]})
    answer = api.post(f"{P}/jobs/", {"content": content})
    wanted = "environment.env_vars.KEY: the secret `aws` sets this variable as well; take one of the two out."
    assert (answer.status_code, answer.json()) == (400, {"content": [wanted]})
    content["environment"]["secret_refs"] = [{"name": "aws", "items": ["ID"]}]
    assert api.post(f"{P}/jobs/", {"content": content}).status_code == 201
