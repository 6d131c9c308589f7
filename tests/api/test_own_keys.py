"""Errors of a polyaxonfile name the key that the file itself contains."""

from __future__ import annotations

from typing import Any

import pytest
from support import build, job

from polylocal.api import bodies
from polylocal.api.api_context import ApiContext

from .conftest import Caller, P

pytestmark = pytest.mark.usefixtures("project")


@pytest.mark.parametrize("key", ["params", "declarations"])
def test_too_many_params_are_reported_under_the_files_own_key(key: str, api: Caller) -> None:
    values = {f"p{n}": n for n in range(bodies.MAX_PARAMS + 1)}
    content = {**job(), "kind": "experiment", key: values}
    (told,) = api.post(f"{P}/experiments/", {"content": content}).json()["content"]
    assert told == f"{key}: Ensure this field has no more than {bodies.MAX_PARAMS} names."


@pytest.mark.parametrize(
    ("sections", "place"),
    [
        ({"environment": {"secret_refs": ["mine", "nope"]}}, "environment.secret_refs.1"),
        ({"build": {"image": "a", "environment": {"secret_refs": ["nope"]}}}, "build.environment.secret_refs.0"),
    ],
)
def test_a_missing_secret_is_reported_under_the_files_own_key(
    sections: dict[str, Any], place: str, api: Caller, context: ApiContext
) -> None:
    context.secret_store.write("root", "mine", {"A": "1"})
    (told,) = api.post(f"{P}/builds/", {"content": {**build(), **sections}}).json()["content"]
    assert told.startswith(f"{place}: root has no secret `nope`")


def test_a_missing_run_is_reported_with_its_index(api: Caller) -> None:
    api.post(f"{P}/jobs/", {"content": job()})
    (told,) = api.post(f"{P}/jobs/", {"content": job(environment={"outputs": {"jobs": [1, 9]}})}).json()["content"]
    assert told == "environment.outputs.jobs.1: this project has no job `9`."
