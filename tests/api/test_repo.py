"""Code: upload, commits, download."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
import time
from collections.abc import Iterator

import pytest
from api_support import api_context
from support import job

from polylocal.api.api_context import ApiContext
from polylocal.errors import PolylocalError
from polylocal.git.repository import Repository
from polylocal.installation import Installation
from polylocal.settings import Settings, load
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, User

from .conftest import Caller, Json, P, names_in, put_code, tar_of, upload

UPLOAD = f"{P}/repo/upload/"
FILES = {"train.py": "print(1)\n", "data/labels.csv": "a,b\n", ".hidden": "x"}
pytestmark = pytest.mark.usefixtures("project")


def send(api: Caller, archive: bytes, **parts: str) -> Json | bytes:
    answer = api.put(UPLOAD, files={"repo": ("x", archive), **{k: (None, v) for k, v in parts.items()}})
    return {"status": answer.status_code, "body": answer.content}


def test_an_upload(api: Caller, context: ApiContext, project: Project) -> None:
    answer = upload(api, FILES)
    assert (answer.status_code, answer.content) == (200, b"")
    repository = context.repository(project)
    commit = repository.resolve("HEAD")
    assert commit
    assert {"train.py", ".hidden"} <= repository.files(commit)
    assert repository.read(commit, "data/labels.csv") == b"a,b\n"
    assert api.get(f"{P}/").json()["has_code"] is True


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_how_an_archive_is_packed_does_not_matter(mode: str, api: Caller) -> None:
    assert send(api, tar_of(FILES, mode))["status"] == 200


def test_a_large_upload(api: Caller) -> None:
    """The upload is larger than the part that stays in memory while it is read."""
    noise = bytes(n * n % 251 for n in range(2 * 2**20))
    assert send(api, tar_of({"noise.bin": noise}, "w"))["status"] == 200
    assert names_in(api.get(f"{P}/repo/download/").content) == ["noise.bin"]


@pytest.mark.parametrize("flags", ['{"sync": false}', '{"async": false}', '{"delay": true}', "nonsense", "[]"])
def test_flags_of_the_clients_change_nothing(flags: str, api: Caller) -> None:
    assert send(api, tar_of(FILES), json=flags) == {"status": 200, "body": b""}


@pytest.mark.parametrize("flags", ["[" * 100_000, '{"sync":' * 100_000, '{"sync": NaN}', '{"sync": "\\ud800"}'])
def test_unknown_flags_do_not_prevent_an_upload(flags: str, api: Caller) -> None:
    assert send(api, tar_of(FILES), json=flags) == {"status": 200, "body": b""}
    assert api.get(f"{P}/").json()["has_code"] is True


def test_an_upload_that_asks_for_the_ci_of_a_project_without_one(api: Caller) -> None:
    assert send(api, tar_of(FILES), json='{"sync": true}') == {
        "status": 200,
        "body": b'"Could not trigger the project CI."',
    }


def test_an_upload_that_changes_nothing_makes_no_commit(api: Caller) -> None:
    def commit() -> object:
        return api.post(f"{P}/jobs", {"config": job()}).json()["commit"]

    upload(api, FILES)
    first = commit()
    upload(api, FILES)
    assert commit() == first
    upload(api, {"train.py": "print(2)\n"})
    assert commit() != first
    assert names_in(api.get(f"{P}/repo/download/").content) == ["train.py"]


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"x" * 2000, gzip.compress(b"nonsense"), tar_of(FILES)[:80]],
    ids=["empty", "short", "long", "packed nonsense", "cut short"],
)
def test_what_is_no_archive(content: bytes, api: Caller) -> None:
    answer = api.put(UPLOAD, files={"repo": ("repo.tar.gz", content)})
    assert answer.status_code == 400
    assert "not a tar archive" in answer.json()["repo"][0]
    assert api.get(f"{P}/").json()["has_code"] is False


def test_an_upload_without_its_part(api: Caller) -> None:
    none = {"repo": ["No file was submitted: send the tar.gz as the form part `repo`."]}
    for more in (
        {"files": {"code": ("repo.tar.gz", tar_of(FILES))}},
        {"files": {"repo": (None, "text")}},
        {"data": {"repo": "text"}},
        {"json": {"repo": "text"}},
        {},
    ):
        answer = api.put(UPLOAD, **more)
        assert (answer.status_code, answer.json()) == (400, none)


def hostile(name: str, link: str | None = None, kind: bytes = tarfile.REGTYPE) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.type = kind
        member.linkname = link or ""
        tar.addfile(member)
    return packed.getvalue()


@pytest.mark.parametrize(
    "archive",
    [
        hostile("../outside"),
        hostile("a/../../outside"),
        hostile("link", "/etc/passwd", tarfile.SYMTYPE),
        hostile("link", "../outside", tarfile.SYMTYPE),
        hostile("link", "../outside", tarfile.LNKTYPE),
        hostile("device", kind=tarfile.CHRTYPE),
    ],
    ids=["parent", "parent of a folder", "absolute link", "relative link", "hard link", "device"],
)
def test_an_archive_that_reaches_out_of_its_folder(archive: bytes, api: Caller, settings: Settings) -> None:
    answer = api.put(UPLOAD, files={"repo": ("repo.tar.gz", archive)})
    assert answer.status_code == 400
    assert list(answer.json()) == ["repo"]
    assert not list(settings.home.rglob("outside"))
    assert api.get(f"{P}/").json()["has_code"] is False


def test_a_repository_in_the_code_is_left_out(api: Caller) -> None:
    upload(api, {"train.py": "1", ".git/config": "[core]", "sub/.git/HEAD": "x", "sub/a": "1"})
    assert names_in(api.get(f"{P}/repo/download/").content) == ["sub", "sub/a", "train.py"]


def in_pieces(archive: bytes, size: int) -> Iterator[bytes]:
    yield b'--b\r\nContent-Disposition: form-data; name="repo"; filename="r"\r\n\r\n' + archive
    for _ in range(size // 2**16):
        yield b"\0" * 2**16
    yield b"\r\n--b--\r\n"


@pytest.mark.parametrize("says_its_size", [True, False])
def test_an_upload_that_is_too_large(
    says_its_size: bool, serving: object, settings: Settings, store: Store, api: Caller
) -> None:
    small = api_context(load(home=settings.home, max_upload_mib=1), store)
    caller = Caller(serving(small), api.token)  # type: ignore[operator]
    pieces = in_pieces(tar_of(FILES, "w"), 2 * 2**20)
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = caller.put(UPLOAD, content=b"".join(pieces) if says_its_size else pieces, headers=headers)
    assert answer.status_code == 413
    assert caller.get(f"{P}/").json()["has_code"] is False


def test_the_limits_of_an_upload_can_be_asked_first(
    api: Caller, as_ann: Caller, context: ApiContext, store: Store, project: Project, root: User
) -> None:
    path = f"/polylocal/v1/code/{project.user}/{project.name}/upload"
    found = api.get(path)
    assert (found.status_code, found.json()) == (
        200,
        {"max_upload_mib": 512, "max_unpacked_mib": 4096, "max_upload_files": 100_000},
    )
    assert as_ann.get(path).status_code == 403
    assert api.get("/polylocal/v1/code/root/nosuch/upload").status_code == 404
    store.runs.insert(project, root, NewRun(Kind.NOTEBOOK, config={"version": 1, "kind": "notebook"}))
    running = api.get(path)
    assert running.status_code == 403
    assert "stop it before uploading" in running.json()["detail"]


def test_a_body_that_is_too_large_is_reported_in_mib(api: Caller) -> None:
    answer = api.post(f"{P}/jobs/", content=b" " * (17 << 20), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json() == {"detail": "The body has 17825792 bytes (17.0 MiB), more than the limit of 16.0 MiB."}


# -- download -------------------------------------------------------------------------------------------------------


def test_a_download(api: Caller, context: ApiContext, project: Project) -> None:
    put_code(context, project, FILES)
    answer = api.get(f"{P}/repo/download/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/gzip"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["content-disposition"] == 'attachment; filename="quick-start-master.tar.gz"'
    assert names_in(answer.content) == [".hidden", "data", "data/labels.csv", "train.py"]


def test_a_download_of_a_commit(api: Caller, context: ApiContext, project: Project) -> None:
    first = put_code(context, project, FILES)
    put_code(context, project, {"new.py": "1"})
    assert names_in(api.get(f"{P}/repo/download/").content) == ["new.py"]
    for commit in (first, first[:12]):
        answer = api.get(f"{P}/repo/download/?commit={commit}")
        assert "train.py" in names_in(answer.content)
        assert f"quick-start-{commit}.tar.gz" in answer.headers["content-disposition"]
    assert names_in(api.get(f"{P}/repo/download/?commit=").content) == ["new.py"]


@pytest.mark.parametrize("commit", ["f" * 40, "nosuch", "--output=/tmp/x", "-h", "HEAD:new.py", "a b", "..", "a/../b"])
def test_a_download_of_what_is_not_there(commit: str, api: Caller, context: ApiContext, project: Project) -> None:
    put_code(context, project, {"new.py": "1"})
    answer = api.get(f"{P}/repo/download/", params={"commit": commit})
    assert (answer.status_code, answer.json()) == (404, {"detail": f"The project has no commit `{commit}`."})


@pytest.mark.parametrize(
    "commit",
    [":/((x{1,9}){1,9}){1,9}", "HEAD^{/((x{1,9}){1,9}){1,9}}", "HEAD~1", "HEAD^", "@{-1}", "master^{tree}", "@"],
)
def test_revision_syntax_names_no_download(
    commit: str, api: Caller, context: ApiContext, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git is not called, since some of these names would use all memory of the machine."""
    put_code(context, project, {"new.py": "1"})
    put_code(context, project, {"new.py": "2"})
    monkeypatch.setattr("polylocal.git.command.start", None)
    answer = api.get(f"{P}/repo/download/", params={"commit": commit})
    assert answer.status_code == 404


