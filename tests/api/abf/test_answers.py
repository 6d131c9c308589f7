"""Properties of all responses: error bodies, ETags, pages, and the accepted forms of values."""

from __future__ import annotations

import pytest

from .farm import FORBIDDEN, NO_CREDENTIALS, NOT_FOUND, WRONG_CREDENTIALS, Farm, Json, basic

JSON = "application/json; charset=utf-8"

# -- errors ---------------------------------------------------------------------------------------------------------


def test_the_errors_byte_for_byte(farm: Farm) -> None:
    """Clients compare these messages."""
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
def test_missing_objects(path: str, shared: Farm) -> None:
    answer = shared.root.get(path)
    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


@pytest.mark.parametrize("action", ["cancel", "publish", "create_container", "reject_publish"])
def test_an_action_on_what_is_not_there(action: str, shared: Farm) -> None:
    for build_list in ("999", "nosuch", str(2**63)):
        answer = shared.root.put(f"build_lists/{build_list}/{action}.json")
        assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


def test_actions_are_puts(shared: Farm) -> None:
    build_list = shared.new()
    for method in ("GET", "POST", "DELETE", "PATCH"):
        assert shared.ivan(method, f"build_lists/{build_list}/cancel.json").status_code in (404, 405)
    assert shared.row(build_list)["status"] == 2000


def test_a_build_list_is_never_destroyed(farm: Farm) -> None:
    build_list = farm.new()
    before = farm.row(build_list)
    for person in (farm.ivan, farm.root):
        answer = person.delete(f"build_lists/{build_list}.json")
        assert (answer.status_code, answer.json()) == (404, NOT_FOUND)
    assert farm.row(build_list) == before
    assert farm.show(build_list)["status"] == 2000


def test_successful_responses_are_json_too(shared: Farm) -> None:
    for answer in (shared.ivan.get("build_lists.json"), shared.ivan.post("build_lists.json", shared.body())):
        assert answer.status_code == 200
        assert answer.headers["content-type"].replace(" ", "").lower() == JSON.replace(" ", "")


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
def test_pages_that_make_no_sense(query: str, shared: Farm) -> None:
    shared.new()
    answer = shared.ivan.get(f"build_lists.json?{query}")
    assert answer.status_code == 200
    assert sorted(answer.json()) == ["build_lists", "url"]


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
    for _ in range(2):
        farm.new()
    path = path.format(project=farm.ids.evil_tools, repository=farm.ids.rosa)
    everything = farm.ivan.get(path).json()[word]
    assert everything
    one_by_one = [farm.ivan.get(f"{path}?per_page=1&page={n + 1}").json()[word] for n in range(len(everything))]
    assert [item for page in one_by_one for item in page] == everything
    assert farm.ivan.get(f"{path}?page=50").json()[word] == []


# -- forms of values ------------------------------------------------------------------------------------------------


def test_ids_and_booleans_as_texts(shared: Farm) -> None:
    values: Json = {name: str(value) for name, value in shared.for_personal()["build_list"].items()}
    values |= {"include_repos": [str(shared.ids.rosa)], "auto_publish": "false", "use_save_to_repository": "false"}
    values |= {"use_extra_tests": "true", "save_buildroot": "1", "use_cached_chroot": "0"}
    made = shared.show(shared.new({"build_list": values}))
    assert made["project"]["id"] == shared.ids.evil_tools
    assert [item["id"] for item in made["include_repos"]] == [shared.ids.rosa]
    assert (made["auto_publish"], made["use_save_to_repository"]) == (False, False)
    assert (made["use_extra_tests"], made["save_buildroot"], made["use_cached_chroot"]) == (True, True, False)


def test_unknown_keys_are_dropped(shared: Farm) -> None:
    body = shared.body(nosuch=1, id=77, status=6000, user_id=shared.ids.people["root"], priority=1000)
    made = shared.show(shared.new({**body, "nothing": 1}))
    assert (made["status"], made["user"]["uname"], made["priority"]) == (2000, "ivan", 50)
    assert made["id"] != 77


@pytest.mark.parametrize("body", [None, {}, {"nothing": 1}, [], "text", 1])
def test_an_action_ignores_its_body(body: object, shared: Farm) -> None:
    answer = shared.ivan.put(f"build_lists/{shared.new()}/cancel.json", body)
    assert (answer.status_code, answer.json()["build_list"]["message"]) == (200, "Build canceled")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"text"', b"1", b'{"build_list": []}', b"\xff"])
def test_a_body_of_the_wrong_shape(content: bytes, farm: Farm) -> None:
    headers = {"Content-Type": "application/json"}
    answer = farm.ivan("POST", "build_lists.json", content=content, headers=headers)
    assert answer.status_code in (400, 422)
    assert farm.count() == 0


NEW = '{"project": {"name": "new", "description": "%s"}}'


@pytest.mark.parametrize(
    "content",
    [
        NEW.encode() % b"\xed\xa0\x80",  # half of a character
        (NEW % "\\ud800").encode(),
        (NEW % "\\ud800").encode("utf-16"),
        (NEW % "x").encode("utf-16"),
        (NEW % "x").encode("utf-16-le"),
        (NEW % "\ud800").encode("utf-16-be", "surrogatepass"),
        (NEW % "x").encode("utf-32"),
    ],
)
def test_invalid_utf_8_is_refused(content: bytes, farm: Farm) -> None:
    """Unpaired surrogates are refused in every encoding, because clients could not display them."""
    for person in (farm.ivan, farm.root):
        answer = person("POST", "projects.json", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, answer.text
        assert "JSON parse error" in answer.json()["message"]
    assert farm.ivan.get("projects/get_id.json?owner=ivan&name=new").status_code == 404


def test_a_byte_order_mark_is_ignored(farm: Farm) -> None:
    """Some editors write one in front of UTF-8."""
    content = (NEW % "ü").encode("utf-8-sig")
    answer = farm.ivan("POST", "projects.json", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    found = farm.ivan.get(f"projects/{answer.json()['project']['id']}.json").json()["project"]
    assert found["description"] == "ü"
