"""Publication by an installation without the extra `packages`."""

from __future__ import annotations

import pytest
from packages_support import hide_extra

from polylocal.packages.signing import Keys

from .conftest import Rig
from .test_publisher import Press, file, lying, shelved_deb, stray

SENTENCE = "needs libraries that are not installed: pip install 'polylocal[packages]'\n"


@pytest.mark.parametrize("kind", ["deb", "pypi"])
def test_debs_and_wheels_are_published_unsigned(
    kind: str, rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hide_extra(monkeypatch)
    press = Press(rig, kind)
    made = press.waiting(shelved_deb(press) if kind == "deb" else press.wheel("a"))
    press.publish()
    assert press.status(made) == [6000]
    assert lying(press.folder()) == {"hello_1.0-1_all.deb" if kind == "deb" else file("a")}
    assert not (press.folder() / "InRelease").exists()
    assert not (rig.settings.folders.downloads / "cocos" / "key.asc").exists()
    assert "the repositories of cocos are not signed: a signature " + SENTENCE.strip() in caplog.text


def test_the_first_publication_with_the_extra_is_signed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    press = Press(rig, "deb")
    with monkeypatch.context() as plain:
        hide_extra(plain)
        press.waiting(shelved_deb(press))
        press.publish()
    press.waiting(shelved_deb(press))
    press.publish()
    assert (press.folder() / "InRelease").exists()


@pytest.mark.parametrize("is_lost", [False, True])
def test_what_was_signed_is_never_published_unsigned(is_lost: bool, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that have the key refuse a repository without a signature, also if the secret key is lost."""
    press = Press(rig, "deb")
    press.waiting(shelved_deb(press))
    press.publish()
    assert Keys(rig.settings.folders.signing).has("cocos")
    if is_lost:
        (rig.settings.folders.signing / "cocos.asc").unlink()
    hide_extra(monkeypatch)
    made = press.waiting(shelved_deb(press))
    press.publish()
    assert press.status(made) == [8000]
    assert [words for _, words in press.results(made)] == ["a signature of a repository " + SENTENCE]
    assert (press.folder() / "InRelease").exists()


def test_an_rpm_package_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_extra(monkeypatch)
    press = Press(rig, "dnf")
    name = "hello-1.0-1.x86_64.rpm"
    made = press.waiting(stray(press, name))
    press.publish()
    assert press.status(made) == [8000]
    assert [words for _, words in press.results(made)] == [f"{name} can't be read: an rpm package {SENTENCE}"]
    assert not press.folder().exists()
