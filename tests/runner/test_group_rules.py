"""State machine: groups with any order of steps, deaths of the daemon, ends, stops and deletions.

A look is what the supervisor does; the store that it is given dies at its n-th call, before or after that took effect.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from polylocal.runner import groups, search
from polylocal.statuses import Status, is_done
from polylocal.store.rows import Run

from .conftest import Rig
from .test_crash_rules import Killed, Mortal, fresh_rig

ENDS = [Status.SUCCEEDED, Status.FAILED, Status.STOPPED]
CHUNK = 3


class GroupLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(groups, "CHUNK", CHUNK)
        self.rig: Rig = fresh_rig(self.folder)
        self.seen: dict[int, Run] = {}
        self.is_stopped = False
        self.members_at_end: str | None = None

    def teardown(self) -> None:
        self.patch.undo()
        self.rig.store.close()
        shutil.rmtree(self.folder)

    @initialize(
        size=st.integers(1, 8),
        concurrency=st.integers(1, 4),
        is_random=st.booleans(),
    )
    def begin(self, size: int, concurrency: int, is_random: bool) -> None:
        way = {"random_search": {"n_experiments": size}, "seed": 3} if is_random else {}
        self.group = self.rig.group({"matrix": {"n": {"range": [0, size, 1]}}, "concurrency": concurrency, **way})
        tuning = self.rig.specification(self.group).hptuning
        self.planned = list(search.suggestions(tuning, self.group.uuid))
        assert len(self.planned) == size
        self.concurrency = concurrency

    # -- what happens ---------------------------------------------------------------------------------------------

    @rule(dies_at=st.sampled_from([None, 1, 2, 3, 4, 5, 6, 7]), after=st.booleans())
    def look(self, dies_at: int | None, after: bool) -> None:
        """Advance open groups, as the supervisor does."""
        store = Mortal(self.rig.store, [dies_at or 10**9], after)
        with contextlib.suppress(Killed):
            for group in self.rig.store.groups.open_groups():
                self.rig.tend(group, store)

    @precondition(lambda self: self._active())
    @rule(which=st.integers(0, 9), end=st.sampled_from(ENDS))
    def experiment_ends(self, which: int, end: Status) -> None:
        active = self._active()
        self.rig.store.runs.transition(active[which % len(active)], end)

    @precondition(lambda self: self.rig.members(self.group))
    @rule(which=st.integers(0, 9))
    def experiment_is_deleted(self, which: int) -> None:
        members = self.rig.members(self.group)
        member = members[which % len(members)]
        self.rig.store.runs.delete(member)
        self.rig.store.runs.transition(member, Status.STOPPED)
        self.rig.store.runs.remove(member)

    @precondition(lambda self: not self.is_stopped)
    @rule(pending_only=st.booleans())
    def group_is_stopped(self, pending_only: bool) -> None:
        was_open = not is_done(self._row().status)
        self.rig.store.groups.stop(self._row(), pending_only=pending_only)
        self.is_stopped = was_open
        assert not [run for run in self.rig.members(self.group) if run.is_held and not is_done(run.status)]

    # -- what holds ------------------------------------------------------------------------------------------------

    @invariant()
    def never_more_at_once_than_allowed(self) -> None:
        if hasattr(self, "group"):
            assert len(self._active()) <= self.concurrency

    @invariant()
    def every_suggestion_is_made_once_and_in_order(self) -> None:
        if not hasattr(self, "group"):
            return
        for member in self.rig.members(self.group):
            self.seen.setdefault(member.pk, member)
        made = [self.seen[pk].params for pk in sorted(self.seen)]
        assert made == self.planned[: len(made)]

    @invariant()
    def the_oldest_go_first(self) -> None:
        if hasattr(self, "group") and not self.is_stopped:
            held = [run.is_held for run in self.rig.members(self.group) if not is_done(run.status)]
            assert held == sorted(held)

    @invariant()
    def it_ends_when_nothing_is_left_and_not_before(self) -> None:
        if not hasattr(self, "group"):
            return
        row, members = self._row(), self.rig.members(self.group)
        if is_done(row.status) and not self.is_stopped:
            assert len(self.seen) == len(self.planned)
            assert all(is_done(member.status) for member in members)
        assert row.status in ("created", "running", "succeeded", "failed", "stopped")
        if self.is_stopped:
            assert row.status == "stopped"

    @invariant()
    def it_succeeds_only_with_something_to_choose_from(self) -> None:
        if not hasattr(self, "group") or self.is_stopped or not is_done(self._row().status):
            return
        ends = {member.status for member in self.rig.members(self.group)}
        wanted = "succeeded" if "succeeded" in ends or not ends else "failed" if "failed" in ends else "stopped"
        if self.members_at_end is None:
            self.members_at_end = wanted  # those that are deleted later change nothing
        assert self._row().status == self.members_at_end

    @invariant()
    def its_history_is_one_life(self) -> None:
        if hasattr(self, "group"):
            history = self.rig.history(self.group)
            assert history in (
                ["created"],
                ["created", "running"],
                ["created", "stopped"],
                ["created", "running", "stopped"],
                ["created", "running", "succeeded"],
                ["created", "running", "failed"],
            )

    @invariant()
    def it_runs_while_its_experiments_do(self) -> None:
        if hasattr(self, "group") and self._active() and not self.is_stopped:
            assert self._row().status == "running"

    def _row(self) -> Run:
        return self.rig.again(self.group)

    def _active(self) -> list[Run]:
        if not hasattr(self, "group"):
            return []
        return [run for run in self.rig.members(self.group) if not run.is_held and not is_done(run.status)]


TestGroupLife = pytest.mark.slow(GroupLife.TestCase)
TestGroupLife.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("dies_at", range(1, 8))
def test_a_daemon_that_dies_in_its_first_look(rig: Rig, dies_at: int, after: bool) -> None:
    """At any call: the next daemons create the missing experiments and record the state."""
    group = rig.group({"matrix": {"n": {"values": [1, 2]}}})
    with contextlib.suppress(Killed):
        rig.tend(group, Mortal(rig.store, [dies_at], after))
    for _ in range(3):
        rig.tend(rig.again(group))
    assert [(member.params, member.is_held) for member in rig.members(group)] == [({"n": 1}, False), ({"n": 2}, True)]
    assert rig.history(group) == ["created", "running"]
    for member in rig.members(group):
        rig.store.runs.transition(member, Status.SUCCEEDED)
    for _ in range(2):
        rig.tend(rig.again(group))
    assert rig.history(group) == ["created", "running", "succeeded"]
