"""git's arguments for a URL: the host is checked, and its address is pinned."""

from __future__ import annotations

import shlex

import pytest

from polylocal.errors import InvalidInput
from polylocal.git import remotes

FAR = "git.example.test"


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {FAR: ["198.51.100.7", "2001:db8::7"], "near.example.test": ["127.0.0.1"]}
    monkeypatch.setattr("polylocal.system.addresses._resolve", lambda name: known[name])
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("url", "git_gets", "known_as"),
    [
        (f"ssh://git@{FAR}/a/b.git", f"ssh://git@{FAR}/a/b.git", FAR),
        (f"SSH://git@{FAR.upper()}./a", f"ssh://git@{FAR}/a", FAR),
        (f"git+ssh://{FAR}:22/a", f"ssh://{FAR}:22/a", FAR),
        (f"ssh://{FAR}:2222/a", f"ssh://{FAR}:2222/a", f"[{FAR}]:2222"),
        (f"git@{FAR}:a/b.git", f"git@{FAR}:a/b.git", FAR),
        (f"{FAR}:~/a b", f"{FAR}:~/a b", FAR),
    ],
)
def test_ssh_goes_to_the_address_and_checks_the_names_key(url: str, git_gets: str, known_as: str) -> None:
    way = remotes.find_route(url)
    assert (way.url, way.protocols) == (git_gets, "ssh")
    command = way.environment["GIT_SSH_COMMAND"]
    assert "-o HostName=198.51.100.7 " in command
    alias = f"HostKeyAlias={known_as}"
    assert f"-o {shlex.quote(alias)} " in command
    assert "-F /dev/null" in command


def test_the_git_protocol_goes_to_the_address_and_names_the_host() -> None:
    way = remotes.find_route(f"git://{FAR}/a.git")
    assert (way.url, way.protocols) == ("git://198.51.100.7/a.git", "git")
    assert way.environment == {"GIT_OVERRIDE_VIRTUAL_HOST": FAR}
    way = remotes.find_route(f"git://{FAR}:9999/a.git")
    assert way.url == "git://198.51.100.7:9999/a.git"
    assert way.environment == {"GIT_OVERRIDE_VIRTUAL_HOST": f"{FAR}:9999"}


def test_http_is_pinned_and_follows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_redirect(parts: object) -> None:
        return None

    monkeypatch.setattr(remotes, "_redirect", no_redirect)
    way = remotes.find_route(f"https://me:word@{FAR}/a.git?x")
    assert (way.url, way.protocols) == (f"https://me:word@{FAR}/a.git?x", "http:https")
    assert way.config["http.followRedirects"] == "false"
    assert way.config["http.curloptResolve"] == f"{FAR}:443:198.51.100.7,[2001:db8::7]"
    assert remotes.find_route(f"http://{FAR}:8080/a").config["http.curloptResolve"].startswith(f"{FAR}:8080:")


@pytest.mark.parametrize("url", ["file:///etc", "/etc", "./x", "x", "ext::sh -c x", "fd::1", "nosuch://x/y", "-x", ""])
def test_other_forms_get_no_protocol(url: str) -> None:
    assert remotes.find_route(url) == remotes.Route(url, "")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "ssh://-oProxyCommand=x/y",
            "ssh://-oProxyCommand=x@git.example.test/y",
            "-oProxyCommand=x@git.example.test:y",
        ),
        *("http://git.example.test:99999/", "http://git.example.test:0/", "http:///x", "http://", "ssh://a b/c"),
        *("http://near.example.test/x", "near.example.test:x", "git://near.example.test/x"),
        *("http://a@b@git.example.test/", "http://git.example.test\\@near/x", "http::http://near.example.test/x"),
    ],
)
def test_urls_that_do_not_name_another_machine(url: str) -> None:
    try:
        way = remotes.find_route(url)
    except InvalidInput:
        return
    assert way.protocols == ""


def test_a_password_goes_to_the_server_that_it_is_for() -> None:
    parts = remotes._Parts("https", "me:word", FAR, None, "/a")
    same = remotes._apply_redirect(parts, "/b/info/refs?service=git-upload-pack")
    assert (same.path, same.user) == ("/b", "me:word")
    other = remotes._apply_redirect(parts, "https://other.example.test/b/info/refs?service=git-upload-pack")
    assert (other.host, other.user) == ("other.example.test", "")


def test_hosts_that_the_settings_allow_may_be_local() -> None:
    allowed = ["127.0.0.1:3000", "near.example.test"]
    assert remotes.find_route("git://127.0.0.1:3000/a", allowed).url == "git://127.0.0.1:3000/a"
    assert remotes.find_route("near.example.test:a", allowed).protocols == "ssh"
    for url in ("git://127.0.0.1:3001/a", "git://127.0.0.1/a", "git://localhost:3000/a", "ssh://[::1]:3000/a"):
        with pytest.raises(InvalidInput, match="Only an admin"):
            remotes.find_route(url, allowed)
