"""Fetches file contents from git-LFS, with the program `git-lfs` if it is installed.

`git-lfs` connects to any address that its server names. So it is used only for URLs that an admin configured.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from polylocal.files.unpacking import Limits
from polylocal.git import command
from polylocal.git.missing import Pointer
from polylocal.system import processes

MAX_FILES = 1000


def fetch(
    git_dir: Path,
    pointers: Sequence[Pointer],
    url: str,
    is_trusted: bool,
    environment: Mapping[str, str],
    work: Path,
    limits: Limits,
) -> bytes:
    """Input for `git update-index --index-info` that replaces pointers by contents; failed ones stay pointers."""
    size = sum(pointer.size for pointer in pointers)
    if not is_trusted or shutil.which("git-lfs") is None or len(pointers) > MAX_FILES or size > limits.size:
        return b""
    lines, known = b"", dict[str, str | None]()
    # a separate repository: git-lfs would add hooks and copies to the real one, and read its `.lfsconfig`
    own = work / "lfs.git"
    command.run("init", "--quiet", "--bare", str(own), git_dir=own)
    for pointer in pointers:
        if pointer.oid not in known:
            known[pointer.oid] = _content(git_dir, own, pointer, url, environment)
        if blob := known[pointer.oid]:
            lines += f"{pointer.mode} {blob}\t{pointer.path}\0".encode("utf-8", "surrogateescape")
    return lines


def _content(git_dir: Path, own: Path, pointer: Pointer, url: str, environment: Mapping[str, str]) -> str | None:
    """The hash of the blob with the content; None: git-lfs did not return the content of the pointer."""
    content = own / pointer.oid
    with content.open("wb") as file:
        command.run(
            *("lfs", "smudge", "--", pointer.path),
            git_dir=own,
            base={},
            env=environment,
            config=_config(url),
            cwd=own,
            stdin=pointer.text,
            stdout=file,
            limits=processes.Limits(memory_mib=16384),  # address space; the Go runtime reserves more than it uses
        )
    with content.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != pointer.oid:
            return None
    arguments = ("hash-object", "-w", "--no-filters", "--", str(content))
    blob = command.run(*arguments, git_dir=git_dir).stdout.decode().strip()
    content.unlink()
    return blob


def _config(url: str) -> dict[str, str]:
    at = f"file://{url}" if url.startswith("/") else url
    config = {"remote.origin.url": at, "lfs.concurrenttransfers": "2"}
    if url.startswith(("http://", "https://")):
        base = url.rstrip("/")
        config["lfs.url"] = f"{base if base.endswith('.git') else f'{base}.git'}/info/lfs"
    return config
