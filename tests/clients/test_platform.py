"""Bookmarks, the machine, users, external code, through the original command lines."""

from __future__ import annotations

import pytest
from support import Daemon

from clients import files
from clients.originals import Person, SideBySide, rows
from clients.stored import finished
from polylocal.client.http import Client

pytestmark = pytest.mark.engine


@pytest.fixture
def admin(configured: SideBySide, daemon: Daemon) -> SideBySide:
    """People who are logged in as the one admin."""
    configured.each(lambda person: person.polyaxon("login", "--token", daemon.token))
    return configured


def test_bookmarks_are_listed(person: Person, client: Client) -> None:
    person.begin_project("bookmarks")
    person.write(
        {
            "job.yml": files.job("true"),
            "xp.yml": files.experiment("true"),
            "build.yml": files.build("true", is_old=person.is_old),
            "group.yml": files.group("true {{ lr }}", concurrency=1, matrix={"lr": {"values": [1]}}),
        }
    )
    runs = {
        run.kind: run for run in (person.run("-f", name) for name in ("job.yml", "xp.yml", "build.yml", "group.yml"))
    }
    headings = {"job": "Jobs:", "experiment": "Experiments:", "build": "Builds:", "group": "Experiment groups:"}
    person.polyaxon("project", "bookmark")
    found = rows(person.polyaxon("bookmark", "projects"), "Projects:")
    assert "bookmarks" in [row["name"] for row in found]
    for kind, run in runs.items():
        assert "No bookmarked" in person.polyaxon("bookmark", f"{kind}s")
        person.polyaxon(kind, "bookmark")
        found = rows(person.polyaxon("bookmark", f"{kind}s"), headings[kind])
        assert [row["id"] for row in found] == [str(run.id)]
        person.polyaxon(kind, "unbookmark")
        assert "No bookmarked" in person.polyaxon("bookmark", f"{kind}s")
    for run in runs.values():
        finished(client, run)


def test_the_machine(admin: Person) -> None:
    said = admin.polyaxon("cluster")
    assert "Cluster Nodes:" in said
    node = rows(said, "Cluster Nodes:")[0]
    said = admin.polyaxon("cluster", "-n", node.get("sequence", "1"))
    assert "Node info:" in said


def test_users_are_administered(admin: Person, accounts: dict[str, tuple[str, str, str]]) -> None:
    other = next(name for version, (name, _, _) in accounts.items() if version != admin.version)
    said = admin.polyaxon("superuser", "grant", other)
    assert f"Superuser role was granted successfully to user `{other}`" in said
    said = admin.polyaxon("superuser", "revoke", other)
    assert f"Superuser role was revoked successfully from user `{other}`" in said
    assert f"User `{other}` was activated successfully." in admin.polyaxon("user", "activate", other)
    assert "Could not delete user `nobody`" in admin.polyaxon("user", "delete", "nobody", code=1)


def test_only_an_admin_administers(person: Person) -> None:
    assert "Could not grant superuser role" in person.polyaxon("superuser", "grant", person.name, code=1)
    assert "Could not delete user" in person.polyaxon("user", "delete", "root", code=1)
