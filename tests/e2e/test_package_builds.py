"""The default build commands with real code of each kind, in the builder image, without a network."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import textwrap
from collections.abc import Iterator, Mapping

import docker
import pytest
from support import Daemon, eventually

from e2e.packages import BUILDER, READY_MADE, Abf, Source, Target, connect_to, deb, git, recipe, run_in_container

pytestmark = pytest.mark.engine

USER = "1234:1234"  # the user of an image whose programs do not run as root


@pytest.fixture(scope="module")
def abf(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Abf]:
    with connect_to(daemon, tmp_path_factory.mktemp("work")) as made:
        yield made


@pytest.fixture(scope="module", params=["root", "user"])
def image(request: pytest.FixtureRequest, raw_engine_of_module: docker.DockerClient) -> Iterator[str]:
    """The builder image, and a variant with another user."""
    if request.param == "root":
        yield BUILDER
        return
    text = f"FROM {BUILDER}\nUSER {USER}\n".encode()
    made, _ = raw_engine_of_module.images.build(fileobj=io.BytesIO(text), tag="polylocal-test/builder:user", rm=True)
    yield made.tags[0]
    containers = raw_engine_of_module.containers
    eventually(lambda: not containers.list(all=True, filters={"ancestor": made.id}))  # removed after the build
    raw_engine_of_module.images.remove(made.tags[0])


@pytest.fixture(scope="module")
def raw_engine_of_module(engine_address: str) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=engine_address)
    yield client
    client.close()


# -- code ------------------------------------------------------------------------------------------------------------

UPSTREAM = {"tool": "#!/bin/sh\necho tool\n", "data.txt": "data\n"}


def tarball(top: str, files: Mapping[str, str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mode = len(text), 0o755 if name == "tool" else 0o644
            tar.addfile(member, io.BytesIO(text.encode()))
    return made.getvalue()


def debian(
    version: str, source_format: str | None = None, requires: str = "debhelper-compat (= 13)"
) -> dict[str, str | bytes]:
    control = f"""\
        Source: tool
        Maintainer: A <a@example.com>
        Section: misc
        Priority: optional
        Standards-Version: 4.6.2
        Build-Depends: {requires}

        Package: tool
        Architecture: all
        Description: a tool
        """
    found: dict[str, str | bytes] = {
        "debian/changelog": f"tool ({version}) stable; urgency=medium\n\n  * X.\n\n"
        " -- A <a@example.com>  Sun, 01 Feb 2026 12:00:00 +0000\n",
        "debian/control": textwrap.dedent(control),
        "debian/install": "tool usr/bin\ndata.txt usr/share/tool\n",
        "debian/rules": "#!/usr/bin/make -f\n%:\n\tdh $@\noverride_dh_fixperms:\n",  # keeps the file modes
    }
    return found | ({"debian/source/format": source_format} if source_format else {})


def pushed(abf: Abf, target: Target, files: Mapping[str, str | bytes]) -> Source:
    source = abf.source(target)
    source.write(files)
    for name in ("tool", "debian/rules"):
        if (source.folder / name).exists():
            (source.folder / name).chmod(0o755)
    abf.push(source)
    return source


def installed_modes(abf: Abf, build_list: Mapping[str, object]) -> dict[str, str]:
    """Modes and owners of the files below /usr that the built binary package installs."""
    packages = build_list["packages"]
    assert isinstance(packages, list)
    [url] = [package["url"] for package in packages if package["type"] == "binary"]
    file = abf.work / "package"
    file.write_bytes(abf.fetch(url).content)
    lines = subprocess.run(["dpkg-deb", "--contents", file], capture_output=True, text=True, check=True).stdout
    found = (line.split() for line in lines.splitlines())
    files = (words for words in found if words[0].startswith("-") and "/doc/" not in words[5])
    return {words[5].removeprefix("./usr/"): f"{words[0]} {words[1]}" for words in files}


# -- .deb ------------------------------------------------------------------------------------------------------------

NO_TARBALL = "there is no upstream tarball tool_1.0.orig.tar.*: only binary packages are built"
ORIG = tarball("tool-1.0", UPSTREAM)


def sources_of(found: Mapping[str, object]) -> list[tuple[str, str, str]]:
    packages = found["packages"]
    assert isinstance(packages, list)
    return sorted((p["name"], p["version"], p["release"]) for p in packages if p["type"] == "source")


@pytest.mark.parametrize(
    ("version", "source_format", "has_tarball", "files_of_source"),
    [
        ("1:1.0-1", "3.0 (quilt)\n", True, 3),
        ("1.0-1", "3.0 (quilt)\n", False, 0),
        ("2:1.0", "3.0 (native)\n", False, 2),
        ("1.0-1", "1.0\n", True, 3),
        ("1.0-1", None, False, 2),
    ],
)
def test_debian_sources_of_each_format_are_built_by_root_and_by_a_user(
    abf: Abf, image: str, version: str, source_format: str | None, has_tarball: bool, files_of_source: int
) -> None:
    """`.abf.yml` names the tarball in the file store. The file itself is not part of the upstream source."""
    target = abf.target("deb", image)
    files: dict[str, str | bytes] = {**UPSTREAM, **debian(version, source_format)}
    if has_tarball:
        stored = abf.upload("tool_1.0.orig.tar.gz", ORIG)
        files[".abf.yml"] = f"sources:\n  tool_1.0.orig.tar.gz: '{stored}'\n"
    found = abf.build_and_wait(pushed(abf, target, files), target)
    said = abf.log(found["id"])
    assert (NO_TARBALL in said) is (files_of_source == 0)
    assert len(sources_of(found)) == files_of_source
    modes = {"bin/tool": "-rwxr-xr-x root/root", "share/tool/data.txt": "-rw-r--r-- root/root"}
    assert installed_modes(abf, found) == modes  # the modes of the code: its rules don't change any


def test_an_upstream_tarball_in_the_code_itself_is_found(abf: Abf) -> None:
    target = abf.target("deb", BUILDER)
    files = {**UPSTREAM, **debian("1.0-1", "3.0 (quilt)\n"), "tool_1.0.orig.tar.gz": ORIG}
    found = abf.build_and_wait(pushed(abf, target, files), target)
    assert len(sources_of(found)) == 3


def test_a_build_dependency_is_installed_from_the_connected_repositories(abf: Abf) -> None:
    """A missing dependency is reported. Once a connected repository has it, the same commit can be built."""
    target = abf.target("deb", BUILDER)
    files = {**UPSTREAM, **debian("1.0", "3.0 (native)\n", "debhelper-compat (= 13), needed-tool")}
    files["debian/rules"] = str(files["debian/rules"]) + "override_dh_auto_build:\n\tneeded-tool\n"
    source = pushed(abf, target, files)
    refused = abf.build_and_wait(source, target, 666)
    assert "Unmet build dependencies: needed-tool" in abf.log(refused["id"])  # no repository is connected yet
    other = abf.source(target)
    abf.push(other, {**READY_MADE, **deb("other-tool", "1")})
    abf.build_and_wait(other, target, 6000, auto_publish=True)
    refused = abf.build_and_wait(source, target, 666)
    assert re.search(r"builddeps:./ : Depends: needed-tool but it is not installable", abf.log(refused["id"]))
    needed = abf.source(target)
    abf.push(needed, {**READY_MADE, **deb("needed-tool", "1.5")})
    abf.build_and_wait(needed, target, 6000, auto_publish=True)
    built = abf.build_and_wait(source, target)
    assert "\nneeded-tool 1.5\n" in abf.log(built["id"])


# -- .rpm ------------------------------------------------------------------------------------------------------------

SPEC = """\
Name: {name}
Version: {version}
Release: 1
Summary: x
License: MIT
BuildArch: noarch
AutoReq: no
{more}

