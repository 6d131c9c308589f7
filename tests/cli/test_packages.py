"""`polylocal package` against the API. No builder runs: the tests write the results of builds into the database."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support import eventually

from polylocal.api.api_context import ApiContext
from polylocal.cli import packages
from polylocal.errors import NotFound
from polylocal.packages.arches import native
from polylocal.packages.statuses import BuildStatus, ContainerStatus
from polylocal.statuses import Status
from polylocal.store import Store
from polylocal.store.build_lists import BuildResults
from polylocal.store.rows import NewFile, NewPackage

from .conftest import Cli, Result


@pytest.fixture
def code(tmp_path: Path, daemon: str, polylocal: Cli, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the code of a package, and a platform to build it for."""
    found = tmp_path / "hello"
    (found / "debian").mkdir(parents=True)
    monkeypatch.chdir(found)
    (found / "debian" / "control").write_text("Source: hello\n")
    assert polylocal("package", "platform", "create", "bookworm", "--type", "deb").code == 0
    return found


@pytest.fixture
def built(code: Path, polylocal: Cli) -> int:
    """A build list that waits for a slot."""
    done = polylocal("package", "build", str(code), "--to", "bookworm/main", "--detach", "--json")
    assert done.code == 0, done.err
    number: int = json.loads(done.out)["id"]
    return number


def put(store: Store, number: int, status: BuildStatus, container: ContainerStatus = ContainerStatus.WAITING) -> None:
    """Set a build list to the status that a builder would have set."""
    run_pk = store.build_lists.get(number).run_pk
    with store.database.write() as db:
        values = (int(status), int(container), run_pk)
        db.execute("update build_lists set status = ?, container_status = ? where run_pk = ?", values)


def end(store: Store, number: int, *packages: NewPackage, is_newer: bool = True, results: Sequence[str] = ()) -> None:
    """End a build list with one package, or with the given ones."""
    run = store.runs.by_pk(store.build_lists.get(number).run_pk)
    files = [NewFile("b" * 40, name, 1) for name in results]
    store.build_lists.conclude(
        run,
        Status.SUCCEEDED,
        "Completed",
        details=None,
        recorded={},
        results=BuildResults([] if results else packages or [package()], files),
        is_newer=lambda mine, published, equal: is_newer,
    )


def package(kind: str = "binary", version: str = "1.0") -> NewPackage:
    return NewPackage("a" * 40, f"hello_{version}-2_all.deb", "hello", kind, 1, version, "2", 10)


def publish_it(store: Store, number: int) -> None:
    """Publish a build list as the publisher does."""
    assert store.build_lists.set_published(store.build_lists.get(number), "release", None)


@pytest.fixture
def building(polylocal: Cli, store: Store, code: Path) -> Iterator[Building]:
    """Run `polylocal package build`, and meanwhile change its build list as a builder would."""
    threads = []

    def run(builder: Callable[[int], None], *options: str, to: str = "bookworm/main") -> Result:
        with store.database.read() as db:
            last = db.execute("select coalesce(max(id), 0) from runs where kind = 'package'").fetchone()[0]

        def work() -> None:
            eventually(lambda: _is_there(store, last + 1))
            builder(last + 1)

        thread = threading.Thread(target=work)
        threads.append(thread)
        thread.start()
        return polylocal("package", "build", str(code), "--to", to, *options)

    yield run
    for thread in threads:
        thread.join()


def _is_there(store: Store, number: int) -> bool:
    try:
        return store.build_lists.get(number).status == BuildStatus.PENDING
    except NotFound:
        return False


Building = Callable[..., Result]


def test_platforms_and_their_repositories(code: Path, polylocal: Cli) -> None:
    assert polylocal("package", "repository", "create", "bookworm/contrib", "--qa").code == 0
    said = polylocal("package", "platform", "ls").out
    assert "bookworm" in said
    assert "main, contrib" in said
    listed = json.loads(polylocal("package", "platform", "ls", "--json").out)
    assert [item["name"] for item in listed] == ["bookworm"]


