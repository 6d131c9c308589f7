"""Random requests: each is accepted or refused, and none causes an internal error."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .farm import PEOPLE, Farm

TIMES = max(1, settings.default.max_examples // 200)  # more with `--hypothesis-profile=long`
BOUNDED = settings(
    max_examples=150 * TIMES,
    deadline=timedelta(seconds=5),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # shrinking a failing example takes longer than finding it
)

CHANGES = [
    ("POST", "build_lists.json", "build_list"),
    *(
        ("PUT", f"build_lists/{{id}}/{action}.json", "")
        for action in ("cancel", "publish", "create_container", "reject_publish")
    ),
    ("DELETE", "build_lists/{id}.json", ""),
    ("POST", "projects.json", "project"),
    ("PUT", "projects/{id}.json", "project"),
    ("POST", "platforms.json", "platform"),
    ("PUT", "platforms/{id}.json", "platform"),
    ("POST", "repositories.json", "repository"),
    ("PUT", "repositories/{id}.json", "repository"),
    ("PUT", "repositories/{id}/add_project.json", ""),
    ("DELETE", "repositories/{id}/remove_project.json", ""),
    ("PUT", "repositories/{id}/add_repo_lock_file.json", ""),
    ("DELETE", "repositories/{id}/remove_repo_lock_file.json", ""),
    ("POST", "upload", "file_store"),
]
LISTS = [
    "build_lists.json",
    "projects/{id}/build_lists.json",
    "projects.json",
    "projects/get_id.json",
    "projects/{id}.json",
    "projects/{id}/refs_list.json",
    "platforms.json",
    "platforms/{id}.json",
    "platforms/platforms_for_build.json",
    "repositories/{id}.json",
    "repositories/{id}/projects.json",
    "arches.json",
    "user.json",
    "users/{id}.json",
    "search.json",
    "file_stores.json",
    "file_stores/{id}",
    "build_lists/{id}.json",
]
FIELDS = """
    project_id commit_hash project_version update_type save_to_repository_id build_for_platform_id arch_id include_repos
    auto_publish use_save_to_repository auto_publish_status auto_create_container extra_repositories extra_build_lists
    include_testing_subrepository use_cached_chroot use_extra_tests save_buildroot external_nodes extra_params
    name owner_id owner_type visibility description is_package default_branch distrib_type released build_image
    build_command build_network platform_id publish_without_qa nothing id
""".split()
WORDS = st.sampled_from(
    [
        *("ivan", "master", "true", "false", "none", "default", "testing", "bugfix", "open", "hidden", "User", "deb"),
        *("²", "-1", "0", "1", "2", "3", "1e999", "\0", "9999-12-31", "..", "../..", "%", "HEAD", "--all", "a b", "'"),
        *("31/12/2020", "99/99/9999", "1349357795", "9" * 30, "owned", "related", "everything", "\ud800"),
    ]
)
TEXTS = st.one_of(WORDS, st.text(max_size=20), st.text(alphabet="0123456789", min_size=1, max_size=30))
SMALL = st.integers(min_value=0, max_value=8)
NUMBERS = st.one_of(
    SMALL, st.integers(), st.sampled_from([2**31, 2**63, -(2**63) - 1, 10**30]), st.floats(allow_nan=False)
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
IDS = st.one_of(
    SMALL.map(str),
    st.sampled_from(["-1", "x", str(2**63), "9" * 30, "9" * 4400, "%C2%B2", "1.5", "%00", "get_id", "ivan", "%FF"]),
)
FILTERS = """
    id status arch_id is_circle project_name updated_at_start updated_at_end ownership mass_build_id save_to_platform_id
    platform_id build_for_platform_id save_to_repository_id project_version new_core x
