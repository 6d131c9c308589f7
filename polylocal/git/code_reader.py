"""Reads the code of a project from its bare git repository: names of commits, files, archives, checkouts."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from polylocal.errors import InvalidInput, NotFound, SetupError
from polylocal.files.folders import remove_tree
from polylocal.files.unpacking import Limits
from polylocal.git import checkout, command, history, missing, revisions, tree_size, version_tags
from polylocal.git.submodules import Link
from polylocal.git.tag_versions import Described
from polylocal.system import processes
from polylocal.system.processes import QUICK, Done

if TYPE_CHECKING:
    from packaging.version import Version

BRANCH = "master"
MAX_FILE = 16 << 20  # largest file to read into memory, in bytes: a Dockerfile, a polyaxonfile, a script

_CHUNK = 1 << 20
_BLOB = re.compile(rb"[0-9a-f]+ blob ([0-9]+)")  # header of a file in the output of `git cat-file --batch`


@dataclass(frozen=True)
class Extra:
    """A file of the host to add to an archive as `<prefix><file name>`."""

    prefix: str
    path: Path


@dataclass(frozen=True)
class Ref:
    name: str  # without refs/heads/ or refs/tags/
    is_tag: bool
    commit: str


class CodeReader:
    """The code under `path`, which need not exist. Thread-safe.

    `limits`: largest commit that may be fetched, checked out or archived.
    """

    def __init__(self, path: Path, limits: Limits | None = None) -> None:
        self.path = path
        self.limits = limits or Limits()

    @property
    def exists(self) -> bool:
        return (self.path / "HEAD").exists()

    @property
    def objects(self) -> Path:
        """git's folder of objects."""
        return self.path / "objects"

    def refs(self) -> list[Ref]:
        """Branches and tags, sorted by name."""
        if not self.exists:
            return []
        form = "%(objecttype) %(objectname) %(*objectname) %(refname)"
        listed = self.run("for-each-ref", f"--format={form}", "refs/heads", "refs/tags").stdout
        # not splitlines(): names may contain other line ends of Unicode
        return [_ref(line) for line in listed.decode("utf-8", "replace").split("\n") if line]

    def resolve(self, name: str) -> str | None:
        """The commit of a branch, a tag, HEAD or a hash (at least 7 digits of it); None if there is none.

        An ambiguous name is resolved in git's order: full hash, tag, branch, first digits of a hash.
        """
        candidates = revisions.candidates(name)
        if not self.exists or not candidates:
            return None
        if name == "HEAD" and (newest := self._newest()):
            return newest
        return self.first_commit(candidates)

    def head(self) -> str | None:
        """The newest commit."""
        if not self.exists:
            return None
        return self._newest() or self.first_commit([f"refs/heads/{BRANCH}"])

    def first_commit(self, names: Sequence[str]) -> str | None:
        lines = command.lines_of([f"{name}^{{commit}}" for name in names])
        form = "--batch-check=%(objectname) %(objecttype)"
        done = self.run("cat-file", form, stdin=lines, check=False, limits=QUICK)  # it fails in damaged repositories
        output = done.stdout.decode(errors="replace").split("\n")
        found = (line.removesuffix(" commit") for line in output if line.endswith(" commit"))
        return next((sha for sha in found if revisions.is_commit(sha)), None)

    def _newest(self) -> str | None:
        """The head of the branch, read without git: every new run needs it."""
        try:
            found = (self.path / "refs" / "heads" / BRANCH).read_text().strip()
        except OSError:
            return None  # packed, or missing: ask git
        return found if revisions.is_commit(found) else None

    def files(self, commit: str, folder: str = "") -> set[str]:
        """Names of the files at the top of the code, or of a folder in it. Raises NotFound."""
        return set(self.modes(commit, folder))

    def has_folder(self, commit: str, folder: str) -> bool:
        """Whether the code has a folder of this name, or a link to a folder inside the code."""
        names = command.lines_of([self._path(commit, folder)])
        options = ((), ("--follow-symlinks",))  # with the second option, git does not find empty folders
        form = "--batch-check=%(objecttype)"
        return any(
            self.run("cat-file", form, *option, check=False, stdin=names, limits=QUICK).stdout == b"tree\n"
            for option in options
        )

    def modes(self, commit: str, folder: str = "") -> dict[str, str]:
        """The same files with git's modes: 100644, 100755, or 120000 for a link."""
        found = self.run("ls-tree", "-z", self._path(commit, folder), check=False)
        if found.returncode:
            raise NotFound(f"the code at {commit[:12]} has no folder `{folder}`")
        entries = (entry.partition(b"\t") for entry in found.stdout.split(b"\0") if entry)
        split = ((*about.decode().split(), os.fsdecode(name)) for about, _, name in entries)
        return {name: mode for mode, kind, _, name in split if kind == "blob"}

    def size(self, commit: str, path: str) -> int:
        """Size of a file in bytes. Raises NotFound."""
        found = self.run("cat-file", "-s", self._path(commit, path), check=False, limits=QUICK)
        if found.returncode:
            raise NotFound(f"the code at {commit[:12]} has no file `{path}`")
        return int(found.stdout)

    def read(self, commit: str, path: str, most: int = MAX_FILE, *, follows: bool = False) -> bytes:
        """The content of a file. `follows`: follow links inside the code, as builders do.

        Raises NotFound, InvalidInput if the file has more than `most` bytes.
        """
        options = ["--follow-symlinks"] if follows else []
        names = command.lines_of([self._path(commit, path)])
        limits = processes.Limits(output=most + _CHUNK)
        too_much = InvalidInput([f"`{path}` has more than {most >> 20} MiB, too much to be read."])
        try:
            output = self.run("cat-file", "--batch", *options, check=False, stdin=names, limits=limits).stdout
        except processes.TooMuchOutput as error:
            raise too_much from error
        head, _, content = output.partition(b"\n")
        found = _BLOB.fullmatch(head)
        if found is None or "\n" in path:  # git reads one name per line
            raise NotFound(f"the code at {commit[:12]} has no file `{path}`")
        if (size := int(found[1])) > most:
            raise too_much
        return content[:size]

    def archive(
        self,
        commit: str,
        to: IO[bytes],
        *,
        prefix: str = "",
        folder: str = "",
        extras: Sequence[Extra] = (),
        gzip: bool = False,
    ) -> None:
        """Write the code, or a folder of it, and then `extras` as a tar archive to a real file.

        Raises NotFound if there is no such folder, InvalidInput if it exceeds the limits.
        """
        self.check_size(commit, folder)
        arguments = ["archive", f"--format={'tar.gz' if gzip else 'tar'}"]
        for extra in extras:
            arguments += [f"--prefix={extra.prefix}", f"--add-file={extra.path}"]
        arguments += [f"--prefix={prefix}", "--end-of-options", self._path(commit, folder) if folder else commit]
        to.flush()
        self.run(*arguments, stdout=to)

    def checkout(self, commit: str | None, folder: Path) -> None:
        """Write the code of a commit into a new folder; None: make the folder empty. See `checkout.write`.

        The folder gets its name when it is complete. An interrupted checkout is replaced.
        """
        new = folder.with_name(f"{folder.name}.new")
        remove_tree(new)
        new.mkdir(parents=True)
        new.chmod(0o755)
        if commit:
            self.check_size(commit)
            checkout.write(self.path, commit, new)
        new.rename(folder)

    def add_history(self, commit: str, folder: Path, objects: PurePosixPath, untracked: Collection[str] = ()) -> None:
        """Add `.git` to a checkout; see `history.add`."""
        history.add(self.path, self.object(commit), folder, objects, untracked)

    def describe(
        self, commit: str, preferred: str | None, version_of: Callable[[str], Version | None]
    ) -> Described | None:
        """Describe a commit by a version tag; see `version_tags.of_commit`."""
        return version_tags.of_commit(self.path, self.object(commit), preferred, version_of)

    def missing_parts(self, commit: str) -> missing.MissingParts:
        """The submodules and git-LFS files whose contents a commit lacks."""
        return missing.find_missing(self.path, self.tree(commit))

    def submodules(self, commit: str) -> list[Link]:
        links = self.missing_parts(commit).submodules
        urls = self._urls(commit) if links else {}
        return [(path, wanted, urls.get(path)) for path, wanted in links]

    def _urls(self, commit: str) -> Mapping[str, str]:
        """URLs of submodules by path, as in `.gitmodules`."""
        arguments = ("--no-includes", "-z", "--blob", self._path(commit, ".gitmodules"), "--list")
        listed = self.run("config", *arguments, check=False, limits=QUICK).stdout.decode("utf-8", "surrogateescape")
        values: dict[str, dict[str, str]] = defaultdict(dict)
        for entry in listed.split("\0"):
            key, _, value = entry.partition("\n")
            section, _, word = key.rpartition(".")
            if section.startswith("submodule."):
                values[section][word] = value
        return {found["path"]: found["url"] for found in values.values() if {"path", "url"} <= found.keys()}

    def check_size(self, commit: str, folder: str = "") -> None:
        """Raises InvalidInput if the code exceeds the limits, NotFound."""
        tree_size.check(self.path, self.tree(commit, folder), self.limits)

    def tree(self, commit: str, folder: str = "") -> str:
        """The hash of a folder. Raises NotFound."""
        path = f"{self._path(commit, folder)}^{{tree}}" if not folder else self._path(commit, folder)
        done = self.run("rev-parse", "--verify", "--quiet", "--end-of-options", path, check=False, limits=QUICK)
        found = done.stdout.decode(errors="replace").split()
        if done.returncode and done.message:  # for a missing object git prints nothing
            raise SetupError(f"git can't read the code at {commit[:12]}: {done.message}")
        if done.returncode or not found or not revisions.is_commit(found[-1]):
            where = f"folder `{folder}`" if folder else "such commit"
            raise NotFound(f"the code at {commit[:12]} has no {where}")
        return found[-1]

    def _path(self, commit: str, path: str) -> str:
        """A path in a commit, as an argument for git. Raises NotFound for anything but a full hash."""
        return f"{self.object(commit)}:{path}" if path else self.object(commit)

    def object(self, commit: str) -> str:
        if not revisions.is_commit(commit):
            raise NotFound(f"`{commit[:40]}` is not a commit of the code")
        return commit

    def git(self, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        return self.run(*arguments, env=env, cwd=cwd).stdout.decode().strip()

    def run(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bytes = b"",
        stdout: IO[bytes] | None = None,
        check: bool = True,
        limits: processes.Limits = processes.DEFAULT,
    ) -> Done:
        done = command.run(
            *arguments,
            git_dir=self.path,
            env=env,
            cwd=cwd or self.path.parent,
            stdin=stdin,
            stdout=stdout,
            limits=limits,
        )
        if check and done.returncode:
            raise SetupError(f"git {arguments[0]} failed: {done.message}")
        return done


def _ref(line: str) -> Ref:
    kind, sha, of_tag, name = line.split(" ", 3)
    return Ref(name.split("/", 2)[2], name.startswith("refs/tags/"), of_tag if kind == "tag" else sha)
