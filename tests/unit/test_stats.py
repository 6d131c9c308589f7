"""Resource usage of containers, as engines and kernels report it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polylocal.engine.containers import Usage
from polylocal.engine.docker import stats

GIB = 2**30


def answer(memory: dict[str, Any] | None = None, **cpu: Any) -> dict[str, Any]:
    """The relevant parts of the engine's `stats`."""
    return {
        "read": "2018-08-23T00:30:18.674062Z",
        "cpu_stats": {
            "cpu_usage": {"total_usage": 5_000, "usage_in_kernelmode": 1_000, **cpu},
            "system_cpu_usage": 9_000_000,
            "online_cpus": 4,
        },
        "precpu_stats": {"cpu_usage": {"total_usage": 0}},
        "memory_stats": {} if memory is None else memory,
    }


def test_cgroup_version_1() -> None:
    memory = {"usage": 300, "max_usage": 400, "stats": {"cache": 200, "total_inactive_file": 100}, "limit": GIB}
    assert stats.read(answer(memory, percpu_usage=[4_000, 1_000, 0, 0])) == Usage(
        cpu_ns=5_000,
        per_cpu_ns=[4_000, 1_000, 0, 0],
        machine_ns=9_000_000,
        cpus=4,
        memory_bytes=200,
        memory_limit_bytes=GIB,
    )


def test_cgroup_version_2() -> None:
    found = stats.read(answer({"usage": 300, "stats": {"file": 9, "inactive_file": 100}, "limit": GIB}))
    assert found
    assert (found.per_cpu_ns, found.memory_bytes, found.memory_limit_bytes) == ([], 200, GIB)


@pytest.mark.parametrize(
    ("memory", "used", "limit"),
    [
        (None, None, None),
        ({}, None, None),
        ({"usage": 0}, None, None),
        ({"usage": 300}, 300, None),
        ({"usage": 300, "stats": None}, 300, None),
        ({"usage": 100, "stats": {"inactive_file": 300}}, 0, None),
        ({"usage": 300, "limit": 9223372036854771712}, 300, None),
        ({"usage": 300, "limit": 0}, 300, None),
    ],
)
def test_memory_with_missing_parts(memory: dict[str, Any] | None, used: int | None, limit: int | None) -> None:
    found = stats.read(answer(memory))
    assert found
    assert (found.memory_bytes, found.memory_limit_bytes) == (used, limit)


def test_the_number_of_cores_from_the_list_of_cores() -> None:
    told = answer(percpu_usage=[1, 2])
    del told["cpu_stats"]["online_cpus"]
    found = stats.read(told)
    assert found
    assert found.cpus == 2
    told["cpu_stats"]["cpu_usage"]["percpu_usage"] = None
    alone = stats.read(told)
    assert alone
    assert (alone.cpus, alone.per_cpu_ns) == (1, [])


@pytest.mark.parametrize(
    "told",
    [{}, {"cpu_stats": None}, {"cpu_stats": {"cpu_usage": {"total_usage": 0}}}, {"cpu_stats": {"system_cpu_usage": 0}}],
)
def test_a_stopped_container_uses_nothing(told: dict[str, Any]) -> None:
    assert stats.read(told) is None


def test_the_kernel_supplies_missing_parts_of_the_engines_stats() -> None:
    sample = stats.read(answer())
    assert sample
    filled = stats.with_memory(sample, (500, 900))
    assert (filled.memory_bytes, filled.memory_limit_bytes, filled.cpu_ns) == (500, 900, sample.cpu_ns)
    limited = stats.read(answer({"limit": 700}))
    assert limited
    assert stats.with_memory(limited, (500, 900)).memory_limit_bytes == 700


# -- the kernel's own files --------------------------------------------------------------------------------------


@pytest.fixture
def kernel(tmp_path: Path) -> Any:
    """kernel({path: text}) → `memory_of` process 7, with these files as /proc and /sys/fs/cgroup."""

    def of(files: dict[str, str]) -> tuple[int | None, int | None]:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return stats.memory_of(7, tmp_path / "proc", tmp_path / "cgroup")

    return of


STATUS = {"proc/7/status": "Name:\tsh\nVmPeak:\t 9 kB\nVmRSS:\t    4096 kB\n"}
V1 = {"proc/7/cgroup": "12:pids:/docker/ab\n11:cpu,cpuacct:/docker/ab\n5:memory:/docker/ab\n0::/x\n"}
V2 = {"proc/7/cgroup": "0::/system.slice/docker-ab.scope\n"}
OLD, NEW = "cgroup/memory/docker/ab", "cgroup/system.slice/docker-ab.scope"


def test_a_group_of_version_1(kernel: Any) -> None:
    files = {f"{OLD}/memory.usage_in_bytes": "1000\n", f"{OLD}/memory.limit_in_bytes": "5000\n"}
    assert kernel({**V1, **STATUS, **files}) == (1000, 5000)


def test_version_1_expresses_no_limit_as_a_huge_number(kernel: Any) -> None:
    files = {f"{OLD}/memory.usage_in_bytes": "1000\n", f"{OLD}/memory.limit_in_bytes": "9223372036854771712\n"}
    assert kernel({**V1, **files}) == (1000, None)


@pytest.mark.parametrize(("limit", "read"), [("5000\n", 5000), ("max\n", None)])
def test_a_group_of_version_2(kernel: Any, limit: str, read: int | None) -> None:
    assert kernel({**V2, f"{NEW}/memory.current": "1000\n", f"{NEW}/memory.max": limit}) == (1000, read)


@pytest.mark.parametrize("files", [V1, V2, {}, {"proc/7/cgroup": ""}])
def test_without_a_group_that_counts_the_process_itself_is_looked_at(kernel: Any, files: dict[str, str]) -> None:
    assert kernel({**files, **STATUS}) == (4096 * 1024, None)


def test_a_group_that_counts_nothing_is_passed_over(kernel: Any) -> None:
    assert kernel({**V1, **STATUS, f"{OLD}/memory.usage_in_bytes": "0\n"}) == (4096 * 1024, None)


@pytest.mark.parametrize("files", [{}, V1, {"proc/7/status": "Name:\tkthread\n"}])
def test_without_any_source_the_usage_is_unknown(kernel: Any, files: dict[str, str]) -> None:
    assert kernel(files) == (None, None)
