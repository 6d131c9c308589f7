"""Folders that other programs change during access: nothing outside them is read or written."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from polylocal.files import folders
from polylocal.files.folders import LeadsOut, copy_tree, open_inside, walk


@pytest.fixture
def source(tmp_path: Path) -> Path:
    found = tmp_path / "source"
    (found / "sub" / "deep").mkdir(parents=True)
    (found / "sub" / "deep" / "model.bin").write_bytes(os.urandom(3 << 20))
    (found / "run.sh").write_text("#!/bin/sh")
    (found / "run.sh").chmod(0o4755)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("not for you")
    (found / "out").symlink_to("../secrets")
    (found / "in").symlink_to("sub/deep")
    os.mkfifo(found / "pipe")
    return found


def read(folder: Path, path: str) -> bytes:
    with open(open_inside(folder, path), "rb") as file:
        return file.read()


def test_paths_and_links_inside(source: Path) -> None:
    whole = (source / "sub" / "deep" / "model.bin").read_bytes()
    for path in ("sub/deep/model.bin", "in/model.bin", "/in//./model.bin", "in/../deep/model.bin"):
        assert read(source, path) == whole


@pytest.mark.parametrize("path", ["..", "out", "out/key", "in/../../../secrets/key", "../source/run.sh"])
def test_paths_that_lead_out(source: Path, path: str) -> None:
    with pytest.raises(LeadsOut):
        open_inside(source, path)


@pytest.mark.parametrize("path", ["nothing", "pipe", "run.sh/x", "n" * 300, "n/" * 3000])
def test_paths_that_cannot_be_opened(source: Path, path: str) -> None:
    with pytest.raises(OSError, match=r"\[Errno"):
        open_inside(source, path)


def zigzag(top: Path, depth: int, turns: int) -> Path:
    """A link to a file, in a folder `depth` below the top. Its path goes up one level and down again, `turns` times."""
    deep = top.joinpath(*["d"] * depth)
    deep.mkdir(parents=True)
    (deep / "file").write_text("here")
    (deep / "link").symlink_to("../d/" * turns + "file")
    return deep / "link"


def test_a_way_of_too_many_steps_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `..` is resolved from the top, so a few such links would occupy a thread for minutes."""
    for turns in (2, 50):
        path = zigzag(tmp_path / str(turns), 100, turns).relative_to(tmp_path)
        assert read(tmp_path, str(path)) == b"here"
    monkeypatch.setattr(folders, "MAX_STEPS", 20_000)
    turns = 201
    path = zigzag(tmp_path / "far", 100, turns).relative_to(tmp_path)
    with pytest.raises(OSError, match=rf"\[Errno {errno.ELOOP}\]"):
        open_inside(tmp_path, str(path))


def test_a_chain_of_such_links_is_given_up_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No link of the chain is too long on its own."""
    monkeypatch.setattr(folders, "MAX_STEPS", 20_000)
    link = zigzag(tmp_path, 100, 50)
    for n in range(3):
        assert read(tmp_path, str(link.relative_to(tmp_path))) == b"here"
        following = link.with_name(f"link{n}")
        following.symlink_to("../d/" * 50 + link.name)
        link = following
    with pytest.raises(OSError, match=rf"\[Errno {errno.ELOOP}\]"):
        open_inside(tmp_path, str(link.relative_to(tmp_path)))


def test_no_descriptor_is_left_open(source: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    for path in ("in/model.bin", "sub"):
        os.close(open_inside(source, path))
    for path in ("out/key", "nothing", "pipe", "in/.."):
        with suppress(OSError, LeadsOut):
            os.close(open_inside(source, path))
    assert len(list(walk(source))) == 6
    assert len(os.listdir("/dev/fd")) == before


def test_a_copy(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (target / "sub").mkdir(parents=True)
    (target / "own").write_text("stays")
    (target / "run.sh").symlink_to(tmp_path / "secrets" / "key")
    (target / "in").write_text("goes")
    copy_tree(source, target)
    assert sorted(path.name for path in target.iterdir()) == ["in", "out", "own", "run.sh", "sub"]
    assert (target / "sub/deep/model.bin").read_bytes() == (source / "sub/deep/model.bin").read_bytes()
    assert (target / "sub/deep/model.bin").stat().st_mtime_ns == (source / "sub/deep/model.bin").stat().st_mtime_ns
    assert oct((target / "run.sh").stat().st_mode)[-4:] == "0755"
    assert os.readlink(target / "in") == "sub/deep"
    assert os.readlink(target / "out") == "../secrets"
    assert (tmp_path / "secrets" / "key").read_text() == "not for you"


def test_a_copy_follows_no_existing_link_outside(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "sub").symlink_to(tmp_path / "secrets")
    copy_tree(source, target)
    assert os.listdir(tmp_path / "secrets") == ["key"]
    assert not (target / "sub").is_symlink()


@pytest.mark.slow
def test_a_copy_of_folders_that_are_swapped_for_links(source: Path, tmp_path: Path) -> None:
    ended = threading.Event()
    (source / "sub" / "key").write_text("mine")

    def swap() -> None:
        while not ended.is_set():
            (source / "sub").rename(source / "meanwhile")
            (source / "out").rename(source / "sub")
            (source / "meanwhile").rename(source / "out")

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for n in range(100):
            copy_tree(source, tmp_path / "copies" / str(n))
    finally:
        ended.set()
        swapping.join()
    texts = {path.read_bytes() for path in (tmp_path / "copies").rglob("key") if not path.is_symlink()}
    links = [path for path in (tmp_path / "copies").rglob("*") if path.is_symlink()]
    assert links
    assert b"not for you" not in texts
