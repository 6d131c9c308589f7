"""What all answers have in common: bodies of errors, ETags, pages, and how values may be written."""

from __future__ import annotations

import pytest

from .conftest import FORBIDDEN, NO_CREDENTIALS, NOT_FOUND, WRONG_CREDENTIALS, Farm, basic

JSON = "application/json; charset=utf-8"

# -- errors ---------------------------------------------------------------------------------------------------------


def test_the_errors_byte_for_byte(farm: Farm) -> None:
    """Clients compare these texts."""
    assert NO_CREDENTIALS == {"error": "You need to sign in or sign up before continuing."}
    assert WRONG_CREDENTIALS == {"error": "Invalid email or password."}
    assert FORBIDDEN == {"message": "Access violation to this page!"}
    assert NOT_FOUND == {"status": 404, "message": "Error 404. Resource not found!"}
    hidden = farm.new(farm.of_secret_tools())
    for answer, expected in (
        (farm.nobody.get("user.json"), (401, NO_CREDENTIALS)),
        (farm.nobody.get("user.json", headers=basic("ivan", "wrong")), (401, WRONG_CREDENTIALS)),
        (farm.petr.get(f"projects/{farm.ids.secret_tools}.json"), (403, FORBIDDEN)),
        (farm.petr.get("build_lists/999.json"), (404, NOT_FOUND)),
        (
            farm.ivan.put(f"build_lists/{hidden}/publish.json"),
            (422, {"build_list": {"id": None, "message": "Errors during build publishing!"}}),
        ),
    ):
        assert (answer.status_code, answer.json()) == expected
        assert answer.headers["content-type"].replace(" ", "").lower() == JSON.replace(" ", "")


@pytest.mark.parametrize(
    "path",
    [
        "build_lists/nosuch.json",
        "build_lists/0.json",
        "build_lists/-1.json",
        "build_lists/1.5.json",
        "build_lists/%00.json",
        "build_lists/²",
        f"build_lists/{2**63}.json",
        f"build_lists/{'9' * 300}.json",
        "build_lists/1/nosuch.json",
        "build_lists/1/nosuch/more.json",
        "platforms/nosuch/more.json",
        "platforms/999.json",
        "repositories/999.json",
        "repositories/1/nosuch.json",
        "arches/nosuch.json",
        "users/nosuch.json",
        "users/999.json",
        "projects/999.json",
        "projects/999/build_lists.json",
        "projects/999/refs_list.json",
        "projects/1/nosuch.json",
        "search/nosuch.json",
    ],
)
def test_what_is_not_there(path: str, farm: Farm) -> None:
    answer = farm.root.get(path)
    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


@pytest.mark.parametrize("action", ["cancel", "publish", "create_container", "reject_publish"])
def test_an_action_on_what_is_not_there(action: str, farm: Farm) -> None:
    for build_list in ("999", "nosuch", str(2**63)):
        answer = farm.root.put(f"build_lists/{build_list}/{action}.json")
        assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


def test_actions_are_puts(farm: Farm) -> None:
    build_list = farm.new()
    for method in ("GET", "POST", "DELETE", "PATCH"):
        assert farm.ivan(method, f"build_lists/{build_list}/cancel.json").status_code in (404, 405)
    assert farm.row(build_list)["status"] == 2000


def test_a_build_list_is_never_destroyed(farm: Farm) -> None:
    build_list = farm.new()
    before = farm.row(build_list)
    for person in (farm.ivan, farm.root):
        answer = person.delete(f"build_lists/{build_list}.json")
        assert (answer.status_code, answer.json()) == (404, NOT_FOUND)
    assert farm.row(build_list) == before
    assert farm.show(build_list)["status"] == 2000


# -- ETags ----------------------------------------------------------------------------------------------------------

READ = [
    "build_lists.json",
    "build_lists/{build_list}.json",
    "projects/{project}/build_lists.json",
    "projects/{project}.json",
    "projects/{project}/refs_list.json",
    "projects.json",
    "projects/get_id.json?owner=ivan&name=evil_tools",
    "platforms.json",
    "platforms/{platform}.json",
    "platforms/platforms_for_build.json",
    "repositories/{repository}.json",
    "repositories/{repository}/projects.json",
    "arches.json",
    "user.json",
    "users/ivan.json",
    "search.json?query=evil",
    "file_stores.json?hash=" + "0" * 40,
]


