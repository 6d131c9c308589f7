"""Decides which paths of a folder are left out of an upload.

The rules are those of `.polyaxonignore`. Without that file, they are those of `.gitignore` (with nested files, as in
git) and `.dockerignore` (as in Docker). `DEFAULT_IGNORE` applies in both cases; a line with `!` in `.polyaxonignore`
includes a path again. For the code of packages only git's rules apply (`GitIgnored`).
"""

from __future__ import annotations

import codecs
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pathspec import GitIgnoreSpec

from polylocal.errors import InvalidInput, SetupError
from polylocal.git import command
from polylocal.system.processes import QUICK

IGNORE_FILE = ".polyaxonignore"
GIT_IGNORE, DOCKER_IGNORE = ".gitignore", ".dockerignore"
IGNORE_FILES = frozenset({IGNORE_FILE, GIT_IGNORE, DOCKER_IGNORE})
DEFAULT_IGNORE = r"""
.git
.hg
.svn
.eggs
eggs
.venv
venv
lib64
sdist
*.egg-info
__pycache__
.ipynb_checkpoints
.mypy_cache
.pytest_cache
.ruff_cache
node_modules
*.pyc
*.sw[op]
*~
.#*
\#*\#
.DS_Store
/.polyaxon
/.polylocal
"""
_SLASH = "ps_d"  # the group of pathspec's patterns for the slash behind a folder that they match
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# the daemon needs these files; Docker also sends Dockerfiles regardless of the rules
_NEEDED = re.compile(r"(.+\.)?dockerfile(\..+)?|polyaxonci\.(yml|yaml|json)", re.IGNORECASE)


class GitIgnored:
    """The paths that git ignores. Tracked files are kept, and there are no default rules.

    In a repository, `.git/info/exclude` and the user's own exclude file apply as well. The methods are as in `Ignored`.
    """

    ignore_file = GIT_IGNORE

    def __init__(self, folder: Path) -> None:
        self._git = _GitRules(folder, with_excludes=True)

    def __call__(self, path: str, is_folder: bool) -> bool:
        return self.excludes_tree(path, is_folder)

    def excludes_tree(self, path: str, is_folder: bool = True) -> bool:
        return is_of_git(path) or self._git(path, is_folder)

    @property
    def sources(self) -> list[str]:
        return [GIT_IGNORE] if self._git.is_used else []


def is_of_git(path: str) -> bool:
    """Whether a path is a `.git` folder or file, which is never part of the code."""
    return posixpath.basename(path).lower() == ".git"


class Ignored:
    """The rules for the code of runs. Raises InvalidInput for an ignore file that can't be read."""

    ignore_file = IGNORE_FILE  # the file in which users exclude paths

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.substitutes: list[str] = []  # ignore files used instead of a missing `.polyaxonignore`
        own = _lines(folder / IGNORE_FILE)
        self._own = _spec(map(_normalize_rule, [*DEFAULT_IGNORE.splitlines(), *(own or ())]))
        self._git: _GitRules | None = None
        self._docker: _DockerRules | None = None
        if own is None:
            self._git = _GitRules(folder)
            docker = _lines(folder / DOCKER_IGNORE)
            self._docker = _DockerRules(docker) if docker is not None else None
            self.substitutes += [DOCKER_IGNORE] if docker is not None else []

    def __call__(self, path: str, is_folder: bool) -> bool:
        """Whether to leave out `path`, which is relative to the folder and has forward slashes."""
        return self.excludes_tree(path, is_folder) or (self._docker is not None and self._docker(path))

    def excludes_tree(self, path: str, is_folder: bool = True) -> bool:
        """Whether to leave out a path with all its contents, so that a folder need not be read."""
        if self._own.match_file(path.lower() + ("/" if is_folder else "")):
            return True
        if self._git is not None and self._git(path, is_folder):
            return True
        if self._docker is None or self._docker.has_exceptions or not self._docker(path):
            return False
        return not (is_folder and _holds_needed(self._folder / path))

    @property
    def sources(self) -> list[str]:
        """The ignore files found so far whose use may surprise users: `substitutes`, and `.gitignore`."""
        return [*([GIT_IGNORE] if self._git is not None and self._git.is_used else []), *self.substitutes]


Rules = Ignored | GitIgnored


