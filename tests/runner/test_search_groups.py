"""Groups that learn from results: their suggestions and ends, also after crashes."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import eventually, job

from polylocal import clock
from polylocal.engine.plan import RUN_LABEL
from polylocal.polyaxonfile import HPTuning, parse
from polylocal.runner import bayes, container_operation
from polylocal.runner.groups import BUDGET_USED, EARLY_STOPPING, Groups
from polylocal.runner.search import Params, Trial
from polylocal.runner.supervisor import Supervisor
from polylocal.settings import load
from polylocal.statuses import Kind, Status, is_done
from polylocal.store import NewRun, Store
from polylocal.store.groups import ExperimentSummary
from polylocal.store.rows import Run

from .conftest import Rig

Goal = Callable[[Params], float | None]
Shown = list[tuple[int, Params, str, dict[str, float]]]

SPACE = {"lr": {"uniform": "0:1"}, "act": {"values": ["relu", "tanh"]}}
METRIC = {"name": "score", "optimization": "maximize"}
HYPERBAND = {
    "matrix": SPACE,
    "seed": 7,
    "concurrency": 3,
    "hyperband": {"max_iter": 9, "eta": 3, "resource": {"name": "epochs", "type": "int"}, "metric": METRIC},
}
BO = {
    "matrix": SPACE,
    "seed": 7,
    "concurrency": 2,
    "bo": {"n_initial_trials": 3, "n_iterations": 4, "metric": METRIC},
}
RANDOM = {"matrix": SPACE, "seed": 7, "concurrency": 2, "random_search": {"n_experiments": 8}}
SIZES = {"hyperband": [9, 3, 1, 5, 1, 3], "bo": [3, 1, 1, 1, 1]}


def goal(params: Params) -> float:
    """A value that is best near 0.7, and better with more epochs."""
    return -abs(params["lr"] - 0.7) + (0.1 if params["act"] == "tanh" else 0) + params.get("epochs", 0) / 100


def moody(params: Params) -> float | None:
    """As `goal`, but a third of the trials fail."""
    return None if params["lr"] * 3 % 1 < 0.34 else goal(params)


def submit(rig: Rig, hptuning: dict[str, Any], cmd: str = "true", **sections: Any) -> Run:
    specification = parse(job(cmd, "base", **{"kind": "group", "hptuning": hptuning, **sections}), Kind.GROUP)
    tuning = specification.hptuning
    about = {"group_type": "study", "concurrency": tuning.concurrency, "search_algorithm": tuning.algorithm}
    new = NewRun(Kind.GROUP, specification.content, specification.config, about)
    return rig.store.runs.insert(rig.project, rig.user, new)


def members(rig: Rig, group: Run) -> list[ExperimentSummary]:
    return rig.store.groups.members(group)


def shown(rig: Rig, group: Run) -> Shown:
    """All results of a group, in the order of creation."""
    return [(each.iteration, each.params, each.status, each.last_metric) for each in members(rig, group)]


def sizes(rig: Rig, group: Run) -> list[int]:
    found = Counter(each.iteration for each in members(rig, group))
    return [found[number] for number in sorted(found)]


def agrees(rig: Rig, group: Run) -> None:
    """Check the counts of a group against its experiments."""
    group, found = rig.again(group), members(rig, group)
    assert group.suggested == sum(each.iteration == group.iteration for each in found)
    assert {each.iteration for each in found} <= set(range(group.iteration + 1))
    # two looks: where threads are at work they may see one experiment at two moments
    eventually(lambda: rig.store.groups.counts(group) == Counter(each.status for each in members(rig, group)))
    under_way = [each for each in found if not each.is_held and not is_done(each.status)]
    assert len(under_way) <= (group.concurrency or 1)
    # an iteration begins when the one before it is done, every experiment of it
    assert all(is_done(each.status) for each in found if each.iteration < group.iteration)


# -- a world without threads: experiments are played by hand ----------------------------------------------------------


def look(groups: Groups) -> None:
    """Advance groups by one step, and by another one after a computation."""
    groups.advance_all()
    for _, thought in list(groups._computed.values()):
        thought.exception(60)


def play(rig: Rig, group: Run, goal: Goal) -> int:
    """End the released experiments, the newest first. Returns their number."""
    free = [each for each in members(rig, group) if not each.is_held and not is_done(each.status)]
    for each in reversed(free):
        run, value = rig.store.runs.by_pk(each.pk), goal(each.params)
        rig.store.runs.transition(run, Status.RUNNING)
        if value is not None:
            rig.store.metrics.add(run, [({"score": value}, None)])
        rig.store.runs.transition(run, Status.FAILED if value is None else Status.SUCCEEDED)
    return len(free)


def whole(rig: Rig, group: Run, goal: Goal = goal) -> Run:
    """Run a group from its start to its end with one daemon."""
    groups = Groups(rig.context(), lambda: None)
    for _ in range(500):
        if is_done(rig.again(group).status):
            return rig.again(group)
        look(groups)
        agrees(rig, group)
        play(rig, group, goal)
        agrees(rig, group)
    raise AssertionError("the group never ends")


def quick_bayes(tuning: HPTuning, seed: str, trials: Sequence[Trial]) -> Params:
    """Suggests a point that depends on all results, like the real optimisation, but at once."""
    total = sum(trial.value or 0.5 for trial in trials) + len(trials)
    return {"lr": math.modf(abs(total) * 7.7)[0], "act": "relu"}


@pytest.fixture
def _quick_bayes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bayes.OptimizerProcess, "__call__", lambda asked, *about: quick_bayes(*about))


# -- iterations -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_quick_bayes")
@pytest.mark.parametrize(("algorithm", "tuning"), [("hyperband", HYPERBAND), ("bo", BO)])
def test_iterations_follow_each_other_to_the_end(rig: Rig, algorithm: str, tuning: dict[str, Any]) -> None:
    group = whole(rig, submit(rig, tuning))
    assert group.status == "succeeded"
    assert sizes(rig, group) == SIZES[algorithm]
    assert rig.history(group) == ["created", "running", "succeeded"]
    assert f"{sum(SIZES[algorithm])} succeeded" in (rig.message(group) or "")


def test_survivors_are_promoted_as_clones_with_more_of_the_resource(rig: Rig) -> None:
    group = whole(rig, submit(rig, HYPERBAND))
    found = members(rig, group)
    first, second = ([each for each in found if each.iteration == n] for n in (0, 1))
    best = sorted(first, key=lambda each: -each.last_metric["score"])[:3]
    assert [each.params for each in second] == [{**each.params, "epochs": 3} for each in best]
    runs = [rig.store.runs.by_pk(each.pk) for each in second]
    assert [run.original_pk for run in runs] == [each.pk for each in best]
    assert {run.cloning_strategy for run in runs} == {"restart"}
    assert len({run.outputs for run in runs} | {rig.store.runs.by_pk(each.pk).outputs for each in best}) == 6


def test_survivors_that_resume_keep_their_outputs(rig: Rig) -> None:
    group = whole(rig, submit(rig, {**HYPERBAND, "hyperband": {**HYPERBAND["hyperband"], "resume": True}}))
    for each in members(rig, group):
        run = rig.store.runs.by_pk(each.pk)
        if each.iteration in (1, 2, 4):
            origin = rig.store.runs.by_pk(run.original_pk or 0)
            assert (run.cloning_strategy, run.outputs) == ("resume", origin.outputs)
        else:
            assert run.original_pk is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_those_that_told_no_finite_value_last_are_not_promoted(rig: Rig, value: float) -> None:
    def diverged(params: Params) -> bool:
        return bool(params["lr"] * 3 % 1 < 0.5)

    group = whole(rig, submit(rig, HYPERBAND), lambda params: value if diverged(params) else goal(params))
    found = members(rig, group)
    assert group.status == "succeeded"
    assert any(diverged(each.params) for each in found if each.iteration == 0)
    assert not any(diverged(each.params) for each in found if each.iteration in (1, 2, 4))


def test_bayesian_optimisation_is_told_of_no_value_that_is_not_finite(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float | None] = []

    def answer(process: bayes.OptimizerProcess, tuning: HPTuning, seed: str, trials: Sequence[Trial]) -> Params:
        asked.extend(trial.value for trial in trials)
        return quick_bayes(tuning, seed, trials)

    monkeypatch.setattr(bayes.OptimizerProcess, "__call__", answer)
    values = iter([0.5, math.nan, math.inf, -math.inf, 0.25, 0.75, 1.0])
    assert whole(rig, submit(rig, BO), lambda params: next(values)).status == "succeeded"
    assert {value for value in asked if value is not None} <= {0.5, 0.25, 0.75, 1.0}
    assert None in asked


def test_those_that_failed_are_not_promoted(rig: Rig) -> None:
    group = whole(rig, submit(rig, HYPERBAND), moody)
    failed = {each.pk for each in members(rig, group) if each.status == "failed"}
    origins = {rig.store.runs.by_pk(each.pk).original_pk for each in members(rig, group)} - {None}
    assert failed
    assert origins
    assert not failed & origins
    assert group.status == "succeeded"


def test_one_that_told_a_metric_and_then_failed_is_not_promoted(rig: Rig) -> None:
    group = submit(rig, HYPERBAND)
    groups = Groups(rig.context(), lambda: None)
    look(groups)
    look(groups)
    liar = rig.store.runs.by_pk(members(rig, group)[0].pk)
    rig.store.runs.transition(liar, Status.RUNNING)
    rig.store.metrics.add(liar, [({"score": 99.0}, None)])
    rig.store.runs.transition(liar, Status.FAILED)
    group = whole(rig, group)
    assert all(rig.store.runs.by_pk(each.pk).original_pk != liar.pk for each in members(rig, group))


def test_a_search_in_which_everything_fails_ends(rig: Rig) -> None:
    group = whole(rig, submit(rig, HYPERBAND), lambda params: None)
    assert (group.status, rig.message(group)) == ("failed", "All 17 experiments failed: 17 failed")
    assert sizes(rig, group) == [9, 5, 3]
    assert {each.status for each in members(rig, group)} == {"failed"}


def test_two_groups_of_one_seed_try_the_same(rig: Rig) -> None:
    one, other = (whole(rig, submit(rig, HYPERBAND)) for _ in range(2))
    assert shown(rig, one) == shown(rig, other)


def test_a_missing_scikit_learn_fails_the_group_with_the_sentence(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = "bayesian optimisation needs scikit-learn: pip install 'polylocal[bo]'"

    def unable(*about: object) -> Params:
        raise bayes.SetupError(sentence)

    monkeypatch.setattr(bayes.OptimizerProcess, "__call__", unable)
    group = whole(rig, submit(rig, BO))
    assert group.status == "failed"
    assert sentence in (rig.message(group) or "")
    assert sizes(rig, group) == [3]


# -- early stopping ---------------------------------------------------------------------------------------------------


def stopped_at(value: float, optimization: str = "maximize") -> list[dict[str, Any]]:
    return [{"metric": "score", "value": value, "optimization": optimization}]


@pytest.mark.parametrize(("tuning", "value"), [(RANDOM, -0.2), (HYPERBAND, 0.03)])
def test_a_metric_that_is_good_enough_ends_the_search(rig: Rig, tuning: dict[str, Any], value: float) -> None:
    group = whole(rig, submit(rig, {**tuning, "early_stopping": stopped_at(value)}))
    assert (group.status, rig.message(group)) == ("stopped", EARLY_STOPPING)
    found = members(rig, group)
    reached = [each for each in found if each.last_metric.get("score", -9) >= value]
    stopped = [each for each in found if each.status == "stopped"]
    assert reached
    assert {rig.message(rig.store.runs.by_pk(each.pk)) for each in stopped} <= {EARLY_STOPPING}
    assert all(is_done(each.status) for each in found)
    without = whole(rig, submit(rig, tuning))
    assert len([each for each in found if each.status == "succeeded"]) < len(members(rig, without))


def test_what_runs_when_the_search_ends_may_finish(rig: Rig) -> None:
    group = submit(rig, {**RANDOM, "early_stopping": stopped_at(0.5)})
    groups = Groups(rig.context(), lambda: None)
    look(groups)
    look(groups)
    one, other = (rig.store.runs.by_pk(each.pk) for each in members(rig, group) if not each.is_held)
    for run in (one, other):
        rig.store.runs.transition(run, Status.RUNNING)
    rig.store.metrics.add(one, [({"score": 0.6}, None)])
    look(groups)
    assert rig.again(group).status == "stopped"
    assert [each.status for each in members(rig, group)] == ["running"] * 2 + ["stopped"] * 6
    assert not any(each.is_stopping for each in members(rig, group))


SERIES = {0: [0.1, 0.3], 1: [0.5, 0.7], 2: [0.4, 0.5], 3: [0.9, 0.2]}  # the tables of tests/unit/test_early_stopping.py


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"kind": "median"}, {0, 2}),
        ({"kind": "average"}, {0, 3}),
        ({"kind": "truncation", "percent": 25}, {3}),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_policies_end_the_right_experiments_at_their_interval(
    rig: Rig, policy: dict[str, Any], expected: set[int]
) -> None:
    rule = {"metric": "score", "policy": {**policy, "evaluation_interval": 2}}
    group = submit(rig, {**RANDOM, "concurrency": 4, "early_stopping": [rule]})
    groups = Groups(rig.context(), lambda: None)
    look(groups)
    look(groups)
    runs = [rig.store.runs.by_pk(each.pk) for each in members(rig, group)[:4]]
    for run in runs:
        rig.store.runs.transition(run, Status.RUNNING)
    for step, ended in ((0, set()), (1, expected)):
        for number, run in enumerate(runs):
            rig.store.metrics.add(run, [({"score": SERIES[number][step]}, None)])
        look(groups)
        found = members(rig, group)
        assert {number for number in range(8) if found[number].is_stopping} == ended
    assert rig.again(group).status == "running"
    assert not any(rig.again(run).finished_at for run in runs)  # it is their containers that are stopped


def test_one_that_a_policy_ended_is_not_promoted_and_the_search_goes_on(rig: Rig) -> None:
    rule = {"metric": "score", "policy": {"kind": "median", "evaluation_interval": 1}}
    group = submit(rig, {**HYPERBAND, "concurrency": 9, "early_stopping": [rule]})
    groups = Groups(rig.context(), lambda: None)
    look(groups)
    look(groups)
    for each in members(rig, group):
        run = rig.store.runs.by_pk(each.pk)
        rig.store.runs.transition(run, Status.RUNNING)
        rig.store.metrics.add(run, [({"score": goal(each.params)}, None)])
    look(groups)
    found = members(rig, group)
    ended = {each.pk for each in found if each.is_stopping}
    told = {each.pk: goal(each.params) for each in found}
    limits = {pk: statistics.median(value for other, value in told.items() if other != pk) for pk in told}
    assert ended == {pk for pk, value in told.items() if value < limits[pk]}
    for each in found:
        way = Status.STOPPED if each.is_stopping else Status.SUCCEEDED
        rig.store.runs.transition(rig.store.runs.by_pk(each.pk), way)
    group = whole(rig, group)
    assert group.status == "succeeded"
    assert not ended & {rig.store.runs.by_pk(each.pk).original_pk for each in members(rig, group)}


# -- budgets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 8, 9, 10, 12, 13, 22, 100])
def test_a_budget_of_experiments_is_kept(rig: Rig, most: int) -> None:
    group = whole(rig, submit(rig, {**HYPERBAND, "budget": {"n_experiments": most}}))
    plain = whole(rig, submit(rig, HYPERBAND))
    assert group.status == "succeeded"
    assert shown(rig, group) == shown(rig, plain)[:most]


def test_a_budget_of_seconds_drops_what_waits_and_lets_finish_what_runs(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = submit(rig, {**HYPERBAND, "budget": {"seconds": 1000}})
    groups = Groups(rig.context(), lambda: None)
    look(groups)
    look(groups)
    play(rig, group, goal)
    look(groups)
    for each in members(rig, group):
        if not each.is_held and not is_done(each.status):
            rig.store.runs.transition(rig.store.runs.by_pk(each.pk), Status.RUNNING)
    monkeypatch.setattr(clock, "seconds_between", lambda started, now: 1000.0)
    look(groups)
    found = members(rig, group)
    assert [each.status for each in found] == ["succeeded"] * 3 + ["running"] * 3 + ["stopped"] * 3
    assert rig.message(rig.store.runs.by_pk(found[-1].pk)) == BUDGET_USED
    assert not any(each.is_stopping for each in found)
    assert rig.again(group).status == "running"
    group = whole(rig, group)
    assert group.status == "succeeded"
    assert sizes(rig, group) == [9]


# -- crashes ----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process was killed: no code handles this."""