def filled(path: str, farm: Farm, build_list: int) -> str:
    ids = farm.ids
    return path.format(build_list=build_list, project=ids.evil_tools, platform=ids.rosa_platform, repository=ids.rosa)


@pytest.mark.parametrize("path", READ)
def test_what_was_not_changed_is_not_sent_again(path: str, farm: Farm) -> None:
    path = filled(path, farm, farm.new())
    first, second = farm.ivan.get(path), farm.ivan.get(path)
    assert (first.status_code, second.status_code) == (200, 200)
    tag = first.headers["etag"]
    assert tag.strip('W/"')
    assert second.headers["etag"] == tag
    known = farm.ivan.get(path, headers={"If-None-Match": tag})
    assert (known.status_code, known.content) == (304, b"")
    other = farm.ivan.get(path, headers={"If-None-Match": '"other"'})
    assert (other.status_code, other.json()) == (200, first.json())


@pytest.mark.parametrize("path", [path for path in READ if path not in ("projects.json", "users/ivan.json")])
def test_a_suffix_changes_nothing(path: str, farm: Farm) -> None:
    """But where the bare words are of the other API."""
    path = filled(path, farm, farm.new())
    answer = farm.ivan.get(path.replace(".json", "", 1))
    assert answer.status_code == 200
    assert answer.json() == farm.ivan.get(path).json()


def test_what_was_changed_has_another_tag(farm: Farm) -> None:
    build_list = farm.new()
    for path in (f"build_lists/{build_list}.json", "build_lists.json"):
        before = farm.ivan.get(path).headers["etag"]
        farm.set(build_list, status=0 if farm.row(build_list)["status"] else 666)
        answer = farm.ivan.get(path, headers={"If-None-Match": before})
        assert answer.status_code == 200
        assert answer.headers["etag"] != before


def test_every_change_has_a_tag(farm: Farm) -> None:
    """A client takes the header from whatever succeeded."""
    ids = farm.ids
    made = farm.ivan.post("build_lists.json", farm.body())
    build_list = made.json()["build_list"]["id"]
    answers = [made, farm.ivan.put(f"build_lists/{build_list}/cancel.json")]
    for action in ("publish", "create_container"):
        other = farm.new(status=0)
        answers.append(farm.ivan.put(f"build_lists/{other}/{action}.json", {"nothing": 1}))
    rejected = farm.new(farm.for_lts(), status=0)
    answers.append(farm.olga.put(f"build_lists/{rejected}/reject_publish.json"))
    answers.append(farm.root.delete(f"repositories/{ids.rosa}/remove_project.json", {"project_id": ids.evil_tools}))
    answers.append(farm.root.put(f"repositories/{ids.rosa}/add_project.json", {"project_id": ids.evil_tools}))
    answers.append(farm.root.put(f"repositories/{ids.rosa}.json", {"repository": {"description": "x"}}))
    answers.append(farm.root.put(f"repositories/{ids.rosa}/add_repo_lock_file.json"))
    answers.append(farm.root.delete(f"repositories/{ids.rosa}/remove_repo_lock_file.json"))
    answers.append(farm.root.put(f"platforms/{ids.rosa_platform}.json", {"platform": {"description": "x"}}))
    answers.append(farm.ivan.put(f"projects/{ids.evil_tools}.json", {"project": {"description": "x"}}))
    answers.append(farm.ivan.delete(f"projects/{ids.secret_tools}.json"))
    for answer in answers:
        assert answer.status_code == 200, f"{answer.request.url}: {answer.text}"
        assert answer.headers["etag"].strip('W/"'), answer.request.url


# -- pages ----------------------------------------------------------------------------------------------------------


def listed(farm: Farm, query: str) -> list[int]:
    answer = farm.ivan.get(f"build_lists.json{query}")
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["build_lists"]]


