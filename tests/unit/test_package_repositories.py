"""Repository folders: exact contents, atomic replacement, and no change that a reader could notice."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packages_support import deb, dsc, make_tar, make_zip, metadata, sdist, wheel

from polylocal.errors import PackageError
from polylocal.files.folders import remove_tree
from polylocal.packages import repositories
from polylocal.packages.file_store import FileStore
from polylocal.packages.repositories import FolderContent, write
from polylocal.packages.signing import Key

Keep = Callable[[bytes], Path]
SIMPLE = {"simple"}  # created beside the files
FLAT = {"Packages", "Packages.gz", "Release", "by-hash"}
PAGES = {"index.html", "index.json"}


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    return keeper(tmp_path / "files")


def keeper(folder: Path) -> Keep:
    file_store = FileStore(folder)
    return lambda content: folder / file_store.save(io.BytesIO(content)).sha1


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "cocos" / "repository" / "x86_64" / "main" / "release"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def around(place: Path) -> set[str]:
    """The siblings of a link: the link and the folder that it points to, without files of earlier generations."""
    return names(place.parent) - {f".{place.name}.left"}


def in_pool(place: Path, name: str) -> str:
    """The path of the file that the index lists."""
    return f"pool/{hashlib.sha1((place / name).read_bytes()).hexdigest()}/{name}"


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[dict[str, str | None], str]] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag == "a"
        if self._open:
            self.found.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self._open:
            self.found[-1] = (self.found[-1][0], self.found[-1][1] + data)

    def handle_endtag(self, tag: str) -> None:
        self._open = False


def links(path: Path) -> list[tuple[dict[str, str | None], str]]:
    parser = Links()
    parser.feed(path.read_text())
    return parser.found


# -- paths -----------------------------------------------------------------------------------------------------------


def test_the_layout_is_that_of_the_documents() -> None:
    root = Path("/d")
    main = repositories.folder(root, "rosa", "rosa", is_personal=False, arch="x86_64", name="contrib", sub="updates")
    assert main == Path("/d/rosa/repository/x86_64/contrib/updates")
    own = repositories.folder(root, "ann_personal", "rosa", is_personal=True, arch="SRPMS", name="main", sub="release")
    assert own == Path("/d/ann_personal/repository/rosa/SRPMS/main/release")
    alone = repositories.container(root, "rosa", 17, arch="i586", name="main")
    assert alone == Path("/d/rosa/container/17/i586/main/release")


# -- Debian ----------------------------------------------------------------------------------------------------------


def test_a_flat_repository_for_apt(keep: Keep, place: Path) -> None:
    files = {"hello_1.0-1_all.deb": keep(deb("hello", "1.0-1")), "more_2.0_all.deb": keep(deb("more", "2.0"))}
    write([FolderContent(place, files, "deb")])
    assert names(place) == {*files, *FLAT, "pool"}
    text = (place / "Packages").read_text()
    stanzas = [dict(line.split(": ", 1) for line in part.splitlines()) for part in text.strip().split("\n\n")]
    assert [(s["Package"], s["Version"], s["Filename"]) for s in stanzas] == [
        ("hello", "1.0-1", f"./{in_pool(place, 'hello_1.0-1_all.deb')}"),
        ("more", "2.0", f"./{in_pool(place, 'more_2.0_all.deb')}"),
    ]
    for stanza in stanzas:
        content = (place / stanza["Filename"]).read_bytes()
        assert stanza["SHA256"] == hashlib.sha256(content).hexdigest()
    assert gzip.decompress((place / "Packages.gz").read_bytes()).decode() == text
    release = (place / "Release").read_text()
    assert "Label: polylocal" in release
    for name in ("Packages", "Packages.gz"):
        content = (place / name).read_bytes()
        assert (place / "by-hash" / "SHA256" / hashlib.sha256(content).hexdigest()).read_bytes() == content
        assert re.search(rf"^ {hashlib.sha256(content).hexdigest()} +{len(content)} {re.escape(name)}$", release, re.M)


def test_an_empty_repository_is_valid(place: Path) -> None:
    write([FolderContent(place, {}, "deb")])
    assert names(place) == FLAT
    assert (place / "Packages").read_bytes() == b""


def test_two_versions_of_a_package_may_lie_side_by_side(keep: Keep, place: Path) -> None:
    files = {f"hello_{version}_all.deb": keep(deb("hello", version)) for version in ("1.0-1", "2.0-1")}
    write([FolderContent(place, files, "deb")])
    assert (place / "Packages").read_text().count("Package: hello\n") == 2


def test_debian_sources_have_an_index(keep: Keep, place: Path) -> None:
    tar = b"not looked into"
    md5 = hashlib.md5(tar, usedforsecurity=False).hexdigest()
    text = dsc("hello", "1.0", "hello_1.0.tar.xz").replace(f"{'0' * 32} 1", f"{md5} {len(tar)}")
    text = text.replace("Version:", "Binary: hello\nMaintainer: A <a@b.c>\nArchitecture: all\nVersion:")
    files = {"hello_1.0.dsc": keep(text.encode()), "hello_1.0.tar.xz": keep(tar)}
    write([FolderContent(place, files, "deb")])
    assert names(place) == {*files, *FLAT, "Sources", "Sources.gz", "pool"}
    sources = (place / "Sources").read_text()
    assert "Package: hello\n" in sources
    assert f" {md5} {len(tar)} hello_1.0.tar.xz" in sources
    [directory] = re.findall("^Directory: (.*)$", sources, re.M)
    assert names(place / directory) == set(files)


def test_a_broken_package_is_not_published(keep: Keep, place: Path) -> None:
    write([FolderContent(place, {"a.deb": keep(deb("a", "1"))}, "deb")])
    before = os.readlink(place)
    with pytest.raises(PackageError, match=r"a\.deb is not a Debian package"):
        write([FolderContent(place, {"a.deb": keep(b"no package")}, "deb")])
    assert os.readlink(place) == before
    assert around(place) == {"release", before}


# -- Python ----------------------------------------------------------------------------------------------------------


def test_a_simple_index_for_pip(keep: Keep, place: Path) -> None:
    contents = {
        "Hello_World-1.0-py3-none-any.whl": wheel("Hello_World", "1.0", Requires_Python='>=3.8, <4 & "more"'),
        "hello.world-1.0.tar.gz": sdist("hello.world", "1.0"),
        "other-2+local-py3-none-any.whl": wheel("other", "2+local"),
        "data.tar.gz": gzip.compress(b"\0" * 10240),  # a tar archive without metadata is not a distribution
    }
    write([FolderContent(place, {name: keep(content) for name, content in contents.items()}, "pypi")])
    assert names(place) == {*contents, *SIMPLE, "pool"}
    assert links(place / "simple" / "index.html") == [
        ({"href": "hello-world/"}, "hello-world"),
        ({"href": "other/"}, "other"),
    ]
    assert names(place / "simple") == {*PAGES, "hello-world", "other"}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    first, second = "Hello_World-1.0-py3-none-any.whl", "hello.world-1.0.tar.gz"
    (attributes, shown), (other, _) = links(place / "simple" / "hello-world" / "index.html")
    assert (attributes["href"], shown) == (f"../../{in_pool(place, first)}#sha256={digests[first]}", first)
    assert attributes["data-requires-python"] == '>=3.8, <4 & "more"'
    metadata = (place / f"{in_pool(place, first)}.metadata").read_bytes()
    assert attributes["data-core-metadata"] == f"sha256={hashlib.sha256(metadata).hexdigest()}"
    assert other == {"href": f"../../{in_pool(place, second)}#sha256={digests[second]}"}
    third = "other-2+local-py3-none-any.whl"
    (attributes, shown) = links(place / "simple" / "other" / "index.html")[0]
    assert attributes["href"] == f"../../{in_pool(place, third).replace('+', '%2B')}#sha256={digests[third]}"
    assert shown == third


@pytest.mark.parametrize(
    ("name", "normalised"),
    [("Hello", "hello"), ("a_b", "a-b"), ("a.b", "a-b"), ("a-_.b", "a-b"), ("A__B--c", "a-b-c"), ("x1", "x1")],
)
def test_names_are_normalised(keep: Keep, place: Path, name: str, normalised: str) -> None:
    write([FolderContent(place, {"x.whl": keep(wheel(name, "1"))}, "pypi")])
    assert names(place / "simple") == {*PAGES, normalised}


@pytest.mark.parametrize("name", ['"><script>', "<b>x</b>", "a&b", "a?b#c"])
def test_the_name_of_a_distribution_is_no_markup(keep: Keep, place: Path, name: str) -> None:
    with pytest.raises(PackageError):
        write([FolderContent(place, {"x-1-py3-none-any.whl": keep(wheel_named(name))}, "pypi")])
    assert not place.exists()


@pytest.mark.parametrize("name", ["a/b", "..", ".", "../x", "simple/../../x", ""])
def test_the_name_of_a_distribution_leads_nowhere_else(keep: Keep, place: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(PackageError):
        write([FolderContent(place, {"x-1-py3-none-any.whl": keep(wheel_named(name))}, "pypi")])
    assert pages(tmp_path) == []


def test_the_name_of_a_distribution_is_no_path_from_the_root(keep: Keep, place: Path) -> None:
    outside = Path(f"/tmp/outside{os.getpid()}")  # only letters and digits, since a name is normalised
    try:
        with pytest.raises(PackageError):
            write([FolderContent(place, {"x-1-py3-none-any.whl": keep(wheel_named(str(outside)))}, "pypi")])
        assert not outside.exists()
    finally:
        remove_tree(outside)


@pytest.mark.parametrize("name", ["x.dsc", "x-1.tar.gz", "x-1-py3-none-any.whl"])
def test_no_kind_of_package_leads_out_of_an_index(keep: Keep, place: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    said = metadata(Metadata_Version="2.1", Name=str(outside), Version="1")
    contents = {
        "x.dsc": dsc(str(outside)).encode(),
        "x-1.tar.gz": make_tar({"x-1/PKG-INFO": said}),
        "x-1-py3-none-any.whl": make_zip({"x-1.dist-info/METADATA": said}),
    }
    with nullcontext() if name == "x.dsc" else pytest.raises(PackageError, match="is not the name of a Python package"):
        write([FolderContent(place, {name: keep(contents[name])}, "pypi")])
    assert not outside.exists()
    assert names(tmp_path) == {"files", "downloads"}


def test_packages_of_other_kinds_lie_beside_those_of_python(keep: Keep, place: Path) -> None:
    """A build may leave files that are not for pip. They are not read."""
    others = {"x_1_all.deb": deb("x", "1"), "x-1.rpm": b"no rpm", "x.dsc": b"nor this", "x_1.orig.tar.xz": b"\0"}
    files = {**others, "a-1-py3-none-any.whl": wheel("a", "1")}
    write([FolderContent(place, {name: keep(content) for name, content in files.items()}, "pypi")])
    assert names(place) == {*files, *SIMPLE, "pool"}
    assert names(place / "simple") == {*PAGES, "a"}


def pages(folder: Path) -> list[Path]:
    return list(folder.rglob("index.html"))


def wheel_named(name: str) -> bytes:
    return make_zip({"x-1.dist-info/METADATA": metadata(Metadata_Version="2.1", Name=name, Version="1")})


def test_a_broken_wheel_is_not_published(keep: Keep, place: Path) -> None:
    with pytest.raises(PackageError, match=r"x\.whl"):
        write([FolderContent(place, {"x.whl": keep(b"no wheel")}, "pypi")])
    assert not place.exists()
    assert names(place.parent) == set()


# -- atomic replacement ----------------------------------------------------------------------------------------------


def test_readers_get_a_link_to_a_readable_folder(keep: Keep, place: Path) -> None:
    write([FolderContent(place, {"a.whl": keep(wheel("a"))}, "pypi")])
    assert place.is_symlink()
    assert around(place) == {"release", os.readlink(place)}
    assert place.stat().st_mode & 0o777 == 0o755


@pytest.fixture
def private_umask() -> Iterator[None]:
    """The umask of a daemon with private files."""
    before = os.umask(0o077)
    yield
    os.umask(before)


CONTENTS = {
    "pypi": {"a-1-py3-none-any.whl": wheel("a", "1"), "b-1.tar.gz": sdist("b", "1")},
    "deb": {"hello_1.0-1_all.deb": deb("hello", "1.0-1")},
    "dnf": {},
}


@pytest.mark.usefixtures("private_umask")
@pytest.mark.parametrize("kind", CONTENTS)
def test_published_files_are_readable_whatever_the_umask_is(keep: Keep, place: Path, tmp_path: Path, kind: str) -> None:
    """Package managers in builds may run as any user."""
    write([FolderContent(place, {name: keep(content) for name, content in CONTENTS[kind].items()}, kind)])
    repositories.snapshot(place, tmp_path / "media" / "cocos")
    published, taken = modes(place.resolve()), modes(tmp_path / "media" / "cocos")
    assert len(published) > len(CONTENTS[kind]) + 1  # more entries than the folder and its files: indexes
    assert published == taken == {about: 0o755 if about[1] else 0o644 for about in published}


def modes(folder: Path) -> dict[tuple[str, bool], int]:
    """The modes of a folder and its content: (path, is it a folder) → mode."""
    found = [folder, *folder.rglob("*")]
    return {(str(p.relative_to(folder)), p.is_dir()): p.stat().st_mode & 0o777 for p in found}


def test_files_are_links_into_the_file_store(keep: Keep, place: Path) -> None:
    file = keep(wheel("a"))
    write([FolderContent(place, {"a.whl": file}, "pypi")])
    assert (place / "a.whl").samefile(file)


def test_an_old_version_is_replaced_and_swept(keep: Keep, place: Path) -> None:
    write([FolderContent(place, {"a-1.whl": keep(wheel("a", "1"))}, "pypi")])
    first = os.readlink(place)
    write([FolderContent(place, {"a-2.whl": keep(wheel("a", "2"))}, "pypi")])
    assert os.readlink(place) != first
    assert names(place) == {"a-2.whl", *SIMPLE, "pool"}
    assert around(place) == {"release", os.readlink(place)}


def test_a_reader_of_the_last_indexes_gets_the_files_that_they_name(keep: Keep, place: Path) -> None:
    """A file of the same name may have different content by then."""
    first, second = deb("a", "1.0"), deb("a", "1.1")
    write([FolderContent(place, {"a.deb": keep(first)}, "deb")])
    named = f"pool/{hashlib.sha1(first).hexdigest()}/a.deb"
    release, index = (place / "Release").read_text(), (place / "Packages").read_bytes()
    write([FolderContent(place, {"a.deb": keep(second)}, "deb")])
    by_hash = f"by-hash/SHA256/{hashlib.sha256(index).hexdigest()}"
    assert by_hash.rpartition("/")[2] in release
    assert not (place / named).exists()
    assert left(place, named) == [first]
    assert left(place, by_hash) == [index]


@pytest.mark.parametrize("path", ["a.deb", "Packages", "Release", "pool", "by-hash", "simple/a/index.html"])
def test_a_path_whose_content_changes_is_never_that_of_an_earlier_generation(
    keep: Keep, place: Path, path: str
) -> None:
    write([FolderContent(place, {"a.deb": keep(deb("a", "1.0"))}, "deb")])
    write([FolderContent(place, {}, "deb")])
    assert left(place, path) == []


def left(place: Path, path: str) -> list[bytes]:
    return [found.read_bytes() for found in repositories.leftovers(place / path) if found.is_file()]


def test_a_home_folder_may_lie_in_a_folder_of_any_name() -> None:
    """An example is a ZFS pool whose name looks like a folder of leftovers."""
    assert list(repositories.leftovers(Path("/pool/home/downloads/cocos/nosuch"))) == []


def test_signatures_are_for_those_who_install_and_not_for_builds(keep: Keep, place: Path, tmp_path: Path) -> None:
    """apt rejects a signature by an unknown key, even if its list of sources trusts the repository."""
    write([FolderContent(place, {"a.deb": keep(deb("a", "1.0"))}, "deb", key=Key.generate("cocos", "deb"))])
    assert {"Release", "InRelease"} <= names(place)
    repositories.snapshot(place, tmp_path / "taken")
    assert names(place) - names(tmp_path / "taken") == {"InRelease"}


def test_a_reader_of_the_old_folder_can_read_on(keep: Keep, place: Path) -> None:
    write([FolderContent(place, {"a-1.whl": keep(wheel("a", "1"))}, "pypi")])
    with (place / "a-1.whl").open("rb") as file, (place / "simple" / "a" / "index.html").open() as page:
        write([FolderContent(place, {}, "pypi")])
        assert file.read() == wheel("a", "1")
        assert "a-1.whl" in page.read()
    assert names(place) == SIMPLE


def test_leftovers_of_a_crash_are_removed_by_the_next_publication(keep: Keep, place: Path) -> None:
    place.parent.mkdir(parents=True)
    (place.parent / ".release.0123456789ab").mkdir()
    (place.parent / ".release.0123456789ab" / "half").write_text("x")
    (place.parent / ".release.link").symlink_to(".release.0123456789ab")
    (place.parent / ".updates.0123456789ab").mkdir()
    (place.parent / "updates").symlink_to(".updates.0123456789ab")
    write([FolderContent(place, {"a.whl": keep(wheel("a"))}, "pypi")])
    assert around(place) == {"release", os.readlink(place), "updates", ".updates.0123456789ab"}


def test_all_folders_or_none(keep: Keep, place: Path) -> None:
    second = place.parent.parent / "other" / "release"
    write([FolderContent(place, {"a-1.whl": keep(wheel("a", "1"))}, "pypi"), FolderContent(second, {}, "pypi")])
    before = {folder: (os.readlink(folder), around(folder)) for folder in (place, second)}
    lost = keep(wheel("b", "1"))
    lost.unlink()
    new = FolderContent(place, {"a-2.whl": keep(wheel("a", "2"))}, "pypi")
    with pytest.raises(FileNotFoundError):
        write([new, FolderContent(second, {"b-1.whl": lost}, "pypi")])
    assert {folder: (os.readlink(folder), around(folder)) for folder in (place, second)} == before
    assert names(place) == {"a-1.whl", *SIMPLE, "pool"}


@pytest.mark.parametrize("was_there", [False, True])
def test_a_link_that_can_not_be_turned_turns_the_others_back(keep: Keep, place: Path, was_there: bool) -> None:
    if was_there:
        write([FolderContent(place, {"a-1.whl": keep(wheel("a", "1"))}, "pypi")])
    before = os.readlink(place) if was_there else None
    in_the_way = place.parent.parent / "other" / "release"
    (in_the_way / "something").mkdir(parents=True)  # a folder at the path of the link
    new = FolderContent(place, {"a-2.whl": keep(wheel("a", "2"))}, "pypi")
    with pytest.raises(OSError, match="director"):
        write([new, FolderContent(in_the_way, {}, "pypi")])
    assert around(place) == ({"release", before} if was_there else set())
    assert not was_there or names(place) == {"a-1.whl", *SIMPLE, "pool"}
    assert (in_the_way / "something").is_dir()
    assert not [name for name in names(in_the_way.parent) if not name.endswith("link") and name.startswith(".")]


# a build's metadata names its files, so a file may have the name of an index
@pytest.mark.parametrize(("kind", "name"), [("deb", "Packages"), ("deb", "Release"), ("deb", "Packages.gz")])
def test_a_file_with_the_name_of_an_index_is_not_overwritten_in_the_file_store(
    keep: Keep, place: Path, kind: str, name: str
) -> None:
    file = keep(b"the content of a package")
    with pytest.raises(PackageError, match="can't be published under the file name"):
        write([FolderContent(place, {name: file}, kind)])
    assert not place.exists()
    assert file.read_bytes() == b"the content of a package"


def test_a_file_system_that_knows_no_case_does_not_mix_up_files(
    keep: Keep, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the copy would be written into the file of the other name, and thereby into the file store."""
    real = os.link

    def link(source: Path, target: Path) -> None:
        if any(path.name.lower() == target.name.lower() for path in target.parent.iterdir()):
            raise FileExistsError(errno.EEXIST, "File exists", str(target))
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    files = {"A-1-py3-none-any.whl": keep(wheel("A", "1")), "a-1-py3-none-any.whl": keep(wheel("a", "1"))}
    with pytest.raises(PackageError, match="only in upper and lower case"):
        write([FolderContent(place, files, "pypi")])
    assert files["A-1-py3-none-any.whl"].read_bytes() == wheel("A", "1")


