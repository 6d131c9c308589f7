"""Sources of packages: real ones, which scripts/package-sources stores on this machine, and small ones of ours.

A small source replaces each real one that could not be downloaded, and is built in the same way.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath

from packages_support import deb, make_tar, whole_wheel

SCRIPT = Path(__file__).parents[2] / "scripts/package-sources"
_ENVIRONMENT = dict(os.environ)  # includes the user's setting of the folder, which is hidden from tests
DEBIAN_REQUIREMENTS, PYTHON_REQUIREMENTS, TOOLS = "debian-requirements", "python-requirements", "python-tools"
BACKEND = "small_backend-1.0-py3-none-any.whl"
REQUIREMENT = "small-requirement_1.0_all.deb"


@cache
def kept() -> Path:
    """The folder of scripts/package-sources."""
    done = subprocess.run([SCRIPT, "--folder"], env=_ENVIRONMENT, capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def files(name: str) -> list[Path]:
    """The files of a source or of an additional folder. Empty if they could not be downloaded."""
    try:
        manifest = json.loads((kept() / "manifest.json").read_text())
    except FileNotFoundError:
        return []
    return [kept() / name / file for file in manifest["files"].get(name, ())]


@dataclass(frozen=True)
class Code:
    """Code to build. `version`: the version of its packages. `beside`: name → upstream tarball, which is not in git."""

    name: str
    version: str
    beside: Mapping[str, bytes] = field(default_factory=dict)
    is_small: bool = False


def debian(name: str, into: Path) -> Code:
    """The code as in its packagers' git repository: patches are not applied, and the upstream tarball is separate."""
    found = files(name) if files(DEBIAN_REQUIREMENTS) else []
    if not found:
        return small_debian(f"small-{name}", into)
    [dsc] = [path for path in found if path.suffix == ".dsc"]
    [version] = [line.split()[1] for line in dsc.read_text().splitlines() if line.startswith("Version:")]
    is_upstreams = [path for path in found if ".orig" in path.name]
    for path in found:
        if ".tar." in path.name and path.suffix != ".asc":
            unpack(path, into, strip=0 if ".debian.tar." in path.name else 1)
    return Code(name, version, {path.name: path.read_bytes() for path in is_upstreams})


def python(name: str, into: Path, tag: str, *, is_compiled: bool = False) -> Code:
    """The code as in its developers' git repository, with this tag: without the additions of a source distribution."""
    found = files(name) if files(PYTHON_REQUIREMENTS) else []
    if not found:
        return small_python(f"small_{name}".lower(), into, tag, is_compiled=is_compiled)
    [sdist] = found
    unpack(sdist, into, strip=1)
    (into / "PKG-INFO").unlink()
    for folder in into.rglob("*.egg-info"):
        shutil.rmtree(folder)
    requires = tomllib.loads((into / "pyproject.toml").read_text())["build-system"]["requires"]
    is_by_tag = any("scm" in found or "vcs" in found for found in requires)
    return Code(name, tag if is_by_tag else sdist.name.removesuffix(".tar.gz").rpartition("-")[2])


def unpack(path: Path, into: Path, *, strip: int) -> None:
    """`strip`: the number of leading folders to remove from each name."""
    with tarfile.open(path) as archive:
        archive.extraction_filter = getattr(tarfile, "tar_filter", None)  # Python before 3.11.4 has no filters
        for member in archive:
            parts = PurePosixPath(member.name).parts[strip:]
            if parts:
                renamed = copy.copy(member)
                renamed.name = str(PurePosixPath(*parts))
                archive.extract(renamed, into)


# -- small ones ------------------------------------------------------------------------------------------------------


