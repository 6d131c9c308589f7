"""Resource requests and limits of a run: reservation, reduction to the machine's size, validation. Pure.

As in Kubernetes: `requests` are reserved and `limits` are the most that a run may take. Limits without requests are
reserved, too. Cores are numbers, memory is in MiB, GPUs are whole devices.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from polylocal.polyaxonfile.models import Amount, Resources

MIN_CPUS = 0.01  # the kernel gives a container at least 1 ms of each 100 ms
MIN_MEMORY_MIB = 6.0  # the engine starts no container with a smaller limit
ROUNDING = 1e-6  # so that ten times 0.1 core fit into one core
_NAMES = ("cpu", "memory", "gpu")
_KEYS = ("requests", "limits")

Path = tuple[str | int, ...]
Problem = tuple[Path, str]
Cores = float
MiB = float


@dataclass(frozen=True)
class Capacity:
    """The amounts that the engine's machine has for all runs together. `gpus` None: unknown."""

    cpus: Cores
    memory_mib: MiB
    gpus: int | None = None

    def amount(self, name: str) -> float | None:
        return {"cpu": self.cpus, "memory": self.memory_mib, "gpu": self.gpus}[name]


def reservation(resources: Resources | None) -> tuple[Cores, MiB]:
    """The amounts that a run with these resources reserves."""
    if resources is None:
        return 0.0, 0.0
    cpu, memory = resources.cpu, resources.memory
    return cpu.reserved if cpu else 0.0, memory.reserved if memory else 0.0


def asks_for_gpus(resources: Resources | None) -> bool:
    gpu = resources.gpu if resources else None
    return bool(gpu and (gpu.requests or gpu.limits))


def ceiling(amount: Amount | None, most: float | None) -> float | None:
    """The limit of a container: that of the polyaxonfile, but not above `most`. None: no limit."""
    if amount is None or not amount.limits:
        return None
    return amount.limits if most is None else min(amount.limits, most)


def gpus(resources: Resources | None, capacity: Capacity | None) -> int | None:
    """The number of GPUs that a container gets; None: none. Never less than is reserved, even if they are missing."""
    gpu = resources.gpu if resources else None
    wanted = (gpu.limits if gpu.limits is not None else gpu.requests) if gpu else None
    if not wanted:
        return None
    there = capacity.gpus if capacity else None
    if gpu is None or there is None:
        return int(wanted)
    return int(max(gpu.reserved, min(wanted, there))) or None


def problems(resources: Resources | None, capacity: Capacity | None = None) -> list[Problem]:
    """The reasons why a run with these resources can't run, each with its path in the polyaxonfile.

    `capacity` None: only the reasons that hold on every machine.
    """
    found = [*_contradictions(resources)]
    if found or resources is None or capacity is None:
        return found
    for name, amount in _amounts(resources):
        has = capacity.amount(name)
        if has is not None and amount.reserved > has + ROUNDING:
            key = "requests" if amount.requests is not None else "limits"
            found.append((_path(name, key), _too_much(name, amount.reserved, has)))
    return found


def cuts(resources: Resources | None, capacity: Capacity) -> list[Problem]:
    """The limits above the capacity, as sentences for the history of the run. It can run with less."""
    found: list[Problem] = []
    for name, amount in _amounts(resources):
        has, limits = capacity.amount(name), amount.limits
        if has is not None and limits is not None and amount.reserved - ROUNDING <= has < limits - ROUNDING:
            limit, most = in_words(name, limits), in_words(name, int(has))
            found.append((_path(name, "limits"), f"The limit of {limit} is cut to what this machine has, {most}."))
    return found


def not_numbers(environment: object) -> list[Problem]:
    """The amounts that YAML reads as true or false. `environment` is the section before its validation."""
    resources = environment.get("resources") if isinstance(environment, Mapping) else None
    found: list[Problem] = []
    for name in _NAMES:
        amount: Any = resources.get(name) if isinstance(resources, Mapping) else None
        for key in _KEYS:
            value = amount.get(key) if isinstance(amount, Mapping) else None
            if isinstance(value, bool):
                found.append((_path(name, key), f"`{str(value).lower()}` is not an amount; write a number."))
    return found


def _contradictions(resources: Resources | None) -> Iterator[Problem]:
    """The amounts that are impossible on every machine."""
    for name, amount in _amounts(resources):
        values = [(key, value) for key in _KEYS if (value := getattr(amount, key)) is not None]
        for key, value in values:
            if not math.isfinite(value):
                yield _path(name, key), "An amount must be finite."
            elif name == "gpu" and value != int(value):
                text = f"A container gets whole GPUs, not {value:g}; write a whole number, or take `gpu` out"
                yield _path(name, key), f"{text} to run on the processor."
        requests, limits = amount.requests, amount.limits
        has_ceiling = limits is not None and (limits > 0 or name == "gpu")
        if requests is not None and limits is not None and has_ceiling and requests > limits:
            text = f"`requests` ({in_words(name, requests)}) must not be above `limits` ({in_words(name, limits)})."
            yield _path(name, "requests"), text
        least = {"cpu": MIN_CPUS, "memory": MIN_MEMORY_MIB}.get(name, 0.0)
        if limits and limits < least:
            yield _path(name, "limits"), f"A container needs at least {in_words(name, least)}, not {limits:g}."


def _amounts(resources: Resources | None) -> Iterator[tuple[str, Amount]]:
    for name in _NAMES:
        amount: Amount | None = getattr(resources, name, None)
        if amount is not None:
            yield name, amount


def _path(name: str, key: str) -> Path:
    return "environment", "resources", name, key


def _too_much(name: str, wanted: float, has: float) -> str:
    if name == "gpu" and not has:
        return (
            f"The run asks for {in_words(name, wanted)}; this machine has none that the engine can give"
            " (polylocal doctor says why); take `gpu` out to run on the processor."
        )
    unit = " MiB" if name == "memory" else ""
    return f"The run asks for {in_words(name, wanted)}; this machine has {int(has)}{unit}."


def in_words(name: str, amount: float) -> str:
    if name == "memory":
        return f"{format_number(amount)} MiB of memory"
    word = "core" if name == "cpu" else "GPU"
    return f"{format_number(amount)} {word}" + ("" if amount == 1 else "s")


def format_number(amount: float) -> str:
    """A number as people write it. It is rounded down: an amount just above the capacity must not look equal to it."""
    return f"{math.floor(amount * 100) / 100:.2f}".rstrip("0").rstrip(".")
