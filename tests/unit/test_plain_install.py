"""An installation without extras: the missing parts, and the behaviour of modules without them."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packages_support import hide_extra
from packaging.requirements import Requirement

from polylocal.errors import PackageError
from polylocal.packages import reading

EXTRA = {"pysequoia", "rpmfile", "zstandard"}


def names(extra: str) -> set[str]:
    found = map(Requirement, requires("polylocal") or [])
    return {item.name for item in found if item.marker is None or item.marker.evaluate({"extra": extra})}


def test_the_plain_dependencies_are_without_the_extra() -> None:
    assert not names("") & EXTRA
    assert names("packages") - names("") == EXTRA


def test_the_daemon_and_the_command_line_import_nothing_of_it() -> None:
    program = (
        "import sys; import polylocal.daemon.main, polylocal.daemon.doctor, polylocal.cli.packages\n"
        "print(*(name.partition('.')[0] for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "polylocal" in done.stdout
    assert not set(done.stdout.split()) & EXTRA


def test_a_package_with_zstd_is_refused_with_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.deb"
    members = b"".join(
        f"{name:<16}{'':<32}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2)
        for name, content in (("debian-binary", b"2.0\n"), ("control.tar.zst", b"x"), ("data.tar.zst", b"x"))
    )
    path.write_bytes(b"!<arch>\n" + members)
    hide_extra(monkeypatch)
    sentence = r"^a \.deb file that is compressed with zstd needs .*'polylocal\[packages\]'"
    with pytest.raises(PackageError, match=sentence):
        reading.read(path, "a.deb")
