"""Ownership of files that containers write: access before a run, and return to the daemon's user afterwards."""

from __future__ import annotations

import os
import stat
import uuid
from pathlib import Path
from typing import Any

import pytest
from support import BUSYBOX

from polylocal.engine.docker import containers
from polylocal.engine.docker.engine import DockerEngine
from polylocal.engine.plan import HOME_LABEL, ContainerPlan
from polylocal.errors import EngineError
from polylocal.runner.ownership import foreign_paths, make_writable, reclaim

ME = os.getuid()
SOMEBODY = ME + 1


class Helper:
    """An engine that only runs helpers. It returns an exit code or refuses."""

    def __init__(self, answer: int | EngineError = 0) -> None:
        self.answer = answer
        self.plans: list[ContainerPlan] = []

    def run_helper(self, plan: ContainerPlan) -> int:
        self.plans.append(plan)
        if isinstance(self.answer, EngineError):
            raise self.answer
        return self.answer


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_text("a")
    (folder / "link").symlink_to("/etc")
    return folder


def reclaimed(outputs: Path, uid: int, engine: Any) -> str | None:
    return reclaim(outputs, uid, os.getgid(), engine, "an:image", "abcdef")


def test_outputs_are_writable_for_any_user_of_any_image(tmp_path: Path) -> None:
    make_writable(tmp_path / "a" / "b")
    make_writable(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o777


def test_our_own_files_are_not_foreign(outputs: Path) -> None:
    assert list(foreign_paths(outputs, ME)) == []


def test_foreign_things_are_found_and_links_not_followed(outputs: Path) -> None:
    found = {path.relative_to(outputs).as_posix() for path in foreign_paths(outputs, SOMEBODY)}
    assert found == {".", "sub", "sub/a", "link"}


def test_nothing_is_done_if_all_files_are_ours(outputs: Path) -> None:
    engine = Helper()
    assert reclaimed(outputs, ME, engine) is None
    assert engine.plans == []


def test_a_container_of_the_runs_own_image_hands_over(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    engine = Helper()
    assert reclaimed(outputs, SOMEBODY, engine) is None
    plan = engine.plans[0]
    assert (plan.image, plan.user, plan.network) == ("an:image", "0", "none")
    assert plan.command == ["chown", "-hR", f"{SOMEBODY}:{os.getgid()}", "/plx-outputs"]
    assert plan.labels == {HOME_LABEL: "abcdef"}
    assert [mount.source for mount in plan.mounts] == [outputs]


def test_root_hands_over_itself(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[tuple[str, int, bool]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def chown(path: str | Path, uid: int, gid: int, *, dir_fd: int | None = None, follow_symlinks: bool) -> None:
        handed.append((Path(path).name, uid, follow_symlinks))

    monkeypatch.setattr(os, "chown", chown)
    engine = Helper()
    assert reclaimed(outputs, SOMEBODY, engine) is None
    assert sorted(handed) == [(name, SOMEBODY, False) for name in ("a", "link", "outputs", "sub")]
    assert engine.plans == []


@pytest.mark.parametrize(
    ("answer", "words"), [(1, "ended with exit code 1"), (EngineError("no chown in it"), "no chown in it")]
)
def test_files_whose_owner_can_not_be_changed_are_reported(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, answer: int | EngineError, words: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert words in (reclaimed(outputs, SOMEBODY, Helper(answer)) or "")


def test_a_folder_that_is_gone_is_no_crash(tmp_path: Path) -> None:
    assert reclaimed(tmp_path / "gone", ME, Helper()) is None


@pytest.mark.engine
def test_a_helper_that_does_not_end_is_given_up(
    engine_address: str, to_sweep: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real engine: the helper is removed, and the engine continues as before."""
    monkeypatch.setattr(containers, "HELPER_S", 1.0)
    installation = f"test-{uuid.uuid4().hex[:8]}"
    to_sweep.append(installation)

    def helper(cmd: str) -> ContainerPlan:
        name = f"plx-helper-{uuid.uuid4().hex[:8]}"
        return ContainerPlan(name, BUSYBOX, ["/bin/sh", "-c", cmd], {HOME_LABEL: installation}, network="none")

    engine = DockerEngine(engine_address)
    try:
        with pytest.raises(EngineError, match="it has not come to its end within 1 s"):
            engine.run_helper(helper("sleep 30"))
        assert engine.containers(installation) == []
        assert engine.run_helper(helper("exit 3")) == 3
    finally:
        engine.close()
