"""Platforms: the personal one of each user, and the main ones that admins create."""

from __future__ import annotations

from typing import Any

import pytest
from pysequoia import Cert

from .farm import FORBIDDEN, NOT_FOUND, Farm, Json

BLOCK = ["id", "name", "platform_type", "url", "visibility"]
FIELDS = """
    id name visibility platform_type url description parent_platform_id released distrib_type default_branch created_at
    updated_at owner repositories products
""".split()
NEW = {"name": "new", "description": "d", "distrib_type": "deb", "build_image": "polylocal/busybox:test"}


def show(farm: Farm, number: int, by: str = "root") -> Json:
    answer = farm.person(by).get(f"platforms/{number}.json")
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()["platform"]
    return found


def names(farm: Farm, path: str, by: str = "ivan") -> list[str]:
    answer = farm.person(by).get(path)
    assert answer.status_code == 200, answer.text
    assert sorted(answer.json()) == ["platforms", "url"]
    assert answer.json()["url"].startswith("/api/v1/platforms")
    return sorted(item["name"] for item in answer.json()["platforms"])


def test_every_field(shared: Farm) -> None:
    number = shared.ids.rosa_platform
    found = show(shared, number, "ivan")
    assert set(FIELDS) <= set(found)
    assert set(found) - set(FIELDS) <= {"build_image", "build_command", "build_network", "time_living"}
    assert {name: found[name] for name in BLOCK} == {
        "id": number,
        "name": "rosa2012",
        "platform_type": "main",
        "url": f"/api/v1/platforms/{number}.json",
        "visibility": "open",
    }
    assert (found["description"], found["distrib_type"], found["released"]) == ("d", "deb", False)
    assert (found["parent_platform_id"], found["products"]) == (None, [])
    assert found["owner"]["uname"] == "root"
    assert isinstance(found["created_at"], int)
    assert isinstance(found["updated_at"], int)
    assert sorted(item["name"] for item in found["repositories"]) == ["contrib", "main"]
    main = next(item for item in found["repositories"] if item["id"] == shared.ids.rosa)
    assert main == {"id": shared.ids.rosa, "name": "main", "url": f"/api/v1/repositories/{shared.ids.rosa}.json"}


def test_a_personal_platform(shared: Farm) -> None:
    found = show(shared, shared.ids.personal_platform, "ivan")
    assert (found["name"], found["platform_type"], found["owner"]["uname"]) == ("ivan_personal", "personal", "ivan")
    assert [(item["id"], item["name"]) for item in found["repositories"]] == [(shared.ids.personal, "main")]


def test_everybody_has_a_personal_one_from_the_beginning(farm: Farm) -> None:
    farm.store.users.add("eve", email="eve@example.org")
    personal = names(farm, "platforms.json?type=personal&per_page=100", "root")
    assert personal == [f"{name}_personal" for name in ("eve", "ivan", "olga", "petr", "root")]


def test_platforms_to_build_for(shared: Farm) -> None:
    answer = shared.ivan.get("platforms/platforms_for_build.json").json()
    assert names(shared, "platforms/platforms_for_build.json") == ["rosa2012", "rosa_lts"]
    rosa = next(item for item in answer["platforms"] if item["name"] == "rosa2012")
    assert set(BLOCK) | {"owner", "repositories"} <= set(rosa)
    assert {item["id"] for item in rosa["repositories"]} == {shared.ids.rosa, shared.ids.contrib}
    assert rosa["owner"]["uname"] == "root"


def test_platforms_by_type(shared: Farm) -> None:
    assert names(shared, "platforms.json?type=main") == ["rosa2012", "rosa_lts"]
    assert "ivan_personal" in names(shared, "platforms.json?type=personal")
    everything = names(shared, "platforms.json")
    assert {"rosa2012", "rosa_lts", "ivan_personal"} <= set(everything)


def test_a_hidden_one_is_not_seen_by_others(farm: Farm) -> None:
    number = farm.ids.lts_platform
    farm.olga.change("PUT", f"platforms/{number}.json", {"platform": {"visibility": "hidden"}})
    assert show(farm, number, "olga")["visibility"] == show(farm, number, "root")["visibility"] == "hidden"
    answer = farm.petr.get(f"platforms/{number}.json")
    assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
    for path in ("platforms.json", "platforms/platforms_for_build.json"):
        assert "rosa_lts" not in names(farm, path, "petr")
        assert "rosa_lts" in names(farm, path, "olga")
    assert farm.petr.get("search.json?type=platforms&query=lts").json()["results"]["platforms"] == []
    assert farm.petr.get(f"repositories/{farm.ids.lts}.json").status_code == 403


