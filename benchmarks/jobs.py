"""Measures jobs: time to acknowledgement, end and readable status, and throughput."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from raw import Death, RawEngine
from stage import BUSYBOX, Api, Daemon, Json, Stage, installation_of, job
from table import Row, median_ms

from polylocal.engine.plan import HOME_LABEL

_POLL_S = 0.002
LEVELS = (1, 2, 4, 8)


def measure_finish(stage: Stage, quick: bool) -> list[Row]:
    """Submit → finished, compared with create + start + wait, without and with polylocal's container options."""
    count = 8 if quick else 24
    with stage.daemon() as daemon:
        project, image = daemon.ready_project("finished")
        alike = _options_of_polylocal(stage)
        acknowledged: list[float] = []
        took = alternate(
            count,
            lambda: _submit_and_finish(stage, daemon, project, acknowledged),
            lambda: stage.engine.run(image, "true"),
            lambda: stage.engine.run(image, "true", **alike),
        )
    ours, plain, same = took
    note = f"polylocal {median_ms(ours)}, raw {median_ms(plain)}, raw with polylocal's options {median_ms(same)}"
    return [
        Row("1", "job submit → finished / raw", "x", ratios(ours, plain), 1.0, must=1.15, note=note),
        Row("1", "the same / raw with the same container options", "x", ratios(ours, same)),
        Row("4", "submit acknowledged, idle daemon", "ms", milliseconds(acknowledged[1:]), 5.0),
    ]


def measure_readable(stage: Stage, quick: bool) -> list[Row]:
    """The time from the engine's `die` event until GET returns succeeded."""
    count = 8 if quick else 30
    since_stamp, since_arrival = [], []
    with stage.daemon() as daemon:
        project, _ = daemon.ready_project("readable")
        with stage.engine.deaths(label_of(daemon)) as deaths:
            for _ in range(count):
                run = daemon.submit(project, job("true"))
                death = _next_death(deaths)
                seen = _wait_for_success(daemon.api, f"{project}/jobs/{run['id']}/")
                since_stamp.append(seen - death.at)
                since_arrival.append(seen - death.arrived)
                wait_until_removed(stage.engine, daemon)
    note = f"{median_ms(since_arrival)} after the event's arrival here; polled every {_POLL_S * 1e3:.0f} ms"
    return [Row("2", "container's death → status readable", "ms", milliseconds(since_stamp), 20.0, note=note)]


def measure_throughput(stage: Stage, quick: bool) -> list[Row]:
    """A queue of jobs with N running at a time, compared with N threads that do the same."""
    home = stage.new_home()
    with stage.daemon(home=home) as daemon:
        project, image = daemon.ready_project("throughput")
    return [_measure_level(stage, home, project, image, level, quick) for level in LEVELS]


def measure_acknowledgement(stage: Stage, quick: bool, code: Path) -> list[Row]:
    """POST → 201 while a run occupies the only slot: authentication, validation and the row, but no container."""
    count = 40 if quick else 150
    body = job(
        "echo {{ lr }}",
        tags=["bench"],
        params={"lr": 0.1, "layers": [1, 2, 3]},
        environment={"resources": {"cpu": {"limits": 1}, "memory": {"limits": 64}}},
    )
    with stage.daemon("--max-runs", "1") as daemon:
        project, _ = daemon.ready_project("plain")
        with_code = daemon.project("coded", code)
        holder = daemon.submit(project, job("sleep 600"))
        _wait_until_running(daemon.api, f"{project}/jobs/{holder['id']}/")
        plain, coded = alternate(
            count, lambda: _time_submit(daemon, project, body), lambda: _time_submit(daemon, with_code, body)
        )
        daemon.api.post(f"{project}/jobs/{holder['id']}/stop/")
    note = f"one request at a time, while {count * 2} jobs queue up"
    return [
        Row("4", "submit acknowledged, project without code", "ms", milliseconds(plain), 5.0, note=note),
        Row("4", "submit acknowledged, project with code", "ms", milliseconds(coded), 5.0, note=note),
    ]


# -- helpers ----------------------------------------------------------------------------------------------------------


