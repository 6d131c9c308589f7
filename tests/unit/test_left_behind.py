"""Hostile leftovers of programs: every operation on them ends."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import make_deep_folder

from polylocal.client import packing
from polylocal.daemon import backup, restore
from polylocal.errors import InvalidInput
from polylocal.files import sparse
from polylocal.files.archives import Archive
from polylocal.files.disk import size_of
from polylocal.files.folders import copy_tree, remove_tree, walk
from polylocal.paths import Home
from polylocal.runner.ownership import foreign_paths, open_to_all, reclaim
from polylocal.settings import Settings
from polylocal.store import Store

pytestmark = pytest.mark.timeout(60)

HUGE = 4 << 40  # bytes: reading that many zeros takes an hour
AT = 1 << 40


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "left"
    made.mkdir()
    yield made
    remove_tree(made)


def huge(path: Path) -> Path:
    """A sparse file with one word in the middle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(b"begin")
        file.seek(AT)
        file.write(b"word")
        file.truncate(HUGE)
    return path


def is_the_same(path: Path) -> bool:
    about = path.stat()
    with path.open("rb") as file:
        begin = file.read(6)
        file.seek(AT - 1)
        return (about.st_size, begin, file.read(6)) == (
            HUGE,
            b"begin\0",
            b"\0word\0",
        ) and about.st_blocks * 512 < 1 << 20


def packed(folder: Path) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        archive = Archive(tar)
        for entry in walk(folder):
            archive.add(entry, entry.path, entry.path)
    return file.getvalue()


# -- holes -------------------------------------------------------------------------------------------------------


def test_a_copy_of_holes(folder: Path, tmp_path: Path) -> None:
    huge(folder / "huge")
    copy_tree(folder, tmp_path / "copy")
    assert is_the_same(tmp_path / "copy" / "huge")


def test_an_archive_of_holes_is_small_and_an_ordinary_tar_unpacks_it(folder: Path, tmp_path: Path) -> None:
    huge(folder / "sub" / "huge")
    huge(folder / os.fsdecode(b"n\xff"))
    (folder / "plain").write_text("plain")
    (tmp_path / "a.tar").write_bytes(packed(folder))
    assert (tmp_path / "a.tar").stat().st_size < 1 << 20
    (tmp_path / "there").mkdir()
    subprocess.run(["tar", "-xf", "../a.tar"], cwd=tmp_path / "there", check=True)
    assert is_the_same(tmp_path / "there" / "sub" / "huge")
    assert (tmp_path / "there" / "plain").read_text() == "plain"
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getmember("sub/huge").size == HUGE
        assert tar.getmember("sub/huge").issparse()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 70_000, 200_000])
@pytest.mark.parametrize("data", [[], [0], [65_536], [131_072], [0, 131_072]])
def test_data_between_holes_is_copied(folder: Path, tmp_path: Path, size: int, data: list[int]) -> None:
    with (folder / "f").open("wb") as file:
        for at in data:
            file.seek(at)
            file.write(b"x" * 100)
        file.truncate(max(size, file.tell()))
    copy_tree(folder, tmp_path / "copy")
    expected = (folder / "f").read_bytes()
    assert (tmp_path / "copy" / "f").read_bytes() == expected
    with tarfile.open(fileobj=io.BytesIO(packed(folder))) as tar:
        assert tar.extractfile("f").read() == expected  # type: ignore[union-attr]


def test_a_file_with_very_many_holes_is_listed_in_few_pieces(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse, "MAX_EXTENTS", 10)
    with (folder / "f").open("wb") as file:
        for n in range(100):
            file.seek(n * 100_000)
            file.write(b"%d" % n)
    with (folder / "f").open("rb") as file:
        assert len(sparse.extents(file.fileno(), os.fstat(file.fileno()))) <= 10
    copy_tree(folder, tmp_path / "copy")
    assert (tmp_path / "copy" / "f").read_bytes() == (folder / "f").read_bytes()


