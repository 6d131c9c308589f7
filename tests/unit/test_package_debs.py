"""Debian packages: files of different tools, and the indexes for apt."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import re
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from polylocal.errors import PackageError
from polylocal.packages import debs, reading
from polylocal.packages.debs import Release
from polylocal.packages.facts import Facts, IndexedFile

CONTROL = """\
Package: hello
Version: 2:1.0-1
Architecture: amd64
Maintainer: A <a@b.c>
Depends: libc6 (>= 2.36),
 libfoo
Description: says hello
 and more
 .
   verbatim
"""
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".lzma": lambda content: lzma.compress(content, format=lzma.FORMAT_ALONE),
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def ar(members: dict[str, bytes]) -> bytes:
    made = b"!<arch>\n"
    for name, content in members.items():
        made += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        made += content + b"\n" * (len(content) % 2)
    return made


def control_tar(control: bytes, name: str = "./control") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(control)
        archive.addfile(member, io.BytesIO(control))
    return made.getvalue()


def package(control: str | bytes = CONTROL, suffix: str = ".xz", name: str = "./control") -> bytes:
    content = control if isinstance(control, bytes) else control.encode()
    tar = PACKERS[suffix](control_tar(content, name))
    return ar({"debian-binary": b"2.0\n", f"control.tar{suffix}": tar, "data.tar": b""})


@pytest.fixture
def facts(tmp_path: Path) -> Callable[[bytes, str], Facts]:
    def found(content: bytes, name: str = "x.deb") -> Facts:
        path = tmp_path / "content"
        path.write_bytes(content)
        return reading.facts(path, name)

    return found


Read = Callable[..., Facts]


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("name", ["./control", "control"])
def test_every_compression_of_a_package_is_read(facts: Read, suffix: str, name: str) -> None:
    assert facts(package(suffix=suffix, name=name)).about["stanza"] == CONTROL


def test_members_with_the_names_of_gnu_ar_are_read(facts: Read) -> None:
    content = ar({"debian-binary/": b"2.0\n", "control.tar/": control_tar(CONTROL.encode()), "data.tar/": b""})
    assert facts(content).about["stanza"] == CONTROL


def test_an_index_entry_is_the_stanza_with_what_is_known_of_the_file(facts: Read) -> None:
    content = package()
    found = facts(content)
    made = debs.index([IndexedFile("x.deb", f"pool/{found.sha1}/x.deb", found)], Release(date=WHEN))
    assert made["Packages"].decode() == CONTROL + (
        f"Filename: ./pool/{hashlib.sha1(content).hexdigest()}/x.deb\nSize: {len(content)}\n"
        f"MD5sum: {hashlib.md5(content).hexdigest()}\nSHA1: {hashlib.sha1(content).hexdigest()}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
    )


@pytest.mark.parametrize(
    "more",
    [
        "Filename: ../../etc/passwd\n",
        "SHA256: 0\nSize: 1\nMD5sum: 2\n",
        "filename: x\n",
        "X-Empty:\n",
        "\nPackage: second\nFilename: /etc/passwd\n",
        " \n\t\n",
    ],
)
def test_a_package_can_not_set_fields_of_the_index(facts: Read, more: str) -> None:
    """Such a package can't begin a second entry either."""
    assert facts(package(CONTROL + more)).about["stanza"] == CONTROL


