"""The daemon as a process: start, memory, idle CPU; and lists of many runs. Reads /proc, so Linux only."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Self

from jobs import milliseconds
from stage import OWNER, Api, Daemon, Stage
from table import Row

from polylocal.paths import Home
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store

_SAMPLE_S = 0.05
_MIB = 1 << 20


class Memory:
    """The resident memory of a process and its children while the block lasts, in MiB."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.before = self.highest = self.after = 0.0

    def __enter__(self) -> Self:
        self.before = self.highest = resident_mib(self._pid)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()
        self.after = resident_mib(self._pid)

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            self.highest = max(self.highest, resident_mib(self._pid))


def started(stage: Stage, quick: bool) -> list[Row]:
    """From the start of the process to its first answer; then what it takes while nothing is to do."""
    times, sizes, seconds = [], [], 3.0 if quick else 10.0
    with stage.daemon():
        pass  # the first start of all compiles the modules
    for _ in range(3 if quick else 7):
        began = time.perf_counter()
        with stage.daemon(home=stage.new_home()) as daemon:
            daemon.api.get("/api/v1/users/")
            times.append(time.perf_counter() - began)
    with stage.daemon() as daemon:
        daemon.ready_project("idle")
        time.sleep(2)
        sizes.append(resident_mib(daemon.process.pid))
        busy = _cpu_share(daemon, seconds)
    return [
        Row("11", "start → first answer, new home folder", "s", tuple(times), 1.0),
        Row("11", "idle memory, children included", "MiB", tuple(sizes), 80.0, note="after a build and a job"),
        Row("11", "idle CPU", "%", (busy,), 1.0, note=f"over {seconds:.0f} s"),
    ]


def listed(stage: Stage, quick: bool, runs: int) -> list[Row]:
    """The first page of 20 of a project with many finished jobs, with its count."""
    count = 50 if quick else 200
    with stage.daemon() as daemon:
        project = daemon.project("many")
        _insert_finished(daemon.home, "many", runs)
        path = f"{project}/jobs/"
        found = daemon.api.get(path)
        if found["count"] != runs or len(found["results"]) != 20:
            raise RuntimeError(f"the list shows {len(found['results'])} of {found['count']} jobs, not 20 of {runs}")
        times = [_timed_get(daemon.api, path) for _ in range(count)]
        deep = [_timed_get(daemon.api, f"{path}?offset={runs // 2}") for _ in range(count // 4)]
    target = 3.0 if runs <= 10_000 else 5.0
    return [
        Row("10", f"list 20 of {runs:,} jobs", "ms", milliseconds(times), target),
        Row("10", f"the same from {runs // 2:,} on", "ms", milliseconds(deep)),
    ]


def resident_mib(pid: int) -> float:
    return sum(_resident(each) for each in (pid, *_children(pid)))


def _resident(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            direct = [int(word) for word in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in direct:
            found += [child, *_children(child)]
    return found


def _cpu_share(daemon: Daemon, seconds: float) -> float:
    """Per cent of one core."""
    before, began = _cpu_s(daemon.process.pid), time.monotonic()
    time.sleep(seconds)
    return 100 * (_cpu_s(daemon.process.pid) - before) / (time.monotonic() - began)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _insert_finished(home: Path, project_name: str, runs: int) -> None:
    store = Store(Home(home).database)
    try:
        user, project = store.users.get(OWNER), store.projects.get(OWNER, project_name)
        for number in range(runs):
            values = {"name": f"job-{number}", "tags": ["bench"], "is_managed": False}
            run = store.runs.insert(project, user, NewRun(Kind.JOB, config={"version": 1}, values=values))
            store.runs.transition(run, Status.SUCCEEDED)
    finally:
        store.close()


def _timed_get(api: Api, path: str) -> float:
    began = time.perf_counter()
    api.get(path)
    return time.perf_counter() - began
