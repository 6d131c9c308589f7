"""The machine and its GPUs. A fake module replaces the driver's library."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from polylocal.engine import machine
from polylocal.engine.machine import Gpu


class NVMLError(Exception):
    """One class with subclasses for some errors, as in the library."""


class NotSupported(NVMLError):
    pass


class Driver(ModuleType):
    """A driver with these cards. `fails` lists the functions that raise an error."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *names: str | bytes, fails: tuple[str, ...] = ()) -> None:
        super().__init__("pynvml")
        self._names = names
        self._fails = fails
        self.is_open = False

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)
        return self._refusing(name) if name in self._fails else getattr(self, f"_{name[4:]}")

    @staticmethod
    def _refusing(name: str) -> Callable[..., Any]:
        def refuse(*arguments: Any) -> Any:
            raise NotSupported(name)

        return refuse

    def _Init(self) -> None:
        self.is_open = True

    def _Shutdown(self) -> None:
        self.is_open = False

    def _DeviceGetCount(self) -> int:
        return len(self._names)

    def _DeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def _DeviceGetMemoryInfo(self, _: int) -> SimpleNamespace:
        return SimpleNamespace(total=100, free=70, used=30)

    def _DeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def _DeviceGetName(self, handle: int) -> str | bytes:
        return self._names[handle]

    def _DeviceGetMinorNumber(self, handle: int) -> int:
        return handle + 10

    def _DeviceGetPciInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(busId=f"0000:0{handle}:00.0".encode())

    def _DeviceGetSerial(self, _: int) -> str:
        return "123"

    def _DeviceGetTemperature(self, _: int, sensor: int) -> int:
        return 40 + sensor

    def _DeviceGetUtilizationRates(self, _: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=55, memory=9)

    def _DeviceGetPowerUsage(self, _: int) -> int:
        return 71_500

    def _DeviceGetEnforcedPowerLimit(self, _: int) -> int:
        return 250_000


Install = Callable[[Driver], Driver]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    def installed(driver: Driver) -> Driver:
        monkeypatch.setitem(sys.modules, "pynvml", driver)
        return driver

    return installed


CARD = Gpu(
    index=0,
    uuid="GPU-0",
    name="A card",
    minor=10,
    bus_id="0000:00:00.0",
    serial="123",
    temperature_gpu=40,
    utilization_gpu=55,
    power_draw=71,
    power_limit=250,
    memory_total=100,
    memory_free=70,
    memory_used=30,
)


@pytest.mark.parametrize("name", ["A card", b"A card"])
def test_a_card(install: Install, name: str | bytes) -> None:
    driver = install(Driver(name))
    assert machine.gpus() == [CARD]
    assert not driver.is_open


def test_several_cards(install: Install) -> None:
    install(Driver("A card", "Another"))
    assert [(gpu.index, gpu.name, gpu.minor) for gpu in machine.gpus()] == [(0, "A card", 10), (1, "Another", 11)]


def test_a_driver_without_cards(install: Install) -> None:
    driver = install(Driver())
    assert machine.gpus() == []
    assert not driver.is_open


def test_without_a_driver_there_are_none(install: Install) -> None:
    install(Driver("A card", fails=("nvmlInit",)))
    assert machine.gpus() == []


@pytest.mark.parametrize(
    ("refused", "field", "value"),
    [
        ("nvmlDeviceGetMinorNumber", "minor", 0),
        ("nvmlDeviceGetSerial", "serial", ""),
        ("nvmlDeviceGetTemperature", "temperature_gpu", 0),
        ("nvmlDeviceGetUtilizationRates", "utilization_gpu", 0),
        ("nvmlDeviceGetPowerUsage", "power_draw", 0),
        ("nvmlDeviceGetEnforcedPowerLimit", "power_limit", 0),
        ("nvmlDeviceGetMemoryInfo", "memory_total", 0),
    ],
)
def test_unknown_values_of_a_card_hide_no_others(install: Install, refused: str, field: str, value: object) -> None:
    install(Driver("A card", fails=(refused,)))
    cards = machine.gpus()
    assert [card.uuid for card in cards] == ["GPU-0"]
    assert getattr(cards[0], field) == value


def test_a_driver_that_fails_in_between_is_closed_all_the_same(install: Install) -> None:
    driver = install(Driver("A card", fails=("nvmlDeviceGetHandleByIndex", "nvmlShutdown")))
    assert machine.gpus() == []
    assert driver.is_open  # the shutdown failed as well, and the error was ignored


def test_a_look_at_this_machine(install: Install) -> None:
    install(Driver("A card"))
    found = machine.look("here", "Docker 28.0", "1.48")
    assert (found.name, found.engine, found.engine_api) == ("here", "Docker 28.0", "1.48")
    assert found.cpus == os.cpu_count()
    assert 64 < found.memory_mib < 2**30
    assert found.os_image
    assert found.kernel == os.uname().release
    assert list(found.gpus) == [CARD]


def test_a_machine_without_a_release_file_has_a_name(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> dict[str, str]:
        raise OSError

    install(Driver())
    monkeypatch.setattr(machine.platform, "freedesktop_os_release", missing)
    assert machine.look("here", None, None).os_image


@pytest.mark.parametrize(
    ("driver", "count", "why"),
    [
        (Driver("A card", "Another"), 2, ""),
        (Driver(), 0, "the NVIDIA driver knows of no card"),
        (Driver("A card", fails=("nvmlInit",)), 0, "the NVIDIA driver does not answer (nvmlInit)"),
        (Driver("A card", fails=("nvmlDeviceGetCount",)), 0, "the NVIDIA driver does not answer (nvmlDeviceGetCount)"),
    ],
)
def test_counting_cards_and_why_there_are_none(install: Install, driver: Driver, count: int, why: str) -> None:
    install(driver)
    assert (machine.count_gpus(), machine.no_gpus()) == (count, why)
    assert not driver.is_open
