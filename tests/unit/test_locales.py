"""The choice of a locale that the image has."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from fake_engine import FakeEngine

from polylocal.engine.plan import ContainerPlan
from polylocal.runner.locales import ARCHIVE, FOLDER, named_locales, names_in_archive, spellings, substitute


def archive(*names: str) -> bytes:
    """The beginning of a glibc locale archive."""
    words = b"".join(name.encode() + b"\0" for name in names)
    return struct.pack("<8I", 0xDE020109, 1, 56, 0, 0, 64, len(words), len(words)) + bytes(32) + words + bytes(100)


def image(
    *folders: str, env: dict[str, str], archived: bytes | None = None, others: tuple[str, ...] = ()
) -> FakeEngine:
    engine = FakeEngine(["base"])
    engine.environment = env
    engine.files = {f"{FOLDER}/{folder}/LC_CTYPE": b"" for folder in folders} | {path: b"" for path in others}
    if archived is not None:
        engine.files[ARCHIVE] = archived
    return engine


def substituted(engine: FakeEngine, *, has_bash: bool = True) -> str:
    container_id = engine.create(ContainerPlan("plx-job-1", "base", ["true"], {}))
    return substitute(engine, container_id, engine.environment, has_bash=has_bash)


ENGLISH = {"LC_ALL": "en_US.UTF-8"}


@pytest.mark.parametrize(
    ("engine", "wanted"),
    [
        (image(env={}), ""),
        (image(env={"LC_ALL": "C"}), ""),
        (image(env={"LANG": "POSIX", "LC_ALL": ""}), ""),
        (image(env=ENGLISH), "C"),
        (image("C.utf8", env=ENGLISH), "C.UTF-8"),
        (image("C.UTF-8", env=ENGLISH), "C.UTF-8"),
        (image("C.utf8", env={"LANG": "C.UTF-8"}), ""),
        (image("en_US.utf8", env=ENGLISH), ""),
        (image("en_US.UTF-8", env=ENGLISH), ""),
        (image("en_US", env=ENGLISH), "C"),  # of another character set
        (image(env=ENGLISH, archived=archive("de_DE.utf8", "en_US.utf8")), ""),
        (image(env=ENGLISH, archived=archive("de_DE.utf8", "C.utf8")), "C.UTF-8"),
        (image(env=ENGLISH, archived=b"damaged"), "C"),
        (image(env=ENGLISH, others=("/lib/ld-musl-x86_64.so.1",)), ""),
        (image("C.utf8", env={"LC_ALL": "C.UTF-8", "LANG": "en_US.UTF-8"}), ""),  # only LC_ALL counts
        (image("C.utf8", env={"LANG": "C.UTF-8", "LC_CTYPE": "xx_YY"}), "C.UTF-8"),
        (image("C.utf8", env={"LANG": "../../etc"}), "C.UTF-8"),
    ],
)
def test_the_locale_in_place_of_the_one_that_an_image_names(engine: FakeEngine, wanted: str) -> None:
    assert substituted(engine) == wanted


def test_a_libc_without_locales_takes_any_name() -> None:
    assert substituted(image(env=ENGLISH), has_bash=False) == ""


def test_spellings_are_those_of_glibc() -> None:
    assert spellings("en_US.UTF-8") == ["en_US.UTF-8", "en_US.utf8"]
    assert spellings("de_DE.ISO-8859-15@euro") == ["de_DE.ISO-8859-15@euro", "de_DE.iso885915@euro"]
    assert spellings("ja_JP.8859-1") == ["ja_JP.8859-1", "ja_JP.iso88591"]
    assert spellings("en_US") == ["en_US"]
    assert spellings("a/b") == []


def test_all_variables_count_where_none_stands_for_all() -> None:
    assert named_locales({"LANG": "a", "LC_TIME": "b", "LC_NAME": "a", "LANGUAGE": "c", "HOME": "d"}) == ["a", "b"]


@pytest.mark.skipif(not Path(ARCHIVE).exists(), reason="this machine's glibc has no archive")
def test_the_archive_of_this_machine_has_names() -> None:
    assert all("_" in name or name.startswith(("C", "POSIX")) for name in names_in_archive(Path(ARCHIVE).read_bytes()))
