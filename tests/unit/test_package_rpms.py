"""rpm packages: headers, metadata that equals createrepo_c's, refusal of damaged files."""

from __future__ import annotations

import gzip
import hashlib
import struct
import sys
import tracemalloc
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rpm_tags_support import (
    INT32,
    INT64,
    MINIMAL,
    STRINGS,
    TAGS,
    dependencies,
    describe,
    describe_by_createrepo_c,
    documents,
    files,
    header,
    index_facts,
    lay_out,
    rpm,
)

from polylocal.errors import PackageError
from polylocal.packages import reading, rpm_headers, rpms
from polylocal.packages.description import Description
from polylocal.packages.facts import Facts, IndexedFile

LESS, GREATER, EQUAL = 2, 4, 8
PREREQ, PRE, POST, PREUN, RPMLIB = 1 << 6, 1 << 9, 1 << 10, 1 << 11, 1 << 24
FILE, PROGRAM, FOLDER, LINK = 0o100644, 0o100755, 0o40755, 0o120777
CONFIG, GHOST = 1, 64
COMMON = "{http://linux.duke.edu/metadata/common}"
RPM = "{http://linux.duke.edu/metadata/rpm}"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a package with these tags, under a different name."""

    def written(**values: Any) -> Path:
        path = tmp_path / ("a" * 40)
        path.write_bytes(rpm(**values))
        return path

    return written


def entries(path: Path, kind: str) -> list[dict[str, str]]:
    """The index entries for one kind of dependency."""
    root = documents(rpms.index([index_facts(path)], 1))["primary"]
    return [entry.attrib for entry in root.iterfind(f".//{RPM}{kind}/{RPM}entry")]


# -- the description of a package ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Description("hello", "binary", None, "1.0", "1")),
        ({"epoch": 3}, Description("hello", "binary", 3, "1.0", "1")),
        ({"epoch": 0}, Description("hello", "binary", None, "1.0", "1")),
        ({"epoch": 2**32 - 1}, Description("hello", "binary", 2**32 - 1, "1.0", "1")),
        (
            {"version": "1.0~rc1^git", "release": "2.fc41"},
            Description("hello", "binary", None, "1.0~rc1^git", "2.fc41"),
        ),
        ({"sourcerpm": None, "sourcepackage": 1}, Description("hello", "source", None, "1.0", "1")),
        ({"sourcepackage": 1}, Description("hello", "source", None, "1.0", "1")),
        ({"sourcerpm": None}, Description("hello", "binary", None, "1.0", "1")),  # from a program that omits the tag
    ],
)
def test_the_identity_of_a_package(write: Write, values: dict[str, Any], expected: Description) -> None:
    path = write(**values)
    assert rpms.describe(path, "x.rpm") == reading.read(path, "x.rpm") == expected


def test_a_source_package_of_an_old_rpm(tmp_path: Path) -> None:
    content = bytearray(rpm(sourcerpm=None))
    content[6:8] = struct.pack(">H", 1)  # in the lead: a source package
    path = tmp_path / "x"
    path.write_bytes(content)
    assert rpms.describe(path, "x.rpm").type == "source"
    assert rpms.index_texts(path, "x.rpm")["arch"] == "src"


def test_createrepo_c_is_not_needed(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "createrepo_c", None)
    monkeypatch.setenv("PATH", "")
    path = write()
    assert reading.read(path, "x.rpm") == Description("hello", "binary", None, "1.0", "1")
    assert rpms.index([index_facts(path)], 1)


def test_the_facts_do_not_depend_on_the_name_or_the_path(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    first, second = tmp_path / "a.rpm", tmp_path / "folder" / "b"
    for path in (first, second):
        path.write_bytes(rpm(**files(("/etc/a", FILE, CONFIG))))
    assert rpms.index_texts(first, "a.rpm") == rpms.index_texts(second, "b")


# -- comparison with createrepo_c ------------------------------------------------------------------------------------

PACKAGES: dict[str, dict[str, Any]] = {
    "small": {},
    "with an epoch": {"epoch": 3, "provideversion": ["3:1.0-1"]},
    "with texts": {
        "summary": "A & <b> “ü”\r\n\tc  ",
        "description": "first\n\n  last \x7f\n",
        "packager": "P <p@example.com>",
        "url": "https://example.com/?a=1&b=2",
        "vendor": "]]>",
        "license": "MIT and \x85 GPL",
        "group": "Development/Tools",
        "buildhost": "host",
        "buildtime": 1_700_000_000,
        "size": 12,
    },
    "with translations": {"summary": ["default", "übersetzt"], "description": ["d", "D"], "group": ["g", "G"]},
    "with text in Latin-1": {"packager": b"J\xf6rg", "description": [b"caf\xe9"]},
    "with large sizes": {"longsize": 1 << 40, "signature": header(*lay_out({(271, INT64): 1 << 41}))},
    "source": {"sourcerpm": None, "sourcepackage": 1, "arch": "x86_64"},
    "with files": files(
        ("/etc/a.conf", FILE, CONFIG | 16),
        ("/etc", FOLDER, 0),
        ("/usr/bin/a", PROGRAM, 0),
        ("/usr/sbin/b", LINK, 0),
        ("/usr/lib/sendmail", LINK, 0),
        ("/opt/x/bin/c", PROGRAM, 0),
        ("/usr/binary/d", FILE, 0),
        ("/usr/share/ü & <x>/y z", FILE, 2),
        ("/var/log/a.log", FILE, GHOST),
        ("/var/lib/a", FOLDER, GHOST),
        ("/line\nfeed", FILE, 0),
    ),
    "with a file in Latin-1": {**files(("/a/x", FILE, 0)), "basenames": [b"\xff"]},
    "with old names of files": {
        "oldfilenames": ["/etc/x", "/y"],
        "filemodes": [FILE, FOLDER],
        "fileflags": [0, 0],
        "filedigests": ["", ""],
    },
    "with changelogs": {
        "changelogtime": [900 - n for n in range(12)],
        "changelogname": [f"Ü {n} <a@b.c> - 1 " for n in range(12)],
        "changelogtext": [f"- {n} & <x>\n- y" for n in range(12)],
    },
    "with changelogs of one day": {
        "changelogtime": [900, 900, 900, 300, 300, 100],
        "changelogname": list("abcdef"),
        "changelogtext": list("ABCDEF"),
    },
    "with dependencies": {
        **dependencies(
            "provide", ("hello", EQUAL, "1.0-1"), ("own(x)", 0, ""), ("own", EQUAL, "2"), ("/a/file", 0, "")
        ),
        **dependencies(
            "require",
            ("a", 0, ""),
            ("b", LESS, "1"),
            ("b", GREATER | EQUAL, "0.5-1"),
            ("c", LESS | EQUAL, "2:1.0"),
            ("d", GREATER, "1-2-3"),
            ("e", EQUAL, ":1"),
            ("f", EQUAL, "1:"),
            ("g", EQUAL, ""),
            ("h", LESS | GREATER, "1"),
            ("(x if y)", 0, ""),
            ("python3(foo) & <x>", EQUAL, "1"),
            ("/bin/sh", PRE, ""),
            ("/bin/sh", POST, ""),
            ("/sbin/ldconfig", PREREQ, ""),
            ("sed", PREUN, ""),
            ("rpmlib(CompressedFileNames)", LESS | EQUAL | RPMLIB, "3.0.4-1"),
            ("own(x)", 0, ""),
            ("own", EQUAL, "2"),
            ("own", GREATER, "3"),
            ("own", 0, ""),
            ("/etc/a", 0, ""),
            ("/usr/share/a", 0, ""),
            ("/a/file", 0, ""),
        ),
        **dependencies("conflict", ("k", LESS, "1"), ("l", 0, "")),
        **dependencies("obsolete", ("m", LESS | EQUAL, "2:1.0-1")),
        **dependencies("recommend", ("n", 0, "")),
        **dependencies("suggest", ("o", GREATER, "3:2-1")),
        **dependencies("supplement", ("(p and q)", 0, "")),
        **dependencies("enhance", ("r", EQUAL, "1")),
        **files(("/etc/a", FILE, 0), ("/usr/share/a", FILE, 0)),
    },
    "with symbols of libc": dependencies(
        "require",
        ("libc.so.6()(64bit)", 0, ""),
        ("libc.so.6(GLIBC_2.9)(64bit)", 0, ""),
        ("libc.so.6(GLIBC_2.10)(64bit)", 0, ""),
        ("libc.so.6(GLIBC_2.2.5)(64bit)", 0, ""),
        ("libc.so.6(GLIBC_PRIVATE)(64bit)", 0, ""),
        ("libm.so.6()(64bit)", 0, ""),
    ),
}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_is_listed_as_createrepo_c_lists_it(write: Write, name: str) -> None:
    pytest.importorskip("createrepo_c")
    path = write(**PACKAGES[name])
    assert describe(path) == describe_by_createrepo_c(path)


def test_files_of_each_type(write: Write) -> None:
    path = write(**PACKAGES["with files"])
    root = documents(rpms.index([index_facts(path)], 1))
    listed = {element.text: element.get("type") for element in root["filelists"][0] if element.tag.endswith("}file")}
    assert listed["/var/log/a.log"] == "ghost"
    assert listed["/etc"] == listed["/var/lib/a"] == "dir"
    assert listed["/usr/share/ü & <x>/y z"] is None
    assert len(listed) == 11
    primary = [element.text for element in root["primary"].iter(f"{COMMON}file")]
    assert primary == ["/etc/a.conf", "/usr/bin/a", "/usr/sbin/b", "/usr/lib/sendmail", "/opt/x/bin/c"]


def test_what_a_package_requires(write: Write) -> None:
    found = entries(write(**PACKAGES["with dependencies"]), "requires")
    assert [entry["name"] for entry in found if "own" in entry["name"]] == ["own", "own"]
    assert {"name": "own", "flags": "GT", "epoch": "0", "ver": "3"} in found
    assert {"name": "c", "flags": "LE", "epoch": "2", "ver": "1.0"} in found
    assert found.count({"name": "/bin/sh", "pre": "1"}) == 1
    assert [entry["flags"] for entry in found if entry["name"] == "b"] == ["LT", "GE"]
    assert {"name": "sed"} in found
    assert not [entry for entry in found if entry["name"].startswith("rpmlib(") or entry["name"] == "/etc/a"]


def test_a_requirement_is_listed_once(write: Write) -> None:
    """createrepo_c lists the first one twice."""
    path = write(**dependencies("require", ("a", LESS, "2"), ("a", GREATER, "1"), ("a", LESS, "2"), ("a", LESS, "3")))
    assert [(entry["flags"], entry["ver"]) for entry in entries(path, "requires")] == [
        ("LT", "2"),
        ("GT", "1"),
        ("LT", "3"),
    ]


@pytest.mark.parametrize(
    ("version", "parts"),
    [
        ("x:1-2", {"epoch": "0", "ver": "x:1", "rel": "2"}),  # as in rpm: a non-numeric epoch is not an epoch
        ("²:1", {"epoch": "0", "ver": "²:1"}),
        ("1:2:3", {"epoch": "1", "ver": "2:3"}),
        ("9" * 5000 + ":1", {"epoch": "9" * 5000, "ver": "1"}),
    ],
)
def test_odd_versions_of_dependencies(write: Write, version: str, parts: dict[str, str]) -> None:
    path = write(**dependencies("conflict", ("x", EQUAL, version)))
    assert entries(path, "conflicts") == [{"name": "x", "flags": "EQ", **parts}]


def test_text_that_xml_can_not_hold_is_cleaned(write: Write) -> None:
    control = "".join(map(chr, range(1, 32)))
    path = write(
        summary=f"a{control}b\ufffe\uffff\U0001f600",
        description=b"\xed\xa0\x80\x01c",  # a surrogate is invalid UTF-8, so the text is Latin-1
        changelogtime=[1],
        changelogname=["a\x02\n\"'<&"],
        changelogtext=["\x1b[31mred"],
        **files(("/x/a\x01b", FILE, 0)),
    )
    root = documents(rpms.index([index_facts(path)], 1))
    assert root["primary"].findtext(f".//{COMMON}summary") == "a\t\n\rb\U0001f600"
    assert root["primary"].findtext(f".//{COMMON}description") == "\xed\xa0\x80c"
    [file] = [element.text for element in root["filelists"][0] if element.tag.endswith("}file")]
    assert file == "/x/ab"
    [entry] = [element for element in root["other"][0] if element.tag.endswith("}changelog")]
    assert (entry.get("author"), entry.text) == ("a\n\"'<&", "[31mred")


# -- metadata --------------------------------------------------------------------------------------------------------


def repository(folder: Path) -> list[IndexedFile]:
    found = []
    for number, values in enumerate(PACKAGES.values()):
        path = folder / f"p{number}-1.0-1.noarch.rpm"
        path.write_bytes(rpm(**values))
        found.append(index_facts(path))
    return found


def test_the_index_tells_the_digests_and_sizes_of_its_parts(tmp_path: Path) -> None:
    found = rpms.index(repository(tmp_path), 1_700_000_000)
    root = ET.fromstring(found["repodata/repomd.xml"])
    space = root.tag.removesuffix("repomd")
    assert root.findtext(f"{space}revision") == "1700000000"
    kinds = {}
    for data in root.iterfind(f"{space}data"):
        said = {child.tag.removeprefix(space): child.text for child in data}
        [location] = [child.attrib["href"] for child in data.iterfind(f"{space}location")]
        content = found[location]
        assert location == f"repodata/{hashlib.sha256(content).hexdigest()}-{data.attrib['type']}.xml.gz"
        plain = gzip.decompress(content)
        assert said["checksum"] == hashlib.sha256(content).hexdigest()
        assert said["open-checksum"] == hashlib.sha256(plain).hexdigest()
        assert (said["size"], said["open-size"]) == (str(len(content)), str(len(plain)))
        assert said["timestamp"] == "1700000000"
        kinds[data.attrib["type"]] = location
    assert list(kinds) == ["primary", "filelists", "other"]
    assert set(found) == {"repodata/repomd.xml", *kinds.values()}


def test_the_same_packages_give_the_same_bytes(tmp_path: Path) -> None:
    packages = repository(tmp_path)
    once = rpms.index(packages, 1)
    assert rpms.index(list(reversed(packages)), 1) == once
    later = rpms.index(packages, 2)
    assert {name for name in once if later.get(name) != once[name]} == {"repodata/repomd.xml"}


def test_an_index_lists_every_package_by_its_path_and_digest(tmp_path: Path) -> None:
    packages = repository(tmp_path)
    roots = documents(rpms.index(packages, 1))
    expected = {file.path: (file.facts.sha256, str(file.facts.size)) for file in packages}
    found = {}
    for package in roots["primary"]:
        checksum, [location] = package.find(f"{COMMON}checksum"), package.iterfind(f"{COMMON}location")
        assert checksum is not None
        assert checksum.attrib == {"type": "sha256", "pkgid": "YES"}
        [size] = package.iterfind(f"{COMMON}size")
        found[location.attrib["href"]] = (checksum.text, size.attrib["package"])
    assert found == expected
    for kind, root in roots.items():
        assert root.get("packages") == str(len(root)) == str(len(packages)), kind
    for kind in ("filelists", "other"):
        assert {package.get("pkgid") for package in roots[kind]} == {sha256 for sha256, _ in expected.values()}


@pytest.mark.parametrize("href", ["pool/a/x+y~1^2%41@,=!.rpm", "pool/ü & <'\">.rpm"])
def test_a_path_is_escaped_as_xml_only(write: Write, href: str) -> None:
    root = documents(rpms.index([index_facts(write(), href)], 1))["primary"]
    [location] = root.iter(f"{COMMON}location")
    assert location.attrib == {"href": href}


def test_createrepo_c_reads_the_metadata(tmp_path: Path) -> None:
    createrepo_c = pytest.importorskip("createrepo_c")
    packages = repository(tmp_path)
    for name, content in rpms.index(packages, 5).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    metadata = createrepo_c.Metadata()
    metadata.locate_and_load_xml(str(tmp_path))
    assert metadata.len() == len({file.facts.sha256 for file in packages})
    repomd = createrepo_c.Repomd(str(tmp_path / "repodata/repomd.xml"))
    assert repomd.revision == "5"
    assert [record.type for record in repomd.records] == ["primary", "filelists", "other"]


def test_an_empty_repository(tmp_path: Path) -> None:
    for root in documents(rpms.index([], 1)).values():
        assert (root.get("packages"), len(root)) == ("0", 0)


# -- damaged and hostile packages ------------------------------------------------------------------------------------

SMALL = {TAGS[name]: value for name, value in MINIMAL.items()}
NAME, SUMMARY, BASENAMES, DIRNAMES = (TAGS[name] for name in ("name", "summary", "basenames", "dirnames"))
REQUIRES = {TAGS["requireflags"]: 0, TAGS["requireversion"]: [""]}


def with_entry(tag: tuple[int, int], offset: int, count: int, kind: int | None = None) -> bytes:
    """The header of the smallest package with one entry added or replaced."""
    index, data = lay_out({key: value for key, value in SMALL.items() if key != tag})
    return header([*index, (tag[0], tag[1] if kind is None else kind, offset, count)], data)


def doubled() -> bytes:
    index, data = lay_out(SMALL)
    return header([*index, index[0]], data)


def overlapping() -> bytes:
    index, data = lay_out({**SMALL, SUMMARY: "x" * 1000})
    [offset] = [offset for tag, _, offset, _ in index if tag == SUMMARY[0]]
    return header([*index, (TAGS["description"][0], SUMMARY[1], offset, 1)], data)


def unterminated() -> bytes:
    index, data = lay_out({NAME: "x"})
    return header(index, data[:-1] + b"x")


def huge(count: int, size: int) -> bytes:
    return struct.pack(">4s4xII", b"\x8e\xad\xe8\x01", count, size)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "ends within its header"),
    "text": (b"no package" * 100, "does not begin with the magic number"),
    "only a lead": (rpm()[:96], "ends within its header"),
    "only a signature": (rpm()[:140], "ends within its header"),
    "signature without its number": (rpm(signature=b"x" * 200), "a header does not begin with its magic number"),
    "zeros for a signature": (rpm(signature=bytes(16)), "a header does not begin with its magic number"),
    "zeros for a header": (rpm(main=bytes(1000)), "a header does not begin with its magic number"),
    "many tags": (rpm(main=huge(2**32 - 1, 10)), "the header is too large"),
    "many bytes": (rpm(main=huge(1, 2**32 - 1)), "the header is too large"),
    "many bytes of a signature": (rpm(signature=huge(1, 2**31)), "the header is too large"),
    "more tags than there are": (rpm(main=huge(4096, 10)), "ends within its header"),
    "more bytes than there are": (rpm(main=huge(0, 32 << 20)), "ends within its header"),
    "no tags": (rpm(main=header([], b"")), "the header has no name"),
    "no name": (rpm(name=None), "the header has no name"),
    "no version": (rpm(version=None), "the header has no version"),
    "no release": (rpm(release=None), "the header has no release"),
    "no architecture": (rpm(arch=None), "the header has no arch"),
    "an empty name": (rpm(name=""), "the header has no name"),
    "a name of control characters": (rpm(name="\x01\x02"), "the header has no name"),
    "an offset behind the data": (rpm(main=with_entry(NAME, 10_000, 1)), "the tag 1000 of the header"),
    "an offset before the data": (rpm(main=with_entry(NAME, -1, 1)), "the tag 1000 of the header"),
    "a huge count": (rpm(main=with_entry(BASENAMES, 0, 2**32 - 1)), "the tag 1117 of the header"),
    "a count of numbers behind the data": (
        rpm(main=with_entry(TAGS["dirindexes"], 0, 30)),
        "the tag 1116 of the header",
    ),
    "a count of zero": (rpm(main=with_entry(BASENAMES, 0, 0)), "the tag 1117 of the header"),
    "a name of two texts": (rpm(main=with_entry(NAME, 0, 2)), "wrong type 6 or count 2"),
    "a name that is a number": (rpm(main=with_entry(NAME, 0, 1, INT32)), "wrong type 4"),
    "a name of an unknown type": (rpm(main=with_entry(NAME, 0, 1, 77)), "wrong type 77"),
    "one tag twice": (rpm(main=doubled()), "has the tag 1000 twice"),
    "values that overlap": (rpm(main=overlapping()), "the values of the header overlap"),
    "a text without an end": (rpm(main=unterminated()), "a text of the tag 1000 does not end"),
    "dependencies without flags": (rpm(requirename=["a"], requireversion=[""]), "1 names, 0 flags and 1 versions"),
    "dependencies without versions": (rpm(requirename=["a"], requireflags=[0]), "1 names, 1 flags and 0 versions"),
    "more flags than dependencies": (
        rpm(suggestname=["a"], suggestversion=[""], suggestflags=[0, 0]),
        r"1 names, 2 flags and 1 versions \(suggest\)",
    ),
    "more files than modes": (rpm(**{**files(("/a/b", FILE, 0)), "filemodes": [1, 2]}), "1 files, 2 modes and 1 flags"),
    "files without folders": (rpm(basenames=["a"], dirindexes=[0]), "a file has a folder that the header lacks"),
    "files without indexes": (rpm(basenames=["a"], dirnames=["/"]), "1 names of files, and folders for 0"),
    "a folder that is not there": (rpm(**{**files(("/a/b", FILE, 0)), "dirindexes": [1]}), "the header has 1 folders"),
    "a changelog without texts": (rpm(changelogtime=[1], changelogname=["a"]), "1 times, 1 authors and 0 texts"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_damaged_package_is_refused(tmp_path: Path, name: str) -> None:
    content, message = HOSTILE[name]
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(PackageError, match=f"^bad.rpm can't be read: .*{message}"):
        rpms.index_texts(path, "bad.rpm")
    for read in (rpms.describe, reading.read):
        with pytest.raises(PackageError, match=f"^bad.rpm can't be read: .*{message}"):
            read(path, "bad.rpm")


def test_a_package_that_is_cut_off_anywhere_in_its_headers_is_refused(tmp_path: Path) -> None:
    whole = rpm(**PACKAGES["with texts"])
    path = tmp_path / "x"
    for size in range(len(whole) - len(b"payload")):
        path.write_bytes(whole[:size])
        with pytest.raises(PackageError, match="ends within its header"):
            rpms.index_texts(path, "x.rpm")


def test_a_missing_file(tmp_path: Path) -> None:
    for read in (rpms.describe, rpms.index_texts):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "nosuch", "x.rpm")


def test_unknown_tags_are_not_read(write: Write) -> None:
    """rpm ignores them as well, regardless of their number and position."""
    path = write(main=with_entry((60_000, 8), -5, 2**32 - 1))
    assert rpms.describe(path, "x.rpm").name == "hello"


def test_few_bytes_do_not_become_many_paths(write: Write) -> None:
    count = 100_000
    path = write(
        basenames=["f"] * count,
        dirnames=["/" + "d" * 100_000 + "/"],
        dirindexes=[0] * count,
        filemodes=[FILE] * count,
        fileflags=[0] * count,
    )
    tracemalloc.start()
    try:
        with pytest.raises(PackageError, match="the paths of the files have more than 67108864 characters"):
            rpms.index_texts(path, "x.rpm")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 64 << 20


def test_a_package_with_more_metadata_than_an_index_takes(write: Write) -> None:
    with pytest.raises(PackageError, match="the metadata of the package has more than 67108864 characters"):
        rpms.index_texts(write(description="&" * (15 << 20)), "x.rpm")


def test_a_package_with_more_values_than_are_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpm_headers, "_MAX_VALUES", 100)
    values = {"basenames": ["f"] * 99, "dirnames": ["/"], "dirindexes": [0] * 99}
    with pytest.raises(PackageError, match="the header has more than 100 values"):
        rpms.index_texts(write(**values), "x.rpm")


@pytest.mark.timeout(20)  # takes a second; with quadratic time it would take hours
@pytest.mark.parametrize(
    "name", ["libc.so.6" + "(" * (8 << 20), "libc.so.6(" + "1" * (8 << 20), "libc.so.6(" + "1." * (1 << 20)]
)
def test_a_long_name_is_read_in_time(write: Write, name: str) -> None:
    path = write(**dependencies("require", (name, 0, ""), ("libc.so.6(GLIBC_2.2)", 0, "")))
    assert rpms.index_texts(path, "x.rpm")["format"].count("libc.so.6") == 1


def test_a_long_requirement_of_libc_is_looked_through_once(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not parsed again for each of the million other requirements that a header may contain."""
    seen: list[str] = []
    real = rpms._symbols

    def symbols(name: str) -> list[tuple[int, str]]:
        seen.append(name)
        return real(name)

    monkeypatch.setattr(rpms, "_symbols", symbols)
    names = ["libc.so.6(" + "9." * 10_000, *(f"libc.so.6(GLIBC_2.{number})" for number in range(100))]
    path = write(**dependencies("require", *((name, 0, "") for name in names)))
    assert rpms.index_texts(path, "x.rpm")["format"].count("libc.so.6") == 1
    assert seen == names


