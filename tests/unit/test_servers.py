"""Notebooks and tensorboards: their commands and their containers."""

from __future__ import annotations

import json
import subprocess
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from polylocal.engine.plan import ContainerPlan, Mount
from polylocal.planning.container import RunEnvironment, outputs_path, plan, server_command
from polylocal.polyaxonfile import Specification, parse
from polylocal.statuses import Kind
from polylocal.store.rows import Run

AROUND = RunEnvironment(
    installation="abcdef",
    node="here",
    network="bridge",
    outputs=Path("/home/me/outputs"),
    handover=Path("/home/me/context"),
    data={},
    api_url="http://host.docker.internal:8000",
    token="secret",
    home=Path("/home/me"),
)


def run(kind: Kind, run_id: int = 3, **values: Any) -> Run:
    blank: dict[str, Any] = {field.name: None for field in fields(Run)}
    about = {"kind": kind, "id": run_id, "uuid": "5a3f", "owner": "root", "project_name": "p", "project_uuid": "7"}
    return Run(**{**blank, **about, **values})


def specification(kind: Kind, **sections: Any) -> Specification:
    more = {"run": {"cmd": "x"}} if kind in (Kind.JOB, Kind.EXPERIMENT) else {}
    return parse({"version": 1, "kind": str(kind), "build": {"image": "a"}, **more, **sections}, kind)


def planned(kind: Kind, around: RunEnvironment = AROUND, **sections: Any) -> ContainerPlan:
    return plan(run(kind), specification(kind, **sections), "an:image", "/bin/sh", around)


BOARD = replace(AROUND, watched=(Path("/home/me/outputs/root/p"), PurePosixPath("/plx-outputs/root/p")))

# -- commands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "flavour"), [(None, "notebook"), ("notebook", "notebook"), ("lab", "lab")])
def test_a_notebook_listens_under_its_path(backend: str | None, flavour: str) -> None:
    line = server_command(run(Kind.NOTEBOOK), specification(Kind.NOTEBOOK, backend=backend), None)
    assert line.startswith("cd /code && ")
    started = line.rpartition("exec ")[2].split()
    assert started[:2] == ["jupyter", flavour]
    assert {"--no-browser", "--ip=0.0.0.0", "--port=8888"} <= set(started)
    assert {"--NotebookApp.base_url=/notebook/root/p/", "--ServerApp.base_url=/notebook/root/p/"} <= set(started)


