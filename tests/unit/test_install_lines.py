"""The lines that users paste to install from a repository."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from polylocal.errors import InvalidInput
from polylocal.packages.install_lines import install_lines

URL = "http://127.0.0.1:8000/downloads/mine/repository/x86_64/main/release/"
KEY = "http://127.0.0.1:8000/downloads/mine/key.asc"


def test_apt_by_a_key() -> None:
    assert install_lines("deb", URL, "mine", ["hello"], KEY) == [
        f"curl -fsS {KEY} -o /etc/apt/keyrings/polylocal-mine.asc",
        f"deb [signed-by=/etc/apt/keyrings/polylocal-mine.asc] {URL} ./",
    ]


def test_apt_without_a_key() -> None:
    assert install_lines("deb", URL, "mine", ["hello"]) == [f"deb [trusted=yes] {URL} ./"]


@pytest.mark.parametrize("kind", ["dnf", "rhel", "mdv", None])
def test_dnf(kind: str | None) -> None:
    head = ["[polylocal-mine]", "name=polylocal-mine", f"baseurl={URL}"]
    assert install_lines(kind, URL, "mine", []) == [*head, "gpgcheck=0"]
    signed = ["repo_gpgcheck=1", f"gpgkey={KEY}", "gpgcheck=0"]
    assert install_lines(kind, URL, "mine", [], KEY) == [*head, *signed]


def test_each_repository_of_a_platform_has_a_section_of_its_own_for_dnf() -> None:
    folders = ["main/release", "main/updates", "extra/release", "extra/updates"]
    found = [install_lines("dnf", URL.replace("main/release", folder), "mine", [])[0] for folder in folders]
    names = ["mine", "mine-updates", "mine-extra", "mine-extra-updates"]
    assert found == [f"[polylocal-{name}]" for name in names]


def test_pip() -> None:
    assert install_lines("pypi", URL, "mine", ["hello", "Other.one"], KEY) == [
        f"pip install --index-url {URL}simple/ hello Other.one"
    ]


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("http://127.0.0.2:8000", None),
        ("http://localhost:8000", None),
        ("http://[::1]:8000", None),
        ("https://example.com", None),
        ("http://builds.example.com", "builds.example.com"),
        ("http://user:token@192.0.2.7:8000", "192.0.2.7"),
        ("http://[2001:db8::1]:8000", "2001:db8::1"),
    ],
)
def test_pip_is_told_to_trust_another_machine_without_tls(address: str, trusted: str | None) -> None:
    """Otherwise pip ignores the index."""
    (line,) = install_lines("pypi", f"{address}/x", "mine", ["hello"])
    options = ["--trusted-host", trusted] if trusted else []
    assert shlex.split(line) == ["pip", "install", *options, "--index-url", f"{address}/x/simple/", "hello"]


@pytest.mark.parametrize("url", ["http://[1:2", "http://[x]/", "http:///x"])
def test_an_index_that_names_no_host_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="names no host"):
        install_lines("pypi", url, "mine", ["hello"])


def test_a_slash_at_the_end_is_not_doubled() -> None:
    for kind in ("deb", "pypi", "dnf"):
        assert install_lines(kind, URL, "mine", ["a"]) == install_lines(kind, URL.rstrip("/"), "mine", ["a"])


def test_shell_characters_are_quoted() -> None:
    url = "http://[::1]:8000/downloads/mine?a=$(id)&b=*"
    (line,) = install_lines("pypi", url, "mine", ["a"])
    assert shlex.split(line) == ["pip", "install", "--index-url", f"{url}/simple/", "a"]
    fetch, _ = install_lines("deb", URL, "mine", [], "http://[::1]:8000/key.asc")
    assert "'http://[::1]:8000/key.asc'" in fetch


@pytest.mark.parametrize(
    ("change", "told"),
    [
        *(
            ({name: value}, "is not a valid URL for")
            for name in ("url", "key_url")
            for value in (
                "",
                "ftp://host/a",
                "http://host/a b",
                "http://host/\ndeb x",
                "http://host/'",
                "http://h/\x1b[0m",
            )
        ),
        *(
            ({"platform": value}, "is not a valid name of a platform for")
            for value in ("", "a/b", "a b", "a]", "a\n[b", "x" * 201, "é")
        ),
        *(
            ({"packages": [value]}, "is not a valid name of a package for")
            for value in ("", "-r", "a b", "a;id", "a\nb", "$(id)", "a[b]")
        ),
    ],
)
def test_characters_that_break_a_line_are_refused(change: dict[str, Any], told: str) -> None:
    values: dict[str, Any] = {"kind": "pypi", "url": URL, "platform": "mine", "packages": ["a"], "key_url": KEY}
    with pytest.raises(InvalidInput, match=told):
        install_lines(**{**values, **change})