# -- creation -------------------------------------------------------------------------------------------------------


def test_admins_make_them(farm: Farm) -> None:
    answer = farm.root.post("platforms.json", {"platform": NEW})
    assert answer.status_code == 200
    number = answer.json()["platform"]["id"]
    assert isinstance(number, int)
    assert answer.json()["platform"]["message"] == "Platform has been created successfully"
    found = show(farm, number)
    assert (found["name"], found["platform_type"], found["owner"]["uname"]) == ("new", "main", "root")


UNNAMED = {name: value for name, value in NEW.items() if name != "build_image"}
MADE = "Platform has been created successfully"


@pytest.mark.parametrize(
    ("values", "lacking"),
    [
        ({"distrib_type": "deb"}, "The image debian:12 lacks the build tools (dpkg-dev, build-essential)"),
        ({"distrib_type": "dnf"}, "The image fedora:41 lacks the build tools (rpm-build)"),
        ({"distrib_type": "rhel"}, "The image almalinux:9 lacks the build tools (rpm-build)"),
        ({"distrib_type": "pypi"}, "The image python:3.11-slim lacks a compiler"),
        ({"distrib_type": "mdv"}, None),
        ({"distrib_type": "deb", "build_command": "make"}, None),
        ({"distrib_type": "deb", "build_image": "debian:12"}, None),
    ],
)
def test_a_default_image_without_tools_is_reported(values: Json, lacking: str | None, farm: Farm) -> None:
    answer = farm.root.post("platforms.json", {"platform": {**UNNAMED, **values}})
    assert answer.status_code == 200
    message = answer.json()["platform"]["message"]
    if lacking is None:
        assert message == MADE
    else:
        assert message.startswith(f"{MADE}. {lacking}")
        assert message.endswith("polylocal/package-builder:12, which `scripts/base-images --packages` makes")


def test_the_builder_is_the_image_of_a_platform_for_debian_packages(farm: Farm) -> None:
    """The engine's images at the time of the build count, not those at the creation of the platform."""
    made = farm.root.post("platforms.json", {"platform": UNNAMED}).json()["platform"]
    assert show(farm, made["id"])["build_image"] is None
    repository = farm.root.create("repositories.json", "repository", platform_id=made["id"], name="main")
    project = {"project_id": farm.ids.evil_tools}
    farm.root.change("DELETE", f"repositories/{farm.ids.rosa}/remove_project.json", project)
    farm.root.change("PUT", f"repositories/{repository}/add_project.json", project)
    body = farm.body(save_to_repository_id=repository, build_for_platform_id=made["id"], include_repos=[repository])
    assert image_of(farm, farm.new(body)) == "debian:12"
    object.__setattr__(farm.context, "has_image", lambda name: name == "polylocal/package-builder:12")
    assert image_of(farm, farm.new(body)) == "polylocal/package-builder:12"
    again = farm.root.post("platforms.json", {"platform": {**UNNAMED, "name": "another"}}).json()["platform"]
    assert again["message"] == MADE


def image_of(farm: Farm, build_list: int) -> str:
    config = farm.store.runs.by_pk(farm.row(build_list)["run_pk"]).config or {}
    image: str = config["build"]["image"]
    return image


def test_only_admins_create_platforms(shared: Farm) -> None:
    for person in (shared.ivan, shared.olga, shared.petr):
        for body in ({"platform": NEW}, {"platform": {}}):
            answer = person.post("platforms.json", body)
            assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
    assert names(shared, "platforms.json?type=main") == ["rosa2012", "rosa_lts"]


@pytest.mark.parametrize("kind", ["deb", "dnf", "mdv", "rhel", "pypi"])
def test_kinds_of_packages(kind: str, farm: Farm) -> None:
    number = farm.root.create("platforms.json", "platform", **{**NEW, "distrib_type": kind})
    assert show(farm, number)["distrib_type"] == kind


@pytest.mark.parametrize(
    "changes",
    [
        {"distrib_type": "slackware"},
        {"distrib_type": None},
        {"name": ""},
        {"name": None},
        {"name": "a b"},
        {"name": "../x"},
        {"name": "a/b"},
        {"name": "rosa2012"},
        {"name": "ivan_personal"},
        {"name": "a\0b"},
        {"owner_id": 999},
    ],
)
def test_platforms_that_are_refused(changes: Json, shared: Farm) -> None:
    answer = shared.root.post("platforms.json", {"platform": {**NEW, **changes}})
    assert answer.status_code == 422, answer.text
    assert answer.json()["platform"]["id"] is None
    assert isinstance(answer.json()["platform"]["message"], str)
    assert names(shared, "platforms.json?type=main") == ["rosa2012", "rosa_lts"]


