#!/usr/bin/env python3
"""Cause random faults in a real daemon for a given time, and check that nothing was lost.

    .venv/bin/python benchmarks/chaos.py [--minutes N] [--seed S] [--log FILE]

Needs root, dockerd, and an engine with the image polylocal/busybox:test (scripts/base-images --test); the faults
affect a separate engine and daemon. The same seed gives the same faults and the same work. Exits 1 on any violation.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from crash import chaos  # the harness of the tests

from polylocal.engine.docker import probe

# faults a minute; slow faults are rare
_A_MINUTE = {
    "kill daemon": 4.0,
    "kill daemon, pause": 1.0,
    "kill engine": 0.4,
    "restart engine": 0.3,
    "remove container": 2.0,
    "cut engine": 3.0,
    "tear engine": 2.0,
    "full disk": 1.5,
    "read-only home": 0.7,
    "busy database": 1.5,
    "busy database, long": 0.2,
    "clock jump": 1.5,
}
_RUNS_A_MINUTE = 12
_OWN_S = 2.1  # average duration of a fault
_MIB_A_MINUTE = 4  # of logs and history: the disk is small, but must not stay full


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # otherwise the engine stays
    found = probe.probe().found
    if found is None:
        raise SystemExit("chaos: no container engine here has the image to test with")
    faults = {kind: max(1, round(rate * given.minutes)) for kind, rate in _A_MINUTE.items()}
    pace_s = max(0.3, given.minutes * 60 / sum(faults.values()) - _OWN_S)
    runs = max(12, round(_RUNS_A_MINUTE * given.minutes))
    home_mib = 24 + round(_MIB_A_MINUTE * given.minutes)
    report = chaos.run(given.seed, faults, runs, found.url, pace_s, home_mib)
    if given.log:
        given.log.write_text(report.daemon_log)
    _show(report)
    for violation in report.violations:
        print(violation)
    print(f"seed {given.seed}: {len(report.violations)} violations")
    return 1 if report.violations else 0


def _show(report: chaos.Report) -> None:
    console = Console()
    console.print(_table("faults", report.by_kind), _table("runs", report.outcomes))
    console.print(
        f"{report.cuts} connections to the engine were cut; {report.gaps} logs say that something may be missing\n"
        f"memory of the daemon at the end: {report.memory_mib:.0f} MiB; duration: {report.duration_s:.0f} s"
    )


def _table(name: str, counted: Counter[str]) -> Table:
    table = Table(name, "number")
    table.columns[1].justify = "right"
    for what, number in sorted(counted.items()):
        table.add_row(what, str(number))
    table.add_section()
    table.add_row("together", str(sum(counted.values())))
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="about how long to cause faults; default 5")
    parser.add_argument("--seed", type=int, default=None, help="seed of the faults; default: a new one")
    parser.add_argument("--log", type=Path, metavar="FILE", help="also store the daemon's own log")
    given = parser.parse_args()
    if given.seed is None:
        given.seed = random.SystemRandom().randrange(10_000)
    return given


if __name__ == "__main__":
    sys.exit(main())
