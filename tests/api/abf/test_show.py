"""One build list: every key, and its readers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from polylocal.statuses import Status
from polylocal.store.build_lists import BuildResults

from .farm import CODE, FORBIDDEN, Farm, Json

FIELDS = """
    id name status container_status container_path new_core package_version project build_for_platform
    use_save_to_repository save_to_repository arch created_at updated_at is_circle update_type auto_publish
    auto_publish_status auto_create_container use_cached_chroot use_extra_tests save_buildroot commit_hash
    last_published_commit_hash project_version priority duration build_log_url advisory mass_build owner user publisher
    include_repos extra_repositories extra_build_lists extra_params packages logs url
""".split()
OWN = {"yanked", "yanked_reason"}  # keys of polylocal that the document does not have
# clients refuse an object without one of these keys
NEEDED = """
    id container_path status package_version project created_at updated_at build_for_platform save_to_repository arch
    extra_repositories commit_hash duration include_repos priority build_log_url mass_build logs container_status
""".split()
HOST = "http://127.0.0.1"


def of_user(person: Any) -> Json:
    return {"id": person.id, "uname": person.name, "type": "User", "url": f"/api/v1/users/{person.id}.json"}


def without_name(block: Json) -> Json:
    """A block without the display name, which the documents don't define."""
    assert isinstance(block["name"], str)
    return {name: value for name, value in block.items() if name != "name"}


def test_every_field_is_there(farm: Farm) -> None:
    """Further keys: values of the request that appear in no other field."""
    assert set(NEEDED) <= set(FIELDS)
    build_list = farm.new()
    for status in (2000, 3000, 0, 666, 5000, 6000, 7000, 8000, 9000, 10000, 11000, 15000):
        farm.set(build_list, status=status)
        found = set(farm.show(build_list))
        assert set(FIELDS) <= found
        assert found - set(FIELDS) <= {"include_testing_subrepository", "external_nodes", "not_published", *OWN}


def test_a_new_build_list(farm: Farm) -> None:
    build_list = farm.new(farm.body(auto_publish=False))
    found = farm.show(build_list)
    plain = {
        "id": build_list,
        "name": "evil_tools",
        "status": 2000,
        "container_status": 4000,
        "container_path": "",
        "new_core": True,
        "package_version": None,
        "use_save_to_repository": True,
        "is_circle": False,
        "update_type": "bugfix",
        "auto_publish": False,
        "auto_publish_status": "none",
        "auto_create_container": False,
        "use_cached_chroot": False,
        "save_buildroot": False,
        "commit_hash": farm.ids.commit,
        "last_published_commit_hash": None,
        "project_version": "master",
        "priority": 50,
        "duration": None,
        "build_log_url": f"/build_lists/{build_list}/log",
        "advisory": None,
        "mass_build": None,
        "publisher": None,
        "extra_repositories": [],
        "extra_build_lists": [],
        "extra_params": {},
        "packages": [],
        "logs": [],
        "url": f"/api/v1/build_lists/{build_list}.json",
    }
    assert {name: found[name] for name in plain} == plain
    assert isinstance(found["use_extra_tests"], bool)
    assert found["arch"] == {"id": farm.ids.arch, "name": farm.ids.arch_name}
    for name in ("owner", "user"):
        assert without_name(found[name]) == of_user(farm.ivan)


def test_why_it_was_not_published(farm: Farm) -> None:
    build_list = farm.new()
    assert farm.show(build_list)["not_published"] is None
    lists = farm.store.build_lists
    run = farm.store.runs.by_pk(farm.row(build_list)["run_pk"])
    lists.conclude(
        run,
        Status.SUCCEEDED,
        "Completed",
        details=None,
        recorded={"exit_code": 0},
        results=BuildResults(),
        is_newer=lambda mine, published, equal: True,
    )
    words = (
        "Not published: the build left no package of the platform's kind (deb: .deb, .udeb, .dsc), and no other file"
    )
    assert farm.show(build_list)["not_published"] == {"reason": "no-packages", "message": words}


def test_moments_are_whole_seconds(farm: Farm) -> None:
    before = int(time.time())
    found = farm.show(farm.new())
    assert isinstance(found["created_at"], int)
    assert isinstance(found["updated_at"], int)
    assert before <= found["created_at"] <= found["updated_at"] <= time.time()


def test_the_project_of_a_build_list(farm: Farm) -> None:
    found = farm.show(farm.new())["project"]
    number = farm.ids.evil_tools
    maintainer = found.pop("maintainer")
    assert found == {
        "id": number,
        "name": "evil_tools",
        "fullname": "ivan/evil_tools",
        "visibility": "open",
        "url": f"/api/v1/projects/{number}.json",
        "git_url": f"{HOST}/ivan/evil_tools.git",
        "ssh_url": "",
    }
    ivan = farm.ivan.id
    assert isinstance(maintainer.pop("name"), str)
    assert maintainer.pop("email").lower() == "ivan@example.org"
    assert maintainer == {"id": ivan, "uname": "ivan", "url": f"/api/v1/users/{ivan}.json"}


def platform(number: int, name: str, kind: str = "main") -> Json:
    url = f"/api/v1/platforms/{number}.json"
    return {"id": number, "name": name, "visibility": "open", "platform_type": kind, "url": url}


