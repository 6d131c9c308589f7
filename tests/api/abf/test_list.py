"""Lists of build lists: the keys of a row, the filters, the ownership, the order."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from .farm import FORBIDDEN, NOT_FOUND, Farm, Json, Person

GLOBAL = "build_lists.json"


def answered(person: Person, path: str = GLOBAL, **filters: object) -> Json:
    answer = person.get(path, params={f"filter[{name}]": value for name, value in filters.items()})
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    assert sorted(found) == ["build_lists", "url"]
    return found


def ids(person: Person, path: str = GLOBAL, **filters: object) -> list[int]:
    return [item["id"] for item in answered(person, path, **filters)["build_lists"]]


def of_project(farm: Farm) -> str:
    return f"projects/{farm.ids.evil_tools}/build_lists.json"


def test_the_keys_of_a_row(farm: Farm) -> None:
    build_list = farm.new()
    line = {
        "id": build_list,
        "name": "evil_tools",
        "status": 2000,
        "project_id": farm.ids.evil_tools,
        "url": f"/api/v1/build_lists/{build_list}.json",
    }
    for path in (GLOBAL, of_project(farm)):
        assert answered(farm.ivan, path) == {"build_lists": [line], "url": "/api/v1/build_lists.json"}


def test_an_empty_list(farm: Farm) -> None:
    for path in (GLOBAL, of_project(farm)):
        assert answered(farm.ivan, path) == {"build_lists": [], "url": "/api/v1/build_lists.json"}


@pytest.mark.parametrize(
    ("query", "repeated"),
    [
        ("filter[status]=6000", {"filter[status]": ["6000"]}),
        (
            "filter[ownership]=owned&filter[status]=6000&filter[arch_id]=2",
            {"filter[ownership]": ["owned"], "filter[status]": ["6000"], "filter[arch_id]": ["2"]},
        ),
        ("filter[project_name]=a%26b%20c&page=2&per_page=5", {"filter[project_name]": ["a&b c"]}),
        ("page=2&per_page=5", {}),
    ],
)
def test_the_url_repeats_the_filter_and_not_the_page(query: str, repeated: Json, farm: Farm) -> None:
    for path in (GLOBAL, of_project(farm)):
        url = urlsplit(farm.ivan.get(f"{path}?{query}").json()["url"])
        assert url.path == "/api/v1/build_lists.json"
        assert parse_qs(url.query) == repeated
        assert "[" not in url.query


def test_the_last_changed_comes_first(farm: Farm) -> None:
    first, second, third = (farm.new() for _ in range(3))
    assert ids(farm.ivan) == [third, second, first]
    farm.ivan.change("PUT", f"build_lists/{second}/cancel.json")
    assert ids(farm.ivan) == ids(farm.ivan, of_project(farm)) == [second, third, first]


# -- filters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["global", "of a project"])
def test_by_status(path: str, farm: Farm) -> None:
    path = GLOBAL if path == "global" else of_project(farm)
    by_status = {status: farm.new(status=status) for status in (0, 666, 2000, 6000)}
    for status, build_list in by_status.items():
        assert ids(farm.ivan, path, status=status) == [build_list]
    for status in (1, 4, 123, -1, 2**63, "nosuch"):
        assert ids(farm.ivan, path, status=status) == []
    assert len(ids(farm.ivan, path, status="")) == 4


def test_by_architecture(farm: Farm) -> None:
    foreign = farm.foreign_arch()
    build_list, other = farm.new(), farm.new(arch_id=foreign)
    assert ids(farm.ivan, arch_id=farm.ids.arch) == [build_list]
    assert ids(farm.ivan, arch_id=foreign) == [other]
    assert ids(farm.ivan, arch_id=foreign + 100) == []
    assert ids(farm.ivan, arch_id="") == [other, build_list]


@pytest.mark.parametrize(
    ("value", "is_found"), [("true", False), ("1", False), ("false", True), ("0", True), ("", True)]
)
def test_none_is_made_again_and_again(value: str, is_found: bool, farm: Farm) -> None:
    build_list = farm.new()
    assert ids(farm.ivan, is_circle=value) == ([build_list] if is_found else [])


def test_by_a_part_of_the_name_of_the_project(farm: Farm) -> None:
    evil, secret = farm.new(), farm.new(farm.of_secret_tools())
    assert ids(farm.ivan, project_name="evil") == [evil]
    assert ids(farm.ivan, project_name="secret_tools") == [secret]
    assert ids(farm.ivan, project_name="tools") == [secret, evil]
    assert ids(farm.ivan, project_name="nosuch") == []
    assert ids(farm.ivan, project_name="") == [secret, evil]
    assert ids(farm.ivan, project_name="'; drop table runs; --") == []


def test_by_the_moment_of_the_last_change(farm: Farm) -> None:
    """Both ends are inclusive, since clients send dates from earlier responses."""
    build_list = farm.new()
    moment = farm.show(build_list)["updated_at"]
    assert ids(farm.ivan, updated_at_start=moment) == [build_list]
    assert ids(farm.ivan, updated_at_end=moment) == [build_list]
    assert ids(farm.ivan, updated_at_start=moment, updated_at_end=moment) == [build_list]
    assert ids(farm.ivan, updated_at_start=moment + 1) == []
    assert ids(farm.ivan, updated_at_end=moment - 1) == []


def test_by_the_day_of_the_last_change(farm: Farm) -> None:
    build_list = farm.new()
    assert ids(farm.ivan, updated_at_start="31/12/2020") == [build_list]
    assert ids(farm.ivan, updated_at_start="31/12/2120") == []
    assert ids(farm.ivan, updated_at_end="31/12/2120") == [build_list]
    assert ids(farm.ivan, updated_at_end="31/12/2020") == []


@pytest.mark.parametrize("name", ["save_to_platform_id", "platform_id"])
def test_by_the_platform_that_they_are_kept_in(name: str, farm: Farm) -> None:
    rosa, personal = farm.new(), farm.new(farm.for_personal())
    assert ids(farm.ivan, **{name: farm.ids.rosa_platform}) == [rosa]
    assert ids(farm.ivan, **{name: farm.ids.personal_platform}) == [personal]
    assert ids(farm.ivan, **{name: farm.ids.lts_platform}) == []


def test_by_mass_build(farm: Farm) -> None:
    build_list = farm.new()
    assert ids(farm.ivan, mass_build_id=-1) == [build_list]
    assert ids(farm.ivan, mass_build_id=1) == []
    assert ids(farm.ivan, mass_build_id="") == [build_list]


def test_by_what_later_servers_know(farm: Farm) -> None:
    rosa, lts, personal = farm.new(), farm.new(farm.for_lts()), farm.new(farm.for_personal(project_version="v2"))
    assert ids(farm.ivan, build_for_platform_id=farm.ids.rosa_platform) == [personal, rosa]
    assert ids(farm.ivan, save_to_repository_id=farm.ids.lts) == [lts]
    assert ids(farm.ivan, project_version="v2") == [personal]
    assert ids(farm.ivan, new_core=1) == [personal, lts, rosa]
    assert ids(farm.ivan, new_core=0) == []


def test_the_filter_by_id_disables_others(farm: Farm) -> None:
    """The id disables all other filters."""
    first, _ = farm.new(), farm.new()
    assert ids(farm.ivan, id=first) == [first]
    assert ids(farm.ivan, id=first, status=666, project_name="nosuch") == [first]
    assert ids(farm.ivan, id=999) == []


def test_private_build_lists_are_not_found_by_id(farm: Farm) -> None:
    hidden = farm.new(farm.of_secret_tools())
    assert ids(farm.petr, id=hidden) == []


def test_filters_are_joined(farm: Farm) -> None:
    wanted = farm.new(status=6000)
    farm.new(status=666)
    farm.new(farm.for_personal(), status=6000)
    farm.new(farm.of_secret_tools(), status=6000)
    both = {"status": 6000, "save_to_platform_id": farm.ids.rosa_platform}
    assert ids(farm.ivan, **both, project_name="evil", arch_id=farm.ids.arch, ownership="owned") == [wanted]
    assert ids(farm.ivan, **both, project_name="secret") == []


@pytest.mark.parametrize("name", ["nosuch", "user_id", "status; drop", "status][x", ""])
def test_filters_that_there_are_not(name: str, shared: Farm) -> None:
    build_list = shared.new()
    assert ids(shared.ivan, **{name: "1"}) == ids(shared.ivan)
    assert build_list in ids(shared.ivan)


@pytest.mark.parametrize("query", ["filter=x", "filter[]=1", "filter[status][]=1", "filter[status]=1&filter[status]=2"])
def test_filters_of_another_shape(query: str, farm: Farm) -> None:
    farm.new()
    assert farm.ivan.get(f"{GLOBAL}?{query}").status_code == 200


# -- ownership ------------------------------------------------------------------------------------------------------


def test_the_filter_by_ownership(farm: Farm) -> None:
    mine, roots = farm.new(), farm.new(by=farm.root)
    hidden = farm.new(farm.of_secret_tools())
    for ownership, of_ivan, of_root, of_petr in (
        ("owned", [hidden, mine], [roots], []),
        ("", [hidden, mine], [roots], []),
        ("related", [hidden, roots, mine], [roots], []),
        ("index", [hidden, roots, mine], [hidden, roots, mine], [roots, mine]),
        ("everything", [hidden, roots, mine], [hidden, roots, mine], [roots, mine]),
    ):
        found = [ids(person, ownership=ownership) for person in (farm.ivan, farm.root, farm.petr)]
        assert (ownership, found) == (ownership, [of_ivan, of_root, of_petr])


MOMENT = "must be seconds since 1970, or a day written as dd/mm/yyyy"


@pytest.mark.parametrize("path", ["global", "of a project"])
@pytest.mark.parametrize(
    ("filters", "told"),
    [
        *(
            ({"ownership": word}, "Ownership must be one of owned, related, index, everything")
            for word in ("bogus", "OWNED", "0", "owned,related")
        ),
        *(
            ({f"updated_at_{end}": word}, f"Updated at {end} {MOMENT}")
            for end in ("start", "end")
            for word in ("yesterday", "2020-12-31", "31/13/2020", "00/01/2020", "1e9", "1.5", "9" * 30)
        ),
        (
            {"ownership": "bogus", "updated_at_end": "x"},
            f"Ownership must be one of owned, related, index, everything. Updated at end {MOMENT}",
        ),
    ],
)
def test_a_filter_with_an_impossible_value_is_refused(
    path: str, filters: dict[str, str], told: str, shared: Farm
) -> None:
    """If such a filter were ignored, the list would contain unwanted rows."""
    parameters = {f"filter[{name}]": value for name, value in filters.items()}
    answer = shared.ivan.get(GLOBAL if path == "global" else of_project(shared), params=parameters)
    message = f"Build lists can't be filtered. {told}"
    assert (answer.status_code, answer.json()) == (422, {"build_list": {"id": None, "message": message}})


@pytest.mark.parametrize(
    "name", ["status", "arch_id", "save_to_platform_id", "build_for_platform_id", "save_to_repository_id", "id"]
)
@pytest.mark.parametrize("value", ["bogus", "1.5", "1 or 1", "9" * 30])
def test_an_invalid_number_finds_nothing(name: str, value: str, shared: Farm) -> None:
    shared.new()
    assert ids(shared.ivan, **{name: value}) == []


def test_the_default_ownership_is_the_users_own(farm: Farm) -> None:
    mine, roots = farm.new(), farm.new(by=farm.root)
    assert (ids(farm.ivan), ids(farm.root), ids(farm.petr)) == ([mine], [roots], [])


def test_of_a_project_they_are_everybodys(farm: Farm) -> None:
    mine, roots = farm.new(), farm.new(by=farm.root)
    farm.new(farm.of_secret_tools())
    path = of_project(farm)
    for person in (farm.ivan, farm.root, farm.petr):
        assert ids(person, path) == [roots, mine]
    assert ids(farm.root, path, ownership="owned") == [roots]
    assert ids(farm.petr, path, ownership="related") == []


def test_of_a_hidden_project(farm: Farm) -> None:
    build_list = farm.new(farm.of_secret_tools())
    path = f"projects/{farm.ids.secret_tools}/build_lists.json"
    assert ids(farm.ivan, path) == ids(farm.root, path) == [build_list]
    answer = farm.petr.get(path)
    assert (answer.status_code, answer.json()) == (403, FORBIDDEN)


def test_of_a_project_that_there_is_not(farm: Farm) -> None:
    for number in (999, 0, "nosuch"):
        answer = farm.ivan.get(f"projects/{number}/build_lists.json")
        assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


def test_of_a_project_another_name_finds_nothing(farm: Farm) -> None:
    farm.new(farm.of_secret_tools())
    assert ids(farm.ivan, of_project(farm), project_name="secret") == []
    assert ids(farm.ivan, of_project(farm), id=farm.new(farm.of_secret_tools())) == []
