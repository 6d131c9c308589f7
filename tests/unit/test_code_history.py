"""The `.git` folder of a checkout: git prints the same as in a clone. The tags that name versions."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath

import pytest
from packaging.version import Version

from polylocal.git import tag_versions, version_tags
from polylocal.git.repository import Repository
from polylocal.git.tag_versions import Described

_WHO = {f"GIT_{who}_{what}": f"{who}@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
_ENV = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", **_WHO}
IS_ROOT = os.getuid() == 0


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, env=_ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A user's repository with three commits, the second of which has tags."""
    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=master")
    for number in range(3):
        (folder / "file").write_text(f"{number}\n")
        (folder / "run").write_text("#!/bin/sh\n")
        (folder / "run").chmod(0o755)
        (folder / "crlf.txt").write_bytes(b"a\r\nb\r\n")
        (folder / ".gitattributes").write_text("crlf.txt text\nfile ident\n")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", f"--message={number}")
        if number == 1:
            git(folder, "tag", "v1.2")
            git(folder, "tag", "--annotate", "--message=x", "v1.10")
            git(folder, "tag", "other-9.0")
    return folder


@pytest.fixture
def repository(clone: Path, tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "bare.git")
    made.create()
    git(clone, "push", "--quiet", str(made.path), "master", "--tags")
    return made


def checked_out(repository: Repository, commit: str, folder: Path, *untracked: str) -> Path:
    repository.checkout(commit, folder)
    for name in untracked:
        (folder / name).write_text("of the file store")
    repository.add_history(commit, folder, PurePosixPath(repository.objects), untracked)
    return folder


def test_git_reports_the_same_in_a_checkout_and_in_a_clone(repository: Repository, clone: Path, tmp_path: Path) -> None:
    commit = git(clone, "rev-parse", "HEAD")
    made = checked_out(repository, commit, tmp_path / "made")
    for asked in ("rev-parse HEAD", "describe --tags --long", "tag --list", "log --format=%s", "ls-files --stage"):
        assert git(made, *asked.split()) == git(clone, *asked.split()), asked
    assert git(made, "status", "--porcelain") == ""
    git(made, "fsck", "--no-dangling")


def test_a_clean_checkout_is_clean_to_what_does_not_compare_contents(
    repository: Repository, clone: Path, tmp_path: Path
) -> None:
    """Scripts of projects rely on this. The owner of the files has changed by then."""
    made = checked_out(repository, git(clone, "rev-parse", "HEAD"), tmp_path / "made")
    for path in (made, *made.rglob("*")):
        path.chmod(path.stat().st_mode & 0o777 | 0o020)  # changes the inode's time
        if IS_ROOT:
            os.chown(path, 0, 0)
    assert git(made, "diff-index", "--name-only", "HEAD") == ""
    assert git(made, "describe", "--tags", "--dirty").endswith(f"-g{git(clone, 'rev-parse', '--short', 'HEAD')}")


def test_a_change_shows(repository: Repository, clone: Path, tmp_path: Path) -> None:
    made = checked_out(repository, git(clone, "rev-parse", "HEAD"), tmp_path / "made")
    (made / "file").write_text("changed by the build\n")
    assert git(made, "status", "--porcelain") == "M file"
    git(made, "commit", "--all", "--quiet", "--message=in the build")  # writes to the checkout's own objects


def test_files_of_the_file_store_are_no_changes(repository: Repository, clone: Path, tmp_path: Path) -> None:
    names = ["hello_1.0.orig.tar.gz", "a b ", "#x", "!y", "[z]*?", "back\\slash", "é"]
    made = checked_out(repository, git(clone, "rev-parse", "HEAD"), tmp_path / "made", *names, "file")
    assert git(made, "status", "--porcelain") == "M file"  # one replaces a file of the code


def test_empty_folders_are_no_changes(tmp_path: Path) -> None:
    source, repository = tmp_path / "source", Repository(tmp_path / "bare.git")
    (source / "empty").mkdir(parents=True)
    (source / "a").write_text("a")
    shutil.make_archive(str(tmp_path / "code"), "tar", source)
    with (tmp_path / "code.tar").open("rb") as archive:
        commit = repository.upload(archive, "root")
    made = checked_out(repository, commit, tmp_path / "made")
    assert (made / "empty").is_dir()
    assert git(made, "status", "--porcelain") == ""


