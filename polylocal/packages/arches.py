"""Names of architectures, and the architectures that this machine can build for: its own and emulated ones."""

import platform
from collections.abc import Sequence
from pathlib import Path

BINFMT = Path("/proc/sys/fs/binfmt_misc")
# ABF's name → names that `uname -m` prints, the engine's platform, the name of the binfmt_misc handler
_KNOWN = {
    "x86_64": (("x86_64", "amd64"), "linux/amd64", "qemu-x86_64"),
    "aarch64": (("aarch64", "arm64"), "linux/arm64", "qemu-aarch64"),
    "i586": (("i386", "i586", "i686"), "linux/386", "qemu-i386"),
    "armv7hl": (("armv7l",), "linux/arm/v7", "qemu-arm"),
    "riscv64": (("riscv64",), "linux/riscv64", "qemu-riscv64"),
    "ppc64le": (("ppc64le",), "linux/ppc64le", "qemu-ppc64le"),
    "s390x": (("s390x",), "linux/s390x", "qemu-s390x"),
}
# architectures with another name in Debian
_DEBIAN = {"x86_64": "amd64", "aarch64": "arm64", "i586": "i386", "armv7hl": "armhf", "ppc64le": "ppc64el"}


def native(machine: str | None = None) -> str:
    """ABF's name of this machine's architecture. `machine`: a name as of `uname -m`; None: this machine's."""
    found = (machine or platform.machine()).lower()
    return next((name for name, (machines, _, _) in _KNOWN.items() if found in machines), found)


def buildable(machine: str | None = None, binfmt: Path = BINFMT) -> Sequence[str]:
    """ABF's names of the architectures that this machine can run, its own first. `binfmt`: the kernel's handlers."""
    first = native(machine)
    emulated = (name for name, (_, _, handler) in _KNOWN.items() if name != first and _is_enabled(binfmt / handler))
    return [first, *emulated]


def debian(arch: str) -> str:
    """Debian's name of an architecture."""
    return _DEBIAN.get(arch, arch)


def engine_platform(arch: str, machine: str | None = None) -> str | None:
    """The engine's name of a platform, such as `linux/arm64`. None: this machine's own platform, or an unknown one."""
    return None if arch == native(machine) or arch not in _KNOWN else _KNOWN[arch][1]


def _is_enabled(handler: Path) -> bool:
    try:
        return handler.read_text().startswith("enabled")
    except OSError:
        return False
