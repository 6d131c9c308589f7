"""A small build farm with users, platforms, repositories and projects, made once and copied for each test."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from api_support import api_context
from in_process import InProcess
from starlette.testclient import TestClient

from polylocal.api.api_context import ApiContext
from polylocal.api.app import build
from polylocal.settings import Settings, load
from polylocal.store import Store
from polylocal.store.rows import User

from ..conftest import tar_of
from .farm import CODE, PASSWORD, PEOPLE, Farm, Ids, Person, people


@dataclass(frozen=True)
class StoredFarm:
    home: Path
    ids: Ids


@pytest.fixture(scope="session")
def farm_at_rest(tmp_path_factory: pytest.TempPathFactory) -> StoredFarm:
    """The home folder of a farm. Tests copy it, since creating it takes longer than most tests."""
    home = tmp_path_factory.mktemp("farm")
    store = Store(load(home=home).folders.database)
    context = api_context(load(home=home), store)
    users = {
        name: store.users.add(
            name, is_superuser=name == "root", password=PASSWORD, email=f"{name.capitalize()}@example.org"
        )
        for name in PEOPLE
    }
    tokens = {name: store.users.new_token(user) for name, user in users.items()}
    with InProcess(build(context)) as http:
        ids = _fill(context, people(http, {name: user.id for name, user in users.items()}, tokens), tokens)
    store.close()
    return StoredFarm(home, ids)


def _fill(context: ApiContext, known: Mapping[str, Person], tokens: Mapping[str, str]) -> Ids:
    root, ivan, olga = known["root"], known["ivan"], known["olga"]
    arches = root.get("arches.json").json()["architectures"]
    kind = {"description": "d", "distrib_type": "deb", "build_image": "polylocal/busybox:test", "visibility": "open"}
    rosa_platform = root.create("platforms.json", "platform", name="rosa2012", **kind)
    lts_platform = root.create("platforms.json", "platform", name="rosa_lts", owner_id=olga.id, **kind)
    rosa = root.create("repositories.json", "repository", platform_id=rosa_platform, name="main", description="d")
    contrib = root.create("repositories.json", "repository", platform_id=rosa_platform, name="contrib", description="d")
    lts = root.create(
        "repositories.json",
        "repository",
        **{"platform_id": lts_platform, "name": "main", "description": "d", "publish_without_qa": False},
    )
    own = {"owner_id": ivan.id, "owner_type": "User", "is_package": True, "description": "d"}
    evil_tools = ivan.create("projects.json", "project", name="evil_tools", visibility="open", **own)
    secret_tools = ivan.create("projects.json", "project", name="secret_tools", visibility="hidden", **own)
    for repository in (rosa, lts):
        root.change("PUT", f"repositories/{repository}/add_project.json", {"project_id": evil_tools})
    mine = ivan.get(f"projects/{secret_tools}.json").json()["project"]["repositories"]
    commits = [
        context.repository(context.store.projects.by_id(project)).upload(io.BytesIO(tar_of(CODE)), "ivan")
        for project in (evil_tools, secret_tools)
    ]
    return Ids(
        people={name: person.id for name, person in known.items()},
        tokens=tokens,
        arch=arches[0]["id"],
        arch_name=arches[0]["name"],
        evil_tools=evil_tools,
        commit=commits[0],
        secret_tools=secret_tools,
        secret_commit=commits[1],
        rosa_platform=rosa_platform,
        rosa=rosa,
        contrib=contrib,
        lts_platform=lts_platform,
        lts=lts,
        personal_platform=mine[0]["platform"]["id"],
        personal=mine[0]["id"],
    )


def copy(made: StoredFarm, home: Path) -> None:
    """Copy without git's sample hooks, which are most of the files."""
    shutil.copytree(made.home, home, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sample"))


@pytest.fixture(scope="module")
def shared(farm_at_rest: StoredFarm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One farm for all rows of a table: each row creates its own objects, and changes no others."""
    home = tmp_path_factory.mktemp("shared")
    copy(farm_at_rest, home)
    ids = farm_at_rest.ids
    context = api_context(load(home=home), Store(load(home=home).folders.database))
    with InProcess(build(context)) as http:
        yield Farm(context, context.store, ids, **people(http, ids.people, ids.tokens))
    context.store.close()


@pytest.fixture
def store(settings: Settings, farm_at_rest: StoredFarm) -> Iterator[Store]:
    copy(farm_at_rest, settings.home)
    made = Store(settings.folders.database)
    yield made
    made.close()


@pytest.fixture
def root(store: Store) -> User:
    return store.users.get("root")


@pytest.fixture
def farm(context: ApiContext, store: Store, http: TestClient, farm_at_rest: StoredFarm) -> Farm:
    ids = farm_at_rest.ids
    return Farm(context, store, ids, **people(http, ids.people, ids.tokens))
