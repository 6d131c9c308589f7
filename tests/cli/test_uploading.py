"""Uploads from the command line: limits of the daemon, left-out files, and the printed summary."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from polylocal.api.api_context import ApiContext
from polylocal.client import packing
from polylocal.client.http import Client
from polylocal.files import folders
from polylocal.installation import Installation
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, User

from .conftest import Cli

pytestmark = pytest.mark.usefixtures("daemon")


@pytest.fixture
def no_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    def upload(*arguments: object) -> None:
        raise AssertionError("something was sent")

    monkeypatch.setattr(Client, "upload", upload)


@pytest.fixture
def no_packing(monkeypatch: pytest.MonkeyPatch, no_upload: None) -> None:
    def survey(folder: Path, *, as_git: bool) -> None:
        raise AssertionError(f"{folder} was looked at")

    monkeypatch.setattr(packing, "survey", survey)


def limit(context: ApiContext, **values: int) -> None:
    tight = Installation(context.settings.model_copy(update=values), context.store)
    object.__setattr__(context, "installation", tight)


def names(context: ApiContext, project: Project) -> set[str]:
    repository = context.repository(project)
    return repository.files(repository.resolve("HEAD") or "")


# -- limits of the daemon ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_packing", "folder")
def test_a_project_that_is_not_there_is_said_before_anything_is_packed(polylocal: Cli) -> None:
    done = polylocal("upload", "-p", "nope")
    assert (done.code, done.out, done.err) == (1, "", "polylocal: Not found.\n")


@pytest.mark.usefixtures("no_packing", "folder", "project")
def test_a_project_of_somebody_else_is_said_before(
    polylocal: Cli, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = store.users.add("ann")
    monkeypatch.setenv("POLYLOCAL_TOKEN", store.users.new_token(ann))
    done = polylocal("upload", "-p", "root/quick-start")
    assert (done.code, done.err) == (1, "polylocal: You do not have permission to perform this action.\n")


@pytest.mark.usefixtures("no_packing", "folder")
def test_a_running_notebook_is_said_before(polylocal: Cli, store: Store, project: Project, root: User) -> None:
    store.runs.insert(project, root, NewRun(Kind.NOTEBOOK, config={"version": 1, "kind": "notebook"}))
    done = polylocal("upload")
    assert done.code == 1
    assert "currently running a Notebook. You must stop it" in done.err


@pytest.mark.usefixtures("no_packing", "folder")
def test_code_from_elsewhere_is_said_before(polylocal: Cli, store: Store, project: Project) -> None:
    store.projects.set_repository(project, "https://example.org/x.git", by_admin=True)
    done = polylocal("upload")
    assert done.code == 1
    assert "currently using an external_repo" in done.err


@pytest.mark.usefixtures("no_upload", "project")
def test_a_packed_size_beyond_the_limit_is_said_before_it_is_sent(
    polylocal: Cli, context: ApiContext, folder: Path
) -> None:
    limit(context, max_upload_mib=12)
    (folder / "data").mkdir()
    (folder / "data" / "a").write_bytes(os.urandom(11 << 20))
    (folder / "model.h5").write_bytes(os.urandom(2 << 20))
    done = polylocal("upload")
    assert done.code == 1
    assert "13 MiB, and `max_upload_mib` is 12; the largest: data/ 11 MiB, model.h5 2.0 MiB" in done.err
    assert ".polyaxonignore" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.usefixtures("no_upload", "project")
def test_an_unpacked_size_beyond_the_limit_is_said_before_it_is_packed(
    polylocal: Cli, context: ApiContext, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(context, max_unpacked_mib=1)
    monkeypatch.setattr(packing, "pack", None)
    (folder / "zeros").write_bytes(bytes(3 << 20))
    done = polylocal("run", "-u")
    assert done.code == 1
    assert "3.0 MiB, and `max_unpacked_mib` is 1; the largest: zeros 3.0 MiB" in done.err


@pytest.mark.usefixtures("no_upload", "project")
def test_more_files_than_the_limit_are_said_before(polylocal: Cli, context: ApiContext, folder: Path) -> None:
    limit(context, max_upload_files=5)
    for n in range(4):
        (folder / f"sub{n % 2}").mkdir(exist_ok=True)
        (folder / f"sub{n % 2}" / f"{n}").touch()
    done = polylocal("upload")
    assert done.code == 1
    assert "8 files and folders, and `max_upload_files` is 5; the largest: sub0/ 2, sub1/ 2" in done.err


def test_what_is_just_within_the_limits_is_taken(
    polylocal: Cli, context: ApiContext, project: Project, folder: Path
) -> None:
    limit(context, max_upload_files=4, max_unpacked_mib=1, max_upload_mib=1)
    (folder / "sub").mkdir()
    (folder / "sub" / "a").write_bytes(bytes((1 << 20) - 1000))
    assert polylocal("upload").code == 0
    assert "train.py" in names(context, project)


@pytest.mark.usefixtures("folder")
def test_an_older_daemon_tells_no_limits(
    polylocal: Cli, context: ApiContext, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "upload_limits", lambda self, owner, name: {})
    assert polylocal("upload").code == 0
    assert "train.py" in names(context, project)


# -- left-out files ---------------------------------------------------------------------------------------------------


def test_a_link_that_leads_out_is_left_out_and_named(
    polylocal: Cli, context: ApiContext, project: Project, folder: Path
) -> None:
    (folder / "data").symlink_to("/mnt/data")
    (folder / "same.py").symlink_to("train.py")
    done = polylocal("upload")
    assert done.code == 0
    assert names(context, project) == {"polyaxonfile.yml", "train.py", "same.py"}
    said = [line for line in done.err.splitlines() if "data" in line]
    assert said == [
        "Left out data: a link that leads out of the folder; give runs such data by data_refs, or name it in"
        " .polyaxonignore"
    ]
    (folder / ".polyaxonignore").write_text("/data\n")
    assert "Left out" not in polylocal("upload").err


@pytest.mark.usefixtures("project")
def test_many_links_are_one_line(polylocal: Cli, folder: Path) -> None:
    for n in range(5):
        (folder / f"l{n}").symlink_to("/mnt")
    assert "Left out l0, l1, l2 and 2 more: links that lead out" in polylocal("upload").err


def test_which_ignore_files_are_heeded_is_said(
    polylocal: Cli, context: ApiContext, project: Project, folder: Path
) -> None:
    (folder / ".gitignore").write_text("*.h5\n")
    (folder / "model.h5").write_text("x")
    assert "Left out the files that .gitignore names\n" in polylocal("upload").err
    (folder / ".dockerignore").write_text("docs\n")
    assert polylocal("upload").err.count("Left out the files that .gitignore and .dockerignore name\n") == 1
    assert names(context, project) == {"polyaxonfile.yml", "train.py", ".gitignore", ".dockerignore"}
    (folder / ".polyaxonignore").write_text("")
    assert "Left out" not in polylocal("upload").err
    assert "model.h5" in names(context, project)


@pytest.mark.usefixtures("no_upload", "project")
@pytest.mark.parametrize("name", [".dockerignore", ".gitignore", ".polyaxonignore"])
def test_code_of_which_nothing_is_left_is_not_uploaded(polylocal: Cli, folder: Path, name: str) -> None:
    (folder / name).write_text("*\n")
    done = polylocal("upload")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert f"there are no files to upload in {folder}: {name} excludes all of them" in done.err


@pytest.mark.usefixtures("no_upload", "project")
def test_rules_in_utf16_are_one_line(polylocal: Cli, folder: Path) -> None:
    (folder / ".polyaxonignore").write_bytes("data\r\n".encode("utf-16"))
    done = polylocal("upload")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert ".polyaxonignore is not a text in UTF-8" in done.err


def test_what_may_not_be_read_is_one_line_and_exit_code_1(
    polylocal: Cli, context: ApiContext, project: Project, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "closed").mkdir()
    (folder / "closed" / "x").touch()
    real = folders._open_folder

    def refusing(top: Path, parts: Sequence[str]) -> int:
        if parts == ("closed",):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(top, parts)

    monkeypatch.setattr(folders, "_open_folder", refusing)
    done = polylocal("upload")
    assert (done.code, done.out) == (1, "")
    assert done.err == "polylocal: closed/ can't be read: Permission denied; name it in .polyaxonignore\n"
    assert context.repository(project).resolve("HEAD") is None