def test_the_key_of_a_platform_is_printed_for_a_file(code: Path, polylocal: Cli) -> None:
    done = polylocal("package", "platform", "key", "bookworm")
    assert done.code == 0, done.err
    assert done.out.startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
    assert done.out.endswith("-----END PGP PUBLIC KEY BLOCK-----\n")
    found = json.loads(polylocal("package", "platform", "key", "bookworm", "--json").out)
    assert found["key"].rstrip() == done.out.rstrip()
    assert len(found["fingerprint"]) == 40
    missing = polylocal("package", "platform", "key", "nosuch")
    assert missing.code == 1
    assert "there is no platform `nosuch`" in missing.err


def test_an_image_that_lacks_tools_is_told(daemon: str, polylocal: Cli) -> None:
    done = polylocal("package", "platform", "create", "bookworm", "--type", "deb")
    assert (done.code, done.out) == (0, "Platform bookworm created, with the repository bookworm/main\n")
    assert done.err.startswith(
        "The image debian:12 lacks the build tools (dpkg-dev, build-essential): name another one"
    )
    done = polylocal("package", "platform", "create", "other", "--type", "deb", "--image", "mine:1")
    assert (done.code, done.err) == (0, "")


def test_a_build_makes_the_project_and_uploads_its_code(code: Path, polylocal: Cli, store: Store) -> None:
    done = polylocal("package", "build", str(code), "--to", "bookworm", "--no-publish", "--detach")
    assert done.code == 0, done.err
    assert "Uploaded 1 files" in done.err
    assert "root/hello" in done.out
    assert "build pending" in done.out
    found = store.build_lists.get(1)
    assert found.auto_publish_status == "none"
    assert len(found.commit_hash) == 40


def test_the_code_of_a_package_is_what_git_would_have(
    code: Path, polylocal: Cli, store: Store, context: ApiContext
) -> None:
    """The default rules for runs do not apply, and the command lists the files that are left out."""
    for name in ("hello.egg-info/PKG-INFO", "sdist/a", "node_modules/b", "a.o", "b.o", "c.o", "d.o", "build/x"):
        (code / name).parent.mkdir(exist_ok=True)
        (code / name).write_text("x")
    (code / "empty").mkdir()
    (code / ".gitignore").write_text("*.o\nbuild/\n")
    done = polylocal("package", "build", str(code), "--to", "bookworm", "--detach")
    assert done.code == 0, done.err
    assert "Left out a.o, b.o, build/ and 2 more: git ignores them" in done.err
    assert "Left out empty/: the folder is empty, and git does not record empty folders" in done.err
    repository = context.repository(store.projects.get("root", "hello"))
    commit = store.build_lists.get(1).commit_hash
    assert repository.files(commit) == {".gitignore"}
    folders = ("hello.egg-info", "sdist", "node_modules", "debian", "build", "empty")
    assert [name for name in folders if repository.has_folder(commit, name)] == list(folders[:4])


def test_a_ref_is_built_without_an_upload(built: int, polylocal: Cli, store: Store) -> None:
    commit = store.build_lists.get(built).commit_hash
    done = polylocal(
        "package", "build", "--project", "hello", "--to", "bookworm/main", "--ref", commit[:12], "-d", "--json"
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["commit_hash"] == commit
    assert done.err == ""


@pytest.mark.parametrize("is_tagged", [True, False])
def test_the_tags_of_an_uploaded_folder_give_the_version_of_a_python_package(
    code: Path, polylocal: Cli, store: Store, is_tagged: bool
) -> None:
    """The upload itself contains no tags."""
    who = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=code, env={**os.environ, **who}, check=True, capture_output=True)

    git("init", "--quiet")
    (code / "setup.py").write_text("x")
    git("add", "--all")
    git("commit", "--quiet", "--message=x")
    if is_tagged:
        git("tag", "v1.2")
    assert polylocal("package", "platform", "create", "py3", "--type", "pypi").code == 0
    done = polylocal("package", "build", str(code), "--to", "py3", "-d", "--json")
    assert done.code == 0, done.err
    run = store.runs.by_pk(store.build_lists.get(json.loads(done.out)["id"]).run_pk)
    variables = (run.config or {}).get("environment", {}).get("env_vars", {})
    assert variables.get("SETUPTOOLS_SCM_PRETEND_VERSION") == ("1.2" if is_tagged else None)


