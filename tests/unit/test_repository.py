"""Uploads become commits of a real git repository. Each test has its own repository."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from polylocal.errors import InvalidInput, NotFound, SetupError
from polylocal.git.code_reader import Extra
from polylocal.git.repository import Repository

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
    """Path → mode."""
    command = ["git", "--git-dir", str(repository.path), "ls-tree", "-r", "-z", commit]
    lines = subprocess.run(command, check=True, capture_output=True).stdout.decode("utf-8", "surrogateescape")
    return {line.partition("\t")[2]: line[:6] for line in lines.split("\0") if line}


def parent(repository: Repository, commit: str) -> str:
    command = ["git", "--git-dir", str(repository.path), "rev-parse", f"{commit}^"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


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
    assert parent(repository, second) == first
    assert repository.read(first, "a") == b"1"


def test_a_link_is_read_as_the_file_that_it_leads_to(repository: Repository) -> None:
    links = {"Dockerfile": "docker/gpu", "docker/gpu": "../gpu.Dockerfile", "folder": "docker", "loop": "loop"}
    members = [entry(name, type=tarfile.SYMTYPE, linkname=target) for name, target in links.items()]
    commit = repository.upload(tar(entry("gpu.Dockerfile", b"FROM x\n"), *members), "root")
    assert repository.read(commit, "Dockerfile") == b"docker/gpu"
    read = partial(repository.read, commit, follows=True)
    assert read("Dockerfile") == read("folder/gpu") == b"FROM x\n"
    for name in ("folder", "loop", "a\nb", "Dockerfile\ngpu.Dockerfile"):
        with pytest.raises(NotFound):
            read(name)
    assert read("Dockerfile", 7) == b"FROM x\n"
    with pytest.raises(InvalidInput):
        read("Dockerfile", 6)


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
    at = repository.resolve("master") or ""
    for _ in range(3):
        at = parent(repository, at)
    assert at in commits


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


def test_a_missing_git_is_reported(repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="`git` is not installed"):
        upload(repository, {"a": b"1"})


# -- refusals ----------------------------------------------------------------------------------------------------


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
def test_a_file_that_is_not_a_tar_is_refused_with_a_message(repository: Repository, data: bytes) -> None:
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
    "name",
    [
        *("", "nope", "-x", "--all", "master:a", "0" * 40, "^master", "master..master", "a\0b", "a b", "ü", "@"),
        *("HEAD^", "HEAD~1", "HEAD@{0}", "@{-1}", "master^{tree}", ":/updated", "HEAD^{/updated}", ":a", "HEAD:a"),
        *("master@{yesterday}", "master-1-gabc", "refs/heads/../heads/master", "heads/master", "a\nmaster", "x" * 300),
    ],
)
def test_ambiguous_names_name_no_commit(repository: Repository, name: str) -> None:
    upload(repository, {"a": b"1"})
    assert repository.resolve(name) is None


def test_revision_syntax_costs_no_memory(repository: Repository) -> None:
    """Without the check, git would use all memory of the machine for such a pattern."""
    upload(repository, {"a": b"1"})
    for name in (":/((x{1,9}){1,9}){1,9}", "HEAD^{/((x{1,9}){1,9}){1,9}}"):
        assert repository.resolve(name) is None


def test_six_digits_are_no_hash(repository: Repository) -> None:
    commit = upload(repository, {"a": b"1"})
    assert repository.resolve(commit[:6]) is None
    assert repository.resolve(commit[:7]) == repository.resolve(commit.upper()) == commit


def test_a_name_that_is_a_tag_a_branch_and_digits_of_a_hash(repository: Repository) -> None:
    """git's order: a whole hash, a tag, a branch, the first digits of a hash."""
    first, second, third = (upload(repository, {"a": data}) for data in (b"1", b"2", b"3"))
    digits = first[:8]
    git("update-ref", f"refs/heads/{digits}", second, cwd=repository.path)
    assert repository.resolve(digits) == second
    git("update-ref", f"refs/tags/{digits}", third, cwd=repository.path)
    assert repository.resolve(digits) == third
    assert repository.resolve(f"refs/heads/{digits}") == second
    git("update-ref", f"refs/heads/{first}", second, cwd=repository.path)
    assert repository.resolve(first) == first


