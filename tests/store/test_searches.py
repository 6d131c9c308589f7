"""Saved queries, saved charts, and the activity log."""

from __future__ import annotations

import pytest

from polylocal.errors import InvalidInput, NotFound
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store, activities
from polylocal.store.rows import Activity, Project, Run, User


@pytest.fixture
def run(store: Store, root: User, project: Project) -> Run:
    return store.runs.insert(project, root, NewRun(Kind.EXPERIMENT))


@pytest.fixture
def other(store: Store) -> User:
    return store.users.add("other")


# -- searches ----------------------------------------------------------------------------------------------------


def test_searches_are_ones_own_per_project_and_kind(store: Store, root: User, other: User, project: Project) -> None:
    elsewhere = store.projects.create(root, {"name": "other"})
    kept = store.searches.add(root, project, Kind.JOB, {"query": {"query": "status:failed"}, "name": "bad"})
    store.searches.add(root, project, Kind.BUILD, {"query": {}, "name": "bad"})
    store.searches.add(root, elsewhere, Kind.JOB, {"query": {}, "name": "bad"})
    store.searches.add(other, project, Kind.JOB, {"query": {}, "name": "bad", "meta": {"columns": ["a"]}})
    assert (kept.name, kept.query, kept.meta) == ("bad", {"query": "status:failed"}, None)
    assert store.searches.page(root, project, Kind.JOB, limit=9, offset=0) == (1, [kept])
    assert store.searches.page(other, project, Kind.JOB, limit=9, offset=0)[1][0].meta == {"columns": ["a"]}


def test_the_newest_search_comes_first(store: Store, root: User, project: Project) -> None:
    kept = [store.searches.add(root, project, Kind.JOB, {"query": {"n": n}}) for n in range(4)]
    assert store.searches.page(root, project, Kind.JOB, limit=2, offset=1) == (4, [kept[2], kept[1]])


def test_a_name_is_given_once_and_no_name_as_often_as_wanted(store: Store, root: User, project: Project) -> None:
    for _ in range(2):
        store.searches.add(root, project, Kind.JOB, {"query": {}})
    store.searches.add(root, project, Kind.JOB, {"query": {}, "name": "a"})
    with pytest.raises(InvalidInput, match="You have a search `a` already"):
        store.searches.add(root, project, Kind.JOB, {"query": {}, "name": "a"})


def test_one_deletes_ones_own_search_where_it_is(store: Store, root: User, other: User, project: Project) -> None:
    kept = store.searches.add(root, project, Kind.JOB, {"query": {}})
    elsewhere = store.projects.create(root, {"name": "other"})
    for who, where, kind in ((other, project, Kind.JOB), (root, elsewhere, Kind.JOB), (root, project, Kind.BUILD)):
        with pytest.raises(NotFound):
            store.searches.delete(who, where, kind, kept.id)
    store.searches.delete(root, project, Kind.JOB, kept.id)
    with pytest.raises(NotFound):
        store.searches.delete(root, project, Kind.JOB, kept.id)


# -- chart views -------------------------------------------------------------------------------------------------


def test_chart_views(store: Store, run: Run) -> None:
    first = store.chart_views.add(run, {"charts": [{"x": 1}], "name": "a", "meta": {"m": 1}})
    second = store.chart_views.add(run, {"charts": {"y": 2}})
    assert (first.name, first.charts, first.meta, len(first.uuid)) == ("a", [{"x": 1}], {"m": 1}, 32)
    assert (second.name, second.charts, second.meta) == (None, {"y": 2}, None)
    assert store.chart_views.page(run, limit=9, offset=0) == (2, [first, second])
    assert store.chart_views.page(run, limit=9, offset=1) == (2, [second])
    changed = store.chart_views.update(run, first.id, {"charts": [], "name": "b"})
    assert (changed.name, changed.charts, changed.meta, changed.uuid) == ("b", [], {"m": 1}, first.uuid)
    assert changed.updated_at > first.updated_at
    store.chart_views.delete(run, first.id)
    assert store.chart_views.page(run, limit=9, offset=0) == (1, [second])


def test_chart_views_of_another_run_are_not_found(store: Store, root: User, project: Project, run: Run) -> None:
    view = store.chart_views.add(run, {"charts": []})
    group = store.runs.insert(project, root, NewRun(Kind.GROUP))
    for call in (
        lambda: store.chart_views.get(group, view.id),
        lambda: store.chart_views.update(group, view.id, {"name": "mine"}),
        lambda: store.chart_views.delete(group, view.id),
    ):
        with pytest.raises(NotFound):
            call()
    assert store.chart_views.get(run, view.id) == view