def test_what_is_built_into_ones_own_repository(code: Path, polylocal: Cli) -> None:
    done = polylocal("package", "build", str(code), "--for", "bookworm", "-d", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["save_to_repository"]["platform"]["name"] == "root_personal"


def test_one_of_them_and_all_of_them(built: int, polylocal: Cli, store: Store) -> None:
    end(store, built)
    said = polylocal("package", "show", str(built)).out
    assert "hello 1:1.0-2 (binary)" in said
    assert "build is being published" in said
    assert "bookworm/main" in said
    assert "hello" in polylocal("package", "ls").out
    assert json.loads(polylocal("package", "ls", "--status", "666", "--json").out) == []
    assert polylocal("package", "ls", "--project", "nothing").out.strip() == "No build lists yet."


def test_what_it_has_written(built: int, polylocal: Cli, store: Store, context: object) -> None:
    assert polylocal("package", "logs", str(built)).out == ""
    path = context.log_path(store.runs.by_pk(store.build_lists.get(built).run_pk))  # type: ignore[attr-defined]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"making hello\n")
    put(store, built, BuildStatus.COMPLETE)
    assert polylocal("package", "logs", str(built)).out == "making hello\n"
    assert polylocal("package", "logs", str(built), "--follow").out == "making hello\n"


def test_a_build_is_cancelled_once(built: int, polylocal: Cli, store: Store) -> None:
    assert polylocal("package", "cancel", str(built)).out == f"{built}: Build canceled\n"
    assert store.build_lists.get(built).status == BuildStatus.CANCELING
    again = polylocal("package", "cancel", str(built))
    assert again.code == 1
    assert "Errors during build cancelation!" in again.err


def test_what_was_built_is_published_contained_and_rejected(built: int, polylocal: Cli, store: Store) -> None:
    put(store, built, BuildStatus.COMPLETE)
    assert "Container is queued for creating" in polylocal("package", "container", str(built)).out
    assert "Rejecting publishing failed" in polylocal("package", "reject", str(built)).err
    assert "Build is queued for publishing" in polylocal("package", "publish", str(built)).out
    assert store.build_lists.get(built).status == BuildStatus.PUBLISHING


def test_a_repository_is_locked_and_left(built: int, polylocal: Cli, store: Store) -> None:
    number = store.build_lists.get(built).save_to_repository_id
    assert polylocal("package", "repository", "lock", "bookworm/main").code == 0
    assert store.platforms.repository(number).is_locked
    assert polylocal("package", "repository", "unlock", "bookworm/main").code == 0
    assert not store.platforms.repository(number).is_locked
    project = store.projects.get("root", "hello")
    assert polylocal("package", "repository", "remove", "bookworm/main", "hello").code == 0
    assert not store.platforms.has_project(store.platforms.repository(number), project.id)
    assert polylocal("package", "repository", "add", "bookworm/main", "hello").code == 0
    assert store.platforms.has_project(store.platforms.repository(number), project.id)


NO_BUILD_LIST = "there is no build list 99; `polylocal package ls --all` lists the build lists"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        *(([action, "99"], NO_BUILD_LIST) for action in ("show", "logs", "cancel", "publish", "reject", "container")),
        (["logs", "99", "--follow"], NO_BUILD_LIST),
        (["repository", "add", "bookworm/main", "nothere"], "there is no project `root/nothere`"),
        (["repository", "remove", "bookworm/main", "nothere"], "there is no project `root/nothere`"),
        (["repository", "lock", "nowhere/main"], "there is no platform `nowhere`"),
        (["build", ".", "--to", "nowhere/main", "-d"], "there is no platform `nowhere`"),
        (["build", ".", "--to", "bookworm/nothing", "-d"], "has no repository `nothing`"),
        (["build", ".", "-d"], "name the platform to build for"),
        (
            ["build", ".", "--to", "bookworm", "--ref", "master", "-p", "unknown", "-d"],
            "there is no project `root/unknown`",
        ),
        (["build", ".", "--to", "bookworm", "--arch", "vax", "-d"], "this machine builds for"),
        (["platform", "create", "bookworm", "--type", "deb"], "Name has already been taken"),
        (["platform", "create", "odd/name", "--type", "deb"], "Name is invalid"),
        (["platform", "create", "other", "--type", "zip"], "must be one of deb, dnf, rhel, mdv, pypi, not `zip`"),
        (["repository", "create", "bookworm"], "is not the name of a repository"),
    ],
)
def test_what_is_wrong_is_said(code: Path, polylocal: Cli, words: list[str], said: str) -> None:
    done = polylocal("package", *words)
    assert done.code == 1
    assert said in done.err


