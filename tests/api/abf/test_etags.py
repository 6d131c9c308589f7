"""ETags: unchanged content is not sent again."""

from __future__ import annotations

import pytest

from .farm import Farm

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
def test_unchanged_content_is_not_sent_again(path: str, shared: Farm) -> None:
    path = filled(path, shared, shared.new())
    first, second = shared.ivan.get(path), shared.ivan.get(path)
    assert (first.status_code, second.status_code) == (200, 200)
    tag = first.headers["etag"]
    assert tag.strip('W/"')
    assert second.headers["etag"] == tag
    known = shared.ivan.get(path, headers={"If-None-Match": tag})
    assert (known.status_code, known.content) == (304, b"")
    other = shared.ivan.get(path, headers={"If-None-Match": '"other"'})
    assert (other.status_code, other.json()) == (200, first.json())


@pytest.mark.parametrize("path", [path for path in READ if path not in ("projects.json", "users/ivan.json")])
def test_a_suffix_changes_nothing(path: str, shared: Farm) -> None:
    """Except for paths that without the suffix belong to the other API."""
    path = filled(path, shared, shared.new())
    answer = shared.ivan.get(path.replace(".json", "", 1))
    assert answer.status_code == 200
    assert answer.json() == shared.ivan.get(path).json()


def test_changed_content_has_another_tag(farm: Farm) -> None:
    build_list = farm.new()
    for path in (f"build_lists/{build_list}.json", "build_lists.json"):
        before = farm.ivan.get(path).headers["etag"]
        farm.set(build_list, status=0 if farm.row(build_list)["status"] else 666)
        answer = farm.ivan.get(path, headers={"If-None-Match": before})
        assert answer.status_code == 200
        assert answer.headers["etag"] != before


def test_every_change_has_a_tag(farm: Farm) -> None:
    """Clients read the header from every successful response."""
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
