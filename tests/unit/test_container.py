"""The plan of a container, from a run and its specification."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from support import build, job

from polylocal.engine import termination
from polylocal.engine.plan import HOME_LABEL, RUN_LABEL, ContainerPlan, Limits, Mount, is_our_name
from polylocal.files.data_folders import DataFolder
from polylocal.planning.container import RunEnvironment, image_name, info, limits, parse_token, plan, token_file
from polylocal.polyaxonfile import Resources, Specification, parse
from polylocal.statuses import Kind
from polylocal.store.rows import Run

UUID = "5a3f"
AROUND = RunEnvironment(
    installation="abcdef",
    node="here",
    network="bridge",
    outputs=Path("/home/me/outputs"),
    handover=Path("/home/me/context"),
    data={},
    api_url="http://host.docker.internal:8000",
    token="secret",
)


def run(**values: Any) -> Run:
    blank: dict[str, Any] = {field.name: None for field in fields(Run)}
    about = {"kind": Kind.JOB, "id": 3, "uuid": UUID, "owner": "root", "project_name": "Quick-Start", "project_id": 9}
    return Run(**{**blank, **about, "project_uuid": "77", **values})


def planned(around: RunEnvironment = AROUND, **sections: Any) -> ContainerPlan:
    return plan(run(), parse(job("echo  hi", **sections), Kind.JOB), "an:image", "/bin/bash", around)


def test_names_are_the_documented_ones() -> None:
    assert planned().name == f"plx-job-{UUID}"
    assert image_name(run(kind=Kind.BUILD)) == f"quick-start_9:{UUID}"


def test_the_command_goes_through_the_shell() -> None:
    assert planned().command == ["/bin/bash", "-c", "echo  hi"]
    assert planned().image == "an:image"


def test_a_command_has_a_parent_that_waits_for_all_that_it_has_started() -> None:
    assert planned().entrypoint == termination.entrypoint("/bin/bash")
    assert not any(line.lstrip().startswith("#") for line in planned().entrypoint[-2].splitlines())


def test_outputs_can_be_written_and_the_hand_over_files_only_read() -> None:
    assert planned().mounts == [
        Mount(AROUND.outputs, PurePosixPath("/plx-outputs/root/Quick-Start/jobs/3")),
        Mount(AROUND.handover, PurePosixPath("/plx-context"), read_only=True),
    ]


def test_data_folders_are_mounted_and_listed_by_name() -> None:
    around = replace(AROUND, data={"b": DataFolder(path=Path("/y")), "a": DataFolder(path=Path("/x"))})
    found = planned(around)
    wanted = [Mount(Path("/x"), PurePosixPath("/plx-data/a")), Mount(Path("/y"), PurePosixPath("/plx-data/b"))]
    assert list(found.mounts[2:]) == wanted
    assert json.loads(found.env["POLYAXON_RUN_DATA_PATHS"]) == {"a": "/plx-data/a", "b": "/plx-data/b"}


def test_a_data_folder_is_mounted_where_the_settings_say() -> None:
    folder = DataFolder(path=Path("/x"), mount=PurePosixPath("/data"), read_only=True)
    found = planned(replace(AROUND, data={"a": folder}))
    assert found.mounts[2:] == [Mount(Path("/x"), PurePosixPath("/data"), read_only=True)]
    told = {json.loads(found.env[name])["a"] for name in ("POLYAXON_DATA_PATHS", "POLYAXON_RUN_DATA_PATHS")}
    assert told == {"/data"}


def test_the_labels_name_the_owner() -> None:
    assert planned().labels == {HOME_LABEL: "abcdef", RUN_LABEL: f"job/{UUID}"}


def test_labels_of_the_polyaxonfile_are_added() -> None:
    assert planned(environment={"labels": {"team": "a", "n": 1}}).labels.items() >= {"team": "a", "n": "1"}.items()


@pytest.mark.parametrize("label", [HOME_LABEL, RUN_LABEL, "polylocal.image", "polylocal.build"])
def test_labels_of_a_stored_polyaxonfile_never_replace_ours(label: str) -> None:
    """An older version of polylocal accepted them."""
    stored = Specification(Kind.JOB, "", job("echo hi", environment={"labels": {label: "someone", "team": "a"}}))
    assert plan(run(), stored, "an:image", "/bin/bash", AROUND).labels == {**planned().labels, "team": "a"}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, Limits()),
        ({"cpu": {"limits": 1.5, "requests": 1}}, Limits(cpus=1.5)),
        ({"cpu": {"requests": 1}}, Limits()),
        ({"memory": {"limits": 64, "requests": 32}}, Limits(memory_mib=64, memory_reservation_mib=32)),
        ({"memory": {"requests": 32}}, Limits(memory_reservation_mib=32)),
        ({"gpu": {"limits": 2, "requests": 1}}, Limits(gpus=2)),
        ({"gpu": {"requests": 1}}, Limits(gpus=1)),
        ({"gpu": {"limits": 0}}, Limits()),
        ({"tpu": {"limits": 8}}, Limits()),
    ],
)
def test_limits(resources: dict[str, Any], expected: Limits) -> None:
    assert limits(Resources(**resources)) == expected


def test_no_resources_are_no_limits() -> None:
    assert limits(None) == planned().limits == Limits()


def test_a_run_without_gpus_sees_none() -> None:
    assert planned().env["NVIDIA_VISIBLE_DEVICES"] == "none"
    assert "NVIDIA_VISIBLE_DEVICES" not in planned(environment={"resources": {"gpu": {"limits": 1}}}).env


def test_the_environment_has_the_names_of_every_version() -> None:
    env = planned(params={"lr": 0.1}, logging={"level": "debug"}).env
    assert env["POLYAXON_API_WS_HOST"] == "ws://host.docker.internal:8000"
    assert json.loads(env["POLYAXON_DECLARATIONS"]) == json.loads(env["POLYAXON_PARAMS"]) == {"lr": 0.1}
    assert env["POLYAXON_RUN_OUTPUTS_PATH"] == "/plx-outputs/root/Quick-Start/jobs/3"
    assert (env["POLYAXON_LOG_LEVEL"], env["POLYAXON_USER_TOKEN"]) == ("DEBUG", "secret")
    assert all(isinstance(value, str) for value in env.values())


def test_the_clients_find_the_runs_id_in_its_name() -> None:
    assert info(run())["job_name"] == "root.Quick-Start.jobs.3"
    assert json.loads(planned().env["POLYAXON_JOB_INFO"]) == info(run())


def test_the_token_is_handed_over_in_a_file() -> None:
    assert json.loads(token_file("abc")) == {"POLYAXON_SECRET_USER_TOKEN": "abc"}
    assert parse_token(token_file("abc")) == "abc"
    assert parse_token('{"POLYAXON_SEC') is None


def test_runs_without_a_command_have_no_plan() -> None:
    specification = parse(build(), Kind.BUILD)
    with pytest.raises(ValueError, match="no command"):
        plan(run(kind=Kind.BUILD), specification, "an:image", "/bin/sh", AROUND)


@pytest.mark.parametrize("name", ["_tmp", "exp-", "-", "__", "A", "a--b", "a__b", "a_-b", "Quick-Start", "a-_-b", "9"])
def test_every_name_of_a_project_gives_an_image_name_that_an_engine_takes(name: str) -> None:
    repository, _, tag = image_name(run(project_name=name)).partition(":")
    assert re.fullmatch(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*", repository), repository
    assert tag == UUID


@pytest.mark.parametrize(
    ("name", "of", "expected"),
    [
        ("plx-job-5a3f", "job/5a3f", True),
        ("plx-job-5a3f-2", "job/5a3f", True),
        ("plx-job-5a3f", "job/5a3e", False),
        ("plx-job-5a3fx", "job/5a3f", False),
        ("brave_hopper", "job/5a3f", False),
        ("plx-chown-0123", "", True),
        ("brave_hopper", "", False),
    ],
)
def test_a_container_is_ours_by_its_name(name: str, of: str, expected: bool) -> None:
    """Its labels are not evidence, since they may come from its image."""
    assert is_our_name(name, of) is expected
