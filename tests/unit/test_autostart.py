"""The service files for systemd and launchd, and the commands sent to both."""

from __future__ import annotations

import os
import plistlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylocal.daemon import autostart
from polylocal.daemon.autostart import Service, kept_variables, manager, render_plist, render_unit
from polylocal.errors import SetupError
from polylocal.paths import Home

PLAIN = Service(
    Home(Path("/home/ann/.polylocal")),
    python="/opt/polylocal/bin/python",
    environment={"DOCKER_HOST": "unix:///run/user/1000/docker.sock", "POLYLOCAL_MAX_RUNS": "3"},
)

UNIT = """\
[Unit]
Description=polylocal, the Polyaxon v0 API on this machine
StartLimitIntervalSec=0

[Service]
Environment="DOCKER_HOST=unix:///run/user/1000/docker.sock"
Environment="POLYLOCAL_MAX_RUNS=3"
ExecStart="/opt/polylocal/bin/python" "-m" "polylocal" "serve" "--background" "--home" "/home/ann/.polylocal"
KillMode=process
Restart=on-failure
RestartSec=30

[Install]
WantedBy=default.target
"""

PLIST = """\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key>
	<string>io.polylocal.daemon</string>
	<key>ProgramArguments</key>
	<array>
		<string>/opt/polylocal/bin/python</string>
		<string>-m</string>
		<string>polylocal</string>
		<string>serve</string>
		<string>--background</string>
		<string>--home</string>
		<string>/home/ann/.polylocal</string>
	</array>
	<key>EnvironmentVariables</key>
	<dict>
		<key>DOCKER_HOST</key>
		<string>unix:///run/user/1000/docker.sock</string>
		<key>POLYLOCAL_MAX_RUNS</key>
		<string>3</string>
	</dict>
	<key>RunAtLoad</key>
	<true/>
	<key>KeepAlive</key>
	<dict>
		<key>SuccessfulExit</key>
		<false/>
	</dict>
	<key>ThrottleInterval</key>
	<integer>5</integer>
	<key>AbandonProcessGroup</key>
	<true/>
	<key>StandardOutPath</key>
	<string>/home/ann/.polylocal/daemon.out</string>
	<key>StandardErrorPath</key>
	<string>/home/ann/.polylocal/daemon.out</string>
</dict>
</plist>
"""


def test_the_files() -> None:
    assert render_unit(PLAIN) == UNIT
    assert render_plist(PLAIN) == PLIST


def test_without_an_environment() -> None:
    bare = Service(PLAIN.home, PLAIN.python)
    assert "Environment" not in render_unit(bare)
    assert "EnvironmentVariables" not in render_plist(bare)


def words(text: str) -> list[str]:
    """Parses quoted words as in systemd.syntax(7), and `%%` as in systemd.unit(5)."""
    found = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    assert " ".join(f'"{word}"' for word in found) == text
    escaped = (re.sub(r"\\(x..|.)", lambda m: _character(m[1]), word) for word in found)
    return [re.sub("%(.)", lambda m: {"%": "%"}[m[1]], word) for word in escaped]


def _character(code: str) -> str:
    return chr(int(code[1:], 16)) if code.startswith("x") else {"\\": "\\", '"': '"'}[code]


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(NAMES, NAMES)
def test_any_name_and_any_value_arrive_as_they_are(folder: str, value: str) -> None:
    made = Service(Home(Path("/" + folder)), "/usr/bin/python3", {"POLYLOCAL_X": value})
    unit = render_unit(made)
    assert len(unit.split("\n")) == len(UNIT.split("\n")) - 1
    (command,) = re.findall("^ExecStart=(.*)$", unit, re.MULTILINE)
    assert command.startswith(":") == ("$" in command)
    assert words(command.removeprefix(":")) == made.command
    (environment,) = re.findall("^Environment=(.*)$", unit, re.MULTILINE)
    assert words(environment) == [f"POLYLOCAL_X={value}"]


@given(NAMES)
def test_any_name_in_a_property_list_or_a_clear_error(folder: str) -> None:
    made = Service(Home(Path("/" + folder)), "/usr/bin/python3")
    try:
        text = render_plist(made)
    except SetupError:
        assert any(not character.isprintable() for character in folder)
        return
    assert plistlib.loads(text.encode())["ProgramArguments"] == made.command


@pytest.mark.parametrize("name", ["a\r\nb", "a\rb", "\r"])
def test_a_carriage_return_is_refused_in_a_property_list(name: str) -> None:
    """A property list turns it into a line feed, so the service would run with a different folder."""
    with pytest.raises(SetupError, match="carriage return"):
        render_plist(Service(Home(Path("/" + name)), "/usr/bin/python3"))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd's own word on it")
@pytest.mark.parametrize("folder", ["plain", 'a b%h "q" \\ $HOME ä'])
def test_systemd_takes_it(folder: str, tmp_path: Path) -> None:
    made = Service(Home(tmp_path / folder), environment={"POLYLOCAL_X": folder})
    (tmp_path / "polylocal.service").write_text(render_unit(made))
    done = subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "verify", str(tmp_path / "polylocal.service")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert "polylocal.service" not in done.stdout + done.stderr, done.stderr


def test_the_variables_that_a_service_keeps() -> None:
    environ = {
        "POLYLOCAL_PORT": "9",
        "DOCKER_HOST": "x",
        "PATH": "/bin",
        "POLYLOCAL_HOME": "/h",
        "POLYLOCAL_TOKEN": "secret",
        "POLYLOCAL_URL": "u",
    }
    assert list(kept_variables(environ).items()) == [("DOCKER_HOST", "x"), ("POLYLOCAL_PORT", "9")]


# -- with programs that record their arguments ----------------------------------------------------------------------