@pytest.mark.parametrize("commit", ["--output=x", "HEAD", "master", "abc1234", "", "0" * 39, "0" * 41])
def test_only_whole_hashes_are_checked_out(repository: Repository, tmp_path: Path, commit: str) -> None:
    """No other text of a row is passed to git's command line."""
    upload(repository, {"a": b"1"})
    (tmp_path / "folder").mkdir()
    calls: list[Callable[[], object]] = [
        lambda: repository.archive(commit, io.BytesIO()),
        lambda: repository.read(commit, "a"),
        lambda: repository.files(commit),
        lambda: repository.size(commit, "a"),
        lambda: repository.has_folder(commit, "a"),
    ]
    if commit:
        calls.append(lambda: repository.checkout(commit, tmp_path / "new"))
        calls.append(lambda: repository.commit_folder(tmp_path / "folder", commit, "root"))
    for call in calls:
        with pytest.raises(NotFound):
            call()
    assert not (tmp_path / "x").exists()
    assert not (repository.path / "x").exists()


def test_files_and_folders_at_the_top_of_the_code_or_of_a_folder(repository: Repository) -> None:
    commit = upload(repository, {"a": b"1", "sub/b": b"2", "sub/deep/c": b"3"})
    assert repository.files(commit) == {"a"}
    assert repository.files(commit, "sub") == repository.files(commit, "sub/") == {"b"}


def test_names_need_not_be_utf8(repository: Repository) -> None:
    commit = upload(repository, {"caf\udce9": b"1", "ü b\nc": b"2", "a": b"3"})
    assert {"ü b\nc", "a"} < repository.files(commit)


def test_files_outside_the_code_are_not_found(repository: Repository) -> None:
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


# -- work in a checkout, and commits of it -----------------------------------------------------------------------


def git(*arguments: str, cwd: Path) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def worked(repository: Repository, tmp_path: Path) -> tuple[str, Path]:
    """A commit, and the folder with its checkout."""
    commit = upload(repository, {"a.py": b"1\n2\n3\n4\n5\n", "lib/b.py": b"b", "c.py": b"c"})
    folder = tmp_path / "work"
    repository.checkout(commit, folder)
    return commit, folder


def test_checked_out_is_what_was_uploaded(repository: Repository, tmp_path: Path) -> None:
    links = entry("link", type=tarfile.SYMTYPE, linkname="run.sh")
    lines = entry("dos.txt", b"1\r\n2\n")
    commit = repository.upload(tar(entry("run.sh", b"#!", mode=0o755), entry("ä b/c", b"x"), links, lines), "root")
    folder = tmp_path / "deep" / "work"
    repository.checkout(commit, folder)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*")} == {
        "run.sh",
        "ä b",
        "ä b/c",
        "link",
        "dos.txt",
    }
    assert (folder / "run.sh").stat().st_mode & 0o100
    assert not (folder / "ä b/c").stat().st_mode & 0o100
    assert os.readlink(folder / "link") == "run.sh"
    assert (folder / "dos.txt").read_bytes() == b"1\r\n2\n"
    assert repository.commit_folder(folder, commit, "root").commit is None