@pytest.mark.parametrize("is_user", [False, True])
def test_no_project_is_made_for_somebody_else(code: Path, polylocal: Cli, store: Store, is_user: bool) -> None:
    """The user gets no project of that name either."""
    if is_user:
        store.users.add("other")
    done = polylocal("package", "build", str(code), "--project", "other/thing", "--to", "bookworm", "-d")
    assert (done.code, done.out) == (1, "")
    assert "there is no project `other/thing`" in done.err
    assert "Uploaded" not in done.err
    assert projects(store) == []


def test_a_wrong_type_of_update_is_told_before_anything_is_made(code: Path, polylocal: Cli, store: Store) -> None:
    done = polylocal("package", "build", str(code), "--to", "bookworm", "--update-type", "feature", "-d")
    assert (done.code, done.out) == (1, "")
    allowed = "security, bugfix, enhancement, recommended, newpackage"
    assert f"--update-type: must be one of {allowed}, not `feature`" in done.err
    assert "Uploaded" not in done.err
    assert projects(store) == []


def projects(store: Store) -> list[str]:
    with store.database.read() as db:
        return [row["name"] for row in db.execute("select name from projects")]


def test_a_released_platform_has_its_updates_beside_its_release(built: int, polylocal: Cli, store: Store) -> None:
    platform = store.platforms.by_name("bookworm")
    for is_released, sub in ((False, "release"), (True, "updates")):
        if is_released:
            store.platforms.update(platform, {"released": True})
        put(store, built, BuildStatus.PUBLISHED)
        shown = polylocal("package", "show", str(built)).out
        assert f"/downloads/bookworm/repository/{native()}/main/{sub}/" in shown


def test_a_platform_is_found_among_many_whose_names_hold_its_own(code: Path, polylocal: Cli, store: Store) -> None:
    """The server lists a hundred platforms per page, the oldest first."""
    root = store.users.get("root")
    for number in range(205):
        store.platforms.create(root, {"name": f"sid{number}", "distrib_type": "deb"})
    store.platforms.create(root, {"name": "sid", "distrib_type": "deb"})
    made = polylocal("package", "repository", "create", "sid/main")
    assert (made.code, made.err) == (0, "")
    found = store.platforms.repositories([store.platforms.by_name("sid").id])
    assert [repository.name for repository in found] == ["main"]
    assert "there is no platform `si`" in polylocal("package", "repository", "create", "si/main").err


def test_a_package_build_is_no_run_of_the_other_commands(built: int, polylocal: Cli) -> None:
    assert f"package/{built}" in polylocal("ls").out
    done = polylocal("show", f"package/{built}")
    assert done.code == 1
    assert f"polylocal package show {built}" in done.err


# -- yanking ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def published(built: int, polylocal: Cli, store: Store) -> int:
    """A build list whose Python packages are published."""
    end(store, built)
    assert store.build_lists.set_published(store.build_lists.get(built), "release", "1")
    with store.database.write() as db:
        db.execute("update platforms set distrib_type = 'pypi' where name = 'bookworm'")
    return built


