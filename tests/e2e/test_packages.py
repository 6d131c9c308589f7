"""Packages with the real daemon, the real engine and the real tools, from a push to an installation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import createrepo_c
import docker
import pytest
from support import Daemon, eventually

from e2e.packages import (
    ARCH,
    BUILDER,
    READY_MADE,
    Abf,
    Source,
    Target,
    apt,
    connect_to,
    content,
    deb,
    recipe,
    run_in_container,
)

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def abf(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Abf]:
    with connect_to(daemon, tmp_path_factory.mktemp("work")) as made:
        yield made


def ready_made(abf: Abf, target: Target, name: str, version: str = "1.0") -> Source:
    """A project whose code is a finished package."""
    source = abf.source(target)
    abf.push(source, {**READY_MADE, **deb(name, version)})
    return source


def new_version(abf: Abf, source: Source, name: str, version: str) -> str:
    for old in source.folder.glob("*.deb"):
        old.unlink()
    return abf.push(source, deb(name, version))


# -- built packages can be installed ---------------------------------------------------------------------------------


def test_apt_installs_what_was_built_from_a_push(abf: Abf, raw_engine: docker.DockerClient):
    target = abf.target("deb", BUILDER)
    source = abf.source(target, example="deb")
    commit = abf.push(source)
    found = abf.build_and_wait(source, target, 6000, auto_publish=True)
    packages = {(p["name"], p["type"], p["version"], p["release"]) for p in found["packages"]}
    assert packages == {
        ("hello-polylocal", "binary", "1.0", ""),
        ("hello-polylocal", "source", "1.0", ""),
    }
    assert (found["commit_hash"], found["package_version"]) == (commit, f"{target.platform}-1.0")
    assert "hello-polylocal_1.0.dsc" in abf.list_folder(target.folder("SRPMS"))
    installed = "hello-polylocal && dpkg-query --show --showformat='is ${Version}' hello-polylocal"
    said = run_in_container(raw_engine, f"{apt(abf.url(target.folder()), 'hello-polylocal')} && {installed}")
    assert said.endswith("Hello from a Debian package that polylocal built.\nis 1.0")


def test_pip_installs_what_was_built(abf: Abf, raw_engine: docker.DockerClient):
    target = abf.target("pypi", BUILDER)
    source = abf.source(target, example="wheel")
    abf.push(source)
    found = abf.build_and_wait(source, target, 6000, auto_publish=True)
    # setuptools may write the name with an underscore or with a dash
    assert [(p["name"].replace("_", "-"), p["version"]) for p in found["packages"]] == [("hello-polylocal", "1.0")]
    index = f"{abf.url(target.folder())}/simple/"
    said = run_in_container(
        raw_engine, f"pip install -q --no-cache-dir --index-url {index} hello_polylocal && cd / && hello-polylocal"
    )
    assert said.endswith("Hello from a wheel that polylocal built.\n")


def test_an_rpm_is_in_the_metadata_that_dnf_reads(abf: Abf, tmp_path: Path):
    target = abf.target("dnf", BUILDER)
    source = abf.source(target, example="rpm")
    abf.push(source)
    found = abf.build_and_wait(source, target, 6000, auto_publish=True)
    assert found["package_version"] == f"{target.platform}-1.0-1"
    for arch, package_arch in ((ARCH, "noarch"), ("SRPMS", "src")):
        [package] = primary(abf, target.folder(arch), tmp_path / arch)
        assert (package.name, package.version, package.release, package.arch) == (
            "hello-polylocal",
            "1.0",
            "1",
            package_arch,
        )
        file = abf.fetch(f"{target.folder(arch)}/{package.location_href}").content
        assert (package.checksum_type, package.pkgId) == ("sha256", hashlib.sha256(file).hexdigest())
        assert package.size_package == len(file)


def primary(abf: Abf, folder: str, into: Path) -> list[createrepo_c.Package]:
    """The packages in the metadata of a repository."""
    into.mkdir()
    head = into / "repomd.xml"
    head.write_bytes(abf.fetch(f"{folder}/repodata/repomd.xml").content)
    [listed] = [record for record in createrepo_c.Repomd(str(head)).records if record.type == "primary"]
    file = into / Path(listed.location_href).name
    file.write_bytes(abf.fetch(f"{folder}/{listed.location_href}").content)
    found: list[createrepo_c.Package] = []
    createrepo_c.xml_parse_primary(str(file), pkgcb=found.append, do_files=False)
    return found


# -- conditions and time of publications -----------------------------------------------------------------------------


def test_a_newer_version_replaces_and_an_older_one_waits(abf: Abf):
    target = abf.target("deb")
    source = ready_made(abf, target, "tool", "1.0")
    first = abf.build_and_wait(source, target, 6000, auto_publish=True)
    assert "Version: 1.0\n" in abf.index(target)
    published = abf.show(first["id"])["commit_hash"]

    new_version(abf, source, "tool", "1.1")
    second = abf.build_and_wait(source, target, 6000, auto_publish=True)
    assert second["last_published_commit_hash"] == published
    assert versions(abf, target) == ["1.1"]
    assert abf.fetch(f"{target.folder()}/tool_1.0_all.deb").status_code == 404
    assert abf.fetch(f"{target.folder()}/tool_1.1_all.deb").status_code == 200
    assert abf.status(first["id"]) == 6000

    new_version(abf, source, "tool", "0.9")
    third = abf.build_and_wait(source, target, 0, auto_publish=True)
    assert versions(abf, target) == ["1.1"]
    assert abf.publish(third["id"])["status"] == 6000
    assert versions(abf, target) == ["0.9"]
    assert abf.fetch(f"{target.folder()}/tool_1.1_all.deb").status_code == 404


def versions(abf: Abf, target: Target) -> list[str]:
    return [line.split()[1] for line in abf.index(target).splitlines() if line.startswith("Version:")]


def test_projects_share_one_repository(abf: Abf):
    target = abf.target("deb")
    sources = [ready_made(abf, target, name) for name in ("one", "two")]
    builds = [abf.build(source, target, auto_publish=True) for source in sources]
    assert [abf.wait_until_ended(build)["status"] for build in builds] == [6000, 6000]
    assert {"one_1.0_all.deb", "two_1.0_all.deb"} <= abf.list_folder(target.folder())
    assert versions(abf, target) == ["1.0", "1.0"]


def test_a_personal_repository_has_a_folder_for_each_platform_that_is_built_for(abf: Abf):
    target = abf.target("deb")
    source = ready_made(abf, target, "mine")
    mine = abf.personal_repository()
    abf.build_and_wait(source, target, 6000, auto_publish=True, save_to_repository_id=mine)
    folder = f"root_personal/repository/{target.platform}/{ARCH}/main/release"
    assert "Package: mine\n" in abf.fetch(f"{folder}/Packages").text
    assert "mine_1.0_all.deb" in abf.list_folder(folder)
    assert abf.list_folder(target.folder()) == set()


def test_a_locked_repository_waits_for_its_key(abf: Abf):
    locked, other = abf.target("deb"), abf.target("deb")
    abf.call("PUT", f"repositories/{locked.repository_id}/add_repo_lock_file")
    source, elsewhere = (ready_made(abf, to, name) for name, to in (("a", locked), ("b", other)))
    waiting = abf.build(source, locked, auto_publish=True)
    eventually(lambda: abf.status(waiting) == 7000, 60)
    # publications are done in order: if a later one is done and this one is not, then this one waits
    abf.build_and_wait(elsewhere, other, 6000, auto_publish=True)
    assert abf.status(waiting) == 7000
    assert abf.list_folder(locked.folder()) == set()
    abf.call("DELETE", f"repositories/{locked.repository_id}/remove_repo_lock_file")
    assert abf.wait_until_ended(waiting)["status"] == 6000
    assert "a_1.0_all.deb" in abf.list_folder(locked.folder())


def test_a_project_that_left_the_repository_is_not_published_there(abf: Abf):
    target = abf.target("deb")
    source = ready_made(abf, target, "gone")
    abf.call("PUT", f"repositories/{target.repository_id}/add_repo_lock_file")
    waiting = abf.build(source, target, auto_publish=True)
    eventually(lambda: abf.status(waiting) == 7000, 60)
    leave(abf, source, target)
    abf.call("DELETE", f"repositories/{target.repository_id}/remove_repo_lock_file")
    assert abf.wait_until_ended(waiting)["status"] == 8000
    why = abf.result(waiting, f"abfworker::publish-worker-{waiting}.log")
    assert why == f"the project is not in the repository {target.platform}/main any more\n"
    assert abf.list_folder(target.folder()) == set()
    abf.do(waiting, "publish", status=422)


def leave(abf: Abf, source: Source, target: Target) -> None:
    abf.call("DELETE", f"repositories/{target.repository_id}/remove_project", {"project_id": source.project_id})


def test_the_packages_of_a_project_leave_with_it(abf: Abf):
    target = abf.target("deb")
    stays, leaves = (ready_made(abf, target, name) for name in ("stays", "leaves"))
    builds = [abf.build_and_wait(source, target, 6000, auto_publish=True)["id"] for source in (stays, leaves)]
    assert "Package: leaves\n" in abf.index(target)
    leave(abf, leaves, target)
    eventually(lambda: "Package: leaves\n" not in abf.index(target))
    assert "Package: stays\n" in abf.index(target)
    assert "leaves_1.0_all.deb" not in abf.list_folder(target.folder())
    assert [abf.status(build) for build in builds] == [6000, 6000]


def test_with_qa_nothing_is_published_by_itself_and_what_is_rejected_never(abf: Abf):
    target = abf.target("deb", has_qa=True)
    source = ready_made(abf, target, "checked")
    found = abf.build_and_wait(source, target, 0, auto_publish=True)
    assert found["auto_publish"] is False
    abf.do(found["id"], "reject_publish")
    assert abf.status(found["id"]) == 9000
    abf.do(found["id"], "publish", status=422)
    assert abf.list_folder(target.folder()) == set()

    good = abf.build_and_wait(source, target)
    assert abf.publish(good["id"])["status"] == 6000
    assert "Package: checked\n" in abf.index(target)


# -- failed publications ---------------------------------------------------------------------------------------------


def test_a_lost_file_of_the_file_store_is_reported(abf: Abf):
    target = abf.target("deb")
    source = ready_made(abf, target, "lost")
    found = abf.build_and_wait(source, target)
    [package] = found["packages"]
    (abf.daemon.home / "files" / package["url"].rpartition("/")[2]).unlink()
    assert abf.publish(found["id"])["status"] == 777
    why = abf.result(found["id"], f"abfworker::publish-worker-{found['id']}.log")
    assert why == "the file store has lost lost_1.0_all.deb\n"
    assert abf.list_folder(target.folder()) == set()
    abf.do(found["id"], "publish", status=422)


def test_a_failed_publication_changes_nothing_and_can_be_tried_again(abf: Abf):
    """The folder of the sources can't be written. The folder of the packages must stay unchanged, too."""
    target = abf.target("deb")
    source = ready_made(abf, target, "tool", "1.0")
    abf.build_and_wait(source, target, 6000, auto_publish=True)
    before = content(abf.folder_of(target))
    assert {"Packages", "tool_1.0_all.deb"} <= set(before)
    new_version(abf, source, "tool", "1.1")
    sources = abf.folder_of(target, "SRPMS").parent
    aside = sources.rename(sources.with_name("aside"))
    sources.write_text("in the way")
    failed = abf.build_and_wait(source, target, 8000, auto_publish=True)
    assert "in the way" not in (why := abf.result(failed["id"], f"abfworker::publish-worker-{failed['id']}.log"))
    assert str(sources) in why
    assert content(abf.folder_of(target)) == before
    assert beside(abf.folder_of(target)) == {abf.folder_of(target).readlink().name, "release"}
    sources.unlink()
    aside.rename(sources)
    assert abf.publish(failed["id"])["status"] == 6000
    assert versions(abf, target) == ["1.1"]