def test_files_of_a_file_store_on_another_disk_are_copied(place: Path, tmp_path: Path) -> None:
    here = tmp_path.stat().st_dev
    folders = (Path("/dev/shm"), Path(tempfile.gettempdir()), Path("/var/tmp"))
    elsewhere = next((folder for folder in folders if folder.is_dir() and folder.stat().st_dev != here), None)
    if elsewhere is None:
        pytest.skip("this machine has one file system only")
    other = elsewhere / f"polylocal-test-{os.getpid()}"
    try:
        other.write_bytes(wheel("a"))
        write([FolderContent(place, {"a.whl": other}, "pypi")])
        assert (place / "a.whl").read_bytes() == wheel("a")
    finally:
        other.unlink(missing_ok=True)


WHEELS = {f"{name}-{version}.whl": wheel(name, version) for name in ("a", "b", "c") for version in ("1", "2")}


@settings(max_examples=25)
@given(st.lists(st.sets(st.sampled_from(sorted(WHEELS))), min_size=1, max_size=5))
def test_any_sequence_of_publications_ends_in_exactly_what_is_wanted(
    tmp_path_factory: pytest.TempPathFactory, steps: list[set[str]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    keep, place = keeper(folder / "files"), folder / "downloads" / "release"
    for wanted in steps:
        write([FolderContent(place, {name: keep(WHEELS[name]) for name in wanted}, "pypi")])
    assert content(place) == {name: WHEELS[name] for name in steps[-1]}
    projects = {name.partition("-")[0] for name in steps[-1]}
    assert names(place / "simple") == {*PAGES, *projects}
    listed = {shown for project in projects for _, shown in links(place / "simple" / project / "index.html")}
    assert listed == steps[-1]
    assert around(place) == {"release", os.readlink(place)}


def content(place: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
