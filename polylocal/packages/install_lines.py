"""What a person pastes to install from a repository, by the kind of its platform. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from polylocal.errors import InvalidInput

# the characters of URLs, without those that mean something in quotes of a shell or in lists of package sources
_URL = re.compile(r"https?://[A-Za-z0-9._~:/?#@!$&()*+,;=%\[\]-]+")
_PLATFORM = re.compile(r"[A-Za-z0-9_.-]{1,200}")  # it becomes a part of a file name and of the name of a section
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_~-]*")


def install_lines(
    kind: str | None, url: str, platform: str, packages: Sequence[str], key_url: str | None = None
) -> list[str]:
    """Lines of a shell, of `sources.list` or of a `.repo` file.

    `url`: of the repository's folder, with or without a slash at its end. `packages`: the names to install; only pip
    needs them. `key_url`: of the public key that signs the repository; None: it is not signed. Raises InvalidInput for
    what can't stand in such lines.
    """
    _check("URL", _URL, url, key_url)
    _check("name of a platform", _PLATFORM, platform)
    folder = url.rstrip("/")
    if kind == "deb":
        return _deb(folder, platform, key_url)
    if kind == "pypi":
        _check("name of a package", _PACKAGE, *packages)
        return [shlex.join(["pip", "install", *_trust(folder), "--index-url", f"{folder}/simple/", *packages])]
    return _rpm(folder, platform, key_url)


def _deb(folder: str, platform: str, key_url: str | None) -> list[str]:
    if key_url is None:
        return [f"deb [trusted=yes] {folder}/ ./"]
    keyring = f"/etc/apt/keyrings/polylocal-{platform}.asc"
    return [shlex.join(["curl", "-fsS", key_url, "-o", keyring]), f"deb [signed-by={keyring}] {folder}/ ./"]


def _trust(url: str) -> list[str]:
    """What pip needs for an index on another machine without TLS, which it ignores otherwise. Raises InvalidInput."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host:
        raise InvalidInput([f"{url[:100]!r} names no host"])
    return [] if parts.scheme == "https" or _is_this_machine(host) else ["--trusted-host", host]


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _rpm(folder: str, platform: str, key_url: str | None) -> list[str]:
    """The metadata is signed, and it has the digest of each package; the packages themselves are not signed."""
    signed = ["repo_gpgcheck=1", f"gpgkey={key_url}"] if key_url else []
    name = "-".join(["polylocal", platform, *_told_apart(folder)])
    return [f"[{name}]", f"name={name}", f"baseurl={folder}/", *signed, "gpgcheck=0"]


def _told_apart(folder: str) -> list[str]:
    """What tells a repository from `main` of the same platform, and updates from the release: dnf reads one section of
    a name only."""
    repository, sub = folder.split("/")[-2:]
    found = [] if repository == "main" else [repository]
    return [*found, sub] if sub == "updates" else found


def _check(what: str, pattern: re.Pattern[str], *texts: str | None) -> None:
    for text in texts:
        if text is not None and not pattern.fullmatch(text):
            raise InvalidInput([f"{text[:100]!r} is no {what} that can be named in a line to install from"])
