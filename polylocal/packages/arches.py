"""Architectures that this machine can build for: its own, and those that it was taught to run."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

BINFMT = Path("/proc/sys/fs/binfmt_misc")
# ABF's name → what the machine calls itself, the engine's name, the name of its handler
_KNOWN = {
    "x86_64": (("x86_64", "amd64"), "linux/amd64", "qemu-x86_64"),
    "aarch64": (("aarch64", "arm64"), "linux/arm64", "qemu-aarch64"),
    "i586": (("i386", "i586", "i686"), "linux/386", "qemu-i386"),
    "armv7hl": (("armv7l",), "linux/arm/v7", "qemu-arm"),
    "riscv64": (("riscv64",), "linux/riscv64", "qemu-riscv64"),
    "ppc64le": (("ppc64le",), "linux/ppc64le", "qemu-ppc64le"),
    "s390x": (("s390x",), "linux/s390x", "qemu-s390x"),
}

_DEBIAN = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "i586": "i386",
    "armv7hl": "armhf",
    "ppc64le": "ppc64el",
}  # where Debian's name is another one


def own(machine: str | None = None) -> str:
    """ABF's name of this machine's architecture."""
    said = (machine or platform.machine()).lower()
    return next((name for name, (machines, _, _) in _KNOWN.items() if said in machines), said)


def buildable(machine: str | None = None, binfmt: Path = BINFMT) -> Sequence[str]:
    """This machine's own first: nothing is listed that would wait for ever."""
    mine = own(machine)
    return [mine, *(name for name, (_, _, handler) in _KNOWN.items() if name != mine and _is_on(binfmt / handler))]


def debian(arch: str) -> str:
    """Debian's name of an architecture."""
    return _DEBIAN.get(arch, arch)


def engine_platform(arch: str, machine: str | None = None) -> str | None:
    """How the engine names an architecture; None: the machine's own, nothing is to be said."""
    return None if arch == own(machine) or arch not in _KNOWN else _KNOWN[arch][1]


def _is_on(handler: Path) -> bool:
    try:
        return handler.read_text().startswith("enabled")
    except OSError:
        return False