class Mortal:
    """A store that dies with its daemon at the n-th call, before or after that took effect."""

    def __init__(self, target: Any, countdown: list[int], after: bool) -> None:
        self._target, self._countdown, self._after = target, countdown, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name in ("runs", "groups", "metrics", "projects", "users"):
            return Mortal(found, self._countdown, self._after)

        def call(*arguments: Any, **more: Any) -> Any:
            self._countdown[0] -= 1
            if self._countdown[0] == 0 and not self._after:
                raise Killed
            result = found(*arguments, **more)
            if self._countdown[0] == 0:
                raise Killed
            return result

        return call


def with_deaths(rig: Rig, group: Run, goal: Goal, deaths: Sequence[tuple[int, bool]]) -> Run:
    """Run daemons that die after these numbers of calls; the last one survives. Experiments continue."""
    for calls, after in deaths:
        groups = Groups(rig.context(store=Mortal(rig.store, [calls], after)), lambda: None)
        try:
            for _ in range(200):
                look(groups)
                play(rig, group, goal)
        except Killed:
            agrees(rig, group)
            play(rig, group, goal)
    return whole(rig, group, goal)


@pytest.fixture(scope="module")
def undisturbed() -> Callable[[str], Shown]:
    """The result of a search without a death; computed once for each search."""
    known: dict[str, Shown] = {}

    def of(name: str) -> Shown:
        if name not in known:
            with tempfile.TemporaryDirectory() as folder:
                rig = fresh(folder)
                known[name] = shown(rig, whole(rig, submit(rig, SEARCHES[name][0]), SEARCHES[name][1]))
                rig.store.close()
        return known[name]

    return of


