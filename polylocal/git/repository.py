"""The code of a project: a bare git repository, filled by uploads, pushes and fetches."""

from __future__ import annotations

import math
import shutil
import stat
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from polylocal.errors import InvalidInput
from polylocal.files.folders import walk
from polylocal.files.unpacking import Limits, unpack
from polylocal.git import command, empty_folders, revisions, tree_size
from polylocal.git.code_reader import BRANCH, CodeReader
from polylocal.git.fetching import Fetch, FetchSource, identity
from polylocal.system.cancellation import Cancelled, locked

_INCOMPLETE = ("pack/tmp_*", "??/tmp_obj_*", "tmp_objdir-*", "incoming-*")  # names of incomplete packs and objects
_ABANDONED_AFTER_S = 3600.0  # seconds after which an incomplete pack is abandoned

# builds use the exact files: attributes in the code must not leave files out or rewrite them
_ATTRIBUTES = "* -export-ignore -export-subst -text -eol -ident -filter -working-tree-encoding\n"
_MAX_LARGE = 100  # most files that a commit leaves out for their size
_CACHES = frozenset({".ipynb_checkpoints", "__pycache__"})  # caches that programs create
_locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)


@dataclass(frozen=True)
class Committed:
    """`commit` is None if nothing changed. `left_out`: files and folders that were not committed."""

    commit: str | None
    left_out: list[str]


