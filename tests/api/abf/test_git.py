"""git over HTTP with the real git: clones, pushes and refusals."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from .farm import PASSWORD, Farm, Json, basic

Git = Callable[..., subprocess.CompletedProcess[str]]
WITH_NOBODYS_SETTINGS = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "ivan",
    "GIT_AUTHOR_EMAIL": "ivan@example.org",
    "GIT_COMMITTER_NAME": "ivan",
    "GIT_COMMITTER_EMAIL": "ivan@example.org",
    "LC_ALL": "C.UTF-8",
    "no_proxy": "*",
}


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """git(arguments…, folder=…) → the completed process. `folder` is relative to the test's folder."""

    def run(*arguments: str, folder: str = ".") -> subprocess.CompletedProcess[str]:
        environment = {**WITH_NOBODYS_SETTINGS, "HOME": str(tmp_path)}
        return subprocess.run(
            ["git", *arguments], cwd=tmp_path / folder, env=environment, capture_output=True, text=True, timeout=60
        )

    return run


@pytest.fixture
def url(farm: Farm, live: str) -> Callable[..., str]:
    """url(project, name, secret) → the URL of a project of ivan with these credentials."""

    def build_url(project: str = "evil_tools", name: str = "ivan", secret: str | None = None) -> str:
        token = farm.ids.tokens[name] if secret is None else secret
        return f"{live.replace('://', f'://{name}:{token}@')}/ivan/{project}.git"

    return build_url


def done(answer: subprocess.CompletedProcess[str]) -> str:
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def refs(farm: Farm, project: int) -> Json:
    listed = farm.root.get(f"projects/{project}/refs_list.json").json()["refs_list"]
    return {item["ref"]: item["object"]["sha"] for item in listed}


def commit(git: Git, folder: str, name: str = "new.txt") -> str:
    done(git("commit", "--allow-empty", "-m", f"Add {name}", folder=folder))
    return done(git("rev-parse", "HEAD", folder=folder))


def test_a_clone_has_what_is_there(farm: Farm, git: Git, url: Callable[..., str], tmp_path: Path) -> None:
    done(git("clone", url(), "clone"))
    assert done(git("rev-parse", "HEAD", folder="clone")) == farm.ids.commit
    assert done(git("branch", "--show-current", folder="clone")) == "master"
    assert (tmp_path / "clone/debian/control").read_text() == "Source: evil-tools\n"


@pytest.mark.parametrize("name", ["ivan", "ivan%40example.org"])
def test_a_password_gives_access_too(name: str, git: Git, url: Callable[..., str]) -> None:
    assert "refs/heads/master" in done(git("ls-remote", url(name=name, secret=PASSWORD.replace(" ", "%20"))))


def test_the_address_that_the_api_tells(farm: Farm, git: Git, live: str) -> None:
    with httpx2.Client(base_url=live) as client:
        path = f"/api/v1/projects/{farm.ids.evil_tools}.json"
        told = client.get(path, headers=basic("ivan", farm.ids.tokens["ivan"])).json()["project"]["git_url"]
    assert told == f"{live}/ivan/evil_tools.git"
    credentials = f"ivan:{farm.ids.tokens['ivan']}"
    assert farm.ids.commit in done(git("ls-remote", told.replace("://", f"://{credentials}@")))


def test_pushed_code_can_be_built(farm: Farm, git: Git, url: Callable[..., str]) -> None:
    done(git("clone", url(), "clone"))
    newest = commit(git, "clone")
    done(git("push", "origin", "master", folder="clone"))
    assert refs(farm, farm.ids.evil_tools) == {"master": newest}
    assert farm.show(farm.new(farm.body(commit_hash=newest)))["commit_hash"] == newest
    assert farm.show(farm.new(farm.body(commit_hash=None)))["commit_hash"] == newest


def test_branches_and_tags_are_pushed(farm: Farm, git: Git, url: Callable[..., str]) -> None:
    done(git("clone", url(), "clone"))
    done(git("checkout", "-b", "rosa2012", folder="clone"))
    newest = commit(git, "clone")
    done(git("tag", "v1", folder="clone"))
    done(git("push", "origin", "rosa2012", "v1", folder="clone"))
    assert refs(farm, farm.ids.evil_tools) == {"master": farm.ids.commit, "rosa2012": newest, "v1": newest}
    made = farm.show(farm.new(farm.body(commit_hash=None, project_version="rosa2012")))
    assert (made["commit_hash"], made["project_version"]) == (newest, "rosa2012")
    done(git("push", "origin", "--delete", "v1", folder="clone"))
    assert "v1" not in refs(farm, farm.ids.evil_tools)