def test_no_commit_is_an_empty_folder(repository: Repository, tmp_path: Path) -> None:
    repository.checkout(None, tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []
    done = repository.commit_folder(tmp_path / "work", None, "root")
    assert (done.commit, done.left_out) == (None, [])
    assert repository.resolve("master") is None


def test_an_interrupted_checkout_is_repeated(repository: Repository, tmp_path: Path) -> None:
    commit = upload(repository, {"a": b"1"})
    write(tmp_path / "work.new", {"half": ""})
    repository.checkout(commit, tmp_path / "work")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["a"]
    assert not (tmp_path / "work.new").exists()


def test_changes_are_one_commit_on_top(repository: Repository, worked: tuple[str, Path]) -> None:
    base, folder = worked
    write(folder, {"a.py": "new\n", "d/e.py": "e", "with space ü.ipynb": "{}"})
    (folder / "lib/b.py").unlink()
    (folder / "c.py").chmod(0o777)
    done = repository.commit_folder(folder, base, "ada")
    assert done.left_out == []
    assert done.commit == repository.resolve("master")
    assert parent(repository, done.commit or "") == base
    assert tree(repository, done.commit or "") == {
        "a.py": "100644",
        "c.py": "100755",
        "d/e.py": "100644",
        "with space ü.ipynb": "100644",
    }
    about = ["git", "--git-dir", str(repository.path), "log", "-1", "--format=%an %s"]
    assert subprocess.run(about, check=True, capture_output=True, text=True).stdout == "ada updated\n"


def test_nothing_changed_is_no_commit(repository: Repository, worked: tuple[str, Path]) -> None:
    base, folder = worked
    (folder / "a.py").touch()
    (folder / "a.py").chmod(0o666)
    done = repository.commit_folder(folder, base, "root")
    assert (done.commit, done.left_out) == (None, [])
    assert repository.resolve("master") == base


def test_committing_twice_is_one_commit(repository: Repository, worked: tuple[str, Path]) -> None:
    base, folder = worked
    write(folder, {"new": "1"})
    first = repository.commit_folder(folder, base, "root").commit
    assert repository.commit_folder(folder, base, "root").commit in (None, first)
    assert repository.resolve("master") == first


def test_all_files_may_be_deleted(repository: Repository, worked: tuple[str, Path]) -> None:
    base, folder = worked
    for name in ("a.py", "lib/b.py", "c.py"):
        (folder / name).unlink()
    done = repository.commit_folder(folder, base, "root")
    assert tree(repository, done.commit or "") == {}
    assert done.left_out == []


def test_empty_folders_are_nothing(repository: Repository, worked: tuple[str, Path]) -> None:
    base, folder = worked
    (folder / "data/sub").mkdir(parents=True)
    done = repository.commit_folder(folder, base, "root")
    assert (done.commit, done.left_out) == (None, [])


def test_ignored_files_are_left_out_and_named(repository: Repository, worked: tuple[str, Path]) -> None:
    base, folder = worked
    write(folder, {".gitignore": "*.bin\nlogs/\n", "m.bin": "x", "logs/1": "x", "ok.py": "x"})
    done = repository.commit_folder(folder, base, "root")
    assert {".gitignore", "ok.py"} <= set(tree(repository, done.commit or ""))
    assert sorted(done.left_out) == ["logs", "m.bin"]


def test_existing_files_are_committed_although_they_are_ignored(repository: Repository, tmp_path: Path) -> None:
    base = upload(repository, {".gitignore": b"*.bin", "m.bin": b"1"})
    repository.checkout(base, tmp_path / "work")
    write(tmp_path / "work", {"m.bin": "2"})
    done = repository.commit_folder(tmp_path / "work", base, "root")
    assert repository.read(done.commit or "", "m.bin") == b"2"
    assert done.left_out == []


@pytest.mark.parametrize("has_commit", [True, False])
@pytest.mark.parametrize("name", ["inner", "deep/inner", "données", 'a"b', "my repo", "[x]", ":top", "*"])
def test_a_repository_in_the_folder_is_left_out_and_the_rest_is_committed(
    repository: Repository, worked: tuple[str, Path], name: str, has_commit: bool
) -> None:
    base, folder = worked
    inner = folder / name
    write(inner, {"x": "1"})
    git("init", "--quiet", cwd=inner)
    if has_commit:
        git("add", ".", cwd=inner)
        git("commit", "--quiet", "-m", "x", cwd=inner)
    write(folder, {"new.py": "1", "x": "a file whose name matches"})
    done = repository.commit_folder(folder, base, "root")
    assert set(tree(repository, done.commit or "")) == {"a.py", "lib/b.py", "c.py", "new.py", "x"}
    assert name in done.left_out


def test_a_repository_at_the_top_is_left_out(repository: Repository, worked: tuple[str, Path]) -> None:
    base, folder = worked
    git("init", "--quiet", cwd=folder)
    write(folder, {"new.py": "1"})
    done = repository.commit_folder(folder, base, "root")
    assert set(tree(repository, done.commit or "")) == {"a.py", "lib/b.py", "c.py", "new.py"}
    assert done.left_out == [".git"]


def test_regenerated_files_are_no_changes(repository: Repository, worked: tuple[str, Path]) -> None:
    base, folder = worked
    write(folder, {".ipynb_checkpoints/a": "x", "lib/__pycache__/b.pyc": "x", "new/__pycache__/c.pyc": "x"})
    done = repository.commit_folder(folder, base, "root")
    assert (done.commit, done.left_out) == (None, [])


@pytest.mark.parametrize(
    ("mine", "theirs", "together"),
    [
        ({"mine": "1"}, {"theirs": "2"}, {"mine": "1", "theirs": "2"}),
        ({"a.py": "one\n2\n3\n4\n5\n"}, {"a.py": "1\n2\n3\n4\nfive\n"}, {"a.py": "one\n2\n3\n4\nfive\n"}),
        ({"same": "1"}, {"same": "1"}, {"same": "1"}),
        ({}, {"theirs": "2"}, {"theirs": "2"}),
    ],
)
def test_code_that_was_uploaded_meanwhile_stays(
    repository: Repository,
    worked: tuple[str, Path],
    mine: dict[str, str],
    theirs: dict[str, str],
    together: dict[str, str],
) -> None:
    base, folder = worked
    before = {"a.py": b"1\n2\n3\n4\n5\n", "lib/b.py": b"b", "c.py": b"c"}
    later = upload(repository, {**before, **{name: text.encode() for name, text in theirs.items()}})
    write(folder, mine)
    repository.commit_folder(folder, base, "root")
    head = repository.resolve("master") or ""
    assert {name: repository.read(head, name).decode() for name in together} == together
    assert set(tree(repository, head)) == {*before, *together}
    assert head == later or parent(repository, head) == later


def test_conflicting_changes_are_not_merged(repository: Repository, worked: tuple[str, Path]) -> None:
    base, folder = worked
    later = upload(repository, {"a.py": b"theirs\n"})
    write(folder, {"a.py": "mine\n"})
    with pytest.raises(InvalidInput, match="changed the same lines"):
        repository.commit_folder(folder, base, "root")
    assert repository.resolve("master") == later
    assert (folder / "a.py").read_text() == "mine\n"


def test_nothing_is_left_beside_the_repository_by_a_commit(repository: Repository, worked: tuple[str, Path]) -> None:
    base, folder = worked
    write(folder, {"new": "1"})
    repository.commit_folder(folder, base, "root")
    assert [path.name for path in repository.path.parent.iterdir()] == ["abc"]


def test_the_persons_own_git_settings_do_not_reach_into_a_commit(
    repository: Repository, worked: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base, folder = worked
    (tmp_path / ".gitconfig").write_text(
        "[core]\n\texcludesFile = none\n\tautocrlf = input\n[commit]\n\tgpgSign = true\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    write(folder, {"dos.txt": "1\r\n", ".gitattributes": "* text=auto eol=lf\n"})
    done = repository.commit_folder(folder, base, "root")
    assert repository.read(done.commit or "", "dos.txt") == b"1\r\n"


# -- fetches -----------------------------------------------------------------------------------------------------


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A remote repository."""
    folder = tmp_path / "origin"
    folder.mkdir()
    git("init", "--quiet", cwd=folder)
    write(folder, {"train.py": "1"})
    git("add", ".", cwd=folder)
    git("commit", "--quiet", "-m", "first", cwd=folder)
    return folder


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_the_newest_commit_elsewhere_is_the_newest_here(repository: Repository, origin: Path, form: str) -> None:
    head = repository.fetch(form.format(origin), "file")
    assert head == git("rev-parse", "HEAD", cwd=origin) == repository.resolve("master")
    assert repository.read(head, "train.py") == b"1"


def test_fetching_again_follows_whatever_happened_there(repository: Repository, origin: Path) -> None:
    first = repository.fetch(str(origin), "file")
    assert repository.fetch(str(origin), "file") == first
    write(origin, {"train.py": "2"})
    git("commit", "--quiet", "--all", "--amend", "-m", "rewritten", cwd=origin)
    head = repository.fetch(str(origin), "file")
    assert head != first
    assert repository.read(head, "train.py") == b"2"


def test_another_branch_that_is_checked_out_there_is_the_code(repository: Repository, origin: Path) -> None:
    git("checkout", "--quiet", "-b", "dev", cwd=origin)
    write(origin, {"dev.py": "1"})
    git("add", ".", cwd=origin)
    git("commit", "--quiet", "-m", "dev", cwd=origin)
    assert repository.files(repository.fetch(str(origin), "file")) == {"train.py", "dev.py"}


def test_fetched_code_replaces_uploaded_code(repository: Repository, origin: Path) -> None:
    uploaded = upload(repository, {"a": b"1"})
    head = repository.fetch(str(origin), "file")
    assert repository.resolve("master") == head
    assert repository.read(uploaded, "a") == b"1"


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_local_folders_are_for_those_who_may(repository: Repository, origin: Path, form: str) -> None:
    with pytest.raises(InvalidInput, match="transport 'file' not allowed"):
        repository.fetch(form.format(origin), "http:https:ssh:git")
    assert repository.resolve("master") is None


@pytest.mark.parametrize("protocols", ["http:https:ssh:git", "http:https:ssh:git:file"])
@pytest.mark.parametrize(
    "form",
    ["ext::sh -c 'touch {}'", "fd::17", "--upload-pack=touch {}", "-u", "ext::touch {}", "nonsense://x", "", "\n"],
)
def test_addresses_that_would_run_programs_are_refused(
    repository: Repository, tmp_path: Path, form: str, protocols: str
) -> None:
    trace = tmp_path / "trace"
    with pytest.raises(InvalidInput, match="could not be fetched"):
        repository.fetch(form.format(trace), protocols)
    assert not trace.exists()


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recorded arguments of a fake `ssh` that comes first in the PATH and connects to nothing."""
    asked = tmp_path / "asked"
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >> '{asked}'\nexit 255\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return asked


@pytest.mark.parametrize("url", ["ssh://git@example.org/code.git", "git@example.org:code.git"])
@pytest.mark.parametrize("with_keys", [True, False])
def test_the_keys_of_the_owner_open_nothing_for_others(
    repository: Repository, ssh: Path, url: str, with_keys: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ssh finds keys automatically, whatever HOME is. Its settings may name further keys or an agent."""
    monkeypatch.setattr("polylocal.system.addresses._resolve", lambda name: ["198.51.100.7"])
    with pytest.raises(InvalidInput, match="could not be fetched"):
        repository.fetch(url, "http:https:ssh:git", with_keys=with_keys)
    words = ssh.read_text().splitlines()
    options = [word for flag, word in pairwise(words) if flag == "-o"]
    assert "BatchMode=yes" in options
    assert "git@example.org" in words
    ways = {"PubkeyAuthentication=no", "HostbasedAuthentication=no", "GSSAPIAuthentication=no"}
    assert ways & set(options) == (set() if with_keys else ways)
    assert (("-F", "/dev/null") in pairwise(words)) is not with_keys


def test_the_refusal_is_gits_own_reason(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not appear to be a git repository"):
        repository.fetch(str(tmp_path / "nope"), "file")


def test_a_repository_without_a_commit_is_refused(repository: Repository, tmp_path: Path) -> None:
    git("init", "--quiet", "--bare", str(tmp_path / "empty"), cwd=tmp_path)
    with pytest.raises(InvalidInput, match="could not be fetched"):
        repository.fetch(str(tmp_path / "empty"), "file")
    assert repository.resolve("master") is None


def test_a_fetch_that_fails_changes_nothing(repository: Repository, tmp_path: Path) -> None:
    uploaded = upload(repository, {"a": b"1"})
    with pytest.raises(InvalidInput):
        repository.fetch(str(tmp_path / "nope"), "file")
    assert repository.resolve("master") == uploaded


def test_tags_and_hooks_of_others_stay_with_them(repository: Repository, origin: Path, tmp_path: Path) -> None:
    git("tag", "v1", cwd=origin)
    hook = origin / ".git/hooks/post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/trace\n")
    hook.chmod(0o755)
    repository.fetch(str(origin), "file")
    assert repository.resolve("v1") is None
    assert not (tmp_path / "trace").exists()


def test_the_persons_own_git_settings_count_when_others_are_asked(
    repository: Repository, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".gitconfig").write_text(f'[url "{origin}"]\n\tinsteadOf = mine:code\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert repository.fetch("mine:code", "file") == git("rev-parse", "HEAD", cwd=origin)


def test_variables_that_say_where_another_repository_is_do_not_count(
    repository: Repository, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"):
        monkeypatch.setenv(name, "/nowhere")
    head = repository.fetch(str(origin), "file")
    monkeypatch.undo()
    assert repository.resolve("master") == head


def test_a_tree_that_names_a_link_and_a_folder_alike_writes_nothing_outside(
    repository: Repository, tmp_path: Path
) -> None:
    """Fetched repositories may contain trees that git itself would not create."""
    first = upload(repository, {"evil": b"x"})
    outside = tmp_path / "outside"
    outside.mkdir()
    command = ["git", "--git-dir", str(repository.path)]

    def made(*arguments: str, given: str = "") -> str:
        done = subprocess.run([*command, *arguments], input=given, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    target = made("hash-object", "-w", "--stdin", given=str(outside))
    inner = made("rev-parse", f"{first}^{{tree}}")
    tree_id = made("mktree", given=f"120000 blob {target}\ta\n040000 tree {inner}\ta\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command[1:1] = identity
    commit = made("commit-tree", tree_id, "-m", "x")
    with pytest.raises(InvalidInput, match="is below 'a', which is not a folder"):
        repository.checkout(commit, tmp_path / "work")
    assert not list(outside.iterdir())


def test_a_link_out_of_a_notebooks_folder_is_committed_as_a_link(repository: Repository, tmp_path: Path) -> None:
    folder, secret = tmp_path / "work", tmp_path / "secret"
    repository.checkout(upload(repository, {"a": b"1"}), folder)
    secret.mkdir()
    (secret / "key").write_text("not for you")
    (folder / "l").symlink_to(secret)
    (folder / "f").symlink_to(secret / "key")
    commit = repository.commit_folder(folder, repository.resolve("master"), "root").commit
    assert commit
    assert {"l", "f"} <= repository.files(commit)
    assert repository.read(commit, "f") == str(secret / "key").encode()
    again = archived(repository, commit, tmp_path)
    assert again == {"a": b"1"}


# -- empty folders -----------------------------------------------------------------------------------------------


def with_empty(*names: str, **files: bytes) -> io.BytesIO:
    folders = [entry(name, type=tarfile.DIRTYPE, mode=0o755) for name in names]
    return tar(*folders, *(entry(name, data) for name, data in files.items()))


def folders_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_dir()}


def test_an_empty_folder_is_checked_out_and_archived(repository: Repository, tmp_path: Path) -> None:
    commit = repository.upload(with_empty("logs", "out/deep/é", a=b"1"), "root")
    assert repository.files(commit) == {"a"}
    repository.checkout(commit, tmp_path / "work")
    assert folders_in(tmp_path / "work") == {"logs", "out", "out/deep", "out/deep/é"}
    with (tmp_path / "t.tar").open("w+b") as file:
        repository.archive(commit, file, prefix="build/")
    with tarfile.open(tmp_path / "t.tar") as found:
        assert {"build/logs", "build/out/deep/é"} <= {member.name for member in found if member.isdir()}
        assert [member.name for member in found if not member.isdir()] == ["build/a"]
    assert repository.has_folder(commit, "logs")
    assert repository.files(commit, "logs") == set()


def test_an_empty_folder_counts_for_the_identity_of_a_commit(repository: Repository) -> None:
    first = repository.upload(with_empty("logs", a=b"1"), "root")
    assert repository.upload(with_empty("logs", a=b"1"), "root") == first
    without = repository.upload(with_empty(a=b"1"), "root")
    assert without != first
    filled = repository.upload(
        tar(entry("logs", type=tarfile.DIRTYPE), entry("logs/x", b"2"), entry("a", b"1")), "root"
    )
    assert set(tree(repository, filled)) == {"a", "logs/x"}


def test_an_empty_folder_of_an_archive_in_itself(repository: Repository, tmp_path: Path) -> None:
    commit = repository.upload(with_empty("only"), "root")
    with (tmp_path / "t.tar").open("w+b") as file:
        repository.archive(commit, file, folder="only")
    repository.checkout(commit, tmp_path / "work")
    assert folders_in(tmp_path / "work") == {"only"}


def test_a_clone_has_the_empty_folder(repository: Repository, tmp_path: Path) -> None:
    repository.upload(with_empty("logs", a=b"1"), "root")
    git("clone", "--quiet", str(repository.path), str(tmp_path / "clone"), cwd=tmp_path)
    assert (tmp_path / "clone" / "logs").is_dir()
    assert git("status", "--porcelain", cwd=tmp_path / "clone") == ""


def test_empty_folders_outlive_a_notebook(repository: Repository, tmp_path: Path) -> None:
    base = repository.upload(with_empty("logs", "cache", "gone", "linked", a=b"1"), "root")
    folder = tmp_path / "work"
    repository.checkout(base, folder)
    assert repository.commit_folder(folder, base, "root").commit is None
    (folder / "logs" / "x").write_text("1")
    (folder / "cache" / "y.tmp").write_text("2")
    (folder / ".gitignore").write_text("*.tmp\n")
    (folder / "gone").rmdir()
    (folder / "linked").rmdir()
    (folder / "linked").symlink_to("logs")
    commit = repository.commit_folder(folder, base, "root").commit
    assert commit
    modes = tree(repository, commit)
    assert {name: mode for name, mode in modes.items() if name not in ("a", ".gitignore")} == {
        "logs/x": "100644",
        "cache": "160000",
        "linked": "120000",
    }


def test_notebooks_and_uploads_of_empty_folders_are_merged(repository: Repository, tmp_path: Path) -> None:
    base = repository.upload(with_empty("logs", "more", a=b"1"), "root")
    folder = tmp_path / "work"
    repository.checkout(base, folder)
    (folder / "logs" / "x").write_text("1")
    repository.upload(with_empty("logs", "more", a=b"1", b=b"2"), "root")
    commit = repository.commit_folder(folder, base, "root").commit
    assert commit
    assert tree(repository, commit) == {"a": "100644", "b": "100644", "logs/x": "100644", "more": "160000"}
