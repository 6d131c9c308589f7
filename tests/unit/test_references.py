"""Names of images as the engine reads them."""

from __future__ import annotations

import pytest

from polylocal.engine.references import build_of, familiar_name, is_name, registry_host

UUID = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("python", "python:latest"),
        ("docker.io/library/python:3", "python:3"),
        ("index.docker.io/a/b", "a/b:latest"),
        ("a/b@sha256:1", "a/b@sha256:1"),
        ("a:1@sha256:1", "a@sha256:1"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
    ],
)
def test_familiar_names(name: str, expected: str) -> None:
    assert familiar_name(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("python", "docker.io"),
        ("a/b", "docker.io"),
        ("127.0.0.1:5000/a", "127.0.0.1"),
        ("localhost/a", "localhost"),
        ("[::1]:5000/a", "::1"),
        ("LOCALHOST/a", "LOCALHOST"),
        ("example.org/a:1", "example.org"),
    ],
)
def test_registries(name: str, expected: str) -> None:
    assert registry_host(name) == expected


@pytest.mark.parametrize("name", [f"p_1:{UUID}", f"docker.io/library/p_1:{UUID}"])
def test_the_name_of_a_build_is_known_in_every_form(name: str) -> None:
    assert build_of(name) == UUID


@pytest.mark.parametrize("name", ["python:3", f"python:{UUID}", f"x/p_1:{UUID}", f"p_1:{UUID[:-1]}"])
def test_other_names_are_of_no_build(name: str) -> None:
    assert build_of(name) is None


@pytest.mark.parametrize("name", ["sha256:bf4", UUID * 2, "a b", "", "a$b", "a'b", "\u00e9"])
def test_invalid_names(name: str) -> None:
    assert not is_name(name)
