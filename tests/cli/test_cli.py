"""Commands and their output: tables for people, JSON for programs, one line for an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from polylocal import __version__
from polylocal.api.api_context import ApiContext
from polylocal.files.logs import LogWriter
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

from .conftest import JOB, Cli, Result


def good(result: Result) -> Result:
    assert (result.code, result.err.count("Traceback")) == (0, 0), result
    return result


def from_json(result: Result) -> Any:
    return json.loads(good(result).out)


def one_line(result: Result, *words: str, code: int = 1) -> None:
    """Check an error: an empty standard output and one line on standard error."""
    assert (result.code, result.out) == (code, "")
    assert result.err.count("\n") == 1
    assert result.err.startswith("polylocal: ")
    for word in words:
        assert word in result.err


@pytest.fixture
def a_job(store: Store, project: Project, root: User) -> Run:
    config = {"version": 1, "kind": "job", "build": {"image": "busybox"}, "run": {"cmd": ["date", "echo hello"]}}
    return store.runs.insert(project, root, NewRun(Kind.JOB, config=config, values={"name": "train", "tags": ["a"]}))


# -- projects ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("daemon")
def test_a_project_from_its_making_to_its_end(polylocal: Cli) -> None:
    assert good(polylocal("project", "ls")).out == "No projects yet.\n"
    made = polylocal("project", "create", "new", "--description", "d", "--tags", "a,b", "--private")
    assert good(made).out == "Project root/new created\n"
    listed = good(polylocal("project", "ls")).out
    assert listed.startswith("PROJECT")
    assert "root/new" in listed
    shown = good(polylocal("project", "show", "new")).out
    for word in ("root/new", "d", "a, b", "none yet"):
        assert word in shown
    changed = polylocal("project", "update", "root/new", "--name", "newer", "--public", "--description", "e")
    assert good(changed).out == "Project root/newer changed\n"
    found = from_json(polylocal("project", "show", "newer", "--json"))
    assert (found["is_public"], found["description"], found["tags"]) == (True, "e", ["a", "b"])
    assert [item["name"] for item in from_json(polylocal("project", "ls", "--json"))] == ["newer"]
    assert good(polylocal("project", "rm", "newer", "-y")).out == "Project root/newer deleted; 0 B freed\n"
    assert from_json(polylocal("project", "ls", "--json")) == []


@pytest.mark.usefixtures("daemon")
def test_a_project_as_json(polylocal: Cli) -> None:
    assert from_json(polylocal("project", "create", "new", "--json"))["unique_name"] == "root.new"


@pytest.mark.usefixtures("daemon", "project")
def test_projects_that_can_not_be(polylocal: Cli) -> None:
    one_line(polylocal("project", "create", "quick-start"), "A project with name `quick-start` already exists.")
    one_line(polylocal("project", "create", "a b"), "name: Enter a valid 'slug'")
    one_line(polylocal("project", "show", "nosuch"), "Not found.")
    one_line(polylocal("project", "rm", "nosuch", "-y"), "Not found.")
    one_line(polylocal("project", "update", "quick-start", "--name", "user"), "reserved")
    one_line(polylocal("project", "ls", "nobody"), "Not found.")


@pytest.mark.usefixtures("daemon")
def test_many_projects_are_all_listed(polylocal: Cli, store: Store, root: User) -> None:
    for n in range(45):
        store.projects.create(root, {"name": f"p{n}"})
    assert len(from_json(polylocal("project", "ls", "--json"))) == 45


# -- code -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("daemon")
def test_an_upload(polylocal: Cli, folder: Path, context: ApiContext, project: Project) -> None:
    (folder / ".polyaxonignore").write_text("*.log\n")
    (folder / "x.log").write_text("x")
    uploaded = good(polylocal("upload"))
    assert "Uploaded 3 files" in uploaded.err
    repository = context.repository(project)
    commit = repository.resolve("HEAD")
    assert commit
    assert repository.files(commit) == {"polyaxonfile.yml", "train.py", ".polyaxonignore"}
    one_line(polylocal("upload", "-p", "nosuch"), "Not found.")


@pytest.mark.usefixtures("daemon")
def test_an_upload_of_a_folder_that_is_not_there(
    polylocal: Cli, folder: Path, context: ApiContext, project: Project
) -> None:
    """A misspelled folder must not replace the code with an empty one."""
    good(polylocal("upload"))
    repository = context.repository(project)
    before = repository.resolve("HEAD")
    one_line(polylocal("upload", "nosuch", "-p", "quick-start"), "nosuch")
    one_line(polylocal("upload", "train.py", "-p", "quick-start"), "train.py")
    assert repository.resolve("HEAD") == before


# -- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("daemon", "project", "folder")
def test_a_run(polylocal: Cli, store: Store) -> None:
    made = good(
        polylocal("run", "--name", "train", "--description", "d", "--tags", "a,b", "--priority", "5", "--ttl", "9")
    )
    assert made.out == ""
    assert "job/1 created in root.quick-start" in made.err
    assert "polylocal logs -f job/1" in made.err
    run = store.runs.find(Kind.JOB, 1)
    assert (run.name, run.description, run.tags, run.priority, run.ttl) == ("train", "d", ["a", "b"], 5, 9)
    assert run.content == JOB
    assert run.commit is None


@pytest.mark.usefixtures("daemon", "project")
def test_a_run_with_its_code(polylocal: Cli, store: Store, folder: Path) -> None:
    found = from_json(polylocal("run", "-u", "--json"))
    assert (found["id"], found["last_status"]) == (1, "created")
    assert len(found["commit"]) == 40
    assert store.runs.find(Kind.JOB, 1).commit == found["commit"]


@pytest.mark.usefixtures("daemon", "folder")
def test_a_run_may_make_its_project(polylocal: Cli, store: Store) -> None:
    one_line(polylocal("run"), "there is no project root/quick-start", "--create")
    assert "Project root/quick-start created" in good(polylocal("run", "-c")).err
    assert from_json(polylocal("run", "-c", "-p", "other", "--json"))["project"] == "root.other"


@pytest.mark.usefixtures("daemon", "project")
def test_a_build_and_a_named_file(polylocal: Cli, folder: Path) -> None:
    (folder / "image.yml").write_text("version: 1\nkind: build\nimage: busybox\nenvironment: {node_selector: {a: b}}\n")
    made = good(polylocal("run", "-f", "image.yml"))
    assert "build/1 created" in made.err
    assert "Warning: `environment.node_selector` has no effect" in made.err


@pytest.mark.usefixtures("daemon", "project", "a_job")
def test_lists(polylocal: Cli, store: Store) -> None:
    listed = good(polylocal("ls")).out
    assert listed.splitlines()[0].split() == ["RUN", "PROJECT", "NAME", "STATUS", "CREATED", "MESSAGE"]
    for word in ("job/1", "root.quick-start", "train", "created", "waits for the scheduler"):
        assert word in listed
    assert [item["id"] for item in from_json(polylocal("ls", "--json"))] == [1]
    assert from_json(polylocal("ls", "--json", "--kind", "build")) == []
    assert good(polylocal("ls", "--kind", "build")).out == "No runs yet.\n"
    store.runs.transition(store.runs.find(Kind.JOB, 1), Status.FAILED, "broken")
    assert from_json(polylocal("ls", "--json", "--open")) == []
    assert "broken" in good(polylocal("ls")).out
    found = from_json(polylocal("ls", "-p", "quick-start", "-q", "status:failed", "-s", "-started_at", "--json"))
    assert [item["id"] for item in found] == [1]
    assert "job/1" in good(polylocal("ls", "-p", "quick-start")).out


@pytest.mark.usefixtures("daemon", "project", "a_job")
def test_lists_that_can_not_be(polylocal: Cli) -> None:
    one_line(polylocal("ls", "--kind", "nosuch"), "There is no kind `nosuch` of run")
    one_line(polylocal("ls", "-p", "nosuch"), "Not found.")
    one_line(polylocal("ls", "-p", "quick-start", "-q", "foo:x"), "key `foo` is not supported")
    one_line(polylocal("ls", "-n", "0"), "limit")


@pytest.mark.usefixtures("daemon")
def test_options_of_a_list_hold_for_one_project_too(
    polylocal: Cli, store: Store, project: Project, root: User, a_job: Run
) -> None:
    for _ in range(30):
        store.runs.insert(project, root, NewRun(Kind.JOB, config=a_job.config))
    store.runs.transition(a_job, Status.FAILED)
    assert len(from_json(polylocal("ls", "-n", "25", "--json"))) == 25
    assert len(from_json(polylocal("ls", "-p", "quick-start", "-n", "25", "--json"))) == 25
    opened = from_json(polylocal("ls", "-p", "quick-start", "--open", "--json"))
    assert {item["last_status"] for item in opened} == {"created"}


@pytest.mark.usefixtures("daemon")
def test_a_run_has_many_names(polylocal: Cli, a_job: Run) -> None:
    for name in ("1", "job/1", "jobs/1", "job.1", "job 1", "root.quick-start.jobs.1", "root/quick-start/jobs/1"):
        assert from_json(polylocal("show", name, "--json"))["uuid"] == a_job.uuid


@pytest.mark.usefixtures("daemon")
def test_one_run(polylocal: Cli, a_job: Run, store: Store) -> None:
    shown = good(polylocal("show", "1")).out
    for word in (
        "root.quick-start.jobs.1",
        "train",
        "created",
        "date",
        "echo hello",
        "the scheduler, which",
        "outputs",
    ):
        assert word in shown
    store.runs.transition(a_job, Status.RUNNING)
    store.runs.transition(a_job, Status.FAILED, "Exit code 3")
    shown = good(polylocal("show", "job/1")).out
    assert "Exit code 3" in shown
    assert "waits for" not in shown
    history = good(polylocal("statuses", "1")).out
    assert [line.split()[0] for line in history.splitlines()] == ["STATUS", "created", "running", "failed"]
    assert [item["status"] for item in from_json(polylocal("statuses", "1", "--json"))] == [
        "created",
        "running",
        "failed",
    ]


@pytest.mark.usefixtures("daemon", "project")
def test_one_build(polylocal: Cli, store: Store, project: Project, root: User) -> None:
    config = {"version": 1, "kind": "build", "build": {"image": "busybox"}}
    made = store.runs.insert(project, root, NewRun(Kind.BUILD, config=config))
    store.runs.record(made, dockerfile="\nFROM busybox\n")
    assert "FROM busybox" in good(polylocal("show", "build/1")).out


@pytest.mark.usefixtures("daemon")
def test_logs(polylocal: Cli, a_job: Run, context: ApiContext, store: Store) -> None:
    assert good(polylocal("logs", "1")).out == ""
    with LogWriter(context.log_path(a_job)) as writer:
        writer.append(b"hello\nworld", time_us=1_534_718_422_000_000)
    assert good(polylocal("logs", "1")).out == "hello\nworld"
    stamped = "2018-08-19 22:40:22 UTC -- hello\n2018-08-19 22:40:22 UTC -- world"
    assert good(polylocal("logs", "1", "-t")).out == stamped
    store.runs.transition(a_job, Status.SUCCEEDED)
    assert good(polylocal("logs", "1", "-f")).out == "hello\nworld"
    assert good(polylocal("logs", "1", "-f", "-t")).out == stamped


@pytest.mark.usefixtures("daemon")
def test_stopping_a_run(polylocal: Cli, a_job: Run, store: Store) -> None:
    assert good(polylocal("stop", "job/1")).out == "job/1 is being stopped\n"
    assert store.runs.by_pk(a_job.pk).stop_requested_at


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("how", ["restart", "resume", "copy"])
def test_running_again(how: str, polylocal: Cli, a_job: Run, folder: Path, store: Store) -> None:
    assert "job/2 created in root.quick-start" in good(polylocal(how, "1")).err
    assert store.runs.find(Kind.JOB, 2).cloning_strategy == how
    (folder / "more.yml").write_text("run: {cmd: echo more}\n")
    found = from_json(polylocal(how, "1", "-f", "more.yml", "--json"))
    assert (found["config"]["run"], found["original"]) == ({"cmd": "echo more"}, "root.quick-start.jobs.1")


@pytest.mark.usefixtures("daemon")
def test_running_again_with_new_code(polylocal: Cli, a_job: Run, folder: Path) -> None:
    assert len(from_json(polylocal("restart", "1", "-u", "--json"))["commit"]) == 40


@pytest.mark.usefixtures("daemon", "a_job")
def test_running_again_with_a_file_that_is_not_there(polylocal: Cli, folder: Path) -> None:
    (folder / "image.png").write_bytes(b"\x89PNG\xff")
    for how in ("restart", "resume", "copy"):
        one_line(polylocal(how, "1", "-f", "nosuch.yml"), "nosuch.yml")
        one_line(polylocal(how, "1", "-f", "image.png"), "image.png")


@pytest.mark.usefixtures("daemon")
def test_removing(polylocal: Cli, store: Store, project: Project, root: User, a_job: Run) -> None:
    store.runs.insert(project, root, NewRun(Kind.BUILD, config={}))
    assert good(polylocal("rm", "1", "build/1")).out == "job/1 deleted; 0 B freed\nbuild/1 deleted; 0 B freed\n"
    assert from_json(polylocal("ls", "--json")) == []
    one_line(polylocal("rm", "1"), "there is no job/1; `polylocal ls` lists")


@pytest.mark.usefixtures("daemon")
def test_outputs(polylocal: Cli, a_job: Run, context: ApiContext, tmp_path: Path) -> None:
    where = context.outputs_path(a_job)
    assert where
    assert good(polylocal("outputs", "1")).out == f"{where}\n"
    one_line(polylocal("outputs", "1", "-o", str(tmp_path / "x.tar.gz")), "The run has no outputs.")
    where.mkdir(parents=True)
    (where / "model.txt").write_text("weights")
    saved = tmp_path / "saved.tar.gz"
    assert good(polylocal("outputs", "1", "-o", str(saved))).out.startswith(f"{saved}: ")
    with tarfile.open(saved) as tar:
        assert tar.getnames() == ["model.txt"]


@pytest.mark.usefixtures("daemon")
def test_outputs_that_can_not_be(
    polylocal: Cli, a_job: Run, store: Store, project: Project, root: User, context: ApiContext, tmp_path: Path
) -> None:
    where = context.outputs_path(a_job)
    assert where
    where.mkdir(parents=True)
    one_line(polylocal("outputs", "1", "-o", str(tmp_path / "nosuch" / "x.tar.gz")), "nosuch")
    store.runs.insert(project, root, NewRun(Kind.BUILD, config={}))
    one_line(polylocal("outputs", "build/1"))


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("daemon", "project")
def test_a_run_that_is_not_there(polylocal: Cli) -> None:
    for command in ("show", "logs", "statuses", "stop", "restart", "resume", "copy", "rm", "outputs"):
        one_line(polylocal(command, "7"), "there is no job/7")
        one_line(polylocal(command, "nonsense"), "`nonsense` does not name a run")
    one_line(polylocal("show", "build/7"), "there is no build/7")
    one_line(polylocal("show", "experiment/7"), "there is no experiment/7")
    one_line(polylocal("show", "root.nosuch.jobs.7"), "Not found.")


@pytest.mark.usefixtures("daemon", "project")
@pytest.mark.parametrize("name", ["root.quick-start.jobs.7", "root.nosuch.jobs.7"])
def test_the_log_of_a_run_that_is_not_there(name: str, polylocal: Cli) -> None:
    one_line(polylocal("logs", name), "Not found.")
    one_line(polylocal("logs", "-f", name), "Not found.")


@pytest.mark.usefixtures("folder")
def test_without_a_daemon(polylocal: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = (["ls"], ["run"], ["show", "1"], ["project", "ls"], ["upload"], ["logs", "1"], ["stop", "1"])
    for command in commands:
        one_line(polylocal(*command), "no daemon is running for", "polylocal start")
    monkeypatch.setenv("POLYLOCAL_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("POLYLOCAL_TOKEN", "x")
    for command in commands:
        one_line(polylocal(*command), "no daemon answers at http://127.0.0.1:9")


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "nonsense", "http://[", "ftp://x", "http://a b"])
def test_an_address_that_is_none(url: str, polylocal: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYLOCAL_URL", url)
    monkeypatch.setenv("POLYLOCAL_TOKEN", "x")
    one_line(polylocal("ls"))


class _Stranger(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *words: object) -> None:
        pass


def test_an_address_where_somebody_else_answers(polylocal: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), _Stranger) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("POLYLOCAL_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("POLYLOCAL_TOKEN", "x")
        try:
            one_line(polylocal("ls"))
        finally:
            server.shutdown()
            thread.join()


def test_a_wrong_token(polylocal: Cli, daemon: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYLOCAL_TOKEN", "wrong")
    one_line(polylocal("ls"), "Invalid token.")
    monkeypatch.delenv("POLYLOCAL_TOKEN")
    one_line(polylocal("ls"), "no token", "POLYLOCAL_TOKEN")


def test_the_token_of_the_home_folder(
    polylocal: Cli, daemon: str, monkeypatch: pytest.MonkeyPatch, context: ApiContext
) -> None:
    context.home.token.write_text(os.environ["POLYLOCAL_TOKEN"] + "\n")
    monkeypatch.delenv("POLYLOCAL_TOKEN")
    assert from_json(polylocal("ls", "--json")) == []


@pytest.mark.usefixtures("daemon", "project")
def test_polyaxonfiles_that_can_not_be(polylocal: Cli, folder: Path) -> None:
    one_line(polylocal("run", "-f", "nosuch.yml"), "there is no file nosuch.yml")
    one_line(polylocal("run", "-f", "."), "there is no file")
    (folder / "image.png").write_bytes(b"\x89PNG\xff")
    one_line(polylocal("run", "-f", "image.png"), "image.png")
    (folder / "polyaxonfile.yml").unlink()
    one_line(polylocal("run"), "there is no polyaxonfile in this folder")
    (folder / "empty.yml").write_text("")
    one_line(polylocal("run", "-f", "empty.yml"), "empty.yml", "this is empty")
    (folder / "pipeline.yml").write_text("version: 1\nkind: pipeline\n")
    one_line(polylocal("run", "-f", "pipeline.yml"), "kind: `pipeline` is not a kind that runs here")
    assert from_json(polylocal("ls", "--json")) == []


@pytest.mark.usefixtures("daemon", "project")
def test_a_wrong_polyaxonfile_is_told_with_its_lines(polylocal: Cli, folder: Path) -> None:
    (folder / "polyaxonfile.yml").write_text(JOB.replace("image:", "imagee:") + "extra: 1\n")
    result = polylocal("run")
    assert (result.code, result.out) == (1, "")
    assert "polylocal: polyaxonfile.yml, line 4, build.imagee: Unknown field.\n" in result.err
    assert "polylocal: polyaxonfile.yml, line 7, extra: Unknown field.\n" in result.err
    assert all(line.startswith("polylocal: polyaxonfile.yml, line ") for line in result.err.splitlines())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nosuch"], "No such command 'nosuch'"),
        (["ls", "--nosuch"], "No such option"),
        (["ls", "--limit", "many"], "valid int"),
        (["show"], "Missing argument"),
        (["run", "--priority", "high"], "valid int"),
        (["project", "create"], "Missing argument"),
        (["rm"], "Missing argument"),
    ],
)
def test_wrong_usage(arguments: list[str], word: str, polylocal: Cli) -> None:
    result = polylocal(*arguments)
    assert (result.code, result.out) == (2, "")
    assert word in result.err
    assert "Usage: " in result.err


def test_help_and_version(polylocal: Cli) -> None:
    assert good(polylocal("--version")).out == f"polylocal {__version__}\n"
    assert "Usage: " in good(polylocal("--help")).out
    for command in ("run", "ls", "logs", "project", "user", "token", "serve", "start", "doctor"):
        assert f"polylocal {command} [OPTIONS]" in good(polylocal(command, "--help")).out


# -- people and the daemon --------------------------------------------------------------------------------------------


def test_status_when_nothing_runs(polylocal: Cli, context: ApiContext) -> None:
    result = polylocal("status")
    assert (result.code, result.err) == (3, "")
    assert result.out == f"No daemon is running for {context.home.root}; start one with `polylocal start`\n"
    result = polylocal("status", "--json")
    assert (result.code, json.loads(result.out)) == (3, {"running": False, "pid": None, "url": None})


def test_stopping_a_daemon_when_nothing_runs(polylocal: Cli) -> None:
    assert "No daemon is running for" in good(polylocal("stop")).out


def test_the_token(polylocal: Cli, context: ApiContext) -> None:
    one_line(polylocal("token"), "there is no token", "polylocal start")
    context.home.token.write_text("abc\n")
    assert good(polylocal("token")).out == "abc\n"


def test_users(polylocal: Cli, store: Store, root: User) -> None:
    token = good(polylocal("user", "add", "ann")).out.strip()
    found = store.users.by_token(token)
    assert found
    assert (found.user.username, found.user.is_superuser, found.run_pk) == ("ann", False, None)
    good(polylocal("user", "add", "eve", "--admin"))
    listed = from_json(polylocal("user", "ls", "--json"))
    assert [(user["username"], user["is_superuser"]) for user in listed] == [
        ("root", True),
        ("ann", False),
        ("eve", True),
    ]
    assert "ann" in good(polylocal("user", "ls")).out
    one_line(polylocal("user", "add", "ann"), "username: A user with name `ann` already exists.")
    one_line(polylocal("user", "add", "a b"), "letters, digits")


@pytest.mark.usefixtures("root")
def test_a_user_that_could_not_be_reached(polylocal: Cli) -> None:
    """`/api/v1/<user>` is a different path of the API for these names."""
    for name in ("projects", "users"):
        one_line(polylocal("user", "add", name), name)


def test_users_before_the_first_start(polylocal: Cli, tmp_path: Path) -> None:
    one_line(polylocal("user", "ls", "--home", str(tmp_path / "elsewhere")), "there is no database")
    one_line(polylocal("user", "add", "ann", "--home", str(tmp_path / "elsewhere")), "there is no database")
    assert not (tmp_path / "elsewhere").exists()


# -- as a program -----------------------------------------------------------------------------------------------------


def test_the_program(daemon: str, folder: Path, project: Project) -> None:
    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "polylocal", *arguments],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    made = run("run", "--json")
    assert (made.returncode, made.stderr, json.loads(made.stdout)["id"]) == (0, "", 1)
    failed = run("show", "7", COLUMNS="20")
    message = "polylocal: there is no job/7; `polylocal ls` lists the runs\n"
    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", message)
    assert run("status").returncode == 3