def test_a_file_with_too_many_holes_is_left_out_and_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "MAX_EXTENTS", 2)
    with (folder / "f").open("wb") as file:
        for n in range(4):
            file.seek(n << 40)
            file.write(b"x")
    said: list[str] = []
    with tarfile.open(fileobj=io.BytesIO(), mode="w") as tar:
        for entry in walk(folder):
            Archive(tar, said.append).add(entry, entry.path, "f")
    assert said == ["f is left out: the file has too many holes"]


def test_a_file_that_shrinks_while_its_holes_are_packed(folder: Path) -> None:
    huge(folder / "f")
    member = tarfile.TarInfo("f")
    with (folder / "f").open("rb") as file:
        content = sparse.prepare(member, file)
        os.truncate(folder / "f", 10)
        assert len(content.read(content.size + 1)) == content.size == member.size
    assert content.lack


def test_an_upload_of_holes_is_refused_with_what_to_do(folder: Path) -> None:
    huge(folder / "data.bin")
    with pytest.raises(InvalidInput, match=r"data.bin is a sparse file of .* bytes; name it in .polyaxonignore"):
        packing.pack(folder, io.BytesIO())
    (folder / ".polyaxonignore").write_text("*.bin\n")
    assert packing.pack(folder, io.BytesIO())[0] == 1