def fresh(folder: str) -> Rig:
    home = Path(folder) / "home"
    home.mkdir()
    read = load(home=home)
    store = Store(read.folders.database)
    user = store.users.add("root", is_superuser=True)
    return Rig(read, store, FakeEngine(), store.projects.create(user, {"name": "p"}), user)


SEARCHES: dict[str, tuple[dict[str, Any], Goal]] = {
    "hyperband": (HYPERBAND, goal),
    "hyperband, some fail": (HYPERBAND, moody),
    "bo": (BO, goal),
    "random": (RANDOM, moody),
    "budget": ({**HYPERBAND, "budget": {"n_experiments": 11}}, goal),
    # a space of more than a chunk: made in several steps, each of which may be the last
    "chunks": ({**RANDOM, "concurrency": 60, "random_search": {"n_experiments": 110}}, goal),
}


@pytest.mark.slow
@pytest.mark.usefixtures("_quick_bayes")
@pytest.mark.parametrize("name", SEARCHES)
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(deaths=st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=3, max_size=30))
def test_no_crash_changes_what_is_tried(
    undisturbed: Callable[[str], Shown], name: str, deaths: list[tuple[int, bool]]
) -> None:
    tuning, goal = SEARCHES[name]
    with tempfile.TemporaryDirectory() as folder:
        rig = fresh(folder)
        group = with_deaths(rig, submit(rig, tuning), goal, deaths)
        assert group.status == "succeeded"
        assert shown(rig, group) == undisturbed(name)
        assert rig.history(group) == ["created", "running", "succeeded"]
        rig.store.close()


