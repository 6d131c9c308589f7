"""Uploaded archives: only plain files, folders and links within the folder, and within the size limits."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylocal.errors import InvalidInput
from polylocal.files.unpacking import Limits, unpack
from polylocal.git.repository import Repository

Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, data: bytes = b"", **values: Any) -> Entry:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in values.items():
        setattr(member, key, value)
    return member, data


def link(name: str, target: str, **values: Any) -> Entry:
    return entry(name, type=tarfile.SYMTYPE, linkname=target, **values)


def hard(name: str, target: str) -> Entry:
    return entry(name, type=tarfile.LNKTYPE, linkname=target)


def tar(*entries: Entry, mode: Any = "w", form: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=form) as archive:
        for member, data in entries:
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def header(name: str, size: int = 0, kind: bytes = b"0", **fields: Any) -> bytes:
    """One header with a size that no program would write."""
    raw = bytearray(entry(name, type=kind, **fields)[0].tobuf(tarfile.USTAR_FORMAT))
    raw[124:136] = (
        b"%011o\0" % size
        if 0 <= size < 8**11
        else (b"\x80" if size > 0 else b"\xff")
        + struct.pack(">xxxq", size).replace(b"\0\0\0", b"\xff\xff\xff" if size < 0 else b"\0\0\0", 1)
    )
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def pax(records: dict[str, str], then: bytes) -> bytes:
    body = b""
    for key, value in records.items():
        text = f" {key}={value}\n".encode()
        length = len(text) + len(str(len(text) + len(str(len(text)))))
        body += str(length).encode() + text
    return header("pax", len(body), b"x") + body + b"\0" * (-len(body) % 512) + then


END = b"\0" * 1024


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "around" / "into"
    found.mkdir(parents=True)
    return found


def refusal(data: bytes, folder: Path, limits: Limits | None = None) -> str:
    with pytest.raises(InvalidInput) as caught:
        unpack(io.BytesIO(data), folder, limits)
    assert isinstance(caught.value.messages, dict)
    assert list(caught.value.messages) == ["repo"]
    assert [path.name for path in folder.parent.iterdir()] == ["into"]
    return caught.value.messages["repo"][0]


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


# -- accepted archives ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive(folder: Path, mode: str, form: int) -> None:
    made = [entry("./a/ü", b"1" * 1000), entry("b", mode=0o755), link("l", "a/ü"), hard("h", "./a/ü")]
    unpack(io.BytesIO(tar(*made, mode=mode, form=form)), folder)
    assert names(folder) == {"a", "a/ü", "b", "l", "h"}
    assert (folder / "h").read_bytes() == (folder / "l").read_bytes() == b"1" * 1000
    assert os.access(folder / "b", os.X_OK)


def test_what_gnu_tar_packs(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub" / ("x" * 200)).mkdir(parents=True)
    (source / "sub" / ("x" * 200) / "file").write_bytes(os.urandom(100_000))
    (source / "link").symlink_to("sub")
    packed = subprocess.run(["tar", "-cz", "."], cwd=source, check=True, capture_output=True).stdout
    unpack(io.BytesIO(packed), folder)
    assert names(folder) == names(source)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_pieces_one_after_the_other_are_one(folder: Path, pack: Callable[[bytes], bytes]) -> None:
    data = tar(entry("a", os.urandom(5000)))
    unpack(io.BytesIO(pack(data[:700]) + pack(data[700:])), folder)
    assert (folder / "a").stat().st_size == 5000


def test_the_old_format_of_xz_and_padding_behind(folder: Path) -> None:
    unpack(io.BytesIO(lzma.compress(tar(entry("a")), lzma.FORMAT_ALONE)), folder)
    unpack(io.BytesIO(gzip.compress(tar(entry("b"))) + b"\0" * 700), folder)
    assert names(folder) == {"a", "b"}


def test_of_one_name_the_last_counts(folder: Path) -> None:
    unpack(
        io.BytesIO(tar(entry("a", b"1"), hard("b", "a"), entry("a", b"2"), link("a2", "a"), entry("a2", b"3"))), folder
    )
    assert [(folder / name).read_bytes() for name in ("a", "b", "a2")] == [b"2", b"1", b"3"]
    assert not (folder / "a2").is_symlink()


def test_modes_owners_and_times_are_not_believed(folder: Path) -> None:
    wild = {"mode": 0o7777, "uid": 2**40, "gid": 2**40, "mtime": 2**60}
    unpack(io.BytesIO(tar(entry("a", b"1", **wild), entry("d", type=tarfile.DIRTYPE, **{**wild, "mode": 0}))), folder)
    assert oct((folder / "a").stat().st_mode & 0o7000) == "0o0"
    assert (folder / "a").stat().st_uid == os.getuid()
    assert os.access(folder / "d", os.W_OK)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", "a.", "a ", "A", "caf\udce9", "\u202etxt", "-rf", "~"])
def test_odd_names_are_names(folder: Path, name: str) -> None:
    unpack(io.BytesIO(tar(entry("a"), entry(name, b"1"))), folder)
    assert (folder / name).read_bytes() == b"1"


GITS_OWN = [
    ".git",
    ".GIT",
    "git~1",
    ".git.",
    ".git ",
    ".gi\u200ct",
    ".git::$INDEX_ALLOCATION",
    ".Git . .",
    "\ufeff.git",
]


@pytest.mark.parametrize("name", GITS_OWN)
@pytest.mark.parametrize("place", ["{}", "{}/config", "sub/{}/hooks/post-checkout", "sub/{}"])
def test_repositories_are_left_out(folder: Path, name: str, place: str) -> None:
    made = (entry("a"), entry(place.format(name), b"gitdir: /"), link(place.format(name), "/etc"))
    unpack(io.BytesIO(tar(*made)), folder)
    assert names(folder) <= {"a", "sub"}


# -- links and paths that lead outside ------------------------------------------------------------------------------

DEEP = [entry(name, type=tarfile.DIRTYPE) for name in ("a", "a/b", "a/b/c")]
OUT: dict[str, list[Entry]] = {
    "absolute": [entry("/tmp/evil", b"x")],
    "two slashes": [entry("//tmp/evil", b"x")],
    "above": [entry("../evil", b"x")],
    "above later": [entry("a/../../evil", b"x")],
    "a folder above": [entry("../evil", type=tarfile.DIRTYPE)],
    "a link out": [link("l", "../x")],
    "an absolute link": [link("l", "/etc/passwd")],
    "a link out, then a file below": [link("l", ".."), entry("l/evil", b"x")],
    "a link inside, then a file below": [*DEEP, link("l", "a"), entry("l/evil", b"x")],
    "a link through another": [*DEEP, link("a/b/c/up", "../../.."), link("z", "a/b/c/up/../evil")],
    "links that change later": [*DEEP, link("z", "x/../../../evil"), link("x", "a/b")],
    "a chain of long names": [
        *(entry("/".join(["d" * 200] * n), type=tarfile.DIRTYPE) for n in range(1, 10)),
        link("s", "/".join(["d" * 200] * 9) + "/.." * 10),
    ],
    "a hard link out": [hard("h", "../x")],
    "an absolute hard link": [hard("h", "/etc/passwd")],
    "a hard link to nothing": [hard("h", "nothing")],
    "a hard link to what comes later": [hard("h", "a"), entry("a", b"1")],
    "a hard link to a link": [link("l", "a"), hard("h", "l")],
    "a hard link to a folder": [*DEEP, hard("h", "a/b")],
    "a hard link through a link": [*DEEP, entry("a/f", b"1"), link("l", "a"), hard("h", "l/f")],
    "a link over a folder": [*DEEP, link("a", "..")],
    "a device": [entry("d", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "a disk": [entry("d", type=tarfile.BLKTYPE, devmajor=8, devminor=0)],
    "a pipe": [entry("d", type=tarfile.FIFOTYPE)],
    "a type that nobody knows": [entry("d", type=b"Z")],
    "a file over a folder": [*DEEP, entry("a", b"x")],
    "a file below a file": [entry("a", b"x"), entry("a/b", b"x")],
    "a folder over a file": [entry("a", b"x"), entry("a", type=tarfile.DIRTYPE)],
    "a link to no name": [link("l", "")],
    "the folder itself": [link(".", "..")],
    "a long name": [entry("n" * 300)],
    "a long path": [entry("n/" * 1100 + "x")],
    "a long target": [link("l", "n/" * 5000)],
}


@pytest.mark.parametrize("name", [".gitmodules", ".GitModules", "sub/.GITMODULES"])
def test_a_link_in_the_place_of_the_list_of_submodules_is_refused(folder: Path, name: str) -> None:
    """git refuses to commit it, with a message that users could not understand."""
    assert refusal(tar(entry("a"), link(name, "a")), folder).startswith(f"The archive was refused: {name!r} is a link")


def test_a_list_of_submodules_is_a_file_like_others(folder: Path) -> None:
    unpack(io.BytesIO(tar(entry(".gitmodules", b"x"), link("l", ".gitmodules"))), folder)
    assert (folder / "l").read_bytes() == b"x"


@pytest.mark.parametrize("what", OUT)
def test_paths_that_lead_out_and_special_files_are_refused(what: str, folder: Path) -> None:
    assert refusal(tar(*OUT[what]), folder).startswith(
        ("The archive was refused: ", "The upload is not a tar archive: ")
    )
    assert not [path for path in folder.rglob("evil")]


@pytest.mark.parametrize("what", ["a link out", "an absolute link", "a link through another"])
def test_a_link_that_leads_out_is_refused_with_what_to_do(what: str, folder: Path) -> None:
    assert "Name it in .polyaxonignore; runs get data from outside the code" in refusal(tar(*OUT[what]), folder)


def test_links_that_lead_in_circles_lead_nowhere(folder: Path) -> None:
    unpack(io.BytesIO(tar(link("a", "b"), link("b", "a"), link("c", "c/c/c"))), folder)
    assert names(folder) == {"a", "b", "c"}


def test_links_that_tangle_are_given_up(folder: Path) -> None:
    tangled = [link(f"l{n}", "/".join(["."] * 1900)) for n in range(600)]
    assert "lead through too many" in refusal(tar(*tangled), folder)


# -- limits ---------------------------------------------------------------------------------------------------------

SMALL = Limits(max_unpacked_mib=1, max_upload_files=50)


def test_the_largest_that_is_taken(folder: Path) -> None:
    unpack(io.BytesIO(tar(*(entry(f"{n}", b"x" * (1 << 20) if not n else b"") for n in range(50)))), folder, SMALL)
    assert len(names(folder)) == 50


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_more_than_may_be_unpacked(folder: Path, mode: str) -> None:
    said = refusal(tar(*(entry(f"{n}", b"\0" * (1 << 19)) for n in range(3)), mode=mode), folder, SMALL)
    assert "larger than 1 MiB (max_unpacked_mib)" in said
    assert "raise the setting" in said
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= 1 << 20


@pytest.mark.parametrize("made", [[entry(f"{n}") for n in range(51)], [entry("a/" * 60 + "x")], [entry("a")] * 51])
def test_more_files_than_may_be(folder: Path, made: list[Entry]) -> None:
    said = refusal(tar(*made), folder, SMALL)
    assert "more than 50 files and folders (max_upload_files)" in said
    assert "raise the setting" in said


def test_hard_links_count_as_what_git_reads(folder: Path) -> None:
    made = [entry("a", b"x" * (1 << 18)), *(hard(f"{n}", "a") for n in range(4))]
    assert "max_unpacked_mib" in refusal(tar(*made), folder, SMALL)


TB = 1 << 40
SPARSE = {
    "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a", "GNU.sparse.realsize": str(TB)
}  # fmt: skip
LIES: dict[str, bytes] = {
    "a file that claims a terabyte": header("a", TB) + END,
    "a file that claims it in a record": pax({"size": str(TB)}, header("a")) + END,
    "a file below 0": header("a") + header("b", -512) + END,
    "a file far below 0": header("a", -(1 << 60)) + END,
    "a file below 0 in a record": header("f") + pax({"size": "-2048"}, header("a")) + END,
    "records that claim a terabyte": header("a", TB, b"x") + END,
    "records below 0": header("a", -512, b"x") + b"\0" * 9000,
    "a name that claims a terabyte": header("a", TB, b"L") + END,
    "a target that claims a terabyte": header("a", TB, b"K") + END,
    "records for all that claim a terabyte": header("a", TB, b"g") + END,
    "a long number": header("a", 1 << 17, b"x") + b"1" * (1 << 17) + header("b") + END,
    "sparse 1.0": pax(SPARSE, header("a", 512) + b"1\n0\n1\n".ljust(512, b"\0")) + END,
    "sparse 1.0 without an end": pax(SPARSE, header("a", 1 << 30) + b"999999999\n" + b"1\n" * (1 << 20)) + END,
    "sparse 0.1": pax({"GNU.sparse.map": "0,1", "GNU.sparse.size": str(TB)}, header("a", 512) + b"x" * 512) + END,
    "sparse 0.0": pax({"GNU.sparse.size": str(TB), "GNU.sparse.numblocks": "0"}, header("a")) + END,
    "old sparse": header("a", TB, b"S") + END,
    "records for records": header("a", 512, b"x") * 1 + (b"\0" * 512 + header("a", 512, b"x")) * 2000 + END,
    "records for all, many": b"".join(
        header("a", 4608, b"g") + b"".join(b"9 k%04d=\n" % (n + 500 * k) for n in range(500)).ljust(4608, b"\0")
        for k in range(9)
    ) + header("a") + header("b") + END,
    "a name with a zero": pax({"path": "a\0b"}, header("a")) + END,
    "no name": header("") + END,
    "a damaged header in the middle": (lambda raw: raw[:520] + b"!" + raw[521:])(tar(entry("a"), entry("b"))),
    "the half of a header": tar(entry("a"))[:512] + header("b")[:200],
    "the half of a file": tar(entry("a", b"x" * 5000))[:2000],
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("what", LIES)
def test_archives_with_wrong_headers(what: str, packed: bool, folder: Path) -> None:
    started = time.monotonic()
    refusal(gzip.compress(LIES[what]) if packed else LIES[what], folder)
    assert time.monotonic() - started < 5


BOMBS = {
    "a header of 1 GiB": "b = head('x', 1 << 30, b'x'); zeros = 400 << 20",
    "a name of 1 GiB": "b = head('x', 1 << 30, b'L'); zeros = 400 << 20",
    "a file of 8 GiB": "b = head('x', 1 << 33, b'0'); zeros = 400 << 20",
    "records in a sparse map": "b = head('x', 0, b'S', isextended=True); zeros = 0; more = b'\\1' * (1 << 28)",
}
BOMB = """
import gzip, io, resource, sys, tempfile, pathlib, tarfile
from polylocal.errors import InvalidInput
from polylocal.files.unpacking import Limits, unpack
more = b''
def head(name, size, kind, isextended=False):
    m = tarfile.TarInfo(name); m.size = size; m.type = kind
    raw = bytearray(m.tobuf(tarfile.GNU_FORMAT)); raw[482] = isextended
    raw[148:156] = b' ' * 8; raw[148:156] = b'%06o\\0 ' % sum(raw)
    return bytes(raw)
{bomb}
file = tempfile.TemporaryFile()
with gzip.GzipFile(fileobj=file, mode='wb', compresslevel=1) as packed:
    packed.write(b)
    packed.write(more)
    for _ in range(zeros >> 20):
        packed.write(bytes(1 << 20))