def test_packages_are_yanked_and_offered_again(published: int, polylocal: Cli, store: Store) -> None:
    number = str(published)
    assert "yanked" not in polylocal("package", "show", number).out
    assert polylocal("package", "yank", number).out == f"{number}: Build is yanked\n"
    assert "without a reason" in polylocal("package", "show", number).out
    assert polylocal("package", "yank", number, "--reason", "loses data").code == 0
    shown = polylocal("package", "show", number).out
    assert "yanked" in shown
    assert "loses data" in shown
    assert json.loads(polylocal("package", "show", number, "--json").out)["yanked_reason"] == "loses data"
    assert polylocal("package", "yank", number, "--undo").out == f"{number}: Build is not yanked any more\n"
    assert "yanked" not in polylocal("package", "show", number).out
    assert store.build_lists.get(published).yanked is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--undo"], "is not yanked"),
        (["--undo", "--reason", "x"], "--reason and --undo can't be used together"),
        (["--reason", "x" * 201], "`reason` has 201 characters; the most are 200"),
        (["--reason", "a\nb"], "`reason` must be one line"),
        (["--reason", "a\udcff"], "an argument is not UTF-8"),
    ],
)
def test_yanking_that_is_refused(published: int, polylocal: Cli, store: Store, words: list[str], said: str) -> None:
    done = polylocal("package", "yank", str(published), *words)
    assert (done.code, done.out) == (1, "")
    assert said in " ".join(done.err.split())
    assert store.build_lists.get(published).yanked is None


def test_what_is_not_published_is_not_yanked(built: int, polylocal: Cli, store: Store) -> None:
    done = polylocal("package", "yank", str(built))
    assert done.code == 1
    assert "these are deb packages: publish a newer version instead" in " ".join(done.err.split())
    assert NO_BUILD_LIST in polylocal("package", "yank", "99").err


# -- results of builds ------------------------------------------------------------------------------------------------


def test_a_build_that_is_not_newer_says_so_and_fails(building: Building, store: Store) -> None:
    first = building(lambda number: (end(store, number), publish_it(store, number)))
    assert first.code == 0, first.err
    done = building(lambda number: end(store, number, is_newer=False))
    assert done.code == 1
    words = (
        "Not published: version 1:1.0-2 is not newer than 1:1.0-2, which is in bookworm/main (build list 1): raise"
        " the version, or publish the build nevertheless by `polylocal package publish 2`"
    )
    assert done.out.count("Not published") == 1
    assert words in done.out.splitlines()


def test_the_same_is_told_to_programs(building: Building, store: Store) -> None:
    done = building(lambda number: end(store, number, results=["hello.zip"]), "--json")
    assert done.code == 1
    told = json.loads(done.out)["not_published"]
    assert told["reason"] == "no-packages"
    assert told["message"].endswith("(deb: .deb, .udeb, .dsc), only hello.zip")


def test_what_was_not_to_be_published_is_no_failure(building: Building, store: Store) -> None:
    done = building(lambda number: end(store, number), "--no-publish")
    assert (done.code, "Not published" in done.out) == (0, False)


def test_a_build_without_packages_that_was_not_to_be_published_is_told(building: Building, store: Store) -> None:
    done = building(lambda number: end(store, number, results=["hello.zip"]), "--no-publish")
    assert done.code == 0
    assert "only hello.zip" in done.out


def test_what_waits_for_qa_is_no_failure_and_is_told(building: Building, polylocal: Cli, store: Store) -> None:
    assert polylocal("package", "repository", "create", "bookworm/careful", "--qa").code == 0
    done = building(lambda number: end(store, number), to="bookworm/careful")
    assert done.code == 0
    assert "Not published: bookworm/careful has QA: an admin of its platform publishes the build by" in done.out


def test_a_publication_that_failed_says_why(building: Building, store: Store) -> None:
    def fail(number: int) -> None:
        end(store, number)
        found = store.build_lists.get(number)
        store.build_lists.set_failed(found, BuildStatus.PUBLISH_FAILED, [], "the disk is broken\x1b[2J")

    done = building(fail)
    assert done.code == 1
    assert "Not published: the disk is broken\\x1b[2J" in done.out


