"""The build context for the engine: a tar archive with the Dockerfile at its root and the code under `build/`."""

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from polylocal.git.code_reader import Extra
from polylocal.git.repository import Repository
from polylocal.planning.dockerfile import setup_file
from polylocal.system.cancellation import Cancel, Cancelled

_CHUNK = 1 << 18


@contextmanager
def build_context(
    dockerfile: str, repository: Repository, commit: str | None, folder: str = "", *, scratch: Path | None = None
) -> Iterator[BinaryIO]:
    """Yield the build context as an open file. Without a commit, `build/` is empty.

    `scratch`: folder for temporary files; None: the system's. git writes the archive: this is fast for thousands of
    files, and the same commit gives the same members.
    """
    if scratch:
        scratch.mkdir(parents=True, exist_ok=True)
    made = tempfile.TemporaryDirectory(prefix="polylocal-context-", dir=scratch)
    with made as name, tempfile.TemporaryFile(dir=scratch) as file:
        path = Path(name) / "Dockerfile"
        path.write_text(dockerfile)
        if commit is None:
            _empty(file, path)
        else:
            extras = [Extra("", path), *_executable_setup(repository, commit, folder, Path(name))]
            repository.archive(commit, file, prefix="build/", folder=folder, extras=extras)
        file.seek(0)
        yield file


class Stoppable:
    """A build context whose reads raise Cancelled when the build is stopped, since sending a large one takes long."""

    def __init__(self, file: BinaryIO, cancel: Cancel) -> None:
        self._file = file
        self._cancel = cancel

    def read(self, size: int = -1) -> bytes:
        if self._cancel.called:
            raise Cancelled("The build was stopped.")
        return self._file.read(size)

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(_CHUNK):
            yield chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _empty(file: BinaryIO, dockerfile: Path) -> None:
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.add(dockerfile, "Dockerfile")
        build = tarfile.TarInfo("build")
        build.type, build.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(build)


def _executable_setup(repository: Repository, commit: str, folder: str, scratch: Path) -> list[Extra]:
    """An executable copy of the setup script, if the code's is not executable. The last member of a name wins."""
    modes = repository.modes(commit, folder)
    name = setup_file(modes)
    if name is None or modes[name] != "100644":
        return []
    script = scratch / name
    script.write_bytes(repository.read(commit, f"{folder.rstrip('/')}/{name}" if folder else name))
    script.chmod(0o755)
    return [Extra("build/", script)]