def alternate(count: int, *sides: Callable[[], float]) -> list[list[float]]:
    """Run every side `count` times alternately. The first side changes each time, so the order favours no side."""
    found: list[list[float]] = [[] for _ in sides]
    for turn in range(count):
        for step in range(len(sides)):
            which = (turn + step) % len(sides)
            found[which].append(sides[which]())
    return found


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    return tuple(a / b for a, b in zip(ours, theirs, strict=True))


def milliseconds(seconds: Sequence[float]) -> tuple[float, ...]:
    return tuple(value * 1e3 for value in seconds)


def label_of(daemon: Daemon) -> str:
    return f"{HOME_LABEL}={installation_of(daemon.home)}"


def wait_until_removed(engine: RawEngine, daemon: Daemon) -> None:
    """Wait until the daemon has removed finished containers, so that this does not disturb the next measurement."""
    label = label_of(daemon)
    deadline = time.monotonic() + 30
    while engine.has_containers(label):
        if time.monotonic() > deadline:
            raise RuntimeError("a container was not removed within 30 s of its end")
        time.sleep(0.01)


def _submit_and_finish(stage: Stage, daemon: Daemon, project: str, acknowledged: list[float]) -> float:
    began = time.perf_counter()
    run = daemon.submit(project, job("true"))
    acknowledged.append(time.perf_counter() - began)
    daemon.finish(project, run)
    took = time.perf_counter() - began
    wait_until_removed(stage.engine, daemon)
    return took


def _options_of_polylocal(stage: Stage) -> Json:
    """The container options that polylocal adds to the command."""
    folders = [stage.folder / "outputs", stage.folder / "context"]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    return {
        "binds": [f"{folders[0]}:/plx-outputs/bench:rw", f"{folders[1]}:/plx-context:ro"],
        "init": True,
        "shm_size": 1 << 30,
        "extra_hosts": {"host.docker.internal": "host-gateway"},
    }


def _next_death(deaths: queue.SimpleQueue[Death]) -> Death:
    return deaths.get(timeout=60)


def _wait_for_success(api: Api, path: str) -> float:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        status = api.get(path)["last_status"]
        if status == "succeeded":
            return time.time()
        if status in ("failed", "stopped"):
            break
        time.sleep(_POLL_S)
    raise RuntimeError(f"{path} did not succeed: {status}")


def _wait_until_running(api: Api, path: str) -> None:
    deadline = time.monotonic() + 30
    while api.get(path)["last_status"] != "running":
        if time.monotonic() > deadline:
            raise RuntimeError(f"{path} does not run after 30 s")
        time.sleep(0.02)


def _time_submit(daemon: Daemon, project: str, body: Json) -> float:
    time.sleep(0.01)
    began = time.perf_counter()
    daemon.submit(project, body)
    return time.perf_counter() - began


def _measure_level(stage: Stage, home: Path, project: str, image: str, level: int, quick: bool) -> Row:
    count, repeats = (max(4, level), 2) if quick else (max(6, level * 3 // 2), 5)
    with stage.daemon("--max-runs", str(level), home=home) as daemon:
        daemon.finish(project, daemon.submit(project, job("true")))
        wait_until_removed(stage.engine, daemon)
        ours, theirs = alternate(
            repeats,
            lambda: count / _run_all(stage, daemon, project, count),
            lambda: count / stage.engine.run_many(image, "true", count, level),
        )
    note = f"{count} jobs a repeat; jobs/s: polylocal {_mean(ours):.1f}, raw {_mean(theirs):.1f}"
    what = f"throughput / raw, {level} in flight"
    return Row("3", what, "x", ratios(ours, theirs), 0.95, must=0.90, more_is_better=True, note=note)


def _run_all(stage: Stage, daemon: Daemon, project: str, count: int) -> float:
    """Submit all jobs at once. Returns the seconds until the API says that the last one succeeded."""
    began = time.perf_counter()
    runs = [daemon.submit(project, job("true", image=BUSYBOX)) for _ in range(count)]
    for run in runs:
        daemon.finish(project, run)
    took = time.perf_counter() - began
    wait_until_removed(stage.engine, daemon)
    return took


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
