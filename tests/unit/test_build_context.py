"""The build context: the Dockerfile at the root, the code under build/."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from support import unpack

from polylocal.errors import NotFound
from polylocal.git.repository import Repository
from polylocal.runner.build_context import build_context

TEXT = "\nFROM a\nENV X ü\n"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "code")


def commit_of(repository: Repository, files: dict[str, bytes], links: dict[str, str] | None = None) -> str:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    file.seek(0)
    return repository.upload(file, "root")


def unpacked(repository: Repository, commit: str | None, to: Path, folder: str = "") -> Path:
    with build_context(TEXT, repository, commit, folder) as file, tarfile.open(fileobj=file) as tar:
        unpack(tar, to)
    return to


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def test_the_dockerfile_is_at_the_root_and_the_code_under_build(repository: Repository, tmp_path: Path) -> None:
    found = unpacked(repository, commit_of(repository, {"a": b"1", "sub/b": b"2"}), tmp_path / "x")
    assert names(found) == {"Dockerfile", "build/a", "build/sub/b"}
    assert (found / "Dockerfile").read_text("utf-8") == TEXT


def test_a_dockerfile_in_the_code_stays_there(repository: Repository, tmp_path: Path) -> None:
    found = unpacked(repository, commit_of(repository, {"Dockerfile": b"theirs"}), tmp_path / "x")
    assert (found / "build" / "Dockerfile").read_bytes() == b"theirs"
    assert (found / "Dockerfile").read_text("utf-8") == TEXT


def test_without_a_commit_build_is_an_empty_folder(repository: Repository, tmp_path: Path) -> None:
    found = unpacked(repository, None, tmp_path / "x")
    assert names(found) == {"Dockerfile"}
    assert (found / "build").is_dir()


def test_without_files_build_is_an_empty_folder(repository: Repository, tmp_path: Path) -> None:
    assert (unpacked(repository, commit_of(repository, {}), tmp_path / "x") / "build").is_dir()


@pytest.mark.parametrize("folder", ["sub", "sub/"])
def test_only_the_folder_that_was_asked_for(repository: Repository, tmp_path: Path, folder: str) -> None:
    commit = commit_of(repository, {"a": b"1", "sub/b": b"2", "sub/deep/c": b"3"})
    assert names(unpacked(repository, commit, tmp_path / "x", folder)) == {"Dockerfile", "build/b", "build/deep/c"}


def test_a_folder_that_is_not_there(repository: Repository, tmp_path: Path) -> None:
    commit = commit_of(repository, {"a": b"1"})
    with pytest.raises(NotFound, match="nope"):
        unpacked(repository, commit, tmp_path / "x", "nope")


@pytest.mark.parametrize("folder", ["", "sub"])
@pytest.mark.parametrize("name", ["polyaxon_setup.sh", "setup.sh"])
def test_the_setup_script_can_be_executed(repository: Repository, tmp_path: Path, name: str, folder: str) -> None:
    commit = commit_of(repository, {f"{folder}/{name}".lstrip("/"): b"#!/bin/sh\n", "sub/a": b""})
    script = unpacked(repository, commit, tmp_path / "x", folder) / "build" / name
    assert script.read_bytes() == b"#!/bin/sh\n"
    assert script.stat().st_mode & 0o100


def test_a_setup_script_that_is_a_link_still_leads_to_the_script(repository: Repository, tmp_path: Path) -> None:
    commit = commit_of(repository, {"scripts/setup.sh": b"#!/bin/sh\n"}, {"setup.sh": "scripts/setup.sh"})
    assert (unpacked(repository, commit, tmp_path / "x") / "build" / "setup.sh").read_bytes() == b"#!/bin/sh\n"


def test_a_folder_with_the_setup_scripts_name_is_no_script(repository: Repository, tmp_path: Path) -> None:
    commit = commit_of(repository, {"setup.sh/a": b"1"})
    assert names(unpacked(repository, commit, tmp_path / "x")) == {"Dockerfile", "build/setup.sh/a"}


def test_the_file_is_at_its_start_and_uncompressed(repository: Repository) -> None:
    with build_context(TEXT, repository, commit_of(repository, {"a": b"1"})) as file:
        assert file.tell() == 0
        assert file.read()[257:262] == b"ustar"


def test_temporary_files_are_in_the_given_folder(repository: Repository, tmp_path: Path) -> None:
    scratch = tmp_path / "home" / "scratch"
    commit = commit_of(repository, {"setup.sh": b"x"})
    with build_context(TEXT, repository, commit, scratch=scratch):
        (folder,) = scratch.iterdir()
        assert sorted(path.name for path in folder.iterdir()) == ["Dockerfile", "setup.sh"]
    assert list(scratch.iterdir()) == []
