"""Names of images, as the engine reads them. Pure."""

from __future__ import annotations

import re

from polylocal.polyaxonfile import is_image_id

_GRAMMAR = re.compile(r"[\w.:/@\[\]+-]+", re.ASCII)
_OF_A_BUILD = re.compile(r"[^/@]+_[0-9]+:([0-9a-f]{32})(@.*)?")
HUB = "docker.io"


def is_name(name: str) -> bool:
    return _GRAMMAR.fullmatch(name) is not None and not is_image_id(name)


def build_of(name: str) -> str | None:
    """The uuid of the build that made an image of this name; None: builds give no such name."""
    match = _OF_A_BUILD.fullmatch(familiar(name))
    return match[1] if match else None


def familiar(name: str) -> str:
    """The short form that the engine lists: without its own registry, with a tag or a digest."""
    host, path = split(name)
    if host == HUB:
        path = path.removeprefix("library/")
    whole = path if host == HUB else f"{host}/{path}"
    if "@" in whole:  # a tag beside a digest means nothing
        repository, _, digest = whole.partition("@")
        return f"{_without_tag(repository)}@{digest}"
    return whole if _without_tag(whole) != whole else f"{whole}:latest"


def split(name: str) -> tuple[str, str]:
    """The registry's host with its port, and the rest."""
    first, slash, rest = name.partition("/")
    is_host = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not is_host:
        return HUB, name
    return (HUB if first == "index.docker.io" else first), rest


def registry(name: str) -> str:
    """The host that the engine connects to for it, without the port."""
    host = split(name)[0]
    bracketed = re.fullmatch(r"\[(.*)\](:\d+)?", host)
    return bracketed[1] if bracketed else re.sub(r":\d*$", "", host)


def _without_tag(name: str) -> str:
    return re.sub(r":[^:/]*$", "", name)
