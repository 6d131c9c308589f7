"""Finds the nearest tag of a commit that names a version, with `git describe`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from polylocal.errors import InvalidInput, SetupError
from polylocal.git import command, tag_versions
from polylocal.git.tag_versions import Described
from polylocal.system.processes import QUICK

if TYPE_CHECKING:
    from packaging.version import Version

_MAX_BYTES = 1 << 18  # of a pyproject.toml
_MAX_TAGS = 1000  # version tags passed to git, each as an argument


def nearest(
    git_dir: Path, commit: str | None, is_version: Callable[[str], bool], *, work_tree: Path | None = None
) -> Described | None:
    """Describe a commit by its nearest earlier tag that `is_version` accepts; None if there is none.

    Without a `commit`, describes HEAD, and `is_dirty` is True if files of `work_tree` differ from it. Raises
    InvalidInput, SetupError, Cancelled.
    """
    wanted = [tag for tag in _tags(git_dir, f"--merged={commit or 'HEAD'}") if is_version(tag)][:_MAX_TAGS]
    if not wanted:
        return None
    env = {"GIT_WORK_TREE": str(work_tree)} if work_tree else {}
    # names of tags can't contain characters with a meaning in patterns
    patterns = [f"--match={tag}" for tag in wanted]
    arguments = ("describe", "--tags", "--long", "--abbrev=40", *patterns, *([commit] if commit else ["--dirty"]))
    done = command.run(*arguments, git_dir=git_dir, env=env, cwd=work_tree or git_dir.parent, limits=QUICK)
    if done.returncode:
        return None  # the tag was removed meanwhile
    return tag_versions.parse(done.stdout.decode("utf-8", "replace").strip())


def _tags(git_dir: Path, which: str) -> list[str]:
    """The tags that an option of `git for-each-ref` selects, newest first; empty without a commit."""
    arguments = ("for-each-ref", which, "--sort=-creatordate", "--format=%(refname:strip=2)", "refs/tags")
    listed = command.run(*arguments, git_dir=git_dir, limits=QUICK)
    return listed.stdout.decode("utf-8", "replace").split("\n")[:-1] if not listed.returncode else []


def of_commit(
    git_dir: Path, commit: str, preferred: str | None, version_of: Callable[[str], Version | None]
) -> Described | None:
    """Describe a commit by a version tag: one on the commit itself, otherwise the nearest earlier one.

    Of several tags on the commit, `preferred` wins (with or without `refs/tags/`), then the highest version. None if
    there is no version tag. Raises InvalidInput, SetupError, Cancelled.
    """
    preferred = (preferred or "").removeprefix("refs/tags/")
    tags = _tags(git_dir, f"--points-at={commit}")
    own = {tag: version for tag in tags if (version := version_of(tag)) is not None}
    if own:
        tag = preferred if preferred in own else max(own, key=own.__getitem__)
        return Described(str(tag), 0, commit)
    return nearest(git_dir, commit, lambda tag: version_of(tag) is not None)


def of_folder(folder: Path, project: str) -> Described | None:
    """Describe the code in a folder by the version tags of the repository around it.

    `folder` is absolute; `project` is the name of its project. None if no repository tracks the folder, the repository
    belongs to another user, no tag names a version, or git is not installed.
    """
    top = next((above for above in (folder, *folder.parents) if (above / ".git").exists()), None)
    if top is None or not _is_own(top):
        return None
    names = tag_versions.names(project, _read_text(folder / "pyproject.toml"))
    env = {"GIT_WORK_TREE": str(top)}
    try:
        tracked = command.run("ls-files", "-z", "--", ".", git_dir=top / ".git", env=env, cwd=folder, limits=QUICK)
        if not tracked.stdout:
            return None  # a repository with other contents, for example of a home folder
        return nearest(top / ".git", None, lambda tag: tag_versions.of_tag(tag, names) is not None, work_tree=top)
    except (SetupError, InvalidInput, OSError):
        return None


def _is_own(top: Path) -> bool:
    """Whether this user owns a repository. `git describe --dirty` runs programs that its settings name.

    git checks the owner itself, but not if GIT_DIR is set.
    """
    try:
        return all(path.stat().st_uid == os.geteuid() for path in (top, top / ".git"))
    except OSError:
        return False


def _read_text(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
