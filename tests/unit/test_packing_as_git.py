"""Packing of a folder with code of packages: the same files as git would add."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from polylocal.client.packing import Code, pack, survey
from polylocal.errors import InvalidInput


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of a user without git settings."""
    made = tmp_path / "home"
    made.mkdir()
    monkeypatch.setenv("HOME", str(made))
    for name in ("XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return made


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


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def found(folder: Path) -> Code:
    return survey(folder, as_git=True)


DEFAULTS = """
sdist/a lib64/a eggs/a .eggs/a hello.egg-info/PKG-INFO node_modules/a/index.js __pycache__/a.pyc .venv/a venv/a a.pyc a~
.#a a.swp .DS_Store .mypy_cache/a .ipynb_checkpoints/a .polyaxon/a .polylocal/a .hg/a .svn/a
""".split()


@pytest.mark.parametrize("is_repository", [False, True])
def test_nothing_is_left_out_by_default(folder: Path, is_repository: bool) -> None:
    fill(folder, *DEFAULTS)
    if is_repository:
        git(folder, "init", "-q")
    code = found(folder)
    assert sorted(code.items) == sorted(DEFAULTS)
    assert (code.left, code.substitutes) == ([], [])


@pytest.mark.parametrize("is_repository", [False, True])
def test_only_the_rules_of_git_count(folder: Path, is_repository: bool) -> None:
    fill(folder, "a.o", "a.c", "a.log", "a.txt", "sub/b.o", "sub/kept.o", "build/x/y")
    (folder / ".gitignore").write_text("*.o\n/build/\n")
    (folder / "sub" / ".gitignore").write_text("!kept.o\n")
    (folder / ".dockerignore").write_text("*.txt\n")
    (folder / ".polyaxonignore").write_text("*.log\n!a.o\n")
    if is_repository:
        git(folder, "init", "-q")
    code = found(folder)
    ignore_files = {".gitignore", ".dockerignore", ".polyaxonignore", "sub/.gitignore"}
    assert set(code.items) == {"a.c", "a.log", "a.txt", "sub/kept.o", *ignore_files}
    assert code.left == ["a.o", "build/", "sub/b.o"]


def test_a_name_of_two_lines_is_matched_as_any_other(folder: Path) -> None:
    names = ["na\nme/a.o", "na\nme/a.c", "b\n.o", "b\n.c", "two\nlines/x"]
    fill(folder, *names)
    (folder / ".gitignore").write_text("*.o\ntwo*/\n")
    git(folder, "init", "-q")
    git(folder, "add", "--all")
    tracked = set(git(folder, "ls-files", "-z").split("\0")) - {""}
    git(folder, "rm", "-r", "-q", "--cached", ".")
    assert set(found(folder).items) == tracked == {".gitignore", "na\nme/a.c", "b\n.c"}


def test_the_archive_holds_what_was_found(folder: Path) -> None:
    fill(folder, "a.o", "sdist/a", "hello.egg-info/PKG-INFO")
    (folder / ".gitignore").write_text("*.o\n")
    packed = io.BytesIO()
    assert pack(folder, packed, found(folder))[0] == 3


def test_what_is_tracked_is_packed_though_it_is_ignored(folder: Path) -> None:
    fill(folder, "dist/kept.bin", "dist/other.bin", "a.o", "b.o")
    (folder / ".gitignore").write_text("dist/\n*.o\n")
    git(folder, "init", "-q")
    git(folder, "add", "--force", "dist/kept.bin", "a.o")
    code = found(folder)
    assert set(code.items) == {".gitignore", "dist/kept.bin", "a.o"}
    assert code.left == ["b.o", "dist/other.bin"]


@pytest.mark.parametrize("where", ["info", "settings", "default", "xdg"])
def test_excludes_outside_of_the_code_count_in_a_repository(
    folder: Path, home: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, "a.swp", "kept.swp", "tracked.swp", "a.c")
    (folder / ".gitignore").write_text("!kept.swp\n")
    git(folder, "init", "-q")
    git(folder, "add", "tracked.swp")
    path = folder / ".git/info/exclude"
    if where == "settings":
        path = home / "excludes"
        (home / ".gitconfig").write_text("[core]\n\texcludesFile = ~/excludes\n")
    elif where == "default":
        path = home / ".config/git/ignore"
    elif where == "xdg":
        path = home / "xdg/git/ignore"
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("*.swp\n")
    code = found(folder)
    assert set(code.items) == {".gitignore", "kept.swp", "tracked.swp", "a.c"}
    assert code.left == ["a.swp"]


def test_excludes_of_a_person_are_for_repositories(folder: Path, home: Path) -> None:
    fill(folder, "a.swp")
    fill(home / ".config/git", "ignore")
    (home / ".config/git/ignore").write_text("*.swp\n")
    assert set(found(folder).items) == {"a.swp"}


def test_excludes_of_a_repository_that_lies_beside_its_working_tree(folder: Path, tmp_path: Path) -> None:
    git(folder, "init", "-q")
    fill(folder, "a")
    git(folder, "add", "a")
    git(folder, "commit", "-q", "-m", "a")
    (folder / ".git/info/exclude").write_text("*.swp\n")
    other = tmp_path / "other"
    git(folder, "worktree", "add", "-q", str(other))
    fill(other, "b.swp")
    assert set(found(other).items) == {"a"}


def test_empty_folders_are_left_out_and_named(folder: Path) -> None:
    fill(folder, "sub/a", "full/.gitignore", "full/x.o")
    (folder / "full/.gitignore").write_text("*.o\n")
    for name in ("empty/deep/er", "sub/none"):
        (folder / name).mkdir(parents=True)
    (folder / "hollow").mkdir()
    (folder / ".gitignore").write_text("hollow\n")
    code = found(folder)
    assert set(code.items) == {"sub/a", "full/.gitignore", ".gitignore"}
    assert code.empty == ["empty/deep/er/", "sub/none/"]


def test_the_message_about_an_unreadable_file_names_gits_ignore_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (folder / "huge").open("wb") as file:
        file.truncate(4 << 30)
    with pytest.raises(InvalidInput, match=r"huge is a sparse file of .*; name it in \.gitignore$"):
        pack(folder, io.BytesIO(), found(folder))


NAMES = st.sampled_from(["a.o", "b.c", "build", "dist", "sub", "sdist", "lib64", "x.egg-info", "Makefile"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
RULES = st.sampled_from(
    ["*.o", "/build", "dist/", "!b.c", "sub/*", "!sub/a.o", "**/lib64", "x.*", "/sub/dist/", "sdist"]
)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(paths={"b.c/a.o/b.c"}, rules=["*.o", "!b.c"], inner=[], tracked=set())
@example(paths={"sub/b.c/a.o"}, rules=["sub/*", "!b.c"], inner=[], tracked=set())
@example(paths={"sub/sub/a.o"}, rules=["/sub/**", "!sub/sub"], inner=["!a.o"], tracked=set())
@given(
    paths=st.sets(PATHS, max_size=8),
    rules=st.lists(RULES, max_size=4),
    inner=st.lists(RULES, max_size=2),
    tracked=st.sets(PATHS, max_size=2),
)
def test_it_is_what_git_itself_would_add(
    tmp_path_factory: pytest.TempPathFactory, paths: set[str], rules: list[str], inner: list[str], tracked: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    git(folder, "init", "-q")
    for path in sorted(paths | tracked):
        if not any(parent.is_file() for parent in (folder / path).parents) and not (folder / path).exists():
            fill(folder, path)
    (folder / ".gitignore").write_text("\n".join(rules) + "\n")
    if (folder / "sub").is_dir():
        (folder / "sub/.gitignore").write_text("\n".join(inner) + "\n")
    there = [path for path in tracked if (folder / path).is_file()]
    if there:
        git(folder, "add", "--force", "--", *there)
    mine = set(found(folder).items)
    git(folder, "add", "--all")
    assert mine == set(git(folder, "ls-files").splitlines())
