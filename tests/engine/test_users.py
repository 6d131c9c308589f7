"""Images with another user than root: programs can write to the folder of the code."""

from __future__ import annotations

import os
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from support import eventually

from polylocal.engine.images import BuildRequest
from polylocal.planning.container import CODE
from polylocal.planning.dockerfile import render, with_owner
from polylocal.polyaxonfile import Build
from polylocal.runner import ownership
from polylocal.system.cancellation import Cancel

from .conftest import Bench
from .test_contract import build

pytestmark = pytest.mark.engine


def test_an_image_says_its_user(docker_bench: Bench) -> None:
    tag = f"{docker_bench.installation}:it"
    build(docker_bench, f"FROM {docker_bench.image}\nUSER 1234:55\n", tag)
    image = docker_bench.engine.image(tag)
    assert image
    assert image.user == "1234:55"


def test_another_user_than_root_writes_into_the_folder_of_the_code(docker_bench: Bench, tmp_path) -> None:
    base, tag = f"{docker_bench.installation}:base", f"{docker_bench.installation}:it"
    assert build(docker_bench, f"FROM {docker_bench.image}\nUSER 1234\n", base).image_id
    code = tmp_path / "code"
    (code / "logs").mkdir(parents=True)
    (code / "train.py").write_text("1")
    (tmp_path / "Dockerfile").write_text(with_owner(render(Build(image=base), (), ""), "1234"))
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            tar.add(tmp_path / "Dockerfile", "Dockerfile", filter=_of_root)
            tar.add(code, "build", filter=_of_root)
        file.seek(0)
        request = BuildRequest(file, tag, {"polylocal.image": docker_bench.installation})
        made = docker_bench.engine.build(request, lambda line: None, Cancel())
    cmd = "id -u && cd /code && echo x > checkpoints.txt && echo x > logs/a && echo x > train.py && mkdir sub && pwd"
    container_id = docker_bench.engine.create(replace(docker_bench.plan(cmd), image=made.image_id or made.error))
    assert docker_bench.engine.open_folder(container_id, CODE)
    assert not docker_bench.engine.open_folder(container_id, CODE)
    docker_bench.engine.start(container_id)
    state = eventually(lambda: (found := docker_bench.engine.inspect(container_id)).is_finished and found)
    with docker_bench.engine.logs(container_id, follow=False) as frames:
        assert b"".join(frame.data for frame in frames) == b"1234\n/code\n"
    assert state.exit_code == 0


def test_nothing_is_opened_where_there_is_no_folder(docker_bench: Bench) -> None:
    engine = docker_bench.engine
    assert not engine.open_folder(engine.create(docker_bench.plan(user="1234")), CODE)


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    return member


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make folders of somebody else")
@pytest.mark.parametrize(
    ("user", "uid", "gid"),
    [("app", 1234, 1234), ("1234", 1234, None), ("1234:55", 1234, 55), ("app:nobody", 1234, 65534), ("", 0, 0)],
)
def test_folders_are_given_to_the_user_of_an_image(
    docker_bench: Bench, tmp_path: Path, user: str, uid: int, gid: int | None
) -> None:
    """A container of the image changes the owner, whatever the daemon's user."""
    folders = [tmp_path / "project", tmp_path / "results"]
    for folder in folders:
        (folder / "sub").mkdir(parents=True)
        (folder / "sub/a").write_text("a")
        (folder / "link").symlink_to(tmp_path)
    everything = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    engine, image, installation = docker_bench.engine, docker_bench.image, docker_bench.installation
    for path in everything:
        os.chown(path, 4321, 4321, follow_symlinks=False)
    assert ownership.give_to_user(folders, user, engine, image, installation) is None
    assert {path.lstat().st_uid for path in everything} == {uid}
    assert {path.lstat().st_gid for path in everything} == {4321 if gid is None else gid}
    assert tmp_path.stat().st_uid == os.getuid()  # links are not followed


def test_a_user_that_an_image_does_not_have_is_said(docker_bench: Bench, tmp_path: Path) -> None:
    said = ownership.give_to_user([tmp_path], "nosuch", docker_bench.engine, docker_bench.image, "x")
    assert said == "chown in the image ended with exit code 1"
