"""Load test: clients list, submit and follow logs while a long queue of jobs runs on the real engine."""

from __future__ import annotations

import bisect
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from process import Memory
from stage import Daemon, Json, Stage, job
from table import Row, percentile

from polylocal.api.middleware import MAX_WORKING
from polylocal.files import logs
from polylocal.paths import Home

SECONDS = 60
QUEUED, FOLLOWERS, LISTERS = 1000, 200, 50
_WRITERS, _SLOTS = 2, 4  # two slots for the writing runs, two for the queue
_LINE_S = 0.1
_HEAD_START_S = 20  # a writing run lasts this much longer than the load: its followers connect before and stay
_IDLE, _BEYOND = 2000, 300
_POLL_S = 0.1
_REFUSALS = {"503", "429"}
LISTS = ["", "?query=status:created", "?sort=-started_at&limit=10", "?offset=400", "?query=id:<50"]


class ProcessPeaks:
    """The peak numbers of threads and open files of a process while the block runs."""

    def __init__(self, pid: int) -> None:
        self._process = Path(f"/proc/{pid}")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.threads = self.files = 0

    def __enter__(self) -> ProcessPeaks:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_POLL_S):
            self.threads = max(self.threads, len(os.listdir(self._process / "task")))
            self.files = max(self.files, len(os.listdir(self._process / "fd")))


@dataclass
class Crowd:
    """Clients in a separate process."""

    process: subprocess.Popen[str]

    def wait_until_ready(self) -> None:
        line = self._out().readline()
        if line != "ready\n":
            raise RuntimeError(f"the clients did not begin: {line!r}")

    def result(self) -> Json:
        text = self._out().read()
        if self.process.wait():
            raise RuntimeError("the clients broke; see above")
        found: Json = json.loads(text)
        return found

    def _out(self) -> Any:
        return self.process.stdout


def start_crowd(daemon: Daemon, part: str, plan: Json) -> Crowd:
    about = {"url": daemon.url, "token": Home(daemon.home).token.read_text().strip()}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("crowd.py")), part],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.stdin is None:
        raise RuntimeError("the clients can't be told what to do")
    json.dump({**about, **plan}, process.stdin)
    process.stdin.close()
    return Crowd(process)


def measure_load(stage: Stage, quick: bool, seconds: float) -> list[Row]:
    """Lists, submissions and followed logs while a long queue runs."""
    queued, followers, listers = (200, 40, 20) if quick else (QUEUED, FOLLOWERS, LISTERS)
    with stage.daemon("--max-runs", str(_SLOTS)) as daemon:
        project, _ = daemon.ready_project("load")
        writers = _start_writers(daemon, project, seconds)
        with Memory(daemon.process.pid) as memory, ProcessPeaks(daemon.process.pid) as peaks:
            for _ in range(queued):
                daemon.submit(project, job("true"))
            follow = start_crowd(daemon, "follow", {"followers": _followers(project, writers, followers)})
            follow.wait_until_ready()
            asked = start_crowd(daemon, "ask", _plan(project, listers, seconds)).result()
            finished = _count_succeeded(daemon, project, writers)
            followed = _compare(daemon, writers, follow.result()["followers"])
    who = f"{queued:,} jobs queued, {followers} followers, {listers} clients that list, {seconds:.0f} s"
    note = f"{who}; {finished} jobs ended in that time, all of them correctly; the clients share the machine's cores"
    return [
        *_answer_rows(asked, note),
        *_follower_rows(followed),
        Row(
            "13",
            "memory under load, growth",
            "MiB",
            (memory.highest - memory.before,),
            64.0,
            note=f"{memory.before:.0f} MiB before, highest {memory.highest:.0f} MiB, {memory.after:.0f} MiB after;"
            f" at most {peaks.threads} threads, {peaks.files} open files",
        ),
    ]


