"""Control characters in names, messages and errors of other users reach no terminal, pipe or file."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from polylocal import cli
from polylocal.api.api_context import ApiContext
from polylocal.cli import console as show
from polylocal.cli import streams
from polylocal.client.http import Client
from polylocal.daemon import doctor, home_lock
from polylocal.errors import InvalidInput, NotFound, PolylocalError
from polylocal.polyaxonfile import parse
from polylocal.settings import Settings
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Run, User

from .conftest import Cli

HOSTILE = (
    "\x1b]52;c;aGk=\x07\x1b[2J\x9b31m\x08\r\njob/9  forged\tx\x7f\u202e\u2066\u200b\udc9b"
    "[red]x[/red] :bomb: [link=file:///etc/passwd]y[/link]"
)
FORGED = re.compile(r"^job/9", re.MULTILINE)
# values that the command line computes with, and that no user can set
_OURS = frozenset(
    "created_at updated_at started_at finished_at made_at last_used unique_name project username user kind last_status"
    " status next previous uuid build_job token group_type fullname platform_type".split()
)


def poisoned(value: Any, key: str = "") -> Any:
    """Append hostile characters to each text of a response, and to the names of params and metrics."""
    if isinstance(value, dict):
        has_free_names = key in ("params", "metrics", "importance")
        return {name + HOSTILE if has_free_names else name: poisoned(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [poisoned(inner, key) for inner in value]
    if isinstance(value, str) and key not in _OURS:
        return value + HOSTILE
    return HOSTILE if value is None and key in ("message", "waits_for", "description", "reason", "name") else value


def check(text: str) -> None:
    hidden = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n"}
    assert not hidden, f"{hidden} in {text!r}"
    assert not FORGED.search(text), text
    assert "💣" not in text


@pytest.fixture
def runs(store: Store, root: User, daemon: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of each kind, in a daemon with hostile characters in all responses."""
    project = store.projects.create(root, {"name": "p", "description": "x", "tags": ["t"]})
    matrix = {"hptuning": {"concurrency": 2, "matrix": {"lr": {"values": [1, 2]}}}}
    kinds: dict[Kind, dict[str, Any]] = {Kind.JOB: {}, Kind.BUILD: {}, Kind.EXPERIMENT: {"params": {"lr": 1}}}
    made: dict[Kind, Run] = {}
    for kind, more in {**kinds, Kind.GROUP: matrix}.items():
        content: dict[str, Any] = {"version": 1, "kind": str(kind), "build": {"image": "busybox"}, **more}
        if kind is not Kind.BUILD:
            content["run"] = {"cmd": "echo a\necho b"}
        specification = parse(content, kind)
        values = {"name": str(kind), "tags": ["a"], "description": "one\ntwo", "group_type": None}
        values |= {"group_type": "study", "concurrency": 2} if kind is Kind.GROUP else {"params": more.get("params")}
        group = made.get(Kind.GROUP)
        new = NewRun(kind, specification.content, specification.config, values, group=group)
        made[kind] = store.runs.insert(project, root, new)
    store.runs.insert(project, root, NewRun(Kind.EXPERIMENT, values={"params": {"lr": 1}}, group=made[Kind.GROUP]))
    for run in made.values():
        store.runs.transition(run, Status.WARNING, "careful")
    asked = Client.json
    monkeypatch.setattr(Client, "json", lambda api, *words, **more: poisoned(asked(api, *words, **more)))


COMMANDS = [
    "ls",
    "ls --json",
    "ls -p p",
    "ls -p p --kind experiment",
    "show job/1",
    "show job/1 --json",
    "show build/1",
    "show experiment/1",
    "show group/1",
    "statuses job/1",
    "statuses job/1 --json",
    "group results 1",
    "group results 1 --json",
    "group results 1 --csv",
    "outputs job/1",
    "restart job/1",
    "restart job/1 --json",
    "resume job/1",
    "copy job/1",
    "stop job/1",
    "rm job/1",
    "project ls",
    "project ls --json",
    "project show p",
    "project update p --description y",
    "project create q",
    "project rm p --yes",
    "gc --dry-run",
    "package platform ls",
    "package platform ls --json",
    "package ls",
    "user ls",
    "secret ls",
    "status",
]


