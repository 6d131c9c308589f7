"""The upgrade of a home without build lists: its users and projects get the rows that they need."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlite_utils import Database

from polylocal.store import Store
from polylocal.store.schema import migrations

THEN = "2024-01-01T00:00:00.000000+00:00"
Open = Callable[..., Store]


@pytest.fixture
def opened(tmp_path: Path, request: pytest.FixtureRequest) -> Open:
    """opened(names…) → the store of an old home with these users, each with a project."""

    def before(*names: str) -> Store:
        path = tmp_path / "old.db"
        database = Database(sqlite3.connect(path, isolation_level=None))
        migrations.apply(database, stop_before="0006_packages")
        for number, name in enumerate(names, 1):
            database.execute(
                "insert into users (id, username, is_superuser, created_at) values (?, ?, 1, ?)", (number, name, THEN)
            )
            database.execute(
                "insert into projects (uuid, user_id, name, created_at, updated_at) values (?, ?, 'learning', ?, ?)",
                (f"{number:032}", number, THEN, THEN),
            )
        database.conn.close()
        store = Store(path)
        request.addfinalizer(store.close)
        return store

    return before


def personal(store: Store) -> dict[str, list[str]]:
    """The names of platforms and of their repositories, by owner."""
    query = (
        "select u.username, p.name as platform, r.name from users u join platforms p on p.owner_id = u.id"
        " join repositories r on r.platform_id = p.id where p.platform_type = 'personal' order by u.id"
    )
    with store.database.read() as db:
        return {row[0]: [row[1], row[2]] for row in db.execute(query)}


def test_everybody_has_a_platform_of_their_own(opened: Open) -> None:
    assert personal(opened("root", "ann")) == {
        "root": ["root_personal", "main"],
        "ann": ["ann_personal", "main"],
    }


def test_users_whose_names_differ_in_case_only(opened: Open) -> None:
    """Earlier versions allowed that."""
    store = opened("Ann", "ann")
    assert [user.username for user in store.users.all()] == ["Ann", "ann"]
    assert sorted(personal(store)) == ["Ann", "ann"]


@pytest.mark.parametrize("name", ["upload", "search", "platforms"])
def test_users_whose_names_are_reserved_now(name: str, opened: Open) -> None:
    assert opened("root", name).users.get(name).username == name


def test_their_projects_stay(opened: Open) -> None:
    store = opened("root")
    assert store.projects.get("root", "learning").name == "learning"
