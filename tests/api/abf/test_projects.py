"""Projects in the ABF API: show, find, create, change, delete; their branches and tags."""

from __future__ import annotations

import pytest

from .farm import FORBIDDEN, NOT_FOUND, Farm, Json

FIELDS = """
    id name fullname visibility url git_url ssh_url maintainer description ancestry has_issues has_wiki default_branch
    is_package publish_i686_into_x86_64 created_at updated_at owner project_statistics repositories
""".split()


def show(farm: Farm, number: int, by: str = "ivan") -> Json:
    answer = farm.person(by).get(f"projects/{number}.json")
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()["project"]
    return found


def test_every_field(shared: Farm) -> None:
    number = shared.ids.evil_tools
    found = show(shared, number)
    assert sorted(found) == sorted(FIELDS)
    assert (found["id"], found["name"], found["fullname"]) == (number, "evil_tools", "ivan/evil_tools")
    assert (found["visibility"], found["is_package"], found["default_branch"]) == ("open", True, "master")
    assert (found["ancestry"], found["description"]) == (None, "d")
    assert (found["url"], found["git_url"]) == (
        f"/api/v1/projects/{number}.json",
        "http://127.0.0.1/ivan/evil_tools.git",
    )
    assert (found["owner"]["uname"], found["owner"]["type"], found["maintainer"]["uname"]) == ("ivan", "User", "ivan")
    assert isinstance(found["created_at"], int)
    assert isinstance(found["updated_at"], int)
    assert isinstance(found["project_statistics"], list)


def test_the_repositories_of_a_project(shared: Farm) -> None:
    found = show(shared, shared.ids.evil_tools)["repositories"]
    assert sorted(item["id"] for item in found) == sorted([shared.ids.personal, shared.ids.rosa, shared.ids.lts])
    of_rosa = next(item for item in found if item["id"] == shared.ids.rosa)
    assert (of_rosa["name"], of_rosa["url"]) == ("main", f"/api/v1/repositories/{shared.ids.rosa}.json")
    assert (of_rosa["platform"]["id"], of_rosa["platform"]["name"]) == (shared.ids.rosa_platform, "rosa2012")


def test_a_hidden_one_is_shown_to_its_owner_and_to_admins(shared: Farm) -> None:
    number = shared.ids.secret_tools
    assert show(shared, number)["visibility"] == show(shared, number, "root")["visibility"] == "hidden"
    for path in (f"projects/{number}.json", f"projects/{number}/refs_list.json"):
        answer = shared.petr.get(path)
        assert (answer.status_code, answer.json()) == (403, FORBIDDEN)


@pytest.mark.parametrize(("owner", "name"), [("ivan", "evil_tools"), ("IVAN", "Evil_Tools")])
def test_found_by_names(owner: str, name: str, shared: Farm) -> None:
    answer = shared.petr.get(f"projects/get_id.json?owner={owner}&name={name}")
    assert answer.status_code == 200
    found = answer.json()["project"]
    assert (found["id"], found["fullname"]) == (shared.ids.evil_tools, "ivan/evil_tools")
    assert found["owner"]["uname"] == "ivan"
    assert found["git_url"].endswith("/ivan/evil_tools.git")


def test_among_names_that_differ_in_case_the_exact_one_is_found(farm: Farm) -> None:
    """The order of their creation does not matter."""
    made = {name: make(farm, name=name) for name in ("Evil_Tools", "EVIL_TOOLS")} | {"evil_tools": farm.ids.evil_tools}
    found = {name: farm.petr.get(f"projects/get_id.json?owner=ivan&name={name}").json()["project"] for name in made}
    assert {name: block["id"] for name, block in found.items()} == made
    other = farm.petr.get("projects/get_id.json?owner=ivan&name=eVIL_tools").json()["project"]
    assert other["id"] in made.values()


@pytest.mark.parametrize(
    "query", ["owner=ivan&name=nosuch", "owner=petr&name=evil_tools", "owner=ivan", "", "name=%00"]
)
def test_not_found_by_names(query: str, shared: Farm) -> None:
    answer = shared.ivan.get(f"projects/get_id.json?{query}")
    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


def test_a_hidden_one_is_not_found_by_others(shared: Farm) -> None:
    assert shared.petr.get("projects/get_id.json?owner=ivan&name=secret_tools").status_code in (403, 404)


def test_all_that_one_may_see(shared: Farm) -> None:
    def names(by: str) -> list[str]:
        answer = shared.person(by).get("projects.json").json()
        assert answer["url"].startswith("/api/v1/projects.json")
        return sorted(item["fullname"] for item in answer["projects"])

    assert names("ivan") == names("root") == ["ivan/evil_tools", "ivan/secret_tools"]
    assert "ivan/secret_tools" not in names("petr")


# -- creation -------------------------------------------------------------------------------------------------------


def make(farm: Farm, **values: object) -> int:
    owner = {"owner_id": farm.ivan.id, "owner_type": "User"}
    return farm.ivan.create("projects.json", "project", **{**owner, "visibility": "open", **values})


