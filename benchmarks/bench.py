#!/usr/bin/env python3
"""Compare polylocal with the plain Docker SDK: both do the same work alternately.

    .venv/bin/python benchmarks/bench.py [--quick] [--only NAME …] [--json FILE] [--write docs/performance.md]

Needs a container engine and the image polylocal/busybox:test (scripts/base-images --test). A full run takes about
five minutes, --quick about two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import builds
import jobs
import load
import logs
import process
import trials
from stage import BUSYBOX, Stage
from table import Row, page, show

import polylocal

Measure = Callable[[Stage, argparse.Namespace], list[Row]]

MEASURES: dict[str, Measure] = {
    "start": lambda stage, given: process.measure_start(stage, given.quick),
    "finish": lambda stage, given: jobs.measure_finish(stage, given.quick),
    "readable": lambda stage, given: jobs.measure_readable(stage, given.quick),
    "throughput": lambda stage, given: jobs.measure_throughput(stage, given.quick),
    "acknowledge": lambda stage, given: jobs.measure_acknowledgement(stage, given.quick, _small_code(stage)),
    "unchanged": lambda stage, given: builds.measure_unchanged(stage, given.quick),
    "changed": lambda stage, given: builds.measure_changed(stage, given.quick),
    "line": lambda stage, given: logs.measure_one_line(stage, given.quick),
    "lines": lambda stage, given: logs.measure_many_lines(stage, given.quick),
    "list": lambda stage, given: process.measure_lists(stage, given.quick, given.runs),
    "trials": lambda stage, given: trials.measure_grid(stage, given.quick),
    "load": lambda stage, given: load.measure_load(
        stage, given.quick, given.seconds or (15 if given.quick else load.SECONDS)
    ),
    "flood": lambda stage, given: load.measure_flood(stage, given.quick),
}

INTRODUCTION = """
polylocal adds an API, a queue, a history and stored logs to a container. This page shows what that costs. The same
work is done by polylocal (a real daemon, real HTTP over loopback, a real engine) and by a script that only calls the
Docker SDK. Machines differ and are never idle, so compare the ratios; the absolute figures are those of one machine
on one day.
"""

METHODS = """
- Both sides take turns within one run, and each turn starts with the other side. A ratio is computed for each pair of
  measurements. The table shows the median and quartiles of the ratios and, for ten or more values, the 95th
  percentile.
- **raw** is docker-py's low-level client: create, start and wait with the same image and command, the bridge network
  and the json-file driver. The removal of the container is not timed on either side, and ends before the next turn
  starts. In the throughput rows it is part of the work of each thread.
- *submit → finished* ends when the API answers `succeeded`; the end of `logs/?follow=true` shows when to ask. A ratio
  below 1 does not mean that the container ran faster: the engine sends its `die` event before it removes the network,
  and its `wait` returns afterwards.
- *death → readable* starts at the time in the engine's `die` event and ends when a GET says `succeeded`.
- *throughput*: all jobs are submitted at once to a daemon with `--max-runs N`; the raw side works with N threads.
- *acknowledged*: POST to 201 on one kept connection, with a token, a polyaxonfile with parameters, resources, tags.
- *unchanged code*: the code is uploaded twice, and the number of builds of the project must not change.
- *one line*: a line is written to a named pipe that `cat` in the container copies to its output. Two such containers
  run at the same time; one is followed through the API, the other through the SDK.
- *lines*: `cat` of a file of numbered lines of 100 bytes; the sha256 of the stored log is compared with the file's.
- *start*: with compiled byte code, as after an installation; the very first start is not counted.
- *a trial*: a grid of programs that do nothing, on a fake engine in the measuring process. Only the search, the
  queue, the database and the threads remain. The figure is the time of the whole group divided by its trials.
- *under load*: clients run in two separate processes, which share the cores of the machine with the daemon and the
  engine. Clients that list send the next request as soon as they have an answer, so the daemon is never idle. One
  client submits every 50 ms, and one asks /healthz. Two runs write a line every 100 ms. Half of the followers use
  HTTP, a quarter each of the two websocket APIs; one that is refused, since all connect at the same time, waits as
  the refusal says and connects again. The time of a line is from its time stamp in the log to its arrival
  at a follower that is already connected.
- *memory* is the resident set of the daemon and its children, sampled every 50 ms.
"""


def main() -> int:
    given = _arguments()
    stage = Stage()
    rows: list[Row] = []
    failed: list[str] = []
    began = time.monotonic()
    try:
        if not stage.engine.api.images(BUSYBOX):
            raise SystemExit(f"bench: {BUSYBOX} is missing; scripts/base-images --test makes it")
        about = _about(stage, given.quick)
        for name in given.only or MEASURES:
            print(f"{time.monotonic() - began:6.1f} s  {name}", file=sys.stderr, flush=True)
            try:
                rows += MEASURES[name](stage, given)
            except Exception:  # the other figures are still useful
                failed.append(name)
                traceback.print_exc()
    finally:
        stage.close()
    print(f"{time.monotonic() - began:6.1f} s  done", file=sys.stderr, flush=True)
    rows.sort(key=lambda row: int(row.number))
    show(rows, f"polylocal {polylocal.__version__} on {about['engine']}, {about['processor']}")
    _write_results(given, rows, about | ({"could not be measured": ", ".join(failed)} if failed else {}))
    return _report_failures(failed)


def _report_failures(failed: list[str]) -> int:
    if failed:
        print(f"bench: could not be measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _write_results(given: argparse.Namespace, rows: list[Row], about: dict[str, str]) -> None:
    if given.json:
        text = json.dumps({"about": about, "rows": [row.as_json() for row in rows]}, indent=2)
        given.json.write_text(text + "\n")
    if given.write:
        given.write.write_text(page(rows, about, METHODS, INTRODUCTION))


def _about(stage: Stage, quick: bool) -> dict[str, str]:
    """The properties of the machine that affect the figures, without its name."""
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "polylocal": polylocal.__version__,
        "processor": f"{os.cpu_count()} cores {platform.machine()}, {memory_gib:.0f} GiB of memory",
        "engine": stage.engine.about(),
        "Python": platform.python_version(),
        "load average at the start": f"{os.getloadavg()[0]:.1f}",
        "run": "quick: few repeats, for a look only" if quick else "full",
    }


def _small_code(stage: Stage) -> Path:
    return builds.pack_code(builds.make_code(stage.folder / "small", 10))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repeats, smaller logs")
    parser.add_argument("--only", nargs="+", choices=MEASURES, metavar="NAME", help=" ".join(MEASURES))
    parser.add_argument(
        "--runs", type=int, nargs="+", default=[10_000, 1_000_000], help="numbers of jobs in the measured lists"
    )
    parser.add_argument("--seconds", type=float, help=f"duration of the load; default {load.SECONDS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the page for the documentation")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
