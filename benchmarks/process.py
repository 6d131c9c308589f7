"""Measures the daemon's process: start, memory, idle CPU, lists of many runs. Needs Linux, because it reads /proc."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
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
    """Samples the resident memory of a process and its children, in MiB, while the block runs."""

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


_FAILED_OF = 100
_CONTENT = (
    "version: 1\nkind: job\nbuild:\n  image: python:3.11-slim\nrun:\n  cmd: python train.py --lr 0.1 --epochs 20\n"
)


def measure_start(stage: Stage, quick: bool) -> list[Row]:
    """The time from the start of the process to its first answer, then the idle memory and CPU use."""
    times, sizes, seconds = [], [], 3.0 if quick else 10.0
    with stage.daemon():
        pass  # the very first start compiles the modules
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


def measure_lists(stage: Stage, quick: bool, sizes: Sequence[int]) -> list[Row]:
    """The first page of 20 jobs, with the total count, of a project with many jobs; the same with filters."""
    rows = []
    for runs in (sizes[0],) if quick else sizes:
        with stage.daemon() as daemon:
            project = daemon.project("many")
            _insert_finished(daemon.home, "many", runs)
            rows += _lists(daemon.api, f"{project}/jobs/", runs, 50 if quick else 200)
    return rows


def _lists(api: Api, path: str, runs: int, count: int) -> list[Row]:
    found = api.get(path)
    if found["count"] != runs or len(found["results"]) != 20:
        raise RuntimeError(f"the list shows {len(found['results'])} of {found['count']} jobs, not 20 of {runs}")
    failed = f"{path}?query=status:failed"
    if api.get(failed)["count"] != runs // _FAILED_OF:
        raise RuntimeError(f"{api.get(failed)['count']} of {runs} jobs are shown as failed")
    target = 3.0 if runs <= 10_000 else 5.0

    def row(what: str, asked: str, times: int, target: float | None = None) -> Row:
        return Row("10", what, "ms", milliseconds([_time_get(api, asked) for _ in range(times)]), target)

    return [
        row(f"list 20 of {runs:,} jobs", path, count, target),
        row(f"the same from {runs // 2:,} on", f"{path}?offset={runs // 2}", count // 4),
        row(f"the failed ones among {runs:,}, one in {_FAILED_OF}", failed, count // 4),
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
    """CPU use in per cent of one core."""
    before, began = _cpu_s(daemon.process.pid), time.monotonic()
    time.sleep(seconds)
    return 100 * (_cpu_s(daemon.process.pid) - before) / (time.monotonic() - began)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _insert_finished(home: Path, project_name: str, runs: int) -> None:
    """Create one job through the API and the others as copies of its row, which takes seconds for a million."""
    store = Store(Home(home).database)
    try:
        user, project = store.users.get(OWNER), store.projects.get(OWNER, project_name)
        values = {"name": "job", "tags": ["bench"], "is_managed": False}
        new = NewRun(Kind.JOB, content=_CONTENT, config={"version": 1, "kind": "job"}, values=values)
        run = store.runs.insert(project, user, new)
        store.runs.transition(run, Status.SUCCEEDED)
        with store.database.write() as db:
            own = {"pk", "id", "uuid", "name", "status", "updated_at"}
            kept = [row["name"] for row in db.execute("pragma table_info(runs)") if row["name"] not in own]
            columns = ", ".join(f'"{name}"' for name in kept)
            db.execute(
                "with recursive numbers (n) as (select 2 union all select n + 1 from numbers where n < :runs)"
                f" insert into runs (id, uuid, name, status, updated_at, {columns})"
                " select n, printf('%032x', n), 'job-' || n, iif(n % :failed = 0, 'failed', 'succeeded'),"
                f" strftime('%Y-%m-%dT%H:%M:%f', 1.6e9 + n, 'unixepoch') || '000+00:00', {columns}"
                " from numbers, (select * from runs where pk = :pk)",
                {"runs": runs, "failed": _FAILED_OF, "pk": run.pk},
            )
            db.execute("update sequences set last = ? where kind = 'job'", (runs,))
    finally:
        store.close()


def _time_get(api: Api, path: str) -> float:
    began = time.perf_counter()
    api.get(path)
    return time.perf_counter() - began