def beside(folder: Path) -> set[str]:
    return {path.name for path in folder.parent.iterdir()}


def test_a_broken_package_fails_alone(abf: Abf):
    """A log contains the tool's message. Other packages of the same publication and earlier ones are complete."""
    target = abf.target("deb")
    good = ready_made(abf, target, "good", "1.0")
    abf.build_and_wait(good, target, 6000, auto_publish=True)
    before = abf.index(target)
    broken = abf.source(target)
    told = json.dumps([{"fullname": "broken.deb", "name": "broken", "version": "1"}])
    command = f"echo no archive > $RESULTS_PATH/broken.deb; echo '{told}' > $RESULTS_PATH/container_data.json"
    abf.push(broken, recipe(command))
    new_version(abf, good, "good", "1.1")
    # both belong to the same publication
    abf.call("PUT", f"repositories/{target.repository_id}/add_repo_lock_file")
    builds = [abf.build(source, target, auto_publish=True) for source in (good, broken)]
    eventually(lambda: [abf.status(build) for build in builds] == [7000, 7000], 60)
    assert abf.index(target) == before
    abf.call("DELETE", f"repositories/{target.repository_id}/remove_repo_lock_file")
    assert [abf.wait_until_ended(build)["status"] for build in builds] == [6000, 8000]
    assert versions(abf, target) == ["1.1"]
    why = abf.result(builds[1], f"abfworker::publish-worker-{builds[1]}.log")
    assert "broken.deb is not a Debian package" in why


