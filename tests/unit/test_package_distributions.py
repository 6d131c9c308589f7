"""Python distributions: their metadata, and the index."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packages_support import make_tar, make_zip, metadata, sdist, wheel

from polylocal.errors import PackageError
from polylocal.packages import distributions
from polylocal.packages.facts import Facts, IndexedFile, digests

About = Callable[[str, bytes], Mapping[str, str]]


@pytest.fixture
def about(tmp_path: Path) -> About:
    """Read a file under a different name than the distribution's, as the file store does."""

    def found(name: str, content: bytes) -> Mapping[str, str]:
        path = tmp_path / ("a" * 40)
        path.write_bytes(content)
        return distributions.index_texts(path, name)

    return found


@pytest.fixture
def indexed(tmp_path: Path) -> Callable[..., IndexedFile]:
    def made(name: str, content: bytes, yanked: str | None = None) -> IndexedFile:
        path = tmp_path / "file"
        path.write_bytes(content)
        facts = Facts(**digests(path), size=len(content), about=distributions.index_texts(path, name))
        return IndexedFile(name, f"pool/{facts.sha1}/{name}", facts, yanked)

    return made


def with_metadata(content: bytes) -> bytes:
    return make_zip({"x-1.dist-info/METADATA": content})


# -- reading ---------------------------------------------------------------------------------------------------------


def test_the_facts_of_a_wheel_for_the_index(about: About) -> None:
    content = metadata(Metadata_Version="2.1", Name="Hello_World", Version="1.0", Requires_Python=">=3.8")
    assert about("Hello_World-1.0-py3-none-any.whl", wheel("Hello_World", "1.0", Requires_Python=">=3.8")) == {
        "name": "Hello_World",
        "version": "1.0",
        "requires_python": ">=3.8",
        "metadata": content.decode(),
    }


def test_the_facts_of_a_source_distribution_for_the_index(about: About) -> None:
    """Its PKG-INFO may differ from the metadata of its wheel, so the index does not offer it."""
    assert about("hello-1.0.tar.gz", sdist("hello", "1.0", Requires_Python="<4")) == {
        "name": "hello",
        "version": "1.0",
        "requires_python": "<4",
    }


@pytest.mark.parametrize("name", ["data.tar.gz", "x.deb", "x.dsc", "x.tar.xz", "README"])
def test_other_files_are_no_distributions(about: About, name: str) -> None:
    assert about(name, make_tar({"x/setup.py": b"x"})) == {}