@pytest.mark.parametrize("byte", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\r"])
def test_only_a_line_feed_ends_a_line(facts: Read, byte: str) -> None:
    stanza = facts(package(CONTROL.replace("says hello", f"says{byte}Essential: yes"))).about["stanza"]
    assert "\nEssential: yes" not in stanza or byte == "\r"  # a carriage return also ends a field in a package
    assert not re.search("\n\n|\n \n", stanza)


def test_text_that_is_no_utf_8_is_replaced(facts: Read) -> None:
    stanza = facts(package(CONTROL.encode().replace(b"A <a", b"\xe9 <a"))).about["stanza"]
    assert "Maintainer: \N{REPLACEMENT CHARACTER} <a@b.c>\n" in stanza


@pytest.mark.parametrize(
    "control",
    [
        CONTROL.replace("Package", "X-Package"),
        CONTROL.replace("Version", "X-Version"),
        CONTROL.replace("Architecture", "X-Architecture"),
        CONTROL + "Package: other\n",
        "no field at all",
        "",
    ],
)
def test_a_package_without_what_apt_needs_is_broken(facts: Read, control: str) -> None:
    with pytest.raises(PackageError, match=r"x\.deb"):
        facts(package(control))


WHOLE = package()


@pytest.mark.parametrize("length", [0, 7, 8, 20, 67, 68, 72, 100, 131, 132, 200, len(WHOLE) - 60, len(WHOLE) - 1])
def test_a_package_that_is_cut_off_is_broken(facts: Read, length: int) -> None:
    with pytest.raises(PackageError, match=r"x\.deb"):
        facts(WHOLE[:length])


@pytest.mark.parametrize(
    "more",
    [
        "Depends: (((",
        "Depends: a (>>)",
        "Depends: a (1)",
        "Pre-Depends: a,, b",
        "Recommends: , a",
        "Suggests: a [amd64]",
        "conflicts: a <!nocheck>",
        "Provides: a b (",
        "Depends: a |",
        "Depends: a" + " " * 100_000 + "b",
    ],
)
def test_a_package_that_would_break_the_index_for_apt_is_refused(facts: Read, more: str) -> None:
    with pytest.raises(PackageError, match="has the invalid dependency"):
        facts(package(f"{CONTROL}{more}\n".replace("Depends: libc6 (>= 2.36),\n libfoo\n", "")), "x.deb")


@pytest.mark.parametrize(
    "more",
    ["Depends: a,", "Depends: a (>= 1:1.0~rc1-1+b2) | b:any ( << 2 ),\n c", "Provides: a (= 1), b", "Breaks: a(<<2)"],
)
def test_dependencies_that_apt_accepts_are_accepted(facts: Read, more: str) -> None:
    control = f"{CONTROL}{more}\n".replace("Depends: libc6 (>= 2.36),\n libfoo\n", "")
    assert f"{more}\n" in facts(package(control), "x.deb").about["stanza"]


@pytest.mark.parametrize(
    ("line", "what"),
    [("Version: 1 2", "invalid version"), ("Architecture: amd64\n MD5Sum: 0", "not a valid name of an architecture")],
)
def test_a_field_of_further_indexes_is_one_word(facts: Read, line: str, what: str) -> None:
    name = line.partition(":")[0]
    with pytest.raises(PackageError, match=what):
        facts(package(re.sub(rf"{name}: .*", line, CONTROL)), "x.deb")


@pytest.mark.slow
def test_a_package_of_too_many_fields_is_refused_at_once(facts: Read) -> None:
    """A control file can have so many fields that comparing each with all others would take hours."""
    control = CONTROL + "".join(f"X{number}: 1\n" for number in range(200_000))
    with pytest.raises(PackageError, match="more than 1000 fields"):
        facts(package(control), "x.deb")


def test_a_control_archive_is_not_read_into_memory_whatever_its_size(
    facts: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debs, "_MAX_UNPACKED", 100)
    with pytest.raises(PackageError, match="its `control.tar` has more than"):
        facts(package(CONTROL, ""), "x.deb")


@pytest.mark.parametrize("size", ["-60", "9999999999", "1e3", "0x10", "", "+4"])
def test_a_member_with_an_invalid_size_ends_the_reading(facts: Read, size: str) -> None:
    """A negative size would be read for ever."""
    at = WHOLE.index(b"control.tar") + 48
    with pytest.raises(PackageError, match="truncated, or not a Debian package"):
        facts(WHOLE[:at] + f"{size:<10}".encode() + WHOLE[at + 10 :])


def test_a_package_that_unpacks_to_more_than_a_machine_holds_is_refused(facts: Read) -> None:
    bomb = lzma.compress(bytes(100 << 20), preset=0)
    with pytest.raises(PackageError, match="unpacks to more than"):
        facts(ar({"debian-binary": b"2.0\n", "control.tar.xz": bomb, "data.tar": b""}))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_package_with_any_bytes_changed_is_read_or_broken(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    suffix = data.draw(st.sampled_from(sorted(PACKERS)))
    content = bytearray(package(suffix=suffix))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.deb"
    path.write_bytes(content)
    try:
        stanza = reading.facts(path, "x.deb").about["stanza"]
    except PackageError:
        return
    assert "\n\n" not in stanza


# -- sources ---------------------------------------------------------------------------------------------------------

DSC = """\
Format: 3.0 (quilt)
Source: hello
Binary: hello, hello-doc
Architecture: any
Version: 1.0-1
Package-List:
 hello deb misc optional arch=any
Checksums-Sha1:
 0000000000000000000000000000000000000001 10 hello_1.0.orig.tar.gz
Checksums-Sha256:
 0000000000000000000000000000000000000000000000000000000000000002 10 hello_1.0.orig.tar.gz
Files:
 00000000000000000000000000000003 10 hello_1.0.orig.tar.gz
"""


def test_a_source_is_listed_with_its_own_dsc(facts: Read) -> None:
    found = facts(DSC.encode(), "hello_1.0-1.dsc")
    assert debs.parts(found) == ["hello_1.0.orig.tar.gz"]
    made = debs.index([IndexedFile("hello_1.0-1.dsc", "pool/ab/hello_1.0-1.dsc", found)], Release(date=WHEN))
    assert made["Sources"].decode() == (
        "Package: hello\nFormat: 3.0 (quilt)\nBinary: hello, hello-doc\nArchitecture: any\nVersion: 1.0-1\n"
        "Package-List:\n hello deb misc optional arch=any\nDirectory: pool/ab\n"
        f"Files:\n {found.md5} {found.size} hello_1.0-1.dsc\n {3:032} 10 hello_1.0.orig.tar.gz\n"
        f"Checksums-Sha1:\n {found.sha1} {found.size} hello_1.0-1.dsc\n {1:040} 10 hello_1.0.orig.tar.gz\n"
        f"Checksums-Sha256:\n {found.sha256} {found.size} hello_1.0-1.dsc\n {2:064} 10 hello_1.0.orig.tar.gz\n"
    )


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", ".x", "x y", ""])
def test_a_part_of_a_source_is_a_plain_name(facts: Read, name: str) -> None:
    found = facts(DSC.replace("hello_1.0.orig.tar.gz", name).encode(), "hello_1.0-1.dsc")
    assert debs.parts(found) == []


# -- the release file ------------------------------------------------------------------------------------------------


def fields(release: bytes) -> dict[str, str]:
    return dict(re.findall("^([A-Za-z-]+): (.*)$", release.decode(), re.M))


def test_a_release_names_where_it_comes_from(facts: Read) -> None:
    found = facts(package())
    files = [IndexedFile("x.deb", "pool/x/x.deb", found)]
    release = Release("updates", ["arm64"], "polylocal", "mine", date=WHEN)
    assert fields(debs.index(files, release)["Release"]) == {
        "Origin": "polylocal",
        "Label": "polylocal",
        "Suite": "updates",
        "Codename": "mine",
        "Date": "Fri, 02 Jan 2026 03:04:05 GMT",
        "Architectures": "amd64 arm64",
        "Acquire-By-Hash": "yes",
    }


def test_a_repository_published_without_an_origin_stays_without() -> None:
    assert fields(debs.index([], Release("release", ["amd64"], date=WHEN))["Release"]) == {
        "Label": "polylocal",
        "Suite": "release",
        "Date": "Fri, 02 Jan 2026 03:04:05 GMT",
        "Architectures": "amd64",
        "Acquire-By-Hash": "yes",
    }


def test_every_index_is_there_by_its_hash(facts: Read) -> None:
    made = debs.index(
        [
            IndexedFile("x.deb", "pool/x/x.deb", facts(package())),
            IndexedFile("x.dsc", "pool/y/x.dsc", facts(DSC.encode(), "x.dsc")),
        ],
        Release(date=WHEN),
    )
    listed = re.findall(r"^ ([0-9a-f]{64}) +(\d+) (\S+)$", made["Release"].decode(), re.M)
    assert {name for _, _, name in listed} == {"Packages", "Packages.gz", "Sources", "Sources.gz"}
    for digest, size, name in listed:
        assert made[f"by-hash/SHA256/{digest}"] == made[name]
        assert len(made[name]) == int(size)
        assert hashlib.sha256(made[name]).hexdigest() == digest
