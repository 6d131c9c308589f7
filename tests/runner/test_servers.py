"""Notebooks and tensorboards on the fake engine: address, folders, commits of changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from support import count_ahead, eventually, make_deep_folder

from polylocal.engine.plan import Mount
from polylocal.files.folders import remove_tree
from polylocal.runner import workspace
from polylocal.runner.work import execution_of
from polylocal.statuses import Kind, Status

CODE = {"train.py": "print()\n", "lib/a.py": "a = 1\n"}


def git(*arguments: str, cwd: Path) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True)


@pytest.fixture
def notebook(rig, supervise):
    """A running notebook on some code."""
    run = rig.server(Kind.NOTEBOOK, commit=rig.upload(CODE))
    supervise(lambda: rig.again(run).status == "running")
    return rig.again(run)


def work(rig, run) -> Path:
    return rig.settings.folders.work(run.uuid)


def stop(rig, supervise, run, *, keeps_changes: bool = True) -> None:
    rig.store.runs.record(run, keeps_changes=keeps_changes)
    rig.store.runs.request_stop(run)
    supervise(lambda: rig.again(run).finished_at)


def newest(rig) -> dict[str, str]:
    """The files of the newest commit."""
    commit = rig.repository.resolve("master")
    command = ["git", "--git-dir", str(rig.repository.path), "ls-tree", "-r", "--name-only", commit]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {name: rig.repository.read(commit, name).decode() for name in names}


# -- their place -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.NOTEBOOK, Kind.TENSORBOARD])
def test_a_server_starts_although_all_places_are_taken(rig, supervise, kind):
    blocker = rig.submit("sleep 60")
    supervise(lambda: rig.again(blocker).status == "running", max_runs=1)
    server = rig.server(kind)
    supervise(lambda: rig.again(server).status == "running")
    assert rig.again(blocker).status == "running"


def test_servers_take_no_place_from_others(rig, supervise):
    servers = [rig.server(Kind.NOTEBOOK), rig.server(Kind.TENSORBOARD)]
    supervise(lambda: all(rig.again(run).status == "running" for run in servers), max_runs=1)
    job = rig.submit("true")
    assert count_ahead(rig.store, job) == 0
    supervise(lambda: rig.again(job).finished_at)
    assert rig.again(job).status == "succeeded"


def test_what_a_server_is_allowed_to_take_counts(rig, supervise):
    big = {"environment": {"resources": {"memory": {"limits": 3000}}}}
    job = rig.submit("sleep 60", **big)
    supervise(lambda: rig.again(job).status == "running")
    server = rig.server(Kind.NOTEBOOK, **big)
    small = rig.server(Kind.TENSORBOARD)
    supervise(lambda: rig.again(small).status == "running")
    assert rig.again(server).container_id is None
    rig.store.runs.request_stop(job)
    supervise(lambda: rig.again(server).status == "running")


def test_what_can_never_fit_is_said(rig, supervise):
    server = rig.server(Kind.NOTEBOOK, environment={"resources": {"memory": {"limits": 99999}}})
    supervise(lambda: rig.again(server).finished_at)
    assert "99999 MiB of memory" in (rig.message(server) or "")


# -- while it runs -----------------------------------------------------------------------------------------------


def test_the_port_is_recorded_while_it_runs(rig, supervise, notebook):
    assert notebook.port == rig.engine.inspect(notebook.container_id).published[8888].port
    assert notebook.port
    assert rig.container(notebook).plan.port == 8888
    assert rig.history(notebook) == ["created", "building", "scheduled", "running"]


@pytest.mark.parametrize(
    ("kind", "message"), [(Kind.NOTEBOOK, "Notebook was stopped"), (Kind.TENSORBOARD, "Tensorboard was stopped")]
)
def test_stopping_a_server(rig, supervise, kind, message):
    server = rig.server(kind)
    supervise(lambda: rig.again(server).status == "running")
    stop(rig, supervise, server)
    assert (rig.again(server).status, rig.message(server)) == ("stopped", message)
    eventually(lambda: not rig.engine.made)


def test_a_server_that_ends_by_itself_has_not_been_stopped(rig, supervise, notebook):
    rig.container(notebook).stopping.set()
    supervise(lambda: rig.again(notebook).finished_at)
    assert rig.again(notebook).status == "failed"


def test_a_server_is_taken_up_with_the_port_that_it_has(rig, supervise, notebook):
    rig.store.runs.record(notebook, port=1)
    execution = execution_of(rig.again(notebook), rig.context())
    execution.operation.mark_running(notebook.container_id or "")
    assert rig.again(notebook).port == rig.engine.inspect(notebook.container_id).published[8888].port != 1


@pytest.mark.parametrize(("network", "port"), [("bridge", 8888), ("host", 8888), ("none", None)])
def test_a_server_whose_port_is_not_published_is_recorded_where_the_daemon_reaches_it(
    rig, supervise, notebook, network, port
):
    container = rig.container(notebook)
    container.plan = replace(container.plan, publishes_port=False, network=network)
    execution_of(rig.again(notebook), rig.context()).operation.mark_running(container.id)
    found = rig.again(notebook)
    assert found.port == port
    assert found.address == rig.engine.inspect(container.id).address


# -- the code of a notebook --------------------------------------------------------------------------------------


def test_a_notebook_works_on_its_commit(rig, notebook):
    folder = work(rig, notebook)
    assert {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()} == CODE
    assert Mount(folder, PurePosixPath("/code")) in rig.container(notebook).plan.mounts


def test_any_user_of_an_image_may_change_the_code(rig, notebook):
    folder = work(rig, notebook)
    assert all(path.stat().st_mode & 0o666 == 0o666 for path in (folder, *folder.rglob("*")))
    assert folder.stat().st_mode & 0o777 == (folder / "lib").stat().st_mode & 0o777 == 0o777


def test_a_notebook_without_code_has_an_empty_folder(rig, supervise):
    run = rig.server(Kind.NOTEBOOK)
    supervise(lambda: rig.again(run).status == "running")
    assert list(work(rig, run).iterdir()) == []


def test_a_notebook_without_code_and_without_changes_makes_no_commit(rig, supervise):
    run = rig.server(Kind.NOTEBOOK)
    supervise(lambda: rig.again(run).status == "running")
    stop(rig, supervise, run)
    assert rig.repository.resolve("master") is None
    assert not work(rig, run).exists()


def test_the_first_files_of_a_project_may_come_from_a_notebook(rig, supervise):
    run = rig.server(Kind.NOTEBOOK)
    supervise(lambda: rig.again(run).status == "running")
    (work(rig, run) / "first.ipynb").write_text("{}")
    stop(rig, supervise, run)
    assert newest(rig) == {"first.ipynb": "{}"}


def test_changes_are_committed_at_the_end(rig, supervise, notebook):
    folder = work(rig, notebook)
    (folder / "train.py").write_text("print(2)\n")
    (folder / "new.ipynb").write_text("{}")
    (folder / "lib/a.py").unlink()
    stop(rig, supervise, notebook)
    assert newest(rig) == {"train.py": "print(2)\n", "new.ipynb": "{}"}
    about = ["git", "--git-dir", str(rig.repository.path), "rev-parse", "master^"]
    assert subprocess.run(about, check=True, capture_output=True, text=True).stdout.strip() == notebook.commit
    assert not folder.exists()
    commit = rig.repository.resolve("master")
    assert f"The notebook's changes are commit {commit[:12]} of the project's code" in rig.messages(notebook)
    assert rig.message(notebook) == "Notebook was stopped"


def test_nothing_changed_is_no_commit(rig, supervise, notebook):
    stop(rig, supervise, notebook)
    assert rig.repository.resolve("master") == notebook.commit
    assert rig.messages(notebook)[-1] == "Notebook was stopped"
    assert len(rig.messages(notebook)) == 5
    assert not work(rig, notebook).exists()


def test_changes_that_are_not_wanted_are_thrown_away(rig, supervise, notebook):
    (work(rig, notebook) / "train.py").write_text("print(2)\n")
    stop(rig, supervise, notebook, keeps_changes=False)
    assert rig.repository.resolve("master") == notebook.commit
    assert newest(rig) == CODE
    assert not work(rig, notebook).exists()


def test_changes_of_a_notebook_that_failed_are_kept_too(rig, supervise, notebook):
    (work(rig, notebook) / "train.py").write_text("print(2)\n")
    rig.engine.lose(notebook.container_id)
    supervise(lambda: rig.again(notebook).finished_at)
    assert rig.again(notebook).status == "failed"
    assert newest(rig)["train.py"] == "print(2)\n"


def test_code_that_was_uploaded_meanwhile_is_not_undone(rig, supervise, notebook):
    later = rig.upload({**CODE, "uploaded.py": "x"})
    stop(rig, supervise, notebook)
    assert rig.repository.resolve("master") == later


def test_code_that_was_uploaded_meanwhile_stays_beside_the_changes(rig, supervise, notebook):
    rig.upload({**CODE, "uploaded.py": "x"})
    (work(rig, notebook) / "new.ipynb").write_text("{}")
    stop(rig, supervise, notebook)
    assert newest(rig) == {**CODE, "uploaded.py": "x", "new.ipynb": "{}"}


# -- leftovers ---------------------------------------------------------------------------------------------------


def kept_note(rig, run) -> str:
    return next(text for text in rig.messages(run) if text and text.startswith("Not committed, and kept in"))


def test_ignored_files_keep_the_folder_and_are_noted(rig, supervise, notebook):
    folder = work(rig, notebook)
    (folder / ".gitignore").write_text("*.bin\n")
    (folder / "model.bin").write_text("weights")
    (folder / "new.py").write_text("1")
    stop(rig, supervise, notebook)
    assert set(newest(rig)) == {*CODE, ".gitignore", "new.py"}
    assert (folder / "model.bin").read_text() == "weights"
    assert kept_note(rig, notebook) == f"Not committed, and kept in {folder}: model.bin"


def test_a_repository_inside_keeps_the_folder_and_is_noted(rig, supervise, notebook):
    folder = work(rig, notebook)
    (folder / "new.py").write_text("1")
    inner = folder / "inner"
    inner.mkdir()
    git("init", "--quiet", cwd=inner)
    (inner / "x").write_text("1")
    git("add", ".", cwd=inner)
    git("commit", "--quiet", "-m", "x", cwd=inner)
    stop(rig, supervise, notebook)
    assert newest(rig) == {**CODE, "new.py": "1"}
    assert (inner / "x").exists()
    assert kept_note(rig, notebook) == f"Not committed, and kept in {folder}: inner"


def test_a_huge_file_of_holes_keeps_the_folder_and_is_noted(rig, supervise, notebook):
    """`truncate` creates one at once, and reading it would take hours."""
    folder = work(rig, notebook)
    (folder / "new.py").write_text("1")
    with (folder / "huge.bin").open("wb") as file:
        file.truncate(4 << 40)
    stop(rig, supervise, notebook)
    assert newest(rig) == {**CODE, "new.py": "1"}
    assert (folder / "huge.bin").stat().st_size == 4 << 40
    assert kept_note(rig, notebook) == f"Not committed, and kept in {folder}: huge.bin (more than 4096 MiB)"


def test_a_file_of_the_code_that_became_huge_is_kept_as_it_was_in_the_code(rig, supervise, notebook):
    folder = work(rig, notebook)
    name = next(iter(CODE))
    with (folder / name).open("ab") as file:
        file.truncate(4 << 40)
    (folder / "new.py").write_text("1")
    stop(rig, supervise, notebook)
    assert newest(rig) == {**CODE, "new.py": "1"}
    assert f"{name} (more than 4096 MiB)" in kept_note(rig, notebook)


@pytest.mark.parametrize(
    ("setting", "words"), [("max_upload_files", "more than 3 files"), ("max_unpacked_mib", "larger than 3 MiB")]
)
def test_more_than_code_may_have_keeps_the_folder_and_the_history_says_why(rig, supervise, notebook, setting, words):
    folder, before = work(rig, notebook), newest(rig)
    for n in range(9):
        with (folder / f"{n}").open("wb") as file:
            file.truncate(1 << 20)
    rig.settings = rig.settings.model_copy(update={setting: 3})
    workspace.commit_and_remove(rig.again(notebook), rig.context())
    assert newest(rig) == before
    assert (folder / "8").exists()
    assert any(words in (text or "") and str(folder) in (text or "") for text in rig.messages(notebook))


@pytest.mark.slow
def test_strange_things_in_a_folder_hold_up_no_end(rig, supervise, notebook):
    folder = work(rig, notebook)
    os.mkfifo(folder / "pipe")
    (folder / "round").symlink_to(".")
    make_deep_folder(folder, 1200)
    (folder / "new.py").write_text("1")
    stop(rig, supervise, notebook)
    assert newest(rig)["new.py"] == "1"
    remove_tree(folder)


def test_what_programs_make_anew_is_neither_committed_nor_kept(rig, supervise, notebook):
    folder = work(rig, notebook)
    for name in (".ipynb_checkpoints", "__pycache__", "lib/__pycache__"):
        (folder / name).mkdir()
        (folder / name / "x").write_text("x")
    stop(rig, supervise, notebook)
    assert newest(rig) == CODE
    assert not folder.exists()


def test_a_folder_that_can_not_be_committed_stays_and_the_history_says_where(rig, supervise, notebook):
    folder = work(rig, notebook)
    (folder / "new.py").write_text("1")
    broken = rig.repository.path / "objects"
    shutil.rmtree(broken)
    broken.write_text("no folder")
    stop(rig, supervise, notebook)
    assert rig.message(notebook) == "Notebook was stopped"
    found = next(text for text in rig.messages(notebook) if text and "could not be committed" in text)
    assert str(folder) in found
    assert (folder / "new.py").exists()


def test_a_deleted_notebook_leaves_no_folder(rig, supervise, notebook):
    folder = work(rig, notebook)
    (folder / "new.py").write_text("1")
    rig.store.runs.delete(notebook)
    supervise(lambda: rig.store.runs.by_uuid(notebook.uuid) is None)
    assert list(folder.parent.iterdir()) == []


# -- crashes -----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone."""


