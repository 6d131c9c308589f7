"""Data folders in polylocal.toml: their paths on the machine and in runs, and refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath

import pytest

from polylocal.daemon import doctor, main
from polylocal.errors import SetupError
from polylocal.files.data_folders import DataFolder, select
from polylocal.settings import Settings, load


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    return made


def written(home: Path, text: str) -> Settings:
    (home / "polylocal.toml").write_text(f"[data]\n{text}\n")
    return load(home=home)


def refused(home: Path, text: str) -> str:
    with pytest.raises(SetupError) as caught:
        written(home, text)
    return str(caught.value)


def test_a_folder_at_a_path_of_its_own_and_in_every_run(home: Path) -> None:
    found = written(home, 'imagenet = {path = "/srv/x", mount = "/data/", always = true, read_only = true}')
    wanted = DataFolder(path=Path("/srv/x"), mount=PurePosixPath("/data"), always=True, read_only=True)
    assert found.data == {"imagenet": wanted}


def test_both_forms_beside_each_other(home: Path) -> None:
    found = written(home, 'a = "/srv/a"\n[data.b]\npath = "/srv/b"\nmount = "//mnt/./b"\n').data
    assert [found[name].target(name) for name in "ab"] == [PurePosixPath("/plx-data/a"), PurePosixPath("/mnt/b")]
    assert not any(folder.always or folder.read_only for folder in found.values())


def test_the_environment_says_the_same_as_json(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"a": "/srv/a", "b": {"path": "/srv/b", "mount": "/data", "always": True}}
    monkeypatch.setenv("POLYLOCAL_DATA", json.dumps(said))
    found = load(home=home).data
    assert (found["a"].path, found["b"].mount, found["b"].always) == (Path("/srv/a"), PurePosixPath("/data"), True)


def test_a_home_folder_is_written_short(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert written(home, 'a = "~/a"\n').data["a"].path == Path("/home/me/a")


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        ("data", "`data` is a relative path"),
        ("", "relative path"),
        ("./data", "relative path"),
        ("/mnt/../data", "`..`"),
        ("/", "root of the container"),
        ("//", "root of the container"),
        ("/code", "is `/code`"),
        ("/code/data", "is in `/code`"),
        ("/plx-data", "polylocal's own"),
        ("/plx-outputs/root", "polylocal's own"),
        ("//plx-context/", "polylocal's own"),
        ("/plx-anything", "polylocal's own"),
        ("/proc/1", "is in `/proc`"),
        ("/dev/shm", "is in `/dev`"),
        ("/etc", "is `/etc`"),
        ("/usr", "contains `/usr/bin`"),
        ("/var", "contains `/var/run`"),
        ("/data\\n", "can't be printed"),
    ],
)
def test_mounts_that_are_refused(home: Path, mount: str, words: str) -> None:
    told = refused(home, f'a = {{path = "/srv/a", mount = "{mount}"}}')
    assert words in told
    assert "data.a.mount: " in told
    assert "polylocal.toml" in told


@pytest.mark.parametrize("mount", ["/data", "/mnt", "/opt/data", "/usr/share/data", "/root/.keras", "/coded", "/a:b"])
def test_mounts_that_are_taken(home: Path, mount: str) -> None:
    assert written(home, f'a = {{path = "/srv/a", mount = "{mount}"}}').data["a"].mount == PurePosixPath(mount)


@pytest.mark.parametrize("path", ["srv/a", "", ".", "~nobody-of-this-name/a", "/srv/\\u0000"])
def test_paths_that_are_refused(home: Path, path: str) -> None:
    assert "data.a.path: " in refused(home, f'a = "{path}"')


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../code", "a\\nb"])
def test_names_that_are_refused(home: Path, name: str) -> None:
    assert "can't be the name of a data folder" in refused(home, f'"{name}" = "/srv/a"')


def test_names_of_older_settings_stay(home: Path) -> None:
    assert set(written(home, '"my data" = "/srv/a"\n"2012.val" = "/srv/b"').data) == {"my data", "2012.val"}


def test_two_folders_never_share_a_mount(home: Path) -> None:
    told = refused(
        home,
        'a = {path = "/srv/a", mount = "/data"}\nb = {path = "/srv/b", mount = "/data"}\n'
        'c = {path = "/srv/c", mount = "/data/c"}',
    )
    assert "`a` and `b` have the same mount, `/data`" in told
    assert "the mounts of `b` and `c` contain one another: `/data`, `/data/c`" in told


@pytest.mark.parametrize("text", ["a = 5", "a = {}", 'a = {path = "/srv/a", mont = "/data"}', "a = [1]"])
def test_tables_that_are_no_folder(home: Path, text: str) -> None:
    assert "data.a" in refused(home, text)


def test_a_run_sees_what_it_names_and_what_every_run_sees(home: Path) -> None:
    found = written(home, 'a = "/srv/a"\nb = {path = "/srv/b", always = true}\nc = "/srv/c"').data
    wanted = [set(select(found, names, all_of_them=False)) for names in ([], ["c", "b"])]
    assert (wanted, set(select(found, [], all_of_them=True))) == ([{"b"}, {"b", "c"}], {"a", "b", "c"})


# -- existing and missing folders ------------------------------------------------------------------------------------


def test_a_folder_is_told_by_what_is_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    told = [DataFolder(path=path).problem("a") for path in (tmp_path, file, tmp_path / "gone", file / "below")]
    assert told[0] is None
    assert "is not a folder" in str(told[1])
    assert all("does not exist" in str(words) for words in told[2:])


def test_a_folder_that_the_daemon_may_not_look_at_is_left_to_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", denied)
    assert DataFolder(path=tmp_path / "gone").problem("a") is None


def test_a_start_refuses_a_file_and_warns_of_what_is_missing(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    main.check_data(written(home, f'a = "{tmp_path}"\nb = "{tmp_path}/gone"'))
    (warning,) = caplog.messages
    assert "`b` does not exist" in warning
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match=r"polylocal\.toml: the data folder `c` is not a folder"):
        main.check_data(written(home, f'c = "{tmp_path}/file"'))


def test_the_doctor_names_each_folder(home: Path, tmp_path: Path) -> None:
    settings = written(
        home,
        f'a = {{path = "{tmp_path / "a"}", mount = "/data", always = true, read_only = true}}\n'
        f'b = "{tmp_path}/gone"\nc = "{tmp_path}"\nd = "{home}/secrets"',
    )
    for folder in (tmp_path / "a", home / "secrets"):
        folder.mkdir()
    found = {item.subject: item for item in doctor._data(settings)}
    assert found["data folder a"].message == f"{tmp_path / 'a'} is /data in every run, read-only"
    assert [found[f"data folder {name}"].state for name in "abcd"] == ["ok", "problem", "note", "note"]
