"""Folders that package managers install from: written beside the old ones, put in their place in one step.

What one reads is a link to a folder that is never changed. To publish is to make another folder, of links to the files
in the depot and of metadata by the tools of its kind, and to turn the link. A crash leaves the old one or the new one.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import os
import re
import shutil
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from polylocal.folders import remove_tree, walk
from polylocal.packages import reading, tools
from polylocal.packages.tools import ToolError

SOURCES = "SRPMS"  # the folder of sources, beside those of architectures
_DISTRIBUTIONS = (".whl", ".tar.gz")  # what pip installs; others may lie beside them
_TURNING = threading.Lock()


@dataclass(frozen=True)
class Shelf:
    """One folder of a repository: what is to lie in it, by file name, and which package managers read it."""

    path: Path
    files: Mapping[str, Path]
    kind: str | None


def folder(downloads: Path, save_to: str, build_for: str, *, is_personal: bool, arch: str, name: str, sub: str) -> Path:
    """Where a repository's packages lie; a personal platform has one for each platform that is built for."""
    root = downloads / save_to / "repository"
    return (root / build_for if is_personal else root) / arch / name / sub


def container(downloads: Path, save_to: str, build_list_id: int, *, arch: str, name: str) -> Path:
    """Where the packages of one build lie that nobody has published."""
    return downloads / save_to / "container" / str(build_list_id) / arch / name / "release"


def write(shelves: Sequence[Shelf]) -> None:
    """Make folders that hold exactly this; all or none of them. Raises ToolError, OSError: then nothing has changed."""
    made: list[tuple[Shelf, Path]] = []
    try:
        for shelf in shelves:
            made.append((shelf, _staged(shelf)))
        with _TURNING:
            _swap(made)
    except BaseException:
        for _, new in made:
            with suppress(OSError):
                remove_tree(new)
        raise
    with _TURNING:
        for shelf, _ in made:
            _sweep(shelf.path)


def snapshot(path: Path, target: Path) -> None:
    """Links to all that lies in a repository's folder now, in a new folder. Raises OSError."""
    target.mkdir(parents=True)
    with _TURNING:  # what is turned away from is removed
        source = path.resolve()
        for entry in walk(source):
            if entry.is_folder:
                (target / entry.path).mkdir()
            elif entry.is_file:
                _link(source / entry.path, target / entry.path)
    _let_read(target)


def _swap(made: Sequence[tuple[Shelf, Path]]) -> None:
    turned: list[tuple[Path, str | None]] = []
    try:
        for shelf, new in made:
            before = os.readlink(shelf.path) if shelf.path.is_symlink() else None
            _turn(shelf.path, new.name)
            turned.append((shelf.path, before))
    except BaseException:
        for path, before in turned:
            if before is None:
                path.unlink(missing_ok=True)
            else:
                _turn(path, before)
        raise


def _turn(path: Path, target: str) -> None:
    new = path.with_name(f".{path.name}.link")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)


def _staged(shelf: Shelf) -> Path:
    """The folder as it is to be, beside the one that is there."""
    shelf.path.parent.mkdir(parents=True, exist_ok=True)
    new = shelf.path.parent / f".{shelf.path.name}.{uuid.uuid4().hex[:12]}"
    new.mkdir()
    try:
        for name, source in shelf.files.items():
            reading.check_name(name)
            _link(source, new / name)
        _METADATA.get(shelf.kind or "", _rpm)(new, shelf.path)
        _let_read(new)
    except BaseException:
        remove_tree(new)
        raise
    return new


def _let_read(folder: Path) -> None:
    """Package managers in builds read it as whatever user they are, whatever the daemon's umask is."""
    for parent, _, names in os.walk(folder):
        os.chmod(parent, 0o755)
        for name in names:
            os.chmod(Path(parent, name), 0o644)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links, or one that has no more of them
        shutil.copyfile(source, target)


def _sweep(path: Path) -> None:
    """Folders that were turned away from, or never turned to."""
    current = os.readlink(path)
    for old in path.parent.glob(f".{path.name}.*"):
        if old.name != current and not old.is_symlink():
            with suppress(OSError):  # the next publication tries again
                remove_tree(old)


# -- metadata --------------------------------------------------------------------------------------------------------


def _deb(new: Path, old: Path) -> None:
    """A flat repository: `deb [trusted=yes] http://…/release/ ./`"""
    _packed(new / "Packages", tools.run(["dpkg-scanpackages", "-m", ".", "/dev/null"], new))
    if any(new.glob("*.dsc")):
        _packed(new / "Sources", tools.run(["dpkg-scansources", "."], new))
    label = ["-o", "APT::FTPArchive::Release::Label=polylocal"]
    release = tools.run(["apt-ftparchive", *label, "release", "."], new)
    (new / "Release").write_bytes(release)


def _packed(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content, mtime=0))


def _rpm(new: Path, old: Path) -> None:
    """`baseurl=http://…/release/` with `gpgcheck=0`; what the old metadata knows is not read again."""
    program = Path(sys.executable).with_name("createrepo_c")
    command = [str(program) if program.exists() else "createrepo_c", "--quiet", "--no-database"]
    if (old / "repodata" / "repomd.xml").exists():
        command += ["--update", "--update-md-path", str(old.resolve())]
    tools.run([*command, "."], new)


def _pypi(new: Path, old: Path) -> None:
    """The simple index (PEP 503): `pip install --index-url http://…/release/simple/`"""
    by_project: dict[str, list[str]] = {}
    for path in sorted(new.iterdir()):
        found = reading.read(path, path.name) if path.name.endswith(_DISTRIBUTIONS) else None
        if found:  # or else it is an archive that is no distribution
            by_project.setdefault(_normalised(found.name), []).append(_anchor(path, found.requires_python))
    simple = new / "simple"
    simple.mkdir()
    names = "".join(f'<a href="{quote(name)}/">{html.escape(name)}</a><br>\n' for name in sorted(by_project))
    (simple / "index.html").write_text(_page("Simple index", names))
    for name, anchors in by_project.items():
        (simple / name).mkdir()
        (simple / name / "index.html").write_text(_page(f"Links for {name}", "".join(anchors)))


def _anchor(path: Path, python: str | None) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    needs = f' data-requires-python="{html.escape(python)}"' if python else ""
    return f'<a href="../../{quote(path.name)}#sha256={digest}"{needs}>{html.escape(path.name)}</a><br>\n'


def _page(title: str, body: str) -> str:
    return f"<!DOCTYPE html>\n<html><head><title>{html.escape(title)}</title></head><body>\n{body}</body></html>\n"


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


_METADATA: dict[str, Callable[[Path, Path], None]] = {
    "deb": _deb,
    "pypi": _pypi,
    "dnf": _rpm,
    "mdv": _rpm,
    "rhel": _rpm,
}

__all__ = ["SOURCES", "Shelf", "ToolError", "container", "folder", "write"]