def test_a_commit_without_files_is_an_empty_folder(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    git(source, "init", "--quiet", "--initial-branch=master")
    git(source, "commit", "--quiet", "--allow-empty", "--message=first")
    git(source, "push", "--quiet", "--force", str(repository.path), "master")
    made = checked_out(repository, git(source, "rev-parse", "HEAD"), tmp_path / "made")
    assert [path.name for path in made.iterdir()] == [".git"]
    assert git(made, "status", "--porcelain") == ""


def test_nothing_is_copied_and_nothing_leads_elsewhere(repository: Repository, clone: Path, tmp_path: Path) -> None:
    made = checked_out(repository, git(clone, "rev-parse", "HEAD"), tmp_path / "made")
    assert [path for path in (made / ".git/objects").rglob("*") if path.is_file()] == [
        made / ".git/objects/info/alternates"
    ]
    assert not (made / ".git/hooks").exists()
    assert git(made, "remote") == ""
    assert str(tmp_path) not in (made / ".git/config").read_text()


def test_without_the_objects_git_fails_and_nothing_else(repository: Repository, clone: Path, tmp_path: Path) -> None:
    folder, commit = tmp_path / "made", git(clone, "rev-parse", "HEAD")
    repository.checkout(commit, folder)
    repository.add_history(commit, folder, PurePosixPath("/nonexistent"))
    assert (folder / "file").read_text() == "2\n"


# -- tags that name versions -----------------------------------------------------------------------------------------


def version_of(*projects: str) -> Callable[[str], Version | None]:
    return partial(tag_versions.of_tag, projects=projects)


def test_a_commit_is_described_by_its_own_tag_or_by_the_nearest(repository: Repository, clone: Path) -> None:
    first, tagged, newest = git(clone, "rev-list", "--reverse", "HEAD").splitlines()
    assert repository.describe(tagged, None, version_of("x")) == Described("v1.10", 0, tagged)  # the highest version
    assert repository.describe(tagged, "v1.2", version_of("x")) == Described("v1.2", 0, tagged)  # the built tag
    assert repository.describe(tagged, "refs/tags/v1.2", version_of("x")) == Described("v1.2", 0, tagged)
    assert repository.describe(tagged, "master", version_of("other")) == Described("other-9.0", 0, tagged)
    found = repository.describe(newest, "master", version_of("x"))
    assert found
    assert (found.distance, found.commit) == (1, newest)
    assert found.tag in ("v1.2", "v1.10")
    assert repository.describe(first, None, version_of("x")) is None


def test_tags_of_other_projects_are_passed_over(clone: Path) -> None:
    git(clone, "tag", "other-10.0")
    git(clone, "tag", "nightly-2024")
    found = version_tags.of_folder(clone, "x")
    assert found
    assert (found.tag in ("v1.2", "v1.10"), found.distance, found.is_dirty) == (True, 1, False)
    own = version_tags.of_folder(clone, "other")
    assert own
    assert (own.tag, own.distance) == ("other-10.0", 0)


def test_many_tags_without_a_version_hide_no_version(repository: Repository, clone: Path) -> None:
    commit = git(clone, "rev-parse", "HEAD")
    odd = [b"\xff1.0", "v\u00fc1".encode(), b"a'$(x)\"1", b"-1"]
    names = [*(f"other-{number}".encode() for number in range(100)), *odd]
    for folder in (clone / ".git", repository.path):
        with (folder / "packed-refs").open("ab") as refs:
            refs.writelines(b"%s refs/tags/%s\n" % (commit.encode(), name) for name in sorted(names))
    for found in (repository.describe(commit, None, version_of("x")), version_tags.of_folder(clone, "x")):
        assert found
        assert (found.tag in ("v1.2", "v1.10"), found.distance) == (True, 1)


def test_a_changed_folder_is_reported_as_dirty(clone: Path) -> None:
    (clone / "file").write_text("changed")
    found = version_tags.of_folder(clone, "x")
    assert found
    assert found.is_dirty


def test_a_folder_in_a_repository_and_a_work_tree_of_it_have_its_tags(clone: Path, tmp_path: Path) -> None:
    (clone / "sub").mkdir()
    (clone / "sub/pyproject.toml").write_text("project.name = 'other'")
    assert version_tags.of_folder(clone / "sub", "x") is None  # no commit contains it yet
    git(clone, "add", "sub")
    git(clone, "commit", "--quiet", "--message=sub")
    git(clone, "worktree", "add", "--quiet", str(tmp_path / "tree"))
    for folder in (clone / "sub", tmp_path / "tree/sub"):
        found = version_tags.of_folder(folder, "x")
        assert found
        assert found.distance == 2


def test_a_folder_without_a_repository_or_without_tags_has_none(tmp_path: Path) -> None:
    assert version_tags.of_folder(tmp_path, "x") is None
    git(tmp_path, "init", "--quiet")
    assert version_tags.of_folder(tmp_path, "x") is None


def test_a_repository_of_another_user_runs_nothing(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repository's settings name programs that compare files."""
    git(clone, "config", "filter.own.clean", f"touch {tmp_path}/ran; cat")
    (clone / ".git/info/attributes").write_text("file filter=own\n")
    (clone / "file").write_text("x\n")
    assert version_tags.of_folder(clone, "x") is not None
    assert (tmp_path / "ran").exists()  # `git describe` would run it, too
    (tmp_path / "ran").unlink()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert version_tags.of_folder(clone, "x") is None
    assert not (tmp_path / "ran").exists()