more = None
file.seek(0)
resource.setrlimit(resource.RLIMIT_AS, (384 << 20, 384 << 20))
folder = pathlib.Path(sys.argv[1])
try:
    unpack(file, folder, Limits(max_unpacked_mib=64))
except InvalidInput as error:
    print(error)
assert sum(path.stat().st_size for path in folder.rglob('*')) <= 64 << 20
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_takes_neither_memory_nor_disk(what: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOMB.format(bomb=BOMBS[what]), folder], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("repo: The ")


def test_a_bomb_of_empty_pieces_has_an_end(folder: Path) -> None:
    assert "in more than 100000 pieces" in refusal(gzip.compress(b"", mtime=0) * 150_000, folder)


def test_xz_that_wants_all_memory_is_refused(folder: Path) -> None:
    alone = b"\x5d" + struct.pack("<IQ", 1 << 30, 1 << 20) + b"\0" * 100
    refusal(alone, folder)


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"{}", b"x" * 10_000])
def test_what_is_no_archive(data: bytes, folder: Path) -> None:
    assert refusal(data, folder).startswith("The upload is not a tar archive: ")


def test_a_refused_upload_leaves_nothing_and_the_code_unharmed(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "code" / "abc")
    first = repository.upload(io.BytesIO(tar(entry("a", b"1"))), "root")
    for what in [*(tar(*made) for made in OUT.values()), *LIES.values()]:
        with pytest.raises(InvalidInput):
            repository.upload(io.BytesIO(what), "root", SMALL)
        assert [path.name for path in repository.path.parent.iterdir()] == ["abc"]
    assert repository.resolve("master") == first


