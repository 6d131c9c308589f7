"""The checklist for a kind of runs. A new kind fails here for each missing part."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from polylocal.api import app, streams
from polylocal.api.kinds import TRAITS
from polylocal.api.run_objects import VALUES
from polylocal.api.server_programs import PROGRAMS
from polylocal.api.shapes.runs import SHAPES
from polylocal.planning.container import SERVER_PORTS
from polylocal.polyaxonfile.specification import MODELS
from polylocal.runner import outcome
from polylocal.runner.building import BuildWork
from polylocal.runner.container_operation import ContainerWork
from polylocal.runner.execution import Work
from polylocal.runner.work import WORKS, CommandWork, ServerWork
from polylocal.statuses import POLYAXON_KINDS, Kind
from polylocal.store import Store, queries

CARRIED_OUT = [kind for kind in Kind if kind is not Kind.GROUP]  # a group only creates experiments


@pytest.mark.parametrize("kind", CARRIED_OUT)
def test_a_kind_has_its_work(kind: Kind) -> None:
    """`runner.work`: its execution, its time limit, its folders, the steps before its end."""
    assert isinstance(WORKS.get(kind), Work), f"runner.work.WORKS has no entry for {kind}"


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("polyaxonfile.specification.MODELS", MODELS),
        ("api.kinds.TRAITS", TRAITS),
        ("runner.outcome.STOPPED", outcome.STOPPED),
        ("runner.outcome.DELETED", outcome.DELETED),
    ],
)
def test_a_kind_has_its_entry(kind: Kind, name: str, table: Mapping[Kind, object]) -> None:
    assert table.get(kind), f"{name} has no entry for {kind}"


@pytest.mark.parametrize("kind", CARRIED_OUT)
def test_a_server_has_a_port_and_takes_no_slot(kind: Kind) -> None:
    is_server = isinstance(WORKS[kind], ServerWork)
    assert (kind.is_server, kind in SERVER_PORTS, not kind.takes_slot) == (is_server, is_server, is_server)


@pytest.mark.parametrize("kind", CARRIED_OUT)
def test_a_kind_with_a_container_names_its_image(kind: Kind) -> None:
    if isinstance(WORKS[kind], ContainerWork):
        assert type(WORKS[kind]).image is not ContainerWork.image


def test_the_database_takes_every_kind_and_no_other(store: Store) -> None:
    with store.database.read() as db:
        [text] = db.execute("select sql from sqlite_master where type = 'table' and name = 'runs'").fetchone()
    [words] = re.findall(r"check \(kind in \(([^)]*)\)\)", text)
    assert {word.strip(" '") for word in words.split(",")} == set(Kind), "the check of runs.kind needs a migration"


@pytest.mark.parametrize("kind", POLYAXON_KINDS)
def test_a_kind_of_the_platform_has_its_endpoints(kind: Kind) -> None:
    known = {(endpoint.method, endpoint.path) for endpoint in app.ENDPOINTS}
    one = f"/api/v1/{{user}}/{{project}}/{kind.plural}/{{id:id}}"
    needed = {
        ("GET", one.rpartition("/")[0]),
        ("GET", one),
        ("PATCH", one),
        ("DELETE", one),
        ("GET", f"{one}/statuses"),
    }
    assert needed <= known, f"the API has no {needed - known}"


@pytest.mark.parametrize("kind", POLYAXON_KINDS)
def test_a_kind_of_the_platform_has_its_shapes(kind: Kind) -> None:
    assert SHAPES.get(kind), f"api.shapes.runs.SHAPES has no entry for {kind}"
    assert VALUES.get(kind), f"api.run_objects.VALUES has no entry for {kind}"


def test_a_server_has_its_program() -> None:
    """`api.server_programs`: the paths and the credentials of its page."""
    assert set(PROGRAMS) == {kind for kind in Kind if kind.is_server}


@pytest.mark.parametrize("kind", POLYAXON_KINDS)
def test_the_traits_of_a_kind_agree_with_its_work(kind: Kind) -> None:
    traits, work = TRAITS[kind], WORKS.get(kind)
    assert traits.is_carried_out == (work is not None)
    assert traits.makes_image == isinstance(work, BuildWork)


@pytest.mark.parametrize("kind", POLYAXON_KINDS)
def test_the_traits_of_a_kind_decide_on_its_endpoints(kind: Kind) -> None:
    """Logs, outputs, charts and streams."""
    one, traits = f"/{{user}}/{{project}}/{kind.plural}/{{id:id}}", TRAITS[kind]
    paths = {endpoint.path.removeprefix("/api/v1") for endpoint in (*app.ENDPOINTS, *streams.ENDPOINTS)}
    found = {word: f"{one}/{word}" in paths for word in ("logs", "logs/stream", "resources", "outputs", "chartviews")}
    by_container = dict.fromkeys(("logs", "logs/stream", "resources"), traits.is_carried_out)
    assert found == {**by_container, "outputs": traits.has_outputs, "chartviews": traits.has_charts}


def test_a_kind_that_runs_commands_needs_a_build() -> None:
    assert {kind for kind in Kind if kind.needs_build} == {
        kind for kind, work in WORKS.items() if isinstance(work, CommandWork)
    }


@pytest.mark.parametrize("kind", POLYAXON_KINDS)
def test_lists_of_a_kind_can_be_filtered(kind: Kind) -> None:
    assert queries.where("status:created", kind).sql
