"""Shapes of public polyaxonfiles through the API and the runner, with the fake engine."""

from __future__ import annotations

import json
import re

import pytest

from polylocal.engine.plan import ContainerPlan
from polylocal.polyaxonfile import commands
from polylocal.statuses import Kind, is_done
from polylocal.store.rows import Run

from .conftest import World
from .shapes import BASH, Shape, first_iteration
from .test_field import REFUSED, own_instructions, shapes


@pytest.mark.parametrize("shape", REFUSED)
def test_the_api_refuses_it_and_keeps_nothing(world: World, shape: Shape) -> None:
    word = re.search(r"^kind: *(\w+)", shape.path.read_text(), re.MULTILINE)
    kind = Kind(word[1]) if word and word[1] in ("job", "group", "notebook") else Kind.EXPERIMENT
    before = world.count(kind)
    answer = world.submit(kind, {"content": shape.path.read_text(), "files": [{"name": shape.path.name, "line": 1}]})
    assert answer.status_code == 400
    sentences = answer.json()["content"]
    for sentence in shape.refused:
        assert any(each.endswith(sentence.removeprefix(f"{shape.path.name}, ")) for each in sentences)
    assert world.count(kind) == before


@pytest.mark.parametrize("shape", shapes(lambda shape: shape.runs and shape.has_command and shape.kind != "group"))
def test_it_runs(world: World, shape: Shape) -> None:
    run = submitted(world, shape)
    world.supervise(lambda: is_done(world.rig.again(run).status))
    assert world.rig.again(run).status == "succeeded", world.rig.messages(run)
    (plan,) = plans(world, run)
    check_command(shape, plan)
    check_surroundings(shape, plan)
    check_build(world, shape, world.rig.again(run))


@pytest.mark.parametrize("shape", shapes(lambda shape: shape.runs and shape.kind == "group"))
def test_a_group_runs_each_of_its_points(world: World, shape: Shape) -> None:
    group = submitted(world, shape)
    world.supervise(lambda: is_done(world.rig.again(group).status), max_runs=4)
    members = world.rig.members(world.rig.again(group))
    assert (world.rig.again(group).status, {member.status for member in members}) == ("succeeded", {"succeeded"})
    assert len(members) == len(plans(world)) == shape.points
    points = [set(point.items()) for point in first_iteration(shape.specification)]
    if shape.point is None:
        assert [set((member.params or {}).items()) >= point for member, point in zip(members, points, strict=True)]
        check_command(shape, plans(world, members[0])[0])
    assert set(shape.mounts) <= {str(mount.target) for mount in plans(world, members[0])[0].mounts}
    check_build(world, shape, members[0])
    assert world.engine.builds == 1


@pytest.mark.parametrize("shape", shapes(lambda shape: shape.kind == "build"))
def test_its_image_is_built(world: World, shape: Shape) -> None:
    build = submitted(world, shape)
    world.supervise(lambda: is_done(world.rig.again(build).status))
    assert world.rig.again(build).status == "succeeded", world.rig.messages(build)
    assert own_instructions(world.rig.again(build).dockerfile or "") == shape.instructions


@pytest.mark.parametrize("shape", shapes(lambda shape: shape.kind in ("notebook", "tensorboard")))
def test_its_server_starts(world: World, shape: Shape) -> None:
    server = submitted(world, shape)
    world.supervise(lambda: world.rig.again(server).status == "running")
    (plan,) = plans(world, server)
    assert plan.port
    check_build(world, shape, world.rig.again(server))
    world.rig.store.runs.request_stop(server)
    world.supervise(lambda: is_done(world.rig.again(server).status))


def submitted(world: World, shape: Shape) -> Run:
    """Submit the file and return its run. The response and the history must contain all warnings."""
    kind, image = Kind(shape.kind or ""), shape.specification.build.image
    world.engine.remote |= {image or "python:3.11-slim"}
    answer = world.submit(kind, shape.written.body)
    assert answer.status_code == 201, answer.text
    run = world.rig.store.runs.get(world.rig.project, kind, answer.json()["id"])
    assert set(answer.json()["warnings"] or []) >= set(shape.notes)
    history = " ".join(filter(None, world.rig.messages(run)))
    for note in shape.notes:
        assert note.removesuffix(" has no effect on a single node.").strip("`") in history
    return run


def plans(world: World, run: Run | None = None) -> list[ContainerPlan]:
    """The requested containers of runs, without short-lived ones that inspect an image."""
    made = [plan for plan in world.engine.plans if plan.labels.get("polylocal.run")]
    return [plan for plan in made if run is None or plan.labels["polylocal.run"] == f"{run.kind}/{run.uuid}"]


def check_command(shape: Shape, plan: ContainerPlan) -> None:
    """Check that the container's command contains the file's command, whatever shell runs it."""
    cmd = shape.run(shape.specification).command
    assert cmd is not None
    assert any(commands.arguments(cmd, BASH)[-1] in word for word in plan.command)


def check_surroundings(shape: Shape, plan: ContainerPlan) -> None:
    """Check params (equal in file, variable and row), variables and mounts."""
    params = json.loads(plan.env["POLYAXON_PARAMS"])
    assert {name: value for name, value in params.items() if value is not None} == shape.params
    assert {name: plan.env.get(name) for name in shape.env} == shape.env
    assert not set(shape.without_env) & set(plan.env)
    assert set(shape.mounts) <= {str(mount.target) for mount in plan.mounts}


def check_build(world: World, shape: Shape, run: Run) -> None:
    build = world.rig.store.runs.by_pk(run.build_pk or 0)
    expected = shape.dockerfile and own_instructions(shape.dockerfile)
    if not shape.specification.build.dockerfile:
        assert own_instructions(build.dockerfile or "") == (expected or shape.instructions)
