"""The option `--my-secrets`: which user's secrets a repeated run gets."""

from __future__ import annotations

import pytest
from support import job

from polylocal.api.api_context import ApiContext
from polylocal.polyaxonfile import parse
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import User

from .conftest import Cli


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("command", ["restart", "resume", "copy"])
def test_ones_own_secrets_are_used_only_if_one_says_so(
    command: str, polylocal: Cli, context: ApiContext, store: Store, root: User
) -> None:
    ann = store.users.add("ann")
    for user in ("ann", "root"):
        context.secret_store.write(user, "aws", {"KEY": user})
    specification = parse(job("env", environment={"secret_refs": ["aws"]}), Kind.JOB)
    new = NewRun(Kind.JOB, specification.content, specification.config)
    store.runs.insert(store.projects.create(ann, {"name": "code"}), ann, new)
    assert polylocal(command, "1").code == 0
    assert polylocal(command, "1", "--my-secrets").code == 0
    owners = [store.runs.find(Kind.JOB, number).secrets_user_id for number in (2, 3)]
    assert owners == [ann.id, root.id]


def test_a_secret_is_kept_for_the_user_of_that_name_and_for_no_later_one(
    polylocal: Cli, context: ApiContext, store: Store, root: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polylocal.cli import secrets

    monkeypatch.setattr(secrets, "_values", lambda variables: ["value"])
    earlier = store.users.add("ann")
    assert polylocal("secret", "set", "aws", "KEY", "--user", "ann").code == 0
    assert context.secret_store.read("ann", "aws", identity=earlier.identity) == {"KEY": "value"}
    store.users.delete(earlier)
    later = store.users.add("ann")
    assert polylocal("secret", "set", "pip", "KEY", "--user", "ann").code == 0
    assert context.secret_store.names("ann") == ["pip"]
    assert context.secret_store.read("ann", "pip", identity=later.identity) == {"KEY": "value"}
