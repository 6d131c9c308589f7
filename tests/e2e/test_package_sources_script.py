"""scripts/package-sources without access to the mirrors: it reports missing files, and keeps existing ones."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from e2e.package_sources import SCRIPT

pytestmark = pytest.mark.engine

NOWHERE = "http://127.0.0.1:9"  # the discard port, where no program listens


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "POLYLOCAL_PACKAGE_SOURCES": str(folder), **variables}
    return subprocess.run([SCRIPT, *arguments], env=env, capture_output=True, text=True, check=True)


def test_files_missing_on_the_mirrors_are_named(engine_address: str, tmp_path: Path) -> None:
    (tmp_path / "figlet").mkdir()
    (tmp_path / "figlet" / "figlet.dsc").write_text("from before\n")
    manifest = {"made_by": "another image", "files": {"figlet": ["figlet.dsc"], "cowsay": ["lost.dsc"]}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    done = run(tmp_path, DOCKER_HOST=engine_address, http_proxy=NOWHERE, https_proxy=NOWHERE)
    assert done.stdout == ""
    *lines, last = done.stderr.splitlines()
    lacking = [line.split(": ")[1:3] for line in lines]
    assert lacking == [
        *([name, "not here"] for name in ("MarkupSafe", "bsdmainutils", "cowsay", "debian-requirements")),
        ["figlet", "only an older one is here"],
        *([name, "not here"] for name in ("hello", "idna", "iniconfig", "pluggy", "python-requirements")),
        *([name, "not here"] for name in ("python-tools", "traceroute")),
    ]
    assert all(line.split(": ", 3)[3] for line in lines)  # the reason
    assert last.startswith(f"package-sources: fetched 0 of 12 into {tmp_path}")
    assert json.loads((tmp_path / "manifest.json").read_text())["files"] == {"figlet": ["figlet.dsc"]}
    assert {path.name for path in tmp_path.iterdir()} == {"figlet", "lock", "manifest.json"}


def test_without_an_engine_nothing_is_fetched(tmp_path: Path) -> None:
    done = run(tmp_path, DOCKER_HOST=f"unix://{tmp_path}/nobody.sock")
    [line] = done.stderr.splitlines()
    assert line.startswith(
        "package-sources: the sources that tests of package builds use are left out: no engine answers"
    )


def test_where_they_are_kept(tmp_path: Path) -> None:
    assert run(tmp_path, "--folder").stdout == f"{tmp_path}\n"
    cache = run(Path(""), "--folder", POLYLOCAL_PACKAGE_SOURCES="", XDG_CACHE_HOME=str(tmp_path)).stdout.strip()
    assert cache == (
        "/var/cache/polylocal/package-sources" if os.geteuid() == 0 else f"{tmp_path}/polylocal/package-sources"
    )
