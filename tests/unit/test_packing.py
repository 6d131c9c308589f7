"""Packing of a folder with code for an upload: ignore files, links, empty folders, unreadable files."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from polylocal.client.packing import files, pack, survey
from polylocal.errors import InvalidInput
from polylocal.git.repository import Repository


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
    """The names of the uploaded files, without the ignore file itself."""
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


def archived(folder: Path) -> dict[str, tarfile.TarInfo]:
    file = io.BytesIO()
    pack(folder, file)
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        return {member.name.removeprefix("./"): member for member in tar}


def test_links_inside_are_packed_as_links_and_not_followed(folder: Path) -> None:
    fill(folder, "a", "sub/b")
    links = {"file": "a", "folder": "sub", "broken": "nowhere", "sub/up": "../a", "circle": "circle"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (folder / "absolute").symlink_to(folder / "sub" / "b")
    (folder / "sub" / "top").symlink_to(folder)
    found = {name: member.linkname for name, member in archived(folder).items() if member.issym()}
    assert found == {**links, "absolute": "sub/b", "sub/top": ".."}


def test_links_that_lead_out_are_left_out_and_named(folder: Path, tmp_path: Path) -> None:
    fill(tmp_path, "outside/secret")
    fill(folder, "a", "sub/deep/b")
    targets = {
        "data": str(tmp_path / "outside"),
        "up": "..",
        "dangling": "/nowhere/at/all",
        "above": "../nowhere",
        "sub/far": "../../outside/secret",
        "through": "data/secret",
        "sub/deep/there": "../../up/x",
    }
    for name, target in targets.items():
        (folder / name).symlink_to(target)
    found = survey(folder)
    assert found.links_out == sorted(targets)
    assert set(archived(folder)) == {"a", "sub/deep/b"}


def test_what_is_packed_with_links_that_lead_out_can_be_uploaded(folder: Path, tmp_path: Path) -> None:
    fill(folder, "a")
    (folder / "d").mkdir()
    for name, target in {"data": "/mnt", "d/x": "../data/../../a", "in": "a", "odd": "data/../a"}.items():
        (folder / name).symlink_to(target)
    file, repository = io.BytesIO(), Repository(tmp_path / "code")
    pack(folder, file)
    file.seek(0)
    assert repository.files(repository.upload(file, "root")) >= {"a", "in"}


def test_an_ignored_link_is_not_spoken_of(folder: Path) -> None:
    fill(folder, "a")
    (folder / "data").symlink_to("/mnt/data")
    (folder / ".polyaxonignore").write_text("/data\n")
    assert survey(folder).links_out == []


# -- empty folders -----------------------------------------------------------------------------------------------


def test_empty_folders_are_packed(folder: Path) -> None:
    fill(folder, "sub/b", "only/x.log", "gone/x")
    for name in ("logs", "sub/out/deep", "__pycache__", "pkg/__pycache__"):
        (folder / name).mkdir(parents=True)
    (folder / ".polyaxonignore").write_text("*.log\ngone/\n")
    found = archived(folder)
    assert {name for name, member in found.items() if member.isdir()} == {"logs", "sub/out/deep", "only", "pkg"}
    assert pack(folder, io.BytesIO())[0] == 2
    assert {name for _, name in files(folder)} == {"sub/b", ".polyaxonignore"}


def test_an_empty_folder_arrives(folder: Path, tmp_path: Path) -> None:
    fill(folder, "a")
    (folder / "logs").mkdir()
    file, repository = io.BytesIO(), Repository(tmp_path / "code")
    pack(folder, file)
    file.seek(0)
    repository.checkout(repository.upload(file, "root"), tmp_path / "work")
    assert (tmp_path / "work" / "logs").is_dir()
    assert sorted(path.name for path in (tmp_path / "work").rglob("*")) == ["a", "logs"]


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


# -- the choice of ignore files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("name", [".polyaxonignore", ".gitignore", ".dockerignore"])
def test_the_first_rule_counts_behind_a_byte_order_mark(folder: Path, name: str, start: bytes, end: bytes) -> None:
    fill(folder, "data/x", "keys.pem", "a")
    (folder / name).write_bytes(start + end.join([b"data", b"keys.pem", b""]))
    assert packed(folder) - {name} == {"a"}


@pytest.mark.parametrize("name", [".polyaxonignore", ".gitignore", ".dockerignore"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_rules_in_utf16_are_one_clear_line(folder: Path, name: str, encoding: str) -> None:
    (folder / name).write_bytes("data\n".encode(encoding))
    with pytest.raises(InvalidInput, match=rf"{name} is not a text in UTF-8 .*: save it as UTF-8"):
        pack(folder, io.BytesIO())


@pytest.mark.parametrize("name", [".git/config", "a.swp", ".a.py.swo", "a.py~", ".#a.py", "#a.py#", "__pycache__/a"])
def test_an_own_ignore_file_adds_to_what_is_always_left_out(folder: Path, name: str) -> None:
    fill(folder, name, "kept", "x.log")
    assert packed(folder, "*.log\n") == {"kept"}


def test_an_own_ignore_file_may_take_in_again(folder: Path) -> None:
    fill(folder, "venv/a", "sub/b.pyc", ".git/config", "Node_Modules/m")
    assert packed(folder, "!/venv\n!*.pyc\n!./node_modules\n") == {"venv/a", "sub/b.pyc", "Node_Modules/m"}


def test_gitignore_stands_in_for_a_missing_polyaxonignore(folder: Path) -> None:
    fill(folder, "a.h5", "sub/a.h5", "data/x", "sub/data/y", "Data/z", ".env", "kept.py", "keep.h5")
    (folder / ".gitignore").write_text("*.h5\n!keep.h5\n/data/\n.env\n")
    assert packed(folder) == {"sub/data/y", "Data/z", "kept.py", "keep.h5", ".gitignore"}
    assert survey(folder).substitutes == [".gitignore"]
    assert packed(folder, "") >= {"a.h5", ".env", "data/x"}
    assert survey(folder).substitutes == []


def test_gitignore_in_inner_folders(folder: Path) -> None:
    fill(folder, "a.bin", "sub/a.bin", "sub/b.txt", "sub/deep/a.bin", "sub/deep/b.txt", "other/b.txt")
    (folder / ".gitignore").write_text("*.bin\n")
    (folder / "sub" / ".gitignore").write_text("!*.bin\n/b.txt\n")
    (folder / "sub" / "deep" / ".gitignore").write_text("a.bin\n")
    found = {name for name in packed(folder) if not name.endswith(".gitignore")}
    assert found == {"sub/a.bin", "sub/deep/b.txt", "other/b.txt"}


def test_gitignore_of_the_repository_around(folder: Path) -> None:
    inner = folder / "experiments" / "one"
    fill(folder, ".git/HEAD", "experiments/one/a.h5", "experiments/one/train.py", "experiments/one/runs/x")
    (folder / ".gitignore").write_text("*.h5\n/experiments/one/runs\n")
    assert packed(inner) == {"train.py"}
    (folder / ".gitignore").write_text("/experiments\n*.h5\n")  # git's rules apply only to files in a repository
    assert packed(inner) == {"a.h5", "train.py", "runs/x"}


def test_tracked_files_are_not_ignored(folder: Path) -> None:
    fill(folder, "small.h5", "large.h5", "data/labels.csv", "data/images", "train.py")
    (folder / ".gitignore").write_text("*.h5\ndata/\n")
    for arguments in (["init", "--quiet"], ["add", "--force", "small.h5", "data/labels.csv"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    assert packed(folder) == {"small.h5", "data/labels.csv", "train.py", ".gitignore"}
    assert packed(folder / "data") == {"labels.csv", "images"}  # a folder outside any repository has no rules


def test_files_of_a_nested_repository_are_not_ignored(folder: Path) -> None:
    fill(folder, "train.py", "lib/a.py", "sub/lib/a.py", "sub/lib/b.py", "sub/deep/x.bin", "sub/deep/secret.bin")
    (folder / ".gitignore").write_text("lib/\n*.bin\n")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    for arguments in (["init", "--quiet"], ["add", "lib/a.py", "deep/x.bin"]):
        subprocess.run(["git", *arguments], cwd=folder / "sub", check=True)
    assert packed(folder) == {"train.py", "sub/lib/a.py", "sub/deep/x.bin", ".gitignore"}


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ("*.log\n", {"b.txt", "sub/a.log", "sub/deep/b.txt", "data/x", "Dockerfile"}),
        ("**/*.log\n", {"b.txt", "sub/deep/b.txt", "data/x", "Dockerfile"}),
        ("*\n!sub\n", {"sub/a.log", "sub/deep/b.txt", "Dockerfile"}),
        ("*\n!sub/deep/\n", {"sub/deep/b.txt", "Dockerfile"}),
        ("**\n!**/b.txt\n", {"b.txt", "sub/deep/b.txt", "Dockerfile"}),
        ("sub\n!sub/a.log\n", {"a.log", "b.txt", "sub/a.log", "data/x", "Dockerfile"}),
        ("/sub/\n# data\n./data/\n", {"a.log", "b.txt", "Dockerfile"}),
        ("sub/*/b.txt\n?.log\n[bc].txt\n", {"sub/a.log", "data/x", "Dockerfile"}),
        ("Dockerfile\nSUB\n[\n", {"a.log", "b.txt", "sub/a.log", "sub/deep/b.txt", "data/x", "Dockerfile"}),
    ],
)
def test_dockerignore_has_the_rules_of_docker(folder: Path, rules: str, left: set[str]) -> None:
    fill(folder, "a.log", "b.txt", "sub/a.log", "sub/deep/b.txt", "data/x", "Dockerfile")
    (folder / ".dockerignore").write_text(rules)
    assert packed(folder) - {".dockerignore"} == left
    assert survey(folder).substitutes == [".dockerignore"]


def test_no_empty_folder_is_made_of_what_dockerignore_names(folder: Path) -> None:
    fill(folder, "src/a", "data/x", "data/deep/y")
    (folder / "src" / "logs").mkdir()
    (folder / ".dockerignore").write_text("*\n!src\n")
    assert set(archived(folder)) == {"src/a", "src/logs"}


def test_a_dockerfile_in_a_folder_that_dockerignore_names_is_uploaded(folder: Path) -> None:
    fill(folder, "a", "docker/gpu.Dockerfile", "docker/notes", "docker/inner/x", "data/x")
    (folder / ".dockerignore").write_text("docker\ndata\n")
    assert packed(folder) == {"a", "docker/gpu.Dockerfile", ".dockerignore"}


def test_gitignore_and_dockerignore_both_hold(folder: Path) -> None:
    fill(folder, "a.h5", "docs/x", "a")
    (folder / ".gitignore").write_text("*.h5\n")
    (folder / ".dockerignore").write_text("docs\n!a.h5\n")
    assert packed(folder) == {"a", ".gitignore", ".dockerignore"}
    assert survey(folder).substitutes == [".gitignore", ".dockerignore"]


# -- unreadable files and folders --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o100])
def test_a_folder_that_another_user_may_not_read(folder: Path, mode: int) -> None:
    """The test runs as an ordinary user, since root may read everything."""
    fill(folder, "a", "closed/x")
    (folder / "closed").chmod(mode)
    try:
        said = as_nobody(folder)
    finally:
        (folder / "closed").chmod(0o755)
    assert said == "closed/ can't be read: Permission denied; name it in .polyaxonignore"


def test_a_folder_that_may_not_be_read_is_nothing_to_dockerignore_that_names_it(folder: Path) -> None:
    fill(folder, "a", "closed/x")
    (folder / ".dockerignore").write_text("*\n!a\n")
    (folder / "closed").chmod(0o000)
    try:
        assert as_nobody(folder) == "packed"
    finally:
        (folder / "closed").chmod(0o755)


def as_nobody(folder: Path) -> str:
    """The error message that an ordinary user gets when packing the folder."""
    program = (
        "import io, os, sys, pathlib\n"
        "from polylocal.client import packing\n"
        "packing.pack(pathlib.Path(sys.argv[1]), io.BytesIO())\n"  # the interpreter may be inaccessible to others, too
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: packing.pack(pathlib.Path(), io.BytesIO()); print('packed')\n"
        "except packing.InvalidInput as error: print(error)\n"
    )
    (other := folder.with_name("other")).mkdir()
    fill(other, "a")
    (other / ".dockerignore").write_text("b\n")  # loads all modules that are needed
    command = [sys.executable, "-c", program, str(other)]
    # the parent folders are inaccessible to others, but the working folder is already open
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_a_file_that_another_user_may_not_read(folder: Path) -> None:
    fill(folder, "a", "key.pem")
    (folder / "key.pem").chmod(0o000)
    assert as_nobody(folder) == "key.pem can't be read: Permission denied; name it in .polyaxonignore"


def test_ignore_rules_that_another_user_may_not_read(folder: Path) -> None:
    fill(folder, "a", ".polyaxonignore")
    (folder / ".polyaxonignore").chmod(0o000)
    assert as_nobody(folder) == ".polyaxonignore can't be read: Permission denied; nothing was uploaded"
