"""Data folders that runs name, and those that every run gets: existing, missing and unknown ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from api_support import api_context
from support import build, job

from polylocal.api.api_context import ApiContext
from polylocal.settings import load
from polylocal.store import Store

from .conftest import WITH_CONTAINER, Caller, P, creation_of

pytestmark = pytest.mark.usefixtures("project")


@pytest.fixture
def with_data(serving: Any, context: ApiContext, store: Store, api: Caller, tmp_path: Path) -> Any:
    """with_data(name={…}) → a client of a daemon with these data folders."""

    def start(**folders: Any) -> Caller:
        settings = load(home=context.settings.home, data=folders)
        return Caller(serving(api_context(settings, store)), api.token)

    return start


@pytest.mark.parametrize("kind", WITH_CONTAINER)
def test_a_run_is_refused_while_a_folder_of_every_run_is_missing(kind: str, with_data: Any, tmp_path: Path) -> None:
    caller = with_data(a={"path": tmp_path / "a", "always": True})
    path, body = creation_of(kind)
    answer = caller.post(path, {**body, "files": [{"name": "a.yml", "line": 1}]})
    wanted = f"the data folder `a` does not exist: create {tmp_path / 'a'}, or change polylocal.toml [data]."
    assert (answer.status_code, answer.json()) == (400, {"content": [wanted]})
    (tmp_path / "a").mkdir()
    assert caller.post(path, body).status_code == 201


@pytest.mark.parametrize("named", ["[a, b]", "true"])
def test_a_missing_named_folder_is_reported_under_the_files_own_key(named: str, with_data: Any, tmp_path: Path) -> None:
    caller = with_data(a=tmp_path, b=tmp_path / "gone")
    text = "version: 1\nkind: job\nbuild: {image: a}\nrun: {cmd: x}\n"
    text += f"environment:\n  persistence:\n    data: {named}\n"
    (told,) = caller.post(f"{P}/jobs/", {"content": text}).json()["content"]
    assert told.startswith("line 7, environment.persistence.data: the data folder `b` does not exist")


def test_a_build_needs_no_data_folder(with_data: Any, tmp_path: Path) -> None:
    caller = with_data(a={"path": tmp_path / "gone", "always": True}, b=tmp_path / "gone")
    content = {**build(), "environment": {"data_refs": ["b"]}}
    assert caller.post(f"{P}/builds/", {"content": content}).status_code == 201
    content["environment"] = {"data_refs": ["c"]}
    (told,) = caller.post(f"{P}/builds/", {"content": content}).json()["content"]
    assert told == "environment.data_refs.0: no data folder `c`; polylocal.toml [data] names a, b."


def test_a_restart_is_held_to_the_folders_of_now(with_data: Any, api: Caller, tmp_path: Path) -> None:
    api.post(f"{P}/jobs/", {"content": job()})
    answer = with_data(a={"path": tmp_path / "gone", "always": True}).post(f"{P}/jobs/1/restart/", {})
    assert (answer.status_code, "`a` does not exist" in answer.text) == (400, True)
