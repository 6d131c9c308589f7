"""Bookmarks: adding, removing, and the lists of bookmarked runs and projects."""

from __future__ import annotations

import pytest

from polylocal.errors import NotFound
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.queries import Page
from polylocal.store.rows import Project, Run, User


def test_bookmarks_are_set_and_taken_back(store: Store, root: User, project: Project) -> None:
    assert store.bookmarks.among(root, [project]) == set()
    store.bookmarks.add(root, project)
    store.bookmarks.add(root, project)
    assert store.bookmarks.among(root, [project]) == {project.id}
    store.bookmarks.remove(root, project)
    store.bookmarks.remove(root, project)
    assert store.bookmarks.among(root, [project]) == set()


def test_what_was_never_bookmarked_is_not_found(store: Store, root: User, project: Project) -> None:
    with pytest.raises(NotFound):
        store.bookmarks.remove(root, project)


def test_bookmarks_are_per_user_and_per_thing(store: Store, root: User, project: Project) -> None:
    other = store.users.add("other")
    job, build = (store.runs.insert(project, root, NewRun(kind)) for kind in (Kind.JOB, Kind.BUILD))
    store.bookmarks.add(root, job)
    assert store.bookmarks.among(root, [job]) == {job.pk}
    assert store.bookmarks.among(root, [build]) == store.bookmarks.among(other, [job]) == set()
    assert store.bookmarks.among(root, [project]) == set()


def test_nothing_asked_is_nothing_found(store: Store, root: User) -> None:
    assert store.bookmarks.among(root, []) == set()


def test_runs_of_several_kinds_are_looked_up_together(store: Store, root: User, project: Project) -> None:
    job, build, notebook = (
        store.runs.insert(project, root, NewRun(kind, config={})) for kind in (Kind.JOB, Kind.BUILD, Kind.NOTEBOOK)
    )
    store.bookmarks.add(root, job)
    store.bookmarks.add(root, notebook)
    store.bookmarks.add(root, project)
    assert store.bookmarks.among(root, [job, build, notebook]) == {job.pk, notebook.pk}
    assert store.bookmarks.among(root, [build]) == set()


def test_a_bookmark_goes_with_its_run(store: Store, root: User, project: Project) -> None:
    run = store.runs.insert(project, root, NewRun(Kind.JOB))
    store.bookmarks.add(root, run)
    store.runs.remove(run)
    with store.database.read() as db:
        assert db.execute("select count(*) from bookmarks").fetchone()[0] == 0


# -- lists -------------------------------------------------------------------------------------------------------

ALL = Page(limit=100, offset=0)


def ids(found: tuple[int, list[Project]] | tuple[int, list[Run]]) -> list[int]:
    count, things = found
    assert count == len(things)
    return [thing.id for thing in things]


def test_lists_show_the_last_bookmarked_first(store: Store, root: User, project: Project) -> None:
    jobs = [store.runs.insert(project, root, NewRun(Kind.JOB)) for _ in range(3)]
    build = store.runs.insert(project, root, NewRun(Kind.BUILD))
    for run in (jobs[1], jobs[0], build, jobs[2]):
        store.bookmarks.add(root, run)
    assert ids(store.bookmarks.runs(root, Kind.JOB, ALL)) == [3, 1, 2]
    assert ids(store.bookmarks.runs(root, Kind.BUILD, ALL)) == [1]
    assert store.bookmarks.runs(root, Kind.JOB, Page(limit=1, offset=1)) == (3, [jobs[0]])
    assert ids(store.bookmarks.runs(root, Kind.JOB, Page(9, 0, sort="-created_at"))) == [3, 2, 1]
    store.bookmarks.remove(root, jobs[0])
    assert ids(store.bookmarks.runs(root, Kind.JOB, ALL)) == [3, 2]
    store.bookmarks.add(root, jobs[0])
    assert ids(store.bookmarks.runs(root, Kind.JOB, ALL)) == [1, 3, 2]


def test_the_list_of_projects(store: Store, root: User, project: Project) -> None:
    other = store.projects.create(root, {"name": "other"})
    for each in (other, project):
        store.bookmarks.add(root, each)
    assert store.bookmarks.projects(root, ALL) == (2, [project, other])
    store.projects.delete(project)
    assert store.bookmarks.projects(root, ALL) == (1, [other])


def test_lists_are_ones_own(store: Store, root: User, project: Project) -> None:
    run = store.runs.insert(project, root, NewRun(Kind.JOB))
    store.bookmarks.add(root, run)
    store.bookmarks.add(root, project)
    other = store.users.add("other")
    assert store.bookmarks.runs(other, Kind.JOB, ALL) == store.bookmarks.projects(other, ALL) == (0, [])


def test_what_is_deleted_or_archived_is_in_no_list_and_comes_back_with_its_run(
    store: Store, root: User, project: Project
) -> None:
    deleted, archived = (store.runs.insert(project, root, NewRun(Kind.JOB)) for _ in range(2))
    for run in (deleted, archived):
        store.bookmarks.add(root, run)
    store.runs.delete(deleted)
    store.runs.archive(archived)
    assert ids(store.bookmarks.runs(root, Kind.JOB, ALL)) == []
    store.runs.restore(store.runs.by_pk(archived.pk))
    assert ids(store.bookmarks.runs(root, Kind.JOB, ALL)) == [archived.id]


def test_a_project_that_became_private_is_in_the_lists_of_its_owner_and_of_admins(store: Store, root: User) -> None:
    owner, reader = store.users.add("owner"), store.users.add("reader")
    theirs = store.projects.create(owner, {"name": "theirs"})
    run = store.runs.insert(theirs, owner, NewRun(Kind.EXPERIMENT))
    for user in (root, owner, reader):
        store.bookmarks.add(user, theirs)
        store.bookmarks.add(user, run)
    assert ids(store.bookmarks.runs(reader, Kind.EXPERIMENT, ALL)) == [run.id]
    store.projects.update(theirs, {"is_public": False})
    for user, seen in ((root, True), (owner, True), (reader, False)):
        assert ids(store.bookmarks.projects(user, ALL)) == ([theirs.id] if seen else [])
        assert ids(store.bookmarks.runs(user, Kind.EXPERIMENT, ALL)) == ([run.id] if seen else [])


def test_a_bookmark_goes_with_its_user(store: Store, root: User, project: Project) -> None:
    other = store.users.add("other")
    store.bookmarks.add(other, project)
    store.users.delete(other)
    with store.database.read() as db:
        assert db.execute("select count(*) from bookmarks").fetchone()[0] == 0
