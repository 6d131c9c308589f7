"""Uploads become commits of a real git repository; each test has its own."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from polylocal.errors import InvalidInput, NotFound, SetupError
from polylocal.repos import Extra, Repository

Files = Mapping[str, bytes]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "code" / "abc")


def entry(name: str, data: bytes = b"", **values: Any) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in values.items():
        setattr(member, key, value)
    return member, data


def tar(*entries: tuple[tarfile.TarInfo, bytes], mode: Any = "w:gz") -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for member, data in entries:
            archive.addfile(member, io.BytesIO(data))
    file.seek(0)
    return file


def upload(repository: Repository, files: Files) -> str:
    return repository.upload(tar(*(entry(name, data) for name, data in files.items())), "root")


def tree(repository: Repository, commit: str) -> dict[str, str]:
    """Modes by path."""
    command = ["git", "--git-dir", str(repository.path), "ls-tree", "-r", "-z", commit]
    lines = subprocess.run(command, check=True, capture_output=True).stdout.decode("utf-8", "surrogateescape")
    return {line.partition("\t")[2]: line[:6] for line in lines.split("\0") if line}


def archived(repository: Repository, commit: str, tmp_path: Path, **values: Any) -> dict[str, bytes]:
    path = tmp_path / "out.tar"
    with path.open("w+b") as file:
        repository.archive(commit, file, **values)
    with tarfile.open(path) as found:
        files = {member.name: found.extractfile(member) for member in found if member.isfile()}
        return {name: file.read() for name, file in files.items() if file}


# -- uploads -----------------------------------------------------------------------------------------------------


def test_an_upload_is_a_commit(repository: Repository) -> None:
    commit = upload(repository, {"./train.py": b"print()", "./lib/a.py": b"a"})
    assert len(commit) == 40
    assert repository.resolve("master") == commit
    assert set(tree(repository, commit)) == {"train.py", "lib/a.py"}


def test_there_is_nothing_before_the_first_upload(repository: Repository) -> None:
    assert not repository.exists
    assert repository.resolve("master") is None


def test_the_same_content_is_the_same_commit(repository: Repository) -> None:
    first = upload(repository, {"a": b"1", "b": b"2"})
    assert upload(repository, {"b": b"2", "a": b"1"}) == first


def test_a_change_is_a_new_commit_on_top(repository: Repository) -> None:
    first, second = (upload(repository, {"a": data}) for data in (b"1", b"2"))
    assert first != second
    assert repository.resolve("master^") == first
    assert repository.read(first, "a") == b"1"


def test_deleted_files_vanish(repository: Repository) -> None:
    upload(repository, {"a": b"1", "b": b"2"})
    assert set(tree(repository, upload(repository, {"a": b"1"}))) == {"a"}


def test_the_author_is_the_user(repository: Repository) -> None:
    upload(repository, {"a": b"1"})
    command = ["git", "--git-dir", str(repository.path), "log", "--format=%an %s"]
    assert subprocess.run(command, check=True, capture_output=True).stdout == b"root updated\n"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_any_tar_is_taken(repository: Repository, mode: str) -> None:
    assert set(tree(repository, repository.upload(tar(entry("a", b"1"), mode=mode), "root"))) == {"a"}


def test_executable_bits_are_kept(repository: Repository) -> None:
    archive = tar(entry("run.sh", b"x", mode=0o755), entry("plain", b"x", mode=0o644))
    assert tree(repository, repository.upload(archive, "root")) == {"run.sh": "100755", "plain": "100644"}


def test_links_inside_the_code_are_kept(repository: Repository) -> None:
    archive = tar(entry("a", b"1"), entry("b", type=tarfile.SYMTYPE, linkname="a"))
    assert tree(repository, repository.upload(archive, "root"))["b"] == "120000"


def test_ignored_files_are_kept(repository: Repository) -> None:
    commit = upload(repository, {".gitignore": b"*.bin\ndata/\n", "a.bin": b"1", "data/x": b"2"})
    assert set(tree(repository, commit)) == {".gitignore", "a.bin", "data/x"}


def test_an_empty_upload_is_an_empty_commit(repository: Repository) -> None:
    assert repository.files(upload(repository, {})) == set()


def test_uploads_at_once_do_not_disturb_each_other(repository: Repository) -> None:
    with ThreadPoolExecutor(4) as pool:
        commits = list(pool.map(lambda n: upload(repository, {"n": str(n).encode()}), range(4)))
    assert [repository.read(commit, "n") for commit in commits] == [b"0", b"1", b"2", b"3"]
    assert repository.resolve("master~3") in commits


def test_nothing_is_left_beside_the_repository(repository: Repository) -> None:
    upload(repository, {"a": b"1"})
    with pytest.raises(InvalidInput):
        repository.upload(io.BytesIO(b"no tar"), "root")
    assert [path.name for path in repository.path.parent.iterdir()] == ["abc"]


def test_the_persons_own_git_settings_do_not_reach_in(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.autocrlf=true'")
    assert repository.read(upload(repository, {"a": b"1\r\n2\n"}), "a") == b"1\r\n2\n"


def test_a_missing_git_is_said(repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="`git` is not installed"):
        upload(repository, {"a": b"1"})


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [".git/config", "sub/.git/hooks/post-checkout", "sub/.git", ".GIT/config", "git~1", "sub/.Git/x"]
)
def test_a_repository_inside_is_left_out(repository: Repository, name: str) -> None:
    assert set(tree(repository, upload(repository, {"a": b"1", name: b"evil"}))) == {"a"}


@pytest.mark.parametrize("name", ["../x", "a/../../x", "./../x"])
def test_names_that_leave_the_folder_are_refused(repository: Repository, name: str) -> None:
    with pytest.raises(InvalidInput, match="The archive was refused"):
        upload(repository, {"a": b"1", name: b"evil"})


def test_absolute_names_are_refused_or_left_out(repository: Repository) -> None:
    try:
        found = set(tree(repository, upload(repository, {"a": b"1", "/etc/polylocal-evil": b"evil"})))
    except InvalidInput:
        found = {"a"}
    assert found == {"a"}
    assert not Path("/etc/polylocal-evil").exists()


@pytest.mark.parametrize("target", ["../../outside", "/etc/passwd"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_that_leave_the_folder_are_refused(repository: Repository, kind: bytes, target: str) -> None:
    with pytest.raises(InvalidInput):
        repository.upload(tar(entry("a", b"1"), entry("b", type=kind, linkname=target)), "root")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused(repository: Repository, kind: bytes) -> None:
    with pytest.raises(InvalidInput, match="The archive was refused"):
        repository.upload(tar(entry("a", type=kind, devmajor=1, devminor=3)), "root")


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04" + b"x" * 600, b"\x1f\x8b" + b"x" * 100, b"\0" * 100])
def test_what_is_no_tar_is_refused_in_words(repository: Repository, data: bytes) -> None:
    with pytest.raises(InvalidInput, match="The upload is not a tar archive") as caught:
        repository.upload(io.BytesIO(data), "root")
    assert isinstance(caught.value.messages, dict)
    assert set(caught.value.messages) == {"repo"}


def test_a_tar_that_ends_early_is_refused(repository: Repository) -> None:
    whole = tar(entry("a", os.urandom(50_000))).getvalue()
    with pytest.raises(InvalidInput, match="not a tar archive"):
        repository.upload(io.BytesIO(whole[:20_000]), "root")


def test_a_damaged_archive_is_the_callers_fault_wherever_the_damage_is(repository: Repository) -> None:
    whole = tar(entry("a", b"".join(b"line %d\n" % n for n in range(20_000)))).getvalue()
    for at in range(40, len(whole) - 40, len(whole) // 40):
        damaged = io.BytesIO(whole[:at] + bytes([whole[at] ^ 0xFF, whole[at + 1] ^ 0x55]) + whole[at + 2 :])
        with suppress(InvalidInput):
            repository.upload(damaged, "root")


@pytest.mark.parametrize("names", [("a", "a/b"), ("x" * 300,), ("",), (".",)], ids=["twice", "long", "none", "dot"])
def test_names_that_no_disk_can_hold_are_the_callers_fault(repository: Repository, names: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput):
        repository.upload(tar(*(entry(name, b"1") for name in names)), "root")


def test_a_refused_upload_changes_nothing(repository: Repository) -> None:
    first = upload(repository, {"a": b"1"})
    with pytest.raises(InvalidInput):
        upload(repository, {"b": b"2", "../x": b"evil"})
    assert repository.resolve("master") == first


# -- reading -----------------------------------------------------------------------------------------------------


def test_commits_are_found_by_branch_head_and_short_hash(repository: Repository) -> None:
    commit = upload(repository, {"a": b"1"})
    assert {repository.resolve(name) for name in ("master", "HEAD", commit, commit[:8])} == {commit}


@pytest.mark.parametrize(
    "name", ["", "nope", "-x", "--all", "master:a", "0" * 40, "^master", "master..master", "a\0b", "a b", "ü"]
)
def test_what_names_no_one_commit_is_none(repository: Repository, name: str) -> None:
    upload(repository, {"a": b"1"})
    assert repository.resolve(name) is None


def test_files_and_folders_at_the_top_of_the_code_or_of_a_folder(repository: Repository) -> None:
    commit = upload(repository, {"a": b"1", "sub/b": b"2", "sub/deep/c": b"3"})
    assert repository.files(commit) == {"a"}
    assert repository.files(commit, "sub") == repository.files(commit, "sub/") == {"b"}


def test_names_need_not_be_utf8(repository: Repository) -> None:
    commit = upload(repository, {"caf\udce9": b"1", "ü b\nc": b"2", "a": b"3"})
    assert {"ü b\nc", "a"} < repository.files(commit)


def test_what_is_not_in_the_code_is_not_found(repository: Repository) -> None:
    commit = upload(repository, {"a": b"1", "sub/b": b"2"})
    for missing in ("b", "sub", "a/b"):
        with pytest.raises(NotFound, match=missing):
            repository.read(commit, missing)
    for missing in ("nope", "a"):
        with pytest.raises(NotFound, match=missing):
            repository.files(commit, missing)


def test_a_removed_repository_is_gone(repository: Repository) -> None:
    upload(repository, {"a": b"1"})
    repository.remove()
    repository.remove()
    assert not repository.exists


# -- archives ----------------------------------------------------------------------------------------------------


def test_an_archive_has_no_leading_folder(repository: Repository, tmp_path: Path) -> None:
    files = {"a": b"1", "sub/b": b"2"}
    assert archived(repository, upload(repository, files), tmp_path) == files


def test_an_archive_under_a_prefix_with_extras_beside_it(repository: Repository, tmp_path: Path) -> None:
    commit = upload(repository, {"a": b"1"})
    (tmp_path / "Dockerfile").write_bytes(b"FROM x")
    (tmp_path / "setup.sh").write_bytes(b"#!")
    extras = [Extra("", tmp_path / "Dockerfile"), Extra("build/", tmp_path / "setup.sh")]
    found = archived(repository, commit, tmp_path, prefix="build/", extras=extras)
    assert found == {"build/a": b"1", "Dockerfile": b"FROM x", "build/setup.sh": b"#!"}


def test_an_archive_of_a_folder(repository: Repository, tmp_path: Path) -> None:
    commit = upload(repository, {"a": b"1", "sub/b": b"2", "sub/deep/c": b"3"})
    assert archived(repository, commit, tmp_path, prefix="x/", folder="sub") == {"x/b": b"2", "x/deep/c": b"3"}


def test_an_archive_is_packed_when_asked(repository: Repository, tmp_path: Path) -> None:
    commit = upload(repository, {"a": b"1"})
    assert archived(repository, commit, tmp_path, gzip=True) == {"a": b"1"}
    assert (tmp_path / "out.tar").read_bytes().startswith(b"\x1f\x8b")


@pytest.mark.parametrize(
    "attributes",
    [
        b"* export-ignore\n",
        b"a.txt export-subst\n",
        b"* text eol=crlf\n",
        b"* crlf\n",
        b"* ident\n",
        b"* filter=lfs diff=lfs merge=lfs -text\n",
        b"*.txt working-tree-encoding=UTF-16\n",
    ],
)
def test_attributes_of_the_code_leave_nothing_out_and_rewrite_nothing(
    repository: Repository, tmp_path: Path, attributes: bytes
) -> None:
    files = {".gitattributes": attributes, "a.txt": b"$Id$ $Format:%H$\r\n\n", "sub/b.txt": b"\r\n"}
    commit = upload(repository, files)
    assert repository.read(commit, "a.txt") == files["a.txt"]
    assert archived(repository, commit, tmp_path) == files