@pytest.mark.usefixtures("runs", "folder")
@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_passes_on_what_steers_a_terminal(
    command: str, is_terminal: bool, polylocal: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_terminal:
        for console in (show.out, show.err):
            monkeypatch.setattr(console, "_force_terminal", True)
            monkeypatch.setattr(console, "no_color", True)
    done = polylocal(*command.split())
    for text in (done.out, done.err):
        check(re.sub(r"\x1b\[[0-9;]*m", "", text) if is_terminal else text)
        if "Traceback" in text:
            raise AssertionError(text)


@pytest.mark.usefixtures("runs")
def test_what_is_hidden_is_shown_and_not_left_out(polylocal: Cli) -> None:
    shown = polylocal("statuses", "job/1").out
    assert r"careful\x1b]52;c;aGk=\x07\x1b[2J\x9b31m\x08\r\njob/9" in shown
    assert r"\x7f\u202e\u2066\u200b\udc9b[red]x[/red] :bomb: [link=file:///etc/passwd]y[/link]" in shown
    found = json.loads(polylocal("statuses", "job/1", "--json").out)
    assert found[1]["message"] == "careful" + HOSTILE


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput([HOSTILE, "second"]),
        InvalidInput({HOSTILE: [HOSTILE]}),
        NotFound(HOSTILE),
        PolylocalError(HOSTILE),
        RuntimeError(HOSTILE),
        OSError(28, HOSTILE, HOSTILE),
        OSError(5, HOSTILE, HOSTILE),
    ],
)
def test_no_error_passes_it_on(error: Exception, daemon: str, polylocal: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*words: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(Client, "runs", fail)
    done = polylocal("ls")
    assert done.code == 1
    assert r"\x1b]52;" in done.err
    check(done.out + done.err)


@pytest.mark.parametrize(
    "arguments", [["show", HOSTILE], ["ls", HOSTILE], ["ls", f"--{HOSTILE}"], [HOSTILE], ["ls", "-n", HOSTILE]]
)
def test_no_argument_comes_back_raw(arguments: list[str], daemon: str, polylocal: Cli) -> None:
    """With `*` the shell passes file names as arguments."""
    done = polylocal(*arguments)
    assert done.code in (1, 2)
    shown = done.out + done.err
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert "x1b" in shown or "-n" in arguments  # arguments that the message does not repeat


@pytest.mark.usefixtures("daemon")
def test_usage_errors_and_help_look_as_ever(polylocal: Cli) -> None:
    assert polylocal("--help").code == 0
    wrong = polylocal("nonsense")
    assert (wrong.code, "No such command 'nonsense'" in wrong.err) == (2, True)
    assert polylocal("--version").out.startswith("polylocal ")


def test_the_doctors_findings(polylocal: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor.Finding(HOSTILE, "problem", HOSTILE, HOSTILE)
    monkeypatch.setattr(doctor, "examine", lambda settings: [found])
    for arguments in (["doctor"], ["doctor", "--json"]):
        done = polylocal(*arguments)
        assert done.code == 1
        check(done.out + done.err)


def test_the_names_of_files_in_a_backup(polylocal: Cli, settings: Settings, store: Store, tmp_path: Path) -> None:
    outputs = settings.home / "outputs"
    outputs.mkdir()
    os.mkfifo(outputs / "a\x1b]52;c;aGk=\x07\nb")
    done = polylocal("backup", str(tmp_path / "b.tar.gz"))
    assert r"\x1b]52;c;aGk=\x07\nb" in done.err
    check(done.out + done.err)


def test_the_last_words_of_a_daemon_that_did_not_start(
    polylocal: Cli, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended:
        pid = 1

        def __init__(self, *words: object, stdout: Any, **more: object) -> None:
            stdout.write(HOSTILE.encode("utf-8", "surrogatepass"))
            stdout.flush()

        def poll(self) -> int:
            return 1

    monkeypatch.setattr(subprocess, "Popen", Ended)
    monkeypatch.setattr(home_lock, "running", lambda folder: None)
    done = polylocal("start", "--port", "0")
    assert done.code == 1
    check(done.out + done.err)


@pytest.mark.usefixtures("runs")
def test_the_bytes_of_a_log_are_the_runs_own(
    polylocal: Cli, context: ApiContext, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.runs.find(Kind.JOB, 1)
    path = context.log_path(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b"\x1b[31mred\x1b[0m \x9b \xff\n"
    path.write_bytes(content)
    written: list[bytes] = []
    monkeypatch.setattr(show, "log_bytes", written.append)
    polylocal("logs", "job/1")
    assert b"".join(written) == content


def test_a_live_table_of_a_group(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from polylocal.cli import groups

    row = {"id": 1, "status": "running", "seconds": 1.0, "params": {"lr": HOSTILE}, "metrics": {HOSTILE: 1.0}}
    show.show(groups._table(poisoned([row]), HOSTILE))
    group = {f"num_{word}_experiments": 1 for word in ("succeeded", "failed", "stopped", "running", "pending")}
    best = {"metric": HOSTILE, "value": 1.0, "id": 1, "params": {HOSTILE: HOSTILE}}
    about = {"num_experiments": 5, "best_experiment": best, "started_at": None, **group}
    show.line(groups._summary(about, [row]))
    check(capsys.readouterr().out)


@pytest.mark.usefixtures("daemon")
def test_on_a_real_terminal(store: Store, root: User, folder: Path) -> None:
    """Reads the output of a separate process from the other end of a pseudo-terminal."""
    project = store.projects.create(root, {"name": "p", "description": HOSTILE.replace("\udc9b", "")})
    run = store.runs.insert(project, root, NewRun(Kind.JOB, values={"description": HOSTILE.replace("\udc9b", "")}))
    store.runs.transition(run, Status.WARNING, HOSTILE.replace("\udc9b", ""))
    for command in (["statuses", "job/1"], ["show", "job/1"], ["project", "ls"], [HOSTILE.replace("\udc9b", "")]):
        shown = on_terminal("-m", "polylocal", *command)
        assert r"\x1b]52;" in shown
        assert "\x1b" not in re.sub(r"\x1b\[[0-9;]*m", "", shown)
        assert not {c for c in shown if unicodedata.category(c) in ("Cc", "Cf")} - set("\x1b\r\n")


def on_terminal(*arguments: str) -> str:
    main, side = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
    process = subprocess.Popen([sys.executable, *arguments], stdin=side, stdout=side, stderr=side, env=env)
    os.close(side)
    found = b""
    with suppress(OSError):  # the end of a terminal is an error
        while data := os.read(main, 65536):
            found += data
    process.wait()
    os.close(main)
    return found.decode()


def test_what_a_library_or_a_dying_thread_writes(capsys: pytest.CaptureFixture[str]) -> None:
    with streams.guard():
        print(HOSTILE, file=sys.stderr)
        print(HOSTILE)
        sys.stdout.writelines([HOSTILE, "\n"])
        print("a\tb")
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert not {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs")} - set("\n\t")
    assert printed.out.endswith("a\tb\n")


def test_a_reader_that_leaves_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "polylocal", "--help"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert done.returncode in (1, 141)
    assert done.stderr == b""


# -- only `show` prints -----------------------------------------------------------------------------------------------

_MODULES = sorted(Path(cli.__file__).parent.glob("*.py"))
_FORBIDDEN_CALLS = re.compile(
    r"^(print|input|pprint|typer\.(echo|secho|confirm|prompt|echo_via_pager)|click\..*|warnings\.warn"
    r"|sys\.(stdout|stderr)\.(write|writelines|buffer\..*)|show\.(out|err)\..*|os\.write|logging\..*)$"
)


def calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""


@pytest.mark.parametrize("path", [path for path in _MODULES if path.name != "console.py"], ids=lambda path: path.name)
def test_commands_print_by_the_console_alone(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not [found for found in calls(tree) if _FORBIDDEN_CALLS.match(found[1])]
    assert not [found for found in imports(tree) if found[1].partition(".")[0] in ("rich", "click", "pprint")]


def test_the_rest_of_the_code_prints_nothing() -> None:
    top = Path(cli.__file__).parent.parent
    printing = {
        path.relative_to(top).as_posix()
        for path in top.rglob("*.py")
        if path.parent.name != "cli"
        and any(name in ("print", "sys.stdout.write") for _, name in calls(ast.parse(path.read_text())))
    }
    # a separate process that writes JSON; and the script that finds an engine, which escapes like `console`
    assert printing == {"git/pre_receive.py", "runner/bayes.py", "engine/docker/probe.py"}  # separate programs
