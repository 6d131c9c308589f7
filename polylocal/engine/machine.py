"""This machine and its NVIDIA GPUs."""

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

_NVML = "libnvidia-ml.so.1"  # the file that pynvml loads


@dataclass(frozen=True)
class Gpu:
    """One GPU at this moment: memory in bytes, power in watts, temperature in degrees Celsius."""

    index: int
    uuid: str
    name: str
    minor: int
    bus_id: str
    serial: str
    temperature_gpu: int
    utilization_gpu: int  # percent
    power_draw: int
    power_limit: int
    memory_total: int
    memory_free: int
    memory_used: int


@dataclass(frozen=True)
class Machine:
    """The machine that runs the containers of an installation."""

    name: str
    cpus: int
    memory_mib: int
    os_image: str
    kernel: str
    engine: str | None = None  # name and version; None: it never answered
    engine_api: str | None = None
    gpus: Sequence[Gpu] = field(default_factory=list)


def look(name: str, engine: str | None, engine_api: str | None) -> Machine:
    """This machine, as the operating system and the GPU driver describe it. `engine` and `engine_api` are passed on."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        name=name,
        cpus=os.cpu_count() or 1,
        memory_mib=memory >> 20,
        os_image=_os_name(),
        kernel=platform.release(),
        engine=engine,
        engine_api=engine_api,
        gpus=gpus(),
    )


def gpus() -> list[Gpu]:
    """All GPUs, from the library of the driver. Empty without a driver."""
    return _ask_driver(lambda pynvml: [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())], [])


def count_gpus() -> int:
    """The number of GPUs. Quicker than `gpus`: it does not ask the cards themselves."""
    return int(_ask_driver(lambda pynvml: pynvml.nvmlDeviceGetCount(), 0))


def no_gpus() -> str:
    """Why there are no GPUs, in the words of the driver's library if it has any. "": there are GPUs."""

    def tell(pynvml: Any) -> str:
        return "" if pynvml.nvmlDeviceGetCount() else "the NVIDIA driver knows of no card"

    troubles: list[str] = []
    found = _ask_driver(tell, None, troubles.append)
    return found if found is not None else f"the NVIDIA driver does not answer ({troubles[0]})"


def _ask_driver(ask: Callable[[Any], T], otherwise: T, trouble: Callable[[str], None] = lambda text: None) -> T:
    if "pynvml" not in sys.modules and not _has_driver():
        trouble(f"{_NVML} is not installed")
        return otherwise
    import pynvml  # slow to import and 17 MB, since it has thousands of constants

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        trouble(str(error))
        return otherwise
    try:
        return ask(pynvml)
    except pynvml.NVMLError as error:  # the driver is being replaced, or a card has fallen off the bus
        trouble(str(error))
        return otherwise
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _has_driver() -> bool:
    """Whether the library of the NVIDIA driver can be loaded. The driver may be installed at any time."""
    try:
        ctypes.CDLL(_NVML)
    except OSError:
        return False
    return True


def _gpu(pynvml: Any, index: int) -> Gpu:
    def known(ask: Callable[[Any], Any], otherwise: Any) -> Any:
        """Desktop cards do not support every question."""
        try:
            return ask(handle)
        except pynvml.NVMLError:
            return otherwise

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = known(pynvml.nvmlDeviceGetMemoryInfo, None)  # integrated GPUs have no own memory
    sensor = pynvml.NVML_TEMPERATURE_GPU
    return Gpu(
        index=index,
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        minor=int(known(pynvml.nvmlDeviceGetMinorNumber, index)),
        bus_id=_text(pynvml.nvmlDeviceGetPciInfo(handle).busId),
        serial=str(known(pynvml.nvmlDeviceGetSerial, "")),
        temperature_gpu=int(known(lambda h: pynvml.nvmlDeviceGetTemperature(h, sensor), 0)),
        utilization_gpu=int(known(lambda h: pynvml.nvmlDeviceGetUtilizationRates(h).gpu, 0)),
        power_draw=int(known(pynvml.nvmlDeviceGetPowerUsage, 0)) // 1000,
        power_limit=int(known(pynvml.nvmlDeviceGetEnforcedPowerLimit, 0)) // 1000,
        memory_total=memory.total if memory else 0,
        memory_free=memory.free if memory else 0,
        memory_used=memory.used if memory else 0,
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:  # not a Linux
        return f"{platform.system()} {platform.release()}"