class Deaf:
    """A follower that reads no output."""

    def attach(self) -> None: ...


def stopped_on_disk(rig):
    """A notebook whose container has ended, whose row says `running`, and that no daemon works on."""
    run = rig.built(rig.server(Kind.NOTEBOOK, commit=rig.upload(CODE)))
    execution = execution_of(run, rig.context())
    container_id = execution.operation.create()
    execution.operation.start(container_id, Deaf())
    (work(rig, run) / "new.py").write_text("1")
    rig.store.runs.request_stop(run)
    rig.engine.stop(container_id, 1)
    return rig.again(run)


@pytest.mark.slow
def test_a_crash_between_the_commit_and_the_final_status(rig, monkeypatch):
    run = stopped_on_disk(rig)
    dying = execution_of(run, rig.context())
    move = dying.move

    def die_at_the_end(to, *arguments, **more):
        if to == Status.STOPPED:
            raise Killed
        return move(to, *arguments, **more)

    monkeypatch.setattr(dying, "move", die_at_the_end)
    with pytest.raises(Killed):
        dying()
    assert rig.again(run).status == "running"
    commit = rig.repository.resolve("master")
    execution_of(rig.again(run), rig.context())()
    assert (rig.again(run).status, rig.message(run)) == ("stopped", "Notebook was stopped")
    assert rig.repository.resolve("master") == commit
    assert newest(rig) == {**CODE, "new.py": "1"}
    assert sum("are commit" in (text or "") for text in rig.messages(run)) == 1


