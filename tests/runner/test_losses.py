"""Runs that were lost, took too long, or were ended through the engine: their outcome and their log."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from fake_engine import FakeContainer
from support import eventually

from polylocal import clock
from polylocal.engine.containers import Frame
from polylocal.engine.plan import ContainerPlan
from polylocal.errors import EngineError, EngineUnreachable
from polylocal.files import logs
from polylocal.planning.container import labels
from polylocal.runner.work import execution_of
from polylocal.statuses import Kind, Status
from polylocal.store.rows import Run

from .conftest import Rig, Supervise

LOST = "engine-lost: its container is gone"
MISSING = "its last output may be missing here"
KILLED = "engine-lost: its container was stopped through the engine, by the engine's end or by another client"


def begin(rig: Rig, run: Run) -> threading.Thread:
    """Carry out a run on a thread. Returns after its first output."""
    thread = threading.Thread(target=execution_of(rig.built(run), rig.context()), daemon=True)
    thread.start()
    eventually(lambda: has_said(rig, run, b"begun\n"))
    return thread


def has_said(rig: Rig, run: Run, text: bytes) -> bool:
    return b"".join(logs.read(rig.log_path(run))).endswith(text)


def restarting(times: int) -> dict[str, object]:
    return {"environment": {"max_restarts": times}}


def details(rig: Rig, run: Run) -> dict[str, object]:
    return rig.store.runs.statuses(run, limit=100, offset=0)[1][-1].details or {}


# -- lost --------------------------------------------------------------------------------------------------------


def test_a_lost_run_is_started_again_in_a_container_of_its_own(rig: Rig) -> None:
    """The log has all output of the first container, a line about the loss, and all output of the second."""
    run = rig.submit("echo begun; sleep 0.5; echo done", **restarting(2))
    thread = begin(rig, run)
    first = rig.container(run)
    rig.engine.lose(first.id)
    second = eventually(lambda: next(iter(rig.engine.made.values()), None))
    thread.join(10)
    assert (first.plan.name, second.plan.name) == (run.container_name, f"{run.container_name}-1")
    assert (first.starts, second.starts) == (1, 1)
    marker = f"polylocal: {LOST}: {MISSING}; the following output is from a new one, restart 1 of 2\n".encode()
    assert rig.log(run) == b"begun\n" + marker + b"begun\ndone\n"
    again = rig.again(run)
    assert (again.status, again.restarts, again.log_start) == ("succeeded", 1, len(b"begun\n" + marker))
    assert f"{LOST}: restart 1 of 2" in rig.messages(run)
    assert rig.history(run)[-4:] == ["warning", "scheduled", "running", "succeeded"]


def test_each_loss_takes_one_of_the_restarts_and_then_it_has_failed(rig: Rig) -> None:
    run = rig.submit("echo begun; sleep 60", **restarting(1))
    thread = begin(rig, run)
    rig.engine.lose(rig.again(run).container_id or "")
    eventually(lambda: rig.again(run).restarts == 1 and has_said(rig, run, b"begun\n") and rig.again(run).container_id)
    rig.engine.lose(rig.again(run).container_id or "")
    thread.join(10)
    assert rig.again(run).status == "failed"
    assert details(rig, run)["reason"] == "engine-lost"
    assert rig.log(run).count(b"polylocal: ") == 2
    assert rig.log(run).endswith(f"polylocal: {LOST}: {MISSING}\n".encode())


def test_a_lost_run_without_restarts_has_failed_and_its_log_says_that_something_may_be_missing(rig: Rig) -> None:
    run = rig.submit("echo begun; sleep 60")
    thread = begin(rig, run)
    rig.engine.lose(rig.again(run).container_id or "")
    thread.join(10)
    assert rig.log(run) == f"begun\npolylocal: {LOST}: {MISSING}\n".encode()
    assert (rig.message(run), details(rig, run)["reason"]) == (LOST, "engine-lost")


def test_a_marker_begins_a_line_of_its_own(rig: Rig) -> None:
    run = rig.submit("echo begun; printf half; sleep 60")
    thread = begin_until(rig, run, b"half")
    rig.engine.lose(rig.again(run).container_id or "")
    thread.join(10)
    assert rig.log(run) == f"begun\nhalf\npolylocal: {LOST}: {MISSING}\n".encode()


def begin_until(rig: Rig, run: Run, text: bytes) -> threading.Thread:
    thread = threading.Thread(target=execution_of(rig.built(run), rig.context()), daemon=True)
    thread.start()
    eventually(lambda: has_said(rig, run, text))
    return thread


def test_what_is_lost_while_nobody_looks_is_started_again_by_the_next_daemon(rig: Rig) -> None:
    """A daemon that died between the loss and its record makes no attempt twice."""
    run = rig.built(rig.submit("echo begun", **restarting(1)))
    rig.store.runs.record(run, container_id="gone")
    rig.store.runs.transition(run, "running")
    execution_of(rig.again(run), rig.context())()
    assert (rig.again(run).status, rig.again(run).restarts) == ("succeeded", 1)
    assert rig.log(run).endswith(b"restart 1 of 1\nbegun\n")


@pytest.mark.parametrize("code", [137, 143, 255])
@pytest.mark.parametrize("is_lost", [True, False])
def test_an_end_that_no_daemon_saw(rig: Rig, code: int, is_lost: bool) -> None:
    """The engine tells an end that it recorded at its own start from an end of the program."""
    run = rig.built(rig.submit(f"exit {code}", environment={"resources": {"memory": {"limits": 64}}}))
    command = ["/bin/sh", "-c", f"exit {code}"]
    container_id = rig.engine.create(ContainerPlan(run.container_name, "base", command, labels(run, "home")))
    rig.engine.start(container_id)
    rig.engine.wait(container_id)
    if is_lost:
        rig.engine.lost_at_start.add(container_id)
    rig.store.runs.record(run, container_id=container_id)
    rig.store.runs.transition(run, "running")
    execution_of(rig.again(run), rig.context())()
    assert (rig.again(run).status, details(rig, run)["exit_code"]) == ("failed", code)
    assert (details(rig, run)["reason"] == "engine-lost") is is_lost


@pytest.mark.slow
def test_an_ordinary_restart_after_a_loss_repeats_and_loses_no_line(rig: Rig) -> None:
    """The second container has two attempts in its log; both follow the marker, once each."""
    run = rig.submit("echo begun; sleep 0.3; exit 3", **restarting(2))
    thread = begin(rig, run)
    rig.engine.lose(rig.again(run).container_id or "")
    thread.join(10)
    first, _, rest = rig.log(run).partition(b"restart 1 of 2\n")
    assert (first.count(b"begun\n"), rest) == (1, b"begun\nbegun\n")
    assert (rig.again(run).status, rig.again(run).exit_code) == ("failed", 3)
    assert details(rig, run)["reason"] == "program"


def test_a_stop_of_a_lost_run_starts_nothing_again(rig: Rig) -> None:
    run = rig.submit("echo begun; sleep 60", **restarting(5))
    thread = begin(rig, run)
    rig.store.runs.request_stop(run)
    rig.engine.lose(rig.again(run).container_id or "")
    thread.join(10)
    assert rig.again(run).restarts == 0
    assert not rig.engine.made


# -- ended by another client --------------------------------------------------------------------------------------


def test_what_is_stopped_through_the_engine_is_lost_and_no_fault_of_the_program(rig: Rig) -> None:
    run = rig.submit("echo begun; sleep 60")
    thread = begin(rig, run)
    rig.engine.stop(rig.again(run).container_id or "", 0)
    thread.join(10)
    assert (rig.message(run), details(rig, run)) == (KILLED, {"reason": "engine-lost", "exit_code": 143})


def test_what_is_stopped_through_the_engine_is_started_again_if_it_may(rig: Rig) -> None:
    run = rig.submit("echo begun; sleep 0.5; echo done", **restarting(1))
    thread = begin(rig, run)
    rig.engine.stop(rig.again(run).container_id or "", 0)
    thread.join(10)
    assert rig.again(run).status == "succeeded"
    assert rig.log(run).endswith(b"restart 1 of 1\nbegun\ndone\n")
    assert not rig.engine.made


@pytest.mark.parametrize("code", [137, 143, 255])
def test_a_program_that_ends_itself_with_the_code_of_a_kill_is_its_own_fault(rig: Rig, code: int) -> None:
    run = rig.run(rig.submit(f"exit {code}"))
    assert (rig.again(run).status, details(rig, run)["reason"]) == ("failed", "program")


def test_a_stopped_run_is_stopped_even_if_the_engine_was_away_before(rig: Rig) -> None:
    """Its log has no message about a loss."""
    run = rig.submit("echo begun; sleep 60")
    execution = execution_of(rig.built(run), rig.context())
    thread = threading.Thread(target=execution, daemon=True)
    thread.start()
    eventually(lambda: has_said(rig, run, b"begun\n"))
    with rig.engine.away():
        eventually(lambda: execution.operation.engine_was_away)
    rig.store.runs.request_stop(run)
    execution.stop()
    thread.join(10)
    assert rig.again(run).status == "stopped"
    assert rig.log(run) == b"begun\n"


# -- started once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cmd", ["echo begun", "echo begun; sleep 0.5; echo done"])
def test_a_start_whose_answer_was_lost_starts_nothing_twice(rig: Rig, monkeypatch, cmd: str) -> None:
    """Whether or not the program has ended since."""
    started: list[FakeContainer] = []
    start = rig.engine.start

    def deaf(container_id: str) -> None:
        start(container_id)
        started.append(rig.engine.made[container_id])
        if len(started) == 1:
            if ";" not in cmd:
                rig.engine.wait(container_id)
            raise EngineUnreachable("the answer was lost")

    monkeypatch.setattr(rig.engine, "start", deaf)
    run = rig.run(rig.submit(cmd))
    assert [container.starts for container in started] == [1]
    assert run.status == "succeeded"
    assert rig.log(run).count(b"begun\n") == 1


def test_a_start_that_never_reached_the_engine_is_made_again(rig: Rig, monkeypatch) -> None:
    start, tries = rig.engine.start, []

    def unreachable(container_id: str) -> None:
        tries.append(container_id)
        if len(tries) == 1:
            raise EngineUnreachable("the question was lost")
        start(container_id)

    monkeypatch.setattr(rig.engine, "start", unreachable)
    run = rig.run(rig.submit("echo begun"))
    assert (run.status, len(tries), rig.log(run)) == ("succeeded", 2, b"begun\n")


@pytest.mark.parametrize("may_restart", [True, False])
def test_a_program_that_an_ended_engine_may_have_started_is_not_started_twice(
    rig: Rig, monkeypatch, may_restart: bool
) -> None:
    """The killed engine stored output of the program, but not that it started."""
    start, tries = rig.engine.start, []

    def die(container_id: str) -> None:
        tries.append(container_id)
        if len(tries) == 1:
            rig.engine.made[container_id].output.append(Frame(1, b"first\n", 1))
            rig.engine.killed_at_start.add(container_id)
            raise EngineUnreachable("the engine was killed")
        start(container_id)

    monkeypatch.setattr(rig.engine, "start", die)
    run = rig.run(rig.submit("echo begun", **restarting(int(may_restart))))
    said = "engine-lost: the engine went away while its container was being started"
    first, _, rest = rig.log(run).partition(f"polylocal: {said}: {MISSING}".encode())
    assert first == b"first\n"
    if may_restart:
        assert (run.status, run.restarts, len(set(tries))) == ("succeeded", 1, 2)
        assert rest == b"; the following output is from a new one, restart 1 of 1\nbegun\n"
    else:
        assert (run.status, details(rig, run)["reason"], len(tries)) == ("failed", "engine-lost", 1)
        assert rest == b"\n"
    assert rig.engine.made == {}


def test_the_next_daemon_starts_no_program_that_an_ended_engine_may_have_started(rig: Rig) -> None:
    run = rig.built(rig.submit("echo begun"))
    container_id = rig.engine.create(ContainerPlan(run.container_name, "base", ["true"], labels(run, "home")))
    rig.engine.killed_at_start.add(container_id)
    rig.store.runs.record(run, container_id=container_id)
    container = rig.engine.made[container_id]
    execution_of(rig.again(run), rig.context())()
    assert (rig.again(run).status, container.starts) == ("failed", 0)
    assert details(rig, run)["reason"] == "engine-lost"


# -- too long ----------------------------------------------------------------------------------------------------


@pytest.fixture
def limited(rig: Rig) -> Rig:
    rig.settings = rig.settings.model_copy(update={"time_limit_s": 0.3})
    return rig


@pytest.mark.parametrize("kind", [Kind.JOB, Kind.EXPERIMENT])
def test_what_runs_longer_than_the_limit_has_failed_because_of_it(limited: Rig, supervise: Supervise, kind) -> None:
    run = limited.submit("sleep 60") if kind is Kind.JOB else limited.experiment("sleep 60")
    supervise(lambda: limited.again(run).finished_at)
    assert limited.again(run).status == "failed"
    assert limited.message(run) == "Stopped after 0.3 s, the limit that is set (time_limit_s)"
    assert details(limited, run)["reason"] == "time-limit"


def test_a_build_has_the_same_limit(limited: Rig, supervise: Supervise) -> None:
    run = limited.submit("true", build={"image": "base", "build_steps": ["sleep 60"]})
    supervise(lambda: limited.again(run).finished_at)
    build = limited.store.runs.by_pk(limited.again(run).build_pk or 0)
    assert (build.status, details(limited, build)["reason"]) == ("failed", "time-limit")
    assert limited.again(run).status == "failed"


def test_a_restart_gives_no_further_time(limited: Rig, supervise: Supervise) -> None:
    run = limited.submit("sleep 60", **restarting(5))
    supervise(lambda: limited.again(run).finished_at)
    assert (limited.again(run).restarts, details(limited, run)["reason"]) == (0, "time-limit")


def test_servers_have_no_limit(limited: Rig, supervise: Supervise) -> None:
    """A user works with them."""
    server = limited.server(Kind.TENSORBOARD)
    supervise(lambda: limited.again(server).status == "running")
    running = next(iter(supervise.supervisor.executions().values()))
    supervise(lambda: running.seconds_running > 0.6)
    supervise.supervisor.step()
    assert limited.again(server).stop_requested_at is None
    assert limited.again(server).status == "running"


def test_time_goes_on_while_no_daemon_runs(limited: Rig, supervise: Supervise, monkeypatch) -> None:
    """It is counted from the first `running` entry of the history."""
    run = limited.built(limited.submit("sleep 60"))
    container_id = execution_of(run, limited.context()).operation.create()
    limited.engine.start(container_id or "")
    limited.store.runs.transition(run, "running")
    monkeypatch.setattr(type(limited.store.runs), "seconds_since_running", lambda self, run: 1000.0)
    supervise(lambda: limited.again(run).finished_at, within_s=5)
    assert details(limited, run)["reason"] == "time-limit"


@pytest.mark.parametrize("hours", [5, -5])
def test_a_clock_that_is_set_ends_no_run_that_the_next_daemon_takes_up(
    rig: Rig, supervise: Supervise, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """The first daemon has recorded the start on the monotonic clock."""
    rig.settings = rig.settings.model_copy(update={"time_limit_s": 3600.0})
    run = rig.submit("echo begun; sleep 60")
    first = execution_of(rig.built(run), rig.context())
    thread = threading.Thread(target=first, daemon=True)
    thread.start()
    eventually(lambda: has_said(rig, run, b"begun\n") and first.seconds_running)
    told = clock.now
    monkeypatch.setattr(clock, "now", lambda: clock.stamp(clock.parse(told()) + timedelta(hours=hours)))
    supervise(lambda: supervise.supervisor.executions())
    [second] = supervise.supervisor.executions().values()
    supervise(lambda: second.seconds_running)
    for _ in range(3):
        supervise.supervisor.step()
    assert second.seconds_running < 3600
    assert (rig.again(run).status, rig.again(run).stop_requested_at) == ("running", None)
    rig.store.runs.request_stop(run)
    first.stop()
    supervise(lambda: rig.again(run).finished_at)
    thread.join(10)
    assert rig.again(run).status == "stopped"


def test_a_short_run_ends_well_within_the_limit(limited: Rig, supervise: Supervise) -> None:
    run = limited.submit("true")
    supervise(lambda: limited.again(run).finished_at)
    assert limited.again(run).status == "succeeded"


# -- whose fault -------------------------------------------------------------------------------------------------


def test_the_reason_of_a_broken_build_is_on_the_build_and_on_who_waits(rig: Rig, supervise: Supervise) -> None:
    run = rig.submit("true", build={"image": "base", "build_steps": ["exit 3"]})
    supervise(lambda: rig.again(run).finished_at)
    build = rig.store.runs.by_pk(rig.again(run).build_pk or 0)
    assert details(rig, build)["reason"] == "build"
    assert details(rig, run)["build_job"] == build.unique_name
    assert details(rig, run)["reason"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [("no such device", "start"), ("write /var/lib: no space left on device", "disk-full")],
)
def test_the_reason_of_what_the_engine_would_not_start(rig: Rig, monkeypatch, words: str, reason: str) -> None:
    def refuse(container_id: str) -> None:
        raise EngineError(words)

    monkeypatch.setattr(rig.engine, "start", refuse)
    run = rig.run(rig.submit("true"))
    assert (rig.message(run), details(rig, run)["reason"]) == (f"Could not start: {words}", reason)


def test_the_reason_of_a_bug_of_ours(rig: Rig, monkeypatch) -> None:
    monkeypatch.setattr(rig.engine, "create", lambda plan: 1 / 0)
    run = rig.run(rig.submit("true"))
    assert details(rig, run)["reason"] == "host"


def test_the_reason_of_what_can_never_fit(rig: Rig, supervise: Supervise) -> None:
    run = rig.submit("true", environment={"resources": {"cpu": {"limits": 64}}})
    supervise(lambda: rig.again(run).finished_at)
    assert details(rig, run)["reason"] == "resources"


def test_a_success_has_an_exit_code_and_no_reason(rig: Rig) -> None:
    assert details(rig, rig.run(rig.submit("true"))) == {"exit_code": 0}


@pytest.mark.parametrize("said", [Status.SUCCEEDED, Status.WARNING])
def test_a_run_that_said_of_itself_how_it_is(rig: Rig, said: Status) -> None:
    """After its own final report it has no further attempt; a reported warning uses none."""
    run = rig.submit("echo begun; sleep 0.5", **restarting(5))
    thread = begin(rig, run)
    rig.store.runs.transition(run, said, "told by the program")
    rig.engine.lose(rig.container(run).id)
    thread.join(10)
    assert not thread.is_alive()
    assert (rig.again(run).status, rig.again(run).restarts) == ("succeeded", 0 if said is Status.SUCCEEDED else 1)
    assert rig.log(run).count(b"polylocal: ") == 1
