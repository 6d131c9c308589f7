"""The code of a project: a bare git repository, filled by uploads, pushes and fetches."""

from __future__ import annotations

import math
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, BinaryIO

from polylocal.errors import InvalidInput, NotFound, SetupError
from polylocal.files.folders import remove_tree, walk
from polylocal.files.unpacking import Limits, unpack
from polylocal.git import (
    checkout,
    command,
    empty_folders,
    history,
    lfs,
    missing,
    remotes,
    revisions,
    submodules,
    tree_size,
    version_tags,
)
from polylocal.git.tag_versions import Described
from polylocal.system import processes
from polylocal.system.cancellation import Cancelled, holding
from polylocal.system.processes import QUICK, Done

if TYPE_CHECKING:
    from packaging.version import Version

BRANCH = "master"
_HALVES = ("pack/tmp_*", "??/tmp_obj_*", "tmp_objdir-*", "incoming-*")  # names of incomplete packs and objects
_LEFT_S = 3600.0  # seconds after which an incomplete pack is abandoned
FETCH_S = 600  # most seconds for a fetch
MAX_FILE = 16 << 20  # largest file to read into memory, in bytes: a Dockerfile, a polyaxonfile, a script

# builds use the exact files: attributes in the code must not leave files out or rewrite them
_ATTRIBUTES = "* -export-ignore -export-subst -text -eol -ident -filter -working-tree-encoding\n"
_CHUNK = 1 << 20
_BLOB = re.compile(rb"[0-9a-f]+ blob ([0-9]+)")  # header of a file in the output of `git cat-file --batch`
_MOST_LARGE = 100  # most files that a commit leaves out for their size
_MADE_ANEW = frozenset({".ipynb_checkpoints", "__pycache__"})  # caches that programs create
_FETCHED = "refs/polylocal/fetched"  # a fetched commit, until the fetch is complete
_locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)


@dataclass(frozen=True)
class Extra:
    """A file of the host to add to an archive as `<prefix><file name>`."""

    prefix: str
    path: Path


@dataclass(frozen=True)
class Committed:
    """`commit` is None if nothing changed. `left_out`: files and folders that were not committed."""

    commit: str | None
    left_out: list[str]


@dataclass(frozen=True)
class Ref:
    name: str  # without refs/heads/ or refs/tags/
    is_tag: bool
    commit: str


@dataclass(frozen=True)
class FetchSource:
    """A fetch: its URL, its rights and its deadline."""

    url: str
    protocols: str
    with_keys: bool
    local_hosts: Collection[str]
    until: float  # deadline on the monotonic clock

    @property
    def seconds(self) -> float:
        return max(1.0, self.until - time.monotonic())

    def route(self) -> remotes.Route:
        """Raises InvalidInput if the user must not reach the URL."""
        return (
            remotes.Route(self.url, self.protocols) if self.with_keys else remotes.checked(self.url, self.local_hosts)
        )

    def submodule(self, url: str) -> FetchSource:
        """The fetch of a submodule. It may use keys and local files only if it lies beside the repository."""
        if self.with_keys and not submodules.is_beside(self.url, url):
            protocols = ":".join(name for name in self.protocols.split(":") if name != "file")
            return replace(self, url=url, protocols=protocols, with_keys=False)
        return replace(self, url=url)