@pytest.mark.timeout(20)
def test_many_files_are_read_in_time(write: Write) -> None:
    count = 100_000
    path = write(
        basenames=[f"file{n}" for n in range(count)],
        dirnames=[f"/usr/share/{n}/" for n in range(count)],
        dirindexes=list(range(count)),
        filemodes=[FILE] * count,
        fileflags=[0] * count,
    )
    assert rpms.index_texts(path, "x.rpm")["files"].count("<file>") == count


@pytest.mark.timeout(20)
def test_many_lists_of_the_same_empty_texts_are_refused_in_time(write: Write) -> None:
    count = 20 << 20
    index, data = lay_out(SMALL)
    lists = [
        (tag, kind, len(data), count) for tag, kind in TAGS.values() if kind == STRINGS and (tag, kind) not in SMALL
    ]
    path = write(main=header([*index, *lists], data + bytes(count)))
    with pytest.raises(PackageError, match="the header has more than 2000000 values"):
        rpms.index_texts(path, "x.rpm")


WHOLE = [
    rpm(**PACKAGES[name]) for name in ("with texts", "with files", "with dependencies", "with changelogs", "source")
]


@settings(max_examples=400, deadline=None)
@given(
    whole=st.sampled_from(WHOLE),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=6),
    cut=st.floats(0, 1),
)
def test_damage_anywhere_is_refused_or_leaves_well_formed_metadata(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, changes: list[tuple[float, bytes]], cut: float
) -> None:
    content = bytearray(whole)
    for at, new in changes:
        place = 96 + int((len(content) - 96) * at)
        content[place : place + len(new)] = new
    path = tmp_path_factory.getbasetemp() / "damaged.rpm"
    path.write_bytes(content[: int(len(content) * cut)] if cut < 0.3 else content)
    try:
        found = rpms.index_texts(path, "damaged.rpm")
    except PackageError:
        with pytest.raises(PackageError, match=r"^damaged\.rpm can't be read: "):
            rpms.describe(path, "damaged.rpm")
        return
    facts = Facts("", "", "0" * 64, len(content), found)
    roots = documents(rpms.index([IndexedFile("damaged.rpm", "pool/damaged.rpm", facts)], 1))
    assert [len(root) for root in roots.values()] == [1, 1, 1]


def test_only_the_headers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "large.rpm"
    path.write_bytes(rpm())
    with path.open("ab") as file:
        file.truncate(300 << 20)  # a sparse file takes no room
    tracemalloc.start()
    try:
        assert rpms.describe(path, "large.rpm").name == "hello"
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 8 << 20
