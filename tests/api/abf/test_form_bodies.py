"""Bodies as forms instead of the documents' JSON."""

from __future__ import annotations

from typing import Any

import pytest

from .farm import Farm, Json


def form_of(body: Json) -> list[tuple[str, str]]:
    """`{"build_list": {"include_repos": [1]}}` → `build_list[include_repos][]=1`"""
    pairs: list[tuple[str, str]] = []

    def put(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                put(f"{name}[{key}]" if name else key, inner)
        elif isinstance(value, list):
            pairs.extend((f"{name}[]", str(item)) for item in value)
        else:
            pairs.append((name, str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)))

    put("", body)
    return pairs


def sent(farm: Farm, method: str, path: str, body: Json, kind: str, by: str = "root") -> Json:
    pairs = form_of(body)
    if kind == "multipart":
        more: Json = {"files": [(name, (None, value)) for name, value in pairs]}
    else:
        more = {"data": {name: [value for key, value in pairs if key == name] for name, _ in pairs}}
    answer = farm.person(by)(method, path, **more)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


KINDS = pytest.mark.parametrize("kind", ["urlencoded", "multipart"])


@KINDS
def test_a_build_list_is_made_by_a_form(farm: Farm, kind: str) -> None:
    body = farm.for_personal(
        commit_hash=None,
        include_repos=[farm.ids.rosa, farm.ids.contrib],
        extra_repositories=[farm.ids.rosa],
        extra_params={"A": "1", "B": "two"},
        auto_publish=False,
        save_buildroot=True,
    )
    by_form = sent(farm, "POST", "build_lists.json", body, kind, by="ivan")["build_list"]["id"]
    shown, wanted = farm.show(by_form), farm.show(farm.new(body))
    assert [item["id"] for item in shown["include_repos"]] == [farm.ids.rosa, farm.ids.contrib]
    assert (shown["extra_params"], shown["save_buildroot"]) == ({"A": "1", "B": "two"}, True)
    own = {"id", "url", "build_log_url", "created_at", "updated_at"}
    assert {k: v for k, v in shown.items() if k not in own} == {k: v for k, v in wanted.items() if k not in own}


@KINDS
def test_everything_else_is_made_and_changed_by_forms(farm: Farm, kind: str) -> None:
    values = {"name": "by_form", "description": "d", "distrib_type": "pypi", "build_network": True, "time_living": 700}
    platform = sent(farm, "POST", "platforms.json", {"platform": values}, kind)["platform"]["id"]
    found = farm.root.get(f"platforms/{platform}.json").json()["platform"]
    assert {name: found[name] for name in values} == values
    sent(farm, "PUT", f"platforms/{platform}.json", {"platform": {"visibility": "hidden"}}, kind)
    assert farm.root.get(f"platforms/{platform}.json").json()["platform"]["visibility"] == "hidden"
    values = {"platform_id": platform, "name": "main", "publish_without_qa": False}
    repository = sent(farm, "POST", "repositories.json", {"repository": values}, kind)["repository"]["id"]
    sent(farm, "PUT", f"repositories/{repository}.json", {"repository": {"description": "new"}}, kind)
    found = farm.root.get(f"repositories/{repository}.json").json()["repository"]
    assert (found["publish_without_qa"], found["description"]) == (False, "new")
    project = sent(farm, "POST", "projects.json", {"project": {"name": "formed", "visibility": "hidden"}}, kind)
    number = project["project"]["id"]
    sent(farm, "PUT", f"projects/{number}.json", {"project": {"description": "new"}}, kind)
    assert farm.root.get(f"projects/{number}.json").json()["project"]["description"] == "new"
    where = f"repositories/{repository}"
    sent(farm, "PUT", f"{where}/add_project.json", {"project_id": number}, kind)
    assert [item["id"] for item in farm.root.get(f"{where}/projects.json").json()["projects"]] == [number]
    sent(farm, "DELETE", f"{where}/remove_project.json", {"project_id": number}, kind)
    assert farm.root.get(f"{where}/projects.json").json()["projects"] == []


def test_errors_of_a_form_are_those_of_json(farm: Farm) -> None:
    by_form = farm.ivan.post("build_lists.json", data={"build_list[project_id]": "x", "build_list[arch_id]": ""})
    by_json = farm.ivan.post("build_lists.json", {"build_list": {"project_id": "x", "arch_id": ""}})
    assert (by_form.status_code, by_form.json()) == (by_json.status_code, by_json.json())


def test_contradictory_fields_are_reported(farm: Farm) -> None:
    answer = farm.ivan.post("build_lists.json", data={"build_list": "1", "build_list[project_id]": "3"})
    message = "The field 'build_list[project_id]' is given twice, in ways that exclude each other."
    assert (answer.status_code, answer.json()) == (400, {"message": message})