def test_a_publication_that_is_held_says_so(
    building: Building, store: Store, polylocal: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert polylocal("package", "repository", "lock", "bookworm/main").code == 0
    monkeypatch.setattr(packages, "_HELD_AFTER_S", 0.0)
    done = building(lambda number: end(store, number))
    assert done.code == 1
    assert "Not published yet: bookworm/main may be locked" in done.err


# -- lines for the installation ---------------------------------------------------------------------------------------


def served(url: str, platform: str = "bookworm", arch: str = "") -> str:
    return f"{url}/downloads/{platform}/repository/{arch or native()}/main/release/"


def test_what_was_published_names_the_line_for_apt(building: Building, store: Store, daemon: str) -> None:
    done = building(lambda number: (end(store, number), publish_it(store, number)))
    assert (done.code, done.out.splitlines()[-1]) == (0, f"deb [trusted=yes] {served(daemon)} ./")


def test_a_debian_source_of_several_files_is_named_once(building: Building, store: Store) -> None:
    files = [package("source"), replace(package("source"), file_name="hello_1.0-2.tar.xz", sha1="b" * 40), package()]
    done = building(lambda number: end(store, number, *files), "--no-publish")
    named = [line.split(maxsplit=1)[1] for line in done.out.splitlines() if line.startswith("package ")]
    assert named == ["hello 1:1.0-2 (source)", "hello 1:1.0-2 (binary)"]


def test_a_repository_with_a_key_names_it(
    building: Building, store: Store, daemon: str, polylocal: Cli, context: ApiContext
) -> None:
    key = context.home.downloads / "bookworm" / "key.asc"
    key.parent.mkdir(parents=True)
    key.write_text("a key")
    building(lambda number: (end(store, number), publish_it(store, number)))
    keyring = "/etc/apt/keyrings/polylocal-bookworm.asc"
    assert polylocal("package", "show", "1").out.splitlines()[-2:] == [
        f"curl -fsS {daemon}/downloads/bookworm/key.asc -o {keyring}",
        f"deb [signed-by={keyring}] {served(daemon)} ./",
    ]


@pytest.mark.parametrize("kind", ["dnf", "pypi"])
def test_what_was_published_names_the_lines_for_others(
    kind: str, building: Building, store: Store, daemon: str, polylocal: Cli
) -> None:
    assert polylocal("package", "platform", "create", "other", "--type", kind).code == 0
    done = building(lambda number: (end(store, number), publish_it(store, number)), to="other/main")
    url = served(daemon, "other")
    section = ["[polylocal-other]", "name=polylocal-other", f"baseurl={url}", "gpgcheck=0"]
    wanted = [f"pip install --index-url {url}simple/ hello"] if kind == "pypi" else section
    assert done.out.splitlines()[-len(wanted) :] == wanted


def test_a_hidden_platform_asks_for_credentials(building: Building, store: Store) -> None:
    store.platforms.update(store.platforms.by_name("bookworm"), {"is_open": False})
    done = building(lambda number: (end(store, number), publish_it(store, number)))
    assert "The platform is hidden: write a user and a token into the addresses" in done.err


def test_a_source_distribution_alone_is_told(building: Building, store: Store, daemon: str, polylocal: Cli) -> None:
    """The repository keeps it with the sources, and pip builds a wheel from it."""
    assert polylocal("package", "platform", "create", "other", "--type", "pypi").code == 0
    done = building(lambda number: (end(store, number, package("source")), publish_it(store, number)), to="other/main")
    assert done.code == 0
    url = served(daemon, "other", "SRPMS")
    assert done.out.splitlines()[-1] == f"pip install --index-url {url}simple/ hello"
    assert "The build made no wheel" in done.err


def test_source_packages_alone_can_not_be_installed(building: Building, store: Store) -> None:
    done = building(lambda number: (end(store, number, package("source")), publish_it(store, number)))
    assert (done.code, "trusted=yes" in done.out) == (0, False)
    assert "The build made only source packages, which can't be installed." in done.err
