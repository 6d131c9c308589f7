"""The file store: complete files, named by the sha1 of their content."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylocal.files.folders import Entry, walk
from polylocal.packages.file_store import FileStore, Stored


@pytest.fixture
def file_store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files")


def test_a_file_is_stored_under_its_sha1_and_is_readable_by_others(file_store: FileStore) -> None:
    kept = file_store.save(io.BytesIO(b"hello\n"))
    assert kept == Stored("f572d396fae9206628714fb2ce00f72e94f2258f", 6)
    path = file_store.path(kept.sha1)
    assert path == file_store.folder / kept.sha1
    assert path
    assert path.read_bytes() == b"hello\n"
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_same_content_is_kept_once(file_store: FileStore) -> None:
    assert file_store.save(io.BytesIO(b"x")) == file_store.save(io.BytesIO(b"x"))
    assert len(list(file_store.folder.iterdir())) == 1


def test_an_empty_file_is_a_file(file_store: FileStore) -> None:
    assert file_store.save(io.BytesIO()) == Stored(hashlib.sha1(b"", usedforsecurity=False).hexdigest(), 0)


class Broken(io.BytesIO):
    """Returns some bytes, then fails."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(b"x" * (1 << 21))
        self.error = error

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 1 << 20:
            raise self.error
        return super().read(size)


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("odd"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_nothing(file_store: FileStore, error: BaseException) -> None:
    file_store.save(io.BytesIO(b"before"))
    before = sorted(file_store.folder.iterdir())
    with pytest.raises(type(error)):
        file_store.save(Broken(error))
    assert sorted(file_store.folder.iterdir()) == before


ODD = ["", ".", "..", "../files", "x" * 40, "A" * 40, "a" * 39, "a" * 41, "a" * 40 + "\n", "/etc/passwd", "\0"]


@pytest.mark.parametrize("name", ODD)
def test_names_that_are_no_sha1_find_nothing(file_store: FileStore, name: str) -> None:
    file_store.save(io.BytesIO(b"x"))
    assert file_store.path(name) is None


def test_foreign_files_in_the_folder_are_not_found(file_store: FileStore) -> None:
    file_store.folder.mkdir()
    (file_store.folder / "notes").write_text("x")
    (file_store.folder / ("a" * 40)).mkdir()
    assert file_store.path("notes") is None
    assert file_store.path("a" * 40) is None
    assert file_store.path("b" * 40) is None


def test_a_file_is_forgotten_once_and_for_all(file_store: FileStore) -> None:
    kept = file_store.save(io.BytesIO(b"x"))
    file_store.remove(kept.sha1)
    file_store.remove(kept.sha1)
    assert file_store.path(kept.sha1) is None


def test_unfinished_files_of_another_process_are_removed_however_young(file_store: FileStore) -> None:
    """Only one daemon runs, so the writer of the file has ended."""
    kept = file_store.save(io.BytesIO(b"x"))
    left = subprocess.run(
        [sys.executable, "-c", STAGES, str(file_store.folder)], capture_output=True, text=True, check=True
    ).stdout
    (file_store.folder / ".new-abcdefgh").write_bytes(b"of a version before")
    staged = file_store.stage(io.BytesIO(b"on its way"))
    assert (file_store.folder / left).exists()
    file_store.remove_temporary_files()
    assert {path.name for path in file_store.folder.iterdir()} == {kept.sha1, staged.path.name}
    assert file_store.path(file_store.commit(staged).sha1)


# stages a file, and ends
STAGES = """
import io, sys
from pathlib import Path
from polylocal.packages.file_store import FileStore
print(FileStore(Path(sys.argv[1])).stage(io.BytesIO(b"half")).path.name, end="")
"""


@pytest.mark.parametrize("age_s", [0, 10**6])
def test_unfinished_files_of_this_process_are_kept(file_store: FileStore, age_s: int) -> None:
    """However long it takes, and whichever instance for the same folder writes it."""

    class Halfway(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            found = super().read(size)
            if not found:  # everything is written, but nothing is at its final path yet
                [path] = file_store.folder.glob(".new-*")
                os.utime(path, (time.time() - age_s,) * 2)
                FileStore(file_store.folder).remove_temporary_files()
            return found

    kept = file_store.save(Halfway(b"slow"))
    assert [path.name for path in file_store.folder.iterdir()] == [kept.sha1]


def test_concurrent_writes_result_in_one_file(file_store: FileStore) -> None:
    content, found = b"y" * (3 << 20), []
    threads = [threading.Thread(target=lambda: found.append(file_store.save(io.BytesIO(content)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert [path.name for path in file_store.folder.iterdir()] == [found[0].sha1]


@settings(max_examples=25)
@given(st.lists(st.binary(max_size=50), max_size=6))
def test_the_file_store_contains_the_stored_files(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]
) -> None:
    file_store = FileStore(tmp_path_factory.mktemp("store"))
    for content in contents:
        file_store.save(io.BytesIO(content))
    held = {path.name: path.read_bytes() for path in file_store.folder.iterdir()}
    assert held == {hashlib.sha1(content, usedforsecurity=False).hexdigest(): content for content in contents}


# -- linked files ----------------------------------------------------------------------------------------------------


def entry_of(folder: Path, name: str) -> Iterator[tuple[Entry, FileIO]]:
    """Opens an entry of a folder; the folder stays open too."""
    for entry in walk(folder):
        if entry.path == name:
            with entry.open() as file:
                yield entry, file


def test_a_linked_file_is_the_same_file(tmp_path: Path) -> None:
    file_store, source = FileStore(tmp_path / "files"), tmp_path / "work"
    source.mkdir()
    (source / "a").write_bytes(b"content")
    for entry, file in entry_of(source, "a"):
        staged = file_store.link(entry, file)
        assert staged
        assert (staged.sha1, staged.size) == (hashlib.sha1(b"content").hexdigest(), 7)
        assert file_store.path(staged.sha1) is None
        file_store.commit(staged)
    found = file_store.path(staged.sha1)
    assert found
    assert found.samefile(source / "a")


def test_an_existing_target_is_linked_again(tmp_path: Path) -> None:
    """After a crash, the same names are linked again."""
    file_store, source = FileStore(tmp_path / "files"), tmp_path / "work"
    source.mkdir()
    (source / "a").write_bytes(b"content")
    for _ in range(2):
        for entry, file in entry_of(source, "a"):
            staged = file_store.link(entry, file)
            assert staged
            file_store.commit(staged)
            staged.path.unlink(missing_ok=True)
    assert file_store.names() == [staged.sha1]
    assert [path.name for path in file_store.folder.iterdir()] == file_store.names()


@pytest.mark.parametrize("by", ["link", "pipe", "file", "nothing"])
def test_a_name_that_is_another_thing_by_now_is_not_linked(tmp_path: Path, by: str) -> None:
    file_store, source, secret = FileStore(tmp_path / "files"), tmp_path / "work", tmp_path / "secret"
    source.mkdir()
    secret.write_bytes(b"secret")
    secret.chmod(0o600)
    (source / "a").write_bytes(b"content")
    for entry, file in entry_of(source, "a"):
        (source / "a").unlink()
        if by == "link":
            (source / "a").symlink_to(secret)
        elif by == "pipe":
            os.mkfifo(source / "a")
        elif by == "file":
            (source / "a").write_bytes(b"another")
        assert file_store.link(entry, file) is None
        assert file.read() == b"content"
    assert list(file_store.folder.iterdir()) == []
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP])
def test_a_file_system_without_links_leaves_a_copy_to_be_made(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    file_store, source = FileStore(tmp_path / "files"), tmp_path / "work"
    source.mkdir()
    (source / "a").write_bytes(b"content")
    monkeypatch.setattr(os, "link", refuse)
    for entry, file in entry_of(source, "a"):
        assert file_store.link(entry, file) is None
        assert file_store.save(file).size == 7


def test_a_link_without_room_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file_store, source = FileStore(tmp_path / "files"), tmp_path / "work"
    source.mkdir()
    (source / "a").write_bytes(b"content")
    monkeypatch.setattr(os, "link", refuse)
    for entry, file in entry_of(source, "a"):
        with pytest.raises(OSError, match="No space left"):
            file_store.link(entry, file)


def test_where_a_folder_lies(tmp_path: Path) -> None:
    file_store = FileStore(tmp_path / "not" / "yet")
    assert file_store.is_on_file_system_of(tmp_path)
    assert not file_store.is_on_file_system_of(Path("/proc"))
    assert not file_store.is_on_file_system_of(tmp_path / "nothing")
    assert file_store.free_bytes() > 0