@given(tail=st.binary(max_size=60))
def test_the_bytes_of_the_metadata_survive_a_database_of_texts(
    tail: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Clients compare the digest of the bytes, so they must not change, whatever their encoding is."""
    content = b"Name: x\nVersion: 1\n\n" + tail
    path = tmp_path_factory.getbasetemp() / "x"
    path.write_bytes(with_metadata(content))
    found = distributions.index_texts(path, "x-1-py3-none-any.whl")
    for is_ascii in (True, False):
        kept = json.loads(json.dumps(dict(found), ensure_ascii=is_ascii).encode("utf-8"))
        file = IndexedFile("x-1-py3-none-any.whl", "pool/a/x-1-py3-none-any.whl", Facts("a", "b", "c", 1, kept))
        assert distributions.index([file])["pool/a/x-1-py3-none-any.whl.metadata"] == content


def test_metadata_that_is_too_large_is_no_file_of_its_own(about: About, monkeypatch: pytest.MonkeyPatch) -> None:
    """A truncated file would have a different digest."""
    monkeypatch.setattr(distributions, "_MAX_METADATA", 100)
    head = b"Name: x\nVersion: 1\n\n"
    assert "metadata" in about("x-1-py3-none-any.whl", with_metadata(head.ljust(100)))
    assert about("x-1-py3-none-any.whl", with_metadata(head.ljust(101))) == {"name": "x", "version": "1"}


def test_a_folded_header_is_one_line(about: About) -> None:
    content = b"Name: x\nVersion: 1\nRequires-Python: >=3.8,\n        <4\n"
    assert about("x-1-py3-none-any.whl", with_metadata(content))["requires_python"] == ">=3.8, <4"


def test_a_name_in_another_script_is_invalid(about: About) -> None:
    for name in ("naïve", "\N{KELVIN SIGN}elvin", "x\u0131"):
        with pytest.raises(PackageError, match=r"^x\.whl: .* is not the name of a Python package$"):
            about("x.whl", with_metadata(f"Name: {name}\nVersion: 1\n".encode()))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Name: x\nName: y\nVersion: 1\n", "x-1.whl has more than one Name"),
        (b"Name: x\nVersion: 1\nVersion: 2\n", "x-1.whl has more than one Version"),
        (b"Name: x\n", "x-1.whl has no Version"),
    ],
)
def test_fields_that_are_needed_stand_there_once(about: About, content: bytes, words: str) -> None:
    with pytest.raises(PackageError) as caught:
        about("x-1.whl", with_metadata(content))
    assert str(caught.value) == words


def test_a_wheel_of_two_distributions_is_broken(about: About) -> None:
    """pip refuses such a wheel."""
    files = {f"{name}-1.dist-info/METADATA": metadata(Name=name, Version="1") for name in "xy"}
    with pytest.raises(PackageError, match="x-1.whl has more than one METADATA: x-1.dist-info/METADATA, y-1.dist-info"):
        about("x-1.whl", make_zip(files))


def test_a_broken_or_missing_file(about: About, tmp_path: Path) -> None:
    for name in ("x-1.whl", "x-1.tar.gz"):
        with pytest.raises(PackageError, match=f"^{name} can't be read: "):
            about(name, b"no archive")
        with pytest.raises(PackageError, match=f"^{name} can't be read: FileNotFoundError"):
            distributions.index_texts(tmp_path / "nosuch", name)


# -- the index -------------------------------------------------------------------------------------------------------


class Links(HTMLParser):
    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.meta: list[dict[str, str | None]] = []
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("a", "meta"):
            (self.found if tag == "a" else self.meta).append(dict(attrs))


def test_what_there_is(indexed: Callable[..., IndexedFile]) -> None:
    files = [
        indexed("hello.world-1.0.tar.gz", sdist("hello.world", "1.0")),
        indexed("Hello_World-1.0-py3-none-any.whl", wheel("Hello_World", "1.0")),
        indexed("other-2+local-py3-none-any.whl", wheel("other", "2+local")),
        indexed("data.tar.gz", make_tar({"x/y": b"no distribution"})),
    ]
    made = distributions.index(files)
    pages = ["simple", "simple/hello-world", "simple/other"]
    assert set(made) == {
        *(f"{page}/index.{kind}" for page in pages for kind in ("html", "json")),
        f"{files[1].path}.metadata",
        f"{files[2].path}.metadata",
    }
    root = Links(made["simple/index.html"])
    assert [link["href"] for link in root.found] == ["hello-world/", "other/"]
    assert {"name": "pypi:repository-version", "content": "1.1"} in root.meta
    assert json.loads(made["simple/index.json"]) == {
        "meta": {"api-version": "1.1"},
        "projects": [{"name": "hello-world"}, {"name": "other"}],
    }


def test_the_page_of_a_project(indexed: Callable[..., IndexedFile]) -> None:
    content = wheel("Hello_World", "1.0+a", Requires_Python='>=3.8, <4 & "more"')
    first = indexed("Hello_World-1.0+a-py3-none-any.whl", content)
    second = indexed("hello.world-1.0.tar.gz", sdist("hello.world", "1.0"))
    made = distributions.index([second, first])
    digest = hashlib.sha256(made[f"{first.path}.metadata"]).hexdigest()
    page = Links(made["simple/hello-world/index.html"])
    name = "Hello_World-1.0%2Ba-py3-none-any.whl"
    assert page.found == [
        {
            "href": f"../../pool/{first.facts.sha1}/{name}#sha256={first.facts.sha256}",
            "data-requires-python": '>=3.8, <4 & "more"',
            "data-core-metadata": f"sha256={digest}",
            "data-dist-info-metadata": f"sha256={digest}",
        },
        {"href": f"../../{second.path}#sha256={second.facts.sha256}"},
    ]
    assert json.loads(made["simple/hello-world/index.json"]) == {
        "meta": {"api-version": "1.1"},
        "name": "hello-world",
        "versions": ["1.0", "1.0+a"],
        "files": [
            {
                "filename": first.name,
                "url": f"../../pool/{first.facts.sha1}/{name}",
                "hashes": {"sha256": first.facts.sha256},
                "size": len(content),
                "requires-python": '>=3.8, <4 & "more"',
                "core-metadata": {"sha256": digest},
            },
            {
                "filename": second.name,
                "url": f"../../{second.path}",
                "hashes": {"sha256": second.facts.sha256},
                "size": second.facts.size,
            },
        ],
    }


def test_links_lead_to_the_files(indexed: Callable[..., IndexedFile]) -> None:
    file = indexed("a_b-1!2.0+x.1-1_d-py3-none-any.whl", wheel("a_b", "1!2.0+x.1"))
    made = distributions.index([file])
    base = "http://h/release/simple/a-b/"
    for link in (
        str(Links(made["simple/a-b/index.html"]).found[0]["href"]),
        json.loads(made["simple/a-b/index.json"])["files"][0]["url"],
    ):
        assert unquote(urljoin(base, link)).partition("#")[0] == f"http://h/release/{file.path}"


@pytest.mark.parametrize(
    ("reason", "attribute", "value"), [("", "", True), ('breaks <b> & "c"', 'breaks <b> & "c"', 'breaks <b> & "c"')]
)
def test_a_yanked_file(reason: str, attribute: str, value: object, indexed: Callable[..., IndexedFile]) -> None:
    made = distributions.index(
        [
            indexed("a-1-py3-none-any.whl", wheel("a", "1"), reason),
            indexed("a-2-py3-none-any.whl", wheel("a", "2")),
        ]
    )
    yanked, other = Links(made["simple/a/index.html"]).found
    assert yanked["data-yanked"] == attribute
    assert "data-yanked" not in other
    yanked_entry, other_entry = json.loads(made["simple/a/index.json"])["files"]
    assert yanked_entry["yanked"] == value
    assert "yanked" not in other_entry


def test_an_index_of_nothing() -> None:
    made = distributions.index([])
    assert set(made) == {"simple/index.html", "simple/index.json"}
    assert json.loads(made["simple/index.json"])["projects"] == []


def test_packages_of_other_kinds_have_no_page() -> None:
    """The facts about a package of another kind may contain a name, too."""
    facts = Facts("a", "b", "c", 1, {"name": "x", "version": "1"})
    assert set(distributions.index([IndexedFile("x_1_all.deb", "pool/a/x_1_all.deb", facts)])) == {
        "simple/index.html",
        "simple/index.json",
    }


def test_the_same_files_in_any_order_are_the_same_index(indexed: Callable[..., IndexedFile]) -> None:
    files = [indexed(f"{name}-1-py3-none-any.whl", wheel(name, "1")) for name in ("b", "a", "B.c")]
    assert list(distributions.index(files).items()) == list(distributions.index(files[::-1]).items())


def test_metadata_of_too_many_fields_is_refused_at_once(tmp_path: Path) -> None:
    """Metadata can have so many fields that comparing each with all others would take hours."""
    path = tmp_path / "x-1-py3-none-any.whl"
    many = b"".join(b"X%d: 1\n" % number for number in range(200_000))
    path.write_bytes(make_zip({"x-1.dist-info/METADATA": metadata(Name="x", Version="1") + many}))
    with pytest.raises(PackageError, match="x-1-py3-none-any.whl: its metadata has more than 1000 different fields"):
        distributions.index_texts(path, path.name)


def test_a_wheel_may_require_many_others(tmp_path: Path) -> None:
    path = tmp_path / "x-1-py3-none-any.whl"
    many = b"".join(b"Requires-Dist: a%d\n" % number for number in range(20_000))
    path.write_bytes(make_zip({"x-1.dist-info/METADATA": metadata(Name="x", Version="1") + many}))
    assert distributions.index_texts(path, path.name)["version"] == "1"


def test_a_wheel_whose_directory_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    """Its entries have no content, so a small file may contain a million of them."""
    count = 400_000
    entry = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0) + b"abc"
    size = len(entry) * count
    end = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, size, 0)
    end += struct.pack("<IIQI", 0x07064B50, 0, size, 1)
    end += struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path = tmp_path / "x-1-py3-none-any.whl"
    path.write_bytes(entry * count + end)
    with pytest.raises(PackageError, match=rf"x-1-py3-none-any.whl can't be read: .* its directory has {size} bytes"):
        distributions.index_texts(path, path.name)
