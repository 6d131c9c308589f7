"""Converts the engine's statistics of a container to a sample. The kernel's files complete it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from polylocal.engine.containers import Usage

_NO_LIMIT = 2**60  # for "no limit" the kernel reports a number near 2**63
_PROC, _CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def read(stats: dict[str, Any]) -> Usage | None:
    """The sample in an answer of the engine; None: the container does not run."""
    cpu = stats.get("cpu_stats") or {}
    used = cpu.get("cpu_usage") or {}
    if not cpu.get("system_cpu_usage"):
        return None
    per_cpu = used.get("percpu_usage") or []
    memory = stats.get("memory_stats") or {}
    usage = memory.get("usage")
    cache = (memory.get("stats") or {}).get("total_inactive_file") or (memory.get("stats") or {}).get("inactive_file")
    limit = memory.get("limit")
    return Usage(
        cpu_ns=used.get("total_usage", 0),
        per_cpu_ns=per_cpu,
        machine_ns=cpu["system_cpu_usage"],
        cpus=cpu.get("online_cpus") or len(per_cpu) or 1,
        memory_bytes=max(0, usage - (cache or 0)) if usage else None,
        memory_limit_bytes=limit if limit and limit < _NO_LIMIT else None,
    )


def with_memory(sample: Usage, memory: tuple[int | None, int | None]) -> Usage:
    """The sample with the memory that `memory_of` found."""
    used, limit = memory
    return replace(sample, memory_bytes=used, memory_limit_bytes=sample.memory_limit_bytes or limit)


def memory_of(pid: int, proc: Path = _PROC, cgroup: Path = _CGROUP) -> tuple[int | None, int | None]:
    """The used and allowed bytes of the control group of a process on this machine, by either version of cgroups.

    If no such group counts memory, the resident memory of the process itself is returned without a limit.
    """
    for folder, used, limit in _groups(pid, proc, cgroup):
        found = _number(folder / used)
        if found:
            return found, _number(folder / limit)
    return _resident(pid, proc), None


def _groups(pid: int, proc: Path, cgroup: Path) -> list[tuple[Path, str, str]]:
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        inside = path.lstrip("/")
        if "memory" in controllers.split(","):
            found.append((cgroup / "memory" / inside, "memory.usage_in_bytes", "memory.limit_in_bytes"))
        elif not controllers:
            found.append((cgroup / inside, "memory.current", "memory.max"))
    return found


def _number(path: Path) -> int | None:
    try:
        number = int(path.read_text())
    except (OSError, ValueError):  # no such file, or the word `max`
        return None
    return number if number < _NO_LIMIT else None


def _resident(pid: int, proc: Path) -> int | None:
    try:
        lines = (proc / str(pid) / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), None)
