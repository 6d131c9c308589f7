"""Adds a `.git` folder to a checkout for a container: the commit and the tags, but no copies of objects.

The container reads the objects from the project's repository, mounted read-only. There are no remotes, hooks or
credentials. In a build, `git describe`, `git rev-parse` and `git status` give the same results as in a clone.
"""

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from polylocal.errors import SetupError
from polylocal.git import command
from polylocal.system.processes import Limits

GIT = ".git"
# the owner of the files changes after the index was written, so git must compare sizes and times only
_COMPARING = {"core.checkStat": "minimal", "core.trustctime": "false"}
_CONFIG = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n" + "".join(
    f"\t{name.removeprefix('core.')} = {value}\n" for name, value in _COMPARING.items()
)
# checkouts have the exact bytes of the commit, whatever attributes the code has
_ATTRIBUTES = "* -text -eol -ident -filter -working-tree-encoding\n"
_TAGS = "%(objectname) %(refname)%(if)%(*objectname)%(then)%0a^%(*objectname)%(end)"
_LIMITS = Limits(output=256 << 20)


def add(git_dir: Path, commit: str, folder: Path, objects: PurePosixPath, untracked: Collection[str] = ()) -> None:
    """Add `.git` to the checkout of a commit in `folder`. `objects`: path of the objects of `git_dir` in the container.

    `untracked`: names of added files at the top, which `git status` must not list. Raises SetupError, InvalidInput if
    git takes too long, Cancelled.
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
    # exit code 1: a file differs from the commit, as files from the file store may
    command.run("update-index", "-q", "--refresh", git_dir=git_dir, env=index, cwd=folder, config=_COMPARING)


def _git(*arguments: str, git_dir: Path, env: dict[str, str] | None = None) -> bytes:
    done = command.run(*arguments, git_dir=git_dir, env=env, limits=_LIMITS)
    if done.returncode:
        raise SetupError(f"git {arguments[0]} failed: {done.message}")
    return done.stdout


def _pattern(name: str) -> bytes:
    """A line of an exclude file for one file at the top; empty for a name that no line can express."""
    if "\n" in name or "\r" in name:
        return b""
    escaped = "".join(f"\\{character}" if character in "\\*?[] " else character for character in name)
    return f"/{escaped}\n".encode("utf-8", "surrogateescape")
