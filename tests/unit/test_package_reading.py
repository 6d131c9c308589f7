"""Reading packages: valid and broken files of each kind."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packages_support import deb, dsc, make_tar, make_zip, metadata, sdist, wheel

from polylocal.errors import PackageError
from polylocal.packages import debs, distributions, reading
from polylocal.packages.description import Description

Read = Callable[[str, bytes], Description | None]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read a file under a different name than the package's, as the file store does."""

    def found(name: str, content: bytes) -> Description | None:
        path = tmp_path / ("a" * 40)
        path.write_bytes(content)
        return reading.read(path, name)

    return found


# -- valid packages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "parts"),
    [
        ("1.0-1", (None, "1.0", "1")),
        ("2:1.0-1", (2, "1.0", "1")),
        ("1.0", (None, "1.0", "")),
        ("1:1.0~rc1-0ubuntu1-2", (1, "1.0~rc1-0ubuntu1", "2")),
    ],
)
def test_a_deb(read: Read, version: str, parts: tuple[int | None, str, str]) -> None:
    assert read("hello.deb", deb("hello", version)) == Description("hello", "binary", *parts)


def test_an_installer_deb(read: Read) -> None:
    assert read("hello.udeb", deb()) == Description("hello", "binary", None, "1.0", "1")


def test_a_wheel(read: Read) -> None:
    found = read("Hello_World-1.0-py3-none-any.whl", wheel("Hello_World", "1.0rc1"))
    assert found == Description("Hello_World", "binary", None, "1.0rc1", "")


def test_a_compressed_wheel(read: Read) -> None:
    content = make_zip({"x-1.dist-info/METADATA": metadata(Name="x", Version="1")}, zipfile.ZIP_DEFLATED)
    assert read("x-1-py3-none-any.whl", content) == Description("x", "binary", None, "1", "")


def test_a_source_distribution(read: Read) -> None:
    assert read("hello-1.0.tar.gz", sdist("hello", "1.0")) == Description("hello", "source", None, "1.0", "")


def test_only_the_metadata_at_the_top_counts(read: Read) -> None:
    files = {
        "a/b-1.dist-info/METADATA": metadata(Name="vendored", Version="9"),
        "METADATA": metadata(Name="no", Version="9"),
        "real-1.dist-info/METADATA": metadata(Name="real", Version="1"),
    }
    found = read("real.whl", make_zip(files))
    assert found
    assert (found.name, found.version) == ("real", "1")
    inner = {
        "r-1/r.egg-info/PKG-INFO": metadata(Name="no", Version="9"),
        "r-1/PKG-INFO": metadata(Name="r", Version="1"),
    }
    found = read("r-1.tar.gz", make_tar(inner))
    assert found
    assert (found.name, found.version) == ("r", "1")


def test_a_debian_source_names_its_files(read: Read) -> None:
    found = read(
        "hello_1.0-1.dsc", dsc("hello", "3:1.0-1", "hello_1.0.orig.tar.gz", "hello_1.0-1.debian.tar.xz").encode()
    )
    parts = ["hello_1.0.orig.tar.gz", "hello_1.0-1.debian.tar.xz"]
    assert found == Description("hello", "source", 3, "1.0", "1", parts=parts)


def test_a_signed_debian_source_is_read_like_any_other(read: Read) -> None:
    text = dsc("hello", "1.0-1", "hello_1.0.tar.xz")
    signed = (
        f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{text}\n"
        "-----BEGIN PGP SIGNATURE-----\n\niQEz\n-----END PGP SIGNATURE-----\n"
    )
    assert read("hello.dsc", signed.encode()) == read("hello.dsc", text.encode())


def test_a_debian_source_without_files(read: Read) -> None:
    assert read("hello.dsc", b"Source: hello\nVersion: 1.0\n") == Description(
        "hello", "source", None, "1.0", "", parts=[]
    )


# -- files that are not packages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["build.log", "hello.deb.txt", "a.tar.xz", "a.tar", "whl", "", "x.buildinfo"])
def test_other_files_are_no_packages(read: Read, name: str) -> None:
    assert read(name, deb()) is None


@pytest.mark.parametrize(
    "files", [{}, {"hello-1.0/setup.py": b"x"}, {"PKG-INFO": b"Name: x\nVersion: 1\n"}, {"a/b/PKG-INFO": b"Name: x"}]
)
def test_an_archive_without_metadata_is_some_other_archive(read: Read, files: dict[str, bytes]) -> None:
    assert read("hello-1.0.tar.gz", make_tar(files)) is None


def test_a_folder_or_a_link_in_place_of_the_metadata_does_not_count(read: Read) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        folder = tarfile.TarInfo("a/PKG-INFO")
        folder.type = tarfile.DIRTYPE
        link = tarfile.TarInfo("b/PKG-INFO")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(folder)
        archive.addfile(link)
    assert read("a.tar.gz", made.getvalue()) is None


# -- broken packages -------------------------------------------------------------------------------------------------