SYSTEMCTL = """\
#!/bin/sh
echo "${{0##*/}} $*" >> "{folder}/calls"
case "$*" in
  *show-environment*) [ ! -e "{folder}/away" ] ;;
  *is-active*) [ -e "{folder}/active" ] && echo active || {{ echo inactive; exit 3; }} ;;
  *is-enabled*) echo enabled ;;
  *"enable --now"*) [ ! -e "{folder}/broken" ] || {{ echo "Failed to enable" >&2; exit 1; }}; touch "{folder}/active" ;;
  *"disable --now"*) rm -f "{folder}/active" ;;
esac
"""
LAUNCHCTL = """\
#!/bin/sh
echo "${{0##*/}} $*" >> "{folder}/calls"
case "$1" in
  print) [ -e "{folder}/active" ] && echo "	state = running" || exit 113 ;;
  bootstrap) touch "{folder}/active" ;;
  bootout) rm -f "{folder}/active" ;;
esac
"""


class Programs:
    """systemctl and launchctl that record their arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in (("systemctl", SYSTEMCTL), ("launchctl", LAUNCHCTL)):
            (folder / name).write_text(text.format(folder=folder))
            (folder / name).chmod(0o755)
        self.environ = {"PATH": f"{folder}:/bin:/usr/bin", "HOME": str(folder / "home")}

    def calls(self) -> list[str]:
        file = self.folder / "calls"
        found = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [call for call in found if not re.search(r"show-environment|launchctl print", call)]


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    (tmp_path / "bin").mkdir()
    return Programs(tmp_path / "bin")


def test_systemd_from_install_to_remove(programs: Programs) -> None:
    found = manager(programs.environ, "linux")
    file = programs.folder / "home/.config/systemd/user/polylocal.service"
    assert "not installed" in found.status()
    assert found.would_start_another()
    done = found.install(PLAIN)
    assert (found.file, file.read_text()) == (file, UNIT)
    assert done.lines == [
        f"{file} written",
        "It contains these variables of your environment: DOCKER_HOST, POLYLOCAL_MAX_RUNS",
        "The daemon is started, now and whenever you log in",
    ]
    assert done.next_commands[0].startswith("loginctl enable-linger")
    enable = ["systemctl --user daemon-reload", "systemctl --user enable --now polylocal.service"]
    restart = ["systemctl --user restart polylocal.service"]
    programs_calls = [call for call in programs.calls() if "is-active" not in call]
    assert programs_calls == enable + restart
    assert not found.would_start_another()
    assert found.install(PLAIN).lines[0] == f"{file} exists already and is up to date"
    assert [call for call in programs.calls() if "is-active" not in call] == enable
    other = Service(Home(Path("/other")), PLAIN.python)
    assert found.install(other).lines[0] == f"{file} replaced, since it was different"
    assert programs.calls() == enable + restart
    assert found.status() == f"{file}: enabled, active"
    programs.calls()
    assert found.remove().lines == [
        "The daemon has ended",
        f"{file} removed; the home folder and running containers stay",
    ]
    assert not file.exists()
    assert programs.calls() == ["systemctl --user disable --now polylocal.service", "systemctl --user daemon-reload"]
    assert found.remove().lines == [f"There is no {file}: nothing to remove"]
    assert programs.calls() == []


def test_without_a_systemd_of_the_user(programs: Programs, tmp_path: Path) -> None:
    (programs.folder / "away").touch()
    for environ in (programs.environ, {**programs.environ, "PATH": "/nowhere"}):
        found = manager({**environ, "XDG_CONFIG_HOME": str(tmp_path / "config")}, "linux")
        assert found.file == tmp_path / "config/systemd/user/polylocal.service"
        assert not found.would_start_another()
        assert found.install(PLAIN).next_commands == [
            "systemctl --user daemon-reload",
            "systemctl --user enable --now polylocal.service",
        ]
        assert "your systemd user instance does not answer" in found.status()
        assert "a running daemon continues" in found.remove().lines[0]
        assert programs.calls() == []


def test_systemd_that_refuses(programs: Programs) -> None:
    (programs.folder / "broken").touch()
    with pytest.raises(SetupError, match="`systemctl --user enable --now polylocal.service` failed: Failed to enable"):
        manager(programs.environ, "linux").install(PLAIN)


def test_a_folder_that_can_not_be_written(programs: Programs) -> None:
    (programs.folder / "home").write_text("")
    with pytest.raises(SetupError, match="can't be"):
        manager(programs.environ, "linux").install(PLAIN)


def test_launchd_from_install_to_remove(programs: Programs) -> None:
    found = manager(programs.environ, "darwin")
    file = programs.folder / "home/Library/LaunchAgents/io.polylocal.daemon.plist"
    domain = f"gui/{os.getuid()}"
    bootstrap, bootout = f"launchctl bootstrap {domain} {file}", f"launchctl bootout {domain}/io.polylocal.daemon"
    assert found.would_start_another()
    assert found.install(PLAIN).lines[0] == f"{file} written"
    assert file.read_text() == PLIST
    assert programs.calls() == [bootstrap]
    assert found.install(PLAIN).lines[0] == f"{file} exists already and is up to date"
    assert programs.calls() == []
    assert found.status() == f"{file}: running"
    found.install(Service(Home(Path("/other")), PLAIN.python))
    assert programs.calls() == [bootout, bootstrap]
    assert found.remove().lines[0] == "The daemon has ended"
    assert programs.calls() == [bootout]
    assert found.remove().lines == [f"There is no {file}: nothing to remove"]


def test_a_machine_of_another_kind() -> None:
    with pytest.raises(SetupError, match="on plan9 polylocal knows no service manager"):
        autostart.manager({}, "plan9")
