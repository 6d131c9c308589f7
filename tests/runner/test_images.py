"""Access to images: only users who may read a project may use the images of its builds."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import pytest

from polylocal.git.repository import Repository
from polylocal.polyaxonfile import parse
from polylocal.runner import provision
from polylocal.runner.supervisor import Supervisor
from polylocal.runner.work import execution_of
from polylocal.statuses import Kind
from polylocal.store import NewRun
from polylocal.store.rows import Project, Run, User

from .conftest import Rig


@dataclass
class World:
    """Ann and Ben are ordinary users; Ben has a hidden project with an image."""

    rig: Rig
    ann: User
    ben: User
    anns: Project
    hidden: Project
    secret: Run  # the build of Ben's

    def build(self, project: Project, user: User, dockerfile: str | None = None, **config: Any) -> Run:
        """The build of a user in a project, done; `dockerfile`: from the user's Dockerfile."""
        rig, code = dataclasses.replace(self.rig, project=project, user=user), None
        if dockerfile is not None:
            commit = rig.upload({"Dockerfile": dockerfile})
            code = rig.store.projects.reference_code(project, {"commit": commit}).id
            config = {"dockerfile": "Dockerfile"}
        file = parse({"version": 1, "kind": "build", "build": config}, Kind.BUILD)
        run = rig.store.runs.insert(project, user, NewRun(Kind.BUILD, file.content, file.config, code_id=code))
        execution_of(run, rig.context())()
        return rig.store.runs.by_pk(run.pk)

    def why(self, run: Run) -> str:
        return self.rig.message(run) or ""

    def name(self, build: Run) -> str:
        """The name of the image in the engine."""
        return next(name for name, image in self.rig.engine.local.items() if image == build.image_id)

    @property
    def repository(self) -> Repository:
        return Repository(self.rig.settings.folders.code(self.anns.uuid))


@pytest.fixture
def world(rig: Rig) -> World:
    ann, ben = rig.store.users.add("ann"), rig.store.users.add("ben")
    anns = rig.store.projects.create(ann, {"name": "anns"})
    hidden = rig.store.projects.create(ben, {"name": "hidden", "is_public": False})
    made = World(rig, ann, ben, anns, hidden, None)  # type: ignore[arg-type]
    made.secret = made.build(hidden, ben, image="base")
    assert made.secret.status == "succeeded"
    return made


NOT_HERE = "is not on this machine, or it may not be used here."


def test_an_image_of_a_hidden_project_is_used_by_nobody_else(world: World) -> None:
    name = world.name(world.secret)
    build = world.build(world.anns, world.ann, image=name)
    assert (build.status, world.rig.engine.builds) == ("failed", 1)
    nowhere = f"hidden_{world.hidden.id}:{'0' * 32}"
    other = world.build(world.anns, world.ann, image=nowhere)
    assert world.why(build).replace(name, nowhere) == world.why(other)


def test_its_owner_and_an_admin_use_it(world: World) -> None:
    own = world.rig.store.projects.create(world.ben, {"name": "more"})
    for project, user in ((own, world.ben), (world.rig.project, world.rig.user)):
        assert world.build(project, user, image=world.name(world.secret)).status == "succeeded"


def test_everybody_uses_that_of_a_public_project_until_it_is_hidden_or_archived(world: World) -> None:
    store, name = world.rig.store, world.name(world.secret)
    store.projects.update(world.hidden, {"is_public": True})
    assert world.build(world.anns, world.ann, image=name).status == "succeeded"
    store.projects.archive(store.projects.by_id(world.hidden.id))
    assert world.build(world.anns, world.ann, image=name, nocache=True).status == "failed"
    store.projects.restore(store.projects.by_id(world.hidden.id))
    assert world.build(world.anns, world.ann, image=name, nocache=True).status == "succeeded"
    store.projects.update(world.hidden, {"is_public": False})
    assert world.build(world.anns, world.ann, image=name, nocache=True).status == "failed"


def test_a_name_that_somebody_gave_it_later_changes_nothing(world: World) -> None:
    engine = world.rig.engine
    engine.local["team/app:1"] = engine.local[world.name(world.secret)]
    build = world.build(world.anns, world.ann, image="team/app:1")
    other = world.build(world.anns, world.ann, image="team/app:2")
    assert (build.status, other.status) == ("failed", "failed")
    assert world.why(build).replace("app:1", "app:2") == world.why(other)
    assert world.build(world.hidden, world.ben, image="team/app:1").status == "succeeded"