# -- the inputs of a build -------------------------------------------------------------------------------------------


def test_a_build_installs_from_the_container_of_another_and_from_repositories(abf: Abf):
    target = abf.target("deb", BUILDER)
    published = ready_made(abf, target, "published")
    hello = abf.source(target, example="deb")
    abf.push(hello)
    builds = abf.build(published, target, auto_publish=True), abf.build(hello, target)
    there, found = (abf.wait_until_ended(build) for build in builds)
    assert (there["status"], found["status"]) == (6000, 0)
    assert (found["container_status"], found["container_path"]) == (4000, "")
    contained = abf.create_container(found["id"])
    path = contained["container_path"]
    assert path == abf.url(f"{target.platform}/container/{found['id']}/{ARCH}/main/release/")
    names = [line for line in abf.fetch(f"{path}Packages").text.splitlines() if line.startswith("Package:")]
    assert names == ["Package: hello-polylocal"]
    assert "Package: hello-polylocal\n" not in abf.index(target)
    abf.do(found["id"], "create_container", status=422)

    user = abf.source(target)
    command = (
        "apt-get update && apt-get install -y hello-polylocal published"
        ' && { hello-polylocal && published; } > "$RESULTS_PATH/said.log"'
        ' && cp ../container/media.list "$RESULTS_PATH/media.log"'
    )
    abf.push(user, recipe(command))
    builds = abf.build(user, target, extra_build_lists=[found["id"]]), abf.build(user, target)
    using, without = (abf.wait_until_ended(build) for build in builds)
    assert (using["status"], without["status"]) == (0, 666)
    assert [(other["id"], other["container_path"]) for other in using["extra_build_lists"]] == [(found["id"], path)]
    assert abf.result(using["id"], "said.log") == "Hello from a Debian package that polylocal built.\npublished 1.0\n"
    media = [line.split()[0] for line in abf.result(using["id"], "media.log").splitlines()]
    assert media == [f"{target.platform}_main_release", f"container_{found['id']}"]
    assert "Unable to locate package hello-polylocal" in abf.log(without["id"])
    # for a main platform, the extra build list must be published first
    abf.do(using["id"], "publish", status=422)


