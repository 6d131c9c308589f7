from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from polylocal.packing import files, pack
from polylocal.repos import Repository


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    return made


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def packed(folder: Path, ignore: str | None = None) -> set[str]:
    """The names that are uploaded, without the ignore file itself."""
    if ignore is not None:
        (folder / ".polyaxonignore").write_text(ignore)
    return {name for _, name in files(folder)} - {".polyaxonignore"}


def test_everything_else_is_uploaded(folder: Path) -> None:
    fill(folder, "a", "sub/b", ".hidden", "sub/deep/c")
    assert packed(folder) == {"a", "sub/b", ".hidden", "sub/deep/c"}


@pytest.mark.parametrize(
    "name",
    [
        ".git/config",
        "sub/.git",
        ".eggs/a",
        "eggs/a",
        "lib64/a",
        "sdist/a",
        "a.pyc",
        "sub/a.PYC",
        "a.swp",
        ".DS_Store",
        ".polyaxon/project",
        "__pycache__/a",
        ".venv/a",
    ],
)
def test_left_at_home_by_default(folder: Path, name: str) -> None:
    fill(folder, name, "kept")
    assert packed(folder) == {"kept"}


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        ("", {"a.log", "b.txt", "sub/a.log", "sub/deep/b.txt", "Data/x"}),
        ("*.log\n", {"b.txt", "sub/deep/b.txt", "Data/x"}),
        ("*.log\n!sub/a.log\n", {"b.txt", "sub/a.log", "sub/deep/b.txt", "Data/x"}),
        ("/a.log\n", {"b.txt", "sub/a.log", "sub/deep/b.txt", "Data/x"}),
        ("./data\n", {"a.log", "b.txt", "sub/a.log", "sub/deep/b.txt"}),
        ("sub/**/b.txt\n", {"a.log", "b.txt", "sub/a.log", "Data/x"}),
        ("**/b.txt\n", {"a.log", "sub/a.log", "Data/x"}),
        ("sub/**\n", {"a.log", "b.txt", "Data/x"}),
        ("sub/\n", {"a.log", "b.txt", "Data/x"}),
        ("a.log/\n", {"a.log", "b.txt", "sub/a.log", "sub/deep/b.txt", "Data/x"}),
        ("data\n", {"a.log", "b.txt", "sub/a.log", "sub/deep/b.txt"}),
        ("*.LOG\nDATA/\n", {"b.txt", "sub/deep/b.txt"}),
        ("# *.log\n\n  \n", {"a.log", "b.txt", "sub/a.log", "sub/deep/b.txt", "Data/x"}),
        ("*\n!b.txt\n", {"b.txt"}),
        ("sub/\n!sub/a.log\n", {"a.log", "b.txt", "Data/x"}),
    ],
)
def test_rules(folder: Path, ignore: str, left: set[str]) -> None:
    fill(folder, "a.log", "b.txt", "sub/a.log", "sub/deep/b.txt", "Data/x")
    assert packed(folder, ignore) == left


@pytest.mark.parametrize("line", ["!", "\\", "[", "***"])
def test_a_line_that_is_no_pattern_stops_nothing(folder: Path, line: str) -> None:
    fill(folder, "a.log")
    packed(folder, f"{line}\n")


def test_an_ignore_file_need_not_be_utf8(folder: Path) -> None:
    fill(folder, "a")
    (folder / ".polyaxonignore").write_bytes(b"caf\xe9\n*.log\n")
    assert packed(folder) == {"a"}


def test_names_start_with_dot_slash_and_are_sorted(folder: Path) -> None:
    fill(folder, "b", "a", "sub/c")
    file = io.BytesIO()
    assert pack(folder, file) == (3, len("b" + "a" + "sub/c"))
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        assert tar.getnames() == ["./a", "./b", "./sub/c"]


def test_links_are_packed_as_links_and_not_followed(folder: Path, tmp_path: Path) -> None:
    fill(tmp_path, "outside/secret")
    fill(folder, "a")
    (folder / "file").symlink_to("a")
    (folder / "folder").symlink_to(tmp_path / "outside")
    (folder / "broken").symlink_to("nowhere")
    file = io.BytesIO()
    pack(folder, file)
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        assert {m.name: m.issym() for m in tar} == {"./a": False, "./broken": True, "./file": True, "./folder": True}


def test_pipes_are_passed_over(folder: Path) -> None:
    fill(folder, "a")
    os.mkfifo(folder / "pipe")
    assert pack(folder, io.BytesIO())[0] == 1


def test_what_is_packed_can_be_uploaded(folder: Path, tmp_path: Path) -> None:
    fill(folder, "a", "sub/b")
    (folder / "run.sh").write_text("#!")
    (folder / "run.sh").chmod(0o755)
    os.link(folder / "a", folder / "same")
    file, repository = io.BytesIO(), Repository(tmp_path / "code")
    pack(folder, file)
    file.seek(0)
    commit = repository.upload(file, "root")
    assert repository.files(commit) == {"a", "same", "run.sh"}
    assert repository.read(commit, "same") == b"a"
