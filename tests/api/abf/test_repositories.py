"""Repositories: their projects, and the lock that makes publications wait."""

from __future__ import annotations

import pytest

from .farm import FORBIDDEN, NOT_FOUND, Farm, Json

FIELDS = "id name url description publish_without_qa created_at updated_at platform".split()


def show(farm: Farm, number: int) -> Json:
    answer = farm.ivan.get(f"repositories/{number}.json")
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()["repository"]
    return found


def projects(farm: Farm, number: int, by: str = "root") -> list[str]:
    answer = farm.person(by).get(f"repositories/{number}/projects.json")
    assert answer.status_code == 200, answer.text
    assert answer.json()["url"].startswith(f"/api/v1/repositories/{number}/projects.json")
    return sorted(item["fullname"] for item in answer.json()["projects"])


def test_every_field(shared: Farm) -> None:
    number = shared.ids.rosa
    found = show(shared, number)
    assert sorted(found) == sorted(FIELDS)
    assert (found["id"], found["name"], found["description"]) == (number, "main", "d")
    assert (found["url"], found["publish_without_qa"]) == (f"/api/v1/repositories/{number}.json", True)
    assert (found["platform"]["id"], found["platform"]["name"]) == (shared.ids.rosa_platform, "rosa2012")
    assert found["platform"]["url"] == f"/api/v1/platforms/{shared.ids.rosa_platform}.json"
    assert isinstance(found["created_at"], int)
    assert isinstance(found["updated_at"], int)
    assert show(shared, shared.ids.lts)["publish_without_qa"] is False


def test_creating_a_repository(farm: Farm) -> None:
    values = {"platform_id": farm.ids.lts_platform, "name": "extra", "description": "d"}
    answer = farm.olga.post("repositories.json", {"repository": values})
    assert answer.status_code == 200
    number = answer.json()["repository"]["id"]
    assert answer.json()["repository"]["message"] == "Repository has been created successfully"
    found = show(farm, number)
    assert (found["name"], found["publish_without_qa"]) == ("extra", True)
    assert projects(farm, number) == []


def test_who_may_create_a_repository(farm: Farm) -> None:
    body = {"repository": {"platform_id": farm.ids.lts_platform, "name": "extra", "description": "d"}}
    for person in (farm.ivan, farm.petr):
        answer = person.post("repositories.json", body)
        assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
    body["repository"]["platform_id"] = farm.ids.personal_platform
    assert farm.ivan.post("repositories.json", body).status_code == 200


@pytest.mark.parametrize("name", [None, "", "main", "a b", "..", "a/b", "x\0"])
def test_names_that_are_refused(name: object, shared: Farm) -> None:
    values = {"platform_id": shared.ids.rosa_platform, "name": name, "description": "d"}
    answer = shared.root.post("repositories.json", {"repository": values})
    assert answer.status_code == 422, answer.text
    assert answer.json()["repository"]["id"] is None


@pytest.mark.parametrize("platform", [None, 999, "nosuch"])
def test_one_of_no_platform(platform: object, shared: Farm) -> None:
    values = {"platform_id": platform, "name": "extra", "description": "d"}
    assert shared.root.post("repositories.json", {"repository": values}).status_code in (404, 422)


def test_changing_a_repository(farm: Farm) -> None:
    number = farm.ids.lts
    changes = {"description": "other", "publish_without_qa": True}
    answer = farm.olga.change("PUT", f"repositories/{number}.json", {"repository": changes})
    assert answer == {"repository": {"id": number, "message": "Repository has been updated successfully"}}
    found = show(farm, number)
    assert {name: found[name] for name in changes} == changes
    farm.olga.change("PUT", f"repositories/{number}.json", {"repository": {"publish_without_qa": "false"}})
    found = show(farm, number)
    assert (found["description"], found["publish_without_qa"]) == ("other", False)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", ".json"),
        ("PUT", "/add_project.json"),
        ("DELETE", "/remove_project.json"),
        ("PUT", "/add_repo_lock_file.json"),
        ("DELETE", "/remove_repo_lock_file.json"),
    ],
)
def test_who_may_change_a_repository(method: str, path: str, shared: Farm) -> None:
    """Ownership of a project in it gives no right to change it."""
    body = {"project_id": shared.ids.evil_tools, "repository": {"description": "x"}}
    before = show(shared, shared.ids.lts)
    for person in (shared.ivan, shared.petr):
        answer = person(method, f"repositories/{shared.ids.lts}{path}", body)
        assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
    assert show(shared, shared.ids.lts) == before
    assert projects(shared, shared.ids.lts) == ["ivan/evil_tools"]
    answer = shared.root(method, f"repositories/999{path}", body)
    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