def test_a_build_has_a_network_only_where_its_platform_has_one(abf: Abf):
    """One build reaches an address, and the other build does not reach the same address."""
    sha1 = abf.upload("given.txt", b"reached\n")
    open_one, closed = abf.target("deb", build_network=True), abf.target("deb")
    command = (
        'exec 2>&1; echo "$FILE_STORE_ADDR" > "$RESULTS_PATH/address.log"; '  # the order of two streams is undefined
        'wget -q -O - "${EXTRA_ADDRESS:-$FILE_STORE_ADDR}/$EXTRA_SHA1" || { echo out of reach; exit 3; }'
    )
    source = abf.source(open_one, closed)
    abf.push(source, recipe(command))
    reached = abf.build_and_wait(source, open_one, extra_params={"sha1": sha1})
    assert "reached\n" in abf.log(reached["id"])
    address = abf.result(reached["id"], "address.log").strip()
    cut_off = abf.build_and_wait(source, closed, 666, extra_params={"sha1": sha1, "address": address})
    assert abf.log(cut_off["id"]).endswith("\nout of reach\n")


def test_sources_come_from_the_file_store(abf: Abf):
    target = abf.target("deb")
    sha1 = abf.upload("given.txt", b"from the file store\n")
    assert abf.upload("again.txt", b"from the file store\n") == sha1
    assert sha1 == hashlib.sha1(b"from the file store\n").hexdigest()
    missing = "f" * 40
    source = abf.source(target)
    abf.push(source, recipe("cat given.txt; ls -A", {"given.txt": sha1, "absent.txt": missing}))
    found = abf.build_and_wait(source, target)
    lines = abf.log(found["id"]).splitlines()
    assert lines[0].startswith("polylocal: ")
    assert f"the file store has no file {missing}: absent.txt is left out" in lines[0]
    assert lines[1:] == ["from the file store", ".abf.yml", ".git", "given.txt"]


def test_a_command_may_have_several_lines(abf: Abf):
    target = abf.target("deb")
    source = abf.source(target)
    abf.push(source, recipe("echo 'two  blanks' # and a word on that\ncat <<END\nno command\nEND\nexit 0"))
    found = abf.wait_until_ended(abf.build(source, target))
    assert (found["status"], abf.log(found["id"])) == (0, "two  blanks\nno command\n")


# -- the results of a build ------------------------------------------------------------------------------------------