class _GitRules:
    """The `.gitignore` files of a folder, its subfolders and its parents up to the top of the repository."""

    def __init__(self, folder: Path, *, with_excludes: bool = False) -> None:
        """`with_excludes`: apply exclude files outside the code, too."""
        self._top, self._prefix = folder, ""
        self._specs: dict[str, GitIgnoreSpec | None] = {}
        self._excludes: list[GitIgnoreSpec] = []
        self._ignored: dict[str, bool] = {}  # by folder
        top = next((above for above in (folder, *folder.parents) if (above / ".git").exists()), folder)
        if with_excludes and (top / ".git").exists():
            self._excludes = [_spec(lines) for path in _exclude_files(top) if (lines := _lines(path)) is not None]
        if top != folder:
            self._top, prefix = top, folder.relative_to(top).as_posix()
            if self._matches(prefix, True):  # an ignored folder: rules from above do not apply
                self._top, self._specs, self._excludes, self._ignored = folder, {}, [], {}
            else:
                self._prefix = f"{prefix}/"
        # `--exclude-standard` lacks the user's excludes: then list all tracked files
        self._own = _Tracked.of(self._top, *(() if self._excludes else ("--ignored", "--exclude-standard")))
        self._inner: dict[str, tuple[str, _Tracked] | None] = {}  # by folder: nested repository, files

    def __call__(self, path: str, is_folder: bool) -> bool:
        whole = self._prefix + path
        if not self._matches(whole, is_folder) or self._own.has(whole, is_folder):
            return False
        inner = self._repository(whole.rpartition("/")[0])
        return inner is None or not inner[1].has(whole.removeprefix(f"{inner[0]}/"), is_folder)

    def _repository(self, folder: str) -> tuple[str, _Tracked] | None:
        """The innermost nested repository around a folder."""
        if not folder:
            return None
        if folder not in self._inner:
            is_top = (self._top / folder / ".git").exists()
            found = (folder, _Tracked.of(self._top / folder)) if is_top else None
            self._inner[folder] = found or self._repository(folder.rpartition("/")[0])
        return self._inner[folder]

    def _matches(self, path: str, is_folder: bool) -> bool:
        """Whether a path is ignored: by the last matching rule of the innermost file, or with a parent folder."""
        if self._is_in_ignored(path):
            return True
        found: bool | None = None
        for spec in self._excludes:
            decision = _decision(spec, path, is_folder)
            found = found if decision is None else decision
        parts = path.split("/")
        for depth in range(len(parts)):
            inner = self._spec("/".join(parts[:depth]))
            if inner is not None:
                decision = _decision(inner, "/".join(parts[depth:]), is_folder)
                found = found if decision is None else decision
        return bool(found)

    def _is_in_ignored(self, path: str) -> bool:
        above = path.rpartition("/")[0]
        if above not in self._ignored:
            self._ignored[above] = bool(above) and self._matches(above, True)
        return self._ignored[above]

    def _spec(self, folder: str) -> GitIgnoreSpec | None:
        if folder not in self._specs:
            lines = _lines(self._top / folder / GIT_IGNORE)
            self._specs[folder] = None if lines is None else _spec(lines)
        return self._specs[folder]

    @property
    def is_used(self) -> bool:
        return any(spec is not None for spec in self._specs.values())


def _exclude_files(top: Path) -> list[Path]:
    """The exclude files of the user and of the repository, which takes precedence. They need not exist."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    own, of_repository = Path(home, "git", "ignore"), top / ".git" / "info" / "exclude"
    if path := _git_output(top, "config", "--type=path", "--get", "core.excludesFile"):
        own = top / path
    path = _git_output(top, "rev-parse", "--git-path", "info/exclude")  # a linked work tree has it elsewhere
    return [own, top / path if path else of_repository]


def _git_output(top: Path, *arguments: str) -> str:
    """The output of git with the user's settings; empty if it fails or is not installed."""
    names = ("HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM")
    settings = {name: os.environ[name] for name in names if name in os.environ}
    base = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8", **settings}
    try:
        done = command.run(
            *arguments, git_dir=top / ".git", base=base, env={"GIT_WORK_TREE": str(top)}, cwd=top, limits=QUICK
        )
    except (SetupError, InvalidInput, OSError):
        return ""
    return os.fsdecode(done.stdout).removesuffix("\n") if done.returncode == 0 else ""


@dataclass(frozen=True)
class _Tracked:
    """The tracked files of a repository, which git never ignores."""

    files: frozenset[str]  # and nested repositories
    folders: frozenset[str]  # folders with tracked files

    def has(self, path: str, is_folder: bool) -> bool:
        return path in self.files or (is_folder and path in self.folders)

    @classmethod
    def of(cls, top: Path, *options: str) -> _Tracked:
        """All tracked files, or those that options of `git ls-files` select; none without git."""
        files = frozenset(_list_files(top, options))
        return cls(files, frozenset(above for path in files for above in map(str, PurePosixPath(path).parents)))