%description
x

%build
{build}

%install
mkdir -p %{{buildroot}}/usr/bin %{{buildroot}}/usr/share/tool
cp -p tool %{{buildroot}}/usr/bin/{name} || cp -p %{{_sourcedir}}/tool %{{buildroot}}/usr/bin/{name}
cp -p %{{_sourcedir}}/data.txt %{{buildroot}}/usr/share/tool/{name}.txt

%files
/usr/bin/{name}
/usr/share/tool/{name}.txt
"""


def spec(name: str, version: str = "1.0", more: str = "", build: str = "") -> dict[str, str | bytes]:
    return {**UPSTREAM, f"{name}.spec": SPEC.format(name=name, version=version, more=more, build=build)}


def test_an_rpm_has_the_modes_of_its_code_whoever_builds_it(
    abf: Abf, image: str, raw_engine_of_module: docker.DockerClient
) -> None:
    target = abf.target("dnf", image)
    found = abf.build_and_wait(pushed(abf, target, spec("tool")), target)
    [url] = [package["url"] for package in found["packages"] if package["type"] == "binary"]
    fetch = f"import urllib.request as r; r.urlretrieve('{url}', 'tool.rpm')"
    ask = r"rpm -qp --queryformat '[%{FILEMODES:perms} %{FILENAMES}\n]' tool.rpm"
    said = run_in_container(raw_engine_of_module, f'cd /tmp && python3 -c "{fetch}" && {ask}')
    assert said == "-rwxr-xr-x /usr/bin/tool\n-rw-r--r-- /usr/share/tool/tool.txt\n"


def test_a_build_requirement_is_installed_from_the_connected_repositories(abf: Abf) -> None:
    target = abf.target("dnf", BUILDER)
    source = pushed(abf, target, spec("asking", more="BuildRequires: needed >= 2", build='echo "it is a $(needed)"'))
    refused = abf.build_and_wait(source, target, 666)
    assert "needed >= 2 is needed by asking-1.0-1.noarch" in abf.log(refused["id"])  # no repository is connected yet
    needed = pushed(abf, target, spec("needed", "1.0"))
    abf.build_and_wait(needed, target, 6000, auto_publish=True)
    refused = abf.build_and_wait(source, target, 666)
    assert "No matching package to install: 'needed >= 2'" in abf.log(refused["id"])
    abf.push(needed, spec("needed", "2.0"))
    abf.build_and_wait(needed, target, 6000, auto_publish=True)
    built = abf.build_and_wait(source, target)
    assert "it is a tool\n" in abf.log(built["id"])


def test_a_build_requirement_that_the_spec_file_finds_out_itself_is_installed(abf: Abf) -> None:
    target = abf.target("dnf", BUILDER)
    abf.build_and_wait(pushed(abf, target, spec("found", "1.0")), target, 6000, auto_publish=True)
    files = spec("finding", build='echo "it is a $(found)"')
    text = str(files["finding.spec"])
    files["finding.spec"] = text.replace("%build", "%generate_buildrequires\necho found\n\n%build")
    source = pushed(abf, target, files)
    built = abf.build_and_wait(source, target)
    assert "it is a tool\n" in abf.log(built["id"])
    assert {package["name"] for package in built["packages"]} == {"finding"}


# -- wheels ----------------------------------------------------------------------------------------------------------

SETUP = "from setuptools import setup\nimport os\nsetup(name='tool', version=os.environ.get('{}', '0.0.0'))\n"


def python(requires: str, version_from: str = "") -> dict[str, str | bytes]:
    system = f'[build-system]\nrequires = [{requires}]\nbuild-backend = "setuptools.build_meta"\n'
    return {"pyproject.toml": system, "setup.py": SETUP.format(version_from)}


def test_a_wheel_has_the_version_of_the_tag_that_is_built_whoever_builds_it(abf: Abf, image: str) -> None:
    target = abf.target("pypi", image)
    source = pushed(abf, target, python('"setuptools"', "SETUPTOOLS_SCM_PRETEND_VERSION"))
    git("tag", "v1.2", folder=source.folder)
    address = abf.daemon.url.replace("http://", f"http://root:{abf.daemon.token}@")
    git("push", "--quiet", f"{address}/root/{source.name}.git", "v1.2", folder=source.folder)
    found = abf.build_and_wait(source, target, project_version="v1.2")
    assert [(p["name"], p["version"]) for p in found["packages"]] == [("tool", "1.2")]
    commit = abf.push(source, {"a": "1"})
    found = abf.build_and_wait(source, target)
    assert [p["version"] for p in found["packages"]] == [f"1.2.dev1+g{commit[:7]}"]


def test_a_requirement_of_a_python_project_is_installed_from_the_connected_repositories(abf: Abf, image: str) -> None:
    """Without the requirement the build fails and names it, instead of building a wheel of version 0.0.0."""
    target = abf.target("pypi", image)
    source = pushed(abf, target, python('"setuptools", "needed-tool >=2"', "NEEDED_VERSION"))
    refused = abf.build_and_wait(source, target, 666)
    assert "No matching distribution found for needed-tool>=2" in abf.log(refused["id"])
    assert refused["packages"] == []
    needed = python('"setuptools"')
    needed["setup.py"] = "from setuptools import setup\nsetup(name='needed-tool', version='2.1')\n"
    other = pushed(abf, target, needed)
    abf.build_and_wait(other, target, 6000, auto_publish=True)
    found = abf.build_and_wait(source, target)
    assert re.search(r"Successfully installed needed-tool-2\.1", abf.log(found["id"]))
    assert len(found["packages"]) == 1


def test_a_requirement_that_only_setup_py_names_is_installed_or_named(abf: Abf) -> None:
    target = abf.target("pypi", BUILDER)
    text = "from setuptools import setup\nsetup(name='{}', version='1.0', setup_requires=[{}])\n"
    source = pushed(abf, target, {"setup.py": text.format("asking", "'small-needed'")})
    refused = abf.build_and_wait(source, target, 666)
    assert "No matching distribution found for small-needed" in abf.log(refused["id"])
    needed = pushed(abf, target, {"setup.py": text.format("small-needed", "")})
    abf.build_and_wait(needed, target, 6000, auto_publish=True)
    assert "Successfully installed small-needed-1.0" in abf.log(abf.build_and_wait(source, target)["id"])


# -- git -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["deb", "dnf", "pypi"])
def test_git_works_in_a_build_whoever_builds(abf: Abf, image: str, kind: str) -> None:
    target = abf.target(kind, image)
    asked = "git describe --tags\ngit rev-parse HEAD\ngit status --porcelain\ngit log --format=%s\ngit remote\necho end"
    source = abf.source(target)
    commit = abf.push(source, recipe(asked))
    git("tag", "v1.2", folder=source.folder)
    address = abf.daemon.url.replace("http://", f"http://root:{abf.daemon.token}@")
    git("push", "--quiet", f"{address}/root/{source.name}.git", "v1.2", folder=source.folder)
    found = abf.build_and_wait(source, target)
    assert abf.log(found["id"]) == f"v1.2\n{commit}\nx\nend\n"
