"""The keys that sign repositories."""

from __future__ import annotations

import base64
import logging
import stat
from pathlib import Path

import pytest
from pysequoia import Cert

from polylocal.packages.signing import Key, Keys

RSA, EDDSA = 1, 22  # RFC 4880, section 9.1, and RFC 6637


def algorithm(public: str) -> int:
    """The algorithm of the primary key of an armored certificate."""
    lines = public.split("\n\n", 1)[1].splitlines()
    content = base64.b64decode("".join(line for line in lines if line and line[0] not in "=-"))
    assert content[0] == 0xC6  # a public key packet in the new format
    body = content[2 if content[1] < 192 else 3 :]
    assert body[0] == 4
    return body[5]  # follows the version and the time


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "wanted"), [("deb", EDDSA), ("pypi", EDDSA), ("dnf", RSA), ("mdv", RSA), ("rhel", RSA), (None, RSA)]
)
def test_a_key_is_one_that_all_readers_of_its_platform_know(kind: str | None, wanted: int) -> None:
    """A personal platform has no kind, so it may contain packages of all kinds."""
    public = Key.generate("ann_personal", kind).public
    assert algorithm(public) == wanted
    assert Cert.from_bytes(public.encode()).expiration is None


def test_a_key_is_generated_once_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = Keys(tmp_path / "signing")
    with caplog.at_level(logging.INFO):
        made, again = keys.get("cocos", "deb"), keys.get("cocos", "deb")
    assert made.secret == again.secret
    assert [record.getMessage() for record in caplog.records] == [
        f"a key was generated that signs the repositories of cocos: {made.fingerprint}"
    ]
    assert stat.S_IMODE((tmp_path / "signing" / "cocos.asc").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "signing").stat().st_mode) == 0o700
