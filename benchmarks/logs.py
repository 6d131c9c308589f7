"""Measures logs: the delay of a line, a log of a million lines, and reading it back."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from jobs import alternate, milliseconds, ratios, wait_until_removed
from process import Memory
from stage import Daemon, Json, Stage, job
from table import Row, median_ms, percentile

LINE = 100  # bytes, including the line end
_CHUNK = 1 << 20

Receive = Callable[[], bytes]


def measure_one_line(stage: Stage, quick: bool) -> list[Row]:
    """The time from the write of a line to a pipe, which `cat` copies to its output, to its arrival at a follower."""
    count = 30 if quick else 150
    with stage.daemon() as daemon:
        project, image = daemon.ready_project("line")
        with _polylocal_follower(daemon, project) as ours, _raw_follower(stage, image) as theirs:
            for ping in (ours, theirs):
                ping()  # the first line waits for the container
            mine, raw = alternate(count, ours, theirs)
        wait_until_removed(stage.engine, daemon)
    note = f"p50 / p95: API {_p50_p95(mine)}, SDK {_p50_p95(raw)}; the container's share is in both"
    return [
        Row("7", "one line to a follower / raw follow", "x", ratios(mine, raw), 1.5, note=note),
        Row("7", "one line to a follower", "ms", milliseconds(mine), 5.0, judged_by="p95"),
    ]


def measure_many_lines(stage: Stage, quick: bool) -> list[Row]:
    """A container writes a million different lines: finish time, completeness, memory, time to read back."""
    lines, repeats, reads = (200_000, 2, 3) if quick else (1_000_000, 3, 5)
    source = _make_lines(stage.folder / "lines", lines)
    expected = _digest_of_file(source)
    cmd = f"cat /plx-data/lines/{source.name}"
    binds = [f"{source.parent}:/plx-data/lines:ro"]
    body = job(cmd, environment={"data_refs": ["lines"]})
    with stage.daemon(env={"POLYLOCAL_DATA": json.dumps({"lines": str(source.parent)})}) as daemon:
        project, image = daemon.ready_project("lines")
        runs: list[Json] = []
        with Memory(daemon.process.pid) as memory:
            ours, theirs = alternate(
                repeats,
                lambda: _write_all(stage, daemon, project, body, runs),
                lambda: stage.engine.run(image, cmd, binds),
            )
        whole = [_digest_of_log(daemon, project, run)[0] == expected for run in runs]
        reading = [_digest_of_log(daemon, project, runs[-1], keep=False)[1] for _ in range(reads)]
        followed, seen = stage.engine.run_and_follow(image, cmd, binds)
        sdk_reads = stage.engine.read_back(image, cmd, binds, lines // 10)
    megabytes = lines * LINE / 1e6
    note = (
        f"polylocal {median_ms(ours)}, raw with no reader {median_ms(theirs)}, raw with the SDK following"
        f" {followed * 1e3:.0f} ms (n=1, {seen} of {lines * LINE} bytes came)"
    )
    memory_note = f"{memory.before:.0f} MiB before, highest {memory.highest:.0f} MiB, {memory.after:.0f} MiB after"
    return [
        Row("8", f"{_thousands(lines)} lines: finish / raw, no reader", "x", ratios(ours, theirs), 1.15, note=note),
        Row("8", "the same / raw, the SDK following", "x", tuple(took / followed for took in ours)),
        Row(
            "8",
            "logs complete, by sha256",
            "whole",
            tuple(float(found) for found in whole),
            1.0,
            more_is_better=True,
            judged_by="worst",
            note=f"{sum(whole)} of {len(whole)}",
        ),
        Row("8", "memory that it takes on top, highest", "MiB", (memory.highest - memory.before,), note=memory_note),
        Row(
            "9",
            "reading the stored log by the API",
            "MB/s",
            tuple(megabytes / took for took in reading),
            100.0,
            more_is_better=True,
            note=f"the SDK reads the engine's own log with {sdk_reads:.0f} MB/s (n=1)",
        ),
    ]


# -- one line ---------------------------------------------------------------------------------------------------------


@contextmanager
def _polylocal_follower(daemon: Daemon, project: str) -> Iterator[Callable[[], float]]:
    cmd = "cue=$POLYAXON_RUN_OUTPUTS_PATH/cue; until [ -p $cue ]; do sleep 0.05; done; cat $cue"
    run = daemon.submit(project, job(cmd))
    with (
        _pipe(Path(run["outputs_path"])) as pipe,
        daemon.api.stream(f"{project}/jobs/{run['id']}/logs/?follow=true") as response,
    ):
        yield _ping(pipe, response.readline)
        pipe.close()
        response.read()


@contextmanager
def _raw_follower(stage: Stage, image: str) -> Iterator[Callable[[], float]]:
    folder = stage.folder / "cue"
    with _pipe(folder) as pipe:
        container = stage.engine.create(image, "cat /cue/cue", [f"{folder}:/cue"])
        stage.engine.api.start(container)
        chunks = stage.engine.api.logs(container, stream=True, follow=True)
        yield _ping(pipe, lambda: next(chunks))
        pipe.close()
        stage.engine.api.wait(container)
        stage.engine.remove(container)


@contextmanager
def _pipe(folder: Path) -> Iterator[BinaryIO]:
    """A named pipe `cue` in a folder that a container mounts. Closing it ends the container.

    Opened for both ways, so that opening does not wait for the container.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cue"
    os.mkfifo(path)
    with path.open("r+b", buffering=0) as pipe:
        yield pipe
    path.unlink(missing_ok=True)


