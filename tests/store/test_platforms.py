"""Platforms, their repositories, and the projects that may publish there."""

from __future__ import annotations

from pathlib import Path

import pytest
from packages_support import Ground, package
from sqlite_utils import Database as Migrated

from polylocal.errors import InvalidInput, NotFound
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.queries import Page
from polylocal.store.rows import Platform, Project, User
from polylocal.store.schema import migrations

ALL = Page(100, 0)


def names(found: list[Platform]) -> list[str]:
    return [platform.name for platform in found]


# -- personal ones ---------------------------------------------------------------------------------------------------


def test_everybody_has_a_platform_with_a_repository(store: Store) -> None:
    for name in ("ann", "Bob"):
        user = store.users.add(name)
        platform = store.platforms.by_name(f"{name}_personal")
        assert (platform.platform_type, platform.owner_id, platform.owner) == ("personal", user.id, name)
        assert (platform.distrib_type, platform.released, platform.is_open) == (None, False, True)
        assert [repository.name for repository in store.platforms.repositories([platform.id])] == ["main"]
        assert not platform.is_main


def test_a_user_whose_platform_would_have_a_taken_name_is_not_made(store: Store, root: User) -> None:
    store.platforms.create(root, {"name": "ann_personal", "distrib_type": "deb"})
    with pytest.raises(InvalidInput, match="`ann_personal`"):
        store.users.add("ann")
    assert store.users.by_name_or_address("ann") is None


def test_a_user_goes_with_their_own_platform(store: Store, root: User) -> None:
    ann = store.users.add("ann")
    platform = store.platforms.by_name("ann_personal")
    store.users.delete(ann)
    with pytest.raises(NotFound):
        store.platforms.get(platform.id)
    assert store.platforms.repositories([platform.id]) == []


def test_a_user_with_a_main_platform_stays(store: Store, root: User) -> None:
    ann = store.users.add("ann")
    store.platforms.create(ann, {"name": "cocos", "distrib_type": "deb"})
    with pytest.raises(InvalidInput):
        store.users.delete(ann)
    assert store.platforms.by_name("cocos").owner == "ann"


def test_a_user_whose_platform_has_others_packages_stays(store: Store, root: User, project: Project) -> None:
    ann = store.users.add("ann")
    ground = Ground.of(store, root, project)
    theirs = store.platforms.repositories([store.platforms.by_name("ann_personal").id])[0]
    ground.queue(save_to_repository_id=theirs.id)
    with pytest.raises(InvalidInput):
        store.users.delete(ann)
    assert store.platforms.repository(theirs.id) == theirs


def test_who_has_published_may_go_and_what_they_published_stays(store: Store, root: User, project: Project) -> None:
    ann = store.users.add("ann")
    ground = Ground.of(store, root, project)
    made = ground.end(ground.queue())
    assert store.build_lists.publish(made, ann, again=False)
    assert ground.again(made).publisher_id == ann.id
    store.users.delete(ann)
    found = ground.again(made)
    assert (found.publisher_id, found.status) == (None, 7000)


# -- main ones -------------------------------------------------------------------------------------------------------


def test_a_platform_is_as_it_was_made(store: Store, root: User) -> None:
    values = {
        "name": "cocos",
        "description": "of the sea",
        "distrib_type": "deb",
        "is_open": False,
        "default_branch": "main",
        "build_image": "debian:12",
        "build_command": "make",
        "build_network": True,
        "time_living": 600,
    }
    made = store.platforms.create(root, values)
    assert {name: getattr(made, name) for name in values} == values
    assert made.is_main
    assert store.platforms.get(made.id) == store.platforms.by_name("cocos") == made