class Repository(CodeReader):
    """The code under `path`, with the operations that change it. Thread-safe."""

    def create(self, branch: str = BRANCH) -> None:
        """Create an empty repository with the branch `branch`, if there is none. Idempotent."""
        with locked(_locks[self.path]):
            if not self.exists:
                self._folder()
                self._create()
                self._set_head(branch)

    def set_head(self, branch: str) -> None:
        """Set the default branch of clones."""
        with locked(_locks[self.path]):
            if self.exists:
                self._set_head(branch)

    def _set_head(self, branch: str) -> None:
        if not revisions.is_ref(branch):
            raise InvalidInput([f"`{branch[:100]}` is not the name of a branch."])
        self.git("symbolic-ref", "HEAD", f"refs/heads/{branch}")

    @contextmanager
    def receive_push(self) -> Iterator[None]:
        """Hold the repository's lock while git receives a push."""
        with locked(_locks[self.path]):
            self._sweep(time.time() - _ABANDONED_AFTER_S)
            yield

    def upload(self, archive: BinaryIO, author: str, limits: Limits | None = None) -> str:
        """Commit an uploaded tar archive, and return the hash of the commit.

        If nothing changed, returns the present commit, so builds are reused. Raises InvalidInput if the archive is not
        a tar, leads out of its folder or exceeds `limits`.
        """
        with locked(_locks[self.path]), tempfile.TemporaryDirectory(dir=self._folder(), prefix="upload-") as folder:
            tree = Path(folder) / "tree"
            tree.mkdir()
            unpack(archive, tree, limits)
            self._create()
            index = {"GIT_INDEX_FILE": f"{folder}/index", "GIT_WORK_TREE": str(tree)}
            self.git("add", "--all", "--force", ".", env=index, cwd=tree)
            self._stage_empty(empty_folders.on_disk(tree)[1], index)
            return self._commit(self.git("write-tree", env=index), author)

    def commit_folder(self, folder: Path, base: str | None, author: str) -> Committed:
        """Commit the changes in a folder since the checkout of `base`, on top of the newest commit.

        Leaves out files that `.gitignore` names and `base` does not contain, nested repositories, and single files
        beyond the limits. Raises InvalidInput without a commit if others changed the same lines meanwhile, or if all
        files together exceed the limits.
        """
        base = self.object(base) if base else None
        with locked(_locks[self.path]), tempfile.TemporaryDirectory(dir=self._folder(), prefix="commit-") as work:
            self._create()
            index = {"GIT_INDEX_FILE": f"{work}/index", "GIT_WORK_TREE": str(folder)}
            self.git("read-tree", *([base] if base else ["--empty"]), env=index)
            empty = self._unstage_empty(index)
            inside = _repositories(folder)
            kept_out = [f":(exclude,literal){name}" for name in inside]
            kept_out += [f":(exclude,glob)**/{name}/**" for name in _CACHES]
            large = self._find_too_large(folder, index, kept_out)
            kept_out += [f":(exclude,literal){name}" for name in large]
            self.git("add", "--all", "--", ".", *kept_out, env=index, cwd=folder)
            if empty:
                filled = self._list_files("--cached", env=index, cwd=folder)
                self._stage_empty(empty_folders.remaining(empty, empty_folders.on_disk(folder)[0], filled), index)
            others = self._list_files("--others", env=index, cwd=folder)
            tops = (name.partition("/")[0] for name in others if not _CACHES & set(Path(name).parts))
            why = {name: f"{name} (more than {self.limits.max_unpacked_mib} MiB)" for name in large}
            left_out = list(dict.fromkeys([*inside, *why.values(), *(top for top in tops if top not in why)]))
            tree_id = self.git("write-tree", env=index)
            before = self.tree(base) if base else empty_folders.EMPTY_TREE
            if tree_id == before:
                return Committed(None, left_out)
            tree_size.check(self.path, tree_id, self.limits)
            return Committed(self._commit(self._merge_with_newest(tree_id, base, author), author), left_out)

    def _stage_empty(self, folders: Collection[str], env: Mapping[str, str]) -> None:
        if folders:
            self.run("update-index", "-z", "--index-info", env=env, stdin=empty_folders.entries(folders))

    def _unstage_empty(self, env: Mapping[str, str]) -> list[str]:
        """Remove the empty folders from an index and return them: git would ignore files inside a submodule entry."""
        found = empty_folders.in_index(self._list_files("--stage", env=env, cwd=self.path))
        if found:
            names = "".join(f"{name}\0" for name in found).encode("utf-8", "surrogateescape")
            self.run("update-index", "-z", "--force-remove", "--stdin", env=env, stdin=names)
        return found

    def _list_files(self, *arguments: str, env: Mapping[str, str], cwd: Path) -> Iterator[str]:
        """The names that `git ls-files` prints, through a temporary file: a folder may contain millions."""
        with tempfile.TemporaryFile() as file:
            self.run("ls-files", "-z", *arguments, env=env, cwd=cwd, stdout=file)
            yield from command.names_in(file)

    def _find_too_large(self, folder: Path, env: Mapping[str, str], kept_out: Sequence[str]) -> list[str]:
        """Files too large for a commit, found before any file is read.

        Raises InvalidInput if there are too many of them, too many files in all, or too many bytes.
        """
        found: list[str] = []
        count = size = 0
        limits = self.limits
        wanted = ("--cached", "--others", "--exclude-standard", "--", ".", *kept_out)
        for name in self._list_files(*wanted, env=env, cwd=folder):
            try:
                about = (folder / name).lstat()
            except OSError:
                continue  # removed, or unreachable for git as well
            count += 1
            if stat.S_ISREG(about.st_mode) and about.st_size > limits.size:
                found.append(name)
            else:
                size += about.st_size
            if count > limits.max_upload_files:
                raise InvalidInput([f"It contains more than {limits.max_upload_files} files (max_upload_files)."])
            if len(found) > _MAX_LARGE:
                what = f"{_MAX_LARGE} files of more than {limits.max_unpacked_mib} MiB each"
                raise InvalidInput([f"It contains more than {what} (max_unpacked_mib)."])
            if size > limits.size:
                raise InvalidInput([f"Its files are larger than {limits.max_unpacked_mib} MiB (max_unpacked_mib)."])
        return found

    def fetch(
        self,
        url: str,
        protocols: str,
        *,
        with_keys: bool = True,
        local_hosts: Collection[str] = (),
        warn: Callable[[str], object] = lambda warning: None,
    ) -> str:
        """Fetch the newest commit of another repository, make it the newest one here, and return its hash.

        If it has submodules or git-LFS files, the result is a commit on top of it with their contents. `warn` receives
        a sentence for each that could not be fetched.

        `protocols`: those that git may use, joined by colons. `with_keys`: use the credentials and settings of the
        daemon's user. Raises InvalidInput with git's message; then nothing has changed.
        """
        with locked(_locks[self.path]):
            self._folder()
            is_new = not self.exists
            self._create()
            began = time.time()
            self._sweep(began - _ABANDONED_AFTER_S)
            try:
                return Fetch(self, FetchSource(url, protocols, with_keys, local_hosts), warn).run()
            except (InvalidInput, Cancelled):
                if is_new:
                    self.remove()
                else:
                    self._sweep(since=began - 1)
                raise

    def _sweep(self, until: float = math.inf, since: float = 0.0) -> None:
        """Remove incomplete packs and objects, last written between two times, that interrupted git processes left."""
        for path in (path for form in _INCOMPLETE for path in self.objects.glob(form)):
            with suppress(OSError):  # it vanished, or a later sweep removes it
                if since <= path.stat().st_mtime <= until:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _merge_with_newest(self, tree_id: str, base: str | None, author: str) -> str:
        """A tree that merges the changes of `tree_id` since `base` with those of the newest commit."""
        head = self.head()
        if head == base or head is None:
            return tree_id
        mine = self.git("commit-tree", tree_id, *(["-p", base] if base else []), "-m", "own", env=identity(author))
        merged = self.run("merge-tree", "--write-tree", "--allow-unrelated-histories", head, mine, check=False)
        if merged.returncode == 1:
            raise InvalidInput(["Others changed the same lines of the code meanwhile."])
        if merged.returncode:
            raise InvalidInput(["Others changed the code meanwhile, and git before 2.38 can't merge the changes."])
        return merged.stdout.decode().split()[0]

    def _commit(self, tree_id: str, author: str) -> str:
        """Commit a tree. Returns the present commit if it has the same tree."""
        head = self.head()
        if head and self.tree(head) == tree_id:
            return head
        parents = ["-p", head] if head else []
        commit = self.git("commit-tree", tree_id, *parents, "-m", "updated", env=identity(author))
        self.git("update-ref", f"refs/heads/{BRANCH}", commit)
        return commit

    def _folder(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.path.parent

    def _create(self) -> None:
        if self.exists:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        self.run("init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(self.path))
        (self.path / "info").mkdir(exist_ok=True)
        (self.path / "info" / "attributes").write_text(_ATTRIBUTES)


def _repositories(folder: Path) -> list[str]:
    """Nested repositories in a folder, which git can't add, by their paths; `.git` at the top."""
    found = [".git"] if (folder / ".git").exists() else []
    for entry in walk(folder, every_kind=True, enter=lambda inner: inner.name != ".git"):
        parent = entry.path.rpartition("/")[0]
        if entry.name == ".git" and parent and not any(parent.startswith(f"{outer}/") for outer in found):
            found.append(parent)
    return found