def test_the_first_push_into_an_empty_project(farm: Farm, git: Git, url: Callable[..., str], tmp_path: Path) -> None:
    values = {"name": "empty", "owner_id": farm.ivan.id, "owner_type": "User", "is_package": True}
    number = farm.ivan.create("projects.json", "project", **values)
    done(git("init", "-b", "master", "work"))
    (tmp_path / "work/large.bin").write_bytes(os.urandom(3 * 2**20))  # more than git sends in one chunk
    done(git("add", ".", folder="work"))
    newest = commit(git, "work")
    done(git("push", url("empty"), "master", folder="work"))
    assert refs(farm, number) == {"master": newest}
    done(git("clone", url("empty"), "clone"))
    assert (tmp_path / "clone/large.bin").read_bytes() == (tmp_path / "work/large.bin").read_bytes()
    assert farm.ivan.get(f"projects/{number}.json").json()["project"]["default_branch"] == "master"


def test_a_project_that_begins_with_another_branch(farm: Farm, git: Git, url: Callable[..., str]) -> None:
    values = {"name": "modern", "default_branch": "main", "is_package": True}
    number = farm.ivan.create("projects.json", "project", **values)
    done(git("init", "-b", "main", "work"))
    newest = commit(git, "work")
    done(git("push", url("modern"), "main", folder="work"))
    done(git("clone", url("modern"), "clone"))
    assert done(git("branch", "--show-current", folder="clone")) == "main"
    personal = {"project_id": number, "project_version": "main", "commit_hash": None}
    assert farm.show(farm.new(farm.for_personal(**personal)))["commit_hash"] == newest


def test_readers_may_not_push(farm: Farm, git: Git, url: Callable[..., str]) -> None:
    done(git("clone", url(name="petr"), "clone"))
    commit(git, "clone")
    refused = git("push", url(name="petr"), "master", folder="clone")
    assert refused.returncode != 0
    assert "403" in refused.stderr
    assert refs(farm, farm.ids.evil_tools) == {"master": farm.ids.commit}


def test_an_admin_may_push(farm: Farm, git: Git, url: Callable[..., str]) -> None:
    done(git("clone", url(name="root"), "clone"))
    newest = commit(git, "clone")
    done(git("push", "origin", "master", folder="clone"))
    assert refs(farm, farm.ids.evil_tools) == {"master": newest}


@pytest.mark.parametrize("project", ["secret_tools", "nosuch"])
def test_private_projects_do_not_exist_for_others(project: str, git: Git, url: Callable[..., str]) -> None:
    refused = git("clone", url(project, name="petr"), "clone")
    assert refused.returncode != 0
    assert "403" in refused.stderr or "not found" in refused.stderr


def test_private_projects_exist_for_their_owner(git: Git, url: Callable[..., str]) -> None:
    assert "refs/heads/master" in done(git("ls-remote", url("secret_tools")))


@pytest.mark.parametrize("secret", ["", "wrong"])
def test_a_wrong_secret_opens_nothing(secret: str, git: Git, url: Callable[..., str]) -> None:
    assert git("ls-remote", url(secret=secret)).returncode != 0


SERVICE = "/ivan/evil_tools.git/info/refs?service="


@pytest.mark.parametrize("service", ["git-upload-pack", "git-receive-pack"])
def test_git_is_asked_for_credentials(service: str, shared: Farm) -> None:
    answer = shared.nobody.http.get(f"{SERVICE}{service}")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic")


def test_a_push_is_refused_at_each_step(shared: Farm) -> None:
    """A client that skips the first step is refused at the next one."""
    headers = basic("petr", shared.ids.tokens["petr"])
    http = shared.nobody.http
    assert http.get(f"{SERVICE}git-receive-pack", headers=headers).status_code == 403
    content = {"Content-Type": "application/x-git-receive-pack-request"}
    for sent, expected in ((headers, 403), ({}, 401)):
        answer = http.post("/ivan/evil_tools.git/git-receive-pack", headers={**sent, **content}, content=b"0000")
        assert answer.status_code == expected


