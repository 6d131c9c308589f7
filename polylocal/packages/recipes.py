"""The command that builds a package: from its `.abf.yml`, from the platform, or the default of its kind. Pure."""

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polylocal.errors import InvalidPolyaxonfile
from polylocal.git import tag_versions
from polylocal.polyaxonfile import reader
from polylocal.text import pyproject as project_file

_NO_FILES = ("", ".", "..", ".git")
_MAX_NAME = 255  # bytes: the limit of file systems
_MAX_COMMAND = 128_000  # bytes; Linux limits an argument to 128 KiB, and the shell adds a few bytes

FILE = ".abf.yml"
MAX_BYTES = 1 << 18  # size of that file
IMAGES = {  # for platforms that name none
    "deb": "debian:12",
    "dnf": "fedora:41",
    "mdv": "openmandriva/builder",
    "rhel": "almalinux:9",
    "pypi": "python:3.11-slim",
}
APT_LIST = "/etc/apt/sources.list.d/abf.list"  # lists the connected repositories, as does the next one
YUM_LIST = "/etc/yum.repos.d/abf.repo"

# dpkg-source looks for upstream tarballs in the folder above the code. An .abf.yml is not in the upstream tarball, so
# dpkg-source is told to ignore it. It is not deleted, because git would list that as a change.
_DEB = r"""set -e
find . -maxdepth 1 -type f \( -name '*.orig.tar.*' -o -name '*.orig-*.tar.*' \) -exec mv -t .. {} +
@requirements@
format=$(cat debian/source/format 2>/dev/null || echo 1.0)
name=$(dpkg-parsechangelog -S Source)
version=$(dpkg-parsechangelog -S Version | sed 's/^[0-9]*://; s/-[^-]*$//')
set -- "../${name}_$version".orig.tar.*
if [ "$(printf %s "$format" | tr -d '[:space:]')" = '3.0(quilt)' ] && [ ! -e "$1" ]; then
    echo "there is no upstream tarball ${name}_$version.orig.tar.*: only binary packages are built" >&2
    dpkg-buildpackage -us -uc -b
else
    dpkg-buildpackage -us -uc -i -I \
        --source-option='--extend-diff-ignore=(^|/)\.abf\.yml$' --source-option=--tar-ignore=.abf.yml
fi
find .. -maxdepth 1 -type f ! -name '.*' -exec mv -t "$RESULTS_PATH" {} +"""
# Only root can install packages. For other users dpkg-buildpackage names the missing build dependencies.
_DEB_REQUIREMENTS = """\
if [ "$(id -u)" = 0 ] && {condition}; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q {options} update
    apt-get -q {options} -y --no-install-recommends build-dep ./
fi"""
_APT = "-o APT::Sandbox::User=root -o Dpkg::Use-Pty=0"
_APT_OFFLINE = f"{_APT} -o Dir::Etc::sourcelist={APT_LIST} -o Dir::Etc::sourceparts=-"

# With -q, dnf would not name the packages that it can't find. Debian's dnf has a plugin `local`, which fails if its
# repository does not exist. Without dnf or root, rpmbuild names the missing requirements.
_RPM = r"""set -e
installs=
if [ "$(id -u)" = 0 ] && {condition} && dnf builddep --help >/dev/null 2>&1; then
    installs=yes
    plugins=
    [ ! -e /etc/dnf/plugins/local.conf ] || plugins=--disableplugin=local
    {sources}
    dnf -y $plugins {options} builddep {spec}
fi
build() {{
    rpmbuild -ba --define "_topdir /tmp/rpmbuild" --define "_sourcedir $PWD" --define "_rpmdir $RESULTS_PATH" \
        --define "_srcrpmdir $RESULTS_PATH" \
        --define "_build_name_fmt %%{{NAME}}-%%{{VERSION}}-%%{{RELEASE}}.%%{{ARCH}}.rpm" {spec}
}}
code=0
build || code=$?
tries=10
while [ $code = {asks} ] && [ -n "$installs" ] && [ $tries -gt 0 ]; do
    dnf -y $plugins {options} builddep "$RESULTS_PATH"/*.buildreqs.nosrc.rpm
    rm "$RESULTS_PATH"/*.buildreqs.nosrc.rpm
    code=0
    build || code=$?
    tries=$((tries - 1))
done
rm -f "$RESULTS_PATH"/*.buildreqs.nosrc.rpm
exit $code"""
_NEEDS_MORE = 11  # exit code of rpmbuild: requirements of a %generate_buildrequires section are missing

