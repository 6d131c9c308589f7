"""Stops of builds at each step, and builds that fail before the engine is called."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import build, eventually

from polylocal.engine.images import BuildRequest, BuildResult
from polylocal.git import command as gitrun
from polylocal.git import tree_size
from polylocal.polyaxonfile import parse
from polylocal.runner import building
from polylocal.runner.execution import Execution
from polylocal.runner.work import execution_of
from polylocal.statuses import Kind
from polylocal.store import NewRun
from polylocal.store.rows import Run

from .conftest import Rig


def a_build(rig: Rig, files: dict[str, str] | None = None, **sections: Any) -> Run:
    commit = rig.upload(files or {"a": "1"})
    code = rig.store.projects.reference_code(rig.project, {"commit": commit})
    content = {**build("base"), "build": sections or {"image": "base"}}
    specification = parse(content, Kind.BUILD)
    new = NewRun(Kind.BUILD, specification.content, specification.config, {}, code_id=code.id)
    return rig.store.runs.insert(rig.project, rig.user, new)


@contextmanager
def executing(rig: Rig, run: Run, context: Any = None) -> Iterator[Execution]:
    execution = execution_of(run, context or rig.context())
    thread = threading.Thread(target=execution)
    thread.start()
    yield execution
    thread.join(20)
    assert not thread.is_alive()


def stop(rig: Rig, execution: Execution) -> None:
    """Stop the build as the supervisor does for a user."""
    rig.store.runs.request_stop(execution.run)
    execution.stop()


@pytest.fixture
def slow_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """slow_git("archive") → a file that exists after git has begun an archive that never ends."""

    def make(command: str) -> Path:
        begun, real, program = tmp_path / "begun", gitrun._find_git(os.environ["PATH"]), tmp_path / "bin" / "git"
        program.parent.mkdir()
        hang = f"touch '{begun}'; exec sleep 600"
        program.write_text(f'#!/bin/sh\ncase " $* " in *" {command} "*) {hang};; esac\nexec {real} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return begun

    return make


@pytest.mark.parametrize("command", ["ls-tree", "cat-file", "archive"])
def test_while_git_works(
    rig: Rig, slow_git: Callable[[str], Path], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_size, "_known", OrderedDict())  # other tests have measured the same code
    run = a_build(rig)
    begun = slow_git(command)
    with executing(rig, run) as execution:
        eventually(begun.exists)
        stop(rig, execution)
    assert (rig.again(run).status, rig.message(run)) == ("stopped", "BuildJob was stopped.")
    assert rig.engine.builds == 0


def test_while_the_engine_is_away(rig: Rig) -> None:
    run, context = a_build(rig), rig.context()
    with rig.engine.away(), executing(rig, run, context) as execution:
        eventually(lambda: context.link.is_away)
        stop(rig, execution)
    assert rig.again(run).status == "stopped"


def test_before_it_is_tried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_build(rig)
    monkeypatch.setattr(building, "ENGINE_END_S", 600.0)
    tried = threading.Event()

    def failing(*arguments: Any) -> BuildResult:
        tried.set()
        return BuildResult(None, "containerd: transport is closing")

    monkeypatch.setattr(rig.engine, "build", failing)
    with executing(rig, run) as execution:
        assert tried.wait(20)
        stop(rig, execution)
    assert rig.again(run).status == "stopped"


def test_while_the_context_is_sent(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_build(rig)
    sending = threading.Event()

    def reading(request: BuildRequest, on_line: Any, cancel: Any) -> BuildResult:
        while True:  # an engine that takes it slowly, again and again
            request.context.read(512)
            request.context.seek(0)
            sending.set()

    monkeypatch.setattr(rig.engine, "build", reading)
    with executing(rig, run) as execution:
        assert sending.wait(20)
        stop(rig, execution)
    assert rig.again(run).status == "stopped"


def test_code_beyond_the_limits_is_not_built(rig: Rig) -> None:
    files = {f"{number}": "" for number in range(12)}
    run = a_build(rig, files)
    rig.settings = rig.settings.model_copy(update={"max_upload_files": 10})
    execution_of(run, rig.context())()
    assert rig.again(run).status == "failed"
    assert "more than 10 files and folders (max_upload_files)" in (rig.message(run) or "")
    assert b"max_upload_files" in rig.log(run)
    assert rig.engine.builds == 0


def test_a_notebook_of_code_beyond_the_limits_fails_with_a_sentence(rig: Rig) -> None:
    commit = rig.upload({f"{number}": "" for number in range(12)})
    run = rig.built(rig.server(Kind.NOTEBOOK, commit=commit))
    rig.settings = rig.settings.model_copy(update={"max_upload_files": 10})
    execution_of(run, rig.context())()
    assert rig.again(run).status == "failed"
    assert "Could not start: The code contains more than 10 files" in (rig.message(run) or "")


@pytest.mark.parametrize("commit", ["--output=x", "master", "f" * 40])
def test_a_row_that_names_no_commit_gets_no_code(rig: Rig, commit: str) -> None:
    """Rows of earlier versions may contain any value that a run has reported."""
    run = a_build(rig)
    code = rig.store.projects.reference_code(rig.project, {"commit": commit})
    rig.store.runs.record(run, code_id=code.id)
    execution_of(rig.again(run), rig.context())()
    assert rig.again(run).status == "failed"
    assert rig.engine.builds == 0


def test_a_dockerfile_that_is_no_text(rig: Rig) -> None:
    run = a_build(rig, {"Dockerfile": "FROM base"}, dockerfile="Dockerfile")
    work = rig.settings.folders.root / "work-of-test"
    work.mkdir()
    (work / "Dockerfile").write_bytes(b"\xff\xfe")
    made = rig.repository.commit_folder(work, run.commit, "root").commit
    code = rig.store.projects.reference_code(rig.project, {"commit": made})
    rig.store.runs.record(run, code_id=code.id)
    execution_of(rig.again(run), rig.context())()
    assert "`dockerfile: Dockerfile` is not UTF-8 text" in (rig.message(run) or "")
