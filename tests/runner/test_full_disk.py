"""A full disk of the home folder: no run begins or fails, and all continue when there is space again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import fill, small_disk

from polylocal.errors import StoreError
from polylocal.files import disk, logs
from polylocal.runner import supervisor as supervisor_module
from polylocal.runner.work import execution_of
from polylocal.settings import Settings, load
from polylocal.statuses import Kind
from polylocal.store.rows import Run

from .conftest import Rig, Supervise
from .test_packages import Yard


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setattr(disk, "_CACHED_S", 0.0)
    monkeypatch.setattr(supervisor_module, "RETRY_S", 0.05)
    with small_disk(tmp_path / "home", 48) as home:
        yield load(home=home, min_free_mib=16)


def full(rig: Rig) -> Path:
    """Less than the required space is free, but enough for the rows and logs of runs."""
    return fill(rig.settings.home, 12 << 20)


def look(supervise: Supervise, times: int = 3) -> None:
    for _ in range(times):
        supervise(lambda: True)


def test_what_waits_is_unschedulable_and_told_so_once(rig: Rig, supervise: Supervise) -> None:
    ballast = full(rig)
    run = rig.submit("echo begun")
    look(supervise)
    assert rig.history(run) == ["created", "unschedulable"]
    assert "is full: 12 MiB are free" in (rig.message(run) or "")
    assert rig.store.runs.statuses(run, limit=9, offset=0)[1][-1].details == {"reason": "disk-full"}
    assert rig.engine.builds == 0
    ballast.unlink()
    supervise(lambda: rig.again(run).finished_at)
    assert rig.history(run) == ["created", "unschedulable", "building", "scheduled", "running", "succeeded"]


def test_a_build_that_waited_goes_its_whole_way(rig: Rig, supervise: Supervise) -> None:
    run = rig.submit("true")
    supervise(lambda: True, max_runs=1)  # resolves it, and may begin the build
    supervise(lambda: rig.again(run).finished_at)
    waiting = rig.submit("true", build={"image": "base", "build_steps": ["true"]})
    supervise.supervisor.resolve_builds()
    build = rig.store.runs.by_pk(rig.again(waiting).build_pk or 0)
    assert build.status == "created"
    ballast = full(rig)
    look(supervise)
    assert (rig.history(build), rig.again(waiting).status) == (["created", "unschedulable"], "unschedulable")
    ballast.unlink()
    supervise(lambda: rig.again(waiting).finished_at)
    assert rig.history(build) == ["created", "unschedulable", "scheduled", "building", "running", "succeeded"]
    assert rig.again(waiting).status == "succeeded"
    assert b"building again" not in rig.log(build)


def test_groups_make_no_further_experiments_while_the_disk_is_full(rig: Rig, supervise: Supervise) -> None:
    ballast = full(rig)
    group = rig.group({"matrix": {"n": {"values": [1, 2, 3]}}, "concurrency": 2}, "true")
    look(supervise)
    assert rig.members(group) == []
    assert rig.again(group).finished_at is None
    ballast.unlink()
    supervise(lambda: rig.again(group).finished_at)
    assert [member.status for member in rig.members(group)] == ["succeeded"] * 3


def test_experiments_that_are_held_stay_so(rig: Rig, supervise: Supervise) -> None:
    group = rig.group({"matrix": {"n": {"values": [1, 2, 3]}}, "concurrency": 1}, "sleep 0.2")
    supervise(lambda: len(rig.members(group)) == 3 and any(m.status == "running" for m in rig.members(group)))
    ballast = full(rig)
    supervise(lambda: any(member.status == "succeeded" for member in rig.members(group)))
    look(supervise)
    # the one that runs comes to its end; no other is let go
    assert sorted(member.status for member in rig.members(group)) == ["created", "created", "succeeded"]
    ballast.unlink()
    supervise(lambda: rig.again(group).finished_at)
    assert rig.again(group).status == "succeeded"


def test_what_waits_can_be_stopped(rig: Rig, supervise: Supervise) -> None:
    full(rig)
    run = rig.submit("true")
    look(supervise)
    rig.store.runs.request_stop(run)
    look(supervise)
    assert rig.again(run).status == "stopped"


def test_servers_wait_too(rig: Rig, supervise: Supervise) -> None:
    ballast = full(rig)
    server = rig.server(Kind.TENSORBOARD)
    look(supervise)
    assert rig.again(server).status == "unschedulable"
    ballast.unlink()
    supervise(lambda: rig.again(server).status == "running")


def test_results_need_no_room_of_their_own(rig: Rig) -> None:
    """A build may leave more bytes than are free, since its files are not copied."""
    yard = Yard(rig)
    fill(rig.settings.home, 18 << 20)
    made = yard.build(yard.engine.leaves("a.bin", bytes(12 << 20)))
    assert (made.status, len(yard.kept(made, "a.bin"))) == (0, 12 << 20)


# -- what runs already -------------------------------------------------------------------------------------------


class FullLogs:
    """Logs that can't be written while `is_full`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self.refused = 0
        write = logs.LogWriter._write

        def refuse(writer: logs.LogWriter, *arguments: object) -> None:
            if self.is_full and arguments[0]:
                self.refused += 1
                raise StoreError("The log can't be written: No space left on device")
            write(writer, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(logs.LogWriter, "_write", refuse)


@pytest.fixture
def full_logs(monkeypatch: pytest.MonkeyPatch) -> FullLogs:
    return FullLogs(monkeypatch)


def test_a_thread_that_can_keep_nothing_ends_and_its_run_does_not(rig: Rig, full_logs: FullLogs) -> None:
    run = rig.built(rig.submit("echo one; sleep 60"))
    full_logs.is_full = True
    assert execution_of(run, rig.context())() is False
    assert rig.again(run).status == "running"
    assert rig.container(run).status == "running"


def test_a_run_goes_on_over_a_full_disk_and_its_log_is_complete(
    rig: Rig, supervise: Supervise, full_logs: FullLogs
) -> None:
    run = rig.submit("; ".join(f"echo {n}; sleep 0.02" for n in range(30)))
    supervise(lambda: b"5\n" in b"".join(logs.read(rig.log_path(run))))
    container = rig.container(run)
    full_logs.is_full = True
    supervise(lambda: full_logs.refused > 1)
    assert rig.again(run).status == "running"
    full_logs.is_full = False
    supervise(lambda: rig.again(run).finished_at)
    assert rig.log(run) == b"".join(b"%d\n" % n for n in range(30))
    assert (container.starts, rig.history(run)[-1]) == (1, "succeeded")
    assert not {"failed", "warning", "unknown"} & set(rig.history(run))


def test_a_run_that_ended_on_a_full_disk_is_kept_when_there_is_room(
    rig: Rig, supervise: Supervise, full_logs: FullLogs
) -> None:
    run = rig.submit("sleep 0.2; echo last; exit 3")
    supervise(lambda: rig.again(run).status == "running")
    full_logs.is_full = True
    container = rig.container(run)
    supervise(lambda: container.status == "exited" and full_logs.refused > 1)
    assert rig.again(run).finished_at is None
    full_logs.is_full = False
    supervise(lambda: rig.again(run).finished_at)
    assert (rig.log(run), rig.again(run).exit_code, rig.again(run).status) == (b"last\n", 3, "failed")


def test_a_build_that_can_keep_nothing_is_put_off(rig: Rig, supervise: Supervise, full_logs: FullLogs) -> None:
    full_logs.is_full = True
    run = rig.submit("true")
    supervise(lambda: full_logs.refused > 1)
    build = rig.store.runs.by_pk(rig.again(run).build_pk or 0)
    assert (build.finished_at, rig.again(run).finished_at) == (None, None)
    full_logs.is_full = False
    supervise(lambda: rig.again(run).finished_at)
    assert rig.again(run).status == "succeeded"


def test_a_thread_is_put_off_for_a_while(rig: Rig, supervise: Supervise, full_logs: FullLogs, monkeypatch) -> None:
    """Otherwise it would be tried again without a pause."""
    monkeypatch.setattr(supervisor_module, "RETRY_S", 60.0)
    run = rig.submit("echo one; sleep 60")
    full_logs.is_full = True
    supervise(lambda: full_logs.refused)
    supervise(lambda: not supervise.supervisor.executions())
    tried = full_logs.refused
    look(supervise, 10)
    assert full_logs.refused == tried
    assert rig.again(run).finished_at is None


def test_a_disk_without_a_free_byte(rig: Rig, supervise: Supervise) -> None:
    """A real full disk: neither the log nor the database can be written."""
    run = rig.submit("; ".join(f"echo {n}; sleep 0.02" for n in range(40)))
    supervise(lambda: b"3\n" in b"".join(logs.read(rig.log_path(run))))
    container = rig.container(run)
    ballast = fill(rig.settings.home)
    supervise(lambda: container.status == "exited")
    ballast.unlink()
    supervise(lambda: rig.again(run).finished_at)
    assert rig.again(run).status == "succeeded"
    assert rig.log(run) == b"".join(b"%d\n" % n for n in range(40))


def test_a_program_that_fails_while_the_disk_is_full_is_told_of_it(rig: Rig, supervise: Supervise) -> None:
    run = rig.submit("echo OSError >&2; sleep 60")
    supervise(lambda: rig.log_path(run).exists() and rig.log(run) == b"OSError\n")
    full(rig)
    container = rig.container(rig.again(run))
    container.handled = 1
    assert rig.engine.terminate(rig.again(run).container_id or "")
    supervise(lambda: rig.again(run).finished_at)
    assert rig.message(run) == "Exit code 1 while the disk was full: OSError"


def test_the_supervisor_says_its_trouble_once(rig: Rig, supervise: Supervise, records, monkeypatch) -> None:
    def refuse(*arguments: object, **more: object) -> list[Run]:
        raise StoreError("database or disk is full")

    monkeypatch.setattr(type(rig.store.queue), "begun", refuse)
    look(supervise, 5)
    assert sum("database or disk is full" in line for line in records()) == 1


def test_a_full_disk_is_collected_by_itself(rig: Rig, supervise: Supervise) -> None:
    """All images that can be built again are removed, except those of running runs."""
    run = rig.submit("true")
    supervise(lambda: rig.again(run).finished_at)
    kept = rig.submit("sleep 60", build={"image": "base", "build_steps": ["true"]})
    supervise(lambda: rig.again(kept).status == "running")
    collector = supervise.supervisor.housekeeping.collector
    full(rig)
    collector._next_at -= 600.0
    supervise(lambda: len(rig.engine.images("home")) == 1, within_s=10)
    assert rig.engine.images("home")[0].build == rig.store.runs.by_pk(rig.again(kept).build_pk or 0).uuid
    assert rig.again(kept).status == "running"
