"""The settings of Docker's own client: unusable ones are reported and stop no build."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from polylocal.engine.docker.client import Client, Credentials, credential_problems, read_settings

AUTH = base64.b64encode(b"me:secret").decode()


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "config.json"


def helper(config: Path, name: str, script: str) -> None:
    path = config.with_name(f"docker-credential-{name}")
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def sent(config: Path) -> tuple[dict[str, Any], list[str]]:
    """The credentials that a build sends, and the messages about them."""
    client = Client(base_url="unix:///nowhere", version="1.41")
    headers: dict[str, bytes] = {}
    client._set_auth_headers(headers)
    client.close()
    header = headers.get("X-Registry-Config")
    return json.loads(base64.urlsafe_b64decode(header)) if header else {}, client.credentials.problems


def test_without_a_file_there_is_nothing_to_say(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(config.parent))
    assert sent(config) == ({}, [])


def test_credentials_of_a_file_are_sent(config: Path) -> None:
    config.write_text(json.dumps({"auths": {"r.example": {"auth": AUTH}}}))
    found, problems = sent(config)
    assert (found["r.example"]["username"], found["r.example"]["password"], problems) == ("me", "secret", [])


@pytest.mark.parametrize("name", ["credsStore", "credHelpers"])
def test_a_helper_that_is_not_there_is_named_once(config: Path, name: str) -> None:
    value: object = "desktop.exe" if name == "credsStore" else {"a.example": "desktop.exe", "b.example": "desktop.exe"}
    config.write_text(json.dumps({name: value, "auths": {"r.example": {"auth": AUTH}}}))
    found, problems = sent(config)
    assert set(found) == {"r.example"}
    assert problems == [
        f"the helper docker-credential-desktop.exe, which {config} names, gives no credentials: it is not on PATH"
    ]
    assert credential_problems(1.0) == problems


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo no keyring >&2; exit 1", "exit code 1: no keyring"),
        ("echo nonsense", "Expecting value"),
        ("echo '[1]'", ""),
        ("exec sleep 60", "did not answer within 0.2 s"),
    ],
)
def test_a_helper_that_fails_is_named_and_asked_once(config: Path, script: str, words: str) -> None:
    helper(config, "bad", f"echo x >> {config.parent}/asked\n{script}")
    config.write_text(json.dumps({"credHelpers": {"a.example": "bad", "b.example": "bad"}}))
    credentials = Credentials(read_settings(), helper_s=0.2)
    assert credentials.get_all_credentials() == {}
    assert credentials.resolve_authconfig("a.example") is None
    (problem,) = credentials.problems
    assert words in problem
    assert (config.parent / "asked").read_text() == "x\n"


def test_credentials_of_a_helper_are_sent(config: Path) -> None:
    answers = """case $1 in
      list) echo '{"https://r.example/v1/": "me"}' ;;
      get) read server; echo '{"Username": "me", "Secret": "'$server'"}' ;;
    esac"""
    helper(config, "good", answers)
    config.write_text(json.dumps({"credsStore": "good", "credHelpers": {"other.example": "missing"}}))
    found, problems = sent(config)
    assert found["r.example"] == {
        "ServerAddress": "https://r.example/v1/",
        "Username": "me",
        "Password": "https://r.example/v1/",
    }
    assert ["docker-credential-missing" in problem for problem in problems] == [True]


def test_a_helper_without_credentials_for_a_registry_is_no_problem(config: Path) -> None:
    helper(config, "empty", "[ $1 = list ] && echo '{}' || { echo credentials not found in native keychain; exit 1; }")
    config.write_text(json.dumps({"credsStore": "empty", "credHelpers": {"a.example": "empty"}}))
    assert sent(config) == ({}, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "it is not used"),
        ("[]", "not a JSON object"),
        ("\xff", "it is not used"),
        ('{"auths": []}', ""),
        ('{"auths": [1]}', "`auths` is not a JSON object"),
        ('{"auths": {"r.example": {"auth": "!"}, "s.example": 1}}', "the credentials for r.example are not used"),
        ('{"credsStore": 5}', "`credsStore` is not text"),
        ('{"credHelpers": "x", "proxies": "y"}', "`credHelpers` is not a JSON object"),
        ('{"proxies": {"default": {"httpProxy": 5, "noProxy": "a"}}, "x": {}}', ""),
    ],
)
def test_a_file_that_can_not_be_used_is_named(config: Path, text: str, words: str) -> None:
    config.write_bytes(text.encode("latin-1"))
    found, problems = sent(config)
    assert found == {}
    assert words in "; ".join(problems)
    assert all(str(config) in problem for problem in problems)
    assert bool(problems) == bool(words)


def test_an_empty_auth_does_not_count(config: Path) -> None:
    config.write_text('{"auths": {"r.example": {"auth": ""}, "s.example": {}, "t.example": null}}')
    assert sent(config)[1] == []


def test_a_silent_helper_is_reported_in_one_sentence(config: Path) -> None:
    helper(config, "bad", "exec sleep 60")
    config.write_text(json.dumps({"credsStore": "bad"}))
    (problem,) = credential_problems(0.2)
    assert problem.endswith("gives no credentials: it did not answer within 0.2 s")