@pytest.mark.parametrize(
    "path",
    [
        "/ivan/evil_tools.git/info/refs?service=git-upload-archive",
        "/ivan/evil_tools.git/config",
        "/ivan/evil_tools.git/hooks/update",
        "/ivan/evil_tools.git/../../polylocal.db",
        "/ivan/..%2f..%2fpolylocal.db",
        "/ivan/evil_tools.git/%2e%2e/config",
        "/ivan/nosuch.git/info/refs?service=git-upload-pack",
        "/nosuch/evil_tools.git/info/refs?service=git-upload-pack",
        "/ivan/%00.git/info/refs?service=git-upload-pack",
    ],
)
def test_no_other_file_of_a_repository_is_served(path: str, shared: Farm) -> None:
    answer = shared.nobody.http.get(path, headers=shared.ivan.headers)
    assert answer.status_code in (400, 403, 404)


@pytest.mark.parametrize("headers", [{"Content-Encoding": "gzip"}, {"Git-Protocol": "version=2"}, {}])
def test_bytes_that_are_no_request_of_git(headers: Json, shared: Farm) -> None:
    for service in ("git-upload-pack", "git-receive-pack"):
        answer = shared.nobody.http.post(
            f"/ivan/evil_tools.git/{service}",
            headers={**shared.ivan.headers, **headers, "Content-Type": f"application/x-{service}-request"},
            content=b"nonsense",
        )
        assert answer.status_code < 500
    assert refs(shared, shared.ids.evil_tools) == {"master": shared.ids.commit}


def nested(git: Git, folder: str, width: int = 10, depth: int = 10) -> str:
    """A commit with few objects but width**depth files."""
    (Path(done(git("rev-parse", "--absolute-git-dir", folder=folder))) / "x").write_text("x")
    at, kind = done(git("hash-object", "-w", ".git/x", folder=folder)), "100644 blob"
    for _ in range(depth):
        index = [f"{kind} {at}\t{number}" for number in range(width)]
        (Path(done(git("rev-parse", "--absolute-git-dir", folder=folder))) / "tree").write_text("\n".join(index) + "\n")
        command = "git mktree < .git/tree"
        at, kind = done(git("-c", f"alias.made=!{command}", "made", folder=folder)), "040000 tree"
    made = done(git("commit-tree", at, "-p", "HEAD", "-m", "nested", folder=folder))
    done(git("update-ref", "refs/heads/nested", made, folder=folder))
    return made


def test_a_push_of_more_files_than_code_may_have_is_refused(
    farm: Farm, git: Git, url: Callable[..., str], tmp_path: Path
) -> None:
    """The push has 48 KiB and unpacks to ten thousand million files. Old commits stay, and later pushes work."""
    done(git("clone", url(), "clone"))
    nested(git, "clone")
    pushed = git("push", "origin", "nested", folder="clone")
    assert pushed.returncode
    assert "remote: The code contains more than 100000 files and folders (max_upload_files)" in pushed.stderr
    assert refs(farm, farm.ids.evil_tools) == {"master": farm.ids.commit}
    newest = commit(git, "clone")
    done(git("push", "origin", "master", folder="clone"))
    assert refs(farm, farm.ids.evil_tools) == {"master": newest}


def test_headers_and_queries_of_a_client_are_no_settings_of_git(farm: Farm, live: str) -> None:
    headers = basic("ivan", farm.ids.tokens["ivan"])
    with httpx2.Client(base_url=live, headers=headers) as client:
        plain = client.get(f"{SERVICE}git-upload-pack")
        for odd in ({"Git-Protocol": "version=2:x=--upload-pack"}, {"Git-Protocol": "x" * 5000}):
            assert client.get(f"{SERVICE}git-upload-pack", headers=odd).content == plain.content
        assert client.get(f"{SERVICE}git-upload-pack&x=%0a--help").content == plain.content
        assert client.get(f"{SERVICE}git-upload-pack&service=--help").status_code == 404
        assert client.get(f"{SERVICE}--help").status_code == 404
        assert b"version 2" in client.get(f"{SERVICE}git-upload-pack", headers={"Git-Protocol": "version=2"}).content
        odd = {"Content-Type": "application/x-git-upload-pack-request; --x"}
        path = "/ivan/evil_tools.git/git-upload-pack"
        assert client.post(path, headers=odd, content=b"0000").status_code == 415