def measure_flood(stage: Stage, quick: bool) -> list[Row]:
    """Idle connections, requests whose bodies do not come, and more requests at once than slots."""
    with stage.daemon() as daemon:
        project = daemon.project("flood")
        plan = {
            "idle": _IDLE,
            "slots": MAX_WORKING,
            "beyond": _BEYOND,
            "submit": f"{project}/jobs/",
            "list": f"{project}/jobs/",
        }
        found = start_crowd(daemon, "flood", plan).result()
    turned_away, burst = found["beyond"], found["burst"]
    statuses = Counter(turned_away["statuses"])
    orderly = statuses["200"] + statuses["503"] - turned_away["without_word"]
    note = (
        f"{MAX_WORKING} requests whose bodies do not come, then {_BEYOND} more:"
        f" {_by_status(turned_away['statuses'])}; {MAX_WORKING + _BEYOND} at once that hold nothing:"
        f" {_by_status(burst['statuses'])}, the slowest {burst['slowest_s']:.1f} s"
    )
    wells = [found["idle"], found["after_held"], found["after_burst"]]
    return [
        Row(
            "13",
            "beside requests without bodies: answered, or refused with Retry-After",
            "of all",
            (orderly / _BEYOND,),
            1.0,
            more_is_better=True,
            note=note,
        ),
        Row(
            "13",
            "/healthz again after a flood",
            "ms",
            tuple(1e3 * (5.0 if each is None else each) for each in wells),
            1000.0,
            judged_by="worst",
            note=f"with {_IDLE:,} idle connections, after the requests without bodies, after all at once",
        ),
    ]


def _start_writers(daemon: Daemon, project: str, seconds: float) -> list[Json]:
    """A job and an experiment that write, because their followers use different websocket APIs."""
    lines = int((seconds + _HEAD_START_S) / _LINE_S)
    body = job(f"i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); sleep {_LINE_S}; done")
    made = []
    for kind in ("job", "experiment"):
        body["config"]["kind"] = kind
        made.append(daemon.submit(project, body, kind) | {"kind": kind})
    for run in made:
        while daemon.api.get(f"{project}/{run['kind']}s/{run['id']}/")["last_status"] != "running":
            time.sleep(_POLL_S)
    return made


