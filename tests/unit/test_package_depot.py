"""The file store: whole files under the sha1 of what they hold."""

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

from polylocal.folders import Entry, walk
from polylocal.packages.depot import Depot, Stored


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "files")


def test_a_file_lies_under_its_sha1_and_others_may_read_it(depot: Depot) -> None:
    kept = depot.keep(io.BytesIO(b"hello\n"))
    assert kept == Stored("f572d396fae9206628714fb2ce00f72e94f2258f", 6)
    path = depot.path(kept.sha1)
    assert path == depot.folder / kept.sha1
    assert path
    assert path.read_bytes() == b"hello\n"
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_same_content_is_kept_once(depot: Depot) -> None:
    assert depot.keep(io.BytesIO(b"x")) == depot.keep(io.BytesIO(b"x"))
    assert len(list(depot.folder.iterdir())) == 1


def test_an_empty_file_is_a_file(depot: Depot) -> None:
    assert depot.keep(io.BytesIO()) == Stored(hashlib.sha1(b"", usedforsecurity=False).hexdigest(), 0)


class Broken(io.BytesIO):
    """Gives something, and then no more."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(b"x" * (1 << 21))
        self.error = error

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 1 << 20:
            raise self.error
        return super().read(size)


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("odd"), KeyboardInterrupt()])
def test_what_breaks_off_leaves_nothing(depot: Depot, error: BaseException) -> None:
    depot.keep(io.BytesIO(b"before"))
    before = sorted(depot.folder.iterdir())
    with pytest.raises(type(error)):
        depot.keep(Broken(error))
    assert sorted(depot.folder.iterdir()) == before


ODD = ["", ".", "..", "../files", "x" * 40, "A" * 40, "a" * 39, "a" * 41, "a" * 40 + "\n", "/etc/passwd", "\0"]


@pytest.mark.parametrize("name", ODD)
def test_names_that_are_no_sha1_find_nothing(depot: Depot, name: str) -> None:
    depot.keep(io.BytesIO(b"x"))
    assert depot.path(name) is None


def test_what_merely_lies_in_the_folder_is_not_found(depot: Depot) -> None:
    depot.folder.mkdir()
    (depot.folder / "notes").write_text("x")
    (depot.folder / ("a" * 40)).mkdir()
    assert depot.path("notes") is None
    assert depot.path("a" * 40) is None
    assert depot.path("b" * 40) is None


def test_a_file_is_forgotten_once_and_for_all(depot: Depot) -> None:
    kept = depot.keep(io.BytesIO(b"x"))
    depot.forget(kept.sha1)
    depot.forget(kept.sha1)
    assert depot.path(kept.sha1) is None


def test_what_another_process_was_writing_is_swept_however_young(depot: Depot) -> None:
    """A daemon that begins is the only one: who wrote that is gone."""
    kept = depot.keep(io.BytesIO(b"x"))
    left = subprocess.run(
        [sys.executable, "-c", STAGES, str(depot.folder)], capture_output=True, text=True, check=True
    ).stdout
    (depot.folder / ".new-abcdefgh").write_bytes(b"of a version before")
    staged = depot.stage(io.BytesIO(b"on its way"))
    assert (depot.folder / left).exists()
    depot.sweep()
    assert {path.name for path in depot.folder.iterdir()} == {kept.sha1, staged.path.name}
    assert depot.path(depot.commit(staged).sha1)


# stages a file, and ends
STAGES = """
import io, sys
from pathlib import Path
from polylocal.packages.depot import Depot
print(Depot(Path(sys.argv[1])).stage(io.BytesIO(b"half")).path.name, end="")
"""


@pytest.mark.parametrize("age_s", [0, 10**6])
def test_nothing_is_swept_that_this_process_is_writing(depot: Depot, age_s: int) -> None:
    """However long it takes, and whichever depot of the same folder writes it."""

    class Halfway(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            found = super().read(size)
            if not found:  # all is written, and nothing in its place yet
                [path] = depot.folder.glob(".new-*")
                os.utime(path, (time.time() - age_s,) * 2)
                Depot(depot.folder).sweep()
            return found

    kept = depot.keep(Halfway(b"slow"))
    assert [path.name for path in depot.folder.iterdir()] == [kept.sha1]


def test_many_at_once_come_to_one_file(depot: Depot) -> None:
    content, found = b"y" * (3 << 20), []
    threads = [threading.Thread(target=lambda: found.append(depot.keep(io.BytesIO(content)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert [path.name for path in depot.folder.iterdir()] == [found[0].sha1]


@settings(max_examples=25)
@given(st.lists(st.binary(max_size=50), max_size=6))
def test_the_depot_holds_what_was_kept(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]) -> None:
    depot = Depot(tmp_path_factory.mktemp("depot"))
    for content in contents:
        depot.keep(io.BytesIO(content))
    held = {path.name: path.read_bytes() for path in depot.folder.iterdir()}
    assert held == {hashlib.sha1(content, usedforsecurity=False).hexdigest(): content for content in contents}


# -- files that are not copied ---------------------------------------------------------------------------------------


def entry_of(folder: Path, name: str) -> Iterator[tuple[Entry, FileIO]]:
    """An entry of a folder, opened; the folder stays open meanwhile."""
    for entry in walk(folder):
        if entry.path == name:
            with entry.open() as file:
                yield entry, file


def test_a_linked_file_is_the_same_file(tmp_path: Path) -> None:
    depot, source = Depot(tmp_path / "files"), tmp_path / "work"
    source.mkdir()
    (source / "a").write_bytes(b"content")
    for entry, file in entry_of(source, "a"):
        staged = depot.link(entry, file)
        assert staged
        assert (staged.sha1, staged.size) == (hashlib.sha1(b"content").hexdigest(), 7)
        assert depot.path(staged.sha1) is None
        depot.commit(staged)
    found = depot.path(staged.sha1)
    assert found
    assert found.samefile(source / "a")


def test_a_file_that_lies_there_already_is_linked_again(tmp_path: Path) -> None:
    """After a crash the same names are linked once more."""
    depot, source = Depot(tmp_path / "files"), tmp_path / "work"
    source.mkdir()
    (source / "a").write_bytes(b"content")
    for _ in range(2):
        for entry, file in entry_of(source, "a"):
            staged = depot.link(entry, file)
            assert staged
            depot.commit(staged)
            staged.path.unlink(missing_ok=True)
    assert depot.names() == [staged.sha1]
    assert [path.name for path in depot.folder.iterdir()] == depot.names()


@pytest.mark.parametrize("by", ["link", "pipe", "file", "nothing"])
def test_a_name_that_is_another_thing_by_now_is_not_linked(tmp_path: Path, by: str) -> None:
    depot, source, secret = Depot(tmp_path / "files"), tmp_path / "work", tmp_path / "secret"
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
        assert depot.link(entry, file) is None
        assert file.read() == b"content"
    assert list(depot.folder.iterdir()) == []
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP])
def test_a_file_system_without_links_leaves_a_copy_to_be_made(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    depot, source = Depot(tmp_path / "files"), tmp_path / "work"
    source.mkdir()
    (source / "a").write_bytes(b"content")
    monkeypatch.setattr(os, "link", refuse)
    for entry, file in entry_of(source, "a"):
        assert depot.link(entry, file) is None
        assert depot.keep(file).size == 7


def test_a_link_that_has_no_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    depot, source = Depot(tmp_path / "files"), tmp_path / "work"
    source.mkdir()
    (source / "a").write_bytes(b"content")
    monkeypatch.setattr(os, "link", refuse)
    for entry, file in entry_of(source, "a"):
        with pytest.raises(OSError, match="No space left"):
            depot.link(entry, file)


def test_where_a_folder_lies(tmp_path: Path) -> None:
    depot = Depot(tmp_path / "not" / "yet")
    assert depot.is_beside(tmp_path)
    assert not depot.is_beside(Path("/proc"))
    assert not depot.is_beside(tmp_path / "nothing")
    assert depot.free_bytes() > 0
