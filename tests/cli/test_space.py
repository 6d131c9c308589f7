"""`polylocal gc`, and the freed space that commands report when they delete."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from api_support import api_context

from polylocal.api.api_context import ApiContext
from polylocal.files.disk import Item
from polylocal.settings import Settings
from polylocal.store import Store

from .conftest import Cli


class Room:
    """Stands in for the collector, and records its calls."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float | None]] = []
        self.items = [
            Item("image", "p_1:x", "sha256:x", 3 << 20, "", "least recently used", goes=True),
            Item("image", "p_1:y", "sha256:y", 5 << 20, "", "pinned"),
        ]

    def look(self, budget_gib: float | None) -> Sequence[Item]:
        self.asked.append(("look", budget_gib))
        return self.items

    def collect(self, budget_gib: float | None) -> Sequence[Item]:
        self.asked.append(("collect", budget_gib))
        return self.items


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def context(settings: Settings, store: Store, room: Room) -> ApiContext:
    return api_context(settings, store, disk_usage=room.look, free_disk=room.collect)


@pytest.mark.usefixtures("daemon")
def test_a_dry_run_removes_nothing(polylocal: Cli, room: Room) -> None:
    said = polylocal("gc", "--dry-run", "--budget-gib", "0.5")
    assert (said.code, room.asked) == (0, [("look", 0.5)])
    assert "would go" in said.out
    assert "would be freed" in said.out


@pytest.mark.usefixtures("daemon")
def test_what_went_stands_before_what_stays(polylocal: Cli, room: Room) -> None:
    said = polylocal("gc")
    assert (said.code, room.asked) == (0, [("collect", None)])
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["removed", "stays"]
    assert lines[-1].endswith("freed. Bookmark a build or run to keep its image")


@pytest.mark.usefixtures("daemon")
def test_as_json(polylocal: Cli) -> None:
    found = json.loads(polylocal("gc", "--json").out)
    assert found["freed_bytes"] == 3 << 20
    assert [item["goes"] for item in found["results"]] == [True, False]


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("budget", ["nan", "inf", "1e999"])
def test_a_budget_is_finite(polylocal: Cli, room: Room, budget: str) -> None:
    refused = polylocal("gc", "--budget-gib", budget)
    assert (refused.code, refused.out, "--budget-gib" in refused.err) == (2, "", True)
    assert room.asked == []


@pytest.mark.usefixtures("daemon")
def test_a_budget_is_no_debt(polylocal: Cli, room: Room) -> None:
    assert polylocal("gc", "--budget-gib", "-1").code != 0
    assert room.asked == []