def test_what_belongs_to_a_run_goes_with_it(store: Store, run: Run) -> None:
    store.chart_views.add(run, {"charts": []})
    store.metrics.add(run, [({"loss": 1}, None)])
    store.runs.remove(run)
    for table in ("chart_views", "metrics", "run_values"):
        with store.database.read() as db:
            assert db.execute(f"select count(*) from {table}").fetchone()[0] == 0


# -- activities --------------------------------------------------------------------------------------------------


def said(found: tuple[int, list[Activity]]) -> list[str]:
    count, rows = found
    assert count == len(rows)
    return [f"{row.actor} {row.action} {row.subject} {row.object_name}" for row in rows]


def test_what_was_done_the_newest_first(store: Store, root: User, other: User, project: Project, run: Run) -> None:
    store.activities.add(root, "created", project)
    store.activities.add(root, "created", run)
    store.activities.add(other, "stopped", run)
    assert said(store.activities.page(project, root, limit=9, offset=0)) == [
        "other stopped experiment root.quick-start.1",
        "root created experiment root.quick-start.1",
        "root created project root.quick-start",
    ]
    count, rows = store.activities.page(None, root, limit=1, offset=2)
    assert (count, rows[0].object_id, rows[0].subject) == (3, project.id, "project")


def test_one_sees_what_was_done_in_projects_that_one_sees(store: Store, root: User, other: User) -> None:
    private = store.projects.create(root, {"name": "private", "is_public": False})
    public = store.projects.create(root, {"name": "public"})
    own = store.projects.create(other, {"name": "own", "is_public": False})
    third = store.users.add("third")
    for project in (private, public, own):
        store.activities.add(root, "updated", project)
    seen = {
        user.username: {row.object_name for row in store.activities.page(None, user, limit=9, offset=0)[1]}
        for user in (root, other, third)
    }
    assert seen == {
        "root": {"root.private", "root.public", "other.own"},
        "other": {"root.public", "other.own"},
        "third": {"root.public"},
    }


def test_a_view_is_noted_once_a_while_and_kept_once(
    store: Store, root: User, project: Project, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(activities.time, "monotonic", lambda: now)
    for thing in (run, project, run, run):
        store.activities.view(root, thing)
    first = store.activities.views(root, limit=9, offset=0)
    assert said(first) == ["root viewed project root.quick-start", "root viewed experiment root.quick-start.1"]
    now += activities.VIEW_INTERVAL_S + 1
    store.activities.view(root, run)
    again = store.activities.views(root, limit=9, offset=0)
    assert said(again) == ["root viewed experiment root.quick-start.1", "root viewed project root.quick-start"]
    assert again[1][0].created_at > first[1][1].created_at


def test_views_are_ones_own_and_nothing_that_was_done(store: Store, root: User, other: User, run: Run) -> None:
    for user in (root, other):
        store.activities.view(user, run)
    store.activities.add(root, "updated", run)
    assert said(store.activities.views(other, limit=9, offset=0)) == ["other viewed experiment root.quick-start.1"]
    assert said(store.activities.page(None, root, limit=9, offset=0)) == ["root updated experiment root.quick-start.1"]


def test_things_of_the_same_number_are_different_things(store: Store, root: User, project: Project, run: Run) -> None:
    job = store.runs.insert(project, root, NewRun(Kind.JOB))
    assert project.id == run.id == job.id
    for thing in (project, run, job):
        store.activities.view(root, thing)
    assert store.activities.views(root, limit=9, offset=0)[0] == 3


def test_the_same_deed_twice_is_two_lines(store: Store, root: User, run: Run) -> None:
    for _ in range(2):
        store.activities.add(root, "updated", run)
    assert store.activities.page(None, root, limit=9, offset=0)[0] == 2


def test_the_oldest_lines_go(store: Store, root: User, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activities, "MAX_ENTRIES", 3)
    for _ in range(6):
        store.activities.add(root, "updated", project)
    assert store.activities.page(None, root, limit=9, offset=0)[0] == 3


def test_what_was_done_in_a_project_goes_with_it(store: Store, root: User, project: Project) -> None:
    store.activities.add(root, "updated", project)
    store.projects.delete(project)
    store.projects.remove(project)
    assert store.activities.page(None, root, limit=9, offset=0) == (0, [])
