"""Garbage collection: decisions from rows and images alone."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylocal.engine.containers import Found
from polylocal.engine.images import Image
from polylocal.runner import gc
from polylocal.runner.gc import OVER_BUDGET, Leftover
from polylocal.store.rows import BuildUse

MIB = 1 << 20


def image(number: int, size: int = MIB, *, names: bool = True, build: str | None = None) -> Image:
    uuid = build or f"build-{number}"
    return Image(
        f"sha256:{number}",
        uuid,
        [f"p_1:{uuid}"] if names else [],
        {f"layer {number}": size},
        "2026-01-01T00:00:00+00:00",
    )


_ONE = BuildUse(
    uuid="",
    project="root.p",
    id=1,
    image_id=None,
    is_open=False,
    is_pinned=False,
    last_used="2026-01-01T00:00:00+00:00",
)


def use(number: int, day: int | None = None, *, is_open: bool = False, is_pinned: bool = False) -> BuildUse:
    return dataclasses.replace(
        _ONE,
        uuid=f"build-{number}",
        id=number,
        image_id=f"sha256:{number}",
        is_open=is_open,
        is_pinned=is_pinned,
        last_used=f"2026-01-{day or number:02}T00:00:00+00:00",
    )


def uses(*found: BuildUse) -> dict[str, BuildUse]:
    return {one.uuid: one for one in found}


def gone(items: list[gc.Item]) -> list[str]:
    return [item.id for item in items if item.goes]


def test_the_least_recently_used_are_removed_until_the_rest_is_within_the_budget() -> None:
    found = [image(1), image(2), image(3), image(4)]
    known = uses(use(1, day=9), use(2, day=2), use(3, day=5), use(4, day=3))
    items = gc.images(found, known, 2 * MIB)
    assert gone(items) == ["sha256:2", "sha256:4"]
    assert {item.reason for item in items if item.goes} == {OVER_BUDGET}


def test_within_the_budget_nothing_is_removed() -> None:
    assert gone(gc.images([image(1), image(2)], uses(use(1), use(2)), 2 * MIB)) == []


def test_no_more_is_removed_than_necessary() -> None:
    """Removing one large old image is enough."""
    items = gc.images([image(1, 5 * MIB), image(2), image(3)], uses(use(1), use(2), use(3)), 2 * MIB)
    assert gone(items) == ["sha256:1"]


def test_used_and_pinned_images_stay_even_without_any_budget() -> None:
    known = uses(use(1, is_open=True), use(2, is_pinned=True), use(3))
    items = {item.id: item for item in gc.images([image(1), image(2), image(3)], known, 0)}
    assert [number for number, item in items.items() if item.goes] == ["sha256:3"]
    assert "is running, or a run that needs it" in items["sha256:1"].reason
    assert items["sha256:2"].reason.startswith("pinned: ")
    assert not items["sha256:1"].can_go
    assert not items["sha256:2"].can_go


def test_images_without_a_build_are_removed_whatever_the_budget() -> None:
    items = gc.images([image(1), image(2)], uses(use(2)), 100 * MIB)
    assert gone(items) == ["sha256:1"]
    assert items[0].reason == "of an unknown build"


def test_images_without_a_build_do_not_count_against_the_budget() -> None:
    items = gc.images([image(1, 50 * MIB), image(2)], uses(use(2)), MIB)
    assert gone(items) == ["sha256:1"]


def test_unnamed_leftovers_of_a_build_are_removed() -> None:
    left = image(7, names=False, build="build-1")
    items = gc.images([left, image(1)], uses(use(1)), 100 * MIB)
    assert gone(items) == ["sha256:7"]


def test_the_image_of_a_build_stays_even_without_a_name() -> None:
    assert gone(gc.images([image(1, names=False)], uses(use(1)), 100 * MIB)) == []


IMAGES = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 28), st.sampled_from(["free", "open", "pinned", "unknown"])), max_size=8
)


@given(IMAGES, st.integers(0, 20))
def test_a_plan_keeps_its_promises(rough: list[tuple[int, int, str]], budget: int) -> None:
    found, known = [], {}
    for number, (size, day, state) in enumerate(rough):
        found.append(image(number, size * MIB))
        if state != "unknown":
            known[f"build-{number}"] = use(number, day, is_open=state == "open", is_pinned=state == "pinned")
    items = gc.images(found, known, budget * MIB)
    assert sorted(item.id for item in items) == sorted(one.id for one in found)
    states = {f"sha256:{number}": state for number, (_, _, state) in enumerate(rough)}
    for item in items:
        assert not (item.goes and states[item.id] in ("open", "pinned"))
        assert item.goes or states[item.id] != "unknown"
    left = sum(item.size_bytes for item in items if not item.goes)
    could_go = [item for item in items if not item.goes and item.can_go]
    assert left <= budget * MIB or not could_go
    # everything kept is newer than what was removed for the budget
    went = [item.last_used for item in items if item.reason == OVER_BUDGET]
    assert not went or all(item.last_used >= max(went) for item in could_go)


def test_a_layer_that_two_share_is_freed_with_the_second() -> None:
    """Removing an image frees its own layers only. The budget counts a shared layer once."""
    shared = {"shared": 10 * MIB}
    first, second = (replace(image(n), layers={**shared, f"own {n}": MIB}) for n in (1, 2))
    items = gc.images([first, second], uses(use(1, 1), use(2, 2)), 12 * MIB)
    assert gone(items) == []
    items = gc.images([first, second], uses(use(1, 1), use(2, 2)), 11 * MIB)
    assert gone(items) == [first.id]
    assert [item.size_bytes for item in items] == [MIB, MIB]


def test_containers_are_removed_for_a_reason_only() -> None:
    found = [Found("a" * 64, "job/x", "exited"), Found("b" * 64, "", "running")]
    items = gc.containers(found, {"a" * 64: "no run knows it"})
    assert [(item.goes, item.reason) for item in items] == [
        (True, "no run knows it"),
        (False, "running, of a run that is kept or running"),
    ]
    assert [item.name for item in items] == ["job/x", "b" * 12]


@pytest.mark.parametrize(("asked", "expected"), [(True, ["contexts/x", "logs/jobs/x.log"]), (False, ["contexts/x"])])
def test_images_that_may_belong_to_others_are_removed_on_request_only(asked: bool, expected: list[str]) -> None:
    leftovers = [
        Leftover("contexts/x", 1, "", "why", needs_request=False),
        Leftover("logs/jobs/x.log", 1, "", "why", needs_request=True),
    ]
    items = gc.files(leftovers, asked=asked)
    assert gone(items) == expected
    assert [item.kind for item in items] == ["folder", "log"]
