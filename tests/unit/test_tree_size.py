"""The size of a commit is known before it is unpacked."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from polylocal.errors import InvalidInput, NotFound
from polylocal.files.unpacking import Limits
from polylocal.git import tree_size
from polylocal.git.repository import Repository
from polylocal.git.tree_size import Size


def git(path: Path, *arguments: str, text: bytes = b"") -> str:
    who = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", "--git-dir", str(path), *arguments],
        input=text,
        capture_output=True,
        check=True,
        env={**who, "PATH": os.environ["PATH"]},
    )
    return done.stdout.decode().strip()


def blob(path: Path, content: bytes) -> str:
    return git(path, "hash-object", "-w", "--stdin", text=content)


def tree(path: Path, entries: Mapping[str, str]) -> str:
    """`entries`: hash of a blob (`b:…`), a folder (`t:…`), a link (`l:…`) or a foreign commit (`c:…`), by name."""
    modes = {"b": "100644 blob", "t": "040000 tree", "l": "120000 blob", "c": "160000 commit"}
    lines = [f"{modes[what[0]]} {what[2:]}\t{name}\0" for name, what in entries.items()]
    return git(path, "mktree", "-z", "--missing", text="".join(lines).encode())


def commit(path: Path, root: str) -> str:
    made = git(path, "commit-tree", root, "-m", "made")
    git(path, "update-ref", "refs/heads/master", made)
    return made


def nested(path: Path, width: int, depth: int) -> str:
    """A commit with few objects but width**depth files."""
    at = f"b:{blob(path, b'x')}"
    for _ in range(depth):
        at = f"t:{tree(path, {str(number): at for number in range(width)})}"
    return commit(path, at[2:])


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    path = tmp_path / "code" / "abc"
    subprocess.run(["git", "init", "--quiet", "--bare", str(path)], check=True)
    (path / "info").mkdir(exist_ok=True)
    return path


def size_of(path: Path, made: str, limits: Limits | None = None) -> Size:
    return tree_size.check(path, git(path, "rev-parse", f"{made}^{{tree}}"), limits or Limits())


def test_counts_what_is_unpacked(bare: Path) -> None:
    content = f"b:{blob(bare, b'12345')}"
    inner = f"t:{tree(bare, {'x': content, 'long name': content})}"
    root = tree(bare, {"a": inner, "b": inner, "c": content, "link": f"l:{blob(bare, b'c')}", "sub": f"c:{'1' * 40}"})
    assert size_of(bare, commit(bare, root)) == Size(files=9, bytes=26, longest=11)
    assert size_of(bare, commit(bare, tree(bare, {}))) == Size(0, 0, 0)


def test_ten_thousand_million_files_are_refused_at_once(bare: Path, tmp_path: Path) -> None:
    made = nested(bare, 10, 10)
    repository = Repository(bare)
    began = time.monotonic()
    with (tmp_path / "out").open("wb") as out, pytest.raises(InvalidInput, match="max_upload_files"):
        repository.archive(made, out)
    with pytest.raises(InvalidInput, match=r"100000 files and folders \(max_upload_files\)"):
        repository.checkout(made, tmp_path / "new")
    assert time.monotonic() - began < 5  # allows for a slow machine; without the count it takes hours
    assert (tmp_path / "out").stat().st_size == 0
    with (tmp_path / "part").open("wb") as out:
        repository.archive(made, out, folder="1/1/1/1/1/1/1")
    assert (tmp_path / "part").stat().st_size > 1000 * 512


@pytest.mark.parametrize(("files", "is_refused"), [(1110, False), (1109, True)])
def test_the_limit_of_files(files: int, is_refused: bool, bare: Path) -> None:
    made = nested(bare, 10, 3)
    if is_refused:
        for _ in range(2):  # the second time, the size is cached
            with pytest.raises(InvalidInput, match=rf"more than {files} files"):
                size_of(bare, made, Limits(max_upload_files=files))
    else:
        assert size_of(bare, made, Limits(max_upload_files=files)).files == files


def test_the_limit_of_bytes_counts_each_file(bare: Path) -> None:
    content = f"b:{blob(bare, bytes(600 << 10))}"
    one, two = (commit(bare, tree(bare, {str(n): content for n in range(many)})) for many in (1, 2))
    assert size_of(bare, one, Limits(max_unpacked_mib=1)).bytes == 600 << 10
    with pytest.raises(InvalidInput, match=r"larger than 1 MiB \(max_unpacked_mib\)"):
        size_of(bare, two, Limits(max_unpacked_mib=1))


def test_a_folder_with_too_many_entries_is_not_read_to_its_end(bare: Path) -> None:
    content = f"b:{blob(bare, b'')}"
    made = commit(bare, tree(bare, {f"{number:05}": content for number in range(20_000)}))
    with pytest.raises(InvalidInput, match="more than 1000 files"):
        size_of(bare, made, Limits(max_upload_files=1000))


def test_paths_that_no_system_takes(bare: Path) -> None:
    at = f"b:{blob(bare, b'')}"
    for _ in range(18):
        at = f"t:{tree(bare, {'x' * 240: at})}"
    with pytest.raises(InvalidInput, match="path of more than 4095 bytes"):
        size_of(bare, commit(bare, at[2:]))


def test_what_is_not_there(bare: Path) -> None:
    with pytest.raises(NotFound):
        tree_size.check(bare, "1" * 40, Limits())
    root = tree(bare, {"a": f"b:{'1' * 40}"})
    with pytest.raises(NotFound):
        tree_size.check(bare, root, Limits())


def test_a_commit_is_measured_once(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = nested(bare, 3, 3)
    first = size_of(bare, made)
    monkeypatch.setattr("polylocal.git.command.run", None)
    assert size_of(bare, made) == first


# -- uploads, pushes and fetches --------------------------------------------------------------------------------------


def test_a_fetch_beyond_a_limit_is_not_taken(bare: Path, tmp_path: Path) -> None:
    """This holds for the first fetch and for later ones. The earlier code stays."""
    small = Limits(max_upload_files=50)
    here = Repository(tmp_path / "here" / "abc", small)
    nested(bare, 10, 10)
    with pytest.raises(InvalidInput, match="max_upload_files"):
        here.fetch(str(bare), "file")
    assert not here.exists
    commit(bare, tree(bare, {"a": f"b:{blob(bare, b'1')}"}))
    head = here.fetch(str(bare), "file")
    nested(bare, 10, 10)
    with pytest.raises(InvalidInput, match="max_upload_files"):
        here.fetch(str(bare), "file")
    assert here.resolve("HEAD") == head


def test_a_fetch_of_a_large_file_ends_at_the_limit(bare: Path, tmp_path: Path) -> None:
    here = Repository(tmp_path / "here" / "abc", Limits(max_unpacked_mib=1))
    commit(bare, tree(bare, {"a": f"b:{blob(bare, os.urandom(3 << 20))}"}))
    with pytest.raises(InvalidInput, match=r"1 MiB \(max_unpacked_mib\)"):
        here.fetch(f"file://{bare}", "file")


def test_partial_packs_are_removed(bare: Path, tmp_path: Path) -> None:
    """git leaves them when it is killed. Those of a failed fetch are removed at once, others by the next fetch."""
    here = Repository(tmp_path / "here" / "abc", Limits(max_unpacked_mib=1))
    commit(bare, tree(bare, {"a": f"b:{blob(bare, b'1')}"}))
    here.fetch(f"file://{bare}", "file")
    commit(bare, tree(bare, {"a": f"b:{blob(bare, os.urandom(3 << 20))}"}))
    old = here.path / "objects" / "pack" / "tmp_pack_old"
    old.write_bytes(b"x")
    os.utime(old, (1, 1))
    with pytest.raises(InvalidInput, match="max_unpacked_mib"):
        here.fetch(f"file://{bare}", "file")
    assert list((here.path / "objects").rglob("tmp_*")) == []


def test_changes_of_a_notebook_beyond_a_limit_are_not_committed(tmp_path: Path) -> None:
    repository, folder = Repository(tmp_path / "code" / "abc", Limits(1, 20)), tmp_path / "work"
    folder.mkdir()
    (folder / "a").write_text("1")
    base = repository.commit_folder(folder, None, "root").commit
    with (folder / "sparse").open("wb") as file:
        file.truncate(60 << 30)
    assert repository.commit_folder(folder, base, "root").left_out == ["sparse (more than 1 MiB)"]
    for name in ("b", "c"):
        (folder / name).write_bytes(bytes(700_000))
    with pytest.raises(InvalidInput, match=r"larger than 1 MiB \(max_unpacked_mib\)"):
        repository.commit_folder(folder, base, "root")
    (folder / "b").unlink()
    (folder / ".gitignore").write_text("sparse\n")  # uncommitted files don't count
    assert repository.commit_folder(folder, base, "root").left_out == ["sparse"]
    for number in range(30):
        (folder / str(number)).write_text("")
    with pytest.raises(InvalidInput, match="max_upload_files"):
        repository.commit_folder(folder, repository.resolve("HEAD"), "root")


def test_very_many_large_files_of_a_notebook_are_counted_by_their_size(tmp_path: Path) -> None:
    repository, folder = Repository(tmp_path / "code" / "abc", Limits(1, 1000)), tmp_path / "work"
    folder.mkdir()
    for number in range(101):
        with (folder / str(number)).open("wb") as file:
            file.truncate(2 << 20)
    with pytest.raises(InvalidInput, match=r"more than 100 files of more than 1 MiB each \(max_unpacked_mib\)"):
        repository.commit_folder(folder, None, "root")


def test_a_file_that_is_too_large_to_be_read(bare: Path) -> None:
    made = commit(bare, tree(bare, {"Dockerfile": f"b:{blob(bare, bytes(3 << 20))}"}))
    with pytest.raises(InvalidInput, match="`Dockerfile` has more than 2 MiB"):
        Repository(bare).read(made, "Dockerfile", most=2 << 20)
    assert len(Repository(bare).read(made, "Dockerfile")) == 3 << 20


def test_an_upload_is_as_large_as_it_may_be(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for number in range(20):
            tar.addfile(tarfile.TarInfo(str(number)))
    packed.seek(0)
    limits = Limits(max_upload_files=20)
    repository = Repository(tmp_path / "code" / "abc", limits)
    made = repository.upload(packed, "root", limits)
    repository.checkout(made, tmp_path / "new")
    assert len(list((tmp_path / "new").iterdir())) == 20
