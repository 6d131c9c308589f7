"""Garbage collection removes only things of polylocal that are not needed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from polylocal.engine.images import Image
from polylocal.errors import EngineError
from polylocal.runner.collector import COLLECT_S, Collector
from polylocal.runner.removal import remove
from polylocal.store.rows import Run

from .conftest import Rig

OLD_S = 1_000_000_000.0


def collector(rig: Rig, active_uuids: Iterable[str] = ()) -> Collector:
    return Collector(rig.context(), lambda: set(active_uuids))


def a_build(rig: Rig, step: str) -> Run:
    """Run a job with its own image. Returns the build."""
    run = rig.run(rig.submit("true", build={"image": "base", "build_steps": [step]}))
    assert run.status == "succeeded"
    return rig.store.runs.by_pk(run.build_pk or 0)


def builds_left(rig: Rig) -> list[str]:
    return [image.build for image in rig.engine.images("home")]


def old(path: Path) -> Path:
    """Set the times of a file to long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text("x")
    os.utime(path, (OLD_S, OLD_S))
    return path


def test_only_what_is_neither_needed_nor_pinned_goes(rig: Rig) -> None:
    free, pinned = a_build(rig, "true 1"), a_build(rig, "true 2")
    rig.store.bookmarks.add(rig.user, pinned)
    waiting = rig.built(rig.submit("true", build={"image": "base", "build_steps": ["true 3"]}))
    needed = rig.store.runs.by_pk(waiting.build_pk or 0)
    items = {item.id: item for item in collector(rig).collect(0.0)}
    assert sorted(builds_left(rig)) == sorted([pinned.uuid, needed.uuid])
    assert [item.id for item in items.values() if item.goes] == [free.image_id]


def test_a_run_of_a_collected_build_has_its_image_made_again(rig: Rig) -> None:
    first = a_build(rig, "true 1")
    collector(rig).collect(0.0)
    assert builds_left(rig) == []
    second = a_build(rig, "true 1")
    assert second.pk != first.pk
    assert rig.engine.builds == 2


def test_what_was_used_last_stays_longest_also_for_another_daemon(rig: Rig) -> None:
    """The time of the last use is in the database."""
    first, second = a_build(rig, "true 1"), a_build(rig, "true 2")
    again = rig.run(rig.submit("true", build={"image": "base", "build_steps": ["true 1"]}))
    assert again.build_pk == first.pk
    collector(rig).collect(1.5 / 1024)  # room for one of the two, of 1 MiB each
    assert builds_left(rig) == [first.uuid]
    assert second.uuid not in builds_left(rig)


def test_looking_removes_nothing(rig: Rig) -> None:
    a_build(rig, "true 1")
    assert [(item.kind, item.goes) for item in collector(rig).list_items(0.0) if item.kind != "log"] == [
        ("image", True)
    ]
    assert len(builds_left(rig)) == 1


def test_images_of_others_are_not_even_seen(rig: Rig) -> None:
    rig.engine.local["theirs"] = "sha256:theirs"
    rig.engine._built["sha256:theirs"] = ("another home", Image("sha256:theirs", "x", ["theirs"], {"l": 1}, ""))
    assert collector(rig).collect(0.0) == []
    assert "theirs" in rig.engine.local


def test_an_image_that_has_our_labels_alone_is_shown_and_stays(rig: Rig) -> None:
    """Any image can have our labels, and images built from ours inherit them."""
    build = a_build(rig, "true 1")
    for number, uuid in enumerate(("no such build", build.uuid)):
        made = f"sha256:forged-{number}"
        rig.engine.local[f"theirs:{number}"] = made
        rig.engine._built[made] = ("home", Image(made, uuid, [f"theirs:{number}"], {"l": 1}, ""))
    items = {item.id: item for item in collector(rig).collect(0.0)}
    assert [items[f"sha256:forged-{number}"].goes for number in range(2)] == [False, False]
    assert "no build of it made this image" in items["sha256:forged-0"].reason
    rig.store.runs.delete(build)
    remove(rig.store.runs.by_pk(build.pk), rig.context())
    assert {"theirs:0", "theirs:1"} <= set(rig.engine.local)
    assert build.image_id not in rig.engine.local.values()


def test_an_image_that_has_lost_our_labels_is_counted_and_goes(rig: Rig) -> None:
    """The Dockerfile of a user may set them to any value."""
    build = a_build(rig, "true 1")
    made = build.image_id or ""
    rig.engine._built[made] = ("x", dataclasses.replace(rig.engine._built[made][1], build="y"))
    assert [(item.id, item.goes) for item in collector(rig).list_items() if item.kind == "image"] == [(made, False)]
    assert [item.id for item in collector(rig).collect(0.0) if item.goes] == [made]
    assert made not in rig.engine.local.values()


