"""The owners of an image, from the engine's list of images, its history and the recorded builds."""

from __future__ import annotations

from typing import Any

import pytest

from polylocal.engine.docker import history
from polylocal.engine.images import Image
from polylocal.engine.ledger import NOTHING_BUILT, Ledger, short_id
from polylocal.engine.plan import BUILD_LABEL, IMAGE_LABEL

BUILD, OURS, THEIRS = "b" * 32, f"quick-start_1:{'b' * 32}", "mine:latest"
RESULT, STEP, BASE = (f"sha256:{digit * 64}" for digit in "123")
OWNER_LINE = f"/bin/sh -c #(nop)  LABEL {IMAGE_LABEL}=home"
BUILD_LINE = f"/bin/sh -c #(nop)  LABEL {BUILD_LABEL}={BUILD}"
LABELS = {IMAGE_LABEL: "home", BUILD_LABEL: BUILD}
LEDGER = Ledger({short_id(RESULT): BUILD}, {short_id(STEP): BUILD})


def image(*names: str, image_id: str = RESULT, labels: dict[str, str] | None = LABELS) -> dict[str, Any]:
    return {"Id": image_id, "RepoTags": list(names) or None, "Labels": labels, "Created": 1_700_000_000}


def layer(image_id: str, line: str, size: int = 0, *tags: str) -> dict[str, Any]:
    return {"Id": image_id, "CreatedBy": line, "Size": size, "Tags": list(tags) or None}


PAST = [
    layer(RESULT, BUILD_LINE, 1, OURS),
    layer(STEP, OWNER_LINE, 2),
    layer(BASE, "/bin/sh -c #(nop) ADD file", 4, "base:latest"),
]


def found(listed: dict[str, Any], past: list[dict[str, Any]] = PAST, ledger: Ledger = LEDGER) -> Image | None:
    """The image as `DockerImages.images` returns it."""
    return history.own_image(listed, past, "home", ledger) if history.may_be_ours(listed, "home", ledger) else None


def test_the_image_of_a_recorded_build() -> None:
    made = found(image(OURS, THEIRS))
    assert made
    assert (made.build, made.names, made.has_other_names, made.is_proven) == (BUILD, [OURS], True, True)
    assert made.created_at == "2023-11-14T22:13:20.000000+00:00"


def test_only_the_layers_down_to_the_next_image_with_a_name_count() -> None:
    made = found(image(OURS))
    assert made
    assert (made.layers, made.size_bytes) == ({RESULT: 1, STEP: 2}, 3)


def test_layers_of_buildkit_have_no_ids_and_are_shared_with_no_other_image() -> None:
    made = found(image(OURS), [layer("<missing>", BUILD_LINE, 1), layer("<missing>", "RUN true", 2)])
    assert made
    assert made.layers == {f"{RESULT} 0": 1, f"{RESULT} 1": 2}


def test_without_a_record_the_label_and_the_name_tell() -> None:
    made = found(image(OURS), ledger=NOTHING_BUILT)
    assert made
    assert (made.build, made.names, made.is_proven) == (BUILD, [OURS], False)


@pytest.mark.parametrize("names", [(THEIRS,), ()])
def test_an_image_that_others_made_on_top_of_ours_is_theirs(names: tuple[str, ...]) -> None:
    other = "sha256:" + "4" * 64
    assert found(image(*names, image_id=other), [layer(other, "RUN theirs"), *PAST], NOTHING_BUILT) is None


def test_a_step_without_a_record_is_found_by_the_one_below_it() -> None:
    other = "sha256:" + "5" * 64
    made = found(image(image_id=other, labels=None), [layer(other, "RUN true"), *PAST[1:]])
    assert made
    assert (made.build, made.names, made.is_proven) == ("", [], True)


def test_an_id_in_the_output_of_a_step_makes_no_image_ours() -> None:
    listed = image(THEIRS, image_id=BASE, labels=None)
    assert found(listed, PAST[2:], Ledger({}, {short_id(BASE): BUILD})) is None


def test_images_of_other_installations_are_not_looked_at() -> None:
    assert not history.may_be_ours(image(OURS, labels={IMAGE_LABEL: "another"}), "home", NOTHING_BUILT)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["RUN true", OWNER_LINE, "ADD file"], True),
        ([BUILD_LINE], True),
        (["RUN theirs", BUILD_LINE, OWNER_LINE], False),
        (["RUN theirs"], False),
    ],
)
def test_which_images_a_build_made(lines: list[str], expected: bool) -> None:
    assert history.is_made_by_a_build([layer(RESULT, line) for line in lines]) is expected
