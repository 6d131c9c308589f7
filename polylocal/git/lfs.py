"""Contents that git-LFS keeps beside a git repository, fetched by the program `git-lfs` where it is installed.

It connects to whatever its server names, so it is used only for URLs that an admin gave.
"""

from __future__ import annotations

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
    """Lines for `git update-index --index-info` that put contents in the place of pointers, but for what fails."""
    size = sum(pointer.size for pointer in pointers)
    if not is_trusted or shutil.which("git-lfs") is None or len(pointers) > MAX_FILES or size > limits.size:
        return b""
    lines, known = b"", dict[str, str | None]()
    # in a repository of its own: git-lfs would leave hooks and copies in the other one, and read its `.lfsconfig`
    own = work / "lfs.git"
    command.run("init", "--quiet", "--bare", str(own), git_dir=own)
    for pointer in pointers:
        if pointer.oid not in known:
            known[pointer.oid] = _content(git_dir, own, pointer, url, environment)
        if blob := known[pointer.oid]:
            lines += f"{pointer.mode} {blob}\t{pointer.path}\0".encode("utf-8", "surrogateescape")
    return lines


def _content(git_dir: Path, own: Path, pointer: Pointer, url: str, environment: Mapping[str, str]) -> str | None:
    """The hash of its blob in the repository; None: git-lfs did not give what the pointer names."""
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
            limits=processes.Limits(memory_mib=16384),  # of addresses: its runtime reserves more than it uses
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
