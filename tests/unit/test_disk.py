"""Free disk space, shortages of resources, and sizes of files."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import fill, small_disk

from polylocal.files import disk
from polylocal.files.disk import Disk, is_shortage, is_trouble, size_of


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(disk, "_CACHED_S", 0.0)
    with small_disk(tmp_path / "small", 8) as folder:
        yield folder


def test_nothing_begins_below_the_free_limit_and_all_continues_above_it(small: Path) -> None:
    looked_at = Disk(small, 4)
    assert looked_at.problem() is None
    ballast = fill(small, 4 * 2**20 - 4096)
    assert looked_at.problem() == (
        f"The disk of {small} is full: 4 MiB are free, and nothing new begins below 4 (min_free_mib)."
        " `polylocal gc` makes room."
    )
    ballast.unlink()
    assert looked_at.problem() is None


def test_a_disk_without_room_for_files_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many bytes are free, no inodes are left."""
    monkeypatch.setattr(disk, "_CACHED_S", 0.0)
    with small_disk(tmp_path / "few", 8, "nr_inodes=1010") as folder:
        looked_at = Disk(folder, 4)
        assert looked_at.problem() is None
        made = [folder / str(number) for number in range(20)]
        for path in made:
            path.touch()
        left = os.statvfs(folder).f_favail
        assert left < 1000
        assert looked_at.problem() == (
            f"The disk of {folder} has room for {left} more files, and nothing new begins below 1000."
            " `polylocal gc` makes room."
        )
        for path in made:
            path.unlink()
        assert looked_at.problem() is None


def test_a_disk_that_counts_no_files_has_room_for_them(tmp_path: Path) -> None:
    with small_disk(tmp_path / "uncounted", 8, "nr_inodes=0") as folder:
        found = os.statvfs(folder)
        assert (found.f_files, found.f_favail) == (0, 0)
        assert Disk(folder, 4).problem() is None


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_exhausted_resources_of_a_process_are_a_temporary_shortage(code: int) -> None:
    assert is_shortage(OSError(code, "words"))
    assert not is_shortage(OSError(errno.EACCES, "words"))


def test_a_disk_with_just_enough_is_not_full(small: Path) -> None:
    fill(small, 4 * 2**20)
    assert Disk(small, 4).problem() is None


def test_a_limit_of_nothing_is_never_reached(small: Path) -> None:
    fill(small)
    assert Disk(small, 0).problem() is None


def test_an_unreadable_disk_is_reported(tmp_path: Path) -> None:
    assert Disk(tmp_path / "none", 1).problem() == (
        f"The disk of {tmp_path / 'none'} can't be examined: No such file or directory."
    )


def test_a_look_is_good_for_a_while(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_CACHED_S", 60.0)
    looked_at = Disk(small, 4)
    looked_at.problem()
    fill(small)
    assert looked_at.problem() is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_disk_errors_are_not_blamed_on_the_caller(code: int) -> None:
    assert is_trouble(OSError(code, "words"))


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.EISDIR, errno.EMFILE])
def test_wrong_calls_are_not_disk_errors(code: int) -> None:
    assert not is_trouble(OSError(code, "words"))


def test_the_size_counts_allocated_blocks(tmp_path: Path) -> None:
    """A sparse file takes no space, and a link takes only its own."""
    large = tmp_path / "large"
    large.write_bytes(b"x" * (1 << 20))
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_bytes(b"x" * (1 << 18))
    (folder / "link").symlink_to(large)
    (folder / "link-to-folder").symlink_to(tmp_path)
    with (folder / "holes").open("wb") as file:
        file.truncate(1 << 30)
    assert size_of(large) >= 1 << 20
    assert 1 << 18 <= size_of(folder) < 1 << 19
    assert size_of(folder / "link") < 1 << 16


def test_a_missing_path_has_size_zero(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert size_of(tmp_path / "none") == size_of(tmp_path / "file" / "below") == 0
