"""The queue: which runs may begin, and why the others wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylocal.planning.queue import (
    Begin,
    BehindBlockedRun,
    BuildPending,
    Decision,
    GroupLimit,
    Holder,
    NoSlot,
    Pause,
    Reason,
    Refuse,
    Retry,
    Shortage,
    Wait,
    decide,
    prerequisites,
)
from polylocal.polyaxonfile import Capacity
from polylocal.polyaxonfile.resources import ROUNDING
from polylocal.statuses import Kind, Status
from polylocal.store.rows import QueuedRun

TWO = Capacity(2, 4096.0)
BEGIN = Begin()


@dataclass(frozen=True)
class Asking:
    """A run with its resources."""

    pk: int
    resources: Mapping[str, Any] | None = None
    kind: Kind = Kind.JOB
    owner: str = "root"

    @property
    def unique_name(self) -> str:
        return f"root.p.{self.kind}s.{self.pk}"

    def holding(self, amount: float = 1.0) -> Holder:
        return Holder(self.unique_name, self.owner, amount)


def cores(requests: float, **more: float) -> dict[str, Any]:
    return {"cpu": {"requests": requests, **more}}


def memory(requests: float) -> dict[str, Any]:
    return {"memory": {"requests": requests}}


def fits(wanted: Any, others: Sequence[Any], machine: Capacity) -> bool:
    running = [Asking(pk, resources) for pk, resources in enumerate(others, 1)]
    return decide([Asking(0, wanted)], running, machine, len(running) + 1) == [BEGIN]


def test_runs_fit_beside_each_other_by_what_is_reserved() -> None:
    half = cores(0.5, limits=2)
    assert fits(half, [half, half, half], TWO)
    assert not fits(half, [half, half, half, half], TWO)
    tenth = cores(0.1)
    assert fits(tenth, [tenth] * 19, TWO)
    assert not fits(tenth, [tenth] * 20, TWO)
    assert fits(None, [{"cpu": {"limits": 2}}], TWO)
    assert not fits(memory(3000), [memory(3000)], TWO)


# -- why a run waits --------------------------------------------------------------------------------------------------


def test_runs_begin_in_order_until_no_slot_is_free() -> None:
    running, *waiting = map(Asking, range(4))
    holders = (running.holding(), waiting[0].holding())
    assert decide(waiting, [running], TWO, 2) == [
        BEGIN,
        Wait(NoSlot(0, 2, holders)),
        Wait(NoSlot(1, 2, holders)),
    ]


def test_a_run_that_does_not_fit_yet_holds_back_those_behind_it() -> None:
    running, large, small, last = Asking(1, memory(3000)), Asking(2, memory(2000)), Asking(3, memory(10)), Asking(4)
    shortage = Shortage("memory", 2000, 4096, (running.holding(3000),))
    assert shortage.free == 1096
    first = large.holding(2000)
    assert decide([large, small, last], [running], TWO, 3) == [
        Wait(shortage),
        Wait(BehindBlockedRun(1, first, shortage)),
        Wait(BehindBlockedRun(2, first, shortage)),
    ]


def test_cores_that_are_promised_in_this_decision_are_not_free() -> None:
    first, second = Asking(1, cores(1.5)), Asking(2, cores(1))
    assert decide([first, second], [], TWO, 2) == [BEGIN, Wait(Shortage("cpu", 1, 2, (first.holding(1.5),)))]


@pytest.mark.parametrize("kind", [Kind.NOTEBOOK, Kind.TENSORBOARD])
def test_a_server_takes_no_slot_and_waits_for_resources_alone(kind: Kind) -> None:
    running = Asking(1, cores(1.5))
    server, large, job = Asking(2, None, kind), Asking(3, cores(1), kind), Asking(4)
    answers = decide([server, large, job], [running], TWO, 1)
    assert answers[:2] == [BEGIN, Wait(Shortage("cpu", 1, 2, (running.holding(1.5),)))]
    assert answers[2] == Wait(NoSlot(0, 1, (running.holding(),)))
    assert decide([large, job], [running], TWO, 2)[1] == BEGIN  # a server holds nothing back


def test_a_server_is_served_before_the_queue() -> None:
    job, server = Asking(1, cores(1.5)), Asking(2, cores(1), Kind.NOTEBOOK)
    assert decide([job, server], [], TWO, 2) == [Wait(Shortage("cpu", 1.5, 2, (server.holding(1),))), BEGIN]


def test_a_run_that_awaits_something_blocks_no_other_run() -> None:
    one, two, three = map(Asking, (1, 2, 3))
    reasons: dict[int, Reason] = {1: BuildPending("root.p.builds.1"), 2: Retry(2.0)}
    assert decide([one, two, three], [], TWO, 1, prerequisites=reasons) == [Wait(reasons[1]), Wait(reasons[2]), BEGIN]


def test_nothing_begins_in_a_pause() -> None:
    pause = Pause("disk", "The disk is full.")
    assert decide([Asking(1), Asking(2, None, Kind.NOTEBOOK)], [], TWO, 2, pause=pause) == [Wait(pause)] * 2


def test_impossible_requests_are_refused_and_block_no_other_run() -> None:
    refused, begun = decide([Asking(1, cores(3)), Asking(2)], [], TWO, 1)
    assert isinstance(refused, Refuse)
    assert refused.message == "environment.resources.cpu.requests: The run asks for 3 cores; this machine has 2."
    assert begun == BEGIN


def test_unreadable_resources_are_refused_and_block_no_other_run() -> None:
    broken = {"cpu": {"requests": "lots"}}
    [refused, begun] = decide([Asking(1, broken), Asking(2, cores(2))], [Asking(3, broken)], TWO, 2)
    assert isinstance(refused, Refuse)
    assert "can't read them" in refused.message
    assert begun == BEGIN


def test_builds_and_groups_ask_for_nothing() -> None:
    build, group = Asking(1, cores(99), Kind.BUILD), Asking(2, None, Kind.GROUP)
    assert decide([build, group], [], TWO, 1) == [BEGIN, BEGIN]
    assert (Kind.BUILD.takes_slot, Kind.GROUP.takes_slot) == (True, False)


def test_an_unknown_machine_limits_nothing() -> None:
    assert decide([Asking(1, cores(99))], [], None, 1) == [BEGIN]


def test_a_machine_that_has_become_smaller_has_less_than_nothing_free() -> None:
    running = Asking(1, cores(3))
    assert decide([Asking(2)], [running], TWO, 2) == [BEGIN]
    [answer] = decide([Asking(2, cores(1))], [running], TWO, 2)
    assert isinstance(answer, Wait)
    assert isinstance(answer.reason, Shortage)
    assert answer.reason.free == -1


# -- before the queue -------------------------------------------------------------------------------------------------


def queued(pk: int, **about: Any) -> QueuedRun:
    blank = {
        "group_id": None,
        "build_id": None,
        "build_status": None,
        "resources": None,
        "is_held": False,
        "concurrency": None,
        "released": 0,
    }
    return QueuedRun(pk=pk, kind=Kind.EXPERIMENT, id=pk, owner="root", project_name="p", **{**blank, **about})


def test_what_a_run_waits_for_before_it_joins_the_queue() -> None:
    held = queued(1, group_id=7, is_held=True, concurrency=2, released=2, build_id=3, build_status=Status.CREATED)
    building = queued(2, build_id=3, build_status=Status.BUILDING)
    built, unresolved, delayed = queued(3, build_id=3, build_status=Status.SUCCEEDED), queued(4), queued(5)
    assert prerequisites([held, building, built, unresolved, delayed], {2: 1.0, 5: 1.5}) == {
        1: GroupLimit("root.p.7", 2, 2),
        2: BuildPending("root.p.builds.3"),
        5: Retry(1.5),
    }


# -- properties -------------------------------------------------------------------------------------------------------

_AMOUNTS = st.none() | st.sampled_from([0, 0.1, 0.5, 1, 2, 3.5, 99])
_RESOURCES = st.none() | st.builds(
    lambda cpu, mib: {
        "cpu": None if cpu is None else {"requests": cpu},
        "memory": None if mib is None else {"requests": mib * 100},
    },
    _AMOUNTS,
    _AMOUNTS,
)
_KINDS = st.sampled_from([Kind.JOB, Kind.EXPERIMENT, Kind.BUILD, Kind.PACKAGE, Kind.NOTEBOOK, Kind.TENSORBOARD])
_RUNS = st.lists(st.tuples(_RESOURCES, _KINDS), max_size=8)


@dataclass(frozen=True)
class Scene:
    waiting: list[Asking]
    active: list[Asking]
    machine: Capacity
    slots: int
    prerequisites: dict[int, Reason]

    @property
    def decisions(self) -> list[Decision]:
        return decide(self.waiting, self.active, self.machine, self.slots, prerequisites=self.prerequisites)

    @property
    def begun(self) -> list[Asking]:
        return [run for run, answer in zip(self.waiting, self.decisions, strict=True) if answer == BEGIN]


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    pks = count(1)
    waiting, active = ([Asking(next(pks), *about) for about in draw(_RUNS)] for _ in range(2))
    machine = Capacity(draw(st.sampled_from([0.5, 2, 4])), draw(st.sampled_from([100.0, 400.0])))
    away = draw(st.sets(st.sampled_from([run.pk for run in waiting]))) if waiting else set[int]()
    return Scene(waiting, active, machine, draw(st.integers(0, 4)), {pk: Retry(1.0) for pk in away})


def amount(run: Asking, resource: str) -> float:
    of = (run.resources or {}).get(resource) or {}
    return 0.0 if run.kind is Kind.BUILD else float(of.get("requests") or 0.0)


def held(runs: Sequence[Asking], resource: str) -> float:
    return sum(amount(run, resource) for run in runs)


@given(scenes())
def test_every_run_gets_one_answer_and_reasons_before_the_queue_stay(scene: Scene) -> None:
    assert len(scene.decisions) == len(scene.waiting)
    for run, answer in zip(scene.waiting, scene.decisions, strict=True):
        assert isinstance(answer, Begin | Wait | Refuse)
        assert (answer == Wait(Retry(1.0))) == (run.pk in scene.prerequisites)


@given(scenes())
def test_never_more_begin_than_slots_are_free(scene: Scene) -> None:
    taken = sum(run.kind.takes_slot for run in scene.active)
    begun = sum(run.kind.takes_slot for run in scene.begun)
    assert begun <= max(0, scene.slots - taken)


@given(scenes())
def test_running_runs_never_exceed_the_machine(scene: Scene) -> None:
    for resource in ("cpu", "memory"):
        begun = held(scene.begun, resource)
        if begun:
            total = scene.machine.amount(resource) or 0.0
            assert begun + held(scene.active, resource) <= total + ROUNDING


@given(scenes())
def test_no_run_overtakes_a_run_that_waits_its_turn(scene: Scene) -> None:
    in_line = [
        answer
        for run, answer in zip(scene.waiting, scene.decisions, strict=True)
        if run.kind.takes_slot and run.pk not in scene.prerequisites and not isinstance(answer, Refuse)
    ]
    first = next((n for n, answer in enumerate(in_line) if answer != BEGIN), len(in_line))
    assert all(answer == BEGIN for answer in in_line[:first])
    assert BEGIN not in in_line[first:]


@given(scenes())
def test_the_facts_of_a_reason_add_up(scene: Scene) -> None:
    ahead, holding = 0, {run.unique_name: run for run in (*scene.active, *scene.begun)}
    first: tuple[Holder, Shortage] | None = None
    for run, answer in zip(scene.waiting, scene.decisions, strict=True):
        reason = answer.reason if isinstance(answer, Wait) else None
        if isinstance(reason, Shortage):
            assert reason.wanted == amount(run, reason.resource) > reason.free + ROUNDING
            assert reason.total == scene.machine.amount(reason.resource)
            assert all(amount(holding[each.name], reason.resource) == each.amount > 0 for each in reason.holders)
            assert reason.free == reason.total - sum(each.amount for each in reason.holders)
        elif isinstance(reason, NoSlot):
            assert (reason.ahead, reason.slots) == (ahead, scene.slots)
            assert len(reason.holders) == len({each.name for each in reason.holders}) >= scene.slots
            assert all(holding[each.name].kind.takes_slot for each in reason.holders)
        elif isinstance(reason, BehindBlockedRun):
            assert reason.ahead == ahead > 0
            assert (reason.first, reason.shortage) == first
        if run.kind.takes_slot and isinstance(reason, Shortage):
            first = run.holding(reason.wanted), reason
        ahead += run.kind.takes_slot and isinstance(reason, Shortage | NoSlot | BehindBlockedRun)