def _followers(project: str, writers: Sequence[Json], count: int) -> list[Json]:
    """Followers: half of them use HTTP, a quarter each websocket API."""
    return [
        _follower(project, writers[number // 4 % len(writers)], ["http", "old", "http", "new"][number % 4])
        for number in range(count)
    ]


def _follower(project: str, run: Json, how: str) -> Json:
    own = f"{run['kind']}s/{run['id']}/logs"
    tail = project.removeprefix("/api/v1")
    paths = {
        "http": f"{project}/{own}/?follow=true",
        "old": f"/ws/v1{tail}/{own}",
        "new": f"{project}/{own}/stream",
    }
    return {"how": how, "path": paths[how], "uuid": run["uuid"]}


def _plan(project: str, listers: int, seconds: float) -> Json:
    path = f"{project}/jobs/"
    return {
        "seconds": seconds,
        "lists": [path + LISTS[number % len(LISTS)] for number in range(listers)],
        "submit": path,
        "body": job("true"),
        "pause_s": 0.05,
    }


def _count_succeeded(daemon: Daemon, project: str, writers: Sequence[Json]) -> int:
    """The number of jobs that have ended. Raises RuntimeError if a job did not succeed."""
    for run in writers:
        daemon.finish(project, run, run["kind"])
    jobs = f"{project}/jobs/"
    for status in ("failed", "stopped", "unknown", "upstream_failed", "unschedulable"):
        if count := daemon.api.get(f"{jobs}?query=status:{status}")["count"]:
            raise RuntimeError(f"{count} jobs are {status}")
    return int(daemon.api.get(f"{jobs}?query=status:succeeded")["count"])


@dataclass(frozen=True)
class FollowerResult:
    """The result of a follower: is its log complete, and the delay of each line."""

    how: str
    is_whole: bool
    refusals: int
    delays: tuple[float, ...]
    problem: str | None


def _compare(daemon: Daemon, writers: Sequence[Json], followers: Sequence[Json]) -> list[FollowerResult]:
    stored = {run["uuid"]: _StoredLog.of(next(Home(daemon.home).logs.rglob(f"{run['uuid']}.log"))) for run in writers}
    return [_compare_follower(stored[each["uuid"]], each) for each in followers]


def _compare_follower(stored: _StoredLog, seen: Json) -> FollowerResult:
    expected = stored.stamped if seen["how"] == "new" else stored.plain
    delays = []
    before, since = 0, seen["arrivals"][0][1] if seen["arrivals"] else 0.0  # earlier lines have no delay
    for lines, at in seen["arrivals"]:
        delays += [at - written for written in stored.times[before:lines] if written > since]
        before = lines
    is_whole = seen["sha256"] == expected
    return FollowerResult(seen["how"], is_whole, seen["refusals"], tuple(delays), seen["problem"])


@dataclass(frozen=True)
class _StoredLog:
    """A stored log: the digests that its followers must have received, and the time of each line."""

    plain: str
    stamped: str
    times: tuple[float, ...]

    @classmethod
    def of(cls, path: Path) -> _StoredLog:
        data = path.read_bytes()
        pieces = list(logs.pieces(path))
        offsets = [piece.offset for piece in pieces]
        ends = [at for at, byte in enumerate(data) if byte == ord("\n")]
        times = tuple(pieces[bisect.bisect_right(offsets, at) - 1].time_us / 1e6 for at in ends)
        stamped = hashlib.sha256(b"".join(logs.with_timestamps(path))).hexdigest()
        return cls(hashlib.sha256(data).hexdigest(), stamped, times)


def _answer_rows(asked: Json, note: str) -> list[Row]:
    took, statuses = asked["took"], asked["statuses"]
    wrong = sum(count for status, count in statuses.items() if status not in {"200", "201", *_REFUSALS})
    wrong += asked["without_word"]
    return [
        _p99_row("lists under load, p99", took["list"], 1000.0, note),
        _p99_row("submissions under load, p99", took["submit"], 1000.0),
        _p99_row("/healthz under load, p99", took["healthz"], 1000.0),
        Row("13", "longest time without any answer", "ms", (1e3 * asked["silence_s"],), 1000.0),
        Row("13", "answers that should not be", "", (float(wrong),), 0.0, note=_by_status(statuses)),
    ]


def _follower_rows(followed: Sequence[FollowerResult]) -> list[Row]:
    whole = sum(each.is_whole for each in followed)
    problems = sorted({each.problem for each in followed if each.problem})
    delays = [delay for each in followed for delay in each.delays]
    refused = sum(each.refusals > 0 for each in followed)
    note = f"{whole} of {len(followed)} have the stored log, byte for byte" + "".join(f"; {what}" for what in problems)
    note += f"; {refused} of them connected again after a refusal" if refused else ""
    return [
        Row("13", "followers that got the whole log", "of all", (whole / len(followed),), 1.0, None, True, note=note),
        _p99_row("a line to a follower under load, p99", delays, 1000.0, _by_family(followed)),
    ]


def _by_family(followed: Sequence[FollowerResult]) -> str:
    names = {"http": "HTTP", "old": "old websockets", "new": "new websockets"}
    found = {how: [delay for each in followed if each.how == how for delay in each.delays] for how in names}
    return "p99 of " + ", ".join(
        f"{names[how]} {1e3 * percentile(found[how], 0.99):.0f} ms" for how in names if found[how]
    )


def _p99_row(what: str, seconds: Sequence[float], target: float, about: str = "") -> Row:
    note = f"p50 {1e3 * percentile(seconds, 0.5):.0f} ms, worst {1e3 * max(seconds):.0f} ms of {len(seconds):,}"
    value = 1e3 * percentile(seconds, 0.99)
    return Row("13", what, "ms", (value,), target, note=f"{note}; {about}" if about else note)


def _by_status(statuses: dict[str, int]) -> str:
    return ", ".join(f"{count:,} × {status}" for status, count in sorted(statuses.items()))
