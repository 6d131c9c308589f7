"""Random requests of schemathesis from the OpenAPI document: no 5xx, and responses of the described shapes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from polylocal.api import app as api_module

from .conftest import Caller, fill_path, restore

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 2  # for each operation
# verifying a password is slow by design; without its admin the world would be inaccessible; files have other tests
LEFT_OUT = ("/users/token/", "{username}/", "/repo/upload/")


@pytest.fixture(scope="module")
def operations() -> list[Any]:
    schema = schemathesis.openapi.from_dict(api_module.openapi.document(api_module.ENDPOINTS))
    return [found.ok() for found in schema.get_all_operations()]


def test_random_requests_from_the_document(operations: list[Any], world: Caller) -> None:
    chosen = [operation for operation in operations if not operation.path.endswith(LEFT_OUT)]
    assert len(chosen) > 200
    problems: dict[str, str] = {}
    for operation in chosen:
        name = f"{operation.method.upper()} {operation.path}"
        try:
            hold(operation, world)
        except Exception as problem:  # collects all failures
            problems[name] = f"{type(problem).__name__}: {problem}"[:700]
    assert problems == {}, "\n\n".join(f"{name}: {text}" for name, text in problems.items())


def hold(operation: Any, world: Caller) -> None:
    """Send all examples of an operation, half of them about existing objects."""

    @settings(
        max_examples=EXAMPLES,
        deadline=timedelta(seconds=30),
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), is_there=st.booleans())
    def holds(case: Any, is_there: bool) -> None:
        restore(world)
        if is_there:
            case.path_parameters = there(operation.path)
        case.validate_response(send(world, case), checks=CHECKS)

    holds()


def send(world: Caller, case: Any) -> Any:
    asked = case.as_transport_kwargs(base_url="http://127.0.0.1")
    more = {name: asked[name] for name in ("params", "json", "files") if asked.get(name) is not None}
    if isinstance(asked.get("data"), bytes):
        more["content"] = asked["data"]
    elif asked.get("data") is not None:
        more["data"] = asked["data"]
    return world(asked["method"], asked["url"], headers=dict(asked.get("headers") or {}), **more)


def there(path: str) -> dict[str, str]:
    """Path parameters of existing objects."""
    words, values = path.strip("/").split("/"), fill_path(path).strip("/").split("/")
    return {word[1:-1]: value for word, value in zip(words, values, strict=True) if word.startswith("{")}