@pytest.mark.slow
def test_a_crash_right_after_the_commit(rig, monkeypatch):
    run = stopped_on_disk(rig)
    with monkeypatch.context() as patch:
        patch.setattr(workspace, "remove_tree", _dying_at_removal(0))
        with pytest.raises(Killed):
            execution_of(run, rig.context())()
    execution_of(rig.again(run), rig.context())()
    assert rig.again(run).status == "stopped"
    assert newest(rig) == {**CODE, "new.py": "1"}
    assert list(work(rig, run).parent.iterdir()) == []


@pytest.mark.slow
def test_a_crash_in_the_middle_of_putting_the_folder_away(rig, monkeypatch):
    """A partly removed folder is not a change of a user."""
    run = stopped_on_disk(rig)
    with monkeypatch.context() as patch:
        patch.setattr(workspace, "remove_tree", _dying_at_removal(1))
        with pytest.raises(Killed):
            execution_of(run, rig.context())()
    execution_of(rig.again(run), rig.context())()
    assert rig.again(run).status == "stopped"
    assert newest(rig) == {**CODE, "new.py": "1"}


def _dying_at_removal(files: int) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        if folder.exists():
            for path in sorted(path for path in folder.rglob("*") if path.is_file())[:files]:
                path.unlink()
            raise Killed

    return remove


