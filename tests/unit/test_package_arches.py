"""The architectures that this machine can build for. Others would wait for ever."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from polylocal.packages import arches


def taught(folder: Path, **handlers: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in handlers.items():
        (folder / name.replace("qemu_", "qemu-")).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("x86_64", "x86_64"),
        ("AMD64", "x86_64"),
        ("aarch64", "aarch64"),
        ("arm64", "aarch64"),
        ("i386", "i586"),
        ("i686", "i586"),
        ("armv7l", "armv7hl"),
        ("riscv64", "riscv64"),
        ("ppc64le", "ppc64le"),
        ("s390x", "s390x"),
        ("loongarch64", "loongarch64"),
    ],
)
def test_machines_have_the_names_that_abf_gives_them(machine: str, name: str, tmp_path: Path) -> None:
    assert arches.native(machine) == name
    assert arches.buildable(machine, tmp_path) == [name]
    assert arches.engine_platform(name, machine) is None


def test_the_default_is_this_machine(tmp_path: Path) -> None:
    assert arches.native() == arches.native(platform.machine())
    assert arches.buildable(binfmt=tmp_path)[0] == arches.native()
    assert arches.engine_platform(arches.native()) is None


def test_emulated_architectures_come_after_the_machines_own(tmp_path: Path) -> None:
    binfmt = taught(
        tmp_path / "binfmt", qemu_aarch64="enabled\ninterpreter /usr/bin/qemu-aarch64\n", qemu_arm="enabled"
    )
    assert arches.buildable("x86_64", binfmt) == ["x86_64", "aarch64", "armv7hl"]
    assert arches.buildable("arm64", binfmt) == ["aarch64", "armv7hl"]


def test_a_handler_that_is_off_teaches_nothing(tmp_path: Path) -> None:
    binfmt = taught(tmp_path / "binfmt", qemu_aarch64="disabled\n", qemu_arm="", qemu_mips="enabled")
    (binfmt / "qemu-s390x").mkdir()
    assert arches.buildable("x86_64", binfmt) == ["x86_64"]


def test_a_machine_without_handlers_builds_for_itself(tmp_path: Path) -> None:
    assert arches.buildable("x86_64", tmp_path / "nosuch") == ["x86_64"]


def test_a_handler_of_its_own_does_not_list_a_machine_twice(tmp_path: Path) -> None:
    binfmt = taught(tmp_path / "binfmt", qemu_x86_64="enabled")
    (binfmt / "qemu-x86_64").write_text("enabled")
    assert arches.buildable("x86_64", binfmt) == ["x86_64"]
    assert arches.buildable("aarch64", binfmt) == ["aarch64", "x86_64"]


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("i586", "linux/386"),
        ("armv7hl", "linux/arm/v7"),
        ("riscv64", "linux/riscv64"),
        ("ppc64le", "linux/ppc64le"),
        ("s390x", "linux/s390x"),
        ("loongarch64", None),
    ],
)
def test_the_engine_gets_architectures_that_are_not_the_machines(arch: str, said: str | None) -> None:
    other = "aarch64" if arch == "x86_64" else "x86_64"
    assert arches.engine_platform(arch, other) == said
