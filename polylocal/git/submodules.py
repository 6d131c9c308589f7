"""Finds the submodules of fetched code and their URLs. Pure, except for the functions that callers pass in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from polylocal.errors import InvalidInput

MAX_DEPTH = 5  # levels of nested submodules
MAX_SUBMODULES = 100
_FILE = "file://"

Link = tuple[str, str, str | None]  # path and commit of a submodule; its URL in `.gitmodules`


@dataclass
class Collection:
    """The submodules of a commit at all levels, outer ones first."""

    fetched: list[tuple[str, str]] = field(default_factory=list)  # path, commit
    warnings: list[str] = field(default_factory=list)
    counted: int = 0


def collect(
    links_of: Callable[[str], Sequence[Link]],
    commit: str,
    url: str,
    fetch: Callable[[str, str], None],
    show: Callable[[str], str],
) -> Collection:
    """Fetch the submodules of a commit, recursively, except those for which `fetch(url, commit)` raises InvalidInput.

    `links_of`: the submodules of a commit. `show`: removes secrets from a URL.
    """
    found = Collection()
    ahead = [(commit, url, "", 1)]
    while ahead:
        commit, url, prefix, depth = ahead.pop(0)
        for path, wanted, given in links_of(commit):
            name = f"{prefix}{path}"
            try:
                where = _find_url(given, url, depth, found)
                try:
                    fetch(where, wanted)
                except InvalidInput as error:
                    raise InvalidInput([str(error).replace(where, show(where))]) from error
            except InvalidInput as error:
                found.warnings.append(f"The submodule `{name}` was not fetched, it is an empty folder: {error}")
                continue
            found.fetched.append((name, wanted))
            ahead.append((wanted, where, f"{name}/", depth + 1))
    return found


def _find_url(given: str | None, base: str, depth: int, found: Collection) -> str:
    """The URL of a submodule. Raises InvalidInput."""
    if given is None:
        raise InvalidInput(["`.gitmodules` has no URL for it"])
    found.counted += 1
    if found.counted > MAX_SUBMODULES:
        raise InvalidInput([f"there are more than {MAX_SUBMODULES} submodules"])
    if depth > MAX_DEPTH:
        raise InvalidInput([f"submodules are fetched {MAX_DEPTH} deep"])
    where = resolve(base, given)
    if not where.isprintable():
        raise InvalidInput(["its URL contains control characters"])
    return where


def resolve(base: str, url: str) -> str:
    """Resolve a URL that begins with `./` or `../` against the URL of the outer repository."""
    if not url.startswith(("./", "../")):
        return url
    base, sign = base.rstrip("/"), "/"
    while url.startswith(("./", "../")):
        step, _, url = url.partition("/")
        if step == "..":
            sign = "/" if "/" in base else ":"
            base = base.rpartition(sign)[0]
    return f"{base}{sign}{url}"


def is_beside(base: str, url: str) -> bool:
    """Whether a submodule is in the same folder as its repository: then the daemon's keys may be used for both.

    The author of the code chooses the URLs of submodules, and must not gain access with the daemon's keys.
    """
    base, url = base.removeprefix(_FILE), url.removeprefix(_FILE)
    folder, _, name = base.rstrip("/").rpartition("/")
    if not name or not folder.partition("://")[2 if "://" in folder else 0].strip("/"):
        return False
    rest = url.removeprefix(f"{folder}/") if url.startswith(f"{folder}/") else ""
    return bool(rest) and ".." not in unquote(rest).replace("\\", "/").split("/")
