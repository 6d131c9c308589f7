"""Publishing without any tool of package managers: the daemon's PATH contains only git."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator

import docker
import pytest
from packages_support import make_tar, whole_wheel
from rpms_support import rpm
from support import running_daemon, sweep

from e2e.packages import Abf, Target, apt, connect_to, deb, recipe, run_in_container
from polylocal.store import Store

pytestmark = pytest.mark.engine

TOOLS = "dpkg dpkg-deb dpkg-scanpackages dpkg-scansources apt-get apt-ftparchive createrepo_c gpg gpgv gzip xz".split()


@pytest.fixture(scope="module")
def abf(engine_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Abf]:
    home, programs = tmp_path_factory.mktemp("daemon") / "home", tmp_path_factory.mktemp("programs")
    git = shutil.which("git")
    assert git
    (programs / "git").symlink_to(git)
    assert not [name for name in TOOLS if shutil.which(name, path=str(programs))]
    with (
        running_daemon(home, env={"PATH": str(programs), "POLYLOCAL_GRACE_S": "2"}) as daemon,
        connect_to(daemon, tmp_path_factory.mktemp("work")) as made,
    ):
        yield made
    store = Store(home / "polylocal.db")
    installation = store.installation()
    store.close()
    sweep(engine_address, installation)


def published(abf: Abf, kind: str, files: dict[str, str | bytes]) -> Target:
    """The path of a repository where a build has published the packages of its code."""
    target = abf.target(kind)
    source = abf.source(target)
    abf.push(source, {**recipe('rm .abf.yml && cp -r . "$RESULTS_PATH"'), **files})
    found = abf.build_and_wait(source, target, 6000, auto_publish=True)
    assert {package["type"] for package in found["packages"]} == {"binary", "source"}
    return target


def debian_source() -> dict[str, str | bytes]:
    tar = make_tar({"tool-1.0/README": b"a test\n"})
    sums = {
        name: f" {hashlib.new(digest, tar).hexdigest()} {len(tar)} tool_1.0.tar.gz\n"
        for name, digest in (("Files", "md5"), ("Checksums-Sha256", "sha256"))
    }
    about = "Format: 1.0\nSource: tool\nBinary: tool\nArchitecture: all\nVersion: 1.0\nMaintainer: A <a@b.c>\n"
    return {
        "tool_1.0.tar.gz": tar,
        "tool_1.0.dsc": about + "".join(f"{name}:\n{line}" for name, line in sums.items()),
    }


def test_debian_packages(abf: Abf, raw_engine: docker.DockerClient) -> None:
    target = published(abf, "deb", {**deb("tool", "1.0"), **debian_source()})
    said = run_in_container(raw_engine, f"{apt(abf.url(target.folder()), 'tool')} && tool")
    assert said.endswith("tool 1.0\n")
    sources = abf.url(target.folder("SRPMS"))
    listed = f"echo 'deb-src [trusted=yes] {sources}/ ./' >/etc/apt/sources.list.d/test.list"
    said = run_in_container(
        raw_engine, f"{listed} && apt-get update && cd /tmp && apt-get source tool && cat tool-1.0/README"
    )
    assert said.endswith("a test\n")


def test_python_packages(abf: Abf, raw_engine: docker.DockerClient) -> None:
    about = b"Metadata-Version: 2.1\nName: tool\nVersion: 1.0\n"
    files: dict[str, str | bytes] = {
        "tool-1.0-py3-none-any.whl": whole_wheel("tool", "1.0", "print('tool 1.0')"),
        "tool-1.0.tar.gz": make_tar({"tool-1.0/PKG-INFO": about}),
    }
    target = published(abf, "pypi", files)
    index = abf.url(f"{target.folder()}/simple/")
    said = run_in_container(
        raw_engine, f"cd /tmp && pip install -q --no-cache-dir --index-url {index} tool && python3 -m tool"
    )
    assert said.endswith("tool 1.0\n")


def test_packages_of_rpm(abf: Abf, raw_engine: docker.DockerClient) -> None:
    program = "#!/bin/sh\necho tool 1.0\n"
    files: dict[str, str | bytes] = {
        "tool-1.0-1.noarch.rpm": rpm("tool", "1.0", program=program),
        "tool-1.0-1.src.rpm": rpm("tool", "1.0", program=program, is_source=True),
    }
    target = published(abf, "dnf", files)
    said = run_in_container(raw_engine, f"{dnf(abf.url(target.folder()), 'install tool')} && tool")
    assert said.endswith("tool 1.0\n")
    said = run_in_container(
        raw_engine, f"cd /tmp && {dnf(abf.url(target.folder('SRPMS')), 'download --source tool')} && ls *.rpm"
    )
    assert said.endswith("tool-1.0-1.src.rpm\n")


def dnf(url: str, command: str) -> str:
    """A shell command that uses a repository of the daemon."""
    return f"dnf -y --disableplugin=local --releasever=1 --repofrompath=test,{url}/ --nogpgcheck {command}"
