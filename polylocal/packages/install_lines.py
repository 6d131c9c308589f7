"""The lines that users paste to install from a repository, by the kind of its platform. Pure."""

import re
import shlex
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from polylocal.errors import InvalidInput

# the characters of URLs, except those with a meaning inside shell quotes or in lists of package sources
_URL = re.compile(r"https?://[A-Za-z0-9._~:/?#@!$&()*+,;=%\[\]-]+")
_PLATFORM = re.compile(r"[A-Za-z0-9_.-]{1,200}")  # part of a file name and of the name of a section
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_~-]*")


def install_lines(
    kind: str | None, url: str, platform: str, packages: Sequence[str], key_url: str | None = None
) -> list[str]:
    """The lines for a shell, for `sources.list` or for a `.repo` file.

    `kind`: the platform's `distrib_type`. `url`: of the repository's folder, with or without a final slash.
    `packages`: the names to install; only pip needs them. `key_url`: of the public key that signs the repository;
    None: it is not signed. Raises InvalidInput for values that are not safe in such lines.
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
    """The options that pip needs to accept an index on another machine without TLS. Raises InvalidInput."""
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
    """The lines for dnf and yum. Only the metadata is signed; it contains the digest of each package."""
    signed = ["repo_gpgcheck=1", f"gpgkey={key_url}"] if key_url else []
    name = "-".join(["polylocal", platform, *_suffix(folder)])
    return [f"[{name}]", f"name={name}", f"baseurl={folder}/", *signed, "gpgcheck=0"]


def _suffix(folder: str) -> list[str]:
    """The words that make the name of a section unique: dnf ignores a second section with the same name.

    A repository other than `main` adds its name, and a folder of updates adds `updates`.
    """
    repository, sub = folder.split("/")[-2:]
    found = [] if repository == "main" else [repository]
    return [*found, sub] if sub == "updates" else found


def _check(what: str, pattern: re.Pattern[str], *texts: str | None) -> None:
    for text in texts:
        if text is not None and not pattern.fullmatch(text):
            raise InvalidInput([f"{text[:100]!r} is not a valid {what} for a line to install from"])
