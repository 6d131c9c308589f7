"""The image that packages are built in where a platform names none, and what images are known to lack. Pure."""

from __future__ import annotations

from collections.abc import Callable

from polylocal.packages import recipes

BUILDER = "polylocal/package-builder:12"
_REGISTRIES = ("docker.io/", "index.docker.io/", "library/")
_DEB = ({"debian", "ubuntu"}, "the build tools (dpkg-dev, build-essential)")
_RPM = ({"fedora", "almalinux", "rockylinux", "rockylinux/rockylinux"}, "the build tools (rpm-build)")
_PYTHON = ({"python"}, "a compiler, so that only pure Python projects can be built")
_LACKING = {"deb": _DEB, "pypi": _PYTHON}
_SMALL = ("slim", "alpine")  # images of Python that have no compiler


def default(kind: str | None, has_image: Callable[[str], bool]) -> str:
    """`kind`: the platform's `distrib_type`; `has_image`: whether the engine has an image of this name."""
    if kind == "deb" and has_image(BUILDER):
        return BUILDER
    return recipes.IMAGES[kind or "dnf"]


def lack(kind: str | None, image: str) -> str | None:
    """What an image is known to lack that default commands of a kind need, as a sentence without its stop."""
    name, tag = _parts(image)
    names, what = _LACKING.get(kind or "", _RPM)
    if name not in names or (kind == "pypi" and not any(word in tag for word in _SMALL)):
        return None
    return f"The image {image} lacks {what}"


def advice(kind: str | None, image: str) -> str | None:
    """`lack`, and what to do about it."""
    found = lack(kind, image)
    if found is None:
        return None
    return (
        f"{found}: name another one by `--image` (`build_image`), such as {BUILDER}, which"
        " `scripts/base-images --packages` makes"
    )


def _parts(image: str) -> tuple[str, str]:
    """Name and tag, without the registry that is meant where none is named."""
    name = image.partition("@")[0]
    for prefix in _REGISTRIES:
        name = name.removeprefix(prefix)
    name, _, tag = name.partition(":")
    return name, tag