def test_a_crash_in_the_middle_of_the_checkout(rig, supervise):
    run = rig.built(rig.server(Kind.NOTEBOOK, commit=rig.upload(CODE)))
    half = work(rig, run).with_name(f"{run.uuid}.new")
    half.mkdir(parents=True)
    (half / "half.py").write_text("")
    supervise(lambda: rig.again(run).status == "running")
    assert {p.name for p in work(rig, run).iterdir()} == {"train.py", "lib"}
    assert not half.exists()


def test_changes_outlive_the_daemon(rig):
    """What was written before a crash is not overwritten by the code again."""
    run = rig.built(rig.server(Kind.NOTEBOOK, commit=rig.upload(CODE)))
    assert workspace.check_out_code(run, rig.context()) == work(rig, run)
    (work(rig, run) / "train.py").write_text("mine")
    workspace.check_out_code(run, rig.context())
    assert (work(rig, run) / "train.py").read_text() == "mine"


# -- what a tensorboard shows ------------------------------------------------------------------------------------


def shown(rig, supervise, of) -> tuple[list[Mount], str, dict[str, str]]:
    run = rig.server(Kind.TENSORBOARD, of=of)
    supervise(lambda: rig.again(run).status == "running", max_runs=4)
    plan = rig.container(run).plan
    return [mount for mount in plan.mounts if mount.read_only], plan.command[-1], dict(plan.env)


