"""Measures builds of unchanged and of changed code."""

from __future__ import annotations

import itertools
import time
from datetime import datetime
from pathlib import Path

from jobs import alternate, milliseconds, ratios, wait_until_removed
from raw import context_of
from stage import BUSYBOX, Daemon, Stage, job
from table import Row, median_ms

from polylocal.client.packing import pack

_SIZE = 2048  # bytes of each file


def make_code(folder: Path, files: int) -> Path:
    """A folder of small files, ten in each of its subfolders."""
    for number in range(files):
        path = folder / f"part{number // 10:04d}" / f"module{number:05d}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# module {number}\n" + "x" * _SIZE + "\n")
    return folder


def pack_code(code: Path) -> Path:
    """The archive that `polylocal upload` sends."""
    archive = code.with_suffix(".tar.gz")
    with archive.open("wb") as file:
        pack(code, file)
    return archive


def measure_unchanged(stage: Stage, quick: bool) -> list[Row]:
    """Submit a job with 1,000 unchanged files, and wait until it has left `created` and `building`."""
    count = 6 if quick else 12
    code = pack_code(make_code(stage.folder / "unchanged", 1000))
    with stage.daemon() as daemon:
        coded, _ = daemon.ready_project("coded", code)
        plain, _ = daemon.ready_project("plain")
        daemon.upload("coded", code)  # the same files again: no new commit, no new build
        before = _builds(daemon, coded)
        with_code, without = alternate(
            count,
            lambda: _time_until_scheduled(stage, daemon, coded),
            lambda: _time_until_scheduled(stage, daemon, plain),
        )
        made = _builds(daemon, coded) - before
    more = [a - b for a, b in zip(with_code, without, strict=True)]
    note = (
        f"{count} jobs after the same 1,000 files were uploaded again: {made} engine builds;"
        " from POST to the line `scheduled`, which is written when the container is there"
    )
    return [
        Row("5", "unchanged code, 1,000 files: submit → scheduled", "ms", milliseconds(with_code), 10.0, note=note),
        Row("5", "the same in a project without code", "ms", milliseconds(without)),
        Row("5", "what 1,000 unchanged files add, paired", "ms", milliseconds(more)),
    ]


def measure_changed(stage: Stage, quick: bool) -> list[Row]:
    """Build after a change to one of 1,000 files, compared with the SDK's build of the same context."""
    count = 2 if quick else 4
    code = make_code(stage.folder / "changed", 1000)
    numbers = itertools.count()
    with stage.daemon() as daemon:
        project = daemon.project("changed")
        dockerfile = _build_with_polylocal(daemon, project, code, next(numbers))[1]
        _build_raw(stage, code, dockerfile, next(numbers))
        ours, theirs = alternate(
            count,
            lambda: _build_with_polylocal(daemon, project, code, next(numbers))[0],
            lambda: _build_raw(stage, code, dockerfile, next(numbers)),
        )
    note = f"polylocal {median_ms(ours)}, raw {median_ms(theirs)}, making the tar included in both, the upload not"
    return [Row("6", "changed code, 1,000 files: build / raw build", "x", ratios(ours, theirs), 1.1, note=note)]


def _time_until_scheduled(stage: Stage, daemon: Daemon, project: str) -> float:
    began = time.time()
    run = daemon.submit(project, job("true"))
    daemon.finish(project, run)
    history = daemon.api.get(f"{project}/jobs/{run['id']}/statuses/")["results"]
    wait_until_removed(stage.engine, daemon)
    left = next(line for line in history if line["status"] not in ("created", "building"))
    return datetime.fromisoformat(left["created_at"]).timestamp() - began


def _builds(daemon: Daemon, project: str) -> int:
    found: int = daemon.api.get(f"{project}/builds/")["count"]
    return found


def _build_with_polylocal(daemon: Daemon, project: str, code: Path, number: int) -> tuple[float, str]:
    _change(code, number)
    daemon.upload(project.rpartition("/")[2], pack_code(code))
    body = {"config": {"version": 1, "kind": "build", "build": {"image": BUSYBOX}}}
    began = time.perf_counter()
    run = daemon.submit(project, body, kind="build")
    built = daemon.finish(project, run, kind="build")
    return time.perf_counter() - began, built["dockerfile"]


def _build_raw(stage: Stage, code: Path, dockerfile: str, number: int) -> float:
    _change(code, number)
    began = time.perf_counter()
    stage.engine.build(context_of(dockerfile, code), f"polylocal-bench:{stage.engine.mark}")
    return time.perf_counter() - began


def _change(code: Path, number: int) -> None:
    """Change a file to new content, so that the builder's cache helps neither side."""
    path = code / "part0000" / "module00000.py"
    path.write_text(f"# change {number} at {time.time_ns()}\n")
