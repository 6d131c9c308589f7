"""After transitions, stops and deletions in any order, rows and histories agree."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from polylocal.statuses import STARTS, TRANSITIONS, Kind, Status, is_done
from polylocal.store import NewRun, Store
from polylocal.store.rows import Run, StatusRow

STATUSES = st.sampled_from(sorted(Status))


class LifeCycle(RuleBasedStateMachine):
    """Compares a real store with a model: the history of each run when it was last read."""

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder / "polylocal.db")
        self.histories: dict[int, list[StatusRow]] = {}
        self.finished: dict[int, Run] = {}

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        self.user = self.store.users.add("root")
        self.project = self.store.projects.create(self.user, {"name": "p"})

    @rule(target=runs, kind=st.sampled_from(Kind))
    def insert(self, kind: Kind) -> Run:
        build_key = "k" if kind is Kind.BUILD else None
        return self._known(self.store.runs.insert(self.project, self.user, NewRun(kind, build_key=build_key)))

    @rule(run=runs, to=STATUSES, message=st.none() | st.text(max_size=300))
    def transition(self, run: Run, to: Status, message: str | None) -> None:
        before = self._row(run)
        moved = self.store.runs.transition(run, to, message)
        assert moved == (before.status in TRANSITIONS[to])
        assert self._row(run).status == (to if moved else before.status)

    @rule(target=runs, run=runs, anew=st.booleans())
    def attach(self, run: Run, anew: bool) -> Run:
        if run.kind == Kind.BUILD or is_done(self._row(run).status):
            return run
        build = self.store.queue.attach_build(run, NewRun(Kind.BUILD, build_key="k"), anew=anew)
        return self._known(build) if build else run

    @rule(run=runs)
    def note(self, run: Run) -> None:
        if not is_done(self._row(run).status):
            self.store.runs.note(run, "by the way")

    @rule(run=runs, what=st.sampled_from(["request_stop", "delete"]))
    def end(self, run: Run, what: str) -> None:
        getattr(self.store.runs, what)(run)

    @invariant()
    def history_is_only_appended_to(self) -> None:
        for pk, known in self.histories.items():
            found = self._history(pk)
            assert found[: len(known)] == known
            self.histories[pk] = found

    @invariant()
    def the_row_says_what_its_history_says(self) -> None:
        for pk, history in self.histories.items():
            row = self.store.runs.by_pk(pk)
            assert history[0].status == Status.CREATED
            assert history[-1].status == row.status
            times = [entry.created_at for entry in history]
            assert times == sorted(times)
            assert row.created_at == times[0]
            assert row.updated_at >= (row.finished_at or row.started_at or row.created_at)

    @invariant()
    def started_and_finished_follow_the_history(self) -> None:
        for pk, history in self.histories.items():
            row = self.store.runs.by_pk(pk)
            started = next((entry.created_at for entry in history if entry.status in STARTS), None)
            finished = next((entry.created_at for entry in history if is_done(entry.status)), None)
            assert row.started_at == (started or (row.created_at if finished else None))
            assert row.finished_at == finished

    @invariant()
    def what_is_done_stays_as_it_is(self) -> None:
        for pk in self.histories:
            row = self.store.runs.by_pk(pk)
            if is_done(row.status):
                known = self.finished.setdefault(pk, row)
                assert (row.status, row.started_at, row.finished_at) == (
                    known.status,
                    known.started_at,
                    known.finished_at,
                )
                assert len(self.histories[pk]) == sum(not is_done(e.status) for e in self.histories[pk]) + 1

    @invariant()
    def nobody_waits_for_a_build_that_failed_or_was_stopped(self) -> None:
        for pk in self.histories:
            row = self.store.runs.by_pk(pk)
            if row.build_pk and self.store.runs.by_pk(row.build_pk).status in (Status.FAILED, Status.STOPPED):
                assert is_done(row.status)

    @invariant()
    def counters_are_the_real_counts(self) -> None:
        if not hasattr(self, "project"):
            return
        visible = [row for row in map(self.store.runs.by_pk, self.histories) if row.deleted_at is None]
        counts: dict[str, Any] = self.store.projects.counts(self.project)
        assert all(counts.get(kind, 0) == sum(row.kind == kind for row in visible) for kind in Kind)

    def _known(self, run: Run) -> Run:
        self.histories.setdefault(run.pk, self._history(run.pk)[:1])
        return run

    def _history(self, pk: int) -> list[StatusRow]:
        return self.store.runs.statuses(self.store.runs.by_pk(pk), limit=1000, offset=0)[1]

    def _row(self, run: Run) -> Run:
        return self.store.runs.by_pk(run.pk)


TestLifeCycle = pytest.mark.slow(LifeCycle.TestCase)
TestLifeCycle.settings = settings(max_examples=30, stateful_step_count=20, deadline=5000)
