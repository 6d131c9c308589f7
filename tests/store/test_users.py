"""Users, passwords, tokens and browser sessions."""

from __future__ import annotations

import pytest

from polylocal.errors import InvalidInput, NotFound
from polylocal.settings import Settings
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, User


def test_users_are_found_by_name_in_the_order_they_came(store: Store, root: User) -> None:
    other = store.users.add("a-b_1")
    assert store.users.get("root") == root
    assert [user.username for user in store.users.all()] == ["root", other.username]
    assert (root.is_superuser, other.is_superuser, other.is_active) == (True, False, True)


def test_an_unknown_user(store: Store) -> None:
    with pytest.raises(NotFound):
        store.users.get("nobody")


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a@b", "ü", "x" * 157, "a/b", "a\n"])
def test_names_that_the_clients_could_not_read_back_are_refused(store: Store, name: str) -> None:
    with pytest.raises(InvalidInput, match="letters, digits"):
        store.users.add(name)


def test_a_name_is_taken_once(store: Store, root: User) -> None:
    with pytest.raises(InvalidInput, match="`root` already exists"):
        store.users.add(root.username)


@pytest.mark.slow
def test_passwords(store: Store) -> None:
    user = store.users.add("a", password="correct horse")
    assert store.users.check_password("a", "correct horse") == user
    assert store.users.check_password("a", "wrong horse") is None
    assert store.users.check_password("nobody", "correct horse") is None


def test_who_has_no_password_cannot_log_in_with_one(store: Store, root: User) -> None:
    assert store.users.check_password(root.username, "") is None


def test_a_short_password_is_refused(store: Store) -> None:
    with pytest.raises(InvalidInput, match="8 characters"):
        store.users.add("a", password="short")


# -- tokens ------------------------------------------------------------------------------------------------------


def test_a_token_is_its_user(store: Store, root: User) -> None:
    token = store.users.new_token(root)
    found = store.users.by_token(token)
    assert found is not None
    assert (len(token), found.user, found.run_pk) == (40, root, None)


@pytest.mark.parametrize("token", ["", "0" * 40, "' or 1=1 --"])
def test_an_unknown_token_is_nobody(store: Store, root: User, token: str) -> None:
    store.users.new_token(root)
    assert store.users.by_token(token) is None


def test_a_hash_is_no_token(store: Store, root: User) -> None:
    store.users.new_token(root)
    with store.database.read() as db:
        kept = db.execute("select hash from tokens").fetchone()[0]
    assert store.users.by_token(kept) is None


def test_a_token_may_be_kept_twice(store: Store, root: User) -> None:
    for _ in range(2):
        store.users.save_token(root, "from-a-file")
    assert store.users.by_token("from-a-file") is not None
    with store.database.read() as db:
        assert db.execute("select count(*) from tokens").fetchone()[0] == 1


def test_a_run_has_one_token_at_a_time(store: Store, root: User, project: Project) -> None:
    run = store.runs.insert(project, root, NewRun(Kind.JOB))
    first, second = (store.users.new_token(root, run.pk) for _ in range(2))
    found = store.users.by_token(second)
    assert store.users.by_token(first) is None
    assert found is not None
    assert found.run_pk == run.pk


def test_neither_tokens_nor_passwords_are_in_the_files(store: Store, root: User, settings: Settings) -> None:
    secrets = [store.users.new_token(root) for _ in range(3)]
    store.users.save_token(root, "a-token-from-a-file")
    store.users.add("a", password="correct horse")
    store.close()
    written = b"".join(path.read_bytes() for path in settings.home.glob("polylocal.db*"))
    assert root.username.encode() in written
    for secret in (*secrets, "a-token-from-a-file", "correct horse"):
        assert secret.encode() not in written


# -- sessions ----------------------------------------------------------------------------------------------------


def test_a_session_is_its_user_until_it_ends(store: Store, root: User) -> None:
    first, second = (store.users.new_session(root) for _ in range(2))
    found = store.users.by_token(first, is_session=True)
    assert found is not None
    assert (found.user, found.run_pk) == (root, None)
    for _ in range(2):
        store.users.end_session(first)
    assert store.users.by_token(first, is_session=True) is None
    assert store.users.by_token(second, is_session=True) is not None


def test_a_session_is_no_token_of_the_api_and_a_token_is_no_session(store: Store, root: User) -> None:
    session, token = store.users.new_session(root), store.users.new_token(root)
    assert store.users.by_token(session) is None
    assert store.users.by_token(token, is_session=True) is None
    store.users.end_session(token)
    assert store.users.by_token(token) is not None