@pytest.mark.parametrize("column", ["id", "platform_type", "no_such_column"])
def test_a_read_only_or_unknown_value_is_refused(store: Store, root: User, column: str) -> None:
    """So are new names: the folders of publications have the old ones."""
    platform = store.platforms.create(root, {"name": "cocos", "distrib_type": "deb"})
    repository = store.platforms.add_repository(platform, {"name": "main"})
    with pytest.raises(TypeError, match=rf"not to be set: \['{column}'\]"):
        store.platforms.create(root, {"name": "other", "distrib_type": "deb", column: 77})
    with pytest.raises(TypeError, match=rf"not to be set: \['{column}'\]"):
        store.platforms.add_repository(platform, {"name": "contrib", column: 77})
    for name in (column, "name"):
        with pytest.raises(TypeError, match=rf"not to be set: \['{name}'\]"):
            store.platforms.update(platform, {"description": "d", name: 77})
        with pytest.raises(TypeError, match=rf"not to be set: \['{name}'\]"):
            store.platforms.update_repository(repository, {"description": "d", name: 77})
    assert store.platforms.get(platform.id) == platform
    assert store.platforms.repositories([platform.id]) == [repository]


def test_a_platform_has_defaults(store: Store, root: User) -> None:
    made = store.platforms.create(root, {"name": "cocos", "distrib_type": "dnf"})
    assert (made.is_open, made.released, made.build_network, made.time_living) == (True, False, False, 43200)
    assert made.subfolder == "release"


@pytest.mark.parametrize("name", ["cocos", "COCOS", "Root_Personal"])
def test_names_are_unique_whatever_their_case(store: Store, root: User, name: str) -> None:
    store.platforms.create(root, {"name": "Cocos", "distrib_type": "deb"})
    with pytest.raises(InvalidInput, match="Name has already been taken"):
        store.platforms.create(root, {"name": name, "distrib_type": "deb"})


def test_names_of_repositories_are_unique_in_their_platform(store: Store, root: User) -> None:
    first, second = (store.platforms.create(root, {"name": name, "distrib_type": "deb"}) for name in ("a", "b"))
    store.platforms.add_repository(first, {"name": "main"})
    store.platforms.add_repository(second, {"name": "main"})
    contrib = store.platforms.add_repository(first, {"name": "contrib"})
    with pytest.raises(InvalidInput, match="Name has already been taken"):
        store.platforms.add_repository(first, {"name": "Main"})
    found = store.platforms.repositories([first.id, second.id])
    assert [(r.platform_name, r.name) for r in found] == [("a", "main"), ("b", "main"), ("a", "contrib")]
    assert store.platforms.repositories_by_id([contrib.id, 999]) == [contrib]
    assert store.platforms.repositories([]) == []


def test_what_may_be_seen_and_found(store: Store, root: User) -> None:
    ann = store.users.add("ann")
    store.platforms.create(root, {"name": "Cocos", "distrib_type": "deb"})
    store.platforms.create(root, {"name": "hidden_cocos", "distrib_type": "deb", "is_open": False})
    platforms = store.platforms
    assert names(platforms.page(root, ALL)) == ["root_personal", "ann_personal", "Cocos", "hidden_cocos"]
    assert names(platforms.page(ann, ALL)) == ["root_personal", "ann_personal", "Cocos"]
    assert names(platforms.page(root, ALL, platform_type="main")) == ["Cocos", "hidden_cocos"]
    assert names(platforms.page(root, ALL, platform_type="personal", name_like="ANN")) == ["ann_personal"]
    assert names(platforms.page(root, ALL, name_like="cOcOs")) == ["Cocos", "hidden_cocos"]
    assert names(platforms.page(root, ALL, name_like="%")) == []
    assert names(platforms.page(root, Page(1, 2))) == ["Cocos"]


@pytest.mark.parametrize("what", ["get", "repository", "arch", "by_name"])
def test_what_is_not_there_is_not_found(store: Store, what: str) -> None:
    with pytest.raises(NotFound):
        getattr(store.platforms, what)("nosuch" if what == "by_name" else 999)


# -- released --------------------------------------------------------------------------------------------------------


def test_released_once_released_for_good_and_with_qa(store: Store, root: User, project: Project) -> None:
    ground = Ground.of(store, root, project)
    platforms, platform = store.platforms, ground.platform
    assert ground.repository.publish_without_qa
    other = platforms.create(root, {"name": "other", "distrib_type": "deb"})
    others = platforms.add_repository(other, {"name": "main"})
    platform = platforms.update(platform, {"released": True})
    assert platform.released
    assert platform.subfolder == "updates"
    assert not platforms.repository(ground.repository.id).publish_without_qa
    assert platforms.repository(others.id).publish_without_qa
    platform = platforms.update(platform, {"released": False, "description": "changed"})
    assert (platform.released, platform.description) == (True, "changed")
    made = platforms.add_repository(platform, {"name": "late", "publish_without_qa": True})
    assert not made.publish_without_qa
    changed = platforms.update_repository(made, {"publish_without_qa": True, "description": "changed"})
    assert (changed.publish_without_qa, changed.description) == (False, "changed")


