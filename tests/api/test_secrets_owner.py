"""The owner of the secrets of a cloned run."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from support import job

from polylocal.api.api_context import ApiContext
from polylocal.statuses import Kind
from polylocal.store import Store
from polylocal.store.rows import Project, Run, User

from .conftest import Caller, tar_of

PA = "/api/v1/ann/code"
AWS = {"environment": {"secret_refs": ["aws"]}}
OF_THE_BUILD = {"build": {"image": "busybox", "environment": {"secret_refs": ["aws"]}}}


@pytest.fixture(autouse=True)
def code(store: Store, ann: User, context: ApiContext) -> Project:
    """Ann's project; she and the admin have a secret of the same name."""
    context.secret_store.write("ann", "aws", {"KEY": "ann's"})
    context.secret_store.write("root", "aws", {"KEY": "root's"})
    return store.projects.create(ann, {"name": "code"})


def started(caller: Caller, **sections: Any) -> int:
    answer = caller.post(f"{PA}/jobs/", {"config": job("env", **sections)})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def again(caller: Caller, run_id: int, how: str = "restart", **body: Any) -> Any:
    return caller.post(f"{PA}/jobs/{run_id}/{how}/", body)


def owner_of(store: Store, run_id: int, kind: Kind = Kind.JOB) -> str | None:
    user_id = store.runs.find(kind, run_id).secrets_user_id
    return store.users.by_id(user_id).username if user_id else None


def test_a_new_run_uses_the_secrets_of_its_creator(store: Store, as_ann: Caller, api: Caller) -> None:
    assert owner_of(store, started(as_ann, **AWS)) == "ann"
    assert owner_of(store, started(api, **AWS)) == "root"


@pytest.mark.parametrize("how", ["restart", "resume", "copy"])
def test_an_admin_who_runs_it_again_uses_the_first_owners_secrets(
    how: str, store: Store, as_ann: Caller, api: Caller
) -> None:
    made = again(api, started(as_ann, **AWS), how)
    assert made.status_code == 201
    assert store.runs.find(Kind.JOB, made.json()["id"]).user == "root"
    assert owner_of(store, made.json()["id"]) == "ann"
    first = api.get(f"{PA}/jobs/{made.json()['id']}/statuses/").json()["results"][0]
    assert first["message"] == "With the secrets of ann"
    # the same for copies of copies, with other content
    further = again(api, made.json()["id"], how, content={"run": {"cmd": "env | sort"}})
    assert owner_of(store, further.json()["id"]) == "ann"
    assert owner_of(store, again(as_ann, further.json()["id"], how).json()["id"]) == "ann"


@pytest.mark.parametrize("sections", [AWS, OF_THE_BUILD])
def test_an_admin_must_request_to_use_their_own_secrets(
    sections: dict[str, Any], store: Store, as_ann: Caller, api: Caller
) -> None:
    made = again(api, started(as_ann, **sections), secrets="mine")
    assert owner_of(store, made.json()["id"]) == "root"
    assert again(api, 1, secrets="theirs").status_code == 400


def test_an_admin_who_adds_a_secrets_name_to_others_code_does_not_give_their_own(
    store: Store, as_ann: Caller, api: Caller
) -> None:
    made = again(api, started(as_ann), content=AWS)
    assert owner_of(store, made.json()["id"]) == "ann"
    plain = again(api, started(as_ann)).json()["id"]
    assert owner_of(store, again(api, plain, content=AWS).json()["id"]) == "ann"


def test_a_projects_owner_adds_their_own_secrets_to_what_an_admin_ran_without(
    store: Store, as_ann: Caller, api: Caller
) -> None:
    made = again(as_ann, started(api), content=AWS)
    assert made.status_code == 201, made.text
    assert owner_of(store, made.json()["id"]) == "ann"


@pytest.mark.parametrize("sections", [AWS, OF_THE_BUILD])
@pytest.mark.parametrize("body", [{}, {"content": {"run": {"cmd": "env > /plx-outputs/found"}}}, {"content": AWS}])
def test_a_projects_owner_can_not_run_code_with_an_admins_secrets(
    sections: dict[str, Any], body: dict[str, Any], store: Store, as_ann: Caller, api: Caller
) -> None:
    run_id = started(api, **sections)
    for how in ("restart", "resume", "copy"):
        refused = again(as_ann, run_id, how, **body)
        assert refused.status_code == 403
        assert f"job/{run_id} names secrets of another user" in refused.json()["detail"]
        assert "--my-secrets" in refused.json()["detail"]
    made = again(as_ann, run_id, secrets="mine", **body)
    assert owner_of(store, made.json()["id"]) == "ann"
    assert owner_of(store, run_id) == "root"


