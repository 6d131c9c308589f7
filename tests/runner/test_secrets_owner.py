"""The values that builds, runs and experiments get are those of the user whose secrets they name."""

from __future__ import annotations

from typing import Any

import pytest
from support import job

from polylocal.engine.plan import ContainerPlan
from polylocal.errors import NotFound
from polylocal.files.secrets import SecretStore
from polylocal.polyaxonfile import parse
from polylocal.runner.following import mask_of
from polylocal.statuses import Kind
from polylocal.store import NewRun
from polylocal.store.rows import Run, User

from .conftest import Rig

AWS = {"environment": {"secret_refs": ["aws"]}}
OF_ANN, OF_ROOT = "of-ann-herself", "of-root-himself"


@pytest.fixture
def ann(rig: Rig) -> User:
    secret_store = SecretStore(rig.settings.folders.secrets)
    secret_store.write("ann", "aws", {"KEY": OF_ANN})
    secret_store.write("root", "aws", {"KEY": OF_ROOT})
    return rig.store.users.add("ann")


def submitted(rig: Rig, user: User, secrets_of: User | None = None, kind: Kind = Kind.JOB, **sections: Any) -> Run:
    content = job("true", "base", **{"kind": str(kind), **AWS, **sections})
    specification = parse(content, kind)
    values = {"group_type": "study", "concurrency": 2} if kind is Kind.GROUP else {}
    new = NewRun(
        kind,
        specification.content,
        specification.config,
        values,
        secrets_user_id=secrets_of.id if secrets_of else None,
    )
    return rig.store.runs.insert(rig.project, user, new)


def test_the_container_and_the_build_get_the_owners_values(
    rig: Rig, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[ContainerPlan] = []
    create = rig.engine.create

    def recorded(plan: ContainerPlan) -> str:
        plans.append(plan)
        return create(plan)

    monkeypatch.setattr(rig.engine, "create", recorded)
    run = rig.built(submitted(rig, rig.user, secrets_of=ann))
    build = rig.store.runs.by_pk(run.build_pk or 0)
    context = rig.context()
    for given in (run, build):
        assert context.secrets(given, rig.specification(given)) == {"KEY": OF_ANN}
        assert mask_of(given, context).hide(OF_ANN.encode()) == b"*" * len(OF_ANN)
        assert mask_of(given, context).hide(OF_ROOT.encode()) == OF_ROOT.encode()
    rig.run(run)
    assert plans[-1].name == run.container_name
    assert plans[-1].env["KEY"] == OF_ANN


def test_a_build_with_the_secrets_of_one_user_is_not_used_for_another(rig: Rig, ann: User) -> None:
    first = rig.built(submitted(rig, ann))
    second = rig.built(submitted(rig, rig.user))
    third = rig.built(submitted(rig, rig.user, secrets_of=ann))
    assert first.build_pk != second.build_pk
    assert third.build_pk == first.build_pk


def test_a_secret_of_the_build_section_alone_parts_builds_as_well(rig: Rig, ann: User) -> None:
    build = {"build": {"image": "base", **AWS}, "environment": {}}
    runs = [rig.built(submitted(rig, user, **build)) for user in (ann, rig.user)]
    assert runs[0].build_pk != runs[1].build_pk


def test_builds_without_secrets_are_shared_by_all(rig: Rig, ann: User) -> None:
    runs = [rig.built(submitted(rig, user, environment={})) for user in (ann, rig.user)]
    assert runs[0].build_pk == runs[1].build_pk


def test_a_build_that_is_made_again_takes_the_owners_values_again(rig: Rig, ann: User) -> None:
    run = rig.built(submitted(rig, rig.user, secrets_of=ann))
    rig.store.queue.detach_build(run, rig.store.runs.by_pk(run.build_pk or 0))
    further = rig.store.runs.by_pk(rig.built(run).build_pk or 0)
    assert further.pk != run.build_pk
    assert further.secrets_user_id == ann.id


def test_the_experiments_of_a_group_name_what_the_group_names(rig: Rig, ann: User) -> None:
    matrix = {"hptuning": {"matrix": {"x": {"values": [1, 2]}}}}
    group = submitted(rig, rig.user, secrets_of=ann, kind=Kind.GROUP, **matrix)
    rig.tend(group)
    members = rig.members(group)
    assert len(members) == 2
    assert {(member.user, member.secrets_user_id) for member in members} == {("root", ann.id)}


def test_the_experiments_of_a_group_whose_owner_is_gone_are_nobodys(rig: Rig, ann: User) -> None:
    matrix = {"hptuning": {"matrix": {"x": {"values": [1, 2]}}}}
    group = submitted(rig, rig.user, secrets_of=ann, kind=Kind.GROUP, **matrix)
    rig.store.users.delete(ann)
    rig.tend(rig.again(group))
    assert [member.secrets_user_id for member in rig.members(group)] == [None, None]


def test_a_run_whose_owner_is_gone_fails_and_says_so(rig: Rig, ann: User) -> None:
    run = submitted(rig, rig.user, secrets_of=ann)
    rig.store.users.delete(ann)
    done = rig.run(run)
    assert done.status == "failed"
    build = rig.store.runs.by_pk(done.build_pk or 0)
    assert "the user whose secrets" in (rig.message(build) or "")


@pytest.mark.parametrize(
    ("sections", "place"),
    [
        (AWS, "environment.secret_refs.0"),
        ({"build": {"image": "base", **AWS}, "environment": {}}, "build.environment.secret_refs.0"),
    ],
)
def test_secrets_of_a_user_who_is_gone_are_told_by_the_files_own_key(
    rig: Rig, ann: User, sections: dict[str, Any], place: str
) -> None:
    build = rig.store.runs.by_pk(rig.built(submitted(rig, ann, **sections)).build_pk or 0)
    rig.store.runs._set(build.pk, {"secrets_user_id": None})
    build = rig.again(build)
    with pytest.raises(NotFound, match=f"^{place}: the user whose secrets build/"):
        rig.context().secrets(build, rig.specification(build))