def _ping(pipe: BinaryIO, receive: Receive) -> Callable[[], float]:
    def ping() -> float:
        time.sleep(0.03)
        text = f"{time.monotonic_ns()}\n".encode()
        began = time.perf_counter()
        pipe.write(text)
        found = b""
        while not found.endswith(text):
            piece = receive()
            if not piece:
                raise RuntimeError("the stream ended before the line came")
            found += piece
        return time.perf_counter() - began

    return ping


def _p50_p95(seconds: list[float]) -> str:
    return f"{percentile(seconds, 0.5) * 1e3:.2f} / {percentile(seconds, 0.95) * 1e3:.2f} ms"


# -- many lines -------------------------------------------------------------------------------------------------------


def _make_lines(folder: Path, lines: int) -> Path:
    """Numbered lines, so that a lost, repeated or misplaced line changes the digest."""
    folder.mkdir()
    path = folder / "lines.txt"
    with path.open("wb") as file:
        for first in range(0, lines, 10_000):
            block = (f"{number:0{LINE - 1}d}\n" for number in range(first, min(lines, first + 10_000)))
            file.write("".join(block).encode())
    return path


def _write_all(stage: Stage, daemon: Daemon, project: str, body: Json, runs: list[Json]) -> float:
    """Wait without a reader: the status is polled, as a waiting client does."""
    began = time.perf_counter()
    run = daemon.submit(project, body)
    while (status := daemon.api.get(f"{project}/jobs/{run['id']}/")["last_status"]) != "succeeded":
        if status in ("failed", "stopped") or time.perf_counter() - began > 120:
            raise RuntimeError(f"{run['unique_name']} is {status}")
        time.sleep(0.01)
    took = time.perf_counter() - began
    runs.append(run)
    wait_until_removed(stage.engine, daemon)
    return took


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of_log(daemon: Daemon, project: str, run: Json, keep: bool = True) -> tuple[str, float]:
    """(sha256 of the log from the API, seconds to read it). Without `keep` the digest is not computed."""
    digest, buffer = hashlib.sha256(), bytearray(_CHUNK)
    began = time.perf_counter()
    with daemon.api.stream(f"{project}/jobs/{run['id']}/logs/") as response:
        while size := response.readinto(buffer):
            if keep:
                digest.update(memoryview(buffer)[:size])
    return digest.hexdigest(), time.perf_counter() - began


def _thousands(number: int) -> str:
    return f"{number:,}"