def test_a_resumed_resume_does_not_lead_back_to_another_owner(store: Store, as_ann: Caller, api: Caller) -> None:
    """The second resume uses the outputs of the original, and the content of the first resume."""
    resumed = again(api, started(as_ann), "resume", secrets="mine", content=AWS).json()["id"]
    assert owner_of(store, resumed) == "root"
    assert again(as_ann, resumed, "resume").status_code == 403


def test_without_secrets_all_users_with_access_may_clone(store: Store, as_ann: Caller, api: Caller) -> None:
    of_root = started(api)
    made = again(as_ann, of_root)
    assert made.status_code == 201
    assert owner_of(store, again(as_ann, made.json()["id"], content=AWS).json()["id"]) == "ann"


def test_a_missing_secret_is_reported_with_its_owner(context: ApiContext, as_ann: Caller, api: Caller) -> None:
    run_id = started(as_ann, **AWS)
    context.secret_store.remove("ann", "aws")
    refused = again(api, run_id)
    assert refused.status_code == 400
    assert "ann has no secret `aws`" in refused.text


def test_the_secrets_of_a_deleted_user_belong_to_no_user(
    store: Store, context: ApiContext, code: Project, ann: User, as_ann: Caller, api: Caller
) -> None:
    """They don't belong to a new user of that name either, who may have the same number in the database."""
    bob = store.users.add("bob", is_superuser=True)
    as_bob = Caller(as_ann.http, store.users.new_token(bob))
    context.secret_store.write("bob", "aws", {"KEY": "bob's"}, identity=bob.identity)
    first = started(as_bob, **AWS)
    copied = again(api, first).json()["id"]
    assert owner_of(store, copied) == "bob"
    store.runs.remove(store.runs.find(Kind.JOB, first))
    store.users.delete(bob)
    assert owner_of(store, copied) is None
    new = store.users.add("bob")
    assert new.id == bob.id
    refused = again(api, copied)
    assert refused.status_code == 403
    assert "was deleted" in refused.json()["detail"]
    as_new = Caller(as_ann.http, store.users.new_token(new))
    own = store.projects.create(new, {"name": "own"})
    refused = as_new.post(f"/api/v1/bob/{own.name}/jobs/", {"config": job("env", **AWS)})
    assert refused.status_code == 400
    assert "an earlier user named bob" in refused.text


@pytest.mark.parametrize("kind", [Kind.JOB, Kind.EXPERIMENT, Kind.BUILD])
def test_ci_uses_the_secrets_of_the_projects_owner_whoever_brings_the_code(
    kind: Kind, store: Store, as_ann: Caller, api: Caller
) -> None:
    file: dict[str, Any] = {**job("env", **AWS), "kind": str(kind)}
    if kind is Kind.BUILD:
        del file["run"]
    assert as_ann.post(f"{PA}/ci").status_code == 201
    files = {"repo": ("x", tar_of({"polyaxonci.yml": yaml.safe_dump(file)})), "json": (None, '{"sync": true}')}
    assert api.put(f"{PA}/repo/upload/", files=files).status_code == 201
    assert owner_of(store, 1, kind) == "ann"
    assert store.runs.find(kind, 1).user == "root"


def test_other_users_can_not_change_the_code_of_a_run_with_secrets(
    store: Store, as_ann: Caller, api: Caller, token_of: Any
) -> None:
    """Its build uses the code of the row at the time when its turn comes."""
    run: Run = store.runs.find(Kind.JOB, started(api, **AWS))
    body = {"commit": "a" * 40}
    refused = as_ann.post(f"{PA}/jobs/{run.id}/coderef/", body)
    assert refused.status_code == 403
    assert "names secrets of another user" in refused.json()["detail"]
    assert api.post(f"{PA}/jobs/{run.id}/coderef/", body).status_code == 201
    assert Caller(as_ann.http, token_of(run)).post(f"{PA}/jobs/{run.id}/coderef/", body).status_code == 201
    plain = started(api)
    assert as_ann.post(f"{PA}/jobs/{plain}/coderef/", body).status_code == 201
