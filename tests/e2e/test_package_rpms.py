"""Real rpm packages: built by rpmbuild, indexed by polylocal, installed by dnf."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container
from rpm_tags_support import describe, describe_by_createrepo_c, index_facts
from support import unpack

from e2e.packages import BUILDER
from polylocal.packages import reading, rpms
from polylocal.packages.description import Description

pytestmark = pytest.mark.engine

DATA = """\
Name: data
Epoch: 2
Version: 1.0~rc1
Release: 1
Summary: Data & <more> – ünïcode
License: MIT
URL: https://example.com/?a=1&b=2
Group: Development/Tools
Packager: P <p@example.com>
BuildArch: noarch
BuildRequires: sed, nosuch >= 1:2
Requires: /etc/data.conf
Requires: data = 2:1.0~rc1-1
Requires(pre): virtual
Requires(post): virtual
Provides: virtual = 3.1
Provides: virtual
Conflicts: rival < 1
Obsoletes: ancestor <= 2:1.0-1
Recommends: pretty
Suggests: prettier > 3:2-1
Supplements: (data and more)
Enhances: other = 1
%description
“Data” & <tags>

last line
%package -n app
Summary: needs a file and a version of the other one
Epoch: 1
Requires: data >= 2:1.0~rc1, data < 2:1.0
Requires: /usr/share/data/ü
%description -n app
nothing in it
%files -n app
%package scripts
Summary: has scripts
%description scripts
scripts
%pre scripts
true
%postun scripts -p /sbin/ldconfig
%files scripts
%install
mkdir -p %{buildroot}/etc %{buildroot}/usr/bin %{buildroot}/usr/share/data/empty %{buildroot}/var/log
echo x >%{buildroot}/etc/data.conf
echo x >%{buildroot}/usr/bin/data
echo x >%{buildroot}/usr/share/data/ü
echo x >"%{buildroot}/usr/share/data/a & <b> c"
ln -s ü %{buildroot}/usr/share/data/link
%files
%config(noreplace) /etc/data.conf
%attr(4755, root, root) /usr/bin/data
/usr/share/data
%ghost /var/log/data.log
%ghost %dir /var/lib/data
%changelog
"""
NATIVE = """\
%global debug_package %{nil}
Name: native
Version: 1
Release: 1
Summary: a program that needs libc
License: MIT
Source0: missing.bin
NoSource: 0
%description
native
%build
echo 'int main(void) { return puts("x") + system("true"); }' | gcc -include stdio.h -include stdlib.h -x c -o native -
%install
mkdir -p %{buildroot}/usr/bin
cp native %{buildroot}/usr/bin
%files
/usr/bin/native
"""
DAYS = ("Wed Jan 31", "Tue Jan 30", "Mon Jan 29", "Mon Jan 29", "Sun Jan 28", "Sat Jan 27", "Fri Jan 26", "Thu Jan 25")
CHANGES = "".join(f"* {day} 2024 Ü B <a@b.c> - 1-{n}\n- & <{n}>\n" for n, day in enumerate((*DAYS, *DAYS[-1:] * 5)))
BUILD = """
cd /specs && touch missing.bin
for spec in *.spec; do
    rpmbuild -ba --quiet --nodeps --define '_topdir /tmp/rpmbuild' --define "_sourcedir $PWD" \\
        --define '_rpmdir /built' --define '_srcrpmdir /built' "$spec"
done
"""
DNF = "dnf -q -y --setopt=reposdir=/repository --setopt=cachedir=/tmp/dnf --disableplugin='*'"
REPOSITORY = b"[test]\nname=test\nbaseurl=file:///repository\ngpgcheck=0\n"


@pytest.fixture(scope="module")
def builder(engine_address: str) -> Iterator[Container]:
    """A container of the builder image, without a network."""
    client = docker.DockerClient(base_url=engine_address)
    made = client.containers.create(BUILDER, ["sleep", "600"], network_mode="none")
    try:
        made.start()
        yield made
    finally:
        made.remove(force=True)
        client.close()


@pytest.fixture(scope="module")
def built(builder: Container, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The packages that rpmbuild has written, by file name."""
    put(builder, {"specs/data.spec": (DATA + CHANGES).encode(), "specs/native.spec": NATIVE.encode()})
    run(builder, BUILD)
    chunks, _ = builder.get_archive("/built")
    folder = tmp_path_factory.mktemp("rpms")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        unpack(archive, folder)
    return {path.name: path for path in folder.rglob("*.rpm")}


def put(container: Container, contents: Mapping[str, bytes]) -> None:
    """Write files below the root of a container."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert container.put_archive("/", packed.getvalue())


def run(container: Container, script: str) -> str:
    """Run a script, which must succeed, and return its output."""
    code, output = container.exec_run(["sh", "-ec", script])
    said = output.decode(errors="replace")
    assert code == 0, said
    return said


def test_real_packages_are_listed_as_createrepo_c_lists_them(built: dict[str, Path]) -> None:
    assert len(built) == 6
    for name, path in built.items():
        assert describe(path) == describe_by_createrepo_c(path), name


def test_real_packages_are_described(built: dict[str, Path]) -> None:
    found = {name: reading.read(path, name) for name, path in built.items()}
    assert found["data-1.0~rc1-1.noarch.rpm"] == Description("data", "binary", 2, "1.0~rc1", "1")
    assert found["data-1.0~rc1-1.src.rpm"] == Description("data", "source", 2, "1.0~rc1", "1")
    assert found["app-1.0~rc1-1.noarch.rpm"] == Description("app", "binary", 1, "1.0~rc1", "1")
    assert found["native-1-1.nosrc.rpm"] == Description("native", "source", None, "1", "1")
    assert rpms.index_texts(built["native-1-1.nosrc.rpm"], "x.rpm")["arch"] == "src"


def test_dnf_installs_what_the_metadata_lists(builder: Container, built: dict[str, Path]) -> None:
    """One package requires a version of the other one, and a file that only the list of all files contains."""
    listed = [index_facts(path) for name, path in built.items() if not name.endswith("src.rpm")]
    contents = {file.path: built[file.name].read_bytes() for file in listed}
    contents |= {**rpms.index(listed, 1_700_000_000), "test.repo": REPOSITORY}
    put(builder, {f"repository/{path}": content for path, content in contents.items()})
    available = run(builder, f"{DNF} repoquery --qf '%{{name}} %{{evr}} %{{arch}} %{{buildtime}}'")
    assert "data 2:1.0~rc1-1 noarch" in available
    changes = run(builder, f"{DNF} repoquery --changelogs data")
    assert "Ü B <a@b.c> - 1-0" in changes
    run(builder, f"{DNF} install app")
    assert run(builder, "rpm -q --qf '%{name} %{epoch} ' app data; cat /usr/share/data/ü") == "app 1 data 2 x\n"


def test_a_program_requires_the_newest_symbols_of_libc_only(built: dict[str, Path]) -> None:
    [path] = [path for name, path in built.items() if name.startswith("native-") and not name.endswith("src.rpm")]
    needed = rpms.index_texts(path, path.name)["format"].partition("<rpm:requires>")[2].partition("</rpm:requires>")[0]
    assert needed.count('"libc.so.6(GLIBC_2.') == needed.count('"libc.so.6') == 1