# -- projects of a repository ---------------------------------------------------------------------------------------


def test_adding_and_removing_a_project(farm: Farm) -> None:
    number, project = farm.ids.rosa, farm.ids.evil_tools
    for said in (project, str(project)):
        removed = farm.root.change("DELETE", f"repositories/{number}/remove_project.json", {"project_id": said})
        text = f"Project '{project}' has been removed from repository successfully"
        assert removed == {"repository": {"id": number, "message": text}}
        assert projects(farm, number) == []
        added = farm.root.change("PUT", f"repositories/{number}/add_project.json", {"project_id": said})
        text = f"Project '{project}' has been added to repository successfully"
        assert added == {"repository": {"id": number, "message": text}}
        assert projects(farm, number) == ["ivan/evil_tools"]


def test_a_project_is_in_one_repository_of_a_platform(farm: Farm) -> None:
    answer = farm.root.put(f"repositories/{farm.ids.contrib}/add_project.json", {"project_id": farm.ids.evil_tools})
    assert answer.status_code == 422
    assert answer.json()["repository"]["id"] is None
    assert "error" in answer.json()["repository"]["message"]
    assert projects(farm, farm.ids.contrib) == []
    assert projects(farm, farm.ids.rosa) == ["ivan/evil_tools"]


@pytest.mark.parametrize("project", [None, 999, "nosuch", 2**63])
def test_adding_and_removing_what_is_not_there(project: object, shared: Farm) -> None:
    for method, path in (("PUT", "add_project"), ("DELETE", "remove_project")):
        answer = shared.root(method, f"repositories/{shared.ids.rosa}/{path}.json", {"project_id": project})
        assert answer.status_code in (404, 422)
    assert projects(shared, shared.ids.rosa) == ["ivan/evil_tools"]


def test_private_projects_of_a_repository_are_hidden_from_others(farm: Farm) -> None:
    """They don't make pages shorter either."""
    farm.root.change("PUT", f"repositories/{farm.ids.contrib}/add_project.json", {"project_id": farm.ids.secret_tools})
    assert projects(farm, farm.ids.contrib, "ivan") == ["ivan/secret_tools"]
    assert projects(farm, farm.ids.contrib, "petr") == []
    number = farm.ivan.create("projects.json", "project", name="tools", visibility="open")
    farm.root.change("PUT", f"repositories/{farm.ids.contrib}/add_project.json", {"project_id": number})
    path = f"repositories/{farm.ids.contrib}/projects.json?per_page=1"
    assert [item["id"] for item in farm.petr.get(path).json()["projects"]] == [number]
    assert farm.petr.get(f"{path}&page=2").json()["projects"] == []


# -- the lock -------------------------------------------------------------------------------------------------------


def test_locking_and_unlocking(farm: Farm) -> None:
    path = f"repositories/{farm.ids.lts}"
    for person in (farm.olga, farm.root):
        for method, action in (("PUT", "add_repo_lock_file"), ("DELETE", "remove_repo_lock_file")):
            answer = person.change(method, f"{path}/{action}.json", {"nothing": 1})
            assert answer["repository"]["id"] == farm.ids.lts
            assert isinstance(answer["repository"]["message"], str)


def test_keys_of_lists_that_the_console_client_reads(farm: Farm) -> None:
    """It searches for repositories in each platform, and for projects in each repository."""
    named = {item["id"]: item for item in farm.root.get("platforms.json").json()["platforms"]}
    repositories = [found["id"] for item in named.values() for found in item["repositories"]]
    assert farm.ids.rosa in repositories
    held = farm.root.get(f"repositories/{farm.ids.rosa}/projects.json").json()
    assert held["repository"]["id"] == farm.ids.rosa
    assert held["repository"]["projects"] == held["projects"]
    assert held["projects"]