def test_a_compressed_file_is_not_sparse(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a compressing file system, a file has fewer blocks than its size suggests, but no holes."""
    content = b"the same again and again" * 100_000
    (folder / "f").write_bytes(content)
    (folder / packing.IGNORE_FILE).touch()
    look, fstat = os.stat, os.fstat

    def compressed(about: os.stat_result) -> os.stat_result:
        values = list(about)
        return os.stat_result((*values, *[0] * 3), {"st_blocks": 8, "st_atime_ns": 0, "st_mtime_ns": 0})

    monkeypatch.setattr(os, "stat", lambda *a, **k: compressed(look(*a, **k)))
    monkeypatch.setattr(os, "fstat", lambda *a, **k: compressed(fstat(*a, **k)))
    monkeypatch.setattr(packing, "MAX_HOLES", 1 << 20)
    with tarfile.open(fileobj=io.BytesIO(packed(folder))) as tar:
        member = tar.getmember("f")
        assert not member.issparse()
        assert not member.pax_headers
    uploaded = io.BytesIO()
    assert packing.pack(folder, uploaded)[0] == 2


def test_small_holes_are_uploaded_as_zeros(folder: Path) -> None:
    (folder / "f").touch()
    os.truncate(folder / "f", 1 << 20)
    file = io.BytesIO()
    packing.pack(folder, file)
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        assert not tar.getmember("./f").issparse()
        assert tar.extractfile("./f").read() == bytes(1 << 20)  # type: ignore[union-attr]


# -- backups -----------------------------------------------------------------------------------------------------


@pytest.fixture
def home(settings: Settings, store: Store) -> Iterator[Home]:
    store.installation()
    made = settings.folders
    (made.root / "outputs" / "p").mkdir(parents=True)
    yield made
    remove_tree(made.root / "outputs")


def there_and_back(home: Home, tmp_path: Path) -> tuple[Path, list[str]]:
    said: list[str] = []
    backup.make(home, tmp_path / "b.tar.gz", say=said.append)
    restore.restore(tmp_path / "b.tar.gz", Home(tmp_path / "back"))
    return tmp_path / "back" / "outputs" / "p", said


def test_a_backup_of_holes(home: Home, tmp_path: Path) -> None:
    huge(home.root / "outputs" / "p" / "sub" / "huge")
    huge(home.root / "notebooks" / "n" / "huge")
    back, said = there_and_back(home, tmp_path)
    assert is_the_same(back / "sub" / "huge")
    assert is_the_same(tmp_path / "back" / "notebooks" / "n" / "huge")
    assert said == []


def test_a_backup_of_one_file_with_many_names(home: Home, tmp_path: Path) -> None:
    """All names belong to the same 8 MiB. The archive and the restored folder contain the bytes once."""
    first = home.root / "outputs" / "p" / "first"
    first.write_bytes(os.urandom(8 << 20))
    for n in range(50):
        os.link(first, first.with_name(f"n{n}"))
    back, _ = there_and_back(home, tmp_path)
    assert (tmp_path / "b.tar.gz").stat().st_size < 16 << 20
    assert size_of(back) < 16 << 20
    assert (back / "n49").read_bytes() == first.read_bytes()


@pytest.mark.parametrize("target", ["outputs/none", "outputs/out/key", "token", "../key", "/etc/passwd", "outputs"])
def test_a_further_name_of_something_else_is_refused(home: Home, tmp_path: Path, target: str) -> None:
    file = tmp_path / "b.tar.gz"
    backup.make(home, file)
    (tmp_path / "key").write_text("not for you")
    with tarfile.open(file) as good, tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as bad:
        for member in good:
            bad.addfile(member, good.extractfile(member) if member.isreg() else None)
        link = tarfile.TarInfo("outputs/out")
        link.type, link.linkname = tarfile.SYMTYPE, "../.."
        bad.addfile(link)
        further = tarfile.TarInfo("outputs/further")
        further.type, further.linkname = tarfile.LNKTYPE, target
        bad.addfile(further)
    with pytest.raises(Exception, match="does not belong in a backup"):
        restore.restore(tmp_path / "bad.tar.gz", Home(tmp_path / "back"))
    assert not (tmp_path / "back").exists()


def test_a_backup_of_folders_deeper_than_any_path(home: Home, tmp_path: Path) -> None:
    make_deep_folder(home.root / "outputs" / "p", 2500)
    (home.root / "outputs" / "p" / "z").write_text("z")
    back, said = there_and_back(home, tmp_path)
    assert (back / "z").read_text() == "z"
    assert [line for line in said if "folders deep" in line or "bytes" in line]
    remove_tree(tmp_path / "back")


def test_names_that_no_path_can_hold_are_left_out_and_reported(home: Home, tmp_path: Path) -> None:
    at = os.open(home.root / "outputs" / "p", os.O_RDONLY)
    for _ in range(20):
        os.mkdir("n" * 250, dir_fd=at)
        at = os.open("n" * 250, os.O_RDONLY, dir_fd=at)
    back, said = there_and_back(home, tmp_path)
    assert (back / ("n" * 250)).is_dir()
    assert said
    assert all("bytes" in line for line in said)


def test_a_backup_follows_no_folder_that_became_a_link(home: Home, tmp_path: Path) -> None:
    """A running program swaps the two. The backup must not contain the host's files."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "key").write_text("not for you")
    (home.root / "outputs" / "p" / "sub").mkdir()
    (home.root / "outputs" / "p" / "sub" / "key").write_text("mine")
    add = tarfile.TarFile.addfile
    names: list[str] = []

    def adding(self: tarfile.TarFile, member: tarfile.TarInfo, source: io.BytesIO | None = None) -> None:
        names.append(member.name)
        if member.name == "outputs/p/sub":
            (home.root / "outputs" / "p" / "sub").rename(tmp_path / "away")
            (home.root / "outputs" / "p" / "sub").symlink_to(tmp_path / "host")
        add(self, member, source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tarfile.TarFile, "addfile", adding)
        backup.make(home, tmp_path / "b.tar.gz")
    assert "outputs/p/sub" in names
    assert "outputs/p/sub/key" not in names


# -- modes -------------------------------------------------------------------------------------------------------


def test_no_archive_has_setuid_setgid_or_sticky_bits(folder: Path) -> None:
    for name, mode in (("f", 0o7755), ("g", 0o2644)):
        (folder / name).touch()
        (folder / name).chmod(mode)
    (folder / "d").mkdir()
    (folder / "d").chmod(0o3777)
    file = io.BytesIO()
    packing.pack(folder, file)
    for data in (packed(folder), file.getvalue()):
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            modes = {member.name.removeprefix("./"): member.mode for member in tar}
        assert {"f": 0o755, "g": 0o644, "d": 0o777}.items() >= modes.items()
        assert {"f", "g"} <= modes.keys()


def test_no_backup_has_them_and_no_restore_makes_them(home: Home, tmp_path: Path) -> None:
    top = home.root / "outputs" / "p"
    (top / "f").touch()
    (top / "f").chmod(0o6755)
    top.chmod(0o3777)
    backup.make(home, tmp_path / "b.tar.gz")
    with tarfile.open(tmp_path / "b.tar.gz") as tar:
        assert [member.name for member in tar if member.mode & 0o7000] == []
    with tarfile.open(tmp_path / "b.tar.gz") as good, tarfile.open(tmp_path / "set.tar.gz", "w:gz") as bad:
        for member in good:
            member.mode |= 0o7000
            bad.addfile(member, good.extractfile(member) if member.isreg() else None)
    restore.restore(tmp_path / "set.tar.gz", Home(tmp_path / "back"))
    found = [path for path in (tmp_path / "back").rglob("*") if path.lstat().st_mode & 0o7000]
    assert found == []
    assert stat.S_IMODE((tmp_path / "back" / "outputs" / "p" / "f").stat().st_mode) == 0o755


def test_files_that_are_opened_to_all_lose_them(folder: Path) -> None:
    (folder / "f").touch()
    (folder / "f").chmod(0o6755)
    open_to_all(folder)
    assert stat.S_IMODE((folder / "f").stat().st_mode) == 0o777


def test_nothing_outside_is_opened_to_all(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "key").touch(0o600)
    (folder / "link").symlink_to(tmp_path / "key")
    open_to_all(folder)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


# -- many names, many levels -------------------------------------------------------------------------------------


def test_one_file_with_many_names_is_counted_copied_and_packed_once(folder: Path, tmp_path: Path) -> None:
    (folder / "first").write_bytes(os.urandom(1 << 20))
    for n in range(100):
        os.link(folder / "first", folder / f"n{n}")
    copy_tree(folder, tmp_path / "copy")
    copy_tree(folder, tmp_path / "copy")
    for size in (size_of(folder), size_of(tmp_path / "copy"), len(packed(folder))):
        assert size < 2 << 20
    assert (tmp_path / "copy" / "n99").read_bytes() == (folder / "first").read_bytes()


@pytest.mark.slow
def test_folders_deeper_than_any_path_are_measured_copied_and_removed(folder: Path, tmp_path: Path) -> None:
    make_deep_folder(folder, 2500)
    (folder / "z").write_text("z")
    assert size_of(folder) > 0
    copy_tree(folder, tmp_path / "copy")
    assert (tmp_path / "copy" / "z").read_text() == "z"
    open_to_all(folder)
    with pytest.raises(PermissionError):
        list(foreign_paths(folder, os.getuid()))
    if os.getuid() == 0:  # a daemon that is not root asks the engine, see test_ownership.py
        assert reclaim(folder, os.getuid(), os.getgid(), None, "", "") is None  # type: ignore[arg-type]
    remove_tree(folder)
    remove_tree(tmp_path / "copy")
    assert not folder.exists()
    folder.mkdir()


def test_a_tree_that_its_owner_closed_is_removed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir(mode=0o700)
    (tmp_path / "outside" / "kept").touch()
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "f").touch()
    (folder / "a" / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(folder / "a" / "pipe")
    (folder / "a" / "b").chmod(0)
    (folder / "a").chmod(0o500)
    remove_tree(folder)
    assert not folder.exists()
    assert (tmp_path / "outside" / "kept").exists()
    remove_tree(folder)
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    remove_tree(tmp_path / "link")
    assert (tmp_path / "outside" / "kept").exists()
    folder.mkdir()