def test_a_daemon_for_every_look(rig: Rig) -> None:
    """No daemon has the suggestions of the one before."""
    group, plain = submit(rig, HYPERBAND), whole(rig, submit(rig, HYPERBAND))
    while not is_done(rig.again(group).status):
        look(Groups(rig.context(), lambda: None))
        agrees(rig, group)
        play(rig, group, goal)
    assert shown(rig, group) == shown(rig, plain)


def test_two_daemons_that_believe_to_be_alone_make_nothing_twice(rig: Rig) -> None:
    group, plain = submit(rig, HYPERBAND), whole(rig, submit(rig, HYPERBAND))
    both = [Groups(rig.context(), lambda: None) for _ in range(2)]
    while not is_done(rig.again(group).status):
        for groups in both:
            look(groups)
        play(rig, group, goal)
    assert shown(rig, group) == shown(rig, plain)


# -- the whole runner over the fake engine ----------------------------------------------------------------------------


class Measuring(FakeEngine):
    """An engine whose experiments report their metric at their start."""

    store: Store

    def start(self, container_id: str) -> None:
        label = self._get(container_id).plan.labels[RUN_LABEL]
        run = self.store.runs.by_uuid(label.partition("/")[2])
        if run and run.kind == "experiment" and not run.last_metric:
            self.store.metrics.add(run, [({"score": goal(run.params or {})}, None)])
        super().start(container_id)