def damaged(content: bytes, at: float) -> bytes:
    place = int(len(content) * at)
    return content[:place] + bytes(byte ^ 0xFF for byte in content[place : place + 20]) + content[place + 20 :]


def unflated() -> bytes:
    """A compressed wheel whose metadata can't be inflated."""
    content = make_zip({"x-1.dist-info/METADATA": metadata(Name="x" * 500, Version="1")}, zipfile.ZIP_DEFLATED)
    start = content.index(b"METADATA") + len(b"METADATA")
    return content[:start] + b"\xff" * 8 + content[start + 8 :]


def ungzipped() -> bytes:
    """A source distribution that is cut off by bytes that are not compressed data."""
    whole = gzip.compress(gzip.decompress(sdist("hello", "1.0", Summary="".join(map(chr, range(33, 120))) * 40)))
    return whole[:60] + b"\xff" * 30 + whole[90:]


def with_bad_name() -> bytes:
    """A zip archive whose directory marks an invalid name as UTF-8."""
    content = make_zip({"xé-1.dist-info/METADATA": metadata(Name="x", Version="1")})
    return content.replace("é".encode(), b"\xff\xfe")


def pax(**headers: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a/PKG-INFO")
        member.pax_headers = headers
        archive.addfile(member)
    return made.getvalue()


BROKEN = {
    "text.deb": b"no package",
    "empty.deb": b"",
    "cut.deb": deb()[:200],
    "ar-without-members.deb": b"!<arch>\n",
    "text.whl": b"no package",
    "empty.whl": b"",
    "cut.whl": wheel()[:-30],
    "without-metadata.whl": make_zip({"hello.py": b"x"}),
    "without-files.whl": make_zip({}),
    "without-name.whl": make_zip({"x.dist-info/METADATA": b"Version: 1\n"}),
    "without-version.whl": make_zip({"x.dist-info/METADATA": b"Name: x\n"}),
    "with-blank-version.whl": make_zip({"x.dist-info/METADATA": b"Name: x\nVersion:   \n"}),
    "binary-metadata.whl": make_zip({"x.dist-info/METADATA": bytes(range(256))}),
    "unflated.whl": unflated(),
    "bad-name.whl": with_bad_name(),
    "text.tar.gz": b"no package",
    "empty.tar.gz": b"",
    "cut.tar.gz": sdist()[:40],
    "ungzipped.tar.gz": ungzipped(),
    "odd-size.tar.gz": pax(size="many"),
    "without-name.tar.gz": make_tar({"x/PKG-INFO": b"Version: 1\n"}),
    "without-version.tar.gz": make_tar({"x/PKG-INFO": b"Name: x\n"}),
    "empty.dsc": b"",
    "text.dsc": b"no package",
    "without-version.dsc": b"Source: x\n",
    "without-source.dsc": b"Version: 1\n",
    "binary.dsc": bytes(range(256)),
    "odd-epoch.dsc": "Source: x\nVersion: ²:1.0-1\n".encode(),
    "huge-epoch.dsc": b"Source: x\nVersion: " + b"9" * 5000 + b":1.0-1\n",
    "only-signed.dsc": b"-----BEGIN PGP SIGNED MESSAGE-----\n",
    "text.rpm": b"no package",
    "empty.rpm": b"",
    # the lead of an rpm and nothing after it
    "cut.rpm": struct.pack(">4sBBHH66sHH16x", b"\xed\xab\xee\xdb", 3, 0, 0, 1, b"hello-1.0-1", 1, 5),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_package_is_reported(read: Read, name: str) -> None:
    with pytest.raises(PackageError) as caught:
        read(name, BROKEN[name])
    assert str(caught.value).strip()


@pytest.mark.parametrize("name", ["gone.deb", "gone.rpm", "gone.whl", "gone.tar.gz", "gone.dsc"])
def test_a_file_that_is_gone_is_a_broken_package(tmp_path: Path, name: str) -> None:
    with pytest.raises(PackageError):
        reading.read(tmp_path / "nosuch", name)


@settings(max_examples=150)
@given(
    name=st.sampled_from(["x-1.whl", "x-1.tar.gz", "x.dsc"]),
    compressed=st.booleans(),
    at=st.floats(0, 1, exclude_max=True),
    cut=st.booleans(),
)
def test_damage_anywhere_is_no_other_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, compressed: bool, at: float, cut: bool
) -> None:
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    whole = {
        "x-1.whl": make_zip({"x-1.dist-info/METADATA": metadata(Name="x", Version="1", Summary="y" * 300)}, method),
        "x-1.tar.gz": sdist("x", "1", Summary="".join(map(chr, range(33, 120)))),
        "x.dsc": dsc("x", "1:1-1", "a.tar.gz", "b.tar.gz").encode(),
    }[name]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(whole[: int(len(whole) * at)] if cut else damaged(whole, at))
    try:
        found = reading.read(path, name)
    except PackageError:
        return
    assert found is None or (found.name and found.version)


# -- names -----------------------------------------------------------------------------------------------------------

NO_NAMES = ["/tmp/x", "a/b", "../x", "..", ".", ".hidden", "a b", " a", "-x", "a\nb", "a\\b", "a\0b", "<b>", "é", ""]


@pytest.mark.parametrize("name", NO_NAMES)
def test_invalid_names_of_packages_are_refused(name: str) -> None:
    """The name is part of paths in indexes."""
    with pytest.raises(PackageError, match="x.deb has an invalid package name"):
        reading.check(Description(name, "binary", None, "1", ""), "x.deb")


@pytest.mark.parametrize("name", ["a", "libstdc++6", "Hello_World", "hello.world", "python3-x", "7zip", "a~b", "g++"])
def test_valid_names_of_packages_are_accepted(name: str) -> None:
    reading.check(Description(name, "binary", None, "1", ""), "x.deb")


@pytest.mark.parametrize("name", ["/tmp/x", "a/b", "../x", "..", ".hidden", "a b", "é"])
@pytest.mark.parametrize("file_name", ["x.dsc", "x.whl", "x.tar.gz"])
def test_a_package_that_has_no_name_of_one_is_broken(read: Read, file_name: str, name: str) -> None:
    said = metadata(Name=name, Version="1")
    content = {
        "x.dsc": dsc(name).encode(),
        "x.whl": make_zip({"x-1.dist-info/METADATA": said}),
        "x.tar.gz": make_tar({"x-1/PKG-INFO": said}),
    }[file_name]
    with pytest.raises(PackageError, match="is not the name of a|has an invalid package name"):
        read(file_name, content)


# -- large files -----------------------------------------------------------------------------------------------------


def test_of_a_huge_debian_source_only_the_beginning_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    path.write_text(dsc("hello", "1.0-1", "hello_1.0.tar.xz") + "\n")
    os.truncate(path, 300 << 20)  # a sparse file takes no room
    tracemalloc.start()
    try:
        found = reading.read(path, "hello.dsc")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == Description("hello", "source", None, "1.0", "1", parts=["hello_1.0.tar.xz"])
    assert most < 64 << 20


def test_an_archive_of_many_files_is_looked_through_to_a_limit(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "_MAX_MEMBERS", 10)
    last = {"x-1/PKG-INFO": metadata(Name="x", Version="1")}
    found = read("x-1.tar.gz", make_tar({**{f"x-1/{n}": b"" for n in range(9)}, **last}))
    assert found == Description("x", "source", None, "1", "")
    for behind in (last, {"x-1/other": b""}):
        with pytest.raises(PackageError, match=r"^x-1.tar.gz is too large to search for PKG-INFO$"):
            read("x-1.tar.gz", make_tar({**{f"x-1/{n}": b"" for n in range(10)}, **behind}))


def test_an_archive_of_many_bytes_is_looked_through_to_a_limit(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "_MAX_UNPACKED", 1 << 20)
    last = {"x-1/PKG-INFO": metadata(Name="x", Version="1")}
    found = read("x-1.tar.gz", make_tar({"x-1/data": bytes(1 << 19), **last}))
    assert found == Description("x", "source", None, "1", "")
    for behind in (last, {}):
        with pytest.raises(PackageError, match=r"^x-1.tar.gz is too large to search for PKG-INFO$"):
            read("x-1.tar.gz", make_tar({"x-1/data": bytes(1 << 20), **behind}))


# -- versions and requirements ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1.0", (None, "1.0", "")),
        ("1.0-1", (None, "1.0", "1")),
        ("1.0-1-2", (None, "1.0-1", "2")),
        ("0:1.0-1", (0, "1.0", "1")),
        ("12:1.0", (12, "1.0", "")),
        ("a:1.0", (None, "a:1.0", "")),
        (":1.0", (None, ":1.0", "")),
        ("1:2:3-4", (1, "2:3", "4")),
        ("", (None, "", "")),
        ("-", (None, "", "")),
    ],
)
def test_the_parts_of_a_debian_version(text: str, parts: tuple[int | None, str, str]) -> None:
    assert debs.split_version(text) == parts


@given(st.text(max_size=30))
def test_no_version_is_too_odd_to_be_split(text: str) -> None:
    epoch, version, release = debs.split_version(text)
    assert epoch is None or epoch >= 0
    assert version in text
    assert release in text


def test_the_required_python_of_a_distribution(tmp_path: Path) -> None:
    for name, content in {
        "a.whl": wheel(Requires_Python=">=3.8,<4"),
        "a.tar.gz": sdist(Requires_Python=">=3.8,<4"),
        "b.whl": wheel(),
    }.items():
        (tmp_path / name).write_bytes(content)
    found = {path.name: reading.read(path, path.name) for path in tmp_path.iterdir()}
    said = {name: description and description.requires_python for name, description in found.items()}
    assert said == {"a.whl": ">=3.8,<4", "a.tar.gz": ">=3.8,<4", "b.whl": None}
