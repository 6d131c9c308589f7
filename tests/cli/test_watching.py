"""`run --watch` with real files and events: changes that start a run, and changes that do not."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from support import eventually

from polylocal.cli import console, watching
from polylocal.cli.watching import LoopGuard, Snapshots, Version
from polylocal.client.http import Client, RunReference
from polylocal.errors import InvalidInput


class Ended(Exception):
    """Ends the loop of `watch` in a test."""


class Watched:
    """A watched folder, and the runs that its changes have started."""

    def __init__(self, folder: Path, files: list[Path]) -> None:
        self.folder, self.files = folder, files
        self.runs: list[dict[str, str]] = []  # the uploaded code of each run
        self.stopped: list[int] = []
        self._over = threading.Event()
        self.during: Callable[[], None] = lambda: None  # called during the upload
        self.problem = ""
        self.looks = 0
        self._ends = False

    # -- as the API --

    def run(self, run: RunReference) -> dict[str, str]:
        return {"last_status": "running"}

    def stop(self, run: RunReference) -> None:
        self.stopped.append(run.id)
        self._over.set()

    # -- as the command --

    def begin(self) -> RunReference:
        if self._ends:
            raise Ended
        if self.problem:
            raise InvalidInput([self.problem])
        self.runs.append(
            {
                path: (self.folder / path).read_text()
                for path in os.listdir(self.folder)
                if path[0] != "." and "." in path
            }
        )
        self.during()
        return RunReference("root", "p", "job", len(self.runs))

    def follow(self, run: RunReference) -> None:
        """Follow a run until it is stopped."""
        self._over.wait(60)
        self._over.clear()

    def end(self) -> None:
        self._ends = True
        (self.folder / "the_end").write_text("x")

    def quiet(self) -> int:
        """The number of runs after the watcher has examined a change: then the file `mark` starts one more run."""
        before = len(self.runs)
        (self.folder / "mark.py").write_text(str(before))
        eventually(lambda: self.runs and self.runs[-1].get("mark.py") == str(before))
        return len(self.runs) - 1


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Watched]]:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text("1")
    (folder / "polyaxonfile.yml").write_text("kind: job")
    changes = Snapshots.changes
    stack: list[tuple[Watched, threading.Thread]] = []

    def begin(*files: Path, runs: int = 1, **values: Any) -> Watched:
        watched = Watched(folder, list(files) or [folder / "polyaxonfile.yml"])
        for name, value in values.items():
            setattr(watched, name, value)

        def looking(self: Snapshots, before: Any) -> set[str]:
            found = changes(self, before)
            watched.looks += 1
            return found

        monkeypatch.setattr(Snapshots, "changes", looking)

        def work() -> None:
            try:
                watching.watch(cast(Client, watched), folder, watched.files, watched.begin, watched.follow)
            except Ended:
                return

        thread = threading.Thread(target=work)
        stack.append((watched, thread))
        thread.start()
        eventually(lambda: len(watched.runs) == runs and watched.looks)
        return watched

    yield begin
    for watched, thread in stack:
        watched.problem = ""
        watched.end()
        thread.join(30)
        assert not thread.is_alive()


Start = Callable[..., Watched]


def test_a_change_starts_a_run_and_stops_the_one_before(start: Start) -> None:
    watched = start()
    (watched.folder / "train.py").write_text("2")
    eventually(lambda: len(watched.runs) == 2)
    assert watched.runs[1]["train.py"] == "2"
    assert watched.stopped == [1]


def test_a_file_that_is_saved_while_the_last_version_is_uploaded(start: Start) -> None:
    watched = start()
    pending = ["saved meanwhile"]

    def save() -> None:
        if pending:
            (watched.folder / "train.py").write_text(pending.pop())

    watched.during = save
    (watched.folder / "train.py").write_text("2")
    eventually(lambda: watched.runs[-1]["train.py"] == "saved meanwhile")
    assert [run["train.py"] for run in watched.runs] == ["1", "2", "saved meanwhile"]


def test_what_changes_no_content_starts_nothing(start: Start) -> None:
    watched = start()
    folder = watched.folder
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    subprocess.run(["git", "add", "train.py"], cwd=folder, check=True)
    os.utime(folder / "train.py")
    (folder / "train.py").write_text("1")
    (folder / "train.py").chmod(0o600)
    (folder / "train.py~").write_text("0")
    (folder / ".train.py.swp").write_text("0")
    (folder / ".#train.py").symlink_to("me@here.1234:1")
    (folder / "4913").write_text("")
    (folder / "4913").unlink()
    saved = folder / "new"
    saved.write_text("1")
    saved.rename(folder / "train.py")
    assert watched.quiet() == 1


@contextmanager
def one_more(watched: Watched) -> Iterator[None]:
    before = len(watched.runs)
    yield
    eventually(lambda: len(watched.runs) == before + 1)


def test_what_is_uploaded_differently_starts_a_run(start: Start) -> None:
    watched = start()
    folder = watched.folder
    with one_more(watched):
        (folder / "train.py").chmod(0o755)
    with one_more(watched):
        (folder / "logs").mkdir()
    with one_more(watched):
        (folder / "link").symlink_to("train.py")
    with one_more(watched):
        (folder / "train.py").rename(folder / "main.py")
    with one_more(watched):
        (folder / "main.py").unlink()


def test_a_changed_ignore_file_is_read_again(start: Start) -> None:
    watched = start()
    folder = watched.folder
    with one_more(watched):
        (folder / ".polyaxonignore").write_text("*.log\n")
    (folder / "x.log").write_text("1")
    assert watched.quiet() == 2
    with one_more(watched):
        (folder / ".polyaxonignore").write_text("*.txt\n")
    with one_more(watched):
        (folder / "x.log").write_text("2")
    (folder / "x.txt").write_text("1")
    assert watched.quiet() == 5


def test_an_ignore_file_that_can_not_be_read_ends_no_watching(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    watched = start()
    (inner := watched.folder.with_name("inner")).mkdir()
    (inner / ".gitignore").write_bytes("x\n".encode("utf-16"))
    snapshots = Snapshots(watched.folder, [])
    snapshots.take()
    inner.rename(watched.folder / "inner")
    assert snapshots.matters(str(watched.folder / "inner" / "a.py"))
    eventually(lambda: "not a text in UTF-8" in capsys.readouterr().err)
    with one_more(watched):
        (watched.folder / "inner" / ".gitignore").write_text("x\n")


def test_a_polyaxonfile_alone_starts_a_run_wherever_it_lies(start: Start, tmp_path: Path) -> None:
    inside, outside = tmp_path / "project" / "polyaxonfile.yml", tmp_path / "elsewhere" / "more.yml"
    outside.parent.mkdir()
    outside.write_text("a: 1")
    (tmp_path / "project" / ".polyaxonignore").write_text("polyaxonfile.yml\n")
    watched = start(inside, outside)
    with one_more(watched):
        inside.write_text("kind: build")
    with one_more(watched):
        outside.write_text("a: 2")
    new = outside.with_name("new")
    new.write_text("a: 3")
    with one_more(watched):
        new.rename(outside)
    outside.with_name("other.yml").write_text("no matter")
    os.utime(outside)
    assert watched.quiet() == 4


def test_a_polyaxonfile_that_is_mended(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    watched = start(problem="it is wrong", runs=0)
    eventually(lambda: watched.looks)
    watched.problem = ""
    with one_more(watched):
        (watched.folder / "polyaxonfile.yml").write_text("kind: build")
    assert capsys.readouterr().err.count("it is wrong") == 1


def test_a_log_that_the_runs_write_does_not_start_them_for_ever(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(console, "say", lambda text, style="": said.append(str(text)))
    monkeypatch.setattr(watching, "MAX_DEBOUNCE_S", 0.1)
    watched = start()
    end, log = threading.Event(), watched.folder / "out.log"

    def write() -> None:
        while not end.wait(0.02):
            with log.open("a") as file:
                file.write("epoch\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        line = "out.log changed during several runs and starts no more runs for now"
        eventually(lambda: any(line in text for text in said), 60)
        runs, looks = len(watched.runs), watched.looks
        assert runs <= 2 + watching.STRIKES
        eventually(lambda: watched.looks > looks + 3, 60)
        assert len(watched.runs) == runs
        with one_more(watched):
            (watched.folder / "train.py").write_text("2")
        looks = watched.looks
        eventually(lambda: watched.looks > looks + 3, 60)
        assert len(watched.runs) == runs + 1
        assert len([text for text in said if line in text]) == 1
    finally:
        end.set()
        writer.join()


# -- files that runs change -------------------------------------------------------------------------------------------


class Clocked:
    def __init__(self) -> None:
        self.now = 0.0
        self.size = 0
        self.restless = LoopGuard(after_start_s=10, quiet_s=5)
        self.starts = 0
        self.look_at: float | None = None

    def change(self, *names: str, after: float = 1.0, is_new: bool = True) -> bool:
        self.now += after
        self.size += is_new
        starts, self.look_at = self.restless.decide(set(names), lambda path: Version("file", size=self.size), self.now)
        if starts:
            self.starts += 1
            self.restless.run_started()
            self.restless._began = self.now
        return starts


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Clocked:
    monkeypatch.setattr(console, "say", lambda text, style="": None)
    return Clocked()


def test_a_file_that_is_edited_now_and_then_always_starts_a_run(clocked: Clocked) -> None:
    assert all(clocked.change("train.py", after=11) for _ in range(50))


def test_files_that_are_edited_in_turn_start_runs(clocked: Clocked) -> None:
    assert all(clocked.change(name) for name in ("a.py", "b.py", "a.py", "b.py", "a.py", "b.py", "a.py", "b.py"))


def test_a_file_that_is_saved_again_and_again_starts_a_run_when_it_is_left_alone(clocked: Clocked) -> None:
    assert [clocked.change("train.py") for _ in range(6)] == [True] * 3 + [False] * 3
    assert clocked.look_at == clocked.now + 5
    assert clocked.change("train.py", after=5, is_new=False)
    assert not clocked.change("train.py")  # soon after the start of that run
    assert clocked.change("train.py", after=5, is_new=False)
    assert not clocked.change("train.py")
    assert not clocked.change("train.py", after=5, is_new=False)  # from now on the file counts as a run's output
    assert clocked.change("other.py")
    assert clocked.change("train.py", after=60)  # late after the start of a run: a change by a person


def test_a_file_that_is_mended_after_each_failure_always_starts_a_run(clocked: Clocked) -> None:
    def failed() -> bool:
        clocked.restless._ended = clocked.now + 1.0
        return clocked.change("train.py", after=4)

    assert all(failed() for _ in range(20))


def test_a_file_that_runs_write_as_they_end(clocked: Clocked) -> None:
    def ended() -> bool:
        clocked.restless._ended = clocked.now + 1.0
        return clocked.change("out.log", after=2)

    assert [ended() for _ in range(5)] == [True] * 3 + [False] * 2


def test_several_files_that_runs_write_together(clocked: Clocked) -> None:
    assert [clocked.change("a.log", "b.pt") for _ in range(5)] == [True] * 3 + [False] * 2
    assert clocked.change("a.log", "b.pt", "train.py")


def test_new_names_for_each_run_do_not_start_them_for_ever(clocked: Clocked) -> None:
    for n in range(30):
        clocked.change(f"checkpoint-{n}.pt")
    assert clocked.starts <= watching.MAX_SOON_RUNS
