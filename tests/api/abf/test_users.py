"""Users, architectures, and the search."""

from __future__ import annotations

import platform

import pytest

from polylocal.errors import InvalidInput

from .farm import NOT_FOUND, Farm, Json

FIELDS = """
    id name email uname language own_projects_count professional_experience site company location build_priority
    created_at updated_at avatar_url url html_url
""".split()


@pytest.fixture
def farm(shared: Farm) -> Farm:
    """The tests change nothing in the shared farm."""
    return shared


def user(farm: Farm, path: str) -> Json:
    answer = farm.ivan.get(path)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()["user"]
    return found


def test_the_current_user(farm: Farm) -> None:
    found = user(farm, "user.json")
    assert sorted(found) == sorted([*FIELDS, "role"])
    assert (found["id"], found["uname"], found["role"]) == (farm.ivan.id, "ivan", "")
    assert found["email"].lower() == "ivan@example.org"
    assert (found["build_priority"], found["own_projects_count"]) == (50, 2)
    assert found["url"] == f"/api/v1/users/{farm.ivan.id}.json"
    assert isinstance(found["created_at"], int)
    assert isinstance(found["updated_at"], int)


def test_an_admin_is_shown_as_admin(farm: Farm) -> None:
    assert farm.root.get("user.json").json()["user"]["role"] == "admin"


def test_others_by_number_and_by_name(farm: Farm) -> None:
    by_name = user(farm, "users/olga.json")
    assert by_name == user(farm, f"users/{farm.olga.id}.json")
    assert sorted(by_name) == sorted(FIELDS)
    assert (by_name["id"], by_name["uname"]) == (farm.olga.id, "olga")


@pytest.mark.parametrize("who", ["nosuch", "999", "0", "-1", str(2**63), "%00", "ol%25"])
def test_people_who_are_not_there(who: str, farm: Farm) -> None:
    answer = farm.ivan.get(f"users/{who}.json")
    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


@pytest.mark.parametrize("email", ["ivan@example.org", "IVAN@example.ORG"])
def test_an_address_is_one_persons(email: str, farm: Farm) -> None:
    with pytest.raises(InvalidInput):
        farm.store.users.add("eve", email=email)


def test_architectures_are_those_that_this_machine_executes(farm: Farm) -> None:
    answer = farm.ivan.get("arches.json")
    assert list(answer.json()) == ["architectures"]
    found = answer.json()["architectures"]
    assert [sorted(arch) for arch in found] == [["id", "name"]] * len(found)
    numbers = [arch["id"] for arch in found]
    assert numbers == sorted(set(numbers))
    assert platform.machine() in [arch["name"] for arch in found]


# -- search ---------------------------------------------------------------------------------------------------------


def results(farm: Farm, query: str, by: str = "ivan") -> Json:
    answer = farm.person(by).get(f"search.json?{query}")
    assert answer.status_code == 200, answer.text
    assert sorted(answer.json()) == ["results", "url"]
    assert answer.json()["url"].startswith("/api/v1/search.json")
    found: Json = answer.json()["results"]
    return found


def test_searching_for_projects(farm: Farm) -> None:
    for word in ("evil", "EVIL", "vil_too", "evil_tools"):
        found = results(farm, f"type=projects&query={word}")
        assert list(found) == ["projects"]
        assert [(item["id"], item["fullname"]) for item in found["projects"]] == [
            (farm.ids.evil_tools, "ivan/evil_tools")
        ]
        assert found["projects"][0]["url"] == f"/api/v1/projects/{farm.ids.evil_tools}.json"


def test_searching_for_people(farm: Farm) -> None:
    found = results(farm, "type=users&query=OLG")
    assert list(found) == ["users"]
    assert [(item["id"], item["uname"]) for item in found["users"]] == [(farm.olga.id, "olga")]


def test_searching_for_platforms(farm: Farm) -> None:
    found = results(farm, "type=platforms&query=rosa")
    assert list(found) == ["platforms"]
    assert sorted(item["name"] for item in found["platforms"]) == ["rosa2012", "rosa_lts"]
    assert {item["platform_type"] for item in found["platforms"]} == {"main"}


def test_there_are_no_groups(farm: Farm) -> None:
    assert results(farm, "type=groups&query=a") == {"groups": []}


@pytest.mark.parametrize("kind", ["", "type=&", "type=nosuch&"])
def test_searching_for_all_kinds(kind: str, farm: Farm) -> None:
    found = results(farm, f"{kind}query=ivan")
    assert sorted(found) == ["groups", "platforms", "projects", "users"]
    assert [item["uname"] for item in found["users"]] == ["ivan"]
    assert found["groups"] == []


def test_searching_finds_nothing_hidden(farm: Farm) -> None:
    def found(by: str) -> list[str]:
        return sorted(item["name"] for item in results(farm, "type=projects&query=tools", by)["projects"])

    assert found("ivan") == found("root") == ["evil_tools", "secret_tools"]
    assert found("petr") == ["evil_tools"]


@pytest.mark.parametrize("query", ["%25", "_______________________________", "%00", "'", "nosuch"])
def test_signs_of_a_pattern_are_letters(query: str, farm: Farm) -> None:
    assert results(farm, f"query={query}") == {"projects": [], "users": [], "groups": [], "platforms": []}


def test_a_search_has_pages(farm: Farm) -> None:
    both = results(farm, "type=projects&query=tools")["projects"]
    assert results(farm, "type=projects&query=tools&per_page=1")["projects"] == both[:1]
    assert results(farm, "type=projects&query=tools&per_page=1&page=2")["projects"] == both[1:]
