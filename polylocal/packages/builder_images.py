"""The default image for package builds, and the tools that well-known images lack. Pure."""

from collections.abc import Callable

from polylocal.packages import recipes

BUILDER = "polylocal/package-builder:12"
_REGISTRIES = ("docker.io/", "index.docker.io/", "library/")
_DEB = ({"debian", "ubuntu"}, "the build tools (dpkg-dev, build-essential)")
_RPM = ({"fedora", "almalinux", "rockylinux", "rockylinux/rockylinux"}, "the build tools (rpm-build)")
_PYTHON = ({"python"}, "a compiler, so that only pure Python projects can be built")
_LACKING = {"deb": _DEB, "pypi": _PYTHON}
_SMALL = ("slim", "alpine")  # tags of Python images without a compiler


def default(kind: str | None, has_image: Callable[[str], bool]) -> str:
    """The default image for a `distrib_type`. `has_image(name)`: whether the engine has an image."""
    if kind == "deb" and has_image(BUILDER):
        return BUILDER
    return recipes.IMAGES[kind or "dnf"]


def missing_tools(kind: str | None, image: str) -> str | None:
    """A sentence, without a full stop, on the tools that an image lacks for the default commands of a kind, or None."""
    name, tag = _parts(image)
    names, what = _LACKING.get(kind or "", _RPM)
    if name not in names or (kind == "pypi" and not any(word in tag for word in _SMALL)):
        return None
    return f"The image {image} lacks {what}"


def advice(kind: str | None, image: str) -> str | None:
    """The sentence of `lack` with a remedy, or None."""
    found = missing_tools(kind, image)
    if found is None:
        return None
    return (
        f"{found}: name another one by `--image` (`build_image`), such as {BUILDER}, which"
        " `scripts/base-images --packages` makes"
    )


def _parts(image: str) -> tuple[str, str]:
    """The name and tag of an image reference, without the default registry."""
    name = image.partition("@")[0]
    for prefix in _REGISTRIES:
        name = name.removeprefix(prefix)
    name, _, tag = name.partition(":")
    return name, tag