def outputs(rig, run) -> Path:
    return rig.settings.home / str(run.outputs)


def test_a_tensorboard_of_a_project_shows_all_outputs_and_changes_none(rig, supervise):
    mounts, command, _ = shown(rig, supervise, None)
    folder = rig.settings.home / f"outputs/{rig.project.uuid}"
    assert Mount(folder, PurePosixPath("/plx-outputs/root/quick-start"), read_only=True) in mounts
    assert "--logdir /plx-outputs/root/quick-start --host 0.0.0.0 --port 6006" in command


def test_a_tensorboard_shows_its_own_project_when_the_name_was_given_away(rig, supervise):
    """The renamed project shows all of its outputs; a new project of the old name shows none of them."""
    renamed, name = rig.project, rig.project.name
    before = rig.experiment("true")
    rig.project = rig.store.projects.update(renamed, {"name": "hidden", "is_public": False})
    since = rig.experiment("true")
    mounts, _, _ = shown(rig, supervise, None)
    mine = next(mount.source for mount in mounts if str(mount.target) == "/plx-outputs/root/hidden")
    assert {outputs(rig, run).is_relative_to(mine) for run in (before, since)} == {True}
    rig.project = rig.store.projects.create(rig.user, {"name": name})
    mounts, _, _ = shown(rig, supervise, None)
    others = next(mount.source for mount in mounts if str(mount.target) == f"/plx-outputs/root/{name}")
    assert {outputs(rig, run).is_relative_to(others) for run in (before, since)} == {False}
    assert not mine.is_relative_to(others)
    assert not others.is_relative_to(mine)


def test_a_project_that_is_removed_takes_its_outputs_along(rig, supervise):
    run = rig.submit("true")
    supervise(lambda: rig.again(run).finished_at)
    (outputs(rig, run) / "model").write_text("x")
    rig.store.projects.delete(rig.project)
    supervise(lambda: rig.store.projects.uuids() == set())
    assert not (rig.settings.folders.project_outputs(rig.project.uuid)).exists()


def test_a_tensorboard_of_an_experiment_shows_its_outputs(rig, supervise):
    experiment = rig.experiment("sleep 60")
    mounts, command, _ = shown(rig, supervise, experiment)
    inside = f"/plx-outputs/root/quick-start/experiments/{experiment.id}"
    assert Mount(outputs(rig, experiment), PurePosixPath(inside), read_only=True) in mounts
    assert f"--logdir {inside} " in command


def test_a_tensorboard_of_a_group_shows_the_outputs_of_its_experiments(rig, supervise):
    group = rig.group({"matrix": {"n": {"values": [1, 2]}}, "concurrency": 2}, "sleep 60")
    supervise(lambda: len(rig.members(group)) == 2, max_runs=4)
    mounts, command, _ = shown(rig, supervise, group)
    folder = rig.settings.home / f"outputs/{rig.project.uuid}/groups/{group.id}"
    inside = f"/plx-outputs/root/quick-start/groups/{group.id}"
    assert Mount(folder, PurePosixPath(inside), read_only=True) in mounts
    assert all(outputs(rig, member).parent == folder for member in rig.members(group))
    assert f"--logdir {inside} " in command


def test_a_tensorboard_of_a_member_shows_that_member(rig, supervise):
    group = rig.group({"matrix": {"n": {"values": [1]}}}, "sleep 60")
    supervise(lambda: rig.members(group))
    member = rig.members(group)[0]
    mounts, _, _ = shown(rig, supervise, member)
    inside = f"/plx-outputs/root/quick-start/groups/{group.id}/{member.id}"
    assert Mount(outputs(rig, member), PurePosixPath(inside), read_only=True) in mounts