@pytest.mark.parametrize(
    "dockerfile",
    [
        "FROM {name}\n",
        "FROM docker.io/library/{name}\n",
        "FROM base\nCOPY --from={name} / /x\n",
        'FROM base\nCOPY --"from={name}" / /x\n',
        "FROM base\nRUN --mount=type=bind,from={name},target=/x true\n",
        'FROM base\nRUN --mount=type=bind,"from={name}",target=/x true\n',
        "ARG X={name}\nFROM $X\n",
        "ARG X\nFROM ${{X:-{name}}}\n",
        "ARG A=hidden B={rest}\nFROM $A'_'$B\n",
        "FROM base AS x\nFROM \\\n  {name}\n",
        "# escape=`\nFROM base\nCOPY --from={name} ` \n / /x\n",
        "FROM base\nRUN <<CMD\nFROM {name}\nCMD\n",
        "\\\nFROM {name}\n",
        "FROM {name} AS base\nFROM base\n",
        "FROM base AS a\nONBUILD COPY --from={name} / /x\nFROM a\n",
        "FROM base\nONBUILD RUN true\nFROM base\nADD --from={name} / /x\n",
        "FROM base\nCOPY --chown=à--from={name} / /x\n",
        "ARG FTP_PROXY\nARG A={name}\nFROM ${{FTP_PROXY:+$A}}\n",
    ],
)
def test_no_dockerfile_reaches_it(world: World, dockerfile: str) -> None:
    name = world.name(world.secret)
    text = dockerfile.format(name=name, rest=name.partition("_")[2])
    build = world.build(world.anns, world.ann, text)
    assert (build.status, world.rig.engine.builds) == ("failed", 1)
    assert "hidden_" not in world.why(build) or NOT_HERE in world.why(build)


def test_a_step_that_prints_the_id_of_its_image_does_not_reach_it(world: World) -> None:
    image_id = world.secret.image_id or ""
    build = world.build(world.anns, world.ann, "FROM base\nRUN true\n")
    world.rig.store.built_images.add(build, image_id, is_whole=False)
    assert world.build(world.anns, world.ann, f"FROM {world.name(world.secret)}\n").status == "failed"


def test_a_trigger_of_a_base_image_does_not_reach_it(world: World) -> None:
    engine = world.rig.engine
    engine.local["trap"] = "sha256:trap"
    engine.triggers["sha256:trap"] = [f"COPY --from={world.name(world.secret)} / /x"]
    assert world.build(world.anns, world.ann, "FROM trap\n").status == "failed"
    engine.triggers["sha256:trap"] = [f"COPY \\\n --from={world.name(world.secret)} / /x"]
    assert world.build(world.anns, world.ann, "FROM trap\n# over lines\n").status == "failed"
    engine.triggers["sha256:trap"] = ["RUN true"]
    assert world.build(world.anns, world.ann, "FROM trap\n# again\n").status == "succeeded"


def test_an_image_made_from_it_is_for_nobody_else_either(world: World) -> None:
    shared = world.rig.store.projects.create(world.ben, {"name": "shared"})
    copied = world.build(shared, world.ben, f"FROM base\nCOPY --from={world.name(world.secret)} / /x\n")
    assert copied.status == "succeeded"
    again = world.build(shared, world.ben, image=world.name(copied))
    assert again.status == "succeeded"
    for build in (copied, again):
        assert world.build(world.anns, world.ann, image=world.name(build)).status == "failed"


@pytest.mark.parametrize("image", ["sha256:{}", "{}"])
def test_an_id_is_no_name(world: World, image: str) -> None:
    build = world.build(world.anns, world.ann, f"FROM {image.format('0' * 64)}\n")
    assert "is the id of an image; write the image's name" in world.why(build)


def test_an_image_of_another_home_is_used_by_nobody(world: World) -> None:
    engine = world.rig.engine
    for name, labels in (
        (f"p_1:{'a' * 32}", {"polylocal.image": "another", "polylocal.build": "a" * 32}),
        ("step", {"polylocal.image": "another"}),
    ):
        engine.local[name], engine.labels[f"sha256:{name}"] = f"sha256:{name}", labels
        assert world.build(world.rig.project, world.rig.user, image=name).status == "failed"


def test_what_somebody_made_of_such_an_image_and_named_is_theirs_to_share(world: World) -> None:
    engine = world.rig.engine
    engine.local["team:1"] = "sha256:team"
    engine.labels["sha256:team"] = {"polylocal.image": "another", "polylocal.build": "a" * 32}
    assert world.build(world.anns, world.ann, image="team:1").status == "succeeded"


def test_a_fallback_is_looked_at_like_any_other_name(world: World) -> None:
    rig = world.rig
    rig.settings = rig.settings.model_copy(update={"image_fallbacks": {"far:1": world.name(world.secret)}})
    assert "could not be pulled" in world.why(world.build(world.anns, world.ann, image="far:1"))


@pytest.mark.parametrize(
    "image", ["127.0.0.1:5000/x", "localhost/x", "[::1]:5000/x", "LOCALHOST:1/x", "127.1/x", "169.254.169.254/x"]
)
def test_only_an_admin_has_the_engine_connect_to_this_machine(world: World, image: str) -> None:
    refused = world.build(world.anns, world.ann, f"FROM {image}\n")
    assert "an't be fetched" in world.why(refused)
    tried = world.build(world.rig.project, world.rig.user, f"FROM {image}\n")
    assert "could not be pulled" in world.why(tried)


