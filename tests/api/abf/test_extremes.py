"""Fields of bodies and filters with extreme values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from polylocal.api.abf import values

from .farm import Farm

DEEP = json.loads("[" * 90 + "]" * 90)
VALUES: list[Any] = [
    *(None, True, "\0", "\ud800", "1" * 4000, "x" * 70_000, [], {}, DEEP, {"a": DEEP}, {"\0": 1}, {"a": 2**64}),
    *(-1, 2**63 - 1, 2**63, -(2**63), 10**4000, 1.5, 1e308, [2**64], [-1] * 2000, ["\0"]),
]
FIELDS = {
    "build_lists.json": (
        "build_list",
        "project_id commit_hash project_version update_type save_to_repository_id build_for_platform_id arch_id"
        " include_repos auto_publish auto_publish_status auto_create_container use_save_to_repository"
        " extra_repositories extra_build_lists extra_params external_nodes save_buildroot",
    ),
    "projects.json": ("project", "name owner_id owner_type visibility description is_package default_branch"),
    "platforms.json": (
        "platform",
        "name owner_id visibility description distrib_type released build_image build_command build_network"
        " default_branch time_living",
    ),
    "repositories.json": ("repository", "name description platform_id publish_without_qa"),
}
GOOD: dict[str, dict[str, Any]] = {
    "project": {"name": "fresh", "visibility": "open", "is_package": True},
    "platform": {"name": "fresh", "description": "d", "distrib_type": "deb", "build_image": "busybox"},
    "repository": {"name": "fresh", "description": "d"},
}
FILTERS = """
    id status arch_id is_circle project_name updated_at_start updated_at_end ownership mass_build_id save_to_platform_id
    build_for_platform_id save_to_repository_id project_version new_core
""".split()
CASES = [(path, subject, field) for path, (subject, fields) in FIELDS.items() for field in fields.split()]


def send(farm: Farm, method: str, path: str, body: object) -> None:
    headers = {"Content-Type": "application/json"}
    answer = farm.root(method, path, content=json.dumps(body).encode(), headers=headers)
    assert answer.status_code < 500, f"{method} {path} {json.dumps(body):.80}: {answer.text[:200]}"


@pytest.mark.parametrize(("path", "subject", "field"), CASES)
def test_a_field_of_a_body(shared: Farm, path: str, subject: str, field: str) -> None:
    good = shared.body()["build_list"] if subject == "build_list" else GOOD[subject]
    if subject == "repository":
        good = {**good, "platform_id": shared.ids.rosa_platform}
    one = {"project": shared.ids.evil_tools, "platform": shared.ids.lts_platform, "repository": shared.ids.contrib}
    for value in VALUES:
        send(shared, "POST", path, {subject: {**good, field: value}})
        if subject in one and field != "name":
            send(shared, "PUT", f"{path.removesuffix('.json')}/{one[subject]}.json", {subject: {field: value}})


@pytest.mark.parametrize(("path", "subject"), [(path, subject) for path, (subject, _) in FIELDS.items()])
def test_values_in_place_of_all_fields(shared: Farm, path: str, subject: str) -> None:
    for value in VALUES:
        send(shared, "POST", path, {subject: value})
        send(shared, "POST", path, value)


@pytest.mark.parametrize("name", [*(f"filter[{name}]" for name in FILTERS), "page", "per_page", "query", "type"])
def test_a_parameter_of_a_query(shared: Farm, name: str) -> None:
    words = [
        "\0",
        "1" * 5000,
        "-1",
        "1e308",
        str(2**63),
        str(-(2**63) - 1),
        "99999999999999",
        "31/12/9999",
        "01/01/0001",
    ]
    for word in [*words, "é" * 2000, "\u202e", "%", "true", "253402300800", "-62135596801", "00/00/0000"]:
        for path in ("build_lists.json", "search.json", "projects.json", "platforms.json"):
            answer = shared.root.get(path, params={name: word})
            assert answer.status_code < 500, f"{path}?{name}={word[:40]!r}: {answer.text[:200]}"
    listed = shared.root.get("build_lists.json?filter[ownership]=everything")
    assert listed.status_code == 200


LONG = "x" * (values.MAX_TEXT + 1)
TOO_LONG = f"A text of {len(LONG)} characters is longer than the limit of {values.MAX_TEXT}."


@pytest.mark.parametrize(
    ("path", "subject", "field", "value", "message"),
    [
        ("build_lists.json", "build_list", "project_version", LONG, TOO_LONG),
        ("build_lists.json", "build_list", "include_repos", [1] * 1001, "A list of 1001 numbers is longer than "),
        ("projects.json", "project", "description", LONG, TOO_LONG),
        ("platforms.json", "platform", "description", LONG, TOO_LONG),
        ("repositories.json", "repository", "description", LONG, TOO_LONG),
    ],
)
def test_a_value_beyond_the_limits_is_a_bad_request(
    path: str, subject: str, field: str, value: object, message: str, shared: Farm
) -> None:
    good = shared.body()["build_list"] if subject == "build_list" else GOOD[subject]
    answer = shared.root.post(path, {subject: {**good, "platform_id": shared.ids.rosa_platform, field: value}})
    assert (answer.status_code, sorted(answer.json())) == (400, ["message"])
    assert answer.json()["message"].startswith(message)