def test_a_platform_that_is_made_released_has_qa_too(store: Store, root: User) -> None:
    platform = store.platforms.create(root, {"name": "old", "distrib_type": "deb", "released": True})
    assert not store.platforms.add_repository(platform, {"name": "main"}).publish_without_qa


def test_who_released_it_in_between_is_heard(store: Store, root: User, project: Project) -> None:
    """Another user sends the platform with values from before the release."""
    ground = Ground.of(store, root, project)
    store.platforms.update(ground.platform, {"released": True})
    assert store.platforms.update(ground.platform, {"released": False, "description": "late"}).released
    late = store.platforms.add_repository(ground.platform, {"name": "late", "publish_without_qa": True})
    assert not late.publish_without_qa


# -- projects in repositories ----------------------------------------------------------------------------------------


def test_a_project_is_added_and_removed_as_often_as_one_likes(store: Store, root: User, project: Project) -> None:
    ground = Ground.of(store, root, project)
    repository = ground.repository
    store.platforms.add_project(repository, project)
    assert store.platforms.repositories_of(project) == [repository]
    assert store.platforms.has_project(repository, project.id)
    assert store.platforms.projects_of(repository, root, ALL) == [project.id]
    for _ in range(2):
        store.platforms.remove_project(repository, project)
        assert not store.platforms.has_project(repository, project.id)
        assert store.platforms.projects_of(repository, root, ALL) == []


def test_a_second_repository_of_the_same_platform_is_refused(store: Store, root: User, project: Project) -> None:
    ground = Ground.of(store, root, project)
    contrib = store.platforms.add_repository(ground.platform, {"name": "contrib"})
    with pytest.raises(InvalidInput, match="error.*`main`"):  # the client looks for the word
        store.platforms.add_project(contrib, project)
    assert not store.platforms.has_project(contrib, project.id)
    own = store.platforms.repositories([store.platforms.by_name("root_personal").id])[0]
    store.platforms.add_project(own, project)
    assert {repository.id for repository in store.platforms.repositories_of(project)} == {own.id, ground.repository.id}


def test_a_project_that_leaves_takes_what_it_published_along(store: Store, root: User, project: Project) -> None:
    ground = Ground.of(store, root, project)
    other = store.projects.create(root, {"name": "other"})
    store.platforms.add_project(ground.repository, other)
    mine = ground.mark_published(ground.end(ground.queue()))
    theirs = ground.mark_published(ground.end(ground.queue(project=other)))
    assert store.build_lists.stale_repositories() == []
    store.platforms.remove_project(ground.repository, project)
    assert store.build_lists.stale_repositories() == [ground.repository.id]
    assert [found.id for found in store.build_lists.published(ground.repository.id)] == [theirs.id]
    assert (ground.again(mine).status, ground.again(mine).published_into) == (6000, None)
    store.build_lists.set_fresh(ground.repository)  # as it was before the project left
    assert store.build_lists.stale_repositories() == [ground.repository.id]
    store.build_lists.set_fresh(store.platforms.repository(ground.repository.id))
    assert store.build_lists.stale_repositories() == []


def test_a_project_that_published_nothing_leaves_nothing_to_write(store: Store, root: User, project: Project) -> None:
    ground = Ground.of(store, root, project)
    ground.end(ground.queue())
    store.platforms.remove_project(ground.repository, project)
    assert store.build_lists.stale_repositories() == []


def test_a_locked_repository_is_written_anew_when_it_is_unlocked(store: Store, root: User, project: Project) -> None:
    ground = Ground.of(store, root, project)
    ground.mark_published(ground.end(ground.queue()))
    locked = store.platforms.update_repository(ground.repository, {"is_locked": True})
    store.platforms.remove_project(ground.repository, project)
    assert store.build_lists.stale_repositories() == []
    store.platforms.update_repository(locked, {"is_locked": False})
    assert store.build_lists.stale_repositories() == [ground.repository.id]