def small_debian(name: str, into: Path) -> Code:
    """A package with a patch, an epoch, two binary packages, and a build requirement from a connected repository."""
    upstream = {f"{name}-1.0/words": b"as upstream wrote it\n"}
    patch = "--- a/words\n+++ b/words\n@@ -1 +1 @@\n-as upstream wrote it\n+as patched\n"
    stanza = "Package: {}\nArchitecture: all\nDepends: ${{misc:Depends}}\nDescription: a test\n"
    _write(
        into,
        {
            "words": upstream[f"{name}-1.0/words"].decode(),
            "debian/source/format": "3.0 (quilt)\n",
            "debian/patches/series": "words.patch\n",
            "debian/patches/words.patch": patch,
            "debian/changelog": (
                f"{name} (1:1.0-1) unstable; urgency=low\n\n  * A test.\n\n"
                " -- A <a@b.c>  Thu, 01 Jan 2026 00:00:00 +0000\n"
            ),
            "debian/control": (
                f"Source: {name}\nSection: misc\nPriority: optional\nMaintainer: A <a@b.c>\n"
                "Build-Depends: debhelper-compat (= 13), small-requirement\n\n"
                f"{stanza.format(name)}\n{stanza.format(f'{name}-extra')}"
            ),
            "debian/rules": (
                "#!/usr/bin/make -f\n%:\n\tdh $@\n"
                "override_dh_auto_build:\n\tsmall-requirement >built-by\n"
                "override_dh_auto_clean:\n\trm -f built-by\n"
                f"override_dh_auto_install:\n\tinstall -D -m 644 words debian/{name}/usr/share/{name}/words\n"
                f"\tinstall -D -m 644 built-by debian/{name}-extra/usr/share/{name}/built-by\n"
            ),
        },
    )
    (into / "debian/rules").chmod(0o755)
    return Code(name, "1:1.0-1", {f"{name}_1.0.orig.tar.gz": make_tar(upstream)}, is_small=True)


def small_requirement() -> bytes:
    """The build requirement of `small_debian`."""
    return deb("small-requirement", "1.0", "#!/bin/sh\necho the requirement\n")


def small_python(name: str, into: Path, tag: str, *, is_compiled: bool = False) -> Code:
    """Code with a C extension, or with a build backend from a connected repository that takes the tag's version."""
    if is_compiled:
        code = (
            "#include <Python.h>\n"
            f'static struct PyModuleDef about = {{PyModuleDef_HEAD_INIT, "{name}", NULL, -1, NULL}};\n'
            f"PyMODINIT_FUNC PyInit_{name}(void) {{ return PyModule_Create(&about); }}\n"
        )
        setup = (
            f"from setuptools import Extension, setup\n"
            f"setup(name={name!r}, version='1.0', ext_modules=[Extension({name!r}, [{f'{name}.c'!r}])])\n"
        )
        _write(into, {f"{name}.c": code, "setup.py": setup})
    else:
        _write(
            into,
            {
                f"{name}.py": "",
                "pyproject.toml": (
                    f'[build-system]\nrequires = ["small-backend>=1"]\nbuild-backend = "small_backend"\n'
                    f'[project]\nname = "{name}"\ndynamic = ["version"]\n'
                ),
            },
        )
    return Code(name, "1.0" if is_compiled else tag, is_small=True)


_BACKEND = """
import os, tomllib, zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    with open("pyproject.toml", "rb") as file:
        name = tomllib.load(file)["project"]["name"]
    version = os.environ["SETUPTOOLS_SCM_PRETEND_VERSION"]
    made, about = f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    with zipfile.ZipFile(os.path.join(wheel_directory, made), "w") as archive:
        archive.write(f"{name}.py")
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(f"{about}/RECORD", f"{name}.py,,\\n{about}/METADATA,,\\n{about}/WHEEL,,\\n{about}/RECORD,,\\n")
    return made
"""


def small_backend() -> bytes:
    """The build requirement of `small_python`: a minimal build backend (PEP 517)."""
    return whole_wheel("small_backend", "1.0", _BACKEND)


def small_library() -> dict[str, str | bytes]:
    """A spec of a package that `small_program` needs to build."""
    return {"library.spec": _spec("small-library", "words", "echo from the library >words")}


def small_program() -> dict[str, str | bytes]:
    spec = _spec(
        "small-program", "built-with", "cp %{_datadir}/words built-with", "BuildRequires: small-library >= 1.0\n"
    )
    return {"program.spec": spec}


def _spec(name: str, file: str, build: str, more: str = "") -> str:
    """The spec of a package that installs one file."""
    return (
        f"Name: {name}\nVersion: 1.0\nRelease: 1\nSummary: a test\nLicense: MIT\nBuildArch: noarch\n{more}"
        f"%description\nA test.\n%prep\n%build\n{build}\n"
        f"%install\ninstall -D -m 644 {file} %{{buildroot}}%{{_datadir}}/{file}\n%files\n%{{_datadir}}/{file}\n"
    )


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
