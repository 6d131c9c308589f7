"""Leftovers of a killed daemon: the next start removes them, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from polylocal.daemon import leftovers
from polylocal.paths import Home

LEFT = [
    "scratch/polylocal-context-1/Dockerfile",
    "scratch/unnamed",
    "code/upload-abc/tree/file",
    "code/commit-abc/index",
    "notebooks/0123.new/file",
    "notebooks/0123.gone/file",
    "files/.new-abc-def",
    "token.new",
    "secrets/root/aws.new",
    "contexts/0123/.hidden.new",
]
KEPT = [
    "code/0123/HEAD",
    "notebooks/0123/upload-x",
    "files/0123",
    "token",
    "secrets/root/aws",
    "contexts/0123/.hidden",
    "contexts/0123/a.new",
    "outputs/root/p/jobs/1/x.new",
]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    for name in (*LEFT, *KEPT):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return Home(tmp_path)


def files(home: Home) -> list[str]:
    return sorted(str(path.relative_to(home.root)) for path in home.root.rglob("*") if path.is_file())


def test_only_interrupted_work_is_removed(home: Home) -> None:
    leftovers.remove(leftovers.set_aside(home))
    assert files(home) == sorted(KEPT)
    assert not list(home.scratch.iterdir())


def test_files_created_after_the_start_stay(home: Home) -> None:
    aside = leftovers.set_aside(home)
    assert not [name for name in files(home) if name in LEFT and not name.startswith("scratch/")]
    new = [home.scratch / "context", home.root / "token.new", home.root / "notebooks" / "0123.new"]
    for path in new:
        path.write_text("new")
    leftovers.remove(aside)
    assert all(path.read_text() == "new" for path in new)


def test_a_new_home_has_nothing(tmp_path: Path) -> None:
    assert leftovers.set_aside(Home(tmp_path)) == []