def test_creating_a_project(farm: Farm) -> None:
    body = {"project": {"name": "new", "owner_id": farm.ivan.id, "owner_type": "User", "visibility": "hidden"}}
    answer = farm.ivan.post("projects.json", body)
    assert answer.status_code == 200
    number = answer.json()["project"]["id"]
    assert answer.json() == {"project": {"id": number, "message": "Project has been created successfully"}}
    found = show(farm, number)
    assert (found["name"], found["visibility"], found["owner"]["uname"]) == ("new", "hidden", "ivan")
    assert [item["id"] for item in found["repositories"]] == [farm.ids.personal]


def test_an_admin_creates_a_project_for_another_user(farm: Farm) -> None:
    values = {"name": "new", "owner_id": farm.petr.id, "owner_type": "User"}
    number = farm.root.create("projects.json", "project", **values)
    found = show(farm, number, "petr")
    assert found["owner"]["uname"] == "petr"
    assert found["repositories"][0]["platform"]["name"] == "petr_personal"


def test_only_admins_create_projects_for_others(shared: Farm) -> None:
    body = {"project": {"name": "new", "owner_id": shared.petr.id, "owner_type": "User"}}
    answer = shared.ivan.post("projects.json", body)
    assert (answer.status_code, answer.json()) == (403, FORBIDDEN)


@pytest.mark.parametrize("name", [..., None, "", "a b", "a/b", "..", ".", "a\0b", "evil_tools", "x" * 500])
def test_names_that_are_refused(name: object, shared: Farm) -> None:
    values = {"name": name, "owner_id": shared.ivan.id, "owner_type": "User", "visibility": "open"}
    body = {"project": {key: value for key, value in values.items() if value is not ...}}
    answer = shared.ivan.post("projects.json", body)
    assert answer.status_code == 422, answer.text
    assert list(answer.json()) == ["project"]
    assert answer.json()["project"]["id"] is None
    assert isinstance(answer.json()["project"]["message"], str)
    assert len(shared.ivan.get("projects.json").json()["projects"]) == 2


@pytest.mark.parametrize("name", ["dashboard", "admin", "experiments", "experiment", "logs", "Admin", "LOGS"])
def test_reserved_words_of_the_other_apis_paths_are_refused(name: str, shared: Farm) -> None:
    """The project's path would collide with a page or a list of its owner."""
    answer = shared.ivan.post("projects.json", {"project": {"name": name, "visibility": "open"}})
    assert answer.status_code == 422
    assert answer.json() == {"project": {"id": None, "message": "Project has not been created. Name is invalid"}}
    assert len(shared.ivan.get("projects.json").json()["projects"]) == 2


# -- changes and deletion -------------------------------------------------------------------------------------------


def test_changing_a_project(farm: Farm) -> None:
    number = farm.ids.evil_tools
    changes = {"description": "other", "visibility": "hidden", "is_package": False}
    answer = farm.ivan.change("PUT", f"projects/{number}.json", {"project": changes})
    assert answer == {"project": {"id": number, "message": "Project has been updated successfully"}}
    found = show(farm, number)
    assert {name: found[name] for name in changes} == changes
    farm.ivan.change("PUT", f"projects/{number}.json", {"project": {"description": "third"}})
    found = show(farm, number)
    assert (found["description"], found["visibility"], found["is_package"]) == ("third", "hidden", False)


def test_who_may_change_and_delete_a_project(farm: Farm) -> None:
    path = f"projects/{farm.ids.evil_tools}.json"
    for person in (farm.petr, farm.olga):
        for answer in (person.put(path, {"project": {"description": "x"}}), person.delete(path)):
            assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
    assert show(farm, farm.ids.evil_tools)["description"] == "d"
    farm.root.change("PUT", path, {"project": {"description": "x"}})
    farm.root.change("DELETE", path)


def test_deleting_a_project(farm: Farm) -> None:
    number = farm.ids.evil_tools
    answer = farm.ivan.change("DELETE", f"projects/{number}.json")
    assert answer == {"project": {"id": number, "message": "Project has been destroyed successfully"}}
    for method, path in (
        ("GET", f"projects/{number}.json"),
        ("GET", f"projects/{number}/build_lists.json"),
        ("GET", "projects/get_id.json?owner=ivan&name=evil_tools"),
        ("PUT", f"projects/{number}.json"),
        ("DELETE", f"projects/{number}.json"),
    ):
        answered = farm.ivan(method, path)
        assert (answered.status_code, answered.json()) == (404, NOT_FOUND)
    assert farm.root.get(f"repositories/{farm.ids.rosa}/projects.json").json()["projects"] == []
    assert make(farm, name="evil_tools") != number


def test_the_builds_of_a_deleted_project_are_gone(farm: Farm) -> None:
    build_list, other = farm.new(), farm.new(farm.of_secret_tools())
    farm.ivan.change("DELETE", f"projects/{farm.ids.evil_tools}.json")
    assert farm.ivan.get(f"build_lists/{build_list}.json").status_code == 404
    assert [item["id"] for item in farm.ivan.get("build_lists.json").json()["build_lists"]] == [other]
