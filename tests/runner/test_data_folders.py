"""Data folders in the containers of every kind of run, and the end of a run whose folder is missing."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from support import eventually

from polylocal.engine.plan import ContainerPlan, Mount
from polylocal.files.data_folders import DataFolder
from polylocal.statuses import Kind
from polylocal.store.rows import Run

from .conftest import Rig, Supervise, plan_of


def given(rig: Rig, **folders: Any) -> None:
    data = {name: DataFolder(**folder) for name, folder in folders.items()}
    rig.settings = rig.settings.model_copy(update={"data": data})


def of_kind(rig: Rig, kind: Kind, **sections: Any) -> Run:
    if kind is Kind.JOB:
        return rig.submit(**sections)
    return rig.experiment(**sections) if kind is Kind.EXPERIMENT else rig.server(kind, **sections)


@pytest.mark.parametrize("kind", [Kind.JOB, Kind.EXPERIMENT, Kind.NOTEBOOK, Kind.TENSORBOARD])
def test_every_kind_has_what_it_names_and_what_every_run_sees(
    rig: Rig, supervise: Supervise, plans: list[ContainerPlan], tmp_path: Path, kind: Kind
) -> None:
    named = tmp_path / "named"
    named.mkdir()
    given(
        rig,
        common={"path": tmp_path, "mount": "/data", "always": True, "read_only": True},
        named={"path": named},
        other={"path": named},
    )
    run = of_kind(rig, kind, environment={"data_refs": ["named"]})
    supervise(lambda: plans)
    eventually(lambda: rig.again(run).status in ("running", "succeeded", "failed"))
    plan = plan_of(plans, run)
    targets = {str(mount.target): mount for mount in plan.mounts}
    assert targets["/data"] == Mount(tmp_path, PurePosixPath("/data"), read_only=True)
    assert targets["/plx-data/named"] == Mount(named, PurePosixPath("/plx-data/named"))
    assert "/plx-data/other" not in targets
    assert plan.env["POLYAXON_DATA_PATHS"] == '{"common": "/data", "named": "/plx-data/named"}'


@pytest.mark.parametrize(("said", "seen"), [(True, {"a", "b"}), (False, {"b"}), (["a"], {"a", "b"})])
def test_the_older_section_names_them_all_or_some(
    rig: Rig, plans: list[ContainerPlan], tmp_path: Path, said: object, seen: set[str]
) -> None:
    given(rig, a={"path": tmp_path}, b={"path": tmp_path, "mount": "/data", "always": True})
    rig.run(rig.submit(environment={"persistence": {"data": said}}))
    assert set(json.loads(plans[-1].env["POLYAXON_DATA_PATHS"])) == seen


@pytest.mark.parametrize(("always", "sections"), [(True, {}), (False, {"environment": {"data_refs": ["a"]}})])
def test_a_folder_that_has_gone_fails_the_run(
    rig: Rig, plans: list[ContainerPlan], tmp_path: Path, always: bool, sections: dict[str, Any]
) -> None:
    given(rig, a={"path": tmp_path / "gone", "always": always})
    run = rig.run(rig.submit(**sections))
    assert (run.status, plans) == ("failed", [])
    wanted = f"the data folder `a` does not exist: create {tmp_path / 'gone'}, or change polylocal.toml [data]."
    assert rig.message(run) == f"Could not start: {wanted}"


@pytest.mark.parametrize(
    ("environment", "key"),
    [({"data_refs": ["a"]}, "data_refs.0"), ({"persistence": {"data": ["a"]}}, "persistence.data")],
)
def test_a_name_that_the_settings_have_lost_fails_the_run(rig: Rig, environment: dict[str, Any], key: str) -> None:
    run = rig.run(rig.submit(environment=environment))
    wanted = f"Could not start: environment.{key}: no data folder `a`; polylocal.toml [data] names none."
    assert (run.status, rig.message(run)) == ("failed", wanted)