def test_leftovers_of_runs_that_are_done_go_by_themselves(rig: Rig) -> None:
    done, waits = rig.run(rig.submit("true")), rig.submit("true")
    folders = rig.settings.folders
    paths = {name: old(folders.handover(name) / "file").parent for name in (done.uuid, waits.uuid, "0" * 32)}
    for path in paths.values():
        os.utime(path, (OLD_S, OLD_S))
    collector(rig).collect(asked=False)
    assert [path.exists() for path in paths.values()] == [False, True, False]


def test_what_a_thread_has_in_hand_or_was_just_made_stays(rig: Rig) -> None:
    folders = rig.settings.folders
    new, held = folders.handover("1" * 32), folders.handover("2" * 32)
    new.mkdir(parents=True)
    old(held / "file")
    os.utime(held, (OLD_S, OLD_S))
    collector(rig, ["2" * 32]).collect()
    assert new.exists()
    assert held.exists()


def test_uploads_that_came_to_no_end_go(rig: Rig) -> None:
    code = rig.settings.folders.root / "code"
    half, fresh = code / "upload-abc", code / "upload-def"
    old(half / "file")
    os.utime(half, (OLD_S, OLD_S))
    fresh.mkdir()
    rig.upload({"a": "1"})
    collector(rig).collect(asked=False)
    assert not half.exists()
    assert fresh.exists()
    assert rig.repository.path.exists()


@pytest.mark.parametrize("asked", [True, False])
def test_logs_and_code_that_nobody_knows_go_only_if_a_person_asks(rig: Rig, asked: bool) -> None:
    run = rig.run(rig.submit("echo kept"))
    folders = rig.settings.folders
    log = old(folders.log("job", "0" * 32))
    code = folders.code("3" * 32)
    old(code / "HEAD")
    os.utime(code, (OLD_S, OLD_S))
    os.utime(rig.log_path(run), (OLD_S, OLD_S))
    collector(rig).collect(asked=asked)
    assert (log.exists(), code.exists()) == (not asked, not asked)
    assert rig.log(run) == b"kept\n"


def test_what_can_not_be_removed_is_said_and_holds_up_nothing(rig: Rig, monkeypatch) -> None:
    a_build(rig, "true 1")
    gone = rig.settings.folders.handover("0" * 32)
    old(gone / "file")
    os.utime(gone, (OLD_S, OLD_S))

    def refuse(name: str) -> None:
        raise EngineError("conflict: it is being used")

    monkeypatch.setattr(rig.engine, "remove_image", refuse)
    items = {item.kind: item for item in collector(rig).collect(0.0)}
    assert (items["image"].goes, items["image"].reason) == (False, "can't be removed: conflict: it is being used")
    assert not gone.exists()


# -- when ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def due(rig: Rig) -> Collector:
    """A collector whose next automatic collection is due."""
    made = collector(rig)
    assert made._context.link.check()
    made._next_at -= COLLECT_S
    assert made.is_due()
    made._next_at -= COLLECT_S
    return made


def test_a_collection_that_was_asked_for_replaces_the_next_one(due: Collector) -> None:
    due.collect()
    assert not due.is_due()


def test_a_collection_that_leaves_more_replaces_none(rig: Rig, due: Collector) -> None:
    due.collect(rig.settings.image_budget_gib + 1)
    assert due.is_due()


def test_on_a_full_disk_only_a_collection_of_all_images_replaces_the_next_one(
    due: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due._context.disk, "problem", lambda: "the disk is full")
    due.collect()
    assert due.is_due()
    due._next_at -= COLLECT_S
    due.collect(0.0)
    assert not due.is_due()


def test_a_collection_by_itself_is_left_out_where_one_that_was_asked_for_came_first(
    due: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Taken(AbstractContextManager[None]):
        """Acquires the lock after another collection has ended."""

        def __enter__(self) -> None:
            due._lock = lock
            due.collect()

        def __exit__(self, *error: object) -> None:
            assert error == (None, None, None)

    looks: list[bool] = []
    list_items, lock = due.list_items, due._lock
    monkeypatch.setattr(due, "list_items", lambda *given, asked: looks.append(asked) or list_items(*given, asked=asked))
    assert due.is_due()
    monkeypatch.setattr(due, "_lock", Taken())
    due.collect_automatically()
    assert looks == [True]
