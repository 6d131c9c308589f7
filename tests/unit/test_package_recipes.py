"""The commands that build packages, and the settings in `.abf.yml`."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylocal.packages import recipes
from polylocal.packages.recipes import Code, Target

SHA1 = "0123456789abcdef0123456789abcdef01234567"


def target(kind: str | None = "deb", command: str | None = None, has_network: bool = False) -> Target:
    return Target(kind, command, has_network)


def code(*files: str, has_debian: bool = False, said: str | None = None) -> Code:
    return Code(files, has_debian, said)


def ran(line: str) -> tuple[int, str, str]:
    """The results of a shell command: exit code, output, error messages."""
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@dataclass
class Bench:
    """A folder with code, and programs that only record their arguments. A real shell runs the command."""

    top: Path
    uid: int = 0
    programs: dict[str, str] = field(default_factory=dict)  # name → an additional script of the program

    def __post_init__(self) -> None:
        for name in ("home/code", "results", "bin"):
            (self.top / name).mkdir(parents=True)
        for name in _USUAL:
            (self.top / "bin" / name).symlink_to(shutil.which(name) or f"/bin/{name}")

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.top / "home/code" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())

    def connect(self, list_file: str) -> None:
        """Connect a repository."""
        self._list(list_file).write_text("a repository\n")

    def _list(self, name: str) -> Path:
        return self.top / Path(name).name

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        for name, body in {"id": f"echo {self.uid}", **self.programs}.items():
            path = self.top / "bin" / name
            path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.top}/calls"\n{body}\n')
            path.chmod(0o755)
        for name in (recipes.APT_LIST, recipes.YUM_LIST):
            line = line.replace(name, str(self._list(name)))
        env = {"PATH": str(self.top / "bin"), "RESULTS_PATH": str(self.top / "results")}
        env |= {"HOME": str(self.top), "TMPDIR": str(self.top)}
        code = self.top / "home/code"
        return subprocess.run(["/bin/sh", "-c", line], cwd=code, env=env, capture_output=True, text=True, check=False)

    def calls(self, *programs: str) -> list[str]:
        """The recorded calls of these programs, in order."""
        path = self.top / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.split()[0] in programs]

    @property
    def results(self) -> set[str]:
        return {path.name for path in (self.top / "results").iterdir()}


_USUAL = ("cat", "cp", "find", "grep", "mktemp", "mv", "printf", "rm", "sed", "tr")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# -- by kind: Debian -------------------------------------------------------------------------------------------------

BUILDS_ALL = r"dpkg-buildpackage -us -uc -i -I --source-option=--extend-diff-ignore=(^|/)\.abf\.yml$"
BUILDS_ALL += " --source-option=--tar-ignore=.abf.yml"
BUILDS_BINARIES = "dpkg-buildpackage -us -uc -b"


def debian(bench: Bench, version: str = "1.2-3", **target_values: Any) -> subprocess.CompletedProcess[str]:
    bench.programs["dpkg-parsechangelog"] = f'[ "$2" = Version ] && echo {version} || echo hello'
    bench.programs.setdefault("dpkg-buildpackage", ": >../hello.deb; : >../hello.changes")
    bench.programs.setdefault("apt-get", "")
    return bench.run(recipes.command(target("deb", **target_values), code(has_debian=True)))


@pytest.mark.parametrize(
    ("source_format", "version", "tarball", "built"),
    [
        ("3.0 (quilt)\n", "1.2-3", "hello_1.2.orig.tar.xz", BUILDS_ALL),
        ("3.0 (quilt)\n", "2:1.2-3", "hello_1.2.orig.tar.gz", BUILDS_ALL),
        ("3.0 (quilt)\n", "1.2-rc1-3", "hello_1.2-rc1.orig.tar.gz", BUILDS_ALL),
        ("3.0 (quilt)\n", "1.2-3", "hello_1.1.orig.tar.gz", BUILDS_BINARIES),
        (" 3.0  (quilt) \r\n", "1.2-3", None, BUILDS_BINARIES),
        ("3.0 (quilt)\n", "1.2-3", None, BUILDS_BINARIES),
        ("3.0 (native)\n", "1.2", None, BUILDS_ALL),
        ("1.0\n", "1.2-3", None, BUILDS_ALL),
        (None, "1.2-3", None, BUILDS_ALL),
        (None, "1.2-3", "hello_1.2.orig.tar.gz", BUILDS_ALL),
    ],
)
def test_a_debian_source_without_its_upstream_tarball_gives_binary_packages_only(
    bench: Bench, source_format: str | None, version: str, tarball: str | None, built: str
) -> None:
    bench.write({"debian/source/format": source_format} if source_format else {})
    bench.write({tarball: "x"} if tarball else {})
    done = debian(bench, version)
    assert (done.returncode, bench.calls("dpkg-buildpackage")) == (0, [built])
    said = "there is no upstream tarball hello_1.2.orig.tar.*: only binary packages are built\n"
    assert done.stderr == (said if built == BUILDS_BINARIES else "")


def test_upstream_tarballs_are_put_where_dpkg_source_looks_and_all_results_are_kept(bench: Bench) -> None:
    tarballs = {"hello_1.2.orig.tar.xz", "hello_1.2.orig.tar.xz.asc", "hello_1.2.orig-data.tar.gz"}
    bench.write(dict.fromkeys([*tarballs, "data.tar.gz", "sub/x_1.orig.tar.gz"], "x"))
    bench.programs["dpkg-buildpackage"] = "for file in ../hello_*; do : >>../seen; done; : >../hello.deb"
    (bench.top / "home/.profile").touch()  # of the image's user
    assert debian(bench).returncode == 0
    assert bench.results == {*tarballs, "seen", "hello.deb"}
    assert {path.name for path in (bench.top / "home/code").iterdir()} == {"data.tar.gz", "sub"}


@pytest.mark.parametrize(
    ("uid", "is_connected", "has_network", "is_alone"),
    [
        (0, True, False, True),
        (0, False, False, None),  # nothing to install from
        (0, True, True, False),  # the image's own sources as well
        (0, False, True, False),
        (1000, True, False, None),
        (1000, True, True, None),
    ],
)
def test_build_dependencies_come_from_what_can_be_reached(
    bench: Bench, uid: int, is_connected: bool, has_network: bool, is_alone: bool | None
) -> None:
    bench.uid = uid
    if is_connected:
        bench.connect(recipes.APT_LIST)
    assert debian(bench, has_network=has_network).returncode == 0
    called = bench.calls("apt-get", "dpkg-buildpackage")
    assert len(called) == (1 if is_alone is None else 3)
    if is_alone is not None:
        assert called[0].endswith(" update")
        assert called[1].endswith(" -y --no-install-recommends build-dep ./")
        assert all(("Dir::Etc::sourceparts=-" in line) is is_alone for line in called[:2])


def test_a_build_dependency_that_is_nowhere_ends_the_build(bench: Bench) -> None:
    bench.connect(recipes.APT_LIST)
    bench.programs["apt-get"] = 'case "$*" in *build-dep*) echo "Depends: libx-dev" >&2; exit 100;; esac'
    done = debian(bench)
    assert (done.returncode, done.stderr) == (100, "Depends: libx-dev\n")
    assert bench.calls("dpkg-buildpackage") == []


@pytest.mark.parametrize("program", ["dpkg-buildpackage", "dpkg-parsechangelog"])
def test_a_debian_build_that_fails_fails(bench: Bench, program: str) -> None:
    bench.programs |= {"dpkg-parsechangelog": "echo 1", "dpkg-buildpackage": "", program: "exit 29"}
    assert bench.run(recipes.command(target("deb"), code(has_debian=True))).returncode == 29


# -- by kind: RPM ----------------------------------------------------------------------------------------------------


def built_rpm(
    bench: Bench, *, kind: str | None = "dnf", spec: str = "hello.spec", **target_values: Any
) -> subprocess.CompletedProcess[str]:
    bench.programs.setdefault("dnf", "")
    bench.programs.setdefault("rpmbuild", 'for last; do :; done; cat "$last"')
    bench.write({spec: "the spec"})
    return bench.run(recipes.command(target(kind, **target_values), code(spec, "hello.c", "spec")))


@pytest.mark.parametrize("kind", ["dnf", "mdv", "rhel", None])
def test_the_one_spec_file_is_built(bench: Bench, kind: str | None) -> None:
    assert built_rpm(bench, kind=kind).stdout == "the spec"
    [called] = bench.calls("rpmbuild")
    assert called.startswith("rpmbuild -ba --define _topdir /tmp/rpmbuild")
    assert f"--define _rpmdir {bench.top}/results --define _srcrpmdir {bench.top}/results" in called
    assert "--define _build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm ./hello.spec" in called


@pytest.mark.parametrize(
    "name", ["a b.spec", "$(touch x).spec", "';exit 0;'.spec", "--help.spec", "é\n.spec", "{}.spec"]
)
def test_the_name_of_a_spec_file_is_one_argument_whatever_it_contains(bench: Bench, name: str) -> None:
    bench.connect(recipes.YUM_LIST)
    done = built_rpm(bench, spec=name)
    assert (done.returncode, done.stdout) == (0, "the spec")
    assert (bench.top / "calls").read_text().count(f" ./{name}\n") == 2
    assert not (bench.top / "home/code/x").exists()


@pytest.mark.parametrize(
    ("uid", "is_connected", "has_network", "options"),
    [
        (0, True, False, "--setopt=reposdir="),
        (0, False, False, None),
        (0, True, True, ""),
        (0, False, True, ""),
        (1000, True, True, None),
    ],
)
def test_build_requirements_of_a_spec_come_from_what_can_be_reached(
    bench: Bench, uid: int, is_connected: bool, has_network: bool, options: str | None
) -> None:
    bench.uid = uid
    bench.programs["dnf"] = 'case "$*" in *reposdir=*) repos=${2##*=}; cat "$repos/abf.repo";; esac'
    if is_connected:
        bench.connect(recipes.YUM_LIST)
    done = built_rpm(bench, has_network=has_network)
    assert done.returncode == 0
    called = [line for line in bench.calls("dnf") if "--help" not in line]
    assert len(called) == (0 if options is None else 1)
    if options is not None:
        assert called[0].endswith(" builddep ./hello.spec")
        assert ("--setopt=reposdir=" in called[0]) is bool(options)
        assert ("a repository" in done.stdout) is bool(options)  # only the file of that repository is used


def test_a_dnf_that_can_not_install_build_requirements_is_left_out(bench: Bench) -> None:
    bench.programs["dnf"] = "exit 1"  # without its plugin it does not know the command
    bench.connect(recipes.YUM_LIST)
    assert built_rpm(bench).returncode == 0
    assert len(bench.calls("dnf", "rpmbuild")) == 2


def test_a_build_requirement_that_is_nowhere_ends_the_build(bench: Bench) -> None:
    bench.programs["dnf"] = 'case "$*" in *--help) ;; *) echo "No matching package to install: x" >&2; exit 1;; esac'
    bench.connect(recipes.YUM_LIST)
    done = built_rpm(bench)
    assert (done.returncode, done.stderr) == (1, "No matching package to install: x\n")
    assert bench.calls("rpmbuild") == []


def asks(times: int) -> str:
    """A spec file that requests further build requirements `times` times."""
    return f"""
        read -r count 2>/dev/null <count || count=0
        [ "$count" -lt {times} ] || exit 0
        echo $((count + 1)) >count
        : >"$RESULTS_PATH/hello.buildreqs.nosrc.rpm"
        exit 11"""


@pytest.mark.parametrize(
    ("uid", "times", "exit_code", "builds", "installs"),
    [
        (0, 0, 0, 1, 0),
        (0, 2, 0, 3, 2),
        (0, 100, 11, 11, 10),  # it never stops asking
        (1000, 1, 11, 1, 0),
    ],
)
def test_requirements_that_a_spec_file_finds_out_itself_are_installed(
    bench: Bench, uid: int, times: int, exit_code: int, builds: int, installs: int
) -> None:
    bench.uid = uid
    bench.programs["rpmbuild"] = asks(times)
    bench.connect(recipes.YUM_LIST)
    assert built_rpm(bench).returncode == exit_code
    assert len(bench.calls("rpmbuild")) == builds
    asked = [line for line in bench.calls("dnf") if line.endswith(".buildreqs.nosrc.rpm")]
    assert len(asked) == installs
    assert bench.results == set()


@pytest.mark.parametrize("exit_code", [1, 5, 127])
def test_an_rpm_build_that_fails_fails(bench: Bench, exit_code: int) -> None:
    bench.programs["rpmbuild"] = f"exit {exit_code}"
    assert built_rpm(bench).returncode == exit_code


# -- by kind: Python -------------------------------------------------------------------------------------------------

PYPROJECT = '[build-system]\nrequires = ["flit_core >=3.2,<4", "x; python_version < \'3\'"]\n'


def built_wheel(
    bench: Bench, *files: str, pyproject: str | None = None, **target_values: Any
) -> subprocess.CompletedProcess[str]:
    bench.programs.setdefault("pip", 'case "$*" in *--help) echo " --check-build-dependencies";; esac')
    made = Code(files or ("pyproject.toml",), False, None, pyproject)
    return bench.run(recipes.command(target("pypi", **target_values), made))


def test_a_wheel_is_made_without_a_network_by_its_requirements_alone(bench: Bench) -> None:
    assert built_wheel(bench, pyproject=PYPROJECT).returncode == 0
    assert bench.calls("pip") == [
        "pip install flit_core >=3.2,<4 x; python_version < '3'",
        "pip wheel --help",
        f"pip wheel --no-deps --no-build-isolation --use-pep517 --check-build-dependencies -w {bench.top}/results .",
    ]


def test_a_backend_in_the_code_itself_may_have_no_requirements(bench: Bench) -> None:
    done = built_wheel(bench, pyproject="[build-system]\nrequires = []\nbackend-path = ['.']\n")
    assert done.returncode == 0
    assert [call.split()[1] for call in bench.calls("pip")] == ["wheel", "wheel"]  # `pip install` alone is an error


ASKING = "def get_requires_for_build_wheel(config_settings=None):\n    return ['needed >=1', 'other; x']\n"


@pytest.mark.parametrize(
    ("backend", "files"),
    [
        ("back", {"in/back.py": ASKING}),
        ("back.inner:it", {"in/back/inner.py": "class it:\n    " + ASKING.replace("\n", "\n    ")}),
    ],
)
def test_requirements_that_the_backend_names_are_installed(bench: Bench, backend: str, files: dict[str, str]) -> None:
    (bench.top / "bin/python3").symlink_to(sys.executable)
    bench.programs["pip"] = 'case "$1 $2" in "install -r") cat "$3";; esac'
    bench.write({**files, "importlib/__init__.py": "raise SystemExit('a module of the code')"})
    system = f"requires = []\nbuild-backend = '{backend}'\nbackend-path = ['in']\n"
    done = built_wheel(bench, pyproject=f"[build-system]\n{system}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "needed >=1\nother; x\n", "")


def test_a_backend_that_fails_ends_the_build(bench: Bench) -> None:
    (bench.top / "bin/python3").symlink_to(sys.executable)
    done = built_wheel(bench, pyproject="[build-system]\nrequires = []\nbuild-backend = 'nobody_has_it'\n")
    assert done.returncode == 1
    assert "No module named 'nobody_has_it'" in done.stderr


def test_a_pip_that_can_not_check_requirements_is_not_asked_to(bench: Bench) -> None:
    bench.programs["pip"] = ""
    assert built_wheel(bench).returncode == 0
    assert bench.calls("pip")[-1] == f"pip wheel --no-deps --no-build-isolation --use-pep517 -w {bench.top}/results ."


def test_with_a_network_pip_installs_the_requirements_itself(bench: Bench) -> None:
    assert built_wheel(bench, pyproject=PYPROJECT, has_network=True).returncode == 0
    assert bench.calls("pip") == [f"pip wheel --no-deps -w {bench.top}/results ."]


def test_a_requirement_that_is_nowhere_ends_the_build(bench: Bench) -> None:
    bench.programs["pip"] = 'case "$1" in install) echo "No matching distribution found for $2" >&2; exit 1;; esac'
    done = built_wheel(bench, pyproject=PYPROJECT)
    assert (done.returncode, done.stderr) == (1, "No matching distribution found for flit_core >=3.2,<4\n")
    assert len(bench.calls("pip")) == 1


@pytest.mark.parametrize(
    ("pyproject", "found"),
    [
        (None, ["setuptools>=40.8.0"]),
        ("", ["setuptools>=40.8.0"]),
        ("[project]\nname = 'x'\n", ["setuptools>=40.8.0"]),
        ("[build-system]\nrequires = []\n", []),
        (PYPROJECT, ["flit_core >=3.2,<4", "x; python_version < '3'"]),
        ("build-system.requires = ['a[b] @ https://example.com/a.whl']", ["a[b] @ https://example.com/a.whl"]),
    ],
)
def test_the_build_tools_of_a_python_project(pyproject: str | None, found: list[str]) -> None:
    assert list(recipes.requirements(pyproject)) == found


@pytest.mark.parametrize(
    ("pyproject", "why"),
    [
        ("[build-system", "pyproject.toml is not TOML: "),
        ("[" * 100_000, "pyproject.toml is not TOML: "),
        ("build-system = 1", "`build-system.requires` must be a list of requirements"),
        ("[build-system]\nbuild-backend = 'x'", "`build-system.requires` must be a list of requirements"),
        ("[build-system]\nrequires = 'x'", "`build-system.requires` must be a list of requirements"),
        ("[build-system]\nrequires = [1]", "`build-system.requires` must be a list of requirements"),
        ("[build-system]\nrequires = ['-r x']", "'-r x' is not a requirement (PEP 508)"),
        ("[build-system]\nrequires = ['--index-url=x']", "'--index-url=x' is not a requirement (PEP 508)"),
        ("[build-system]\nrequires = ['a b']", "'a b' is not a requirement (PEP 508)"),
        ("[build-system]\nrequires = ['']", "'' is not a requirement (PEP 508)"),
        ('[build-system]\nrequires = ["a\\u0000"]', "'a\\x00' is not a requirement (PEP 508)"),
        ('[build-system]\nrequires = ["a @ http://x\\u0000y"]', "is not a requirement (PEP 508)"),
        ('[build-system]\nrequires = ["a @ http://x\\u001by"]', "is not a requirement (PEP 508)"),
        ("[build-system]\nrequires = []\nbuild-backend = 5", "`build-system.build-backend` must be the name"),
        ("[build-system]\nrequires = []\nbuild-backend = 'a b'", "`build-system.build-backend` must be the name"),
        ("[build-system]\nrequires = []\nbackend-path = '.'", "`build-system.backend-path` must be a list"),
        ('[build-system]\nrequires = []\nbackend-path = ["\\u0000"]', "`build-system.backend-path` must be a list"),
    ],
)
def test_wrong_requirements_fail_in_the_build(pyproject: str, why: str) -> None:
    exit_code, _, words = ran(recipes.command(target("pypi"), Code(["pyproject.toml"], False, None, pyproject)))
    assert exit_code == 1
    assert words.startswith("nothing can be built: pyproject.toml")
    assert why in words
    assert words.count("\n") == 1


SCM = "[build-system]\nrequires = ['setuptools-scm']\n[project]\ndynamic = ['version']\n"


@pytest.mark.parametrize("has_network", [True, False])
def test_a_version_that_no_tag_gives_is_not_made_up(bench: Bench, has_network: bool) -> None:
    """Without a tag, such tools invent a version, for example 0.0.0."""
    bench.programs["pip"] = ""
    made = Code(["pyproject.toml"], False, None, SCM)
    done = bench.run(recipes.command(target("pypi", has_network=has_network), made))
    assert done.returncode == 1
    assert "comes from git by setuptools-scm" in done.stderr
    assert "push a tag such as v1.0" in done.stderr
    assert bench.calls("pip") == []
    tagged = replace(made, version="1.2")
    assert bench.run(recipes.command(target("pypi", has_network=has_network), tagged)).returncode == 0


@pytest.mark.parametrize("is_writable", [True, False])
def test_requirements_go_to_a_home_folder_that_can_be_written(bench: Bench, is_writable: bool) -> None:
    bench.uid = 1000
    bench.programs["pip"] = 'echo "$HOME $PATH"'
    line = recipes.command(target("pypi"), code("setup.py"))
    said = bench.run(line if is_writable else f"export HOME=/nonexistent; {line}").stdout.splitlines()[0]
    home, path = said.split(" ")
    assert (home == str(bench.top)) is is_writable
    assert Path(home).is_dir()
    assert path.startswith(f"{home}/.local/bin:")


@pytest.mark.parametrize(("length", "exit_code"), [(127_000, 0), (129_000, 1)])
def test_a_command_that_is_too_long_is_reported(length: int, exit_code: int) -> None:
    line = recipes.command(target(), code(said=f"build: {{command: 'true {'x' * length}'}}"))
    assert ran(line)[0] == exit_code
    assert ("its command has more than 128000 bytes" in line) is bool(exit_code)


@pytest.mark.parametrize(("of_platform", "said"), [(None, 'build: {command: "a\\0b"}'), ("a\0b", None)])
def test_a_command_with_a_zero_byte_is_reported(of_platform: str | None, said: str | None) -> None:
    exit_code, _, words = ran(recipes.command(target(command=of_platform), code(said=said)))
    assert (exit_code, words) == (1, "nothing can be built: its command contains a NUL byte\n")


# -- code that can't be built ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "files", "why"),
    [
        ("deb", ["debian"], "there is no folder `debian` in the code"),
        ("pypi", ["setup.cfg"], "there is neither pyproject.toml nor setup.py in the code"),
        ("dnf", [], "there must be exactly one .spec file at the top of the code, not 0"),
        ("mdv", ["a.spec", "b.spec"], "there must be exactly one .spec file at the top of the code, not 2"),
        ("rhel", ["a.spec.in"], "there must be exactly one .spec file at the top of the code, not 0"),
    ],
)
def test_code_that_can_not_be_built_fails_with_a_message(kind: str, files: list[str], why: str) -> None:
    assert ran(recipes.command(target(kind), code(*files))) == (1, "", f"nothing can be built: {why}\n")


def test_every_kind_has_an_image_and_a_recipe() -> None:
    assert set(recipes.IMAGES) == {"deb", "dnf", "mdv", "rhel", "pypi"}
    full = code("x.spec", "setup.py", has_debian=True)
    lines = {kind: recipes.command(target(kind), full) for kind in recipes.IMAGES}
    assert not [line for line in lines.values() if "nothing can be built" in line]
    assert lines["dnf"] == lines["mdv"] == lines["rhel"]


# -- precedence ------------------------------------------------------------------------------------------------------


def test_the_code_is_heard_before_the_platform_and_that_before_the_default() -> None:
    own = code("x.spec", said="build: {command: make mine}")
    assert recipes.command(target("dnf", "make theirs"), own) == "make mine"
    assert recipes.command(target("dnf", "make theirs"), code("x.spec")) == "make theirs"
    assert recipes.command(target("deb", "make theirs"), code()) == "make theirs"
    assert " rpmbuild -ba " in recipes.command(target("dnf"), code("x.spec"))


@pytest.mark.parametrize(
    "said", [None, "", "# nothing", "---", "build:", "build: {}", "sources: {}", "other: [1]", "{}"]
)
def test_a_file_without_a_build_section_changes_nothing(said: str | None) -> None:
    assert recipes.command(target(command="make theirs"), code(said=said)) == "make theirs"
    assert recipes.sources(said) == {}


def test_a_command_of_several_lines_is_kept_as_it_is() -> None:
    said = "build:\n  command: |\n    make\n    make install\n"
    assert recipes.command(target(), code(said=said)) == "make\nmake install\n"


# -- invalid .abf.yml files ------------------------------------------------------------------------------------------

WRONG = {
    "a: [": ".abf.yml is not valid YAML",
    "a: b: c": ".abf.yml is not valid YAML",
    "\tbuild: x": ".abf.yml is not valid YAML",
    "!!python/object/apply:os.system [true]": ".abf.yml is not valid YAML",
    "build: \x00": ".abf.yml is not valid YAML",
    "[\n" * 5000: ".abf.yml is not valid YAML",
    "[1, 2]": ".abf.yml must be a mapping",
    "just words": ".abf.yml must be a mapping",
    "17": ".abf.yml must be a mapping",
    "build: make": "`build` must have a `command` that is a string",
    "build: [make]": "`build` must have a `command` that is a string",
    "build: {command: [make, all]}": "`build` must have a `command` that is a string",
    "build: {command: 17}": "`build` must have a `command` that is a string",
    "build: {command: true}": "`build` must have a `command` that is a string",
    "build: {command: }": "`build` must have a `command` that is a string",
    f"sources: [{SHA1}]": "`sources` must map plain file names",
    f"sources: {SHA1}": "`sources` must map plain file names",
    f"sources: {{a/b: {SHA1}}}": "`sources` must map plain file names",
    f"sources: {{/etc/passwd: {SHA1}}}": "`sources` must map plain file names",
    f"sources: {{..: {SHA1}}}": "`sources` must map plain file names",
    f"sources: {{.git: {SHA1}}}": "`sources` must map plain file names",
    f"sources: {{.GIT: {SHA1}}}": "`sources` must map plain file names",  # the same name for some file systems
    f"sources: {{.: {SHA1}}}": "`sources` must map plain file names",
    f"sources: {{'': {SHA1}}}": "`sources` must map plain file names",
    f'sources: {{"a\\0b": {SHA1}}}': "`sources` must map plain file names",
    f"sources: {{17: {SHA1}}}": "`sources` must map plain file names",
    f"sources: {{{'x' * 256}: {SHA1}}}": "`sources` must map plain file names",
    f"sources: {{{'é' * 128}: {SHA1}}}": "`sources` must map plain file names",
    f"sources: {{null: {SHA1}}}": "`sources` must map plain file names",
    f"sources: {{a: {SHA1[1:]}}}": "`sources` must map plain file names",
    f"sources: {{a: {SHA1}0}}": "`sources` must map plain file names",
    f"sources: {{a: {SHA1.upper()}}}": "`sources` must map plain file names",
    f"sources: {{a: ../../{SHA1[6:]}}}": "`sources` must map plain file names",
    "sources: {a: 17}": "`sources` must map plain file names",
    "sources: {a: }": "`sources` must map plain file names",
    f"sources: {{good: {SHA1}, bad: no}}": "`sources` must map plain file names",
}


@pytest.mark.parametrize("said", WRONG, ids=range(len(WRONG)))
def test_errors_in_the_file_fail_in_the_build(said: str) -> None:
    exit_code, _, words = ran(recipes.command(target(command="exit 0"), code("x.spec", said=said)))
    assert exit_code == 1
    assert words.startswith("nothing can be built: .abf.yml")
    assert WRONG[said] in words
    assert words.count("\n") == 1
    assert recipes.sources(said) == {}


def test_files_of_the_store_are_named_by_plain_names() -> None:
    said = f"sources:\n  hello-1.0.tar.gz: {SHA1}\n  ..hidden: {'f' * 40}\n  a b: '{'0' * 40}'\n"
    assert recipes.sources(said) == {"hello-1.0.tar.gz": SHA1, "..hidden": "f" * 40, "a b": "0" * 40}


def test_a_name_may_be_as_long_as_a_file_system_takes() -> None:
    for name in ("x" * 255, "é" * 127 + "x"):
        assert recipes.sources(f"sources: {{{name}: {SHA1}}}") == {name: SHA1}


# YAML reads a sha1 that consists of digits as a number, and ABF's own tool writes it without quotes
def test_a_sum_that_reads_as_a_number_is_refused_without_quotes() -> None:
    assert recipes.sources(f"sources: {{a: {'1' * 40}}}") == {}
    assert "sha1 sums of 40 hex digits" in recipes.command(target(), code(said=f"sources: {{a: {'1' * 40}}}"))


@settings(max_examples=50)
@given(st.text(max_size=100))
def test_no_text_is_too_odd(said: str) -> None:
    line = recipes.command(target(command="make"), code(said=said))
    assert line == "make" or line.startswith("printf ")
    assert recipes.sources(said) == {}


@settings(max_examples=100)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_a_complaint_is_only_ever_printed(words: str) -> None:
    said = f"build: {{{words}"
    line = recipes.command(target(), code(said=said))
    parsed = shlex.split(line, posix=True)
    assert parsed[:2] == ["printf", "%s\\n"]
    assert parsed[3:] == [">&2;", "exit", "1"]
