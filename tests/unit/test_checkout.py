"""Checkouts of handmade commits: no code runs, and no file is written outside the folder."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from polylocal.errors import InvalidInput
from polylocal.git import checkout
from polylocal.git.repository import Repository

Make = Callable[..., str]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "code" / "abc")
    made.create()
    return made


@pytest.fixture
def git(repository: Repository) -> Make:
    def run(*arguments: str, given: bytes = b"", date: int = 86400) -> str:
        when = f"@{date} +0000"
        names = {f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        env = {**os.environ, **names, "GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
        command = ["git", "--git-dir", str(repository.path), *arguments]
        return subprocess.run(command, input=given, check=True, capture_output=True, env=env).stdout.decode().strip()

    return run


@pytest.fixture
def commit(git: Make) -> Make:
    """A commit of entries `<mode> <name>`, each with content as bytes or the hash of a tree or a commit."""

    def made(entries: list[tuple[str, str, bytes | str]], date: int = 86400) -> str:
        return git("commit-tree", tree_of(git, entries), "-m", "x", date=date)

    return made


def tree_of(git: Make, entries: list[tuple[str, str, bytes | str]]) -> str:
    kinds = {"040000": "tree", "160000": "commit"}
    lines = b""
    for mode, name, content in entries:
        sha = content if isinstance(content, str) else git("hash-object", "-w", "--stdin", given=content)
        lines += f"{mode} {kinds.get(mode, 'blob')} {sha}\t".encode() + os.fsencode(name) + b"\0"
    return git("mktree", "-z", "--missing", given=lines)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_files_have_the_modes_and_the_time_of_their_commit(
    repository: Repository, git: Make, commit: Make, tmp_path: Path
) -> None:
    inner = tree_of(git, [("100755", "run.sh", b"2")])
    repository.checkout(commit([("100644", "a", b"1"), ("040000", "sub", inner)], date=99), tmp_path / "work")
    found = {name: (tmp_path / "work" / name).stat() for name in (".", "a", "sub", "sub/run.sh")}
    modes = {name: stat.S_IMODE(about.st_mode) for name, about in found.items()}
    assert modes == {".": 0o755, "a": 0o644, "sub": 0o755, "sub/run.sh": 0o755}
    assert [found[name].st_mtime for name in ("a", "sub/run.sh")] == [99, 99]


def test_links_stay_links_wherever_they_lead(repository: Repository, commit: Make, tmp_path: Path) -> None:
    targets = {"absolute": "/etc/passwd", "out": "../../x", "nowhere": "no/such", "round": "round", "up": ".."}
    before = Path("/etc/passwd").stat()
    repository.checkout(commit([("120000", name, target.encode()) for name, target in targets.items()]), tmp_path / "w")
    assert {name: os.readlink(tmp_path / "w" / name) for name in targets} == targets
    after = Path("/etc/passwd").stat()
    assert (after.st_mode, after.st_mtime) == (before.st_mode, before.st_mtime)


@pytest.mark.parametrize("target", ["../outside", "{outside}", "sub"])
@pytest.mark.parametrize(("mode", "content"), [("100644", b"x"), ("120000", b"/")])
def test_code_is_not_written_through_its_own_links(
    repository: Repository, git: Make, commit: Make, tmp_path: Path, target: str, mode: str, content: bytes
) -> None:
    """A handmade tree may contain a link and a folder of the same name."""
    outside = tmp_path / "outside"
    outside.mkdir()
    sub = tree_of(git, [("100644", "b", b"mine")])
    evil = tree_of(git, [(mode, "evil", content), (mode, "b", content)])
    link = target.format(outside=outside).encode()
    made = commit([("040000", "sub", sub), ("120000", "l", link), ("040000", "l", evil)])
    with pytest.raises(InvalidInput, match="is below 'l', which is not a folder"):
        repository.checkout(made, tmp_path / "work")
    assert not (tmp_path / "work").exists()
    (tmp_path / "as-git").mkdir()
    checkout.write(repository.path, made, tmp_path / "as-git")  # git itself writes one of the two
    assert (tmp_path / "as-git/sub/b").read_bytes() == b"mine"
    assert os.listdir(outside) == []


@pytest.mark.parametrize("name", [".git", ".GIT", "..", "."])
@pytest.mark.parametrize("depth", [0, 1])
def test_names_that_git_keeps_for_itself_are_refused(
    repository: Repository, git: Make, commit: Make, tmp_path: Path, name: str, depth: int
) -> None:
    made = tree_of(git, [("040000", name, tree_of(git, [("100644", "config", b"x")]))])
    for _ in range(depth):
        made = tree_of(git, [("040000", "sub", made)])
    with pytest.raises(InvalidInput, match="can't be checked out: error: invalid path"):
        repository.checkout(commit([("040000", "deep", made)]), tmp_path / "work")
    assert not (tmp_path / "work").exists()
    assert not (tmp_path / "config").exists()


def test_a_name_that_no_disk_holds_is_refused(repository: Repository, commit: Make, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="File name too long"):
        repository.checkout(commit([("100644", "x" * 300, b"")]), tmp_path / "work")


def test_filters_hooks_and_submodules_run_nothing(
    repository: Repository, git: Make, commit: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They don't run even if the settings of the repository and of the user name programs for the code's attributes."""
    ran, home = tmp_path / "ran", tmp_path / "home"
    home.mkdir()
    hook = f"#!/bin/sh\ntouch {ran}\n"
    monkeypatch.setenv("HOME", str(home))
    for name in ("post-checkout", "post-index-change", "fsmonitor-watchman"):
        (repository.path / "hooks" / name).write_text(hook)
        (repository.path / "hooks" / name).chmod(0o755)
    settings = {
        **{"filter.lfs.smudge": f"touch {ran}; cat", "filter.lfs.process": f"touch {ran}"},
        **{"filter.lfs.required": "true", "core.hooksPath": str(repository.path / "hooks")},
        **{"core.fsmonitor": str(repository.path / "hooks" / "fsmonitor-watchman"), "submodule.recurse": "true"},
        **{"submodule.lib.update": f"!touch {ran}", "submodule.lib.url": f"ext::touch {ran}", "core.autocrlf": "true"},
    }
    for name, value in settings.items():
        git("config", name, value)
        git("config", "--file", str(home / ".gitconfig"), name, value)
    attributes = b"* filter=lfs diff=lfs merge=lfs text eol=crlf ident working-tree-encoding=UTF-16\n"
    modules = f'[submodule "lib"]\n\tpath = lib\n\turl = ext::touch {ran}\n\tupdate = !touch {ran}\n'.encode()
    files = [("100644", ".gitattributes", attributes), ("100644", ".gitmodules", modules), ("100644", "a", b"$Id$\n")]
    repository.checkout(commit([*files, ("160000", "lib", "1" * 40)]), tmp_path / "work")
    assert not ran.exists()
    assert (tmp_path / "work/a").read_bytes() == b"$Id$\n"
    assert list((tmp_path / "work/lib").iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_full_or_broken_disk_is_not_the_fault_of_the_code(
    repository: Repository, commit: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    real = subprocess.run(["sh", "-c", "command -v git"], check=True, capture_output=True, text=True).stdout.strip()
    said = f"error: unable to create file a: {os.strerror(number)}"
    words = f'case "$*" in *checkout-index*) echo "{said}" >&2; exit 128;; esac'
    program.write_text(f'#!/bin/sh\n{words}\nexec {real} "$@"\n')
    program.chmod(0o755)
    made = commit([("100644", "a", b"1")])
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        repository.checkout(made, tmp_path / "work")
    assert raised.value.errno == number
