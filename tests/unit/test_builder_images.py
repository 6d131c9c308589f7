"""The images in which packages are built."""

from __future__ import annotations

import pytest
from fake_engine import FakeEngine

from polylocal.daemon.main import known_images
from polylocal.errors import EngineUnreachable
from polylocal.packages import builder_images, recipes
from polylocal.packages.builder_images import BUILDER


def test_debian_packages_are_built_in_the_builder_where_the_engine_has_it() -> None:
    assert builder_images.default("deb", lambda name: name == BUILDER) == BUILDER
    assert builder_images.default("deb", lambda name: False) == "debian:12"


@pytest.mark.parametrize("kind", ["dnf", "rhel", "mdv", "pypi", None])
@pytest.mark.parametrize("has_image", [False, True])
def test_others_are_built_in_the_image_of_their_kind(kind: str | None, has_image: bool) -> None:
    assert builder_images.default(kind, lambda name: has_image) == recipes.IMAGES[kind or "dnf"]


@pytest.mark.parametrize(
    ("kind", "image", "lacking"),
    [
        *(
            ("deb", image, "the build tools (dpkg-dev, build-essential)")
            for image in ("debian:12", "debian", "debian:12-slim", "ubuntu:24.04", "docker.io/library/debian:12")
        ),
        ("deb", f"debian:12@sha256:{'0' * 64}", "the build tools (dpkg-dev, build-essential)"),
        *(
            (kind, image, "the build tools (rpm-build)")
            for kind in ("dnf", "rhel")
            for image in ("fedora:41", "almalinux:9", "docker.io/rockylinux/rockylinux:9")
        ),
        *(
            ("pypi", image, "a compiler, so that only pure Python projects can be built")
            for image in ("python:3.11-slim", "python:3.13-slim-bookworm", "python:alpine")
        ),
    ],
)
def test_missing_tools_of_images(kind: str, image: str, lacking: str) -> None:
    assert builder_images.missing_tools(kind, image) == f"The image {image} lacks {lacking}"
    assert builder_images.advice(kind, image) == (
        f"The image {image} lacks {lacking}: name another one by `--image` (`build_image`), such as {BUILDER}, which"
        " `scripts/base-images --packages` makes"
    )


@pytest.mark.parametrize(
    ("kind", "image"),
    [
        ("deb", BUILDER),
        ("deb", "mine/debian:12"),
        ("deb", "registry.example.org/debian:12"),
        ("deb", "fedora:41"),
        ("mdv", "openmandriva/builder"),
        ("dnf", BUILDER),
        ("pypi", "python:3.11"),
        ("pypi", "mine/slim"),
        ("pypi", ""),
    ],
)
def test_of_other_images_nothing_is_known(kind: str, image: str) -> None:
    assert builder_images.missing_tools(kind, image) is None
    assert builder_images.advice(kind, image) is None


def test_known_images_are_remembered_while_the_engine_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    has_image = known_images(engine)
    assert (has_image("base"), has_image("nosuch")) == (True, False)

    def refuse(name: str) -> None:
        raise EngineUnreachable("nobody answers")

    monkeypatch.setattr(engine, "image", refuse)
    assert (has_image("base"), has_image("nosuch"), has_image("never asked for")) == (True, False, False)