_PYPI = 'pip wheel --no-deps -w "$RESULTS_PATH" .'
# The requirements come from the image and from the connected repositories, which PIP_FIND_LINKS names. For users other
# than root, pip installs them into the home folder, which may be missing or read-only in an image.
_PYPI_OFFLINE = """\
set -e
export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INDEX=1 PIP_ROOT_USER_ACTION=ignore
if [ "$(id -u)" != 0 ]; then
    [ -w "$HOME" ] || export HOME="$(mktemp -d)"
    export PATH="$HOME/.local/bin:$PATH"
fi
{install}
asked=$(mktemp)
if python=$(command -v python3 || command -v python); then
    "$python" -B -c {ask} "$asked" {backend}
fi
[ ! -s "$asked" ] || pip install -r "$asked"
check=
if pip wheel --help | grep -q -e --check-build-dependencies; then
    check=--check-build-dependencies
fi
pip wheel --no-deps --no-build-isolation --use-pep517 $check -w "$RESULTS_PATH" ."""
# A hook of the backend returns further requirements (PEP 517), such as `setup_requires` of setuptools. pip calls the
# hook only in isolated builds. The first entry of sys.path is the code, whose modules could hide those of the backend.
_HOOK = """\
import sys
out, module, name, *sys.path[:1] = sys.argv[1:]
import importlib
backend = importlib.import_module(module)
for part in name.split("."):
    backend = getattr(backend, part) if part else backend
ask = getattr(backend, "get_requires_for_build_wheel", None)
with open(out, "w") as file:
    file.writelines(f"{requirement}\\n" for requirement in (ask() if ask else ()))"""
_BACKEND = re.compile(r"[\w.]+(:[\w.]+)?", re.ASCII)
_DEFAULT_BACKEND = "setuptools.build_meta:__legacy__"
_DEFAULT_REQUIREMENTS = ("setuptools>=40.8.0",)  # default of PEP 518, for a pyproject.toml without a build system


@dataclass(frozen=True)
class Target:
    """The properties of the target platform that decide the command."""

    kind: str | None  # `distrib_type`
    command: str | None  # the platform's own
    has_network: bool


@dataclass(frozen=True)
class Code:
    """The parts of the code that decide the command: the file names in its top folder, and the texts of some files."""

    files: Collection[str]
    has_debian: bool  # whether there is a folder `debian`
    abf_yml: str | None  # the text of .abf.yml
    pyproject: str | None = None  # the text of pyproject.toml
    pyproject_problem: str | None = None  # why that file can't be read
    version: str | None = None  # of a Python project, from git tags


def command(target: Target, code: Code) -> str:
    """The POSIX shell program of a build. For code that can't be built, the program prints the reason and fails."""
    try:
        settings = _settings(code.abf_yml)
    except ValueError as error:
        return complaint(str(error))
    own = (settings.get("build") or {}).get("command")
    found: str = own or target.command or _default(target, code)
    if "\0" in found:
        return complaint("its command contains a NUL byte")
    if len(found.encode("utf-8", "surrogatepass")) > _MAX_COMMAND:
        return complaint(f"its command has more than {_MAX_COMMAND} bytes; put it into a script in the code")
    return found


def sources(text: str | None) -> Mapping[str, str]:
    """The `sources` in the text of an .abf.yml: file name → sha1. Empty for an invalid file: `command` reports it."""
    try:
        return _settings(text).get("sources") or {}
    except ValueError:
        return {}


