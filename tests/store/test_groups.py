"""Groups: creating, releasing and stopping experiments, selections, and metrics of experiments."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

Make = Callable[..., Run]


@pytest.fixture
def make(store: Store, root: User, project: Project) -> Make:
    def made(kind: Kind = Kind.GROUP, group: Run | None = None, **values: Any) -> Run:
        about = {"group_type": "study", "concurrency": 2} if kind is Kind.GROUP else {"is_held": group is not None}
        return store.runs.insert(project, root, NewRun(kind, values={**about, **values}, group=group))

    return made


def again(store: Store, run: Run) -> Run:
    return store.runs.by_pk(run.pk)


def members(store: Store, group: Run) -> list[Run]:
    return [store.runs.by_pk(member.pk) for member in store.groups.members(group)]


def suggest(store: Store, group: Run, n: int) -> bool:
    project, user = store.projects.by_id(group.project_id), store.users.get(group.user)
    new = [NewRun(Kind.EXPERIMENT, values={"is_held": True}, group=group) for _ in range(n)]
    return store.groups.suggest(group, project, user, new)


def at_once(n: int, call: Callable[[], Any]) -> list[Any]:
    """The results of a call by this many threads at the same time."""
    barrier, found = threading.Barrier(n), list[Any]()

    def run() -> None:
        barrier.wait()
        found.append(call())

    threads = [threading.Thread(target=run) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def held(store: Store, group: Run) -> list[bool]:
    return [member.is_held for member in members(store, group)]


# -- made --------------------------------------------------------------------------------------------------------


def test_suggestions_are_made_once_whoever_makes_them(store: Store, make: Make) -> None:
    group = make()
    assert sorted(at_once(6, lambda: suggest(store, group, 3))) == [False] * 5 + [True]
    assert len(members(store, group)) == again(store, group).suggested == 3


def test_what_was_made_after_the_look_is_not_made_again(store: Store, make: Make) -> None:
    stale = make()
    assert suggest(store, stale, 2)
    assert not suggest(store, stale, 2)
    assert suggest(store, again(store, stale), 2)
    assert len(members(store, stale)) == 4


@pytest.mark.parametrize("end", ["stop", "delete", "archive", "transition", "request_stop"])
def test_a_group_that_goes_makes_no_more(store: Store, make: Make, end: str) -> None:
    group = make()
    if end == "stop":
        store.groups.stop(group, pending_only=True)
    elif end == "transition":
        store.runs.transition(group, Status.FAILED)
    else:
        getattr(store.runs, end)(group)
    assert not suggest(store, group, 2)
    with store.database.read() as db:
        assert db.execute("select count(*) from runs where kind = 'experiment'").fetchone()[0] == 0


def test_a_suggestion_that_can_not_be_made_makes_none(store: Store, root: User, project: Project, make: Make) -> None:
    group = make()
    new = [NewRun(Kind.EXPERIMENT, group=group), NewRun(Kind.EXPERIMENT, group=group, build_pk=99)]
    with pytest.raises(Exception, match="build"):
        store.groups.suggest(group, project, root, new)
    assert members(store, group) == []
    assert again(store, group).suggested == 0


def test_the_folder_of_an_experiment_lies_in_that_of_its_group(project: Project, make: Make) -> None:
    group = make()
    assert group.outputs is None
    assert make(Kind.EXPERIMENT, group).outputs == f"outputs/{project.uuid}/groups/1/1"
    assert make(Kind.EXPERIMENT).outputs == f"outputs/{project.uuid}/experiments/2"
    assert make(Kind.TENSORBOARD, group).outputs == f"outputs/{project.uuid}/tensorboards/1"


def test_open_groups_are_those_that_the_runner_tends(store: Store, make: Make) -> None:
    group, _, _ = make(), make(group_type="selection"), make(is_managed=False)
    deleted, done = make(), make()
    store.runs.delete(deleted)
    store.runs.transition(done, Status.SUCCEEDED)
    assert [found.pk for found in store.groups.open_groups()] == [group.pk]


# -- let go ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3])
def test_many_threads_never_let_go_more_than_allowed(store: Store, make: Make, concurrency: int) -> None:
    group = make(concurrency=concurrency)
    suggest(store, group, 8)
    for done in range(3):
        assert sum(at_once(6, lambda: store.groups.release(group))) == (concurrency if not done else 1)
        assert held(store, group) == [False] * (concurrency + done) + [True] * (8 - concurrency - done)
        store.runs.transition(members(store, group)[done], Status.SUCCEEDED)


def test_held_ones_that_are_done_or_gone_are_not_let_go(store: Store, make: Make) -> None:
    group = make(concurrency=1)
    suggest(store, group, 4)
    first, second, third, fourth = members(store, group)
    store.runs.transition(first, Status.STOPPED)
    store.runs.delete(second)
    store.runs.archive(third)
    assert store.groups.release(group) == 1
    assert not again(store, fourth).is_held


def test_a_deleted_experiment_makes_room(store: Store, make: Make) -> None:
    group = make(concurrency=1)
    suggest(store, group, 2)
    store.groups.release(group)
    store.runs.delete(members(store, group)[0])
    assert store.groups.release(group) == 1


def test_an_archived_experiment_that_still_runs_takes_its_place(store: Store, make: Make) -> None:
    group = make(concurrency=1)
    suggest(store, group, 2)
    store.groups.release(group)
    first = members(store, group)[0]
    store.runs.transition(first, Status.RUNNING)
    store.runs.archive(first)
    assert store.groups.release(group) == 0


def test_letting_go_is_a_hint_and_nothing_to_do_is_none(store: Store, make: Make) -> None:
    group = make()
    suggest(store, group, 3)
    seen: list[int] = []
    store.subscribe(seen.append)
    assert store.groups.release(group) == 2
    assert seen == [group.pk]
    assert store.groups.release(group) == 0
    assert seen == [group.pk]


# -- stopped -----------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(store: Store, make: Make) -> tuple[Run, dict[str, Run]]:
    """A group with one experiment in each state."""
    group = make(concurrency=9)
    states = {
        "held": [],
        "let go": [],
        "building": [Status.BUILDING],
        "running": [Status.SCHEDULED, Status.RUNNING],
        "done": [Status.SUCCEEDED],
    }
    made = {}
    for name, path in states.items():
        made[name] = make(Kind.EXPERIMENT, group, is_held=name == "held")
        for status in path:
            store.runs.transition(made[name], status)
    store.runs.record(made["running"], container_id="c")
    store.runs.transition(group, Status.RUNNING)
    return group, made


def after(store: Store, members: dict[str, Run]) -> dict[str, tuple[str, bool]]:
    rows = {name: again(store, member) for name, member in members.items()}
    return {name: (row.status, row.stop_requested_at is not None) for name, row in rows.items()}


def message(store: Store, run: Run) -> str | None:
    return store.runs.statuses(run, limit=99, offset=0)[1][-1].message


def test_stopping_what_is_pending(store: Store, mixed: tuple[Run, dict[str, Run]]) -> None:
    group, members = mixed
    store.groups.stop(group, pending_only=True)
    assert after(store, members) == {
        "held": ("stopped", False),
        "let go": ("stopped", False),
        "building": ("building", False),
        "running": ("running", False),
        "done": ("succeeded", False),
    }
    assert message(store, members["held"]) == "User stopped pending experiments"
    assert (again(store, group).status, message(store, group)) == ("stopped", "User stopped experiment group")


def test_stopping_all(store: Store, mixed: tuple[Run, dict[str, Run]]) -> None:
    group, members = mixed
    store.groups.stop(group, pending_only=False)
    assert after(store, members) == {
        "held": ("stopped", False),
        "let go": ("stopped", False),
        "building": ("building", True),
        "running": ("running", True),
        "done": ("succeeded", False),
    }
    assert message(store, members["let go"]) == "User stopped experiment group"
    assert again(store, group).status == "stopped"


def test_stopping_leaves_other_groups_alone(store: Store, make: Make, mixed: tuple[Run, dict[str, Run]]) -> None:
    other = make()
    suggest(store, other, 1)
    store.groups.stop(mixed[0], pending_only=False)
    assert store.groups.counts(other) == {"created": 1}
    assert again(store, other).status == "running"


def test_a_group_that_is_done_stays_as_it_is(store: Store, make: Make) -> None:
    group = make()
    store.runs.transition(group, Status.SUCCEEDED)
    store.groups.stop(group, pending_only=False)
    assert again(store, group).status == "succeeded"


# -- selections --------------------------------------------------------------------------------------------------


def ids(store: Store, selection: Run) -> list[int]:
    project = store.projects.by_id(selection.project_id)
    page = {"query": None, "sort": "created_at", "limit": 99, "offset": 0}
    count, found = store.runs.page(project, Kind.EXPERIMENT, group=selection, **page)  # type: ignore[arg-type]
    assert count == len(found)
    return [run.id for run in found]


def test_a_selection_is_set_added_to_and_taken_from(store: Store, make: Make) -> None:
    selection = make(group_type="selection")
    runs = [make(Kind.EXPERIMENT) for _ in range(4)]
    store.groups.select(selection, runs[:2], None)
    assert ids(store, selection) == [1, 2]
    store.groups.select(selection, runs[1:3], "add")
    assert ids(store, selection) == [1, 2, 3]
    store.groups.select(selection, [runs[0], runs[3]], "remove")
    assert ids(store, selection) == [2, 3]
    store.groups.select(selection, [runs[3]], None)
    assert ids(store, selection) == [4]
    store.groups.select(selection, [], None)
    assert ids(store, selection) == []
    assert again(store, selection).updated_at > selection.updated_at


def test_an_experiment_may_be_in_several_selections_and_stays_independent(
    store: Store, project: Project, make: Make
) -> None:
    selections, run = [make(group_type="selection") for _ in range(2)], make(Kind.EXPERIMENT)
    for selection in selections:
        store.groups.select(selection, [run], "add")
    assert [ids(store, selection) for selection in selections] == [[1], [1]]
    assert again(store, run).group_pk is None
    assert store.projects.counts(project)["independent"] == 1


def test_deleting_a_selection_leaves_its_experiments(store: Store, make: Make) -> None:
    selection, run = make(group_type="selection"), make(Kind.EXPERIMENT)
    store.groups.select(selection, [run], None)
    store.runs.delete(selection)
    store.runs.remove(selection)
    assert again(store, run).deleted_at is None


def test_an_experiment_that_goes_leaves_its_selections(store: Store, make: Make) -> None:
    selection, runs = make(group_type="selection"), [make(Kind.EXPERIMENT) for _ in range(3)]
    store.groups.select(selection, runs, None)
    store.runs.delete(runs[0])
    store.runs.archive(runs[1])
    assert ids(store, selection) == [3]
    assert sum(store.groups.counts(selection).values()) == 1
    store.runs.remove(runs[0])
    store.runs.restore(again(store, runs[1]))
    assert ids(store, selection) == [2, 3]


def test_only_visible_experiments_of_the_project_can_be_selected(
    store: Store, root: User, project: Project, make: Make
) -> None:
    runs = [make(Kind.EXPERIMENT) for _ in range(3)]
    other = store.projects.create(root, {"name": "other"})
    elsewhere = store.runs.insert(other, root, NewRun(Kind.EXPERIMENT))
    make(Kind.JOB)
    store.runs.delete(runs[0])
    found = store.groups.experiments_by_id(project, [3, 1, 2, elsewhere.id, 99, 2])
    assert [run.id for run in found] == [2, 3]


# -- counted -----------------------------------------------------------------------------------------------------


def test_counts_of_a_group_and_of_a_selection(store: Store, make: Make) -> None:
    group, selection = make(), make(group_type="selection")
    ends = [Status.SUCCEEDED, Status.SUCCEEDED, Status.FAILED, Status.RUNNING, None, Status.STOPPED]
    made = [make(Kind.EXPERIMENT, group) for _ in ends]
    for member, end in zip(made, ends, strict=True):
        if end:
            store.runs.transition(member, end)
    store.runs.delete(made[-1])
    make(Kind.TENSORBOARD, group)
    make(Kind.EXPERIMENT)
    assert store.groups.counts(group) == Counter(succeeded=2, failed=1, running=1, created=1)
    store.groups.select(selection, made[:3], None)
    assert store.groups.counts(selection) == Counter(succeeded=2, failed=1)
    assert [member.pk for member in members(store, group)] == [member.pk for member in made[:-1]]


def test_independent_experiments_are_counted(store: Store, project: Project, make: Make) -> None:
    group = make()
    for _ in range(2):
        make(Kind.EXPERIMENT, group)
    make(Kind.EXPERIMENT)
    assert store.projects.counts(project) == {"group": 1, "experiment": 3, "independent": 1}


# -- metrics -----------------------------------------------------------------------------------------------------

DAY = "2018-08-2{}T00:00:00.000000+00:00"


def test_the_newest_value_of_each_metric_is_kept(store: Store, make: Make) -> None:
    run = make(Kind.EXPERIMENT)
    store.metrics.add(run, [({"loss": 2.0, "acc": 0.1}, None), ({"loss": 1.0}, None)])
    store.metrics.add(run, [({"acc": 0.5}, None)])
    assert again(store, run).last_metric == {"loss": 1.0, "acc": 0.5}
    assert again(store, run).updated_at > run.updated_at
    count, rows = store.metrics.page(run, limit=2, offset=1)
    assert (count, [row.values for row in rows]) == (3, [{"loss": 1.0}, {"acc": 0.5}])


def test_metrics_come_by_their_own_time(store: Store, make: Make) -> None:
    run = make(Kind.EXPERIMENT)
    added = store.metrics.add(run, [({"loss": 3}, DAY.format(3)), ({"loss": 1}, DAY.format(1))])
    assert [row.values["loss"] for row in added] == [3, 1]
    assert [row.values["loss"] for row in store.metrics.page(run, limit=9, offset=0)[1]] == [1, 3]


def test_metrics_of_a_group_are_those_of_its_experiments(store: Store, make: Make) -> None:
    group, selection = make(), make(group_type="selection")
    members = [make(Kind.EXPERIMENT, group) for _ in range(2)]
    alone = make(Kind.EXPERIMENT)
    for n, run in enumerate((*members, alone)):
        store.metrics.add(run, [({"loss": n}, DAY.format(n))])
    store.groups.select(selection, [members[1], alone], None)
    found = {thing.pk: store.metrics.page(thing, limit=9, offset=0) for thing in (group, selection)}
    assert [row.experiment for row in found[group.pk][1]] == [1, 2]
    assert [row.values["loss"] for row in found[selection.pk][1]] == [1, 2]
    assert found[group.pk][0] == found[selection.pk][0] == 2


def test_what_a_deleted_experiment_measured_is_out_of_sight(store: Store, make: Make) -> None:
    group = make()
    members = [make(Kind.EXPERIMENT, group) for _ in range(3)]
    for run in members:
        store.metrics.add(run, [({"loss": 1}, None)])
    store.runs.delete(members[0])
    store.runs.archive(members[1])
    assert [row.experiment for row in store.metrics.page(group, limit=9, offset=0)[1]] == [3]


@pytest.mark.parametrize(
    ("maximize", "value", "told", "expected"),
    [
        (True, 0.9, [{"accuracy": 0.89}], False),
        (True, 0.9, [{"accuracy": 0.1}, {"accuracy": 0.9}], True),
        (False, 0.1, [{"accuracy": 0.11}], False),
        (False, 0.1, [{"accuracy": 5.0, "loss": 1.0}, {"accuracy": -3.0}], True),
        (True, 0.0, [{"accuracy": 0.0}], True),
        (True, 0.0, [{"loss": 1.0}], False),
        (True, 0.0, [], False),
    ],
)
def test_whether_a_value_was_reached(
    store: Store,
    project: Project,
    root: User,
    maximize: bool,
    value: float,
    told: list[dict[str, float]],
    expected: bool,
) -> None:
    values = {"group_type": "study", "concurrency": 1}
    group = store.runs.insert(project, root, NewRun(Kind.GROUP, values=values))
    for metrics in told:
        member = store.runs.insert(project, root, NewRun(Kind.EXPERIMENT, group=group))
        store.metrics.add(member, [(metrics, None)])
    assert store.groups.has_reached(group, "accuracy", value, maximize=maximize) is expected