def test_a_tensorboard_of_a_group_has_a_folder_of_its_own(rig, supervise):
    group = rig.group({"matrix": {"n": {"values": [1]}}}, "sleep 60")
    supervise(lambda: rig.members(group))
    board = rig.server(Kind.TENSORBOARD, of=group)
    assert board.id == rig.members(group)[0].id
    assert board.outputs == f"outputs/{rig.project.uuid}/tensorboards/{board.id}"


def test_no_tensorboard_outlives_what_it_shows(rig, supervise):
    """Otherwise it would show the outputs of another project."""
    experiment = rig.experiment("true")
    group = rig.group({"matrix": {"n": {"values": [1]}}})
    supervise(lambda: rig.again(experiment).finished_at and rig.again(group).finished_at)
    boards = [rig.server(Kind.TENSORBOARD, of=of) for of in (experiment, group)]
    supervise(lambda: all(rig.again(board).status == "running" for board in boards))
    for thing in (experiment, group):
        rig.store.runs.delete(thing)
    supervise(lambda: all(rig.store.runs.by_uuid(one.uuid) is None for one in (experiment, group)))
    assert rig.store.runs.server(rig.project, Kind.TENSORBOARD) is None


# -- outputs of other runs ---------------------------------------------------------------------------------------


def plan_of(rig, supervise, run):
    supervise(lambda: rig.again(run).status == "running" and rig.again(run).container_id, max_runs=3)
    return rig.container(run).plan


def test_outputs_of_other_runs_are_mounted_to_be_read(rig, supervise):
    job, experiment = rig.submit("true"), rig.experiment("true", name="trained")
    supervise(lambda: rig.again(job).finished_at and rig.again(experiment).finished_at)
    wanted = {"jobs": [job.id], "experiments": ["trained"]}
    plan = plan_of(rig, supervise, rig.submit("sleep 60", environment={"outputs": wanted}))
    inside = [
        f"/plx-outputs/root/quick-start/{name}/{run.id}" for name, run in (("jobs", job), ("experiments", experiment))
    ]
    for run, path in zip((job, experiment), inside, strict=True):
        assert Mount(outputs(rig, run), PurePosixPath(path), read_only=True) in plan.mounts
    paths = {"jobs": [inside[0]], "experiments": [inside[1]]}
    assert json.loads(plan.env["POLYAXON_REFS_OUTPUTS_PATHS"]) == paths


def test_without_references_nothing_is_said_of_them(rig, supervise):
    assert "POLYAXON_REFS_OUTPUTS_PATHS" not in plan_of(rig, supervise, rig.submit("sleep 60")).env


def test_an_experiment_of_a_group_is_read_by_its_unique_name(rig, supervise):
    group = rig.group({"matrix": {"n": {"values": [1]}}})
    supervise(lambda: rig.again(group).finished_at)
    member = rig.members(group)[0]
    wanted = {"experiments": [member.unique_name, member.id]}
    plan = plan_of(rig, supervise, rig.submit("sleep 60", environment={"outputs": wanted}))
    inside = f"/plx-outputs/root/quick-start/groups/{group.id}/{member.id}"
    assert [m.source for m in plan.mounts if str(m.target) == inside] == [outputs(rig, member)]
    assert json.loads(plan.env["POLYAXON_REFS_OUTPUTS_PATHS"]) == {"experiments": [inside, inside]}


def test_a_run_that_was_deleted_meanwhile_fails_its_readers_in_words(rig, supervise):
    job = rig.submit("true")
    supervise(lambda: rig.again(job).finished_at)
    reader = rig.submit("true", environment={"outputs": {"jobs": [job.id]}})
    rig.store.runs.delete(job)
    supervise(lambda: rig.again(reader).finished_at)
    assert rig.again(reader).status == Status.FAILED
    assert str(job.id) in (rig.message(reader) or "")


def test_a_notebook_reads_other_outputs_too(rig, supervise):
    job = rig.submit("true")
    supervise(lambda: rig.again(job).finished_at)
    run = rig.server(Kind.NOTEBOOK, environment={"outputs": {"jobs": [job.id]}})
    plan = plan_of(rig, supervise, run)
    assert any(mount.source == outputs(rig, job) and mount.read_only for mount in plan.mounts)