# -- random archives ------------------------------------------------------------------------------------------------

PARTS = st.sampled_from(["a", "b", "c", "..", ".", "", ".git", "x" * 130, "ü", "\udcff", "\n", "l"])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join) | st.sampled_from(["/", "/tmp/evil", "../evil", "l/evil"])
KINDS = st.sampled_from([tarfile.REGTYPE] * 3 + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
ANY_KIND = KINDS | st.sampled_from([bytes([n]) for n in b"3467xgLKSDMVNAZ"])
MEMBERS = st.builds(
    lambda name, kind, target, data, mode: entry(
        name, data if kind == tarfile.REGTYPE else b"", type=kind, linkname=target, mode=mode
    ),
    NAMES, ANY_KIND, NAMES, st.binary(max_size=600), st.integers(0, 0o7777),
)  # fmt: skip
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "delete", "field"]),
        st.integers(0, 1 << 16),
        st.binary(min_size=1, max_size=12),
    ),
    max_size=4,
)
FIELDS = [0, 100, 108, 116, 124, 136, 148, 156, 157, 257, 329, 345, 386, 482, 483]  # the offsets of a header's fields


def changed(data: bytes, changes: list[tuple[str, int, bytes]], mend: bool) -> bytes:
    raw = bytearray(data)
    for how, at, what in changes:
        at %= max(1, len(raw))
        if how == "flip":
            raw[at] ^= what[0]
        elif how == "insert":
            raw[at:at] = what
        elif how == "delete":
            del raw[at : at + len(what)]
        else:
            start = at // 512 * 512 + FIELDS[at % len(FIELDS)]
            raw[start : start + len(what)] = what
            if mend and start // 512 * 512 + 512 <= len(raw):
                begin = start // 512 * 512
                raw[begin + 148 : begin + 156] = b" " * 8
                raw[begin + 148 : begin + 156] = b"%06o\0 " % sum(raw[begin : begin + 512])
    return bytes(raw)


