"""Runs: creation, changes, history, deletion, and the clock of their time limits."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from polylocal import clock
from polylocal.errors import InvalidInput, NotFound
from polylocal.settings import Settings
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.life_cycle import MAX_MESSAGE
from polylocal.store.rows import Project, Run, User
from polylocal.store.runs import build_key

Make = Any


@pytest.fixture
def make(store: Store, root: User, project: Project) -> Make:
    """Returns `make(kind, name=…, …)`, which inserts a run of the project."""

    def made(kind: Kind = Kind.JOB, in_project: Project = project, **values: Any) -> Run:
        return store.runs.insert(in_project, root, NewRun(kind, values=values))

    return made


def history(store: Store, run: Run) -> list[tuple[str, str | None]]:
    return [(row.status, row.message) for row in store.runs.statuses(run, limit=100, offset=0)[1]]


def page(store: Store, project: Project, **values: Any) -> tuple[int, list[int]]:
    given = {"query": None, "sort": "created_at", "limit": 20, "offset": 0, **values}
    count, runs = store.runs.page(project, Kind.JOB, **given)
    return count, [run.id for run in runs]


# -- made --------------------------------------------------------------------------------------------------------


def test_a_new_run_is_created_and_has_a_history(store: Store, project: Project, make: Make) -> None:
    run = make(description="d", tags=["b", "a"], ttl=5)
    assert (run.status, run.started_at, run.finished_at, run.tags, run.ttl) == ("created", None, None, ["b", "a"], 5)
    assert run.unique_name == "root.quick-start.jobs.1"
    assert (len(run.uuid), run.outputs) == (32, f"outputs/{project.uuid}/jobs/1")
    assert history(store, run) == [("created", None)]
    assert store.runs.statuses(run, limit=1, offset=0)[1][0].created_at == run.created_at == run.updated_at


def test_ids_count_per_kind_over_all_projects(store: Store, root: User, make: Make) -> None:
    other = store.projects.create(root, {"name": "other"})
    runs = [make(Kind.JOB), make(Kind.BUILD), make(Kind.JOB, other), make(Kind.BUILD), make(Kind.JOB)]
    assert [run.id for run in runs] == [1, 1, 2, 2, 3]


def test_the_id_of_a_removed_run_is_not_given_again(store: Store, make: Make) -> None:
    store.runs.remove(make())
    assert make().id == 2


@pytest.mark.parametrize("column", ["id", "uuid", "status", "pk", "is_valid", "no_such_column"])
def test_a_new_run_with_a_read_only_or_unknown_value_is_refused(store: Store, project: Project, column: str) -> None:
    new = NewRun(Kind.JOB, values={"name": "a", column: 1})
    with pytest.raises(TypeError, match=rf"not to be set: \['{column}'\]"):
        store.runs.insert(project, store.users.get("root"), new)
    assert store.runs.page(project, Kind.JOB, query=None, sort=None, limit=1, offset=0) == (0, [])


def test_a_name_that_is_taken_gets_a_number(store: Store, root: User, make: Make) -> None:
    names = [make(name="a").name for _ in range(3)]
    other = store.projects.create(root, {"name": "other"})
    assert names == ["a", "a-1", "a-2"]
    assert make(Kind.BUILD, name="a").name == make(Kind.JOB, other, name="a").name == "a"
    assert make(name="").name is make().name is None


def test_the_name_of_a_deleted_run_is_free(store: Store, make: Make) -> None:
    store.runs.delete(make(name="a"))
    assert make(name="a").name == "a"


def test_many_threads_get_different_ids_and_names(store: Store, make: Make) -> None:
    made: list[Run] = []
    threads = [threading.Thread(target=lambda: made.append(make(name="a"))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(run.id for run in made) == list(range(1, 11))
    assert len({run.name for run in made}) == 10


# -- found -------------------------------------------------------------------------------------------------------


def test_a_run_is_found_in_its_project_only(store: Store, root: User, project: Project, make: Make) -> None:
    run, other = make(name="a"), store.projects.create(root, {"name": "other"})
    for same in (store.runs.get(project, Kind.JOB, 1), store.runs.by_name(project, Kind.JOB, "a")):
        assert same == run == store.runs.find(Kind.JOB, 1) == store.runs.by_uuid(run.uuid)
    for kind, where in ((Kind.BUILD, project), (Kind.JOB, other)):
        with pytest.raises(NotFound):
            store.runs.get(where, kind, 1)


def test_a_deleted_run_is_found_by_its_row_only(store: Store, project: Project, make: Make) -> None:
    run = make(name="a")
    store.runs.delete(run)
    assert store.runs.by_pk(run.pk).deleted_at is not None
    for find in (
        lambda: store.runs.get(project, Kind.JOB, 1),
        lambda: store.runs.find(Kind.JOB, 1),
        lambda: store.runs.by_name(project, Kind.JOB, "a"),
    ):
        with pytest.raises(NotFound):
            find()


def test_pages(store: Store, project: Project, make: Make) -> None:
    for _ in range(5):
        make()
    assert page(store, project, limit=2, offset=2) == (5, [3, 4])
    assert page(store, project, limit=2, offset=4, query="id:>1") == (4, [])
    assert page(store, project, sort=None, limit=2) == (5, [5, 4])


def test_the_latest_runs_are_those_that_one_may_see(store: Store, root: User, make: Make) -> None:
    private = store.projects.create(root, {"name": "private", "is_public": False})
    hidden, public = make(Kind.JOB, private), make(Kind.BUILD)
    other = store.users.add("other")
    assert [run.pk for run in store.runs.latest(root, kind=None, is_open=False, limit=9)] == [public.pk, hidden.pk]
    assert [run.pk for run in store.runs.latest(other, kind=None, is_open=False, limit=9)] == [public.pk]
    assert store.runs.latest(root, kind="job", is_open=True, limit=9) == [hidden]
    store.runs.transition(hidden, Status.STOPPED)
    assert store.runs.latest(root, kind="job", is_open=True, limit=9) == []


def test_counters_are_the_real_counts(store: Store, root: User, project: Project, make: Make) -> None:
    dice, runs = random.Random(5), list[Run]()
    projects = [project, store.projects.create(root, {"name": "other"})]
    for _ in range(120):
        what = dice.choice(["insert", "insert", "delete", "remove"])
        if what == "insert" or not runs:
            runs.append(make(dice.choice(list(Kind)), dice.choice(projects)))
        elif what == "delete":
            store.runs.delete(dice.choice(runs))
        else:
            store.runs.remove(runs.pop(dice.randrange(len(runs))))
    for each in projects:
        for kind in Kind:
            query = "select count(*) from runs where project_id = ? and kind = ? and deleted_at is null"
            with store.database.read() as db:
                real = db.execute(query, (each.id, kind)).fetchone()[0]
            assert store.projects.counts(each).get(kind, 0) == real
            assert store.runs.page(each, kind, query=None, sort=None, limit=1, offset=0)[0] == real


# -- changed -----------------------------------------------------------------------------------------------------


def test_an_update_changes_what_a_person_may_change(store: Store, make: Make) -> None:
    run = make(name="a")
    changed = store.runs.update(run, {"description": "d", "tags": ["x"]})
    assert (changed.description, changed.tags, changed.status, changed.id) == ("d", ["x"], "created", 1)
    assert changed.updated_at > run.updated_at


@pytest.mark.parametrize("column", ["status", "id", "ttl", "no_such_column"])
def test_an_update_of_another_column_is_refused(store: Store, make: Make, column: str) -> None:
    run = make(name="a")
    with pytest.raises(TypeError, match=rf"not to be set: \['{column}'\]"):
        store.runs.update(run, {"description": "d", column: 5})
    assert store.runs.by_pk(run.pk) == run


def test_a_name_of_another_run_is_refused_and_ones_own_is_fine(store: Store, make: Make) -> None:
    run, _ = make(name="a"), make(name="b")
    assert store.runs.update(run, {"name": "a"}).name == "a"
    with pytest.raises(InvalidInput, match="A job with name `b` already exists in this project"):
        store.runs.update(run, {"name": "b"})


def test_what_the_runner_records_is_no_change_of_the_run(store: Store, make: Make) -> None:
    run = make()
    recorded = store.runs.record(run, container_id="c", exit_code=3, is_valid=False)
    assert (recorded.container_id, recorded.exit_code, recorded.is_valid) == ("c", 3, False)
    assert recorded.updated_at == run.updated_at
    with pytest.raises(TypeError, match="status"):
        store.runs.record(run, status="succeeded")


def test_a_removed_run_leaves_nothing(store: Store, root: User, make: Make) -> None:
    run = make()
    store.users.new_token(root, run.pk)
    store.runs.remove(run)
    assert store.runs.by_uuid(run.uuid) is None
    for table in ("statuses", "tokens", "runs"):
        with store.database.read() as db:
            assert db.execute(f"select count(*) from {table}").fetchone()[0] == 0


def test_outputs_may_be_shared(store: Store, root: User, project: Project, make: Make) -> None:
    run = make()
    assert not store.runs.shares_outputs(run)
    again = store.runs.insert(project, root, NewRun(Kind.JOB, original=run, outputs=run.outputs))
    assert store.runs.shares_outputs(run)
    assert again.original_name == run.unique_name


# -- history -----------------------------------------------------------------------------------------------------


def test_a_transition_is_an_update_and_a_line_of_history(store: Store, make: Make) -> None:
    run = make()
    details = {"exit_code": 1}
    assert store.runs.transition(run, Status.FAILED, "why", details=details, traceback="t", recorded={"exit_code": 1})
    last = store.runs.statuses(run, limit=9, offset=1)[1][0]
    assert (last.status, last.message, last.details, last.traceback) == ("failed", "why", details, "t")
    assert store.runs.by_pk(run.pk).exit_code == 1
    assert store.runs.status_entry(run, last.uuid) == last


def test_a_transition_that_is_not_allowed_writes_nothing(store: Store, make: Make) -> None:
    run = make()
    store.runs.transition(run, Status.STOPPED)
    before = store.runs.by_pk(run.pk), history(store, run)
    assert not store.runs.transition(run, Status.SUCCEEDED, "late", recorded={"exit_code": 0})
    assert (store.runs.by_pk(run.pk), history(store, run)) == before


def test_two_threads_that_finish_a_run_are_one_winner(store: Store, make: Make) -> None:
    for _ in range(20):
        run, barrier, won = make(), threading.Barrier(2), list[str]()

        def finish(to: Status, run: Run = run, barrier: Any = barrier, won: list[str] = won) -> None:
            barrier.wait()
            if store.runs.transition(run, to):
                won.append(to)

        threads = [threading.Thread(target=finish, args=(to,)) for to in (Status.SUCCEEDED, Status.STOPPED)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [store.runs.by_pk(run.pk).status] == won
        assert [status for status, _ in history(store, run)] == ["created", *won]


def test_history_cannot_be_rewritten(store: Store, make: Make) -> None:
    run = make()
    with pytest.raises(sqlite3.IntegrityError, match="append-only"), store.database.write() as db:
        db.execute("update statuses set status = 'succeeded' where run_pk = ?", (run.pk,))
    assert history(store, run) == [("created", None)]


def test_a_note_says_the_status_again(store: Store, make: Make) -> None:
    run = make()
    store.runs.note(run, "by the way", {"a": 1})
    assert history(store, run) == [("created", None), ("created", "by the way")]


@pytest.mark.parametrize("length", [MAX_MESSAGE, MAX_MESSAGE + 1, 10_000])
def test_a_long_message_is_cut_visibly(store: Store, make: Make, length: int) -> None:
    run = make()
    store.runs.transition(run, Status.FAILED, "ü" * length)
    message = history(store, run)[-1][1] or ""
    assert len(message) == MAX_MESSAGE
    assert message.endswith("…") is (length > MAX_MESSAGE)


def test_history_comes_in_pages(store: Store, make: Make) -> None:
    run = make()
    for n in range(4):
        store.runs.note(run, str(n))
    count, rows = store.runs.statuses(run, limit=2, offset=3)
    assert (count, [row.message for row in rows]) == (5, ["2", "3"])


def test_a_line_of_another_runs_history_is_not_found(store: Store, make: Make) -> None:
    run, other = make(), make()
    entry = store.runs.statuses(other, limit=1, offset=0)[1][0]
    with pytest.raises(NotFound):
        store.runs.status_entry(run, entry.uuid)


@pytest.mark.parametrize("to", [Status.SUCCEEDED, Status.FAILED, Status.STOPPED, Status.SKIPPED])
def test_a_runs_token_dies_with_the_run(store: Store, root: User, make: Make, to: Status) -> None:
    run, other = make(), make()
    tokens = [store.users.new_token(root, each.pk) for each in (run, other)]
    own = store.users.new_token(root)
    store.runs.transition(run, Status.RUNNING)
    assert store.users.by_token(tokens[0]) is not None
    store.runs.transition(run, to)
    assert store.users.by_token(tokens[0]) is None
    assert store.users.by_token(tokens[1]) is not None
    assert store.users.by_token(own) is not None


# -- stop and delete ---------------------------------------------------------------------------------------------


def test_a_stop_is_written_once_and_for_open_runs_only(store: Store, make: Make) -> None:
    run, done = make(), make()
    store.runs.transition(done, Status.SUCCEEDED)
    store.runs.request_stop(done)
    store.runs.request_stop(run)
    first = store.runs.by_pk(run.pk).stop_requested_at
    store.runs.request_stop(run)
    assert store.runs.by_pk(run.pk).stop_requested_at == first is not None
    assert store.runs.by_pk(done.pk).stop_requested_at is None
    assert [each.pk for each in store.queue.stopping()] == [run.pk]


def test_a_deleted_run_is_stopped_first_and_removed_when_it_is_done(store: Store, make: Make) -> None:
    run = make()
    store.runs.delete(run)
    assert [each.pk for each in store.queue.stopping()] == [run.pk]
    assert store.queue.deleted() == []
    store.runs.transition(run, Status.STOPPED)
    assert store.queue.stopping() == []
    assert [each.pk for each in store.queue.deleted()] == [run.pk]


# -- hints -------------------------------------------------------------------------------------------------------


def test_every_change_is_hinted_after_it_can_be_read(store: Store, make: Make) -> None:
    seen: list[str] = []
    leave = store.subscribe(lambda pk: seen.append(store.runs.by_pk(pk).status))
    run = make()
    store.runs.transition(run, Status.RUNNING)
    store.runs.transition(run, Status.BUILDING)
    leave()
    store.runs.transition(run, Status.FAILED)
    assert seen == ["created", "running"]


# -- the key of a build ------------------------------------------------------------------------------------------


def test_the_key_of_a_build_is_its_project_its_config_and_its_commit() -> None:
    key = build_key(1, {"a": 1, "b": {"x": 1, "y": 2}}, "c")
    assert key == build_key(1, {"b": {"y": 2, "x": 1}, "a": 1}, "c")
    others = [build_key(2, {}, "c"), build_key(1, {"a": 2}, "c"), build_key(1, {}, None), build_key(1, {}, "c")]
    assert len({key, *others}) == 5


# -- how long it runs ------------------------------------------------------------------------------------------------


class Clocks:
    """The wall clock, which may be set, and the monotonic clock of the machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = datetime(2018, 8, 23, 12, tzinfo=UTC)
        self.up_s = 1000.0
        self.boot: str | None = "first"
        monkeypatch.setattr(clock, "now", lambda: clock.stamp(self.now))
        monkeypatch.setattr(clock, "uptime_s", lambda: self.up_s)
        monkeypatch.setattr(clock, "boot_id", lambda: self.boot)

    def go_on(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.up_s += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


@contextmanager
def next_daemon(settings: Settings) -> Iterator[Store]:
    """Opens the store as the next daemon does."""
    made = Store(settings.folders.database)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("jump", [timedelta(hours=5), timedelta(days=-400)])
def test_a_clock_that_is_set_ends_no_run(
    store: Store, settings: Settings, make: Make, clocks: Clocks, jump: timedelta
) -> None:
    """This holds for this daemon and for the next one."""
    run = make()
    store.runs.transition(run, Status.RUNNING)
    clocks.go_on(2.5)
    assert store.runs.seconds_since_running(run) == 2.5
    clocks.now += jump
    clocks.go_on(10)
    assert store.runs.seconds_since_running(run) == 12.5
    with next_daemon(settings) as other:
        clocks.go_on(10)
        assert other.runs.seconds_since_running(run) == 22.5


def test_since_when_a_run_is_running(store: Store, make: Make) -> None:
    """The time counts from the last restart. A removed run is not running."""
    run = make()
    assert store.runs.running_since(run) is None
    store.runs.transition(run, Status.RUNNING)
    first = store.runs.running_since(run)
    for status in (Status.WARNING, Status.RUNNING):
        store.runs.transition(run, status)
    last = store.runs.running_since(run)
    assert str(first) < str(last) == store.runs.newest_status(run).created_at
    store.runs.remove(run)
    assert store.runs.running_since(run) is None


def test_after_a_start_of_the_machine_the_history_says_how_long(
    store: Store, settings: Settings, make: Make, clocks: Clocks
) -> None:
    """Later calls use the monotonic clock again."""
    run = make()
    store.runs.transition(run, Status.RUNNING)
    assert store.runs.seconds_since_running(run) == 0.0
    clocks.now += timedelta(hours=1)
    clocks.up_s, clocks.boot = 50.0, "second"
    with next_daemon(settings) as other:
        assert other.runs.seconds_since_running(run) == 3600.0
        clocks.now += timedelta(hours=7)
        clocks.up_s += 5
        assert other.runs.seconds_since_running(run) == 3605.0


def test_a_machine_that_does_not_say_when_it_was_started_has_the_history_only(
    store: Store, make: Make, clocks: Clocks
) -> None:
    clocks.boot = None
    run = make()
    store.runs.transition(run, Status.RUNNING)
    assert store.runs.seconds_since_running(run) == 0.0
    clocks.now += timedelta(hours=1)
    assert store.runs.seconds_since_running(run) == 3600.0
    clocks.now -= timedelta(hours=2)
    assert store.runs.seconds_since_running(run) == 0.0


def test_what_never_ran_runs_for_no_time(store: Store, make: Make, clocks: Clocks) -> None:
    """Earlier calls do not change that."""
    run = make()
    assert store.runs.seconds_since_running(run) == 0.0
    clocks.go_on(100)
    store.runs.transition(run, Status.RUNNING)
    assert store.runs.seconds_since_running(run) == 0.0
    clocks.go_on(1)
    assert store.runs.seconds_since_running(run) == 1.0
