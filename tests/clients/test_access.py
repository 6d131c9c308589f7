"""Settings, logins and versions of the original command lines."""

from __future__ import annotations

import subprocess

import pytest

from clients.originals import Person, facts, surroundings
from polylocal.client.http import Client

pytestmark = pytest.mark.engine


def test_settings_are_kept_and_shown(configured: Person, daemon) -> None:
    shown = facts(configured.polyaxon("config", "--list"))
    assert shown["host"] == "127.0.0.1"
    assert shown["http_port" if configured.is_old else "port"] == daemon.url.rpartition(":")[2]
    assert "127.0.0.1" in configured.polyaxon("config", "get", "host")


def test_login_by_token(configured: Person) -> None:
    assert "Login successful" in configured.polyaxon("login", "-t", configured.token)
    assert f"Username: {configured.name}, " in configured.polyaxon("whoami")


def test_login_by_password(configured: Person) -> None:
    assert "Login successful" in configured.polyaxon("login", "-u", configured.name, "-p", configured.password)
    assert f"Username: {configured.name}, " in configured.polyaxon("whoami")
    assert "You are logged out" in configured.polyaxon("logout")
    assert "Could not load user info" in configured.polyaxon("whoami", code=1)


def test_a_wrong_password_and_a_wrong_token_are_said_to_be_wrong(configured: Person) -> None:
    said = configured.polyaxon("login", "-u", configured.name, "-p", "guessed", code=1)
    assert "Could not login" in said
    assert "400 on http://" in said
    said = configured.polyaxon("login", "-t", "guessed", code=1)
    assert "Could not load user info" in said
    assert "Invalid token" in said


def test_logged_out_there_are_no_projects(configured: Person) -> None:
    said = configured.polyaxon("project", "list", code=1)
    assert "Please login first" in said
    assert "Could not get list of projects" in said


def test_versions(person: Person) -> None:
    said = person.polyaxon("version", "--cli", "--platform")
    assert f"Current cli version: {person.version}" in said
    assert "0.6.1" in said


def test_the_program_goes_on_after_it_compared_its_version(person: Person) -> None:
    """From its fourth command on it asks the daemon before each, which may end a command or all of them."""
    said = [person.polyaxon("whoami") for _ in range(6)]
    assert all(f"Username: {person.name}, " in each for each in said)
    assert not any("expired" in each for each in said)


def test_the_program_itself(person: Person, client: Client) -> None:
    """As it is installed, without what makes the other tests fast."""
    done = subprocess.run(
        [str(person.program.folder / "bin/polyaxon"), "project", "create", "--name=alone"],
        env=surroundings(person.home),
        cwd=person.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Project `alone` was created successfully." in done.stdout
    assert client.project(person.name, "alone")["name"] == "alone"
