"""Publication: contents, replacement, recovery of lost folders."""

from __future__ import annotations

import errno
import io
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pysequoia
import pytest
from packages_support import Ground, deb, package, sha1, store_wheel, wheel
from pysequoia import Cert
from support import eventually

from polylocal.errors import StoreError
from polylocal.packages import distributions, reading, repositories
from polylocal.packages.facts import Facts
from polylocal.packages.file_store import FileStore
from polylocal.packages.repositories import FolderContent
from polylocal.packages.signing import Key, Keys
from polylocal.runner.publisher import Publisher
from polylocal.store.rows import BuildList, NewPackage, Project

from .conftest import Rig, Supervise


class Press:
    """A platform whose builds have packages in the file store."""

    def __init__(self, rig: Rig, kind: str = "pypi", **values: Any) -> None:
        self.rig = rig
        self.ground = Ground.of(rig.store, rig.user, rig.project, kind, **values)
        self.lists = rig.store.build_lists

    @property
    def file_store(self) -> FileStore:
        return self.rig.context().file_store

    def project(self, name: str) -> Project:
        made = self.rig.store.projects.create(self.rig.user, {"name": name})
        self.rig.store.platforms.add_project(self.ground.repository, made)
        return made

    def complete(self, *packages: NewPackage, **values: Any) -> BuildList:
        return self.ground.end(self.ground.queue(**values), 0, *packages)

    def waiting(self, *packages: NewPackage, **values: Any) -> BuildList:
        """A build that waits for its publication."""
        made = self.complete(*packages, **values)
        assert self.lists.publish(made, self.rig.user, again=False)
        return self.ground.again(made)

    def wheel(self, name: str, version: str = "1") -> NewPackage:
        return store_wheel(self.file_store, name, version)

    def publish(self) -> None:
        """Publish with a new daemon."""
        publisher = Publisher(self.rig.context())
        if publisher.is_due():
            publisher.publish()

    def status(self, *found: BuildList) -> list[int]:
        return [self.ground.again(build_list).status for build_list in found]

    def folder(self, arch: str = "x86_64", sub: str = "release") -> Path:
        downloads = self.rig.settings.folders.downloads
        name = self.ground.repository.name
        return repositories.folder(downloads, "cocos", "cocos", is_personal=False, arch=arch, name=name, sub=sub)

    def container(self, made: BuildList, arch: str = "x86_64") -> Path:
        return repositories.container(self.rig.settings.folders.downloads, "cocos", made.id, arch=arch, name="main")

    def results(self, made: BuildList) -> list[tuple[str, str]]:
        """The names and the contents of the results."""
        found = []
        for result in self.lists.results(made):
            path = self.file_store.path(result.sha1)
            found.append((result.file_name, path.read_text() if path else ""))
        return found


@pytest.fixture
def press(rig: Rig) -> Press:
    return Press(rig)


def lying(folder: Path) -> set[str]:
    """The packages in a folder, without indexes."""
    return {path.name for path in folder.iterdir() if path.suffix in (".whl", ".gz", ".deb", ".dsc", ".xz")} - {
        "Packages.gz",
        "Sources.gz",
    }


def file(name: str, version: str = "1") -> str:
    return f"{name}-{version}-py3-none-any.whl"


# -- into repositories -----------------------------------------------------------------------------------------------


def test_a_build_is_published(press: Press) -> None:
    source = press.wheel("src")
    made = press.waiting(press.wheel("a"), as_source(source, "2.0", "3"))
    press.publish()
    found = press.ground.again(made)
    assert (found.status, found.published_into) == (6000, "release")
    assert found.package_version == "cocos-2.0-3"
    assert lying(press.folder()) == {file("a")}
    assert lying(press.folder("SRPMS")) == {file("src")}
    assert (press.folder() / "simple" / "a" / "index.html").is_file()
    assert not Publisher(press.rig.context()).is_due()


def as_source(found: NewPackage, version: str, release: str) -> NewPackage:

    return replace(found, type="source", version=version, release=release)


def test_debian_packages_are_published_for_apt(rig: Rig) -> None:
    press = Press(rig, "deb")
    made = press.waiting(shelved_deb(press))
    press.publish()
    assert press.ground.again(made).package_version == "cocos-1.0-1"
    assert lying(press.folder()) == {"hello_1.0-1_all.deb"}
    assert "Package: hello\n" in (press.folder() / "Packages").read_text()
    assert lying(press.folder("SRPMS")) == set()


