"""Archiving and restoring runs and projects with what belongs to them, and the stored counters against a recount."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from polylocal.errors import InvalidInput, NotFound
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.queries import Page
from polylocal.store.rows import Project, Run, User

Make = Any
ALL = Page(limit=100, offset=0)


@pytest.fixture
def make(store: Store, root: User, project: Project) -> Make:
    """Returns `make(kind, group=…, in_project=…, name=…)`, which inserts a run."""

    def made(kind: Kind = Kind.JOB, group: Run | None = None, in_project: Project = project, **values: Any) -> Run:
        if kind is Kind.GROUP:
            values = {"group_type": "study", **values}
        return store.runs.insert(in_project, root, NewRun(kind, values=values, group=group))

    return made


def again(store: Store, run: Run) -> Run:
    return store.runs.by_pk(run.pk)


def listed(store: Store, project: Project, kind: Kind) -> tuple[int, list[int]]:
    count, runs = store.runs.page(project, kind, query=None, sort="created_at", limit=100, offset=0)
    return count, [run.id for run in runs]


def is_found(store: Store, project: Project, run: Run) -> bool:
    try:
        return store.runs.get(project, Kind(run.kind), run.id) == run
    except NotFound:
        return False


# -- runs --------------------------------------------------------------------------------------------------------


def test_an_archived_run_is_out_of_sight_and_comes_back(store: Store, root: User, project: Project, make: Make) -> None:
    kept, run = make(name="kept"), make(name="a", tags=["x"])
    store.runs.transition(run, Status.SUCCEEDED)
    run = again(store, run)
    store.runs.archive(run)
    assert listed(store, project, Kind.JOB) == (1, [kept.id])
    assert store.projects.counts(project)["job"] == 1
    assert [found.pk for found in store.runs.latest(root, kind=None, is_open=False, limit=9)] == [kept.pk]
    for find in (
        lambda: store.runs.get(project, Kind.JOB, run.id),
        lambda: store.runs.find(Kind.JOB, run.id),
        lambda: store.runs.by_name(project, Kind.JOB, "a"),
    ):
        with pytest.raises(NotFound):
            find()
    archived = store.runs.including_archived(project, Kind.JOB, run.id)
    assert archived.archived_at
    store.runs.restore(archived)
    assert again(store, run) == run
    assert listed(store, project, Kind.JOB) == (2, [kept.id, run.id])


def test_a_deleted_run_is_not_among_the_archived(store: Store, root: User, project: Project, make: Make) -> None:
    run = make()
    store.runs.archive(run)
    store.runs.delete(again(store, run))
    assert store.runs.archives(root, Kind.JOB, ALL) == (0, [])
    with pytest.raises(NotFound):
        store.runs.including_archived(project, Kind.JOB, run.id)
    store.runs.restore(again(store, run))
    assert listed(store, project, Kind.JOB) == (0, [])
    assert store.projects.counts(project)["job"] == 0


def test_what_is_under_way_is_asked_to_stop(store: Store, make: Make) -> None:
    run, done = make(), make()
    store.runs.transition(run, Status.RUNNING)
    store.runs.transition(done, Status.SUCCEEDED)
    for each in (run, done):
        store.runs.archive(each)
    assert [each.pk for each in store.queue.stopping()] == [run.pk]
    assert again(store, done).stop_requested_at is None
    assert again(store, done).status == "succeeded"


def test_a_stop_of_before_keeps_its_time(store: Store, make: Make) -> None:
    run = make()
    store.runs.request_stop(run)
    first = again(store, run).stop_requested_at
    store.runs.archive(run)
    assert again(store, run).stop_requested_at == first


def test_archiving_twice_changes_nothing(store: Store, make: Make) -> None:
    run = make()
    store.runs.archive(run)
    first = again(store, run)
    store.runs.archive(first)
    assert again(store, run) == first


def test_the_name_of_an_archived_run_stays_its_own(store: Store, project: Project, make: Make) -> None:
    run = make(name="a")
    store.runs.archive(run)
    other = make(name="a")
    assert other.name == "a-1"
    with pytest.raises(InvalidInput, match="already exists"):
        store.runs.update(other, {"name": "a"})
    store.runs.restore(again(store, run))
    assert store.runs.by_name(project, Kind.JOB, "a").pk == run.pk


def test_archives_are_ones_own_the_last_first(store: Store, root: User, make: Make) -> None:
    other = store.users.add("other")
    theirs = make(in_project=store.projects.create(other, {"name": "theirs"}))
    mine = [make() for _ in range(3)]
    build = make(Kind.BUILD)
    for run in (mine[1], mine[0], theirs, mine[2], build):
        store.runs.archive(run)
    count, found = store.runs.archives(root, Kind.JOB, ALL)
    assert (count, [run.pk for run in found]) == (3, [mine[2].pk, mine[0].pk, mine[1].pk])
    count, found = store.runs.archives(root, Kind.JOB, Page(limit=1, offset=1))
    assert (count, [run.pk for run in found]) == (3, [mine[0].pk])
    by_age = store.runs.archives(root, Kind.JOB, Page(10, 0, sort="created_at"))[1]
    assert [run.pk for run in by_age] == [run.pk for run in mine]
    assert store.runs.archives(other, Kind.JOB, ALL)[0] == 1


# -- a group and what is its own ---------------------------------------------------------------------------------


@pytest.fixture
def family(store: Store, make: Make) -> dict[str, Run]:
    group = make(Kind.GROUP)
    member, archived = make(Kind.EXPERIMENT, group), make(Kind.EXPERIMENT, group)
    alone = make(Kind.EXPERIMENT)
    return {
        "group": group,
        "member": member,
        "archived": archived,
        "alone": alone,
        "group's board": make(Kind.TENSORBOARD, group),
        "member's board": make(Kind.TENSORBOARD, experiment_pk=member.pk),
        "alone's board": make(Kind.TENSORBOARD, experiment_pk=alone.pk),
    }


def hidden(store: Store, family: dict[str, Run]) -> set[str]:
    return {name for name, run in family.items() if again(store, run).archived_at or again(store, run).deleted_at}


OF_THE_GROUP = {"group", "member", "archived", "group's board", "member's board"}


def test_a_group_goes_with_all_that_is_its_own(store: Store, family: dict[str, Run]) -> None:
    store.runs.archive(family["group"])
    assert hidden(store, family) == OF_THE_GROUP
    assert all(again(store, family[name]).stop_requested_at for name in OF_THE_GROUP)
    assert again(store, family["alone"]).stop_requested_at is None
    store.runs.restore(again(store, family["group"]))
    assert hidden(store, family) == set()


def test_what_was_archived_before_its_group_stays_archived(store: Store, family: dict[str, Run]) -> None:
    store.runs.archive(family["archived"])
    store.runs.archive(family["group"])
    store.runs.restore(again(store, family["group"]))
    assert hidden(store, family) == {"archived"}


def test_an_experiment_goes_with_its_tensorboard(store: Store, family: dict[str, Run]) -> None:
    store.runs.archive(family["alone"])
    assert hidden(store, family) == {"alone", "alone's board"}
    store.runs.restore(again(store, family["alone"]))
    store.runs.delete(family["member"])
    assert hidden(store, family) == {"member", "member's board"}


def test_deleting_a_group_takes_all_that_is_its_own(store: Store, family: dict[str, Run]) -> None:
    store.runs.archive(family["archived"])
    store.runs.delete(family["group"])
    assert hidden(store, family) == OF_THE_GROUP
    assert all(again(store, family[name]).deleted_at for name in OF_THE_GROUP)


def test_nothing_of_a_group_is_an_orphan_after_its_row_is_gone(store: Store, family: dict[str, Run]) -> None:
    project = store.projects.by_id(family["group"].project_id)
    store.runs.delete(family["group"])
    store.runs.remove(family["group"])
    assert store.projects.counts(project)["independent"] == 1
    assert store.runs.server(project, Kind.TENSORBOARD) is None


# -- projects ----------------------------------------------------------------------------------------------------


def test_a_project_goes_with_its_runs_and_comes_back_with_those_only(
    store: Store, root: User, project: Project, make: Make
) -> None:
    before, run, done = make(), make(), make(Kind.BUILD)
    elsewhere = make(in_project=store.projects.create(root, {"name": "other"}))
    store.runs.archive(before)
    store.runs.transition(done, Status.SUCCEEDED)
    store.projects.archive(project)
    assert {run.pk, before.pk} == {each.pk for each in store.queue.stopping()}
    assert listed(store, project, Kind.JOB) == listed(store, project, Kind.BUILD) == (0, [])
    assert again(store, elsewhere).archived_at is None
    with pytest.raises(NotFound):
        store.projects.get("root", project.name)
    assert [found.name for found in store.projects.page("root", public_only=False, limit=9, offset=0)[1]] == ["other"]
    archived = store.projects.including_archived("root", project.name)
    assert store.projects.archives(root, ALL) == (1, [archived])
    store.projects.restore(archived)
    assert store.projects.get("root", project.name) == project
    assert listed(store, project, Kind.JOB) == (1, [run.id])
    assert listed(store, project, Kind.BUILD) == (1, [done.id])
    assert again(store, before).archived_at


def test_a_run_that_was_restored_by_itself_goes_with_its_project_again(
    store: Store, project: Project, make: Make
) -> None:
    run = make()
    store.runs.archive(run)
    store.runs.restore(again(store, run))
    store.projects.archive(project)
    assert again(store, run).archived_at
    store.projects.restore(store.projects.including_archived("root", project.name))
    assert is_found(store, project, again(store, run))


def test_archiving_a_project_twice_still_brings_all_back(store: Store, project: Project, make: Make) -> None:
    run = make()
    store.projects.archive(project)
    store.projects.archive(store.projects.including_archived("root", project.name))
    store.projects.restore(store.projects.including_archived("root", project.name))
    assert is_found(store, project, again(store, run))


def test_the_name_of_an_archived_project_is_taken(store: Store, root: User, project: Project) -> None:
    store.projects.archive(project)
    with pytest.raises(InvalidInput, match="already exists"):
        store.projects.create(root, {"name": project.name})


def test_runs_of_an_archived_project_are_nowhere(store: Store, root: User, project: Project, make: Make) -> None:
    run = make()
    store.bookmarks.add(root, run)
    store.bookmarks.add(root, project)
    store.projects.archive(project)
    assert store.runs.latest(root, kind=None, is_open=False, limit=9) == []
    assert store.bookmarks.runs(root, Kind.JOB, ALL) == store.bookmarks.projects(root, ALL) == (0, [])


# -- counters ----------------------------------------------------------------------------------------------------


class Archives(RuleBasedStateMachine):
    """After any creation, archiving, restoring and removal, the count of a list equals a recount."""

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder / "polylocal.db")
        self.user = self.store.users.add("root", is_superuser=True)
        self.removed: set[int] = set()

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        self.projects = [self.store.projects.create(self.user, {"name": name}) for name in "pq"]

    @rule(target=runs, kind=st.sampled_from(Kind), where=st.integers(0, 1))
    def insert(self, kind: Kind, where: int) -> Run:
        return self.store.runs.insert(self.projects[where], self.user, NewRun(kind))

    @rule(target=runs, parent=runs, kind=st.sampled_from([Kind.EXPERIMENT, Kind.TENSORBOARD]))
    def insert_below(self, parent: Run, kind: Kind) -> Run:
        if parent.kind not in ("group", "experiment") or parent.pk in self.removed:
            return parent
        group = parent if parent.kind == "group" else None
        values = {} if group else {"experiment_pk": parent.pk}
        project = self.projects[parent.project_id - 1]
        return self.store.runs.insert(project, self.user, NewRun(kind, values=values, group=group))

    @rule(run=runs, what=st.sampled_from(["archive", "restore", "delete"]))
    def change(self, run: Run, what: str) -> None:
        if run.pk not in self.removed:
            getattr(self.store.runs, what)(self.store.runs.by_pk(run.pk))

    @rule(run=runs)
    def remove(self, run: Run) -> None:
        if run.pk not in self.removed:
            self.store.runs.remove(run)
            self.removed.add(run.pk)

    @rule(where=st.integers(0, 1), what=st.sampled_from(["archive", "restore"]))
    def change_project(self, where: int, what: str) -> None:
        getattr(self.store.projects, what)(self.store.projects.by_id(self.projects[where].id))

    @invariant()
    def counters_are_the_real_counts(self) -> None:
        for project in getattr(self, "projects", []):
            counts = self.store.projects.counts(project)
            for kind in Kind:
                visible = "project_id = ? and kind = ? and deleted_at is null and archived_at is null"
                with self.store.database.read() as db:
                    real = db.execute(f"select count(*) from runs where {visible}", (project.id, kind)).fetchone()[0]
                assert counts.get(kind, 0) == real
                assert self.store.runs.page(project, kind, query=None, sort=None, limit=1, offset=0)[0] == real

    @invariant()
    def lists_and_archives_divide_what_is_not_deleted(self) -> None:
        for kind in Kind:
            shown: set[int] = set()
            for project in getattr(self, "projects", []):
                found = self.store.runs.page(project, kind, query=None, sort=None, limit=1000, offset=0)[1]
                shown |= {run.pk for run in found}
            archived = {run.pk for run in self.store.runs.archives(self.user, kind, Page(1000, 0))[1]}
            with self.store.database.read() as db:
                rows = db.execute("select pk from runs where kind = ? and deleted_at is null", (kind,)).fetchall()
            assert not shown & archived
            assert shown | archived == {row["pk"] for row in rows}


TestArchives = pytest.mark.slow(Archives.TestCase)
TestArchives.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