def _settings(text: str | None) -> dict[str, Any]:
    """The content of .abf.yml. Raises ValueError: it is invalid."""
    try:
        found = reader.load(text or "")
    except InvalidPolyaxonfile as error:
        words = error.problems[0].replace("The polyaxonfile", "it")
        raise ValueError(f"{FILE} is not valid YAML: {' '.join(words.split())}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"{FILE} must be a mapping with the keys `sources` and `build`")
    sources, build = found.get("sources"), found.get("build")
    if sources is not None and not (isinstance(sources, dict) and all(map(_is_source_entry, sources.items()))):
        raise ValueError(f"{FILE}: `sources` must map plain file names to sha1 sums of 40 hex digits")
    if build is not None and not (isinstance(build, dict) and isinstance(build.get("command", ""), str)):
        raise ValueError(f"{FILE}: `build` must have a `command` that is a string")
    return found


def _is_source_entry(item: tuple[object, object]) -> bool:
    name, sha1 = item
    is_name = isinstance(name, str) and "/" not in name and "\0" not in name and name.lower() not in _NO_FILES
    is_name = is_name and len(str(name).encode("utf-8", "surrogateescape")) <= _MAX_NAME
    return is_name and isinstance(sha1, str) and len(sha1) == 40 and all(c in "0123456789abcdef" for c in sha1)


def _default(target: Target, code: Code) -> str:
    if target.kind == "deb":
        return _deb(target) if code.has_debian else complaint("there is no folder `debian` in the code")
    if target.kind == "pypi":
        return _pypi(target, code)
    specs = [name for name in code.files if name.endswith(".spec")]
    if len(specs) != 1:
        return complaint(f"there must be exactly one .spec file at the top of the code, not {len(specs)}")
    return _rpm(target, specs[0])


def _deb(target: Target) -> str:
    condition, options = (
        ("command -v apt-get >/dev/null", _APT) if target.has_network else (f"[ -s {APT_LIST} ]", _APT_OFFLINE)
    )
    return _DEB.replace("@requirements@", _DEB_REQUIREMENTS.format(condition=condition, options=options))


def _rpm(target: Target, spec: str) -> str:
    name = shlex.quote(f"./{spec}")  # a name may begin with a dash
    if target.has_network:
        return _RPM.format(condition="command -v dnf >/dev/null", sources=":", options="", spec=name, asks=_NEEDS_MORE)
    return _RPM.format(
        condition=f"[ -s {YUM_LIST} ]",
        sources=f'alone=$(mktemp -d)\n    cp {YUM_LIST} "$alone"',
        options='--setopt=reposdir="$alone"',
        spec=name,
        asks=_NEEDS_MORE,
    )


def _pypi(target: Target, code: Code) -> str:
    if not {"pyproject.toml", "setup.py"} & set(code.files):
        return complaint("there is neither pyproject.toml nor setup.py in the code")
    if code.pyproject_problem:
        return complaint(code.pyproject_problem)
    try:
        found, backend = requirements(code.pyproject), _backend(code.pyproject)
        tool = tag_versions.tool(found, code.pyproject)
    except ValueError as error:
        return complaint(str(error))
    if tool and not code.version:
        words = f"the version of this project comes from git by {tool}, and neither this commit nor one before it has a"
        return complaint(f"{words} tag that names a version: push a tag such as v1.0")
    if target.has_network:  # pip installs the requirements itself
        return _PYPI
    install = shlex.join(["pip", "install", *found]) if found else ":"  # a backend in the code itself may need none
    return _PYPI_OFFLINE.format(install=install, ask=shlex.quote(_HOOK), backend=shlex.join(backend))


def requirements(pyproject: str | None) -> Sequence[str]:
    """The build requirements (PEP 508) in the text of a pyproject.toml. Raises ValueError: it is invalid."""
    system = project_file.load(pyproject).get("build-system")
    if system is None:
        return _DEFAULT_REQUIREMENTS
    found = system.get("requires") if isinstance(system, dict) else None
    if not (isinstance(found, list) and all(isinstance(item, str) for item in found)):
        raise ValueError(
            "pyproject.toml: `build-system.requires` must be a list of requirements, such as `setuptools>=61`"
        )
    for item in found:
        if not _is_requirement(item):
            raise ValueError(f"pyproject.toml: `build-system.requires`: {item[:100]!r} is not a requirement (PEP 508)")
    return found


def _backend(pyproject: str | None) -> Sequence[str]:
    """The module and object of the build backend, and the folders of its `backend-path`. Raises ValueError."""
    system = project_file.table(project_file.load(pyproject), "build-system")
    name, folders = system.get("build-backend", _DEFAULT_BACKEND), system.get("backend-path", [])
    if not (isinstance(name, str) and _BACKEND.fullmatch(name)):
        raise ValueError("pyproject.toml: `build-system.build-backend` must be the name of a module")
    if not (isinstance(folders, list) and all(isinstance(item, str) and item.isprintable() for item in folders)):
        raise ValueError("pyproject.toml: `build-system.backend-path` must be a list of folders")
    module, _, inner = name.partition(":")
    return [module, inner, *folders]


def _is_requirement(text: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement  # imported here to keep the daemon's start fast

    try:
        Requirement(text)
    except InvalidRequirement:
        return False
    return text.isprintable()  # a word of a command; a URL could contain control characters


def complaint(why: str) -> str:
    """A shell command that prints a message to stderr and fails."""
    return f"printf '%s\\n' {shlex.quote(f'nothing can be built: {why}')} >&2; exit 1"
