"""Groups on the fake engine: their experiments, concurrency, ends, stops and crashes."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from support import count_ahead

from polylocal.runner import groups
from polylocal.runner.groups import Groups
from polylocal.statuses import Status, is_done

GRID = {"matrix": {"lr": {"values": [0.1, 0.2]}, "units": {"values": [1, 2, 3]}}}


def grid(n: int, **more: Any) -> dict[str, Any]:
    return {"matrix": {"n": {"range": [0, n, 1]}}, **more}


def params(rig, group) -> list[Any]:
    return [member.params for member in rig.members(group)]


def done(rig, *runs) -> bool:
    return all(is_done(rig.again(run).status) for run in runs)


def statuses(rig, group) -> list[str]:
    return [member.status for member in rig.members(group)]


def tended(rig, group, times: int = 1):
    """Advance a group by new daemons, one for each step."""
    for _ in range(times):
        rig.tend(rig.again(group))
    return rig.again(group)


def begun(rig, group) -> list[Any]:
    return [member for member in rig.members(group) if not member.is_held]


def most_at_once(rig, members) -> int:
    """The largest number of experiments that ran at the same moment, by their histories."""
    moments = []
    for member in members:
        rows = rig.store.runs.statuses(member, limit=100, offset=0)[1]
        first = next((row.created_at for row in rows if row.status != "created"), None)
        if first:
            moments += [(first, 1), (rows[-1].created_at, -1)]
    most = now = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


# -- grid --------------------------------------------------------------------------------------------------------


def test_a_grid_is_made_once_in_the_order_of_the_matrix_and_succeeds(rig, supervise):
    group = rig.group({**GRID, "concurrency": 2}, "echo {{ lr }} {{ units }}")
    supervise(lambda: done(rig, group), max_runs=4)
    members = rig.members(group)
    wanted = [{"lr": lr, "units": units} for lr, units in product([0.1, 0.2], [1, 2, 3])]
    assert [member.params for member in members] == wanted
    assert {member.status for member in members} == {"succeeded"}
    assert [rig.log(member) for member in members] == [f"{p['lr']} {p['units']}\n".encode() for p in wanted]
    assert rig.history(group) == ["created", "running", "succeeded"]
    assert rig.message(group) == "All experiments are done: 6 succeeded"
    assert rig.again(group).container_id is None


def test_a_group_is_built_once(rig, supervise):
    group = rig.group(grid(5, concurrency=5))
    supervise(lambda: done(rig, group), max_runs=5)
    assert rig.engine.builds == 1
    assert len({member.build_pk for member in rig.members(group)}) == 1


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_than_its_concurrency_at_any_moment(rig, supervise, concurrency):
    group = rig.group(grid(8, concurrency=concurrency), "sleep 0.1")
    seen = []

    def watch():
        members = rig.members(group)
        seen.append(sum(not member.is_held and not is_done(member.status) for member in members))
        return done(rig, group)

    supervise(watch, max_runs=6)
    assert max(seen) == concurrency
    assert most_at_once(rig, rig.members(group)) <= concurrency
    assert statuses(rig, group) == ["succeeded"] * 8


def test_held_ones_start_in_order_when_others_end(rig):
    group = tended(rig, rig.group(grid(4, concurrency=2)), 3)
    members = rig.members(group)
    assert [member.is_held for member in members] == [False, False, True, True]
    tended(rig, group, 3)
    assert len(begun(rig, group)) == 2
    rig.store.runs.transition(members[1], Status.SUCCEEDED)
    tended(rig, group)
    assert [member.is_held for member in rig.members(group)] == [False, False, False, True]


def test_a_held_experiment_takes_no_build_and_no_place_in_the_queue(rig):
    group = tended(rig, rig.group(grid(3)), 3)
    waiting = [run.pk for run in rig.store.queue.unresolved(10)]
    assert waiting == [begun(rig, group)[0].pk]
    job = rig.submit()
    assert count_ahead(rig.store, job) == 1


def test_a_grid_is_cut_at_n_experiments(rig):
    group = tended(rig, rig.group(grid(9, grid_search={"n_experiments": 4})), 2)
    assert params(rig, group) == [{"n": n} for n in range(4)]


def test_groups_do_not_wait_for_each_other(rig, supervise):
    slow, quick = rig.group(grid(2), "sleep 60"), rig.group(grid(2))
    supervise(lambda: done(rig, quick), max_runs=3)
    assert statuses(rig, quick) == ["succeeded"] * 2
    assert rig.again(slow).status == "running"


def test_what_the_group_says_holds_for_its_experiments(rig):
    more = {"environment": {"resources": {"memory": {"limits": 64}}}, "framework": "tensorflow", "tags": ["a"]}
    group = rig.group(grid(1), name="search", description="all of them", **more)
    rig.store.runs.update(group, {"tags": ["a"], "framework": "tensorflow"})
    member = rig.members(tended(rig, group))[0]
    assert member.resources == {"memory": {"limits": 64}}
    assert (member.framework, member.tags, member.name, member.description) == ("tensorflow", ["a"], None, None)
    assert (member.group_id, member.unique_name) == (group.id, f"root.quick-start.{group.id}.{member.id}")
    assert member.outputs == f"outputs/{rig.project.uuid}/groups/{group.id}/{member.id}"


def test_the_params_of_the_group_are_those_of_its_experiments_too(rig):
    group = tended(rig, rig.group(grid(2), params={"n": 7, "optimizer": "adam"}))
    assert params(rig, group) == [{"n": 0, "optimizer": "adam"}, {"n": 1, "optimizer": "adam"}]


# -- random ------------------------------------------------------------------------------------------------------

UNIFORM = {"matrix": {"lr": {"uniform": [0, 1]}, "n": {"values": [1, 2]}}}


def test_random_experiments_of_a_seed_are_the_same_whenever_they_are_made(rig, monkeypatch):
    search = {**UNIFORM, "random_search": {"n_experiments": 12}, "seed": 7}
    whole = tended(rig, rig.group(search), 2)
    monkeypatch.setattr(groups, "CHUNK", 5)
    pieces = tended(rig, rig.group(search), 4)
    assert params(rig, pieces) == params(rig, whole)
    assert len({str(one) for one in params(rig, whole)}) == 12


def test_without_a_seed_every_group_draws_its_own(rig):
    first, second = (tended(rig, rig.group({**UNIFORM, "random_search": {"n_experiments": 5}})) for _ in range(2))
    assert params(rig, first) != params(rig, second)


def test_a_random_search_stops_at_the_size_of_its_space(rig, supervise):
    group = rig.group({**grid(3, concurrency=3), "random_search": {"n_experiments": 20}})
    supervise(lambda: done(rig, group), max_runs=4)
    assert sorted(one["n"] for one in params(rig, group)) == [0, 1, 2]
    assert rig.again(group).status == "succeeded"


# -- chunks ------------------------------------------------------------------------------------------------------


def test_many_experiments_come_in_chunks_with_a_daemon_for_each(rig):
    group = rig.group(grid(120))
    counts = []
    for _ in range(5):
        Groups(rig.context(), lambda: None).advance_all()
        counts.append(len(rig.members(group)))
    assert counts == [50, 100, 120, 120, 120]
    assert params(rig, group) == [{"n": n} for n in range(120)]
    assert len(begun(rig, group)) == 1


def test_two_daemons_at_once_make_nothing_twice(rig):
    group = rig.group(grid(60))
    stale = rig.again(group)
    for _ in range(2):
        rig.tend(stale)
    assert len(rig.members(group)) == 50
    tended(rig, group, 3)
    assert params(rig, group) == [{"n": n} for n in range(60)]


# -- stopped -----------------------------------------------------------------------------------------------------


def test_stopping_a_group_stops_all_of_it(rig, supervise):
    group = rig.group(grid(4, concurrency=2), "sleep 60")
    supervise(lambda: statuses(rig, group).count("running") == 2, max_runs=4)
    rig.store.groups.stop(rig.again(group), pending_only=False)
    assert rig.again(group).status == "stopped"
    supervise(lambda: done(rig, *rig.members(group)))
    assert statuses(rig, group) == ["stopped"] * 4
    assert rig.message(group) == "User stopped experiment group"
    held = rig.members(group)[-1]
    assert (rig.history(held), rig.message(held)) == (["created", "stopped"], "User stopped experiment group")
    assert not [c for c in rig.engine.made.values() if c.status == "running"]


def test_stopping_what_is_pending_lets_the_rest_go_on(rig):
    group = tended(rig, rig.group(grid(4, concurrency=2)), 3)
    running = begun(rig, group)
    for member in running:
        rig.store.runs.transition(member, Status.RUNNING)
    rig.store.groups.stop(group, pending_only=True)
    assert statuses(rig, group) == ["running", "running", "stopped", "stopped"]
    assert rig.message(rig.members(group)[-1]) == "User stopped pending experiments"
    assert rig.store.queue.stopping() == []
    assert rig.again(group).status == "stopped"
    for member in running:
        assert rig.store.runs.transition(member, Status.SUCCEEDED)
    assert rig.history(tended(rig, group)) == ["created", "running", "stopped"]


def test_a_stopped_group_makes_and_releases_nothing_more(rig):
    group = tended(rig, rig.group(grid(60)))
    rig.store.groups.stop(group, pending_only=False)
    tended(rig, group, 2)
    Groups(rig.context(), lambda: None).advance_all()
    assert len(rig.members(group)) == 50
    assert set(statuses(rig, group)) == {"stopped"}


def test_a_look_that_was_under_way_when_the_group_was_stopped_makes_nothing(rig):
    stale = rig.group(grid(3))
    rig.store.groups.stop(stale, pending_only=False)
    rig.tend(stale)
    assert rig.members(stale) == []
    assert rig.again(stale).status == "stopped"


@pytest.mark.parametrize("how", ["delete", "archive"])
def test_a_look_that_was_under_way_when_the_group_went_leaves_no_experiment_behind(rig, supervise, how):
    stale, other = rig.group(grid(3)), rig.submit()
    getattr(rig.store.runs, how)(stale)
    rig.tend(stale)
    supervise(lambda: done(rig, other) and (how == "archive" or rig.store.runs.by_uuid(stale.uuid) is None))
    kinds = rig.store.projects.counts(rig.project)
    assert kinds.get("experiment", 0) == 0


def test_one_stopped_experiment_makes_room_and_does_not_end_the_group(rig, supervise):
    group = rig.group(grid(3), "sleep 0.05")
    supervise(lambda: rig.members(group))
    rig.store.runs.request_stop(rig.members(group)[2])
    supervise(lambda: done(rig, group))
    assert statuses(rig, group) == ["succeeded", "succeeded", "stopped"]
    assert rig.message(group) == "All experiments are done: 1 stopped, 2 succeeded"


# -- what goes wrong ---------------------------------------------------------------------------------------------


def test_experiments_that_fail_do_not_fail_the_group(rig, supervise):
    group = rig.group(grid(3, concurrency=2), "exit {{ n }}")
    supervise(lambda: done(rig, group), max_runs=3)
    assert statuses(rig, group) == ["succeeded", "failed", "failed"]
    assert [member.exit_code for member in rig.members(group)] == [0, 1, 2]
    assert rig.history(group) == ["created", "running", "succeeded"]


def test_a_build_that_fails_ends_the_experiments_and_the_group(rig, supervise):
    build = {"image": "base", "build_steps": ["exit 3"]}
    group = rig.group(grid(3), build=build)
    supervise(lambda: done(rig, group), max_runs=3)
    assert statuses(rig, group) == ["failed"] * 3
    last = rig.store.runs.newest_status(group)
    assert (last.status, last.message) == ("failed", "All 3 experiments failed: 3 failed")
    build = rig.store.runs.by_pk(rig.members(group)[0].build_pk or 0)
    assert last.details == {"reason": "build", "experiments": 3, "failed": 3, "build_job": build.unique_name}
    assert {rig.message(member) for member in rig.members(group)} == {"Build failed"}
    assert rig.engine.builds == 1


def test_a_space_that_gives_nothing_fails_with_the_reason(rig):
    group = rig.group({"matrix": {"lr": {"loguniform": [1000, 2000]}}, "random_search": {"n_experiments": 3}})
    tended(rig, group)
    assert rig.history(group) == ["created", "failed"]
    assert (rig.message(group) or "").startswith("Experiment group could not create new suggestions")


TOO_MUCH = {"matrix": {"cores": {"values": [1, 2, "lots"]}}}
ASKS = {"environment": {"resources": {"cpu": {"limits": "{{ cores }}"}}}}


def test_an_experiment_that_can_not_be_made_fails_the_group_with_the_reason(rig):
    group = tended(rig, rig.group(TOO_MUCH, **ASKS))
    assert group.status == "failed"
    assert "environment.resources.cpu.limits" in (rig.message(group) or "")
    assert rig.members(group) == []


def test_one_of_a_later_chunk_stops_what_waits(rig, monkeypatch):
    monkeypatch.setattr(groups, "CHUNK", 2)
    group = tended(rig, rig.group(TOO_MUCH, **ASKS))
    assert [member.resources for member in rig.members(group)] == [{"cpu": {"limits": n}} for n in (1, 2)]
    group = tended(rig, group)
    assert group.status == "failed"
    assert statuses(rig, group) == ["stopped", "stopped"]


@pytest.mark.parametrize("how", ["failed", "deleted"])
def test_a_group_whose_build_is_no_good_holds_up_nobody_else(rig, supervise, how):
    """`build: {ref: N}`: the build is resolved when the group is created, and checked again later."""
    job = rig.built(rig.submit("true"))
    build = rig.store.runs.by_pk(job.build_pk or 0)
    group, other = rig.group(grid(2)), rig.submit("echo other")
    rig.store.runs._set(group.pk, {"build_pk": build.pk})
    if how == "failed":
        rig.store.runs._set(build.pk, {"status": "failed"})
    else:
        rig.store.runs.delete(build)
        rig.store.runs._set(group.pk, {"build_pk": build.pk})
    supervise(lambda: done(rig, group, other), max_runs=3)
    assert rig.again(group).status == "failed"
    assert rig.again(other).status == "succeeded"


# -- deleted -----------------------------------------------------------------------------------------------------


def test_deleting_a_group_removes_its_experiments_with_their_outputs(rig, supervise):
    group = rig.group(grid(3, concurrency=2), "echo x; sleep 60")
    supervise(lambda: statuses(rig, group).count("running") == 2, max_runs=4)
    members = rig.members(group)
    folder = rig.settings.home / f"outputs/{rig.project.uuid}/groups/{group.id}"
    assert len(list(folder.iterdir())) == 2
    rig.store.runs.delete(group)
    assert rig.store.projects.counts(rig.project)["experiment"] == 0
    supervise(lambda: all(rig.store.runs.by_uuid(run.uuid) is None for run in (group, *members)))
    assert not folder.exists()
    assert not any(rig.log_path(member).exists() for member in members)
    assert not rig.engine.made


def test_a_group_without_experiments_is_deleted_too(rig, supervise):
    group = rig.group(grid(3))
    rig.store.runs.delete(group)
    supervise(lambda: rig.store.runs.by_uuid(group.uuid) is None)


def test_an_experiment_that_is_deleted_meanwhile_is_not_waited_for(rig, supervise):
    group = rig.group(grid(3), "sleep 0.05")
    supervise(lambda: len(rig.members(group)) == 3)
    gone = rig.members(group)[1]
    rig.store.runs.delete(gone)
    supervise(lambda: done(rig, group) and rig.store.runs.by_uuid(gone.uuid) is None)
    assert [one["n"] for one in params(rig, group)] == [0, 2]
    assert rig.message(group) == "All experiments are done: 2 succeeded"


def test_a_group_whose_experiments_are_all_deleted_ends(rig, supervise):
    group = tended(rig, rig.group(grid(2)), 2)
    for member in rig.members(group):
        rig.store.runs.delete(member)
    supervise(lambda: done(rig, group))
    assert rig.message(group) == "All experiments are done: none is left"


def test_an_archived_group_ends_with_its_experiments_and_comes_back_stopped(rig, supervise):
    group = rig.group(grid(3), "sleep 60")
    supervise(lambda: "running" in statuses(rig, group))
    members = rig.members(group)
    rig.store.runs.archive(group)
    assert rig.members(group) == []
    supervise(lambda: done(rig, group, *members))
    assert {rig.again(run).status for run in (group, *members)} == {"stopped"}
    rig.store.runs.restore(rig.again(group))
    assert statuses(rig, group) == ["stopped"] * 3


# -- others' groups ----------------------------------------------------------------------------------------------


def test_selections_and_groups_of_clients_are_left_alone(rig):
    selection = rig.group(grid(2))
    rig.store.runs._set(selection.pk, {"group_type": "selection"})
    tracked = rig.group(grid(2))
    rig.store.runs._set(tracked.pk, {"is_managed": 0})
    Groups(rig.context(), lambda: None).advance_all()
    assert rig.members(selection) == rig.members(tracked) == []
    assert rig.again(selection).status == rig.again(tracked).status == "created"


# -- names, tags and inputs of experiments -------------------------------------------------------------------------


def test_each_experiment_has_its_own_name_and_tags(rig) -> None:
    group = rig.group(
        {"matrix": {"lr": {"values": [0.1, 0.2]}}}, "x {{ lr }}", name="m-{{ lr }}", tags=["lr={{ lr }}", "all"]
    )
    tended(rig, group)
    assert [(member.name, member.tags) for member in rig.members(group)] == [
        ("m-0.1", ["lr=0.1", "all"]),
        ("m-0.2", ["lr=0.2", "all"]),
    ]


def test_names_that_are_alike_are_numbered(rig) -> None:
    group = rig.group({"matrix": {"lr": {"values": [1, 2, 3]}}}, name="m-{{ 7 }}")
    tended(rig, group)
    assert [member.name for member in rig.members(group)] == ["m-7", "m-7-1", "m-7-2"]


def test_defaults_of_inputs_are_params_of_each_experiment(rig) -> None:
    port = {"name": "bs", "type": "int", "is_optional": True, "default": 8}
    group = rig.group({"matrix": {"lr": {"values": [1]}}}, "x {{ bs }}", inputs=[port])
    tended(rig, group)
    assert params(rig, group) == [{"lr": 1, "bs": 8}]
