"""Frames of the resources stream. Pure."""

from collections.abc import Sequence

from polylocal.api.shapes import Json
from polylocal.api.shapes.base import pick
from polylocal.engine.containers import Usage
from polylocal.engine.machine import Gpu
from polylocal.store.rows import Run

_GPU = (
    "index uuid name minor bus_id serial temperature_gpu utilization_gpu power_draw power_limit memory_free memory_used"
    " memory_total"
)


def resources_frame(run: Run, before: Usage, now: Usage, gpus: Sequence[Gpu]) -> Json:
    """The usage of a container between two samples. Clients refuse a frame with any other key.

    `cpu_percentage` is 100 for each core in full use; memory is in bytes.
    """
    machine_ns = now.machine_ns - before.machine_ns
    per_core = [_percent(new - old, machine_ns, now.cpus) for old, new in zip(before.per_cpu_ns, now.per_cpu_ns)]  # noqa: B905  cores come and go
    return {
        "job_uuid": run.uuid,
        "job_name": run.unique_name,
        "experiment_uuid": run.uuid,
        "container_id": run.container_id,
        "n_cpus": now.cpus,
        "cpu_percentage": _percent(now.cpu_ns - before.cpu_ns, machine_ns, now.cpus),
        "percpu_percentage": per_core,
        "memory_used": now.memory_bytes or 0,
        "memory_limit": now.memory_limit_bytes or 0,
        "gpu_resources": [_gpu(gpu) for gpu in gpus] or None,
    }


def _percent(used_ns: int, machine_ns: int, cpus: int) -> float:
    return round(100.0 * cpus * used_ns / machine_ns, 2) if machine_ns > 0 and used_ns > 0 else 0.0


def _gpu(gpu: Gpu) -> Json:
    """Memory in bytes, power in watts, temperature in °C."""
    used = round(100.0 * gpu.memory_used / gpu.memory_total) if gpu.memory_total else 0
    return {**pick(gpu, _GPU), "memory_utilization": used, "processes": []}
