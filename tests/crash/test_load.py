"""Many clients of one real daemon: no request is lost, refused without a reason, or out of order, at any speed."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from support import Daemon, eventually, job
from websockets.sync.client import connect

from polylocal.client.http import RunReference
from polylocal.files import logs
from polylocal.statuses import is_done

from .test_kill import finished, look

pytestmark = pytest.mark.engine

QUEUED, MEANWHILE, FOLLOWERS, CLIENTS = 270, 30, 40, 10
LINES = 80
GROWTH_MIB = 96  # growth of the daemon's memory: more than it needs, less than one copy of a log for each follower
WRITER = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.1; done"
END = "until [ -e /plx-data/gate/open ]; do sleep 0.1; done"  # runs until all websockets are open
PATH = "/api/v1/root/crowded"


class Line:
    """A persistent connection."""

    def __init__(self, daemon: Daemon) -> None:
        parts = urlsplit(daemon.url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        self._headers = {"Authorization": f"Token {daemon.token}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes, str | None]:
        """Returns (status, body, Retry-After)."""
        self._connection.request(method, path, None if body is None else json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read(), answer.headers["Retry-After"]

    def close(self) -> None:
        self._connection.close()


def test_a_crowd_loses_nothing(start: Callable[..., Daemon], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    daemon = start("--max-runs", "2", POLYLOCAL_DATA=json.dumps({"gate": str(gate)}))
    client = daemon.client()
    client.create_project({"name": "crowded"})
    client.close()
    statuses: Counter[int] = Counter()
    writer = submitted(daemon, f"{WRITER}; {END}")
    queued = queue_jobs(daemon, QUEUED, statuses)
    eventually(lambda: look(daemon, lambda c: c.run(writer))["last_status"] in ("running", "succeeded"), 60)
    before = memory_mib(daemon)
    over, there = threading.Event(), threading.Semaphore(0)
    with ThreadPoolExecutor(FOLLOWERS + CLIENTS) as pool:
        followers = [pool.submit(follower(number), daemon, writer, there) for number in range(FOLLOWERS)]
        clients = [pool.submit(listing, daemon, over, statuses) for _ in range(CLIENTS)]
        try:
            queued += queue_jobs(daemon, MEANWHILE, statuses)
            for _ in range(FOLLOWERS):
                assert there.acquire(timeout=60)
            (gate / "open").touch()
            logs_followed = [each.result(90) for each in followers]
        finally:
            (gate / "open").touch()
            over.set()
        for each in clients:
            each.result(60)
    assert memory_mib(daemon) - before < GROWTH_MIB
    assert set(statuses) <= {200, 201, 429, 503}, statuses
    assert statuses[201] == QUEUED + MEANWHILE
    assert finished(daemon, writer)["last_status"] == "succeeded"
    check_followers(daemon, writer, logs_followed)
    check_order(daemon, writer, queued)


def submitted(daemon: Daemon, cmd: str) -> RunReference:
    made = look(
        daemon,
        lambda c: c.create_run("root", "crowded", "job", {"config": job(cmd, environment={"data_refs": ["gate"]})}),
    )
    return RunReference("root", "crowded", "job", made["id"])


def queue_jobs(daemon: Daemon, count: int, statuses: Counter[int]) -> list[int]:
    """Queue jobs, and return their numbers in the order of acceptance."""
    line = Line(daemon)
    taken: list[int] = []
    while len(taken) < count:
        status, body, again = line.ask("POST", f"{PATH}/jobs/", {"config": job("true")})
        statuses[status] += 1
        if status == 201:
            taken.append(json.loads(body)["id"])
        else:
            assert again, f"{status} says not when to come again: {body!r}"
            time.sleep(0.1)
    line.close()
    return taken


def listing(daemon: Daemon, over: threading.Event, statuses: Counter[int]) -> None:
    """List repeatedly, without pauses."""
    line = Line(daemon)
    while not over.is_set():
        for query in ("", "?query=status:created", "?offset=100&limit=50", "?sort=-started_at"):
            status, body, again = line.ask("GET", f"{PATH}/jobs/{query}")
            statuses[status] += 1
            assert again or json.loads(body)["count"] >= 0, f"{status}: {body!r}"
    line.close()


def follower(number: int) -> Callable[[Daemon, RunReference, threading.Semaphore], tuple[str, bytes]]:
    return [by_http, by_old_websocket, by_http, by_new_websocket][number % 4]


def by_http(daemon: Daemon, run: RunReference, there: threading.Semaphore) -> tuple[str, bytes]:
    line = Line(daemon)
    there.release()  # whenever it connects, it gets all lines
    status, body, _ = line.ask("GET", f"{run.path}/logs/?follow=true")
    line.close()
    return "plain", body if status == 200 else f"answered {status}".encode()


def by_old_websocket(daemon: Daemon, run: RunReference, there: threading.Semaphore) -> tuple[str, bytes]:
    return "plain", frames(daemon, f"/ws/v1/root/crowded/jobs/{run.id}/logs", there)


def by_new_websocket(daemon: Daemon, run: RunReference, there: threading.Semaphore) -> tuple[str, bytes]:
    return "stamped", frames(daemon, f"{run.path}/logs/stream", there)


def frames(daemon: Daemon, path: str, there: threading.Semaphore) -> bytes:
    """The lines of all frames."""
    url = f"ws{daemon.url.removeprefix('http')}{path}?token={daemon.token}"
    lines: list[str] = []
    with connect(url, proxy=None, open_timeout=60) as socket:
        for number, frame in enumerate(socket):
            if number == 0:
                there.release()
            found = json.loads(frame)["log_lines"] or []
            lines += [found] if isinstance(found, str) else found
    return "".join(f"{line}\n" for line in lines).encode()


def check_followers(daemon: Daemon, run: RunReference, seen: list[tuple[str, bytes]]) -> None:
    uuid = look(daemon, lambda c: c.run(run))["uuid"]
    path: Path = next((daemon.home / "logs").rglob(f"{uuid}.log"))
    assert path.read_text() == "".join(f"line {number}\n" for number in range(LINES))
    stored = {"plain": path.read_bytes(), "stamped": b"".join(logs.with_timestamps(path))}
    wrong = [
        f"follower {number} ({how}): {sorted(set(data.splitlines()) ^ set(stored[how].splitlines()))}"
        for number, (how, data) in enumerate(seen)
        if data != stored[how]
    ]
    assert not wrong
    assert len(seen) == FOLLOWERS


def check_order(daemon: Daemon, writer: RunReference, queued: list[int]) -> None:
    """All jobs exist. Those that began are the first ones, in order, and none of them failed."""
    assert queued == sorted(queued)
    found = {each["id"]: each for each in pages(daemon)}
    assert set(queued) <= set(found)
    begun = [number for number in queued if found[number]["started_at"]]
    assert begun
    assert set(begun) <= set(queued[: len(begun) + 1])  # two run at a time, so the second one may begin first
    ended = [found[number]["last_status"] for number in begun if is_done(found[number]["last_status"])]
    assert set(ended) <= {"succeeded"}
    until = found[writer.id]["finished_at"]  # the writer held a slot, so until then only one ran at a time
    starts = [found[number]["started_at"] for number in begun if found[number]["started_at"] < until]
    assert starts == sorted(starts)


def pages(daemon: Daemon) -> list[dict[str, Any]]:
    line = Line(daemon)
    _, body, _ = line.ask("GET", f"{PATH}/jobs/?limit=1000")
    line.close()
    found: list[dict[str, Any]] = json.loads(body)["results"]
    return found


def memory_mib(daemon: Daemon) -> float:
    """The resident memory of the daemon's process alone."""
    fields = Path(f"/proc/{daemon.process.pid}/status").read_text().split()
    return int(fields[fields.index("VmRSS:") + 1]) / 1024
