"""Checks of new runs. They write nothing, so that a run can be checked without being created."""

from __future__ import annotations

import pytest

from polylocal.api import bodies, run_creation
from polylocal.api.api_context import ApiContext
from polylocal.errors import InvalidInput
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

from .conftest import put_code

JOB = {"version": 1, "kind": "job", "build": {"image": "busybox"}, "run": {"cmd": "date"}}
SEARCH = {
    "version": 1,
    "kind": "group",
    "hptuning": {"matrix": {"lr": {"values": [1, 2]}}},
    "build": {"image": "busybox", "branch": "master"},
    "run": {"cmd": "echo {{ lr }}"},
}


def content(store: Store) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables."""
    with store.database.read() as db:
        tables = [row["name"] for row in db.execute("select name from sqlite_master where type = 'table'")]
        return {table: [tuple(row) for row in db.execute(f"select * from {table}")] for table in tables}


@pytest.fixture
def code(context: ApiContext, project: Project) -> str:
    """The commit of the project's code."""
    return put_code(context, project, {"train.py": "print(1)\n"})


@pytest.mark.parametrize("kind", [Kind.BUILD, Kind.JOB, Kind.EXPERIMENT, Kind.GROUP, Kind.NOTEBOOK, Kind.TENSORBOARD])
def test_a_check_writes_nothing(
    kind: Kind, code: str, project: Project, root: User, context: ApiContext, store: Store
) -> None:
    whole = SEARCH if kind is Kind.GROUP else {**JOB, "kind": str(kind)}
    file = {
        name: part for name, part in whole.items() if name != "run" or kind in (Kind.JOB, Kind.EXPERIMENT, Kind.GROUP)
    }
    before = content(store)
    new = run_creation.check(project, root, kind, bodies.NewRunBody(content=file), context)
    assert content(store) == before
    made = store.runs.insert(project, root, new)
    assert (made.kind, made.commit, made.status) == (kind, code, "created")


@pytest.mark.parametrize("strategy", ["restart", "resume", "copy"])
def test_a_check_of_a_clone_writes_nothing(
    strategy: str, code: str, project: Project, root: User, context: ApiContext, store: Store
) -> None:
    original = store.runs.insert(project, root, NewRun(Kind.JOB, "", JOB))
    before = content(store)
    body = bodies.Cloning(update_code=True, name="again")
    new = run_creation.check_clone(project, root, original, strategy, body, context)
    assert content(store) == before
    made = store.runs.insert(project, root, new)
    assert (made.original_pk, made.cloning_strategy, made.commit, made.name) == (original.pk, strategy, code, "again")


def test_a_refused_run_leaves_no_reference_to_its_code(
    code: str, project: Project, root: User, context: ApiContext, store: Store
) -> None:
    before = content(store)
    with pytest.raises(InvalidInput, match="There is no build `7`"):
        run_creation.check(project, root, Kind.JOB, bodies.NewRunBody(content=JOB, build_job=7), context)
    assert content(store) == before


def test_runs_of_the_same_commit_share_one_reference(
    code: str, project: Project, root: User, context: ApiContext, store: Store
) -> None:
    def made() -> Run:
        new = run_creation.check(project, root, Kind.JOB, bodies.NewRunBody(content=JOB), context)
        return store.runs.insert(project, root, new)

    assert made().code_id == made().code_id is not None
