"""Code of a git repository with submodules and Git LFS files, which are fetched or reported as missing."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from polylocal.api.api_context import ApiContext
from polylocal.git.submodules import is_beside, resolve
from polylocal.installation import Installation
from polylocal.statuses import Kind
from polylocal.store import Store
from polylocal.store.rows import Project

from .conftest import FILES, Caller, P, names_in

EXTERNAL, SYNC = f"{P}/repo/external/", f"{P}/repo/sync/"
pytestmark = pytest.mark.usefixtures("project")
Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """git(folder, …) → its output."""
    who = {f"GIT_{role}_{what}": "ann@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **who}

    def run(folder: Path, *arguments: str) -> str:
        command = ["git", "-c", "protocol.file.allow=always", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture
def make(tmp_path: Path, git: Git) -> Callable[..., Path]:
    """make(name, files, path=URL of a submodule, …) → a remote repository."""

    def made(name: str, files: dict[str, str], submodules: dict[str, str] | None = None) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / ".git").exists():
            git(folder, "init", "--quiet", "--initial-branch=main")
        for file, text in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        for path, url in (submodules or {}).items():
            git(folder, "submodule", "--quiet", "add", url, path)
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "-m", "more")
        return folder

    return made


Make = Callable[..., Path]


def head(context: ApiContext, project: Project) -> str:
    return context.repository(project).resolve("HEAD") or ""


def code(caller: Caller) -> list[str]:
    return [name for name in names_in(caller.get(f"{P}/repo/download/").content) if "." in name]


# -- submodules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["../lib", "{lib}", "file://{lib}"])
def test_a_submodule_is_fetched(
    form: str, make: Make, git: Git, api: Caller, context: ApiContext, project: Project, tmp_path: Path
) -> None:
    lib = make("git/lib", {"lib.py": "1\n", "sub/more.py": "2\n"})
    (tmp_path / "git" / "code").mkdir()
    code_folder = make("git/code", {"train.py": "3\n"})
    url = form.format(lib=lib)
    git(code_folder, "submodule", "--quiet", "add", str(lib), "vendor/lib")
    if form.startswith(".."):
        git(code_folder, "config", "--file", ".gitmodules", "submodule.vendor/lib.url", url)
    git(code_folder, "add", "--all")
    git(code_folder, "commit", "--quiet", "-m", "lib")
    base = str(code_folder) if form == "{lib}" else f"file://{code_folder}"
    answer = api.post(EXTERNAL, {"git_url": base})
    assert (answer.status_code, answer.content) == (201, b"")
    assert code(api) == [".gitmodules", "train.py", "vendor/lib/lib.py", "vendor/lib/sub/more.py"]
    repository = context.repository(project)
    assert repository.read(head(context, project), "vendor/lib/sub/more.py") == b"2\n"
    made = api.post(f"{P}/jobs/", {"config": FILES[Kind.JOB]}).json()
    assert (made["commit"], made["warnings"]) == (head(context, project), [])
    assert repository.resolve(git(code_folder, "rev-parse", "HEAD"))


def test_fetching_again_gives_the_same_commit(
    make: Make, git: Git, api: Caller, context: ApiContext, project: Project
) -> None:
    lib = make("git/lib", {"lib.py": "1\n"})
    code_folder = make("git/code", {"train.py": "1\n"}, {"lib": str(lib)})
    api.post(EXTERNAL, {"git_url": f"file://{code_folder}"})
    first = head(context, project)
    lib.rename(lib.with_name("moved"))  # fetched submodules are not requested again
    assert api.post(SYNC).status_code == 200
    assert head(context, project) == first
    git(code_folder, "rm", "--quiet", "lib")
    git(code_folder, "commit", "--quiet", "-m", "without")
    api.post(SYNC)
    assert head(context, project) == git(code_folder, "rev-parse", "HEAD")
    assert code(api) == [".gitmodules", "train.py"]


def test_submodules_in_submodules(make: Make, git: Git, api: Caller) -> None:
    inner = make("git/inner", {"inner.py": "1\n"})
    lib = make("git/lib", {"lib.py": "1\n"}, {"in/ner": str(inner)})
    code_folder = make("git/code", {"train.py": "1\n"}, {"lib": str(lib)})
    assert api.post(EXTERNAL, {"git_url": f"file://{code_folder}"}).content == b""
    assert {"lib/lib.py", "lib/in/ner/inner.py"} <= set(code(api))


def test_a_submodule_that_can_not_be_fetched_is_a_warning(
    make: Make, git: Git, api: Caller, context: ApiContext, project: Project, store: Store
) -> None:
    lib = make("git/lib", {"lib.py": "1\n"})
    code_folder = make("git/code", {"train.py": "1\n"}, {"vendor/lib": str(lib)})
    lib.rename(lib.with_name("moved"))
    answer = api.post(EXTERNAL, {"git_url": f"file://{code_folder}"})
    assert answer.status_code == 201
    (warning,) = answer.json()["warnings"]
    assert warning.startswith("The submodule `vendor/lib` was not fetched, it is an empty folder: ")
    assert head(context, project) == git(code_folder, "rev-parse", "HEAD")
    synced = api.post(SYNC)
    assert (synced.status_code, synced.json()["warnings"]) == (200, [warning])
    assert synced.json()["detail"] == "Could not trigger the project CI."
    made = api.post(f"{P}/jobs/", {"config": FILES[Kind.JOB]})
    words = "`vendor/lib` is a submodule that was not fetched, and an empty folder in the code."
    assert made.json()["warnings"] == [words]
    history = api.get(f"{P}/jobs/1/statuses/").json()["results"]
    assert words in [entry["message"] for entry in history]
    lib.with_name("moved").rename(lib)
    assert api.post(SYNC).json() == "Could not trigger the project CI."
    assert api.post(f"{P}/jobs/", {"config": FILES[Kind.JOB]}).json()["warnings"] == []


def test_a_submodule_gives_no_access_to_other_repositories_of_this_disk(
    make: Make, api: Caller, tmp_path: Path
) -> None:
    """The author of the code chooses the URL, not the admin who gave the URL of the code."""
    private = make("private/keys", {"secret.py": "1\n"})
    code_folder = make("git/code", {"train.py": "1\n"}, {"lib": str(private)})
    answer = api.post(EXTERNAL, {"git_url": f"file://{code_folder}"})
    assert answer.status_code == 201
    assert "The submodule `lib` was not fetched" in answer.json()["warnings"][0]
    assert code(api) == [".gitmodules", "train.py"]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/x.git", "ext::sh -c 'touch /tmp/owned'", "--upload-pack=touch", ""]
)
def test_a_submodule_at_an_address_that_is_refused(url: str, make: Make, git: Git, api: Caller) -> None:
    lib = make("git/lib", {"lib.py": "1\n"})
    code_folder = make("git/code", {"train.py": "1\n"}, {"lib": str(lib)})
    git(code_folder, "config", "--file", ".gitmodules", "submodule.lib.url", url)
    git(code_folder, "commit", "--quiet", "--all", "-m", "elsewhere")
    answer = api.post(EXTERNAL, {"git_url": f"file://{code_folder}"})
    assert answer.status_code == 201
    assert "The submodule `lib` was not fetched" in answer.json()["warnings"][0]
    assert code(api) == [".gitmodules", "train.py"]


def test_a_commit_of_another_repository_without_a_url(make: Make, git: Git, api: Caller) -> None:
    lib = make("git/lib", {"lib.py": "1\n"})
    code_folder = make("git/code", {"train.py": "1\n"}, {"lib": str(lib)})
    git(code_folder, "rm", "--quiet", "--cached", ".gitmodules")
    git(code_folder, "commit", "--quiet", "-m", "without")
    answer = api.post(EXTERNAL, {"git_url": f"file://{code_folder}"})
    assert "`.gitmodules` has no URL for it" in answer.json()["warnings"][0]


def test_submodules_beyond_the_limits_of_code_are_refused(
    make: Make, api: Caller, context: ApiContext, project: Project
) -> None:
    lib = make("git/lib", {f"{n}.py": "1\n" for n in range(10)})
    code_folder = make("git/code", {"train.py": "1\n"}, {"lib": str(lib)})
    small = context.settings.model_copy(update={"max_upload_files": 8})
    object.__setattr__(context, "installation", Installation(small, context.store))
    answer = api.post(EXTERNAL, {"git_url": f"file://{code_folder}"})
    assert answer.status_code == 400
    assert "max_upload_files" in answer.json()[0]
    assert not context.repository(project).exists


@pytest.mark.parametrize(
    ("base", "url", "found"),
    [
        ("https://h/org/code.git", "../lib.git", "https://h/org/lib.git"),
        ("https://h/org/code.git/", "./lib", "https://h/org/code.git/lib"),
        ("https://me:word@h/org/code", "../../other/lib", "https://me:word@h/other/lib"),
        ("git@h:org/code.git", "../lib.git", "git@h:org/lib.git"),
        ("git@h:code.git", "../lib.git", "git@h:lib.git"),
        ("/srv/git/code", ".././lib", "/srv/git/lib"),
        ("https://h/org/code", "https://other/lib", "https://other/lib"),
    ],
)
def test_the_url_of_a_submodule(base: str, url: str, found: str) -> None:
    assert resolve(base, url) == found


@pytest.mark.parametrize(
    ("base", "url", "is_so"),
    [
        ("https://h/org/code.git", "https://h/org/lib.git", True),
        ("file:///srv/git/code", "file:///srv/git/a/lib", True),
        ("git@h:org/code.git", "git@h:org/lib.git", True),
        ("https://h/org/code.git", "https://h/other/lib.git", False),
        ("https://h/org/code.git", "https://h/org/../other/lib.git", False),
        ("https://h/org/code.git", "https://h/org/%2e%2e/other/lib.git", False),
        ("https://h/org/code.git", "https://h/organisation/lib", False),
        ("https://h/org/code.git", "ssh://h/org/lib", False),
        ("file:///srv/git/code", "/srv/git/lib", True),
        ("file:///code", "file:///etc/x", False),
        ("/code", "/etc/x", False),
        ("git@h:code.git", "git@h:lib.git", False),
        ("/srv/git/code", "/srv/git/", False),
    ],
)
def test_urls_of_repositories_in_the_same_folder(base: str, url: str, is_so: bool) -> None:
    assert is_beside(base, url) is is_so


# -- git-LFS ---------------------------------------------------------------------------------------------------------

CONTENT = b"weights" * 1000
POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    f"oid sha256:{hashlib.sha256(CONTENT).hexdigest()}\nsize {len(CONTENT)}\n"
)


@pytest.fixture
def without_lfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only git and its dependencies are in the PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for at in os.environ["PATH"].split(os.pathsep):
        for name in ("git", "sh", "tar", "gzip"):
            if (Path(at) / name).exists() and not (folder / name).exists():
                (folder / name).symlink_to(Path(at) / name)
    monkeypatch.setenv("PATH", str(folder))


@pytest.fixture
def stand_in_lfs(without_lfs: None, tmp_path: Path) -> Path:
    """A program in place of git-lfs that returns the content of a file. Returns the path of that file."""
    content = tmp_path / "content"
    content.write_bytes(CONTENT)
    program = tmp_path / "programs" / "git-lfs"
    program.write_text(f"#!/bin/sh\ntest \"$1\" = smudge && exec /bin/cat '{content}'\n")
    program.chmod(0o755)
    return content


@pytest.mark.usefixtures("without_lfs")
def test_pointers_of_lfs_are_a_warning_in_the_answer_and_the_history(make: Make, api: Caller) -> None:
    files = {"data.bin": POINTER, "more/b.bin": POINTER, "train.py": "x" * 200}
    code_folder = make("git/code", {**files, "about.md": f"It looks like this:\n{POINTER}"})
    answer = api.post(EXTERNAL, {"git_url": f"file://{code_folder}"})
    words = (
        "`data.bin`, `more/b.bin` are pointers of git-LFS, their contents were not fetched: install git-lfs on the"
        " daemon's machine, and fetch the code again."
    )
    assert (answer.status_code, answer.json()) == (201, {"warnings": [words]})
    assert api.post(f"{P}/jobs/", {"config": FILES[Kind.JOB]}).json()["warnings"] == [words]
    history = api.get(f"{P}/jobs/1/statuses/").json()["results"]
    assert words in [entry["message"] for entry in history]


@pytest.mark.usefixtures("stand_in_lfs")
def test_contents_in_lfs_are_fetched(make: Make, api: Caller, context: ApiContext, project: Project) -> None:
    code_folder = make("git/code", {"data.bin": POINTER, "same.bin": POINTER, "train.py": "1"})
    answer = api.post(EXTERNAL, {"git_url": f"file://{code_folder}"})
    assert (answer.status_code, answer.content) == (201, b"")
    repository, commit = context.repository(project), head(context, project)
    assert repository.read(commit, "data.bin") == repository.read(commit, "same.bin") == CONTENT
    assert api.post(f"{P}/jobs/", {"config": FILES[Kind.JOB]}).json()["warnings"] == []
    api.post(SYNC)
    assert head(context, project) == commit


def test_another_content_than_the_pointer_names_is_not_taken(make: Make, api: Caller, stand_in_lfs: Path) -> None:
    stand_in_lfs.write_bytes(b"something else")
    code_folder = make("git/code", {"data.bin": POINTER})
    answer = api.post(EXTERNAL, {"git_url": f"file://{code_folder}"})
    assert "`data.bin` is a pointer of git-LFS" in answer.json()["warnings"][0]