def test_a_tensorboard_shows_what_it_is_told() -> None:
    line = server_command(run(Kind.TENSORBOARD), specification(Kind.TENSORBOARD), PurePosixPath("/plx-outputs/root/p"))
    assert line.endswith("exec tensorboard --logdir /plx-outputs/root/p --host 0.0.0.0 --port 6006")


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        (Kind.NOTEBOOK, {}, "the image has no jupyter: install it with a build step, `pip install notebook`"),
        (Kind.NOTEBOOK, {"backend": "lab"}, "`pip install jupyterlab`"),
        (Kind.TENSORBOARD, {}, "the image has no tensorboard: install it with a build step, `pip install tensorboard`"),
    ],
)
def test_an_image_without_the_program_prints_advice(
    tmp_path: Path, kind: Kind, more: dict[str, Any], words: str
) -> None:
    line = server_command(run(kind), specification(kind, **more), PurePosixPath("/x")).removeprefix("cd /code && ")
    done = subprocess.run(
        ["/bin/sh", "-c", line], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 127
    assert words in done.stderr


def test_the_program_takes_the_place_of_the_shell_with_its_arguments_whole(tmp_path: Path) -> None:
    program = tmp_path / "tensorboard"
    program.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    program.chmod(0o755)
    line = server_command(run(Kind.TENSORBOARD), specification(Kind.TENSORBOARD), PurePosixPath("/a b/$HOME"))
    done = subprocess.run(
        ["/bin/sh", "-c", line], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "--logdir|/a b/$HOME|--host|0.0.0.0|--port|6006|"


# -- plans -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "port"), [(Kind.NOTEBOOK, 8888), (Kind.TENSORBOARD, 6006)])
def test_only_servers_publish_a_port(kind: Kind, port: int) -> None:
    found = planned(kind, BOARD)
    assert (found.port, found.name, found.command[:2]) == (port, f"plx-{kind}-5a3f", ["/bin/sh", "-c"])
    assert planned(Kind.JOB).port is planned(Kind.EXPERIMENT).port is None


def test_a_notebook_works_on_the_code_with_a_token_of_its_own() -> None:
    around = replace(AROUND, work=Path("/home/me/notebooks/5a3f"), server_token="t0")
    found = planned(Kind.NOTEBOOK, around)
    assert Mount(Path("/home/me/notebooks/5a3f"), PurePosixPath("/code")) in found.mounts
    assert found.env["JUPYTER_TOKEN"] == "t0"
    assert "t0" not in " ".join(found.command)
    assert json.loads(found.env["POLYAXON_NOTEBOOK_INFO"])["notebook_name"] == "root.p.notebooks.3"


def test_a_tensorboard_only_reads() -> None:
    found = planned(Kind.TENSORBOARD, BOARD)
    assert Mount(Path("/home/me/outputs/root/p"), PurePosixPath("/plx-outputs/root/p"), read_only=True) in found.mounts
    assert "JUPYTER_TOKEN" not in found.env
    assert not any(str(mount.target) == "/code" for mount in found.mounts)


# -- outputs of other runs ---------------------------------------------------------------------------------------


def referring(*jobs: Run, experiments: tuple[Run, ...] = (), of: Run | None = None) -> ContainerPlan:
    around = replace(AROUND, references={"jobs": jobs, "experiments": experiments})
    return plan(of or run(Kind.JOB), specification(Kind.JOB), "an:image", "/bin/sh", around)


def test_where_an_experiment_of_a_group_writes() -> None:
    assert str(outputs_path(run(Kind.EXPERIMENT, 4))) == "/plx-outputs/root/p/experiments/4"
    assert str(outputs_path(run(Kind.EXPERIMENT, 4, group_id=2))) == "/plx-outputs/root/p/groups/2/4"
    assert str(outputs_path(run(Kind.TENSORBOARD, 4, group_id=2))) == "/plx-outputs/root/p/tensorboards/4"


def test_references_are_mounted_at_the_paths_of_their_runs_and_listed_in_order() -> None:
    jobs = [run(Kind.JOB, n, outputs=f"outputs/root/p/jobs/{n}") for n in (9, 5)]
    experiment = run(Kind.EXPERIMENT, 4, group_id=2, outputs="outputs/root/p/groups/2/4")
    found = referring(*jobs, experiments=(experiment,))
    mounted = {str(mount.target): mount for mount in found.mounts if mount.read_only}
    assert mounted["/plx-outputs/root/p/jobs/9"].source == Path("/home/me/outputs/root/p/jobs/9")
    assert mounted["/plx-outputs/root/p/groups/2/4"].source == Path("/home/me/outputs/root/p/groups/2/4")
    assert json.loads(found.env["POLYAXON_REFS_OUTPUTS_PATHS"]) == {
        "jobs": ["/plx-outputs/root/p/jobs/9", "/plx-outputs/root/p/jobs/5"],
        "experiments": ["/plx-outputs/root/p/groups/2/4"],
    }


def test_a_run_that_is_named_twice_is_mounted_once() -> None:
    other = run(Kind.JOB, 9, outputs="outputs/root/p/jobs/9")
    targets = [str(mount.target) for mount in referring(other, other).mounts]
    assert len(targets) == len(set(targets))


def test_nothing_is_mounted_over_the_runs_own_outputs() -> None:
    this = run(Kind.JOB, 3, outputs="outputs/root/p/jobs/3")
    found = referring(this, of=this)
    assert [mount.read_only for mount in found.mounts if mount.target == outputs_path(this)] == [False]


def test_without_references_there_is_no_variable() -> None:
    assert "POLYAXON_REFS_OUTPUTS_PATHS" not in referring().env