def test_pages_have_20_and_at_most_100(farm: Farm) -> None:
    newest_first = [farm.new() for _ in range(102)][::-1]
    for query, expected in (
        ("", newest_first[:20]),
        ("?page=1", newest_first[:20]),
        ("?page=0", newest_first[:20]),
        ("?page=2", newest_first[20:40]),
        ("?per_page=0", newest_first[:20]),
        ("?per_page=-5", newest_first[:20]),
        ("?per_page=", newest_first[:20]),
        ("?per_page=7", newest_first[:7]),
        ("?per_page=7&page=2", newest_first[7:14]),
        ("?per_page=100", newest_first[:100]),
        ("?per_page=1000", newest_first[:100]),
        ("?per_page=1000&page=2", newest_first[100:]),
        ("?per_page=100&page=3", []),
    ):
        assert listed(farm, query) == expected, query


@pytest.mark.parametrize(
    "query", ["page=x", "per_page=x", "page=-1", f"page={2**63}", f"per_page={'9' * 400}", "page=²"]
)
def test_pages_that_make_no_sense(query: str, farm: Farm) -> None:
    farm.new()
    answer = farm.ivan.get(f"build_lists.json?{query}")
    assert answer.status_code == 200
    assert len(answer.json()["build_lists"]) <= 1


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("projects.json", "projects"),
        ("platforms.json", "platforms"),
        ("repositories/{repository}/projects.json", "projects"),
        ("projects/{project}/build_lists.json", "build_lists"),
    ],
)
def test_other_lists_have_pages_too(path: str, word: str, farm: Farm) -> None:
    farm.new()
    path = filled(path, farm, farm.new())
    everything = farm.ivan.get(path).json()[word]
    assert everything
    one_by_one = [farm.ivan.get(f"{path}?per_page=1&page={n + 1}").json()[word] for n in range(len(everything))]
    assert [item for page in one_by_one for item in page] == everything
    assert farm.ivan.get(f"{path}?page=50").json()[word] == []


# -- how values are written -----------------------------------------------------------------------------------------


def test_ids_and_booleans_as_texts(farm: Farm) -> None:
    values = {name: str(value) for name, value in farm.for_personal()["build_list"].items()}
    values |= {"include_repos": [str(farm.ids.rosa)], "auto_publish": "false", "use_save_to_repository": "false"}  # type: ignore[dict-item]
    values |= {"use_extra_tests": "true", "save_buildroot": "1", "use_cached_chroot": "0"}
    made = farm.show(farm.new({"build_list": values}))
    assert made["project"]["id"] == farm.ids.evil_tools
    assert [item["id"] for item in made["include_repos"]] == [farm.ids.rosa]
    assert (made["auto_publish"], made["use_save_to_repository"]) == (False, False)
    assert (made["use_extra_tests"], made["save_buildroot"], made["use_cached_chroot"]) == (True, True, False)


def test_unknown_keys_are_dropped(farm: Farm) -> None:
    body = farm.body(nosuch=1, id=77, status=6000, user_id=farm.ids.people["root"], priority=1000)
    made = farm.show(farm.new({**body, "nothing": 1}))
    assert (made["status"], made["user"]["uname"], made["priority"]) == (2000, "ivan", 50)
    assert made["id"] != 77


@pytest.mark.parametrize("body", [None, {}, {"nothing": 1}, [], "text", 1])
def test_an_action_needs_no_body_and_minds_none(body: object, farm: Farm) -> None:
    answer = farm.ivan.put(f"build_lists/{farm.new()}/cancel.json", body)
    assert (answer.status_code, answer.json()["build_list"]["message"]) == (200, "Build canceled")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"text"', b"1", b'{"build_list": []}', b"\xff"])
def test_a_body_of_the_wrong_shape(content: bytes, farm: Farm) -> None:
    headers = {"Content-Type": "application/json"}
    answer = farm.ivan("POST", "build_lists.json", content=content, headers=headers)
    assert answer.status_code in (400, 422)
    assert farm.count() == 0


def test_a_form_is_taken_as_well_or_refused(farm: Farm) -> None:
    form = {f"build_list[{name}]": str(value) for name, value in farm.body()["build_list"].items()}
    assert farm.ivan("POST", "build_lists.json", data=form).status_code in (200, 400, 415, 422)