def test_a_package_is_read_for_the_first_publication_alone(press: Press, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of a publication depends on its new packages, not on existing ones."""
    read: list[str] = []
    real = reading.facts

    def facts(path: Path, file_name: str) -> Facts:
        read.append(file_name)
        return real(path, file_name)

    monkeypatch.setattr(reading, "facts", facts)
    for name in ("a", "b", "c"):
        press.waiting(press.wheel(name), project=press.project(name))
        press.publish()
    assert read == [file("a"), file("b"), file("c")]
    assert lying(press.folder()) == {file("a"), file("b"), file("c")}
    assert len(list((press.folder() / "pool").iterdir())) == 3


def test_what_is_known_of_a_file_goes_with_it(press: Press) -> None:
    found = press.wheel("a")
    press.waiting(found)
    press.publish()
    store = press.rig.store
    assert set(store.file_facts.get([found.sha1])) == {(found.sha1, "whl")}
    project = press.rig.project
    store.projects.delete(project)
    for run in store.queue.deleted():
        store.runs.remove(run)
    store.files.remove_unused()
    assert store.file_facts.get([found.sha1]) == {}


def test_a_repository_is_signed_by_the_key_of_its_platform(rig: Rig) -> None:
    press = Press(rig, "deb")
    press.waiting(shelved_deb(press))
    press.publish()
    key = rig.settings.folders.signing / "cocos.asc"
    assert key.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE KEY" in key.read_text()
    public = (rig.settings.folders.downloads / "cocos" / "key.asc").read_text()
    assert "PRIVATE" not in public
    signed = (press.folder() / "InRelease").read_bytes()
    [by] = verified(signed, public)
    assert by == Keys(rig.settings.folders.signing).get("cocos", "deb").fingerprint
    release = (press.folder() / "Release").read_text()
    assert release.rstrip() in signed.decode()
    for line in ("Origin: polylocal", "Suite: release", "Codename: cocos", "Architectures: all amd64"):
        assert f"{line}\n" in release


def test_a_yanked_package_stays_and_is_marked(press: Press) -> None:
    made = press.waiting(press.wheel("a"))
    press.publish()
    page = press.folder() / "simple" / "a" / "index.html"
    assert "data-yanked" not in page.read_text()
    press.lists.yank(made, "it eats files")
    press.publish()
    assert 'data-yanked="it eats files"' in page.read_text()
    assert lying(press.folder()) == {file("a")}


def test_the_key_is_made_once(press: Press) -> None:
    press.waiting(press.wheel("a"))
    press.publish()
    key = (press.rig.settings.folders.signing / "cocos.asc").read_text()
    press.waiting(press.wheel("a", "2"))
    press.publish()
    assert (press.rig.settings.folders.signing / "cocos.asc").read_text() == key


@pytest.mark.parametrize(
    "content",
    [b"no key", b"", b"\xff\xfe\0", Key.generate("cocos", "pypi").public.encode(), None],
    ids=["text", "empty", "binary", "public", "folder"],
)
def test_a_key_that_is_no_key_publishes_nothing_and_stays(press: Press, content: bytes | None) -> None:
    path = press.rig.settings.folders.signing / "cocos.asc"
    path.parent.mkdir()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    made = press.waiting(press.wheel("a"))
    press.publish()
    assert press.status(made) == [8000]
    [(_, words)] = press.results(made)
    assert words.startswith("The file signing/cocos.asc in the home folder of the daemon is not an OpenPGP secret key")
    assert words.count("\n") == 1  # no backtrace, and nothing of where the home folder lies
    assert str(press.rig.settings.folders.root) not in words
    assert (None if path.is_dir() else path.read_bytes()) == content


def test_what_the_last_publication_had_stays_for_its_readers(press: Press) -> None:
    press.waiting(press.wheel("a", "1"))
    press.publish()
    before = Path(press.folder().readlink())
    known = {f"pool/{path.name}/{file('a')}" for path in (press.folder() / "pool").iterdir()}
    press.waiting(press.wheel("a", "2"))
    press.publish()
    assert not (press.folder().parent / before).exists()
    for path in known:
        assert not (press.folder() / path).exists()
        [found] = [left for left in repositories.leftovers(press.folder() / path) if left.exists()]
        assert found.read_bytes() == wheel("a", "1")


def test_what_is_withdrawn_goes_at_once(press: Press) -> None:
    press.waiting(press.wheel("a", "1"))
    press.publish()
    [known] = list((press.folder() / "pool").glob("*/*.whl"))
    press.rig.store.platforms.remove_project(press.ground.repository, press.rig.project)
    press.publish()
    assert lying(press.folder()) == set()
    assert not known.exists()
    path = press.folder() / known.relative_to(press.folder())
    assert not any(left.exists() for left in repositories.leftovers(path))


@pytest.mark.parametrize("is_other_waiting", [False, True])
def test_what_is_withdrawn_is_not_left_for_readers_of_earlier_indexes(press: Press, is_other_waiting: bool) -> None:
    """Neither its last version nor earlier ones, whatever is published later. Versions of other projects are left."""
    other = press.project("other")
    for version in ("1", "2"):
        press.waiting(press.wheel("a", version))
        press.waiting(press.wheel("b", version), project=other)
        press.publish()
    assert served(press) == {file("a", "1"), file("a", "2"), file("b", "1"), file("b", "2")}
    if is_other_waiting:
        press.waiting(press.wheel("b", "3"), project=other)
    press.rig.store.platforms.remove_project(press.ground.repository, press.rig.project)
    press.publish()
    assert served(press) == {file("b", version) for version in (["1", "2", "3"] if is_other_waiting else ["1", "2"])}


def served(press: Press) -> set[str]:
    """The packages that a client gets by their paths in the pool, of the repository or of its earlier generations."""
    left = press.folder().with_name(".release.left")
    return {path.name for root in (press.folder(), *left.glob("*")) for path in root.glob("pool/*/*.whl")}


def test_leftovers_that_can_not_be_removed_hold_no_publication_back(
    press: Press, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    press.folder().with_name(".release.left").mkdir(parents=True)
    monkeypatch.setattr(repositories, "remove_expired_leftovers", refuse)
    made = press.waiting(press.wheel("a"))
    press.publish()
    assert press.status(made) == [6000]
    assert lying(press.folder()) == {file("a")}


def test_a_public_key_that_can_not_be_written_publishes_nothing(press: Press) -> None:
    (press.rig.settings.folders.downloads / "cocos" / repositories.KEY).mkdir(parents=True)
    made = press.waiting(press.wheel("a"))
    press.publish()
    assert press.status(made) == [8000]
    assert not press.folder().exists()


def test_leftovers_go_when_their_time_is_over(press: Press, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher(press.rig.context())
    for version in ("1", "2"):
        press.waiting(press.wheel("a", version))
        assert publisher.is_due()
        publisher.publish()
    left = press.folder().with_name(".release.left")
    assert left.is_dir()
    assert not publisher.is_due()
    now = time.time(), time.monotonic()
    later = repositories.KEEP_READABLE_S + 2 * repositories.SLOT_S
    monkeypatch.setattr(time, "time", lambda: now[0] + later)
    monkeypatch.setattr(time, "monotonic", lambda: now[1] + later)
    assert publisher.is_due()
    publisher.publish()
    assert not left.exists()
    assert not publisher.is_due()


def shelved_deb(press: Press) -> NewPackage:
    content = deb("hello", "1.0-1")
    path = press.file_store.folder / sha1(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return package("hello", "1.0", content, file_name="hello_1.0-1_all.deb", release="1")


def verified(signed: bytes, public: str) -> list[str]:
    """The fingerprints of the keys that have signed a text, all of them good. Raises what the library raises."""
    certificate = Cert.from_bytes(public.encode())
    found = pysequoia.verify(signed, store=lambda names: [certificate])
    return [certificate.fingerprint for _ in found.valid_sigs]


def test_a_build_without_packages_takes_nothing_away(press: Press) -> None:
    press.waiting(press.wheel("a"))
    press.publish()
    made = press.waiting()
    press.publish()
    assert press.status(made) == [8000]
    assert lying(press.folder()) == {file("a")}


def test_all_that_waits_is_published_together(press: Press) -> None:
    made = [press.waiting(press.wheel(name), project=press.project(name)) for name in ("a", "b", "c")]
    press.publish()
    assert press.status(*made) == [6000] * 3
    assert lying(press.folder()) == {file("a"), file("b"), file("c")}


def test_the_next_version_takes_the_place_of_the_one_before(press: Press) -> None:
    other = press.waiting(press.wheel("other"), project=press.project("other"))
    first = press.waiting(press.wheel("a", "1"), press.wheel("dropped"))
    press.publish()
    second = press.waiting(press.wheel("a", "2"))
    press.publish()
    assert press.status(other, first, second) == [6000] * 3
    assert lying(press.folder()) == {file("a", "2"), file("other")}


def test_of_two_that_wait_for_the_same_place_the_later_has_it(press: Press) -> None:
    first, second = (press.waiting(press.wheel("a", version)) for version in ("1", "2"))
    press.publish()
    assert press.status(first, second) == [6000, 6000]
    assert [found.id for found in press.lists.published(press.ground.repository.id)] == [second.id]
    assert lying(press.folder()) == {file("a", "2")}


def test_architectures_have_folders_of_their_own_and_share_their_sources(press: Press) -> None:
    arch = press.rig.store.platforms.arches(["aarch64"])[0]
    press.waiting(press.wheel("a"), as_source(press.wheel("src1"), "1", ""))
    press.waiting(press.wheel("b"), as_source(press.wheel("src2"), "1", ""), arch_id=arch.id)
    press.publish()
    assert lying(press.folder()) == {file("a")}
    assert lying(press.folder("aarch64")) == {file("b")}
    assert lying(press.folder("SRPMS")) == {file("src1"), file("src2")}


@pytest.mark.slow
def test_a_personal_platform_has_a_folder_for_each_that_is_built_for(press: Press) -> None:
    platforms = press.rig.store.platforms
    own = platforms.repositories([platforms.by_name("root_personal").id])[0]
    platforms.add_project(own, press.rig.project)
    made = press.waiting(press.wheel("a"), save_to_repository_id=own.id)
    press.publish()
    assert press.status(made) == [6000]
    root = press.rig.settings.folders.downloads / "root_personal" / "repository" / "cocos"
    assert lying(root / "x86_64" / "main" / "release") == {file("a")}


def test_a_released_platform_gets_updates_and_keeps_its_release(press: Press) -> None:
    first = press.waiting(press.wheel("a", "1"))
    press.publish()
    before = press.folder().readlink()
    press.rig.store.platforms.update(press.ground.platform, {"released": True})
    second = press.waiting(press.wheel("a", "2"))
    press.publish()
    assert press.status(first, second) == [6000, 6000]
    assert press.ground.again(second).published_into == "updates"
    assert press.folder().readlink() == before
    assert lying(press.folder()) == {file("a", "1")}
    assert lying(press.folder(sub="updates")) == {file("a", "2")}
    press.waiting(press.wheel("a", "3"))
    press.publish()
    assert lying(press.folder(sub="updates")) == {file("a", "3")}
    assert press.folder().readlink() == before


# -- what goes wrong -------------------------------------------------------------------------------------------------


def broken(press: Press, name: str) -> NewPackage:
    """A file in the file store that is not a wheel."""
    path = press.file_store.folder / sha1(f"{name} 1".encode())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"{name} 1".encode())
    return package(name, "1", file_name=file(name))


def test_one_that_is_broken_fails_alone(press: Press) -> None:
    good = press.waiting(press.wheel("a"), project=press.project("a"))
    bad = press.waiting(broken(press, "b"), project=press.project("b"))
    late = press.waiting(press.wheel("c"), project=press.project("c"))
    press.publish()
    assert press.status(good, bad, late) == [6000, 8000, 6000]
    assert lying(press.folder()) == {file("a"), file("c")}
    [(name, words)] = press.results(bad)
    assert name == f"abfworker::publish-worker-{bad.id}.log"
    assert file("b") in words
    assert press.ground.again(bad).published_into is None


def test_what_failed_may_be_published_again(press: Press) -> None:
    found = press.wheel("a")
    path = press.file_store.folder / found.sha1
    whole = path.read_bytes()
    path.write_bytes(b"spoilt")
    made = press.waiting(found)
    press.publish()
    assert press.status(made) == [8000]
    path.write_bytes(whole)
    assert press.lists.publish(made, press.rig.user, again=False)
    press.publish()
    assert press.status(made) == [6000]
    assert lying(press.folder()) == {file("a")}


def test_a_file_with_another_content_than_its_sha1_is_not_published(press: Press) -> None:
    """Not even if it is a readable package, since an index would list it."""
    found = press.wheel("a")
    (press.file_store.folder / found.sha1).write_bytes(wheel("a", "1", Summary="another one"))
    made = press.waiting(found)
    press.publish()
    assert press.status(made) == [8000]
    assert f"{file('a')} is damaged" in press.results(made)[0][1]
    assert not press.folder().exists()


def test_a_failure_leaves_the_version_before_where_it_was(press: Press) -> None:
    first = press.waiting(press.wheel("a", "1"))
    press.publish()
    before = press.folder().readlink()
    second = press.waiting(broken(press, "a"))
    press.publish()
    assert press.status(first, second) == [6000, 8000]
    assert press.folder().readlink() == before
    assert [found.id for found in press.lists.published(press.ground.repository.id)] == [first.id]


def test_what_lost_its_files_is_told_apart(press: Press) -> None:
    lost = press.wheel("lost")
    made, good = press.waiting(lost, project=press.project("lost")), press.waiting(press.wheel("a"))
    press.file_store.remove(lost.sha1)
    press.publish()
    assert press.status(made, good) == [777, 6000]
    assert press.results(made)[0][1] == f"the file store has lost {file('lost')}\n"
    assert lying(press.folder()) == {file("a")}


def test_what_is_published_already_and_lost_holds_nobody_else_back(press: Press) -> None:
    lost = press.wheel("lost")
    press.waiting(lost, project=press.project("lost"))
    press.publish()
    press.file_store.remove(lost.sha1)
    made = press.waiting(press.wheel("a"))
    press.publish()
    assert press.status(made) == [6000]
    assert file("a") in lying(press.folder())


def test_what_is_published_already_and_no_package_to_a_newer_reader_holds_nobody_else_back(
    press: Press, caplog: pytest.LogCaptureFixture
) -> None:
    old = press.wheel("old")
    press.waiting(old, project=press.project("old"))
    press.publish()
    (press.file_store.folder / old.sha1).write_bytes(b"spoilt since")
    made = press.waiting(press.wheel("a"))
    press.publish()
    assert press.status(made) == [6000]
    assert file("a") in lying(press.folder())
    assert not (press.folder() / "simple" / "old").exists()
    assert f"{file('old')} is left out of the index" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE, errno.ENOMEM])
def test_a_machine_in_trouble_says_nothing_of_a_package(
    press: Press, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(path: Path) -> None:
        raise OSError(number, os.strerror(number))

    made = press.waiting(press.wheel("a"))
    with monkeypatch.context() as patched:
        patched.setattr(distributions.zipfile, "ZipFile", fail)
        press.publish()
    assert press.status(made) == [7000]
    press.publish()
    assert press.status(made) == [6000]


def test_a_project_that_left_meanwhile_is_not_published(press: Press) -> None:
    made = press.waiting(press.wheel("a"))
    press.rig.store.platforms.remove_project(press.ground.repository, press.rig.project)
    press.publish()
    assert press.status(made) == [8000]
    assert press.results(made)[0][1] == "the project is not in the repository cocos/main any more\n"
    assert not press.folder().exists()


def test_a_locked_repository_is_left_alone(press: Press) -> None:
    platforms = press.rig.store.platforms
    other = platforms.add_repository(press.ground.platform, {"name": "contrib"})
    free = press.rig.store.projects.create(press.rig.user, {"name": "free"})
    platforms.add_project(other, free)
    locked = platforms.update_repository(press.ground.repository, {"is_locked": True})
    held = press.waiting(press.wheel("a"))
    goes = press.waiting(press.wheel("b"), project=free, save_to_repository_id=other.id)
    press.publish()
    assert press.status(held, goes) == [7000, 6000]
    assert not press.folder().exists()
    platforms.update_repository(locked, {"is_locked": False})
    press.publish()
    assert press.status(held) == [6000]


def test_a_full_disk_fails_nothing(press: Press, monkeypatch: pytest.MonkeyPatch) -> None:
    made = press.waiting(press.wheel("a"))
    contained = press.complete(press.wheel("b"))
    assert press.lists.request_container(contained)

    def full(shelves: Any, facts_of: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(repositories, "write", full)
        press.publish()
    assert press.status(made) == [7000]
    assert press.ground.again(contained).container_status == 7000
    press.publish()
    assert press.status(made) == [6000]
    assert press.ground.again(contained).container_status == 6000


FOREIGN = {"x_1_all.deb": "binary", "x-1.x86_64.rpm": "binary", "x-1.src.rpm": "source", "x_1.dsc": "source"}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_package_of_another_kind_stops_nobody(press: Press, name: str) -> None:
    """It is in the folder, but not in pip's index."""
    odd = press.project("odd")
    made = press.waiting(stray(press, name), project=odd, auto_create_container=True)
    other = press.waiting(press.wheel("a"))
    press.publish()
    assert press.status(made, other) == [6000, 6000]
    assert press.ground.again(made).container_status == 6000
    below = "x86_64" if FOREIGN[name] == "binary" else "SRPMS"
    for folder in (press.folder(below), press.container(made, below)):
        assert (folder / name).is_file()
        assert "x" not in {path.name for path in (folder / "simple").iterdir()}
    assert lying(press.folder()) >= {file("a")}


def stray(press: Press, name: str, content: bytes = b"of another kind") -> NewPackage:
    """A file in the file store with any name."""
    press.file_store.save(io.BytesIO(content))
    return package("x", "1", content, file_name=name, type=FOREIGN.get(name, "binary"))


class Odd(Exception):
    """An unexpected error."""


@pytest.fixture
def odd_ones(monkeypatch: pytest.MonkeyPatch) -> dict[str, Exception]:
    """Replaces the writing of a folder with a file of this name; None: of any folder."""
    found: dict[str, Exception] = {}
    real = repositories.write

    def write(shelves: Sequence[FolderContent], facts_of: Any) -> None:
        for name, error in found.items():
            if any(name in shelf.files for shelf in shelves):
                raise error
        real(shelves, facts_of)

    monkeypatch.setattr(repositories, "write", write)
    return found


def test_whatever_goes_wrong_with_a_container_goes_wrong_with_it_alone(
    press: Press, odd_ones: dict[str, Exception]
) -> None:
    odd_ones[file("bad")] = Odd("odd words")
    bad, good = press.complete(press.wheel("bad")), press.complete(press.wheel("good"))
    waits = press.waiting(press.wheel("a"))
    for made in (bad, good):
        assert press.lists.request_container(made)
    press.publish()
    assert [press.ground.again(made).container_status for made in (bad, good)] == [8000, 6000]
    assert press.results(bad)[0][1] == "odd words\n"
    assert press.status(waits) == [6000]


def test_whatever_goes_wrong_with_writing_anew_stops_no_other_repository(
    press: Press, odd_ones: dict[str, Exception]
) -> None:
    platforms, leaving = press.rig.store.platforms, press.project("leaving")
    press.waiting(press.wheel("bad"))
    press.waiting(press.wheel("gone"), project=leaving)
    second = platforms.add_repository(press.ground.platform, {"name": "second"})
    other = press.rig.store.projects.create(press.rig.user, {"name": "other"})
    platforms.add_project(second, other)
    press.waiting(press.wheel("kept"), project=other, save_to_repository_id=second.id)
    press.publish()
    shutil.rmtree(press.rig.settings.folders.downloads)
    platforms.remove_project(press.ground.repository, leaving)
    odd_ones[file("bad")] = Odd("odd words")
    press.publish()
    assert press.lists.stale_repositories() == [press.ground.repository.id]
    assert file("kept") in {path.name for path in press.rig.settings.folders.downloads.rglob("*.whl")}
    odd_ones.clear()
    press.publish()
    assert press.lists.stale_repositories() == []
    assert lying(press.folder()) == {file("bad")}


def test_a_store_that_can_not_be_asked_is_no_fault_of_a_package(press: Press, odd_ones: dict[str, Exception]) -> None:
    """No error is reported; it is published when the store answers again."""
    odd_ones[file("a")] = StoreError("locked")
    contained = press.complete(press.wheel("a"))
    assert press.lists.request_container(contained)
    with pytest.raises(StoreError, match="locked"):
        press.publish()
    assert (press.ground.again(contained).container_status, press.results(contained)) == (7000, [])
    odd_ones.clear()
    made = press.waiting(press.wheel("a"))
    press.publish()
    shutil.rmtree(press.folder().parent)
    odd_ones[file("a")] = StoreError("locked")
    with pytest.raises(StoreError, match="locked"):
        press.publish()
    assert press.lists.stale_repositories() == [press.ground.repository.id]
    odd_ones.clear()
    press.publish()
    assert press.status(made) == [6000]
    assert lying(press.folder()) == {file("a")}


# -- of two projects -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("are_together", [False, True])
def test_of_two_projects_files_of_one_name_the_first_stays(press: Press, are_together: bool) -> None:
    """Otherwise the other file would be lost silently."""
    mine = press.waiting(stray(press, "x-1.rpm", b"mine"))
    if not are_together:
        press.publish()
    theirs = press.waiting(stray(press, "x-1.rpm", b"theirs"), project=press.project("other"))
    third = press.waiting(press.wheel("c"), project=press.project("third"))
    press.publish()
    assert press.status(mine, theirs, third) == [6000, 8000, 6000]
    assert (press.folder() / "x-1.rpm").read_bytes() == b"mine"
    words = "another project has published another x-1.rpm in this repository\n"
    assert press.results(theirs) == [(f"abfworker::publish-worker-{theirs.id}.log", words)]
    press.rig.store.platforms.remove_project(press.ground.repository, press.rig.project)
    assert press.lists.publish(theirs, press.rig.user, again=False)
    press.publish()
    assert press.status(theirs) == [6000]
    assert (press.folder() / "x-1.rpm").read_bytes() == b"theirs"


def test_two_that_lie_there_already_stop_no_third(press: Press) -> None:
    """From an older version that did not refuse them: the last one has the name."""
    press.ground.mark_published(press.complete(stray(press, "x-1.rpm", b"mine")))
    press.ground.mark_published(press.complete(stray(press, "x-1.rpm", b"theirs"), project=press.project("other")))
    press.rig.store.build_lists.set_stale(press.ground.repository.id)
    third = press.waiting(press.wheel("c"), project=press.project("third"))
    press.publish()
    assert press.status(third) == [6000]
    assert (press.folder() / "x-1.rpm").read_bytes() == b"theirs"
    assert press.rig.store.build_lists.stale_repositories() == []


def test_sources_and_others_of_one_name_lie_in_folders_of_their_own(press: Press) -> None:
    binary = stray(press, "y-1.rpm", b"binary")
    mine = press.waiting(binary)
    theirs = press.waiting(as_source(stray(press, "y-1.rpm", b"source"), "1", ""), project=press.project("other"))
    press.publish()
    assert press.status(mine, theirs) == [6000, 6000]


def test_the_same_file_of_two_projects_is_no_matter(press: Press) -> None:
    made = [press.waiting(press.wheel("a"), project=press.project(name)) for name in ("first", "second")]
    press.publish()
    assert press.status(*made) == [6000, 6000]
    press.rig.store.platforms.remove_project(press.ground.repository, press.rig.store.projects.get("root", "first"))
    press.publish()
    assert lying(press.folder()) == {file("a")}


def test_sources_of_one_project_take_each_others_place_whatever_they_are_built_for(press: Press) -> None:
    """Two builds of one commit pack it twice, with different times."""
    arch = press.rig.store.platforms.arches(["aarch64"])[0]
    first = press.waiting(stray(press, "x-1.src.rpm", b"first"))
    press.publish()
    second = press.waiting(stray(press, "x-1.src.rpm", b"second"), arch_id=arch.id)
    press.publish()
    assert press.status(first, second) == [6000, 6000]
    assert (press.folder("SRPMS") / "x-1.src.rpm").read_bytes() == b"second"


# -- taken back ------------------------------------------------------------------------------------------------------


def test_what_is_rejected_leaves_the_repository_that_it_lies_in(press: Press) -> None:
    """From an older version that accepted it."""
    press.waiting(press.wheel("b"), project=press.project("other"))
    mine = press.wheel("a")
    made = press.waiting(mine, as_source(press.wheel("src"), "1", ""))
    press.publish()
    (press.file_store.folder / mine.sha1).unlink()
    (press.file_store.folder / mine.sha1).write_bytes(b"spoilt since")
    assert press.lists.publish(made, press.rig.user, again=True)
    press.publish()
    assert press.status(made) == [8000]
    assert lying(press.folder()) == {file("a"), file("b")}
    assert press.lists.reject(made, press.rig.user)
    press.publish()
    assert (press.ground.again(made).status, press.ground.again(made).published_into) == (9000, None)
    assert lying(press.folder()) == {file("b")}
    assert lying(press.folder("SRPMS")) == set()
    assert not Publisher(press.rig.context()).is_due()


# -- again and again -------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process was killed."""


@pytest.mark.parametrize("survives", [0, 1, 2])
def test_a_crash_before_it_could_be_told_does_it_again(
    press: Press, monkeypatch: pytest.MonkeyPatch, survives: int
) -> None:
    made = [press.waiting(press.wheel(name), project=press.project(name)) for name in ("a", "b", "c")]
    real, told = press.lists.set_published, []

    def die(build_list: BuildList, into: str, package_version: str | None) -> bool:
        if len(told) == survives:
            raise Killed
        told.append(build_list.id)
        return real(build_list, into, package_version)

    with monkeypatch.context() as patched:
        patched.setattr(press.lists, "set_published", die)
        with pytest.raises(Killed):
            press.publish()
    assert press.status(*made) == [6000] * survives + [7000] * (3 - survives)
    assert lying(press.folder()) == {file("a"), file("b"), file("c")}
    press.publish()
    assert press.status(*made) == [6000] * 3
    assert lying(press.folder()) == {file("a"), file("b"), file("c")}
    assert len(list(press.folder().parent.iterdir())) == 2


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_project_that_leaves_after_such_a_crash_leaves_nothing(
    press: Press, monkeypatch: pytest.MonkeyPatch, is_deleted: bool
) -> None:
    def die(*about: object) -> bool:
        raise Killed

    other = press.waiting(press.wheel("b"), project=press.project("other"))
    press.publish()
    press.waiting(press.wheel("a"))
    with monkeypatch.context() as patched:
        patched.setattr(press.lists, "set_published", die)
        with pytest.raises(Killed):
            press.publish()
    assert lying(press.folder()) == {file("a"), file("b")}
    if is_deleted:
        press.rig.store.projects.delete(press.rig.project)
    else:
        press.rig.store.platforms.remove_project(press.ground.repository, press.rig.project)
    press.publish()
    assert press.status(other) == [6000]
    assert lying(press.folder()) == {file("b")}


def test_a_project_that_leaves_takes_its_packages_along(press: Press) -> None:
    other = press.project("other")
    press.waiting(press.wheel("a"), as_source(press.wheel("src"), "1", ""))
    press.waiting(press.wheel("b"), project=other)
    press.publish()
    press.rig.store.platforms.remove_project(press.ground.repository, press.rig.project)
    press.publish()
    assert lying(press.folder()) == {file("b")}
    assert lying(press.folder("SRPMS")) == set()
    assert not Publisher(press.rig.context()).is_due()


def test_the_last_project_that_leaves_leaves_empty_folders(press: Press) -> None:
    press.waiting(press.wheel("a"))
    press.publish()
    press.rig.store.projects.delete(press.rig.project)
    press.publish()
    assert lying(press.folder()) == set()
    assert (press.folder() / "simple" / "index.html").is_file()
    assert not press.rig.store.build_lists.stale_repositories()


def test_lost_folders_are_made_again_by_the_next_daemon(press: Press) -> None:
    press.waiting(press.wheel("a"))
    contained = press.complete(press.wheel("b"))
    assert press.lists.request_container(contained)
    press.publish()
    press.rig.store.platforms.update(press.ground.platform, {"released": True})
    press.waiting(press.wheel("a", "2"))
    press.publish()
    shutil.rmtree(press.rig.settings.folders.downloads)
    press.publish()
    assert lying(press.folder()) == {file("a")}
    assert lying(press.folder(sub="updates")) == {file("a", "2")}
    assert press.ground.again(contained).container_status == 6000
    assert lying(press.container(contained)) == {file("b")}
    assert not Publisher(press.rig.context()).is_due()


def test_lost_sources_are_made_again_too(press: Press) -> None:
    press.waiting(press.wheel("a"), as_source(press.wheel("src"), "1", ""))
    press.publish()
    shutil.rmtree(press.folder("SRPMS").parent)
    press.publish()
    assert lying(press.folder("SRPMS")) == {file("src")}


def test_what_is_there_is_left_as_it_is(press: Press) -> None:
    press.waiting(press.wheel("a"))
    press.publish()
    before = press.folder().readlink()
    press.publish()
    assert press.folder().readlink() == before


# -- containers ------------------------------------------------------------------------------------------------------


def test_a_container_holds_the_packages_of_one_build(press: Press) -> None:
    made = press.complete(press.wheel("a"), as_source(press.wheel("src"), "1", ""))
    assert press.lists.request_container(made)
    press.publish()
    found = press.ground.again(made)
    assert (found.status, found.container_status) == (0, 6000)
    assert lying(press.container(made)) == {file("a")}
    assert lying(press.container(made, "SRPMS")) == {file("src")}
    assert not press.folder().exists()


def test_a_container_stays_when_its_build_is_published_or_rejected(press: Press) -> None:
    for act in (publish_it, reject_it):
        made = press.complete(press.wheel(act.__name__))
        assert press.lists.request_container(made)
        press.publish()
        act(press, made)
        press.publish()
        assert press.ground.again(made).container_status == 6000
        assert lying(press.container(made)) == {file(act.__name__)}


def publish_it(press: Press, made: BuildList) -> None:
    assert press.lists.publish(made, press.rig.user, again=False)


def reject_it(press: Press, made: BuildList) -> None:
    assert press.lists.reject(made, press.rig.user)


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_container_that_can_not_be_made_says_why(press: Press, is_lost: bool) -> None:
    found = broken(press, "a")
    if is_lost:
        press.file_store.remove(found.sha1)
    made = press.complete(found)
    good = press.complete(press.wheel("b"))
    assert press.lists.request_container(made)
    assert press.lists.request_container(good)
    press.publish()
    assert (press.ground.again(made).status, press.ground.again(made).container_status) == (0, 8000)
    assert file("a") in press.results(made)[0][1]
    assert press.ground.again(good).container_status == 6000
    assert not press.container(made).exists()


# -- by the supervisor -----------------------------------------------------------------------------------------------


def test_the_supervisor_publishes_what_waits(press: Press, supervise: Supervise) -> None:
    made = press.waiting(press.wheel("a"))
    supervise(lambda: press.status(made) == [6000])
    later = press.waiting(press.wheel("a", "2"))
    supervise(lambda: press.status(later) == [6000])
    assert lying(press.folder()) == {file("a", "2")}
    eventually(lambda: not Publisher(press.rig.context()).is_due())
