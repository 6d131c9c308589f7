"""The documents' curl commands, word for word, with the real curl on a real socket.

`contract/curl.txt` contains them. Two differ from the documents: "Create Job" posts to the documented path, not to the
experiments of its example; and `"config": "..."` is replaced by a polyaxonfile.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from api_support import api_context
from support import job

from polylocal.api.api_context import ApiContext
from polylocal.settings import load
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

from .conftest import Json, clear_store, names_in, on_loopback, put_code, tar_of, write

CONTRACT = Path(__file__).with_name("contract")
FILES = {
    "job": "version: 1\nkind: job\nbuild:\n  image: busybox\nrun:\n  cmd: date\n",
    "build": "version: 1\nkind: build\nbuild:\n  image: busybox\n",
    "experiment": "version: 1\nkind: experiment\nbuild:\n  image: busybox\nrun:\n  cmd: date\n",
    "group": "version: 1\nkind: group\nhptuning:\n  matrix:\n    lr:\n      values: [1, 2]\n"
    "build:\n  image: busybox\nrun:\n  cmd: echo {{ lr }}\n",
}


def commands() -> dict[str, str]:
    """Title → command."""
    parts = (CONTRACT / "curl.txt").read_text().split("# ")[1:]
    return {title: command.strip() for title, _, command in (part.partition("\n") for part in parts)}


@dataclass
class Expected:
    status: int
    document: str | None = None  # the response begins with the keys of this document
    body: bytes | None = None


OK, MADE, GONE = Expected(200, body=b""), Expected(201, body=b""), Expected(204, body=b"")
RUN = {
    "Get {kind}": Expected(200, "{kind}_get"),
    "Update {kind}": Expected(200, "{kind}_update"),
    "Delete {kind}": GONE,
    "Get {kind} statuses": Expected(200, "{kind}_statuses"),
    "Stop {kind}": OK,
    "Get {kind} logs": Expected(200, body=b"hello\nworld\n"),
    "Bookmark {kind}": MADE,
    "Unbookmark {kind}": GONE,
}
EXPECTED = {
    **{f"Build: {title.format(kind='build')}": expected for title, expected in RUN.items()},
    **{f"Build, second document: {title.format(kind='build')}": expected for title, expected in RUN.items()},
    **{f"Job: {title.format(kind='job')}": expected for title, expected in RUN.items()},
    "Job: Restart job": Expected(201, "job_create"),
    "Job: Resume job": Expected(201, "job_create"),
    "Job: Copy job": Expected(201, "job_create"),
    "Job: Download job outputs": Expected(200),
    "Project: List projects for user": Expected(200, "project_list"),
    "Project: Get project": Expected(200, "project_get"),
    "Project: Create project": Expected(201, "project_create"),
    "Project: Update project": Expected(200, "project_update"),
    "Project: Delete project": GONE,
    "Project: List Jobs": Expected(200, "job_list"),
    "Project: Create Job": Expected(201, "job_create"),
    "Project: List Builds": Expected(200, "build_list"),
    "Project: Create Build": Expected(201, "build_create"),
    "Project: Bookmark project": MADE,
    "Project: Unbookmark project": GONE,
    "Project: List experiment groups": Expected(200, "group_list"),
    "Project: Create experiment groups": Expected(201, "group_create"),
    "Project: List experiments": Expected(200, "experiment_list"),
    "Project: Create experiment": Expected(201),
    "Project: List tensorboards": Expected(200, "tensorboard_list"),
    "Project: Start project tensorboard": Expected(201),
    "Project: Stop project tensorboard": OK,
    "Project: Start notebook": Expected(201),
    "Project: Stop notebook": OK,
}

Curl = Callable[..., tuple[int, bytes]]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ApiContext]]:
    """One real socket for all commands: (URL, API context)."""
    home = tmp_path_factory.mktemp("home")
    store = Store(home / "polylocal.db")
    context = api_context(load(home=home), store)
    with on_loopback(context) as url:
        yield url, context
    store.close()


@pytest.fixture
def context(daemon: tuple[str, ApiContext]) -> ApiContext:
    return daemon[1]


@pytest.fixture
def store(context: ApiContext) -> Store:
    """An empty store for each command."""
    return clear_store(context.store)


@pytest.fixture
def curl(daemon: tuple[str, ApiContext], store: Store, root: User) -> Curl:
    """curl(command, id=1) → (status, body)"""
    token = store.users.new_token(root)
    places = {"base_api_url": daemon[0].removeprefix("http://"), "username": "root", "project": "quick-start"}

    def run(command: str, id: int = 1) -> tuple[int, bytes]:
        command = command.replace("http://localhost:8000/", "http://{{base_api_url}}/")  # in some commands
        for name, value in {**places, "token": token, "id": str(id)}.items():
            command = command.replace("{{" + name + "}}", value)
        options = r"--silent --show-error --max-time 20 --write-out '\n%{http_code}'"
        line = f"{command.removesuffix(chr(92))} {options}"  # one of the documents' commands ends with a backslash
        done = subprocess.run(["sh", "-c", line], stdout=subprocess.PIPE, check=True)
        body, _, status = done.stdout.rpartition(b"\n")
        return int(status), body

    return run


@pytest.fixture
def runs(store: Store, project: Project, root: User, context: ApiContext) -> dict[str, Run]:
    """Build 1 and job 1 with logs. The job has outputs, and both were bookmarked once."""
    build = store.runs.insert(project, root, NewRun(Kind.BUILD, config={"version": 1, "kind": "build", "build": {}}))
    made = store.runs.insert(project, root, NewRun(Kind.JOB, config=job(), build_pk=build.pk))
    for run in (build, made):
        write(context.log_path(run), "hello\nworld\n")
        store.bookmarks.add(root, run)
    store.bookmarks.add(root, project)
    write(context.home.root / str(made.outputs) / "model.txt", "weights")
    return {"build": build, "job": made}


def test_each_command_has_an_expectation() -> None:
    assert set(commands()) == set(EXPECTED)
    assert len(commands()) == 48


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("title", commands())
def test_a_documented_command(title: str, curl: Curl) -> None:
    command = commands()[title]
    kind = next((kind for kind in FILES if f"/{kind}s" in command), "job")
    expected = EXPECTED[title]
    status, body = curl(command.replace('": "..."', f'": {json.dumps(FILES[kind])}'))
    assert status == expected.status, body
    if expected.document:
        keys = first_keys(expected.document.format(kind=kind))
        assert list(json.loads(body))[: len(keys)] == keys
    if expected.body is not None:
        assert body == expected.body


def first_keys(document: str) -> list[str]:
    found: Json = json.loads((CONTRACT / f"{document}.json").read_text())
    return list(found)


def test_the_two_odd_ones_are_among_them() -> None:
    assert "{{project}}//builds/{{id}}/logs'" in commands()["Build: Get build logs"]
    assert "{{project}}//jobs/{{id}}/outputs'" in commands()["Job: Download job outputs"]
    assert "/builds/{{id}}/stop'" in commands()["Build: Stop build"]


@pytest.mark.usefixtures("runs")
def test_a_change_by_curl_is_kept(curl: Curl, store: Store) -> None:
    curl(commands()["Job: Update job"])
    assert store.runs.find(Kind.JOB, 1).description == "new description"
    curl(commands()["Job: Stop job"])
    assert store.runs.find(Kind.JOB, 1).stop_requested_at


@pytest.mark.usefixtures("runs")
def test_outputs_by_curl(curl: Curl, tmp_path: Path) -> None:
    status, body = curl(commands()["Job: Download job outputs"])
    assert status == 200
    assert names_in(body) == ["model.txt"]


def test_upload_and_download_by_curl(curl: Curl, project: Project, tmp_path: Path, context: ApiContext) -> None:
    packed = write(tmp_path / "code.tar.gz", tar_of({"train.py": "print(1)\n"}))
    repo = "http://{{base_api_url}}/api/v1/{{username}}/{{project}}/repo"
    token = "-H 'Authorization: token {{token}}'"
    assert curl(f"curl -X PUT {repo}/upload -F repo=@{packed} {token}") == (200, b"")
    status, body = curl(f"curl {repo}/download {token}")
    assert (status, names_in(body)) == (200, ["train.py"])
    commit = put_code(context, project, {"train.py": "print(2)\n"})
    assert curl(f"curl {repo}/download?commit={commit} {token}")[0] == 200


def test_no_such_run_by_curl(curl: Curl, project: Project) -> None:
    status, body = curl(commands()["Job: Get job"], 99)
    assert (status, json.loads(body)) == (404, {"detail": "Not found."})