# -- changes --------------------------------------------------------------------------------------------------------


def update(farm: Farm, number: int, by: str = "root", **changes: Any) -> Json:
    return farm.person(by).change("PUT", f"platforms/{number}.json", {"platform": changes})


def test_changing_a_platform(farm: Farm) -> None:
    number = farm.ids.rosa_platform
    answer = update(farm, number, description="other")
    assert answer == {"platform": {"id": number, "message": "Platform has been updated successfully"}}
    assert show(farm, number)["description"] == "other"


def test_who_may_change_a_platform(farm: Farm) -> None:
    for person in (farm.ivan, farm.petr, farm.olga):
        answer = person.put(f"platforms/{farm.ids.rosa_platform}.json", {"platform": {"description": "x"}})
        assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
    assert show(farm, farm.ids.rosa_platform)["description"] == "d"
    update(farm, farm.ids.lts_platform, "olga", description="hers")
    assert show(farm, farm.ids.lts_platform)["description"] == "hers"


def test_one_that_is_not_there(shared: Farm) -> None:
    answer = shared.root.put("platforms/999.json", {"platform": {"description": "x"}})
    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


def test_a_release_turns_qa_on_for_good(farm: Farm) -> None:
    number = farm.ids.rosa_platform
    build_list = farm.new(status=0)
    update(farm, number, released=True)
    for repository in (farm.ids.rosa, farm.ids.contrib):
        assert farm.root.get(f"repositories/{repository}.json").json()["repository"]["publish_without_qa"] is False
    assert farm.ivan.put(f"build_lists/{build_list}/publish.json").status_code == 403
    farm.root.put(f"platforms/{number}.json", {"platform": {"released": False}})
    assert show(farm, number)["released"] is True
    farm.root.change("PUT", f"build_lists/{build_list}/reject_publish.json")
    personal = farm.ivan.get(f"repositories/{farm.ids.personal}.json").json()["repository"]
    assert personal["publish_without_qa"] is True


# -- keys ------------------------------------------------------------------------------------------------------------


def test_the_public_key_of_a_platform(farm: Farm) -> None:
    """All users who see the platform get the same key. The secret key stays in a private file in the home folder."""
    path = f"platforms/{farm.ids.rosa_platform}/key.json"
    found = farm.ivan.get(path).json()["platform"]
    assert (found["id"], found["name"]) == (farm.ids.rosa_platform, "rosa2012")
    assert found["key"].startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----")
    assert farm.petr.get(path).json()["platform"] == found
    certificate = Cert.from_bytes(found["key"].encode())
    assert certificate.fingerprint == found["fingerprint"]
    assert [str(name) for name in certificate.user_ids] == ["rosa2012 packages <rosa2012@polylocal>"]
    kept = farm.context.home.signing / "rosa2012.asc"
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert "PRIVATE KEY" in kept.read_text()


def test_each_platform_has_a_key_of_its_own(farm: Farm) -> None:
    numbers = (farm.ids.rosa_platform, farm.ids.personal_platform)
    keys = {farm.ivan.get(f"platforms/{number}/key.json").json()["platform"]["key"] for number in numbers}
    assert len(keys) == 2


def test_the_key_of_a_hidden_platform_is_for_those_who_see_it(farm: Farm) -> None:
    farm.root.change("PUT", f"platforms/{farm.ids.rosa_platform}.json", {"platform": {"visibility": "hidden"}})
    path = f"platforms/{farm.ids.rosa_platform}/key.json"
    assert (farm.root.get(path).status_code, farm.ivan.get(path).status_code) == (200, 403)
    assert farm.nobody.get(path).status_code == 401
    assert farm.root.get("platforms/4711/key.json").status_code == 404


def test_an_unreadable_key_is_reported_without_its_path(farm: Farm) -> None:
    kept = farm.context.home.signing / "rosa2012.asc"
    kept.parent.mkdir()
    kept.write_text("garbage")
    answer = farm.ivan.get(f"platforms/{farm.ids.rosa_platform}/key.json")
    assert answer.status_code == 422
    said = answer.json()["platform"]["message"]
    assert said.startswith(
        "The file signing/rosa2012.asc in the home folder of the daemon is not an OpenPGP secret key"
    )
    assert "restore it from a backup" in said
    assert str(farm.context.home.root) not in said
    assert kept.read_text() == "garbage"
