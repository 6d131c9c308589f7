"""The `.git` of a checkout in a container: its commit and the tags, without a copy of any object.

The objects stay in the project's repository, which the container has read-only. There are no remotes, hooks or
credentials. With it `git describe`, `git rev-parse` and `git status` say in a build what they say in a clone.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from polylocal.errors import SetupError
from polylocal.git import command
from polylocal.system.processes import Limits

GIT = ".git"
# the owner of a checkout changes after its files were compared with the index: only their sizes and times are looked at
_COMPARING = {"core.checkStat": "minimal", "core.trustctime": "false"}
_CONFIG = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n" + "".join(
    f"\t{name.removeprefix('core.')} = {value}\n" for name, value in _COMPARING.items()
)
# files of a checkout are those of the commit, byte by byte, whatever the code's own attributes say
_ATTRIBUTES = "* -text -eol -ident -filter -working-tree-encoding\n"
_TAGS = "%(objectname) %(refname)%(if)%(*objectname)%(then)%0a^%(*objectname)%(end)"
_LIMITS = Limits(output=256 << 20)


def add(git_dir: Path, commit: str, folder: Path, objects: PurePosixPath, untracked: Collection[str] = ()) -> None:
    """Add a `.git` to the checkout of a commit in `folder`. `objects`: where the container has those of `git_dir`.

    `untracked` are names of files at the top that were added to the checkout: `git status` does not list them. Raises
    SetupError; InvalidInput: git took too long; Cancelled.
    """
    made = folder / GIT
    for name in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "info"):
        (made / name).mkdir(parents=True)
    tags = _git("for-each-ref", f"--format={_TAGS}", "refs/tags", git_dir=git_dir)
    (made / "packed-refs").write_bytes(b"# pack-refs with: peeled fully-peeled sorted \n" + tags)
    (made / "HEAD").write_text(f"{commit}\n")
    (made / "config").write_text(_CONFIG)
    (made / "objects/info/alternates").write_text(f"{objects}\n")
    (made / "info/attributes").write_text(_ATTRIBUTES)
    (made / "info/exclude").write_bytes(b"".join(map(_pattern, untracked)))
    index = {"GIT_INDEX_FILE": str(made / "index"), "GIT_WORK_TREE": str(folder)}
    _git("read-tree", commit, git_dir=git_dir, env=index)
    # ends with 1 where a file differs from the commit's, as one of the file store may
    command.run("update-index", "-q", "--refresh", git_dir=git_dir, env=index, cwd=folder, config=_COMPARING)


def _git(*arguments: str, git_dir: Path, env: dict[str, str] | None = None) -> bytes:
    done = command.run(*arguments, git_dir=git_dir, env=env, limits=_LIMITS)
    if done.returncode:
        raise SetupError(f"git {arguments[0]} failed: {done.words}")
    return done.stdout


def _pattern(name: str) -> bytes:
    """A line of an exclude file that names one file at the top; none for a name that no line can hold."""
    if "\n" in name or "\r" in name:
        return b""
    escaped = "".join(f"\\{character}" if character in "\\*?[] " else character for character in name)
    return f"/{escaped}\n".encode("utf-8", "surrogateescape")
