"""Detection of an engine's GPU support, and of the number of GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from polylocal.daemon import doctor
from polylocal.engine import machine
from polylocal.engine.docker import gpu_support
from polylocal.engine.host import EngineInfo, GpuSupport, Host
from polylocal.runner.engine_link import EngineLink


def info(name: str = "Docker", *, gives_gpus: bool = False, is_desktop: bool = False) -> EngineInfo:
    return EngineInfo(name, "28", "1.48", "unix:///x", 2, 1024.0, "/", False, is_desktop, gives_gpus)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """driver(n): a driver with n cards, without the container toolkit."""
    monkeypatch.setattr(gpu_support, "_PATH", "")

    def has(count: int) -> None:
        monkeypatch.setattr(machine, "count_gpus", lambda: count)
        monkeypatch.setattr(machine, "no_gpus", lambda: "" if count else "the NVIDIA driver does not answer (gone)")

    return has


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({}, False),
        ({"Runtimes": {"runc": {}, "io.containerd.runc.v2": {}}}, False),
        ({"Runtimes": {"runc": {}, "nvidia": {}}}, True),
        ({"Runtimes": None, "DiscoveredDevices": None}, False),
        ({"DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}, True),
        ({"DiscoveredDevices": [{"Source": "cdi", "ID": "vendor.com/net=0"}, {}]}, False),
    ],
)
def test_the_engines_own_report(about: dict[str, Any], expected: bool) -> None:
    assert gpu_support.gives_gpus(about) is expected


def test_cards_that_the_engine_gives(driver: Any) -> None:
    driver(2)
    assert gpu_support.support(info(gives_gpus=True), is_local=True) == GpuSupport(2)


def test_no_driver(driver: Any) -> None:
    driver(0)
    wanted = GpuSupport(0, "the NVIDIA driver does not answer (gone)")
    assert gpu_support.support(info(gives_gpus=True), is_local=True) == wanted


def test_an_engine_without_the_toolkit(driver: Any) -> None:
    driver(1)
    wanted = "1 NVIDIA card here, but the engine can't give them: it has no runtime `nvidia`"
    assert gpu_support.support(info(), is_local=True) == GpuSupport(0, wanted, gpu_support.INSTALL_TOOLKIT)


def test_the_toolkit_s_hook_is_enough_on_this_machine(
    driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(1)
    hook = tmp_path / "nvidia-container-runtime-hook"
    hook.touch(0o755)
    monkeypatch.setattr(gpu_support, "_PATH", str(tmp_path))
    assert gpu_support.support(info(), is_local=True).count == 1
    assert gpu_support.support(info(is_desktop=True), is_local=True).count == 0


def test_cards_of_another_machine_are_not_counted(driver: Any) -> None:
    driver(0)
    assert gpu_support.support(info(), is_local=False) == GpuSupport(None)


def test_podman_gives_none(driver: Any) -> None:
    driver(2)
    assert gpu_support.support(info("Podman", gives_gpus=True), is_local=True) == GpuSupport(0, gpu_support.PODMAN)


# -- the conclusion ---------------------------------------------------------------------------------------------------


class Engine:
    def __init__(self, *supports: GpuSupport) -> None:
        self.supports = list(supports)
        self.asked = 0

    def info(self) -> EngineInfo:
        self.asked += 1
        return info()

    def gpus(self) -> GpuSupport:
        return self.supports.pop(0)


def test_the_capacity_is_known_once_the_engine_answered_and_is_not_asked_for_again() -> None:
    engine: Any = Engine()
    link = EngineLink(engine, "unix:///x")
    assert link.capacity(with_gpus=True) is None
    link.check()
    found = link.capacity(with_gpus=False)
    assert found
    assert (found.cpus, found.memory_mib, found.gpus) == (2, 1024.0, None)
    assert engine.asked == 1


def test_cards_that_come_later_are_found_and_stay_known() -> None:
    engine: Any = Engine(GpuSupport(0, "no driver yet"), GpuSupport(2))
    link = EngineLink(engine, "unix:///x")
    link.check()
    assert [link.capacity(with_gpus=True).gpus for _ in range(3)] == [0, 2, 2]  # type: ignore[union-attr]


NO_TOOLKIT = GpuSupport(0, f"1 NVIDIA card here, but {gpu_support.NO_TOOLKIT}", gpu_support.INSTALL_TOOLKIT)


@pytest.mark.parametrize(
    ("support", "state", "words", "fix"),
    [
        (GpuSupport(2), "ok", "2 NVIDIA cards", ""),
        (GpuSupport(1), "ok", "1 NVIDIA card;", ""),
        (
            GpuSupport(0, "the NVIDIA driver knows of no card"),
            "note",
            "no GPUs: the NVIDIA driver knows of no card",
            "",
        ),
        (NO_TOOLKIT, "note", "no runtime `nvidia`", "Toolkit"),
        (GpuSupport(None), "note", "can't be counted", ""),
    ],
)
def test_doctor_gives_the_reason_for_missing_gpus(support: GpuSupport, state: str, words: str, fix: str) -> None:
    found = doctor._gpus(cast(Host, Engine(support)))
    assert found.state == state
    assert words in found.message
    assert fix in found.fix
    assert bool(found.fix) == bool(fix)
