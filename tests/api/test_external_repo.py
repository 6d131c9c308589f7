"""Code of a remote git repository, on this machine's disk and over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from polylocal.api.api_context import ApiContext
from polylocal.git.repository import Repository
from polylocal.statuses import Kind
from polylocal.store import Store
from polylocal.store.rows import Project

from .conftest import FILES, Caller, P, names_in, upload

EXTERNAL, SYNC = f"{P}/repo/external/", f"{P}/repo/sync/"
COULD_NOT = "Could not trigger the project CI."
pytestmark = pytest.mark.usefixtures("project")


class Elsewhere:
    """A bare repository of another user."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._git("init", "--quiet", "--bare", "--initial-branch=main", str(path), cwd=path.parent)

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    def commit(self, files: dict[str, str]) -> str:
        """Make these files the newest commit of `main`."""
        tree = "".join(
            f"100644 blob {self._git('hash-object', '-w', '--stdin', text=files[n])}\t{n}\n" for n in sorted(files)
        )
        tree_id = self._git("mktree", text=tree)
        known = self._git("for-each-ref", "--format=%(objectname)", "refs/heads/main")
        made = self._git("commit-tree", tree_id, "-m", "more", *(["-p", known] if known else []))
        self._git("update-ref", "refs/heads/main", made)
        self._git("update-server-info")
        return made

    def _git(self, *arguments: str, text: str = "", cwd: Path | None = None) -> str:
        who = {
            f"GIT_{role}_{what}": "ann@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **who}
        done = subprocess.run(
            ["git", *arguments],
            cwd=cwd or self.path,
            env=environment,
            input=text.encode(),
            capture_output=True,
            check=True,
        )
        return done.stdout.decode().strip()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    found = Elsewhere(tmp_path / "elsewhere.git")
    found.commit({"train.py": "print(1)\n"})
    return found


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder over HTTP. git reads a repository in it by the dumb protocol."""
    with answering(partial(_Quiet, directory=str(folder))) as url:
        yield url


@contextmanager
def answering(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of an HTTP server on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def head(context: ApiContext, project: Project) -> str | None:
    return context.repository(project).resolve("HEAD")


def code(caller: Caller) -> list[str]:
    return names_in(caller.get(f"{P}/repo/download/").content)


def test_the_code_of_a_repository_elsewhere(
    elsewhere: Elsewhere, api: Caller, context: ApiContext, project: Project
) -> None:
    commit = elsewhere.commit({"train.py": "print(2)\n", "README": "x"})
    answer = api.post(EXTERNAL, {"git_url": elsewhere.url, "is_public": True})
    assert (answer.status_code, answer.content) == (201, b"")
    assert head(context, project) == commit
    assert code(api) == ["README", "train.py"]
    assert api.get(P).json()["has_code"] is True
    assert api.get(f"{P}/repo/").json()["git_url"] == elsewhere.url
    made = api.post(f"{P}/jobs/", {"config": FILES[Kind.JOB]})
    assert made.json()["commit"] == commit
    assert api.get(f"{P}/jobs/1/coderef/").json()["external_repo"] == elsewhere.url


def test_setting_the_same_url_again_and_another_one(
    elsewhere: Elsewhere, api: Caller, context: ApiContext, project: Project
) -> None:
    api.post(EXTERNAL, {"git_url": elsewhere.url})
    commit = elsewhere.commit({"new.py": "1"})
    again = api.post(EXTERNAL, {"git_url": elsewhere.url})
    assert (again.status_code, again.content) == (200, b"")
    assert head(context, project) == commit
    other = api.post(EXTERNAL, {"git_url": f"{elsewhere.url}/other"})
    assert other.status_code == 400
    assert other.json() == [f"Project was already initialized with a different git url: {elsewhere.url}"]
    assert head(context, project) == commit


def test_fetching_new_commits(elsewhere: Elsewhere, api: Caller, context: ApiContext, project: Project) -> None:
    api.post(EXTERNAL, {"git_url": elsewhere.url})
    first = head(context, project)
    for files in (None, {"new.py": "1"}):
        commit = elsewhere.commit(files) if files else first
        answer = api.post(SYNC)
        assert (answer.status_code, answer.json()) == (200, COULD_NOT)
        assert head(context, project) == commit
    assert code(api) == ["new.py"]
    assert api.get(f"{P}/repo/download/?commit={first}").status_code == 200


def test_fetching_sets_the_ci_going(elsewhere: Elsewhere, api: Caller) -> None:
    api.post(f"{P}/ci/")
    api.post(EXTERNAL, {"git_url": elsewhere.url})
    elsewhere.commit({"polyaxonci.yml": yaml.safe_dump(FILES[Kind.JOB])})
    answer = api.post(SYNC)
    assert (answer.status_code, answer.content) == (201, b"")
    assert api.get(f"{P}/jobs/").json()["count"] == 1


def test_without_a_repository_elsewhere_nothing_is_fetched(api: Caller) -> None:
    assert api.post(SYNC).status_code == 404
    upload(api, {"a.py": "1"})
    assert api.post(SYNC).status_code == 404


def test_uploaded_code_is_not_replaced(
    elsewhere: Elsewhere, api: Caller, context: ApiContext, project: Project
) -> None:
    upload(api, {"a.py": "1"})
    commit = head(context, project)
    answer = api.post(EXTERNAL, {"git_url": elsewhere.url})
    assert (answer.status_code, list(answer.json())) == (403, ["detail"])
    assert head(context, project) == commit
    assert api.get(f"{P}/repo/").json()["git_url"] is None
    api.delete(f"{P}/repo/")
    assert api.post(EXTERNAL, {"git_url": elsewhere.url}).status_code == 201


def test_code_from_elsewhere_is_not_overwritten_by_an_upload(
    elsewhere: Elsewhere, api: Caller, context: ApiContext, project: Project
) -> None:
    api.post(EXTERNAL, {"git_url": elsewhere.url})
    commit = head(context, project)
    answer = upload(api, {"a.py": "1"})
    assert answer.status_code == 403
    assert answer.json()["detail"].endswith("currently using an external_repo as main code tracker.")
    assert head(context, project) == commit
    assert api.delete(f"{P}/repo/").status_code == 204
    assert api.get(P).json()["has_code"] is False
    assert upload(api, {"a.py": "1"}).status_code == 200
    assert api.post(SYNC).status_code == 404


def test_a_repository_that_can_not_be_fetched(
    tmp_path: Path, api: Caller, context: ApiContext, project: Project
) -> None:
    (tmp_path / "none").mkdir()
    empty = Elsewhere(tmp_path / "empty.git")
    for url in (f"file://{tmp_path}/nosuch", f"file://{tmp_path}/none", empty.url, "http://127.0.0.1:1/x.git"):
        answer = api.post(EXTERNAL, {"git_url": url})
        assert answer.status_code == 400
        assert len(answer.json()) == 1
        assert answer.json()[0].startswith(f"`{url}` could not be fetched: ")
    assert api.get(P).json()["has_code"] is False
    assert api.get(f"{P}/repo/").status_code == 404
    assert upload(api, {"a.py": "1"}).status_code == 200  # a failed attempt leaves nothing that prevents another one


def test_a_lost_remote_keeps_the_code(elsewhere: Elsewhere, api: Caller, context: ApiContext, project: Project) -> None:
    api.post(EXTERNAL, {"git_url": elsewhere.url})
    commit = head(context, project)
    elsewhere.path.rename(elsewhere.path.with_name("moved.git"))
    assert api.post(SYNC).status_code == 400
    assert head(context, project) == commit
    assert code(api) == ["train.py"]


@pytest.mark.parametrize("body", [{}, {"git_url": ""}, {"git_url": None}, {"git_url": "x" * 2001}])
def test_invalid_urls(body: object, api: Caller) -> None:
    answer = api.post(EXTERNAL, body)
    assert (answer.status_code, list(answer.json())) == (400, ["git_url"])


@pytest.mark.parametrize("character", ["\n", "\r", "\t", "\0", "\x1b", "\x7f"])
@pytest.mark.parametrize("form", ["{url}{character}", "{character}{url}", "file://{character}"])
def test_a_url_of_one_line(
    form: str, character: str, elsewhere: Elsewhere, api: Caller, context: ApiContext, project: Project
) -> None:
    """The URL is written into a log and to terminals."""
    answer = api.post(EXTERNAL, {"git_url": form.format(url=elsewhere.url, character=character)})
    assert (answer.status_code, list(answer.json())) == (400, ["git_url"])
    assert not context.repository(project).path.exists()
    assert api.get(f"{P}/").json()["has_code"] is False


# -- permissions ----------------------------------------------------------------------------------------------------

ANNS = "/api/v1/ann/mine"


@pytest.fixture
def as_owner(as_ann: Caller) -> Caller:
    """Ann, a plain user with a project."""
    as_ann.post("/api/v1/projects/", {"name": "mine"})
    return as_ann


@pytest.mark.parametrize(
    "form", ["file://{path}", "{path}", "{path}/.", "ext::sh -c 'touch {path}.owned'", "--upload-pack=x"]
)
def test_the_disk_of_this_machine_is_not_for_everybody(
    form: str, elsewhere: Elsewhere, as_owner: Caller, api: Caller
) -> None:
    answer = as_owner.post(f"{ANNS}/repo/external/", {"git_url": form.format(path=elsewhere.path)})
    assert answer.status_code in (400, 403)
    assert as_owner.get(f"{ANNS}/").json()["has_code"] is False
    assert not elsewhere.path.with_name("elsewhere.git.owned").exists()


def test_an_admin_may_give_another_user_code_of_this_disk(elsewhere: Elsewhere, as_owner: Caller, api: Caller) -> None:
    """The owner may not fetch it again, since later content of that folder may be private."""
    assert api.post(f"{ANNS}/repo/external/", {"git_url": elsewhere.url}).status_code == 201
    assert names_in(as_owner.get(f"{ANNS}/repo/download/").content) == ["train.py"]
    assert as_owner.post(f"{ANNS}/repo/sync/").status_code in (400, 403)
    assert api.post(f"{ANNS}/repo/sync/").status_code == 200


def test_an_admin_who_syncs_does_not_open_what_a_user_named(
    as_owner: Caller, api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys, the disk and the services of this machine are only for URLs that an admin gave."""
    fetched: list[tuple[str, bool, bool]] = []

    def fetch(self: Repository, url: str, protocols: str, *, with_keys: bool, **more: object) -> str:
        fetched.append((url, with_keys, "file" in protocols.split(":")))
        return "0" * 40

    monkeypatch.setattr(Repository, "fetch", fetch)
    url, path = "ssh://git@example.org/private.git", f"{ANNS}/repo"
    assert as_owner.post(f"{path}/external/", {"git_url": url}).status_code == 201
    api.post(f"{path}/sync/")
    assert fetched == [(url, False, False)] * 2
    api.post(f"{path}/external/", {"git_url": url})  # an admin gives it, too
    api.post(f"{path}/sync/")
    as_owner.post(f"{path}/sync/")
    assert fetched[2:] == [(url, True, True), (url, True, True), (url, False, False)]


@pytest.mark.parametrize("url", ["ext::sh -c 'touch /nosuch/x'", "fd::0", "--upload-pack=true"])
def test_no_program_is_started_for_anybody(url: str, api: Caller) -> None:
    assert api.post(EXTERNAL, {"git_url": url}).status_code == 400
    assert api.get(P).json()["has_code"] is False


@pytest.fixture
def other_machine(monkeypatch: pytest.MonkeyPatch) -> str:
    """127.0.0.1 stands for another machine with this name. All other addresses belong to this machine."""
    name = "git.example.test"  # unknown to every resolver

    def resolve(asked: str) -> list[str]:
        if asked != name:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ["127.0.0.1"]

    monkeypatch.setattr("polylocal.system.addresses._resolve", resolve)
    monkeypatch.setattr("polylocal.system.addresses.is_local", lambda address: str(address) != "127.0.0.1")
    return name


def test_over_http(
    elsewhere: Elsewhere, as_owner: Caller, store: Store, context: ApiContext, other_machine: str
) -> None:
    with served(elsewhere.path.parent) as url:
        git_url = f"{url}/elsewhere.git"
        answer = as_owner.post(f"{ANNS}/repo/external/", {"git_url": git_url})
        assert (answer.status_code, answer.content) == (201, b"")
        assert names_in(as_owner.get(f"{ANNS}/repo/download/").content) == ["train.py"]
        commit = elsewhere.commit({"new.py": "1"})
        assert as_owner.post(f"{ANNS}/repo/sync/").json() == COULD_NOT
        assert head(context, store.projects.get("ann", "mine")) == commit
        missing = as_owner.post(f"{ANNS}/repo/external/", {"git_url": f"{url}/nosuch.git"})
        assert missing.status_code == 400
    gone = as_owner.post(f"{ANNS}/repo/sync/")
    assert gone.status_code == 400
    assert names_in(as_owner.get(f"{ANNS}/repo/download/").content) == ["new.py"]


@pytest.fixture
def trap() -> Iterator[tuple[int, list[object]]]:
    """A port of this machine, and the clients that have connected to it."""
    came: list[object] = []

    class Trap(_Quiet):
        def setup(self) -> None:
            came.append(self.client_address)
            super().setup()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Trap)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_address[1], came
    server.shutdown()
    thread.join()
    server.server_close()


