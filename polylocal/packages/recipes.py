"""What is run to build a package: what its `.abf.yml` says, or the platform, or what its kind is built with. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from polylocal.errors import InvalidPolyaxonfile
from polylocal.polyaxonfile import reader

_MOST_NAME = 255  # bytes that a file system takes

FILE = ".abf.yml"
MOST_BYTES = 1 << 18  # of that file
IMAGES = {  # where a platform names none
    "deb": "debian:12",
    "dnf": "fedora:41",
    "mdv": "openmandriva/builder",
    "rhel": "almalinux:9",
    "pypi": "python:3.11-slim",
}
_DEB = 'dpkg-buildpackage -us -uc && find .. -maxdepth 1 -type f -exec mv -t "$RESULTS_PATH" {} +'
_RPM = (
    'rpmbuild -ba --define "_topdir /tmp/rpmbuild" --define "_sourcedir $PWD" --define "_rpmdir $RESULTS_PATH"'
    ' --define "_srcrpmdir $RESULTS_PATH" --define "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" '
)
_PYPI = 'pip wheel --no-deps{isolated} -w "$RESULTS_PATH" .'


@dataclass(frozen=True)
class Target:
    """What is known of the platform that is built for."""

    kind: str | None  # its `distrib_type`
    command: str | None
    has_network: bool


@dataclass(frozen=True)
class Code:
    """What is known of the code: the names of files at its top, and what its `.abf.yml` says."""

    files: Collection[str]
    has_debian: bool  # a folder of that name
    said: str | None


def command(target: Target, code: Code) -> str:
    """A shell line. What can't be built is a line that says so and fails."""
    try:
        said = _said(code.said)
    except ValueError as error:
        return complaint(str(error))
    own = (said.get("build") or {}).get("command")
    return own or target.command or _default(target, code)


def sources(text: str | None) -> Mapping[str, str]:
    """Which files of the file store belong into the code; none where `.abf.yml` is wrong, which the recipe says."""
    try:
        return _said(text).get("sources") or {}
    except ValueError:
        return {}


def _said(text: str | None) -> dict[str, Any]:
    try:
        found = reader.load(text or "")
    except InvalidPolyaxonfile as error:
        words = error.problems[0].replace("The polyaxonfile", "it")
        raise ValueError(f"{FILE} is no YAML: {' '.join(words.split())}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"{FILE} must be a mapping with the keys `sources` and `build`")
    sources, build = found.get("sources"), found.get("build")
    if sources is not None and not (isinstance(sources, dict) and all(map(_is_source, sources.items()))):
        raise ValueError(f"{FILE}: `sources` must map plain file names to sha1 sums of 40 hex digits")
    if build is not None and not (isinstance(build, dict) and isinstance(build.get("command", ""), str)):
        raise ValueError(f"{FILE}: `build` must have a `command` that is a text")
    return found


def _is_source(item: tuple[object, object]) -> bool:
    name, sha1 = item
    is_name = isinstance(name, str) and "/" not in name and "\0" not in name and name not in ("", ".", "..")
    is_name = is_name and len(str(name).encode("utf-8", "surrogateescape")) <= _MOST_NAME
    return is_name and isinstance(sha1, str) and len(sha1) == 40 and all(c in "0123456789abcdef" for c in sha1)


def _default(target: Target, code: Code) -> str:
    if target.kind == "deb":
        return _DEB if code.has_debian else complaint("there is no folder `debian` in the code")
    if target.kind == "pypi":
        if not {"pyproject.toml", "setup.py"} & set(code.files):
            return complaint("there is neither pyproject.toml nor setup.py in the code")
        # without a network nothing can be installed to build with: what the image has is used
        return _PYPI.format(isolated="" if target.has_network else " --no-build-isolation")
    specs = [name for name in code.files if name.endswith(".spec")]
    if len(specs) != 1:
        return complaint(f"there must be exactly one .spec file at the top of the code, not {len(specs)}")
    return _RPM + shlex.quote(specs[0])


def complaint(why: str) -> str:
    """A line that says what is wrong, where builds say such things, and fails."""
    return f"printf '%s\\n' {shlex.quote(f'nothing can be built: {why}')} >&2; exit 1"
