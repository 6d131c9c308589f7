"""rpm packages, written without rpmbuild, in the subset of format 4 that rpm and dnf need for installation."""

from __future__ import annotations

import gzip
import hashlib
import struct
from functools import cache

_INT16, _INT32, _STRING, _BINARY, _STRINGS, _TEXT = 3, 4, 6, 7, 8, 9  # types of values
_SIGNATURES, _IMMUTABLE = 62, 63  # tags of the two regions
_SOURCE_RPM, _SOURCE_PACKAGE = 1044, 1106  # tags: the name of the source package; this is a source package
_EQUAL, _NEEDS_RPMLIB = 8, 0x0100_000A
_BUILT_AT = 1_700_000_000
_SHA256 = 8  # the number of the algorithm

Value = int | str | bytes | list[str]
Tags = dict[int, tuple[int, Value]]


@cache
def rpm(
    name: str = "hello", version: str = "1.0", release: str = "1", program: str = "", *, is_source: bool = False
) -> bytes:
    """A package for every architecture. `program`: the content of `/usr/bin/<name>`; "": no such file."""
    content = program.encode()
    cpio = (_cpio(f"./usr/bin/{name}", content, 1) if program else b"") + _cpio("TRAILER!!!", b"", 0)
    payload = gzip.compress(cpio, mtime=0)
    about = _about(name, version, release) | (_file(name, content) if program else {})
    kind = (
        {_SOURCE_PACKAGE: (_INT32, 1)} if is_source else {_SOURCE_RPM: (_STRING, f"{name}-{version}-{release}.src.rpm")}
    )
    header = _header(_IMMUTABLE, about | kind | _payload(payload, len(content)))
    signature = _header(_SIGNATURES, _signature(header, payload, len(cpio)))
    signature += b"\0" * (-len(signature) % 8)
    label = f"{name}-{version}".encode()[:65]
    lead = struct.pack(">4sBBHH66sHH16x", b"\xed\xab\xee\xdb", 3, 0, int(is_source), 1, label, 1, 5)
    return lead + signature + header + payload


def _about(name: str, version: str, release: str) -> Tags:
    return {
        100: (_STRINGS, ["C"]),
        1000: (_STRING, name),
        1001: (_STRING, version),
        1002: (_STRING, release),
        1004: (_TEXT, "a test"),
        1005: (_TEXT, "a test"),
        1006: (_INT32, _BUILT_AT),
        1007: (_STRING, "localhost"),
        1014: (_STRING, "MIT"),
        1016: (_TEXT, "Unspecified"),
        1021: (_STRING, "linux"),
        1022: (_STRING, "noarch"),
        1047: (_STRINGS, [name]),
        1048: (_INT32, _NEEDS_RPMLIB),
        1049: (_STRINGS, ["rpmlib(CompressedFileNames)"]),
        1050: (_STRINGS, ["3.0.4-1"]),
        1112: (_INT32, _EQUAL),
        1113: (_STRINGS, [f"{version}-{release}"]),
    }


def _kind(name: str, is_source: bool) -> Tags:
    return {_SOURCE_PACKAGE: (_INT32, 1)} if is_source else {_SOURCE_RPM: (_STRING, f"{name}.src.rpm")}


def _file(name: str, content: bytes) -> Tags:
    return {
        1028: (_INT32, len(content)),
        1030: (_INT16, 0o100755),
        1033: (_INT16, 0),
        1034: (_INT32, _BUILT_AT),
        1035: (_STRINGS, [hashlib.sha256(content).hexdigest()]),
        1036: (_STRINGS, [""]),
        1037: (_INT32, 0),
        1039: (_STRINGS, ["root"]),
        1040: (_STRINGS, ["root"]),
        1045: (_INT32, 0xFFFF_FFFF),
        1095: (_INT32, 1),
        1096: (_INT32, 1),
        1097: (_STRINGS, [""]),
        1116: (_INT32, 0),
        1117: (_STRINGS, [name]),
        1118: (_STRINGS, ["/usr/bin/"]),
        5011: (_INT32, _SHA256),
    }


def _payload(payload: bytes, installed_size: int) -> Tags:
    return {
        1009: (_INT32, installed_size),
        1124: (_STRING, "cpio"),
        1125: (_STRING, "gzip"),
        1126: (_STRING, "9"),
        5092: (_STRINGS, [hashlib.sha256(payload).hexdigest()]),
        5093: (_INT32, _SHA256),
    }


def _signature(header: bytes, payload: bytes, unpacked: int) -> Tags:
    return {
        269: (_STRING, hashlib.sha1(header, usedforsecurity=False).hexdigest()),
        273: (_STRING, hashlib.sha256(header).hexdigest()),
        1000: (_INT32, len(header) + len(payload)),
        1004: (_BINARY, hashlib.md5(header + payload, usedforsecurity=False).digest()),
        1007: (_INT32, unpacked),
    }


def _header(region: int, tags: Tags) -> bytes:
    """An index of (tag, type, offset, count), followed by the values. The region tag covers all of them."""
    index, store = b"", b""
    for tag, (kind, value) in sorted(tags.items()):
        store += b"\0" * (-len(store) % {_INT16: 2, _INT32: 4}.get(kind, 1))
        count = len(value) if isinstance(value, (bytes, list)) else 1
        index += struct.pack(">IIII", tag, kind, len(store), count)
        store += _encode(kind, value)
    entries = len(tags) + 1
    first = struct.pack(">IIII", region, _BINARY, len(store), 16)
    store += struct.pack(">IIiI", region, _BINARY, -16 * entries, 16)
    return struct.pack(">8sII", b"\x8e\xad\xe8\x01", entries, len(store)) + first + index + store


def _encode(kind: int, value: Value) -> bytes:
    if isinstance(value, int):
        return struct.pack(">H" if kind == _INT16 else ">I", value)
    if isinstance(value, bytes):
        return value
    return b"".join(text.encode() + b"\0" for text in ([value] if isinstance(value, str) else value))


def _cpio(path: str, content: bytes, inode: int) -> bytes:
    """A member of a cpio archive: hexadecimal numbers, name and content padded to four bytes."""
    mode, links, name = (0o100755 if inode else 0), 1, path.encode() + b"\0"
    numbers = (inode, mode, 0, 0, links, _BUILT_AT, len(content), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % number for number in numbers) + name
    return head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)