LOCAL_URLS = [
    *("http://127.0.0.1:{port}/x.git", "https://127.0.0.1:{port}/x.git", "http://localhost:{port}/x.git"),
    *("http://127.1:{port}/x", "http://2130706433:{port}/x", "http://0x7f.1:{port}/x", "http://0177.0.0.1:{port}/x"),
    *(
        "http://0:{port}/x",
        "http://[::1]:{port}/x",
        "http://[::ffff:127.0.0.1]:{port}/x",
        "http://a.localhost:{port}/x",
    ),
    *("http://LOCALHOST.:{port}/x", "http://user:word@127.0.0.1:{port}/x", "HTTP://127.0.0.1:{port}/x"),
    *("http://example.org@127.0.0.1:{port}/x", "http://127.0.0.1:{port}#@example.org/x"),
    *("http://127.0.0.1:{port}\\@example.org/x", "http://\uff11\uff12\uff17.0.0.1:{port}/x"),
    *("git://127.0.0.1:{port}/x", "git://localhost:{port}/x", "ssh://127.0.0.1:{port}/x", "ssh://git@[::1]:{port}/x"),
    *(
        "git+ssh://127.0.0.1:{port}/x",
        "git@127.0.0.1:x",
        "localhost:x",
        "[::1]:x",
        "127.1:x",
        "git@[127.0.0.1:{port}]:x",
    ),
    *("http://169.254.169.254/x", "git@169.254.169.254:x", "http://named.example.test:{port}/x"),
]