class Repository:
    """The code under `path`, which need not exist before the first upload. Thread-safe.

    `limits`: largest commit that may be fetched, checked out or archived.
    """

    def __init__(self, path: Path, limits: Limits | None = None) -> None:
        self.path = path
        self._limits = limits or Limits()

    @property
    def exists(self) -> bool:
        return (self.path / "HEAD").exists()

    def create(self, branch: str = BRANCH) -> None:
        """Create an empty repository with the branch `branch`, if there is none. Idempotent."""
        with holding(_locks[self.path]):
            if not self.exists:
                self._folder()
                self._create()
                self._point_to(branch)

    def set_head(self, branch: str) -> None:
        """Set the default branch of clones."""
        with holding(_locks[self.path]):
            if self.exists:
                self._point_to(branch)

    def _point_to(self, branch: str) -> None:
        if not revisions.is_ref(branch):
            raise InvalidInput([f"`{branch[:100]}` is no name of a branch."])
        self._git("symbolic-ref", "HEAD", f"refs/heads/{branch}")

    @contextmanager
    def changed_by_git(self) -> Iterator[None]:
        """Hold the repository's lock while git receives a push."""
        with holding(_locks[self.path]):
            self._sweep(time.time() - _LEFT_S)
            yield

    def refs(self) -> list[Ref]:
        """Branches and tags, sorted by name."""
        if not self.exists:
            return []
        form = "%(objecttype) %(objectname) %(*objectname) %(refname)"
        listed = self._run("for-each-ref", f"--format={form}", "refs/heads", "refs/tags").stdout
        # not splitlines(): names may contain other line ends of Unicode
        return [_ref(line) for line in listed.decode("utf-8", "replace").split("\n") if line]

    def upload(self, archive: BinaryIO, author: str, limits: Limits | None = None) -> str:
        """Commit an uploaded tar archive, and return the hash of the commit.

        If nothing changed, returns the present commit, so builds are reused. Raises InvalidInput if the archive is not
        a tar, leads out of its folder or exceeds `limits`.
        """
        with holding(_locks[self.path]), tempfile.TemporaryDirectory(dir=self._folder(), prefix="upload-") as folder:
            tree = Path(folder) / "tree"
            tree.mkdir()
            unpack(archive, tree, limits)
            self._create()
            index = {"GIT_INDEX_FILE": f"{folder}/index", "GIT_WORK_TREE": str(tree)}
            self._git("add", "--all", "--force", ".", env=index, cwd=tree)
            self._stage_empty(empty_folders.on_disk(tree)[1], index)
            return self._commit(self._git("write-tree", env=index), author)

    def commit_folder(self, folder: Path, base: str | None, author: str) -> Committed:
        """Commit the changes in a folder since the checkout of `base`, on top of the newest commit.

        Leaves out files that `.gitignore` names and `base` does not contain, nested repositories, and single files
        beyond the limits. Raises InvalidInput without a commit if others changed the same lines meanwhile, or if all
        files together exceed the limits.
        """
        base = self._object(base) if base else None
        with holding(_locks[self.path]), tempfile.TemporaryDirectory(dir=self._folder(), prefix="commit-") as work:
            self._create()
            index = {"GIT_INDEX_FILE": f"{work}/index", "GIT_WORK_TREE": str(folder)}
            self._git("read-tree", *([base] if base else ["--empty"]), env=index)
            empty = self._unstage_empty(index)
            inside = _repositories(folder)
            kept_out = [f":(exclude,literal){name}" for name in inside]
            kept_out += [f":(exclude,glob)**/{name}/**" for name in _MADE_ANEW]
            large = self._too_large(folder, index, kept_out)
            kept_out += [f":(exclude,literal){name}" for name in large]
            self._git("add", "--all", "--", ".", *kept_out, env=index, cwd=folder)
            if empty:
                filled = self._listed("--cached", env=index, cwd=folder)
                self._stage_empty(empty_folders.still_empty(empty, empty_folders.on_disk(folder)[0], filled), index)
            others = self._listed("--others", env=index, cwd=folder)
            tops = (name.partition("/")[0] for name in others if not _MADE_ANEW & set(Path(name).parts))
            why = {name: f"{name} (more than {self._limits.max_unpacked_mib} MiB)" for name in large}
            left_out = list(dict.fromkeys([*inside, *why.values(), *(top for top in tops if top not in why)]))
            tree_id = self._git("write-tree", env=index)
            before = self._tree(base) if base else empty_folders.EMPTY_TREE
            if tree_id == before:
                return Committed(None, left_out)
            tree_size.check(self.path, tree_id, self._limits)
            return Committed(self._commit(self._on_newest(tree_id, base, author), author), left_out)

    def _stage_empty(self, folders: Collection[str], env: Mapping[str, str]) -> None:
        if folders:
            self._run("update-index", "-z", "--index-info", env=env, stdin=empty_folders.entries(folders))

    def _unstage_empty(self, env: Mapping[str, str]) -> list[str]:
        """Remove the empty folders from an index and return them: git would ignore files inside a submodule entry."""
        found = empty_folders.staged(self._listed("--stage", env=env, cwd=self.path))
        if found:
            names = "".join(f"{name}\0" for name in found).encode("utf-8", "surrogateescape")
            self._run("update-index", "-z", "--force-remove", "--stdin", env=env, stdin=names)
        return found

    def _listed(self, *arguments: str, env: Mapping[str, str], cwd: Path) -> Iterator[str]:
        """The names that `git ls-files` prints, through a temporary file: a folder may hold millions."""
        with tempfile.TemporaryFile() as file:
            self._run("ls-files", "-z", *arguments, env=env, cwd=cwd, stdout=file)
            file.seek(0)
            rest = b""
            while chunk := file.read(_CHUNK):
                *names, rest = (rest + chunk).split(b"\0")
                yield from map(os.fsdecode, names)

    def _too_large(self, folder: Path, env: Mapping[str, str], kept_out: Sequence[str]) -> list[str]:
        """Files too large for a commit, found before any file is read.

        Raises InvalidInput if there are too many of them, too many files in all, or too many bytes.
        """
        found: list[str] = []
        count = size = 0
        limits = self._limits
        wanted = ("--cached", "--others", "--exclude-standard", "--", ".", *kept_out)
        for name in self._listed(*wanted, env=env, cwd=folder):
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
                raise InvalidInput([f"It holds more than {limits.max_upload_files} files (max_upload_files)."])
            if len(found) > _MOST_LARGE:
                what = f"{_MOST_LARGE} files of more than {limits.max_unpacked_mib} MiB each"
                raise InvalidInput([f"It holds more than {what} (max_unpacked_mib)."])
            if size > limits.size:
                raise InvalidInput([f"Its files are larger than {limits.max_unpacked_mib} MiB (max_unpacked_mib)."])
        return found

    def checkout(self, commit: str | None, folder: Path) -> None:
        """Write the code of a commit into a new folder; None: make the folder empty. See `checkout.write`.

        The folder gets its name when it is complete. An interrupted checkout is replaced.
        """
        new = folder.with_name(f"{folder.name}.new")
        remove_tree(new)
        new.mkdir(parents=True)
        new.chmod(0o755)
        if commit:
            self._check_size(commit)
            checkout.write(self.path, commit, new)
        new.rename(folder)

    def add_history(self, commit: str, folder: Path, objects: PurePosixPath, untracked: Collection[str] = ()) -> None:
        """Add `.git` to a checkout; see `history.add`."""
        history.add(self.path, self._object(commit), folder, objects, untracked)

    @property
    def objects(self) -> Path:
        """git's folder of objects."""
        return self.path / "objects"

    def describe(
        self, commit: str, preferred: str | None, version_of: Callable[[str], Version | None]
    ) -> Described | None:
        """Describe a commit by a version tag; see `version_tags.of_commit`."""
        return version_tags.of_commit(self.path, self._object(commit), preferred, version_of)

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
        with holding(_locks[self.path]):
            self._folder()
            is_new = not self.exists
            self._create()
            began = time.time()
            self._sweep(began - _LEFT_S)
            source = FetchSource(url, protocols, with_keys, local_hosts, time.monotonic() + FETCH_S)
            try:
                return self._fetched(source, warn)
            except (InvalidInput, Cancelled):
                if is_new:
                    self.remove()
                else:
                    self._sweep(since=began - 1)
                raise

    def _fetched(self, source: FetchSource, warn: Callable[[str], object]) -> str:
        shown = without_secrets(source.url)
        self._git("update-ref", "-d", _FETCHED)
        self._fetch_into(source, [f"+HEAD:{_FETCHED}"])
        head = self._first_commit([_FETCHED])
        if head is None:
            raise InvalidInput([f"`{shown}` could not be fetched: it has no commit"])
        try:
            self._check_size(head)
            whole = self._completed(head, source, warn)
            self._check_size(whole)
        except (InvalidInput, NotFound) as error:
            raise InvalidInput([f"`{shown}` was refused: {error}"]) from error
        self._git("update-ref", f"refs/heads/{BRANCH}", whole)
        self._git("update-ref", "-d", _FETCHED)
        return whole

    def _fetch_into(self, source: FetchSource, refs: Sequence[str]) -> None:
        """Raises InvalidInput with git's message."""
        url, shown = source.url, without_secrets(source.url)
        try:
            route = source.route()
            allowed = set(source.protocols.split(":")) & set(route.protocols.split(":"))
            environment = _environment(source.with_keys) | dict(route.environment)
            environment |= {"GIT_DIR": str(self.path), "GIT_ALLOW_PROTOCOL": ":".join(sorted(allowed))}
            done = command.run(
                *("fetch", "--quiet", "--force", "--no-tags", "--no-recurse-submodules"),
                *("--end-of-options", route.url, *refs),
                git_dir=self.path,
                base={},
                env=environment,
                config=route.config,
                cwd=self.path,
                limits=processes.Limits(seconds=source.seconds, file_bytes=self._limits.size),
            )
        except processes.TimedOut as error:
            raise InvalidInput([f"`{shown}` could not be fetched within {FETCH_S} seconds."]) from error
        except InvalidInput as error:
            why = "; ".join(error.messages)
            raise InvalidInput([f"`{shown}` could not be fetched: {why.replace(url, shown)}"]) from error
        if done.returncode:
            why = _reason(done.stderr).replace(url, shown).replace(route.url, shown)
            if done.outgrew:
                why = f"it is larger than {self._limits.max_unpacked_mib} MiB (max_unpacked_mib)"
            raise InvalidInput([f"`{shown}` could not be fetched: {why}"])

    # -- submodules and git-LFS

    def lacks(self, commit: str) -> missing.Lacks:
        """The submodules and git-LFS files whose contents a commit lacks."""
        return missing.look(self.path, self._tree(commit))

    def submodules(self, commit: str) -> Sequence[tuple[str, str]]:
        return self.lacks(commit).submodules

    def urls(self, commit: str) -> Mapping[str, str]:
        """URLs of submodules by path, as in `.gitmodules`."""
        arguments = ("--no-includes", "-z", "--blob", self._path(commit, ".gitmodules"), "--list")
        listed = self._run("config", *arguments, check=False, limits=QUICK).stdout.decode("utf-8", "surrogateescape")
        values: dict[str, dict[str, str]] = defaultdict(dict)
        for entry in listed.split("\0"):
            key, _, value = entry.partition("\n")
            section, _, word = key.rpartition(".")
            if section.startswith("submodule."):
                values[section][word] = value
        return {found["path"]: found["url"] for found in values.values() if {"path", "url"} <= found.keys()}

    def _completed(self, head: str, source: FetchSource, warn: Callable[[str], object]) -> str:
        """A commit with the contents of submodules and git-LFS files; `head` itself if it has none."""
        found = submodules.collect(self, head, source.url, partial(self._fetch_submodule, source), without_secrets)
        with tempfile.TemporaryDirectory(dir=self._folder(), prefix="fetch-") as work:
            index = {"GIT_INDEX_FILE": f"{work}/index", "GIT_WORK_TREE": work}  # no files are written there
            self._git("read-tree", head, env=index)
            for path, commit in found.fetched:
                gone = f"0 {'0' * 40}\t{path}\0".encode("utf-8", "surrogateescape")
                self._run("update-index", "-z", "--index-info", env=index, stdin=gone)
                put = self._run("read-tree", f"--prefix={path}/", commit, env=index, cwd=Path(work), check=False)
                if put.returncode:  # names that git refuses
                    raise InvalidInput([f"its submodule `{path}` can't be put into its folder: {put.words}"])
            tree = self._git("write-tree", env=index)
            if pointers := missing.look(self.path, tree).pointers:
                environment = _environment(source.with_keys)
                fetched = lfs.fetch(
                    self.path, pointers, source.url, source.with_keys, environment, Path(work), self._limits
                )
                self._run("update-index", "-z", "--index-info", env=index, stdin=fetched)
                tree = self._git("write-tree", env=index)
        for warning in found.warnings:
            warn(warning)
        for warning in missing.Lacks(pointers=missing.look(self.path, tree).pointers).sentences():
            warn(warning)
        if tree == self._tree(head):
            return head
        # fixed dates: the same content gives the same commit, so builds are reused
        when = f"@{self._git('show', '--no-patch', '--format=%ct', head)} +0000"
        dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
        message = "with the content of submodules and git-LFS"
        return self._git("commit-tree", tree, "-p", head, "-m", message, env=_identity("polylocal") | dates)

    def _fetch_submodule(self, source: FetchSource, url: str, commit: str) -> None:
        """Raises InvalidInput."""
        kept = f"refs/polylocal/submodules/{commit}"
        if self._first_commit([kept]):
            return
        where = source.submodule(url)
        try:
            self._fetch_into(where, [f"+{commit}:{kept}"])
        except InvalidInput:  # the server serves heads of branches only
            self._fetch_into(where, [f"+refs/heads/*:{kept}-branches/*"])
            if not self._first_commit([commit]):
                raise
            self._git("update-ref", kept, commit)

    def _sweep(self, until: float = math.inf, since: float = 0.0) -> None:
        """Remove incomplete packs and objects, last written between two times, that interrupted git processes left."""
        for path in (path for form in _HALVES for path in self.objects.glob(form)):
            with suppress(OSError):  # it vanished, or a later sweep removes it
                if since <= path.stat().st_mtime <= until:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def resolve(self, name: str) -> str | None:
        """The commit of a branch, a tag, HEAD or a hash (at least 7 digits of it); None if there is none.

        An ambiguous name is resolved in git's order: full hash, tag, branch, first digits of a hash.
        """
        candidates = revisions.candidates(name)
        if not self.exists or not candidates:
            return None
        if name == "HEAD" and (newest := self._newest()):
            return newest
        return self._first_commit(candidates)

    def _head(self) -> str | None:
        """The newest commit."""
        if not self.exists:
            return None
        return self._newest() or self._first_commit([f"refs/heads/{BRANCH}"])

    def _first_commit(self, names: Sequence[str]) -> str | None:
        lines = command.lines_of([f"{name}^{{commit}}" for name in names])
        form = "--batch-check=%(objectname) %(objecttype)"
        done = self._run("cat-file", form, stdin=lines, check=False, limits=QUICK)  # it fails in damaged repositories
        said = done.stdout.decode(errors="replace").split("\n")
        found = (line.removesuffix(" commit") for line in said if line.endswith(" commit"))
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
        asked = command.lines_of([self._path(commit, folder)])
        options = ((), ("--follow-symlinks",))  # with the second option, git does not find empty folders
        form = "--batch-check=%(objecttype)"
        return any(
            self._run("cat-file", form, *option, check=False, stdin=asked, limits=QUICK).stdout == b"tree\n"
            for option in options
        )

    def modes(self, commit: str, folder: str = "") -> dict[str, str]:
        """The same files with git's modes: 100644, 100755, or 120000 for a link."""
        found = self._run("ls-tree", "-z", self._path(commit, folder), check=False)
        if found.returncode:
            raise NotFound(f"the code at {commit[:12]} has no folder `{folder}`")
        entries = (entry.partition(b"\t") for entry in found.stdout.split(b"\0") if entry)
        split = ((*about.decode().split(), os.fsdecode(name)) for about, _, name in entries)
        return {name: mode for mode, kind, _, name in split if kind == "blob"}

    def size(self, commit: str, path: str) -> int:
        """Size of a file in bytes. Raises NotFound."""
        found = self._run("cat-file", "-s", self._path(commit, path), check=False, limits=QUICK)
        if found.returncode:
            raise NotFound(f"the code at {commit[:12]} has no file `{path}`")
        return int(found.stdout)

    def read(self, commit: str, path: str, most: int = MAX_FILE, *, follows: bool = False) -> bytes:
        """The content of a file. `follows`: follow links inside the code, as builders do.

        Raises NotFound, InvalidInput if the file has more than `most` bytes.
        """
        options = ["--follow-symlinks"] if follows else []
        asked = command.lines_of([self._path(commit, path)])
        limits = processes.Limits(output=most + _CHUNK)
        too_much = InvalidInput([f"`{path}` has more than {most >> 20} MiB, too much to be read."])
        try:
            said = self._run("cat-file", "--batch", *options, check=False, stdin=asked, limits=limits).stdout
        except processes.TooMuchOutput as error:
            raise too_much from error
        head, _, content = said.partition(b"\n")
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
        self._check_size(commit, folder)
        arguments = ["archive", f"--format={'tar.gz' if gzip else 'tar'}"]
        for extra in extras:
            arguments += [f"--prefix={extra.prefix}", f"--add-file={extra.path}"]
        arguments += [f"--prefix={prefix}", "--end-of-options", self._path(commit, folder) if folder else commit]
        to.flush()
        self._run(*arguments, stdout=to)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _check_size(self, commit: str, folder: str = "") -> None:
        """Raises InvalidInput if the code exceeds the limits, NotFound."""
        tree_size.check(self.path, self._tree(commit, folder), self._limits)

    def _tree(self, commit: str, folder: str = "") -> str:
        """The hash of a folder. Raises NotFound."""
        path = f"{self._path(commit, folder)}^{{tree}}" if not folder else self._path(commit, folder)
        said = self._run("rev-parse", "--verify", "--quiet", "--end-of-options", path, check=False, limits=QUICK)
        found = said.stdout.decode(errors="replace").split()
        if said.returncode and said.words:  # for a missing object git prints nothing
            raise SetupError(f"git can't read the code at {commit[:12]}: {said.words}")
        if said.returncode or not found or not revisions.is_commit(found[-1]):
            where = f"folder `{folder}`" if folder else "such commit"
            raise NotFound(f"the code at {commit[:12]} has no {where}")
        return found[-1]

    def _path(self, commit: str, path: str) -> str:
        """A path in a commit, as an argument for git. Raises NotFound for anything but a full hash."""
        return f"{self._object(commit)}:{path}" if path else self._object(commit)

    def _object(self, commit: str) -> str:
        if not revisions.is_commit(commit):
            raise NotFound(f"`{commit[:40]}` is no commit of the code")
        return commit

    def _on_newest(self, tree_id: str, base: str | None, author: str) -> str:
        """A tree that merges the changes of `tree_id` since `base` with those of the newest commit."""
        head = self._head()
        if head == base or head is None:
            return tree_id
        mine = self._git("commit-tree", tree_id, *(["-p", base] if base else []), "-m", "own", env=_identity(author))
        merged = self._run("merge-tree", "--write-tree", "--allow-unrelated-histories", head, mine, check=False)
        if merged.returncode == 1:
            raise InvalidInput(["Others changed the same lines of the code meanwhile."])
        if merged.returncode:
            raise InvalidInput(["Others changed the code meanwhile, and git before 2.38 can't merge the changes."])
        return merged.stdout.decode().split()[0]

    def _commit(self, tree_id: str, author: str) -> str:
        """Commit a tree. Returns the present commit if it has the same tree."""
        head = self._head()
        if head and self._tree(head) == tree_id:
            return head
        parents = ["-p", head] if head else []
        commit = self._git("commit-tree", tree_id, *parents, "-m", "updated", env=_identity(author))
        self._git("update-ref", f"refs/heads/{BRANCH}", commit)
        return commit

    def _folder(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.path.parent

    def _create(self) -> None:
        if self.exists:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        self._run("init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(self.path))
        (self.path / "info").mkdir(exist_ok=True)
        (self.path / "info" / "attributes").write_text(_ATTRIBUTES)

    def _git(self, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        return self._run(*arguments, env=env, cwd=cwd).stdout.decode().strip()

    def _run(
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
            raise SetupError(f"git {arguments[0]} failed: {done.words}")
        return done


# git's variables about connections, not about this repository
_REACHES = re.compile(r"GIT_(SSL|SSH|PROXY|ASKPASS|HTTP|CONFIG|CURL|TRACE)").match

# variables about the network that contain no credentials
_LEADS = re.compile(r"PATH$|SSL_|GIT_SSL|CURL_CA|(http|https|all|no)_proxy$", re.IGNORECASE).match


def _environment(with_keys: bool) -> dict[str, str]:
    """The environment for a fetch: the user's proxies and certificates and, `with_keys`, credentials."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or _REACHES(name)}
    if not with_keys:
        mine = {name: value for name, value in mine.items() if _LEADS(name)}
        mine = remotes.without_proxies(mine) | command.ENVIRONMENT
    ssh = remotes.SSH if with_keys else remotes.SSH_WITHOUT_KEYS
    return {**mine, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8", "GIT_SSH_COMMAND": ssh}


def without_secrets(url: str) -> str:
    """A git URL without user and password."""
    return re.sub(r"^(\w[\w+.-]*://)[^/@]*@", r"\1", url)


def _reason(words: bytes) -> str:
    """The line of git's output with the reason of a failure."""
    lines = words.decode(errors="replace").strip().splitlines()
    fatal = [line.removeprefix("fatal: ") for line in lines if line.startswith("fatal: ")]
    return fatal[0] if fatal else lines[-1] if lines else "it has no commit"


def _ref(line: str) -> Ref:
    kind, sha, of_tag, name = line.split(" ", 3)
    return Ref(name.split("/", 2)[2], name.startswith("refs/tags/"), of_tag if kind == "tag" else sha)


def _repositories(folder: Path) -> list[str]:
    """Nested repositories in a folder, which git can't add, by their paths; `.git` at the top."""
    found = [".git"] if (folder / ".git").exists() else []
    for entry in walk(folder, every_kind=True, enter=lambda inner: inner.name != ".git"):
        parent = entry.path.rpartition("/")[0]
        if entry.name == ".git" and parent and not any(parent.startswith(f"{outer}/") for outer in found):
            found.append(parent)
    return found


def _identity(author: str) -> dict[str, str]:
    email = f"{author}@polylocal"
    return {
        "GIT_AUTHOR_NAME": author,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_COMMITTER_NAME": author,
        "GIT_COMMITTER_EMAIL": email,
    }
