"""Real sources: pushed, built without a network by the default commands, published, installed with the CLI's lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import docker
import pytest
from programs import run_polylocal
from support import Daemon

from e2e import package_sources
from e2e.package_sources import BACKEND, DEBIAN_REQUIREMENTS, PYTHON_REQUIREMENTS, REQUIREMENT, TOOLS, Code
from e2e.packages import BUILDER, Abf, Target, connect_to, recipe, run_in_container

pytestmark = [pytest.mark.engine, pytest.mark.timeout(500)]

WITHIN_S = 200.0  # several builds share the machine
TAG = "77.1"  # differs from the version of every source


@dataclass(frozen=True)
class Expected:
    """The names of the packages to install, a command to run, and its output."""

    installs: str
    command: str
    prints: str


DEBIAN = {
    "hello": Expected("hello", "hello", "Hello, world!"),
    "figlet": Expected("figlet", "figlet -I1", "20205"),
    "traceroute": Expected("traceroute", "traceroute --version", "Modern traceroute for Linux"),
    "bsdmainutils": Expected("ncal calendar", "ncal -b 1 2026", "January 2026"),
    "cowsay": Expected("cowsay", "/usr/games/cowsay moo", "< moo >"),
    "own": Expected("", "", ""),  # never downloaded: always the small source
}
PYTHON = {
    "MarkupSafe": Expected(
        "MarkupSafe", "python3 -c 'import markupsafe._speedups as m; print(m.__name__)'", "._speedups"
    ),
    "pluggy": Expected("pluggy", "python3 -c 'import pluggy; print(pluggy.__version__)'", TAG),
    "idna": Expected("idna", """python3 -c 'import idna; print(idna.encode("\\u00fc.de"))'""", "xn--tda.de"),
    "iniconfig": Expected(
        "iniconfig", "python3 -c 'import iniconfig; print(iniconfig.IniConfig.__name__)'", "IniConfig"
    ),
    "own": Expected("", "", ""),
    "own_compiled": Expected("", "", ""),
}
COMPILED = ("MarkupSafe", "own_compiled")


@dataclass(frozen=True)
class Requirements:
    """A platform with a repository of build requirements, and the build that has published them."""

    target: Target
    repository_id: int
    build_list: int

    @property
    def repositories(self) -> list[int]:
        return [self.target.repository_id, self.repository_id]


@dataclass(frozen=True)
class RunningBuild:
    """A running build that will be published."""

    code: Code
    build_list: int
    platform: Requirements


@pytest.fixture(scope="module")
def abf(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Abf]:
    with connect_to(daemon, tmp_path_factory.mktemp("work")) as made:
        yield made


def publish_requirements(abf: Abf, kind: str, files: Mapping[str, bytes]) -> Requirements:
    """Publish these packages, which a build copies from the file store."""
    target = abf.target(kind, BUILDER)
    wanted = {"platform_id": target.platform_id, "name": "requirements", "publish_without_qa": True}
    made = int(abf.call("POST", "repositories", {"repository": wanted})["repository"]["id"])
    source = abf.source()
    abf.call("PUT", f"repositories/{made}/add_project", {"project_id": source.project_id})
    sums = {name: abf.upload(name, content) for name, content in files.items()}
    abf.push(source, recipe('rm .abf.yml && cp * "$RESULTS_PATH"', sums))
    build = abf.build(source, target, save_to_repository_id=made, include_repos=[made], auto_publish=True)
    wait_until_published(abf, build)
    return Requirements(target, made, build)


def contents(name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in package_sources.files(name)}


@pytest.fixture(scope="module")
def debian(abf: Abf) -> dict[str, RunningBuild]:
    """All builds run at the same time. Each test waits for its own build."""
    needed = {**contents(DEBIAN_REQUIREMENTS), REQUIREMENT: package_sources.small_requirement()}
    platform = publish_requirements(abf, "deb", needed)
    return {name: begin_debian(abf, platform, name) for name in DEBIAN}


def begin_debian(abf: Abf, platform: Requirements, name: str) -> RunningBuild:
    source = abf.source(platform.target)
    code = package_sources.debian(name, source.folder)
    sums = "".join(f"  {file}: {abf.upload(file, content)}\n" for file, content in code.beside.items())
    abf.push(source, {".abf.yml": f"sources:\n{sums}"} if sums else {})
    build = abf.build(source, platform.target, include_repos=platform.repositories, auto_publish=True)
    return RunningBuild(code, build, platform)


@pytest.fixture(scope="module")
def python(abf: Abf) -> dict[str, RunningBuild]:
    needed = {**contents(PYTHON_REQUIREMENTS), BACKEND: package_sources.small_backend()}
    platform = publish_requirements(abf, "pypi", needed)
    return {name: begin_python(abf, platform, name) for name in PYTHON}


def begin_python(abf: Abf, platform: Requirements, name: str) -> RunningBuild:
    source = abf.source(platform.target)
    code = package_sources.python(name, source.folder, TAG, is_compiled=name in COMPILED)
    abf.push(source, tag=TAG)
    more = {"project_version": TAG, "include_repos": platform.repositories}
    return RunningBuild(code, abf.build(source, platform.target, auto_publish=True, **more), platform)


def wait_until_published(abf: Abf, build_list: int) -> set[tuple[str, str]]:
    """The names and types of the packages of a published build."""
    found = abf.wait_until_ended(build_list, WITHIN_S)
    assert found["status"] == 6000, abf.log(build_list)
    return {(package["name"], package["type"]) for package in found["packages"]}


_PASTED = re.compile(r"(curl |deb |pip |\[polylocal-|name=|baseurl=|repo_gpgcheck=|gpgkey=|gpgcheck=)")


def install_lines(build_list: int, env: Mapping[str, str]) -> list[str]:
    """The lines for users to paste from the output of `polylocal package show`."""
    done = run_polylocal("package", "show", str(build_list), environment={**env, "COLUMNS": "500"})
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if _PASTED.match(line)]


def install_script(lines: Sequence[str], file: str) -> str:
    """A script that runs the commands among these lines, and writes all other lines to a file."""
    commands = [line for line in lines if line.startswith("curl ")]
    listed = [line for line in lines if line not in commands]
    return "\n".join([*commands, f"mkdir -p $(dirname {file})", f"cat >{file} <<'END'", *listed, "END"])


# -- Debian ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEBIAN)
def test_a_debian_source(
    name: str, debian: dict[str, RunningBuild], abf: Abf, cli_env: dict[str, str], raw_engine: docker.DockerClient
) -> None:
    begun, works = debian[name], DEBIAN[name]
    code = begun.code
    if code.is_small:
        both = f"{code.name} {code.name}-extra"
        works = Expected(both, f"cat /usr/share/{code.name}/*", "the requirement\nas patched\n")
    packages = wait_until_published(abf, begun.build_list)
    assert {*((name, "binary") for name in works.installs.split()), (code.name, "source")} <= packages
    sources = abf.list_folder(begun.platform.target.folder("SRPMS"))
    assert {*code.beside, f"{code.name}_{code.version.partition(':')[2] or code.version}.dsc"} <= sources

    # the other repository has their runtime requirements
    lines = [*install_lines(begun.build_list, cli_env), *install_lines(begun.platform.build_list, cli_env)]
    first = works.installs.split()[0]
    said = run_in_container(
        raw_engine,
        f"set -e\n{install_script(lines, '/etc/apt/sources.list.d/test.list')}\n"
        f"apt-get update && apt-get install -y {works.installs}\n"
        f"dpkg-query --show --showformat '${{Version}}\\n' {first}\n"
        f"stat --format '%a %U:%G' /usr/share/doc/{first} /usr/share/doc/{first}/copyright || true\n{works.command}",
        within_s=WITHIN_S,
    )
    assert code.version in said.splitlines()
    assert works.prints in said
    modes = [line for line in said.splitlines() if line.endswith(" root:root")]
    assert modes == ["755 root:root", "644 root:root"] or code.is_small


# -- Python ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PYTHON)
def test_a_python_project(
    name: str, python: dict[str, RunningBuild], abf: Abf, cli_env: dict[str, str], raw_engine: docker.DockerClient
) -> None:
    begun, works = python[name], PYTHON[name]
    code = begun.code
    if code.is_small:
        works = Expected(code.name, f"python3 -c 'import {code.name} as m; print(m.__name__)'", code.name)
    wait_until_published(abf, begun.build_list)
    [line] = install_lines(begun.build_list, cli_env)
    check = (
        f"python3 -c 'import importlib.metadata as m; print(m.version(\"{works.installs}\"))'\n"
        f"{works.command}\npip uninstall -q -y {works.installs}"
    )
    with_uv = (
        f"pip install -q --no-index --find-links /tools uv\n"
        f"UV_SYSTEM_PYTHON=1 UV_BREAK_SYSTEM_PACKAGES=1 uv {line}\n{check}"
    )
    has_uv = bool(package_sources.files(TOOLS))
    said = run_in_container(
        raw_engine,
        f"set -e\ncd /tmp\n{line}\n{check}\n{with_uv if has_uv else ''}",
        {package_sources.kept() / TOOLS: "/tools"} if has_uv else {},
        WITHIN_S,
    )
    assert said.count(f"{code.version}\n") >= 1 + has_uv
    assert said.count(works.prints) >= 1 + has_uv


# -- RPM -------------------------------------------------------------------------------------------------------------


def test_a_spec_with_a_requirement_that_another_spec_has_made(
    abf: Abf, cli_env: dict[str, str], raw_engine: docker.DockerClient
) -> None:
    target = abf.target("dnf", BUILDER)
    library, program = abf.source(target), abf.source(target)
    abf.push(library, package_sources.small_library())
    abf.push(program, package_sources.small_program())
    assert wait_until_published(abf, abf.build(library, target, auto_publish=True)) == {
        ("small-library", "binary"),
        ("small-library", "source"),
    }
    build = abf.build(program, target, auto_publish=True)
    assert ("small-program", "binary") in wait_until_published(abf, build)
    listed = install_script(install_lines(build, cli_env), "/etc/yum.repos.d/test.repo")
    said = run_in_container(
        raw_engine,
        f"set -e\n{listed}\ndnf -y --disableplugin=local --releasever=1 install small-program\n"
        "cat /usr/share/built-with",
        within_s=WITHIN_S,
    )
    assert said.endswith("from the library\n")