@pytest.mark.parametrize("form", LOCAL_URLS)
def test_services_of_this_machine_are_not_for_everybody(
    form: str, as_owner: Caller, trap: tuple[int, list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, came = trap
    known = {"named.example.test": ["127.0.0.1"], "example.org": ["198.51.100.1"]}
    monkeypatch.setattr("polylocal.system.addresses._resolve", lambda name: known[name])
    answer = as_owner.post(f"{ANNS}/repo/external/", {"git_url": form.format(port=port)})
    assert answer.status_code == 400
    assert came == []
    assert as_owner.get(f"{ANNS}/").json()["has_code"] is False


def test_the_refusal_names_the_reason_and_the_allowed_users(
    as_owner: Caller, elsewhere: Elsewhere, api: Caller
) -> None:
    with served(elsewhere.path.parent) as url:
        git_url = f"{url}/elsewhere.git"
        answer = as_owner.post(f"{ANNS}/repo/external/", {"git_url": git_url})
        words = "`127.0.0.1` is this machine or its own network segment. Only an admin may connect to that."
        assert answer.json() == [f"`{git_url}` could not be fetched: {words}"]
        assert api.post(f"{ANNS}/repo/external/", {"git_url": git_url}).status_code == 201
        assert as_owner.post(f"{ANNS}/repo/sync/").status_code == 400  # its owner may not fetch it again


def test_git_connects_to_the_checked_address(
    elsewhere: Elsewhere, as_owner: Caller, other_machine: str, store: Store, context: ApiContext
) -> None:
    """The name is resolved once. If the resolver changes its answer, git still connects to the checked address."""
    with served(elsewhere.path.parent) as url:
        git_url = url.replace("127.0.0.1", other_machine) + "/elsewhere.git"
        assert as_owner.post(f"{ANNS}/repo/external/", {"git_url": git_url}).status_code == 201
    assert head(context, store.projects.get("ann", "mine"))


@contextmanager
def redirecting(to: str) -> Iterator[str]:
    """A server that redirects every request. `{path}` in `to` is the requested path."""

    class Redirect(_Quiet):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", to.format(path=self.path))
            self.end_headers()

    with answering(Redirect) as url:
        yield url


def test_a_redirect_to_another_repository_is_followed(
    elsewhere: Elsewhere, as_owner: Caller, other_machine: str
) -> None:
    with (
        served(elsewhere.path.parent) as url,
        redirecting(f"{url}{{path}}") as first,
        redirecting(f"{first}{{path}}") as second,
    ):
        answer = as_owner.post(f"{ANNS}/repo/external/", {"git_url": f"{second}/elsewhere.git"})
    assert (answer.status_code, answer.content) == (201, b"")


@pytest.mark.parametrize(
    "form",
    ["http://127.0.0.2:{port}{path}", "//localhost:{port}{path}", "http://127.0.0.2:{port}/x", "file:///x{path}", "x"],
)
def test_a_redirect_to_this_machine_is_not(
    form: str, as_owner: Caller, other_machine: str, trap: tuple[int, list[object]]
) -> None:
    port, came = trap
    with redirecting(form.replace("{port}", str(port))) as first, redirecting(f"{first}{{path}}") as second:
        for url in (first, second):
            assert as_owner.post(f"{ANNS}/repo/external/", {"git_url": f"{url}/x.git"}).status_code == 400
    assert came == []


def test_redirects_without_an_end(as_owner: Caller, other_machine: str) -> None:
    with redirecting("{path}") as url:
        answer = as_owner.post(f"{ANNS}/repo/external/", {"git_url": f"{url}/x.git"})
    assert answer.status_code == 400
    assert "redirects more than 5 times" in answer.json()[0]


def test_behind_a_proxy(
    elsewhere: Elsewhere, as_owner: Caller, other_machine: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The proxy resolves names that are unknown here. Names that lead to this machine are refused first."""
    asked: list[str] = []

    class Proxying(_Quiet):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.path = self.path.removeprefix("http://inside.example.test")
            super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Proxying, directory=str(elsewhere.path.parent)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        for url in ("http://127.0.0.2/elsewhere.git", "http://localhost/elsewhere.git"):
            assert as_owner.post(f"{ANNS}/repo/external/", {"git_url": url}).status_code == 400
        assert asked == []
        git_url = "http://inside.example.test/elsewhere.git"
        answer = as_owner.post(f"{ANNS}/repo/external/", {"git_url": git_url})
        assert (answer.status_code, answer.content) == (201, b"")
        assert all(path.startswith("http://inside.example.test/") for path in asked)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_others_and_runs_fetch_nothing(
    elsewhere: Elsewhere, api: Caller, as_ann: Caller, as_job: Caller, nobody: Caller
) -> None:
    for caller, status in ((as_ann, 403), (as_job, 403), (nobody, 401)):
        assert caller.post(EXTERNAL, {"git_url": elsewhere.url}).status_code == status
        assert caller.post(SYNC).status_code == status
        assert caller.patch(f"{P}/repo/", {"is_public": False}).status_code == status
    assert api.get(P).json()["has_code"] is False


def test_how_public_the_code_is(api: Caller, as_ann: Caller) -> None:
    assert api.patch(f"{P}/repo/", {"is_public": False}).status_code == 404
    upload(api, {"a.py": "1"})
    assert as_ann.get(f"{P}/repo/download/").status_code == 200
    found = api.patch(f"{P}/repo/", {"is_public": False})
    assert (found.status_code, found.json()["is_public"]) == (200, False)
    assert as_ann.get(f"{P}/repo/download/").status_code == 403
    assert api.get(f"{P}/repo/").json()["is_public"] is False