@pytest.mark.parametrize(
    "add",
    [
        "ADD http://127.0.0.1:8000/x /x",
        'ADD ["http://[::1]:80/x", "/x"]',
        "ARG H=127.0.0.1\nADD http://$H/x /x",
        "ENV H=localhost\nADD --chown=1:1 https://${H}:1/x /x",
        "ENV H ftp://localhost/x\nARG H=a\nADD $H /x",
        "ADD http://user@127.0.0.1/x /x",
        "ADD git@localhost:a/b.git /x",
        "FROM base AS a\nONBUILD ADD $U /x\nENV U=http://127.0.0.1/x\nFROM a",
        "ENV H=${Y#a}\nADD http://$H/x /x",
        "ARG FTP_PROXY\nADD ${FTP_PROXY:+http://127.0.0.1/x} /x",
        'ADD ["http://127.0.0.1/x", "/x"] y',
    ],
)
def test_only_an_admin_has_the_builder_fetch_from_this_machine(world: World, add: str) -> None:
    text = f"FROM base\n{add}\n"
    assert world.build(world.anns, world.ann, text).status == "failed"
    assert world.build(world.rig.project, world.rig.user, text).status == "succeeded"


@pytest.mark.parametrize("add", ["ADD a /x", "ADD $A /x", "ARG A=a\nADD ${A:-b} c/", 'ADD ["a", "/x"]'])
def test_an_ordinary_add_is_built(world: World, add: str) -> None:
    assert world.build(world.anns, world.ann, f"FROM base\n{add}\n").status == "succeeded"


def test_only_an_admin_builds_with_a_frontend_of_somebodys(world: World) -> None:
    for text, status in (("# syntax=evil/x\nFROM base\n", "failed"), ("# syntax=docker/dockerfile:1\nFROM base\n", "")):
        assert world.build(world.anns, world.ann, text).status == (status or "succeeded")
    assert world.build(world.rig.project, world.rig.user, "# syntax=evil/x\nFROM base\n").status == "succeeded"


def test_variables_and_other_images_are_built_as_they_were(world: World) -> None:
    world.rig.engine.remote.add("tools:2")
    text = (
        "ARG V=ba\nFROM ${V}se AS one\nFROM scratch\nCOPY --from=one / /\nCOPY --from=0 / /\nCOPY --from=tools:2 / /\n"
    )
    build = world.build(world.anns, world.ann, text)
    assert build.status == "succeeded"
    assert build.dockerfile == text
    assert b": FROM base AS one\n" in world.rig.log(build)


# -- builds that runs share ----------------------------------------------------------------------------------------


def attached(world: World, user: User, config: dict[str, Any]) -> Run:
    """A job of a user in Ann's project, with a finished build."""
    rig = world.rig
    file = parse({"version": 1, "kind": "job", "build": config, "run": {"cmd": "true"}}, Kind.JOB)
    run = rig.store.runs.insert(world.anns, user, NewRun(Kind.JOB, file.content, file.config))
    Supervisor(rig.context()).resolve_builds()
    build = rig.store.runs.by_pk(rig.again(run).build_pk or 0)
    if build.status == "created":
        execution_of(build, rig.context())()
    return rig.again(run)


def test_a_build_of_an_admin_is_not_shared_with_who_may_not_have_what_it_is_made_from(world: World) -> None:
    config = {"image": world.name(world.secret)}
    first = attached(world, world.rig.user, config)
    second = attached(world, world.rig.user, config)
    assert first.build_pk == second.build_pk
    third = attached(world, world.ann, config)
    assert third.build_pk != first.build_pk
    assert (third.status, world.rig.message(third)) == ("failed", "Build failed")


def test_a_run_does_not_begin_when_its_user_may_not_read_the_code_in_its_image_any_more(world: World) -> None:
    store = world.rig.store
    store.projects.update(world.hidden, {"is_public": True})
    run = attached(world, world.ann, {"image": world.name(world.secret)})
    store.projects.update(world.hidden, {"is_public": False})
    execution_of(run, world.rig.context())()
    run = world.rig.again(run)
    assert run.status == "failed"
    assert "the code of a project that ann may not read" in world.why(run)
    assert not world.rig.engine.made


def test_a_build_that_an_earlier_version_made_is_its_projects_alone(world: World) -> None:
    with world.rig.store.database.write() as db:
        db.execute("delete from built_images")
    assert world.build(world.anns, world.ann, image=world.name(world.secret)).status == "failed"
    assert world.build(world.hidden, world.ben, image=world.name(world.secret)).status == "succeeded"


def test_ordinary_runs_use_their_own_images(world: World) -> None:
    run = attached(world, world.ann, {"image": "base"})
    build = world.rig.store.runs.by_pk(run.build_pk or 0)
    assert provision.make_container(run, build, world.rig.context())
    assert json.dumps(run.config)