def _list_files(top: Path, options: Sequence[str]) -> Iterator[str]:
    if not (top / ".git").exists():
        return
    arguments = ("ls-files", "-z", "--cached", *options)
    try:
        done = command.run(*arguments, git_dir=top / ".git", env={"GIT_WORK_TREE": str(top)}, cwd=top, limits=QUICK)
    except (SetupError, InvalidInput, OSError):
        return
    yield from (os.fsdecode(name) for name in done.stdout.split(b"\0") if name)


def _holds_needed(folder: Path) -> bool:
    """Whether a folder contains a file that is uploaded regardless of `.dockerignore`."""
    try:
        with os.scandir(folder) as found:
            return any(_NEEDED.fullmatch(entry.name) for entry in found)
    except OSError:
        return False


class _DockerRules:
    """`.dockerignore`: patterns match whole paths, `!` includes paths again, the last matching rule decides."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._rules: list[tuple[re.Pattern[str], bool]] = []
        for line in lines:
            text = line.strip()
            if not text or line.startswith("#"):
                continue
            is_exception = text.startswith("!")
            pattern = posixpath.normpath(text.removeprefix("!").strip() or ".").lstrip("/")
            try:
                self._rules.append((re.compile(f"{_translate_pattern(pattern)}(?:/.*)?", re.DOTALL), is_exception))
            except re.error:
                continue  # as in git, an invalid pattern matches nothing
        self.has_exceptions = any(is_exception for _, is_exception in self._rules)

    def __call__(self, path: str) -> bool:
        if _NEEDED.fullmatch(posixpath.basename(path)):
            return False
        fits = (is_exception for rule, is_exception in reversed(self._rules) if rule.fullmatch(path))
        return not next(fits, True)


def _translate_pattern(pattern: str) -> str:
    """The regular expression of a pattern of Go's `filepath.Match` with Docker's `**`."""
    made, at = "", 0
    while at < len(pattern):
        sign = pattern[at]
        if pattern.startswith("**", at):
            at += 2
            if pattern.startswith("/", at):
                made, at = f"{made}(?:.*/)?", at + 1
            else:
                made += ".*"
            continue
        if sign == "[" and (end := pattern.find("]", at + 2)) > 0:
            made, at = made + pattern[at : end + 1], end + 1
            continue
        if sign == "\\" and at + 1 < len(pattern):
            at += 1
            sign = re.escape(pattern[at])
        else:
            sign = {"*": "[^/]*", "?": "[^/]"}.get(sign) or re.escape(sign)
        made, at = made + sign, at + 1
    return made


def _lines(file: Path) -> list[str] | None:
    """The lines of a file; None if it does not exist. Raises InvalidInput."""
    try:
        data = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise InvalidInput([f"{file} can't be read: {error.strerror}; nothing was uploaded"]) from error
    if data.startswith(_UTF_16) or b"\0" in data:
        raise InvalidInput([f"{file} is not a text in UTF-8 (perhaps UTF-16): save it as UTF-8; nothing was uploaded"])
    text = data.decode("utf-8-sig", "surrogateescape")
    return [line.removesuffix("\r") for line in text.split("\n")]


def _normalize_rule(line: str) -> str:
    """Normalize a rule of `.polyaxonignore`, which ignores case and may begin with `./`."""
    sign = "!" if line.startswith("!") else ""
    return sign + line.removeprefix("!").removeprefix("./").lower()


def _spec(lines: Iterable[str]) -> GitIgnoreSpec:
    return GitIgnoreSpec.from_lines(filter(_is_pattern, lines))


def _decision(spec: GitIgnoreSpec, path: str, is_folder: bool) -> bool | None:
    """Whether the rules of one file ignore this path itself; None: no rule matches it.

    A rule that matches only a parent folder does not decide: git checks each folder on the way down. So `!lib` includes
    that folder, but not the paths in it that another rule ignores.
    """
    # unlike git's, `*` of pathspec does not match line ends: replace them by a character that no pattern has
    text = path.replace("\n", "\ufdd0") + ("/" if is_folder else "")
    for pattern in reversed(spec.patterns):
        found = pattern.regex.match(text) if pattern.regex and pattern.include is not None else None
        if found is None:
            continue
        if _SLASH not in found.re.groupindex:  # `a/**` matches everything in `a`, but not `a` itself
            is_match = not (text.endswith("/") and found.end() == len(text))
        else:
            is_match = found.start(_SLASH) in (-1, len(path))  # otherwise it matched a folder above
        if is_match:
            return bool(pattern.include)
    return None


def _is_pattern(line: str) -> bool:
    """Whether a line is a valid pattern; as in git, invalid ones match nothing."""
    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True
