"""Fetches code of other repositories, with the contents of their submodules and git-LFS files."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from polylocal.errors import InvalidInput, NotFound
from polylocal.git import command, lfs, missing, remotes, submodules
from polylocal.git.code_reader import BRANCH, CodeReader
from polylocal.git.remotes import without_secrets
from polylocal.system import processes

FETCH_S = 600  # most seconds for a fetch
_FETCHED = "refs/polylocal/fetched"  # a fetched commit, until the fetch is complete
# git's variables about connections, not about this repository
_CONNECTION_VARIABLE = re.compile(r"GIT_(SSL|SSH|PROXY|ASKPASS|HTTP|CONFIG|CURL|TRACE)").match
# variables about the network that contain no credentials
_NETWORK_VARIABLE = re.compile(r"PATH$|SSL_|GIT_SSL|CURL_CA|(http|https|all|no)_proxy$", re.IGNORECASE).match


@dataclass(frozen=True)
class FetchSource:
    """A fetch: its URL, its rights and its deadline."""

    url: str
    protocols: str
    with_keys: bool
    local_hosts: Collection[str]
    until: float = field(default_factory=lambda: time.monotonic() + FETCH_S)  # deadline on the monotonic clock

    @property
    def seconds(self) -> float:
        return max(1.0, self.until - time.monotonic())

    def route(self) -> remotes.Route:
        """Raises InvalidInput if the user must not reach the URL."""
        if self.with_keys:
            return remotes.Route(self.url, self.protocols)
        return remotes.find_route(self.url, self.local_hosts)

    def submodule(self, url: str) -> FetchSource:
        """The fetch of a submodule. It may use keys and local files only if it is beside the repository."""
        if self.with_keys and not submodules.is_beside(self.url, url):
            protocols = ":".join(name for name in self.protocols.split(":") if name != "file")
            return replace(self, url=url, protocols=protocols, with_keys=False)
        return replace(self, url=url)


class Fetch:
    """A fetch into the repository `code`, whose lock the caller holds. `warn`: see `Repository.fetch`."""

    def __init__(self, code: CodeReader, source: FetchSource, warn: Callable[[str], object]) -> None:
        self._code, self._source, self._warn = code, source, warn

    def run(self) -> str:
        """Returns the hash of the commit, which is the newest one of the repository then."""
        shown = without_secrets(self._source.url)
        self._code.git("update-ref", "-d", _FETCHED)
        self._fetch_into(self._source, [f"+HEAD:{_FETCHED}"])
        head = self._code.first_commit([_FETCHED])
        if head is None:
            raise InvalidInput([f"`{shown}` could not be fetched: it has no commit"])
        try:
            self._code.check_size(head)
            whole = self._complete(head)
            self._code.check_size(whole)
        except (InvalidInput, NotFound) as error:
            raise InvalidInput([f"`{shown}` was refused: {error}"]) from error
        self._code.git("update-ref", f"refs/heads/{BRANCH}", whole)
        self._code.git("update-ref", "-d", _FETCHED)
        return whole

    def _fetch_into(self, source: FetchSource, refs: Sequence[str]) -> None:
        """Raises InvalidInput with git's message."""
        url, shown = source.url, without_secrets(source.url)
        try:
            route = source.route()
            allowed = set(source.protocols.split(":")) & set(route.protocols.split(":"))
            environment = _environment(source.with_keys) | dict(route.environment)
            environment |= {"GIT_DIR": str(self._code.path), "GIT_ALLOW_PROTOCOL": ":".join(sorted(allowed))}
            done = command.run(
                *("fetch", "--quiet", "--force", "--no-tags", "--no-recurse-submodules"),
                *("--end-of-options", route.url, *refs),
                git_dir=self._code.path,
                base={},
                env=environment,
                config=route.config,
                cwd=self._code.path,
                limits=processes.Limits(seconds=source.seconds, file_bytes=self._code.limits.size),
            )
        except processes.TimedOut as error:
            raise InvalidInput([f"`{shown}` could not be fetched within {FETCH_S} seconds."]) from error
        except InvalidInput as error:
            why = "; ".join(error.messages)
            raise InvalidInput([f"`{shown}` could not be fetched: {why.replace(url, shown)}"]) from error
        if done.returncode:
            why = _reason(done.stderr).replace(url, shown).replace(route.url, shown)
            if done.exceeded_file_size:
                why = f"it is larger than {self._code.limits.max_unpacked_mib} MiB (max_unpacked_mib)"
            raise InvalidInput([f"`{shown}` could not be fetched: {why}"])

    def _complete(self, head: str) -> str:
        """A commit with the contents of submodules and git-LFS files; `head` itself if it has none."""
        code, source = self._code, self._source
        found = submodules.collect(code.submodules, head, source.url, self._fetch_submodule, without_secrets)
        with tempfile.TemporaryDirectory(dir=code.path.parent, prefix="fetch-") as work:
            index = {"GIT_INDEX_FILE": f"{work}/index", "GIT_WORK_TREE": work}  # no files are written there
            code.git("read-tree", head, env=index)
            for path, commit in found.fetched:
                gone = f"0 {'0' * 40}\t{path}\0".encode("utf-8", "surrogateescape")
                code.run("update-index", "-z", "--index-info", env=index, stdin=gone)
                put = code.run("read-tree", f"--prefix={path}/", commit, env=index, cwd=Path(work), check=False)
                if put.returncode:  # names that git refuses
                    raise InvalidInput([f"its submodule `{path}` can't be put into its folder: {put.message}"])
            tree = code.git("write-tree", env=index)
            if pointers := missing.find_missing(code.path, tree).pointers:
                environment = _environment(source.with_keys)
                fetched = lfs.fetch(
                    code.path, pointers, source.url, source.with_keys, environment, Path(work), code.limits
                )
                code.run("update-index", "-z", "--index-info", env=index, stdin=fetched)
                tree = code.git("write-tree", env=index)
        for warning in found.warnings:
            self._warn(warning)
        for warning in missing.MissingParts(pointers=missing.find_missing(code.path, tree).pointers).sentences():
            self._warn(warning)
        if tree == code.tree(head):
            return head
        # fixed dates: the same content gives the same commit, so builds are reused
        when = f"@{code.git('show', '--no-patch', '--format=%ct', head)} +0000"
        dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
        message = "with the content of submodules and git-LFS"
        return code.git("commit-tree", tree, "-p", head, "-m", message, env=identity("polylocal") | dates)

    def _fetch_submodule(self, url: str, commit: str) -> None:
        """Raises InvalidInput."""
        kept = f"refs/polylocal/submodules/{commit}"
        if self._code.first_commit([kept]):
            return
        where = self._source.submodule(url)
        try:
            self._fetch_into(where, [f"+{commit}:{kept}"])
        except InvalidInput:  # the server serves heads of branches only
            self._fetch_into(where, [f"+refs/heads/*:{kept}-branches/*"])
            if not self._code.first_commit([commit]):
                raise
            self._code.git("update-ref", kept, commit)


def _environment(with_keys: bool) -> dict[str, str]:
    """The environment for a fetch: the user's proxies and certificates and, `with_keys`, credentials."""
    mine = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_") or _CONNECTION_VARIABLE(name)
    }
    if not with_keys:
        mine = {name: value for name, value in mine.items() if _NETWORK_VARIABLE(name)}
        mine = remotes.without_proxies(mine) | command.ENVIRONMENT
    ssh = remotes.SSH if with_keys else remotes.SSH_WITHOUT_KEYS
    return {**mine, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8", "GIT_SSH_COMMAND": ssh}


def _reason(words: bytes) -> str:
    """The line of git's output with the reason of a failure."""
    lines = words.decode(errors="replace").strip().splitlines()
    fatal = [line.removeprefix("fatal: ") for line in lines if line.startswith("fatal: ")]
    return fatal[0] if fatal else lines[-1] if lines else "it has no commit"


def identity(author: str) -> dict[str, str]:
    values = {"NAME": author, "EMAIL": f"{author}@polylocal"}
    return {f"GIT_{role}_{name}": text for role in ("AUTHOR", "COMMITTER") for name, text in values.items()}
