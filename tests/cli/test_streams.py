"""Standard streams with write errors, closed streams, and encodings that lack characters."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

import pytest

from polylocal.cli.streams import ErrorStream
from polylocal.files.logs import LogWriter
from polylocal.settings import Settings
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import User

FULL = "polylocal: the output could not be written: no space left on device\n"
SHELL = 'exec "$0" -m polylocal "$@" '
TEXT = "Übung … 日本"


@pytest.fixture
def run(store: Store, root: User, settings: Settings) -> None:
    """A job with words of many scripts in its description, its project and its log."""
    project = store.projects.create(root, {"name": "quick-start", "description": TEXT})
    made = store.runs.insert(project, root, NewRun(Kind.JOB, values={"description": TEXT, "tags": [TEXT]}))
    with LogWriter(settings.folders.log(made.kind, made.uuid)) as writer:
        writer.write_line(TEXT)


def outcome(
    redirected: str, *arguments: str, encoding: str = "", text: str = "utf-8"
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", **({"PYTHONIOENCODING": encoding} if encoding else {})}
    environment.pop("PYTHONUNBUFFERED", None)  # it would hide a flush that fails at exit: nothing would be left for it
    return subprocess.run(
        ["/bin/sh", "-c", SHELL + redirected, sys.executable, *arguments],
        capture_output=True,
        env=environment,
        encoding=text,
        check=False,
    )


@pytest.mark.usefixtures("daemon", "run")
@pytest.mark.parametrize(
    "arguments",
    [["ls"], ["ls", "--json"], ["logs", "1"], ["--help"]],
    ids=" ".join,
)
def test_a_full_disk_of_the_output_is_named_as_such(arguments: list[str]) -> None:
    done = outcome("> /dev/full", *arguments)
    assert (done.returncode, done.stderr) == (1, FULL)


@pytest.mark.usefixtures("daemon", "run")
@pytest.mark.parametrize("encoding", ["ascii", "cp1252:strict"])
def test_characters_that_the_encoding_lacks_are_written_with_others(encoding: str) -> None:
    name = encoding.partition(":")[0]
    done = outcome("", "show", "1", encoding=encoding, text=name)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u65e5\\u672c" in done.stdout
    assert ("Übung" if name == "cp1252" else "\\xdcbung") in done.stdout
    assert outcome("", "--help", encoding=encoding, text=name).returncode == 0


@pytest.mark.usefixtures("daemon", "run")
def test_an_encoding_with_all_characters_changes_none() -> None:
    assert TEXT in outcome("", "show", "1", encoding="utf-8").stdout
    assert outcome("", "logs", "1", encoding="ascii").stdout == f"{TEXT}\n"  # the bytes of a run's log stay as they are


@pytest.mark.parametrize("variables", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}])
@pytest.mark.usefixtures("daemon", "run")
def test_a_locale_without_other_characters(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = outcome("", "show", "1")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("daemon", "run")
@pytest.mark.parametrize("redirected", ["2>&-", ">&- 2>&- <&-", "2> /dev/full"])
def test_streams_that_are_closed_or_full(redirected: str) -> None:
    done = outcome(redirected, "ls")
    assert (done.returncode, done.stderr) == (0, "")
    failed = outcome(redirected, "show", "99")
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr


@pytest.mark.usefixtures("daemon", "run")
@pytest.mark.parametrize("arguments", [["logs", "1"], ["ls", "--json"]], ids=" ".join)
def test_a_reader_that_leaves_is_no_error(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "polylocal", *arguments], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert done.returncode in (1, 141)
    assert done.stderr == b""


def test_messages_after_one_that_failed_are_written() -> None:
    """A reader that is slow for a while loses nothing that comes later."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with open(reading, "rb") as reader, open(writing, "w", buffering=1) as stream:
        filling = 0
        with suppress(BlockingIOError):
            while True:
                filling += os.write(writing, b"." * 4096)
        messages = ErrorStream(stream)
        messages.write("first\n")
        assert len(reader.read(filling)) == filling
        messages.write("second\n")
        messages.flush()
        assert reader.readline().endswith(b"first\n")
        assert reader.readline() == b"second\n"