def test_a_deleted_project_leaves_its_repositories(store: Store, root: User, project: Project) -> None:
    ground = Ground.of(store, root, project)
    made = ground.mark_published(ground.end(ground.queue(), 0, package()))
    store.projects.delete(project)
    assert store.build_lists.stale_repositories() == [ground.repository.id]
    assert store.build_lists.published(ground.repository.id) == []
    with pytest.raises(NotFound):
        store.build_lists.get(made.id)
    store.runs.remove(ground.run(made))
    assert [found.id for found in store.projects.removable()] == [project.id]
    store.projects.remove(project)
    assert store.platforms.projects_of(ground.repository, root, ALL) == []
    assert store.platforms.repository(ground.repository.id).stale == 1


# -- architectures ---------------------------------------------------------------------------------------------------


def test_architectures_keep_their_numbers(store: Store) -> None:
    first = store.platforms.arches(["x86_64", "aarch64"])
    assert [arch.name for arch in first] == ["x86_64", "aarch64"]
    later = store.platforms.arches(["riscv64", "aarch64", "x86_64", "aarch64"])
    assert later[:2] == first
    assert [arch.name for arch in later] == ["x86_64", "aarch64", "riscv64"]
    assert store.platforms.arches(["aarch64"]) == first[1:]
    assert store.platforms.arch(first[1].id) == first[1]


# -- a home from before ----------------------------------------------------------------------------------------------


def test_a_database_from_before_package_builds_gets_personal_platforms(tmp_path: Path) -> None:
    path = tmp_path / "polylocal.db"
    old = Migrated(path)
    migrations.apply(old, stop_before="0006_packages")
    now = "2026-01-01T00:00:00.000000+00:00"
    for number, name in enumerate(("root", "Ann"), 1):
        columns = "id, username, email, is_superuser, created_at"
        row = (number, name, f"{name}@x.y", number == 1, now)
        old.execute(f"insert into users ({columns}) values (?, ?, ?, ?, ?)", row)
    old.execute(
        "insert into projects (uuid, user_id, name, created_at, updated_at) values ('u', 2, 'p', ?, ?)", (now, now)
    )
    old.conn.commit()
    assert "platforms" not in old.table_names()
    old.close()
    store = Store(path)
    ann = store.users.by_name_or_address("ANN@X.Y")
    assert ann
    assert ann.username == "Ann"
    platforms = store.platforms.page(ann, ALL)
    assert [(p.name, p.owner, p.platform_type, p.created_at) for p in platforms] == [
        ("root_personal", "root", "personal", now),
        ("Ann_personal", "Ann", "personal", now),
    ]
    repositories = store.platforms.repositories(platform.id for platform in platforms)
    assert [(r.platform_name, r.name, r.publish_without_qa) for r in repositories] == [
        ("root_personal", "main", True),
        ("Ann_personal", "main", True),
    ]
    project = store.projects.get("Ann", "p")
    assert (project.is_package, project.default_branch) == (True, "master")
    ground = Ground.of(store, ann, project)
    assert ground.end(ground.queue()).status == 0
    store.users.add("new")
    assert store.platforms.by_name("new_personal").platform_type == "personal"
    store.close()


def test_a_database_from_before_with_names_that_differ_by_case_can_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "polylocal.db"
    old = Migrated(path)
    migrations.apply(old, stop_before="0006_packages")
    for name in ("ann", "Ann"):
        row = (name, 1, "2026-01-01T00:00:00.000000+00:00")
        old.execute("insert into users (username, is_superuser, created_at) values (?, ?, ?)", row)
    old.conn.commit()
    old.close()
    store = Store(path)
    assert {user.username for user in (store.users.by_id(1), store.users.by_id(2))} == {"ann", "Ann"}
    store.close()


def test_other_runs_know_nothing_of_package_builds(store: Store, root: User, project: Project) -> None:

    run = store.runs.insert(project, root, NewRun(Kind.JOB))
    assert store.runs.transition(run, Status.RUNNING)
    with pytest.raises(NotFound):
        store.build_lists.of_run(run.pk)
