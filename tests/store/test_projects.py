"""Projects: creation, changes, pages and deletion, and references to code."""

from __future__ import annotations

import pytest

from polylocal.errors import InvalidInput, NotFound
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, User


def test_a_new_project(store: Store, root: User) -> None:
    made = store.projects.create(root, {"name": "quick-start", "tags": ["b", "a"]})
    assert (made.id, made.unique_name, made.tags, made.is_public) == (1, "root.quick-start", ["b", "a"], True)
    assert len(made.uuid) == 32
    assert made.created_at == made.updated_at
    assert store.projects.get("root", "quick-start") == made


def test_a_name_is_ones_own_and_case_matters(store: Store, root: User, project: Project) -> None:
    other = store.users.add("other")
    store.projects.create(other, {"name": project.name})
    store.projects.create(root, {"name": project.name.upper()})
    with pytest.raises(InvalidInput, match="`quick-start` already exists"):
        store.projects.create(root, {"name": project.name})


def test_what_is_not_there_is_not_found(store: Store, root: User) -> None:
    for name in ("nope", "' or 1=1 --"):
        with pytest.raises(NotFound):
            store.projects.get(root.username, name)


def test_an_update_changes_what_it_names(store: Store, project: Project) -> None:
    changed = store.projects.update(project, {"description": "d", "tags": [], "is_public": False})
    assert (changed.description, changed.tags, changed.is_public) == ("d", [], False)
    assert (changed.name, changed.uuid) == (project.name, project.uuid)
    assert changed.updated_at > project.updated_at


@pytest.mark.parametrize("column", ["id", "uuid", "user_id", "no_such_column"])
def test_a_read_only_or_unknown_value_is_refused(store: Store, root: User, project: Project, column: str) -> None:
    with pytest.raises(TypeError, match=rf"not to be set: \['{column}'\]"):
        store.projects.create(root, {"name": "other", column: 99})
    with pytest.raises(TypeError, match=rf"not to be set: \['{column}'\]"):
        store.projects.update(project, {"description": "d", column: 99})
    assert store.projects.all() == [project]


def test_an_empty_update_only_touches(store: Store, project: Project) -> None:
    assert store.projects.update(project, {}).updated_at > project.updated_at


def test_a_name_that_is_taken_is_refused_in_an_update(store: Store, root: User, project: Project) -> None:
    other = store.projects.create(root, {"name": "other"})
    with pytest.raises(InvalidInput, match="already exists"):
        store.projects.update(other, {"name": project.name})
    assert store.projects.update(project, {"name": project.name}).name == project.name


def test_pages_show_the_last_changed_first(store: Store, root: User) -> None:
    made = [store.projects.create(root, {"name": f"p{n}", "is_public": n != 1}) for n in range(4)]
    store.projects.update(made[0], {})
    count, page = store.projects.page("root", public_only=False, limit=2, offset=1)
    assert (count, [project.name for project in page]) == (4, ["p3", "p2"])
    count, page = store.projects.page("root", public_only=True, limit=9, offset=0)
    assert (count, [project.name for project in page]) == (3, ["p0", "p3", "p2"])


# -- deleted -----------------------------------------------------------------------------------------------------


def test_a_deleted_project_is_hidden_with_its_runs_at_once(store: Store, root: User, project: Project) -> None:
    run = store.runs.insert(project, root, NewRun(Kind.JOB))
    store.projects.delete(project)
    with pytest.raises(NotFound):
        store.projects.get("root", project.name)
    with pytest.raises(NotFound):
        store.runs.get(project, Kind.JOB, run.id)
    assert store.projects.page("root", public_only=False, limit=9, offset=0) == (0, [])
    assert store.runs.latest(root, kind=None, is_open=False, limit=9) == []
    assert store.runs.page(project, Kind.JOB, query=None, sort=None, limit=9, offset=0) == (0, [])


def test_its_name_can_be_used_again(store: Store, root: User, project: Project) -> None:
    store.projects.delete(project)
    again = store.projects.create(root, {"name": project.name})
    assert store.projects.get("root", project.name) == again
    assert again.id != project.id


def test_it_is_removed_when_no_run_holds_it(store: Store, root: User, project: Project) -> None:
    run = store.runs.insert(project, root, NewRun(Kind.JOB))
    store.projects.reference_code(project, {"commit": "abc"})
    store.bookmarks.add(root, project)
    store.projects.delete(project)
    assert store.projects.removable() == []
    store.runs.remove(run)
    assert [gone.id for gone in store.projects.removable()] == [project.id]
    store.projects.remove(project)
    assert store.projects.removable() == []
    with pytest.raises(NotFound):
        store.projects.by_id(project.id)


def test_the_id_of_a_removed_project_is_not_given_again(store: Store, root: User, project: Project) -> None:
    store.projects.delete(project)
    store.projects.remove(project)
    assert store.projects.create(root, {"name": "new"}).id > project.id


# -- code references ---------------------------------------------------------------------------------------------


def test_the_same_code_is_one_reference(store: Store, project: Project) -> None:
    first = store.projects.reference_code(project, {"commit": "abc", "head": "abc"})
    again = store.projects.reference_code(project, {"commit": "abc", "head": "abc"})
    other = store.projects.reference_code(project, {"commit": "abc", "head": "abc", "branch": "dev"})
    assert first == again == store.projects.code_reference(first.id)
    assert other.id != first.id
    assert (first.branch, first.commit, first.is_dirty) == ("master", "abc", False)


def test_references_are_per_project(store: Store, root: User, project: Project) -> None:
    other = store.projects.create(root, {"name": "other"})
    found = {store.projects.reference_code(each, {"commit": "abc"}).id for each in (project, other)}
    assert len(found) == 2
