"""Images whose programs run as another user than root."""

from __future__ import annotations

import pytest

from polylocal.errors import EngineError
from polylocal.runner import provision


@pytest.mark.parametrize(
    ("user", "owner"), [("1234", "1234:0"), ("app", "app:0"), ("1234:55", "1234:55"), ("app:staff", "app:staff")]
)
def test_the_code_in_the_image_belongs_to_its_user_and_the_documented_text_stays(rig, user, owner):
    rig.engine.users[rig.engine.local["base"]] = user
    run = rig.built(rig.submit())
    recorded = rig.store.runs.by_pk(run.build_pk).dockerfile
    assert recorded.endswith("\nCOPY build /code\n")
    assert rig.engine.texts[-1].endswith(f"\nCOPY --chown={owner} build /code\n")


@pytest.mark.parametrize("user", ["", "root", "0", "0:0", "root:root", "odd user"])
def test_roots_images_are_built_as_documented(rig, user):
    rig.engine.users[rig.engine.local["base"]] = user
    rig.built(rig.submit())
    assert rig.engine.texts[-1].endswith("\nCOPY build /code\n")


def container_of(rig):
    run = rig.built(rig.submit())
    build = rig.store.runs.by_pk(run.build_pk)
    rig.engine.users[build.image_id] = "1234"
    made = provision.make_container(run, build, rig.context())
    return rig.again(run), rig.engine.made[made]


def test_the_folder_of_the_code_is_opened_before_the_start(rig):
    _, container = container_of(rig)
    assert (container.open_folders, container.starts) == (["/code"], 0)


def test_a_folder_that_can_not_be_opened_is_told_in_the_history(rig, monkeypatch):
    def refuse(container_id, path):
        raise EngineError("read-only file system")

    monkeypatch.setattr(rig.engine, "open_folder", refuse)
    run, _ = container_of(rig)
    assert any("may not be able to write to /code: read-only" in (text or "") for text in rig.messages(run))
