"""Names of images, read in the same way as the engine reads them. Pure."""

import re

HUB = "docker.io"
_GRAMMAR = re.compile(r"[\w.:/@\[\]+-]+", re.ASCII)
_IMAGE_ID = re.compile(r"sha256:.*|[0-9a-f]{64}", re.DOTALL)
_BUILD_NAME = re.compile(r"[^/@]+_[0-9]+:([0-9a-f]{32})(@.*)?")


def is_image_id(image: str) -> bool:
    """Whether a text can only be the id of an image. A short prefix of an id may also be a name."""
    return _IMAGE_ID.fullmatch(image) is not None


def is_name(name: str) -> bool:
    """Whether a text can be the name of an image."""
    return _GRAMMAR.fullmatch(name) is not None and not is_image_id(name)


def build_of(name: str) -> str | None:
    """The uuid of the build that made an image of this name; None: builds do not give such names."""
    match = _BUILD_NAME.fullmatch(familiar_name(name))
    return match[1] if match else None


def familiar_name(name: str) -> str:
    """The short form that the engine lists: without its default registry, with a tag or a digest."""
    host, path = split_host(name)
    if host == HUB:
        path = path.removeprefix("library/")
    whole = path if host == HUB else f"{host}/{path}"
    if "@" in whole:  # the engine ignores a tag in front of a digest
        repository, _, digest = whole.partition("@")
        return f"{_without_tag(repository)}@{digest}"
    return whole if _without_tag(whole) != whole else f"{whole}:latest"


def split_host(name: str) -> tuple[str, str]:
    """The host of the registry, with its port, and the rest of the name."""
    first, slash, rest = name.partition("/")
    is_host = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not is_host:
        return HUB, name
    return (HUB if first == "index.docker.io" else first), rest


def registry_host(name: str) -> str:
    """The host, without the port, that the engine connects to when it pulls this image."""
    host = split_host(name)[0]
    bracketed = re.fullmatch(r"\[(.*)\](:\d+)?", host)
    return bracketed[1] if bracketed else re.sub(r":\d*$", "", host)


def repository_and_tag(name: str) -> tuple[str, str]:
    """The repository and the tag or digest. `latest` is the default: older engines pull every tag if they get none
    (docker-py#1643)."""
    if "@" in name:
        repository, _, digest = name.partition("@")
        return repository, digest
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (name, "latest")


def _without_tag(name: str) -> str:
    return re.sub(r":[^:/]*$", "", name)