@pytest.mark.slow
@given(
    members=st.lists(MEMBERS, min_size=1, max_size=6), changes=CHANGES, mend=st.booleans(),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), packing=st.sampled_from([bytes, gzip.compress]),
)  # fmt: skip
def test_unpacked_files_stay_inside(
    tmp_path_factory: pytest.TempPathFactory, members: list[Entry], changes: list[tuple[str, int, bytes]],
    mend: bool, form: int, packing: Callable[[bytes], bytes],
) -> None:  # fmt: skip
    around = _around(tmp_path_factory)
    into = around / "into"
    into.mkdir()
    try:
        data = packing(changed(tar(*members, form=form), changes, mend))
        try:
            unpack(io.BytesIO(data), into, SMALL)
        except InvalidInput:
            return
        finally:
            for path in into.rglob("*"):
                assert path.is_symlink() or path.is_dir() or path.is_file()
                assert not path.lstat().st_mode & 0o7000
        assert all(_real(path).is_relative_to(into) for path in into.rglob("*"))
    finally:
        subprocess.run(["rm", "-rf", into], check=True)
    assert sorted(path.name for path in around.iterdir()) == ["secret"]
    assert (around / "secret").read_text() == "not for you"
    assert (around / "secret").stat().st_nlink == 1
    assert not Path("/tmp/evil").exists()


_made: list[Path] = []


def _around(factory: pytest.TempPathFactory) -> Path:
    if not _made:
        _made.append(factory.mktemp("around"))
        (_made[0] / "secret").write_text("not for you")
    return _made[0]


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except RuntimeError:  # a link to itself
        return path