""".split()
QUERIES = st.dictionaries(
    st.one_of(
        st.sampled_from([f"filter[{name}]" for name in FILTERS]),
        st.sampled_from(
            ["page", "per_page", "type", "query", "owner", "name", "hash", "filter", "filter[", "filter[]"]
        ),
    ),
    TEXTS,
    max_size=4,
)
FORM_NAMES = [
    *(f"{subject}[{name}]{more}" for subject in ("build_list", "project") for name in FIELDS for more in ("", "[]")),
    *("build_list", "build_list[]", "build_list[extra_params][A]", "file_store", "file_store[file]", "project[][name]"),
]
WHO = st.sampled_from(["ivan", "ivan", "root", "petr", "nobody"])


@st.composite
def bodies(draw: st.DrawFn, subject: str) -> Any:
    """A valid body with some values replaced, or random JSON."""
    changes = draw(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3))
    shape = draw(st.sampled_from(["good", "good", "fields", "any", "under"]))
    if shape == "good":
        whole = GOOD.get(subject, {"project_id": 1})
        return {subject: {**whole, **changes}} if subject else {**whole, **changes}
    if shape == "fields":
        return {subject: changes} if subject else changes
    return draw(VALUES) if shape == "any" else {subject: draw(VALUES)}


GOOD: dict[str, dict[str, Any]] = {
    "project": {"name": "new", "visibility": "open", "is_package": True},
    "platform": {"name": "new", "description": "d", "distrib_type": "deb", "build_image": "busybox"},
    "repository": {"name": "new", "description": "d", "platform_id": 1},
}


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, str, Any]:
    method, path, subject = draw(st.sampled_from(CHANGES))
    return method, path.format(id=draw(IDS)), draw(bodies(subject))


@pytest.fixture(scope="module")
def world(shared: Farm) -> Farm:
    """One farm for all random requests."""
    GOOD["build_list"] = shared.body()["build_list"]
    for body in (shared.body(), shared.for_lts(), shared.of_secret_tools()):
        shared.new(body)
    return shared


def check(answer: httpx2.Response) -> None:
    assert answer.status_code < 500, f"{answer.request.method} {str(answer.request.url)[:200]}: {answer.text}"
    if answer.status_code >= 400:
        answer.json()
    elif answer.status_code != 304:
        assert answer.headers["etag"]


@BOUNDED
@given(change=changes(), who=WHO)
def test_any_json(world: Farm, change: tuple[str, str, Any], who: str) -> None:
    method, path, body = change
    content = json.dumps(body).encode()
    check(world.person(who)(method, path, content=content, headers={"Content-Type": "application/json"}))


@BOUNDED
@given(path=st.sampled_from(LISTS), number=IDS, query=QUERIES, who=WHO)
def test_any_query(world: Farm, path: str, number: str, query: dict[str, str], who: str) -> None:
    parameters = {name: value.encode("utf-8", "replace").decode() for name, value in query.items()}
    check(world.person(who).get(path.format(id=number), params=parameters))


@settings(BOUNDED, max_examples=60 * TIMES)
@given(
    change=changes(),
    content=st.binary(max_size=200),
    media=st.sampled_from(["application/json", "x", "", "multipart/form-data", "multipart/form-data; boundary=b"]),
)
def test_any_bytes(world: Farm, change: tuple[str, str, Any], content: bytes, media: str) -> None:
    method, path, _ = change
    check(world.ivan(method, path, content=content, headers={"Content-Type": media}))


@settings(BOUNDED, max_examples=60 * TIMES)
@given(form=st.dictionaries(st.sampled_from(FORM_NAMES), TEXTS, max_size=4))
def test_any_form(world: Farm, form: dict[str, str]) -> None:
    data = {name: value.encode("utf-8", "replace").decode() for name, value in form.items()}
    for path in ("build_lists.json", "projects.json", "upload"):
        check(world.ivan("POST", path, data=data))


@settings(BOUNDED, max_examples=50 * TIMES)
@given(words=TEXTS, scheme=st.sampled_from(["Basic", "Token", "basic", ""]))
def test_any_credentials(world: Farm, words: str, scheme: str) -> None:
    value = f"{scheme} {words}".encode("utf-8", "replace")
    answer = world.nobody.http.request("GET", "/api/v1/user.json", headers=[(b"Authorization", value)])
    assert answer.status_code in (400, 401)


@settings(BOUNDED, max_examples=80 * TIMES)
@given(change=changes())
def test_created_objects_can_be_listed(world: Farm, change: tuple[str, str, Any]) -> None:
    """No accepted value breaks a response."""
    method, path, body = change
    headers = {"Content-Type": "application/json"}
    answer = world.root(method, path, content=json.dumps(body).encode(), headers=headers)
    check(answer)
    if answer.status_code == 200 and method == "POST":
        (subject,) = answer.json()
        plural = {"repository": "repositories"}.get(subject, f"{subject}s")
        check(shown := world.root.get(f"{plural}/{answer.json()[subject]['id']}.json"))
        assert shown.status_code == 200
    for known in ("build_lists.json?filter[ownership]=everything", "platforms.json", "projects.json"):
        assert world.root.get(known).status_code == 200


def test_the_farm_is_still_whole(world: Farm) -> None:
    """After all requests, the build list and the users still exist."""
    assert world.show(1)["id"] == 1
    for name in PEOPLE:
        assert world.person(name).get("user.json").json()["user"]["uname"] == name
