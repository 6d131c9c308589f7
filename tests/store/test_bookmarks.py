from __future__ import annotations

import pytest

from polylocal.errors import NotFound
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, User


def test_bookmarks_are_set_and_taken_back(store: Store, root: User, project: Project) -> None:
    assert store.bookmarks.of(root, [project]) == set()
    store.bookmarks.add(root, project)
    store.bookmarks.add(root, project)
    assert store.bookmarks.of(root, [project]) == {project.id}
    store.bookmarks.remove(root, project)
    store.bookmarks.remove(root, project)
    assert store.bookmarks.of(root, [project]) == set()


def test_what_was_never_bookmarked_is_not_found(store: Store, root: User, project: Project) -> None:
    with pytest.raises(NotFound):
        store.bookmarks.remove(root, project)


def test_bookmarks_are_per_user_and_per_thing(store: Store, root: User, project: Project) -> None:
    other = store.users.add("other")
    job, build = (store.runs.insert(project, root, NewRun(kind)) for kind in (Kind.JOB, Kind.BUILD))
    store.bookmarks.add(root, job)
    assert store.bookmarks.of(root, [job]) == {job.pk}
    assert store.bookmarks.of(root, [build]) == store.bookmarks.of(other, [job]) == set()
    assert store.bookmarks.of(root, [project]) == set()


def test_nothing_asked_is_nothing_found(store: Store, root: User) -> None:
    assert store.bookmarks.of(root, []) == set()


def test_a_bookmark_goes_with_its_run(store: Store, root: User, project: Project) -> None:
    run = store.runs.insert(project, root, NewRun(Kind.JOB))
    store.bookmarks.add(root, run)
    store.runs.remove(run)
    with store.database.read() as db:
        assert db.execute("select count(*) from bookmarks").fetchone()[0] == 0