def test_a_runs_token_opens_no_pages(store: Store, root: User, project: Project) -> None:
    run = store.runs.insert(project, root, NewRun(Kind.NOTEBOOK))
    assert store.users.by_token(store.users.new_token(root, run.pk), is_session=True) is None


def test_a_session_is_kept_as_a_hash(store: Store, root: User) -> None:
    session = store.users.new_session(root)
    with store.database.read() as db:
        assert session not in [row["hash"] for row in db.execute("select hash from tokens")]


# -- changed and deleted -----------------------------------------------------------------------------------------


def test_admins_come_and_go_and_the_last_one_stays(store: Store, root: User) -> None:
    other = store.users.add("other")
    store.users.update(other, is_superuser=True)
    store.users.update(root, is_superuser=False)
    assert (store.users.get("root").is_superuser, store.users.get("other").is_superuser) == (False, True)
    for change in ({"is_superuser": False}, {"is_active": False}, {"is_superuser": False, "is_active": False}):
        with pytest.raises(InvalidInput, match="last active admin"):
            store.users.update(other, **change)
        assert (store.users.get("other").is_superuser, store.users.get("other").is_active) == (True, True)
    with pytest.raises(InvalidInput, match="last active admin"):
        store.users.delete(other)
    assert store.users.get("other").id == other.id


def test_an_admin_who_is_not_active_does_not_count(store: Store, root: User) -> None:
    other = store.users.add("other", is_superuser=True)
    store.users.update(other, is_active=False)
    with pytest.raises(InvalidInput, match="last active admin"):
        store.users.update(root, is_active=False)


@pytest.mark.slow
def test_who_is_not_active_can_not_log_in(store: Store, root: User) -> None:
    user = store.users.add("a", password="correct horse")
    store.users.update(user, is_active=False)
    assert store.users.check_password("a", "correct horse") is None
    store.users.update(user, is_active=True)
    assert store.users.check_password("a", "correct horse") == user


def test_nothing_else_of_a_user_is_set(store: Store, root: User) -> None:
    with pytest.raises(TypeError, match="username"):
        store.users.update(root, username=True)


def test_a_deleted_user_leaves_nothing(store: Store, root: User, project: Project) -> None:
    user = store.users.add("other")
    tokens = store.users.new_token(user), store.users.new_session(user)
    store.bookmarks.add(user, project)
    store.searches.add(user, project, Kind.JOB, {"query": {}})
    store.activities.add(user, "updated", project)
    store.users.delete(user)
    with pytest.raises(NotFound):
        store.users.get("other")
    assert store.users.by_token(tokens[0]) is None
    assert store.users.by_token(tokens[1], is_session=True) is None
    for table in ("tokens", "bookmarks", "searches", "activities"):
        with store.database.read() as db:
            assert db.execute(f"select count(*) from {table}").fetchone()[0] == 0
    assert store.users.add("other").id


def test_who_has_projects_or_runs_is_not_deleted(store: Store, root: User, project: Project) -> None:
    owner, helper = store.users.add("owner"), store.users.add("helper")
    theirs = store.projects.create(owner, {"name": "theirs"})
    run = store.runs.insert(project, helper, NewRun(Kind.JOB))
    for user in (owner, helper):
        with pytest.raises(InvalidInput, match=f"`{user.username}` has projects or runs"):
            store.users.delete(user)
    store.projects.archive(theirs)
    with pytest.raises(InvalidInput, match="has projects or runs"):
        store.users.delete(owner)
    store.runs.remove(run)
    store.projects.delete(theirs)
    store.projects.remove(theirs)
    for user in (owner, helper):
        store.users.delete(user)
    assert [user.username for user in store.users.all()] == ["root"]


def test_the_pages_that_one_session_opened_are_counted(store: Store, root: User, project: Project) -> None:
    run = store.runs.insert(project, root, NewRun(Kind.NOTEBOOK, config={}))
    session = store.users.new_session(root)
    first, *others = (store.users.new_page_session(session, run.pk) for _ in range(21))
    assert store.users.by_page_session(str(first), run.pk) is None
    assert all(store.users.by_page_session(str(other), run.pk) for other in others)


def test_a_page_ends_with_its_session(store: Store, root: User, project: Project) -> None:
    run = store.runs.insert(project, root, NewRun(Kind.NOTEBOOK, config={}))
    session = store.users.new_session(root)
    page = store.users.new_page_session(session, run.pk)
    assert page
    found = store.users.by_page_session(page, run.pk)
    assert found
    assert (found.user.username, found.run_pk) == ("root", None)
    assert store.users.by_page_session(page, run.pk + 1) is None
    store.users.end_session(session)
    assert store.users.by_page_session(page, run.pk) is None
    assert store.users.new_page_session(session, run.pk) is None
