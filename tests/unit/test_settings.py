"""Settings: sources, precedence, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from polylocal.errors import SetupError
from polylocal.files.data_folders import DataFolder
from polylocal.settings import load


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    return made


def write(home: Path, text: str) -> None:
    (home / "polylocal.toml").write_text(text)


def test_flags_override_environment_overrides_file_overrides_default(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [load(home=home).port]
    write(home, "port = 8001\n")
    found.append(load(home=home).port)
    monkeypatch.setenv("POLYLOCAL_PORT", "8002")
    found.append(load(home=home).port)
    found.append(load(home=home, port=8003).port)
    assert found == [8000, 8001, 8002, 8003]


def test_a_flag_that_was_not_given_hides_nothing(home: Path) -> None:
    write(home, "port = 8001\n")
    assert load(home=home, port=None).port == 8001


def test_the_home_folder_of_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, "max_runs = 7\n")
    monkeypatch.setenv("POLYLOCAL_HOME", str(home))
    assert (load().home, load().max_runs) == (home, 7)


def test_the_home_folder_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(home="there").home == tmp_path / "there"
    assert load(home=Path("~/here")).home == tmp_path / "here"


def test_tables_of_the_file(home: Path) -> None:
    write(home, '[data]\nmnist = "/srv/mnist"\n[image_fallbacks]\n"a:1" = "b:1"\n')
    found = load(home=home)
    assert found.data == {"mnist": DataFolder(path=Path("/srv/mnist"))}
    assert found.image_fallbacks["a:1"] == "b:1"


def test_a_table_in_the_environment_is_json(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYLOCAL_DATA", '{"mnist": "/srv/mnist"}')
    assert load(home=home).data == {"mnist": DataFolder(path=Path("/srv/mnist"))}


def test_every_problem_is_in_one_message(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, 'colour = "red"\nport = "x"\n')
    monkeypatch.setenv("POLYLOCAL_MAX_RUNS", "0")
    with pytest.raises(SetupError) as caught:
        load(home=home, grace_s=-1)
    for name in ("colour", "port", "max_runs", "grace_s", "polylocal.toml"):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    "text", ["port = \n", "port = 99999\n", "poll_s = 0\n", "user = 'a b'\n", "builder = 'kaniko'\n", "colour = 1\n"]
)
def test_a_setting_that_makes_no_sense_is_refused(home: Path, text: str) -> None:
    write(home, text)
    with pytest.raises(SetupError, match=r"polylocal\.toml"):
        load(home=home)


def test_a_file_that_is_not_utf8_is_refused_with_a_message(home: Path) -> None:
    (home / "polylocal.toml").write_bytes(b"user = '\xe9'\n")
    with pytest.raises(SetupError, match=r"polylocal\.toml"):
        load(home=home)


@pytest.mark.parametrize("name", ["DATA", "IMAGE_FALLBACKS"])
def test_a_table_in_the_environment_that_is_not_json_is_refused_with_a_message(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"POLYLOCAL_{name}", "no json")
    with pytest.raises(SetupError, match=f"(?i){name}"):
        load(home=home)


def test_settings_do_not_change(home: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load(home=home).port = 1  # type: ignore[misc]


def test_folders_lie_in_the_home_folder(home: Path) -> None:
    assert load(home=home).folders.database == home / "polylocal.db"


def test_tables_of_the_file_and_the_environment_are_merged(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, '[data.mnist]\npath = "/srv/mnist"\nread_only = false\n[image_fallbacks]\n"a:1" = "b:1"\n')
    monkeypatch.setenv("POLYLOCAL_DATA", '{"mnist": {"path": "/srv/other"}, "cifar": "/srv/cifar"}')
    monkeypatch.setenv("POLYLOCAL_IMAGE_FALLBACKS", '{"a:1": "c:1"}')
    found = load(home=home)
    assert found.data["mnist"] == DataFolder(path=Path("/srv/other"), read_only=False)
    assert list(found.data) == ["mnist", "cifar"]
    assert found.image_fallbacks == {"a:1": "c:1"}


def test_variables_may_have_lowercase_names_and_others_are_ignored(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("polylocal_port", "8005")
    monkeypatch.setenv("POLYLOCAL_TOKEN", "of a client")
    assert load(home=home).port == 8005