def test_a_commit_with_a_zero_byte(api: Caller, context: ApiContext, project: Project) -> None:
    put_code(context, project, {"new.py": "1"})
    assert api.get(f"{P}/repo/download/?commit=a%00b").status_code in (400, 404)


def test_a_download_leaves_nothing_behind(
    api: Caller, context: ApiContext, project: Project, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    folder = settings.home / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    put_code(context, project, FILES)
    assert api.get(f"{P}/repo/download/").status_code == 200
    assert list(folder.iterdir()) == []


def test_a_download_that_fails_leaves_nothing_behind_either(
    api: Caller, context: ApiContext, project: Project, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    folder = settings.home / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    put_code(context, project, FILES)
    repository = context.repository(project)
    for path in [*repository.path.glob("objects/??/*"), *repository.path.glob("objects/pack/*")]:
        path.chmod(0o600)
        path.write_bytes(b"broken")
    commit = repository.resolve("HEAD")
    assert commit  # the commit can be found, but not read
    with pytest.raises(PolylocalError), (settings.home / "packed").open("wb") as file:
        repository.archive(commit, file, gzip=True)
    assert api.get(f"{P}/repo/download/").status_code >= 500
    assert list(folder.iterdir()) == []


def test_without_code(api: Caller) -> None:
    answer = api.get(f"{P}/repo/download/")
    assert (answer.status_code, answer.json()) == (404, {"detail": "No code was uploaded to this project."})
    assert api.get(f"{P}/repo/").status_code == 404
    assert api.delete(f"{P}/repo/").status_code == 404


def test_the_description_of_the_code(api: Caller, context: ApiContext, project: Project) -> None:
    put_code(context, project, FILES)
    found = api.get(f"{P}/repo/").json()
    assert list(found) == ["project", "created_at", "updated_at", "is_public", "git_url"]
    assert (found["project"], found["is_public"], found["git_url"]) == ("quick-start", True, None)
    assert found["created_at"] <= found["updated_at"]


def test_code_that_is_deleted_at_the_same_moment_is_not_found(
    api: Caller, context: ApiContext, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the check for code and the access to its folder."""
    put_code(context, project, FILES)

    def removed_after_this(repository: Repository) -> bool:
        repository.remove()
        return True

    monkeypatch.setattr(Repository, "exists", property(removed_after_this))
    answer = api.get(f"{P}/repo/")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not found."})


def test_deleting_the_code(api: Caller, context: ApiContext, project: Project) -> None:
    put_code(context, project, FILES)
    answer = api.delete(f"{P}/repo/")
    assert (answer.status_code, answer.content) == (204, b"")
    assert api.get(f"{P}/").json()["has_code"] is False
    put_code(context, project, {"new.py": "1"})
    assert names_in(api.get(f"{P}/repo/download/").content) == ["new.py"]


def test_an_upload_beyond_a_limit_is_refused_and_the_code_stays(
    api: Caller, context: ApiContext, project: Project
) -> None:
    before = put_code(context, project, FILES)
    small = {"max_unpacked_mib": 1, "max_upload_files": 5}
    tight = Installation(context.settings.model_copy(update=small), context.store)
    object.__setattr__(context, "installation", tight)
    for files, setting in (
        ({"zeros.bin": b"\0" * (2 << 20)}, "max_unpacked_mib"),
        ({f"{n}": b"" for n in range(6)}, "max_upload_files"),
    ):
        answer = upload(api, files)
        assert answer.status_code == 400
        assert list(answer.json()) == ["repo"]
        assert setting in answer.json()["repo"][0]
    assert context.repository(project).resolve("HEAD") == before


def nested(context: ApiContext, project: Project, width: int = 10, depth: int = 10) -> str:
    """A commit with few objects but width**depth files, like one from an earlier push or fetch."""
    put_code(context, project, {"a": "1"})
    git = ["git", "--git-dir", str(context.repository(project).path), "-c", "user.name=a", "-c", "user.email=a@b"]

    def run(*arguments: str, text: str = "") -> str:
        return subprocess.run([*git, *arguments], input=text, capture_output=True, check=True, text=True).stdout.strip()

    at, kind = run("hash-object", "-w", "--stdin", text="x"), "100644 blob"
    for _ in range(depth):
        at, kind = run("mktree", text="".join(f"{kind} {at}\t{n}\n" for n in range(width))), "040000 tree"
    made = run("commit-tree", at, "-m", "nested")
    run("update-ref", "refs/heads/master", made)
    return made


def test_code_beyond_the_limits_is_not_downloaded(api: Caller, context: ApiContext, project: Project) -> None:
    """Few objects with ten thousand million files: each request is refused at once, with the limit."""
    nested(context, project)
    began = time.monotonic()
    for _ in range(40):
        answer = api.get(f"{P}/repo/download/")
        assert answer.status_code == 400
        assert "100000 files and folders (max_upload_files)" in answer.json()[0]
    assert time.monotonic() - began < 20  # without the limit, one of them took hours
    assert api.get("/healthz").status_code == 200