def repository(number: int, of: Json, name: str = "main") -> Json:
    return {"id": number, "name": name, "url": f"/api/v1/repositories/{number}.json", "platform": of}


def test_the_platform_and_the_repository_of_a_build_list(farm: Farm) -> None:
    ids = farm.ids
    rosa = platform(ids.rosa_platform, "rosa2012")
    found = farm.show(farm.new())
    assert found["build_for_platform"] == rosa
    assert found["save_to_repository"] == repository(ids.rosa, rosa)
    assert found["include_repos"] == [repository(ids.rosa, rosa)]
    kept = farm.show(farm.new(farm.for_personal()))["save_to_repository"]
    kept["platform"].pop("visibility")
    assert kept["platform"]["name"] == "ivan_personal"
    assert (kept["platform"]["id"], kept["platform"]["platform_type"]) == (ids.personal_platform, "personal")
    assert (kept["id"], kept["name"]) == (ids.personal, "main")


def test_the_creator_and_the_owner_of_the_project(farm: Farm) -> None:
    found = farm.show(farm.new(by=farm.root))
    assert (found["user"]["uname"], found["owner"]["uname"]) == ("root", "ivan")


def test_the_user_who_published_or_rejected_it(farm: Farm) -> None:
    published = farm.new(status=0)
    farm.ivan.change("PUT", f"build_lists/{published}/publish.json")
    assert without_name(farm.show(published)["publisher"]) == of_user(farm.ivan)
    rejected = farm.new(farm.for_lts(), status=0)
    farm.olga.change("PUT", f"build_lists/{rejected}/reject_publish.json")
    assert without_name(farm.show(rejected)["publisher"]) == of_user(farm.olga)


def test_the_path_of_a_container_appears_once_it_is_published(farm: Farm) -> None:
    build_list = farm.new(status=0)
    for status in (4000, 7000, 8000):
        farm.set(build_list, container_status=status)
        assert farm.show(build_list)["container_path"] == ""
    farm.set(build_list, container_status=6000)
    expected = f"{HOST}/downloads/rosa2012/container/{build_list}/{farm.ids.arch_name}/main/release/"
    assert farm.show(build_list)["container_path"] == expected
    personal = farm.new(farm.for_personal(), status=0, container_status=6000)
    assert farm.show(personal)["container_path"].startswith(f"{HOST}/downloads/ivan_personal/container/{personal}/")


def test_one_that_uses_another(farm: Farm) -> None:
    used = farm.new(status=0, container_status=6000)
    found = farm.show(farm.new(farm.body(extra_build_lists=[used])))
    assert found["extra_build_lists"] == [
        {
            "id": used,
            "status": 0,
            "container_path": farm.show(used)["container_path"],
            "url": f"/api/v1/build_lists/{used}.json",
        }
    ]


def test_the_commit_that_was_published_before_is_fixed_when_one_is_made(farm: Farm) -> None:
    first = farm.new()
    assert farm.show(farm.new())["last_published_commit_hash"] is None
    farm.set(first, status=6000)
    newer = farm.put_code(farm.ids.evil_tools, {**CODE, "a": "1"})
    second = farm.new(farm.body(commit_hash=newer))
    assert farm.show(second)["last_published_commit_hash"] == farm.ids.commit
    farm.set(second, status=6000)
    assert farm.show(second)["last_published_commit_hash"] == farm.ids.commit
    assert farm.show(farm.new())["last_published_commit_hash"] == newer


@pytest.mark.parametrize("other", ["for_personal", "for_lts"])
def test_a_commit_published_elsewhere_does_not_count(other: str, farm: Farm) -> None:
    farm.new(getattr(farm, other)(), status=6000)
    assert farm.show(farm.new())["last_published_commit_hash"] is None


# -- permissions ----------------------------------------------------------------------------------------------------


def test_of_an_open_project_everybody_sees_it(farm: Farm) -> None:
    build_list = farm.new()
    for person in (farm.ivan, farm.root, farm.olga, farm.petr):
        assert farm.show(build_list, person)["id"] == build_list


def test_of_a_hidden_project_only_its_owner_and_admins_see_it(farm: Farm) -> None:
    build_list = farm.new(farm.of_secret_tools())
    for person in (farm.ivan, farm.root):
        assert farm.show(build_list, person)["project"]["visibility"] == "hidden"
    for person in (farm.olga, farm.petr):
        answer = person.get(f"build_lists/{build_list}.json")
        assert (answer.status_code, answer.json()) == (403, FORBIDDEN)


def test_the_creator_still_sees_a_build_list_after_the_project_was_hidden(farm: Farm) -> None:
    """The creator still sees the build list; other users don't."""
    farm.store.users.update(farm.store.users.get("petr"), is_superuser=True)
    mine = farm.new(by=farm.petr)
    others = farm.new()
    farm.store.users.update(farm.store.users.get("petr"), is_superuser=False)
    farm.ivan.change("PUT", f"projects/{farm.ids.evil_tools}.json", {"project": {"visibility": "hidden"}})
    assert farm.show(mine, farm.petr)["id"] == mine
    assert farm.petr.get(f"build_lists/{others}.json").status_code == 403