def test_exit_codes(abf: Abf):
    target = abf.target("deb")
    source = abf.source(target)
    leave_things = 'cp *.deb "$RESULTS_PATH"; echo tried > "$RESULTS_PATH/tests.log"'
    line = f"echo about to end; {leave_things}; exit $EXTRA_CODE"
    abf.push(source, {**recipe(line), **deb("coded", "1.0")})
    expected = {0: (0, 1), 5: (11000, 1), 6: (15000, 0), 3: (666, 0)}
    builds = {code: abf.build(source, target, extra_params={"code": code}) for code in expected}
    found = {code: abf.wait_until_ended(build) for code, build in builds.items()}
    assert {code: (shown["status"], len(shown["packages"])) for code, shown in found.items()} == expected
    for build, shown in zip(builds.values(), found.values(), strict=True):
        main, *others = shown["logs"]
        assert main["file_name"] == f"abfworker::rpm-worker-{build}.log"
        answer = abf.fetch(f"{main['url']}.log?show=True")
        assert answer.text == abf.log(build) == "about to end\n"
        assert main["size"] == len(answer.content)
        assert answer.headers["content-type"].startswith("text/plain")
        assert "tests.log" in [file["file_name"] for file in others]
        assert abf.result(build, "tests.log") == "tried\n"
    for code in (6, 3):
        abf.do(builds[code], "publish", status=422)
    assert abf.publish(builds[5])["status"] == 6000
    assert "Package: coded\n" in abf.index(target)


def test_nothing_to_build(abf: Abf):
    target = abf.target("deb")
    source = abf.source(target)
    abf.push(source, {"README": "no package\n"})
    found = abf.build_and_wait(source, target, 666)
    assert abf.log(found["id"]) == "nothing can be built: there is no folder `debian` in the code\n"


def test_a_build_declares_its_packages(abf: Abf):
    target = abf.target("deb")
    source = abf.source(target)
    told = [
        {"fullname": "told_1.0_all.deb", "name": "told", "epoch": "2", "version": "1.0", "release": "3"},
        {"fullname": "told_1.0_all.deb"},
    ]
    files = {"container_data.json": json.dumps(told), **deb("told", "1.0"), **deb("kept", "1.0")}
    abf.push(source, {**recipe('cp *.deb *.json "$RESULTS_PATH"'), **files})
    found = abf.build_and_wait(source, target, 6000, auto_publish=True)
    [package] = found["packages"]
    about = [package[key] for key in ("name", "type", "epoch", "version", "release")]
    assert about == ["told", "binary", 2, "1.0", "3"]
    assert [file["file_name"] for file in found["logs"]][1:] == ["kept_1.0_all.deb"]
    assert {name for name in abf.list_folder(target.folder()) if name.endswith(".deb")} == {"told_1.0_all.deb"}


def test_a_canceled_build_is_canceling_and_then_canceled(abf: Abf):
    target = abf.target("deb")
    source = abf.source(target)
    abf.push(source, recipe("trap '' TERM; echo begun; while true; do sleep 1; done"))
    build = abf.build(source, target)
    eventually(lambda: "begun" in abf.log(build), 60)
    assert abf.status(build) == 3000
    abf.do(build, "cancel")
    assert abf.status(build) == 10000  # it ignores the signal, and is killed at the end of its grace period
    abf.do(build, "cancel", status=422)
    found = abf.wait_until_ended(build)
    assert found["status"] == 5000
    assert abf.result(build, f"abfworker::rpm-worker-{build}.log") == "begun\n"
    abf.do(build, "publish", status=422)


# -- deletion --------------------------------------------------------------------------------------------------------


def test_a_destroyed_project_leaves_nothing(abf: Abf):
    target = abf.target("deb")
    stays, goes = (ready_made(abf, target, name) for name in ("stays", "goes"))
    abf.push(goes, recipe('echo log of what goes; cp *.deb "$RESULTS_PATH"'))  # no other build has this log
    abf.build_and_wait(stays, target, 6000, auto_publish=True)
    contained = abf.create_container(abf.build_and_wait(goes, target)["id"])
    published = abf.publish(contained["id"])
    assert published["status"] == 6000
    container = abf.daemon.home / "downloads" / target.platform / "container" / str(contained["id"])
    kept = [*published["packages"], *published["logs"]]
    files = [abf.daemon.home / "files" / entry["url"].rpartition("/")[2] for entry in kept]
    assert container.is_dir()
    assert [path.is_file() for path in files] == [True, True]
    abf.call("DELETE", f"projects/{goes.project_id}")
    eventually(lambda: "Package: goes\n" not in abf.index(target))
    eventually(lambda: not container.exists())
    eventually(lambda: not any(path.exists() for path in files))
    assert "goes_1.0_all.deb" not in abf.list_folder(target.folder())
    assert "Package: stays\n" in abf.index(target)
    abf.call("GET", f"build_lists/{published['id']}", status=404)