@pytest.fixture
def supervised(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    """Run a group from its start to its end; `amnesia`: with a new daemon for each step."""
    monkeypatch.setattr(container_operation, "INSPECT_S", 0.02)
    engine = Measuring()
    engine.store = rig.store
    live = replace(rig, engine=engine, settings=rig.settings.model_copy(update={"max_runs": 4}))
    context = live.context()
    supervisor = Supervisor(context)

    def until_done(hptuning: dict[str, Any], amnesia: bool = False) -> Run:
        group = submit(rig, hptuning, "echo lr {{ lr }}")

        def over() -> bool:
            if amnesia:
                supervisor.groups = Groups(context, supervisor.wake)
            supervisor.step()
            agrees(rig, group)
            return is_done(rig.again(group).status)

        eventually(over, 110)
        assert engine.builds == 1
        return rig.again(group)

    yield until_done
    eventually(lambda: not supervisor.executions())
    supervisor.groups._bayes.close()


@pytest.mark.parametrize("amnesia", [False, True])
def test_hyperband_end_to_end(rig: Rig, supervised: Callable[..., Run], amnesia: bool) -> None:
    group = supervised(HYPERBAND, amnesia)
    assert group.status == "succeeded"
    assert shown(rig, group) == shown(rig, whole(rig, submit(rig, HYPERBAND)))
    assert len({rig.store.runs.by_pk(each.pk).build_pk for each in members(rig, group)[:22]}) == 1


@pytest.mark.slow
def test_bayesian_optimisation_end_to_end(rig: Rig, supervised: Callable[..., Run]) -> None:
    """With scikit-learn, in a separate process."""
    tuning = {**BO, "bo": {**BO["bo"], "n_iterations": 1}}
    group = supervised(tuning)
    assert group.status == "succeeded", rig.message(group)
    assert sizes(rig, group) == [3, 1]
    params = [str(each.params) for each in members(rig, group)]
    assert len(set(params)) == 4


def test_early_stopping_end_to_end(rig: Rig, supervised: Callable[..., Run]) -> None:
    group = supervised({**RANDOM, "early_stopping": stopped_at(-0.2)})
    assert (group.status, rig.message(group)) == ("stopped", EARLY_STOPPING)
