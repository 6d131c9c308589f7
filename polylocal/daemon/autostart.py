"""Installs the daemon as a service of the user: with systemd on Linux, launchd on macOS. Rendering is pure."""

import os
import plistlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from polylocal.errors import SetupError
from polylocal.files.disk import write_private
from polylocal.paths import Home

UNIT = "polylocal.service"
LABEL = "io.polylocal.daemon"
_CALL_S = 30.0
_KEPT_ENGINE = ("DOCKER_HOST",)
_NOT_KEPT = ("POLYLOCAL_HOME", "POLYLOCAL_URL", "POLYLOCAL_TOKEN", "POLYLOCAL_PROJECT")  # read by the command line only
_QUOTED = str.maketrans({"\\": "\\\\", '"': '\\"', "%": "%%", **{n: f"\\x{n:02x}" for n in (*range(1, 32), 127)}})


@dataclass(frozen=True)
class Service:
    """A service that runs `python -m polylocal serve` for a home folder, with some environment variables."""

    home: Home
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        return [self.python, "-m", "polylocal", "serve", "--background", "--home", str(self.home.root)]


def kept_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of an environment that the daemon reads, sorted: the engine's address, and settings."""
    names = (name for name in environ if name.startswith("POLYLOCAL_") and name not in _NOT_KEPT)
    return {name: environ[name] for name in sorted([*names, *(name for name in _KEPT_ENGINE if name in environ)])}


def render_unit(service: Service) -> str:
    """The systemd unit. When the daemon ends, its containers and child processes continue."""
    environment = "".join(f"Environment={_quote(f'{k}={v}')}\n" for k, v in service.environment.items())
    command = " ".join(_quote(part) for part in service.command)
    if "$" in command:
        command = f":{command}"  # `:` turns off the expansion of variables; systemd before 244 does not know it
    return f"""\
[Unit]
Description=polylocal, the Polyaxon v0 API on this machine
StartLimitIntervalSec=0

[Service]
{environment}ExecStart={command}
KillMode=process
Restart=on-failure
RestartSec=30

[Install]
WantedBy=default.target
"""


def _quote(text: str) -> str:
    """Quote a word for systemd, with its escapes and without specifiers (`%`)."""
    return f'"{text.translate(_QUOTED)}"'


def render_plist(service: Service) -> str:
    """The launchd property list. Raises SetupError."""
    output = str(service.home.daemon_output)
    content: dict[str, object] = {
        "Label": LABEL,
        "ProgramArguments": service.command,
        "EnvironmentVariables": dict(service.environment),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 5,
        "AbandonProcessGroup": True,  # child processes of the daemon continue
        "StandardOutPath": output,
        "StandardErrorPath": output,
    }
    if not service.environment:
        del content["EnvironmentVariables"]
    try:
        made = plistlib.dumps(content, sort_keys=False)
    except ValueError as error:
        raise SetupError(f"launchd can't read a name or a value: {error}") from error
    if plistlib.loads(made) != content:
        raise SetupError("launchd can't read a name or a value: it contains a carriage return")
    return made.decode()


@dataclass(frozen=True)
class Outcome:
    """The result of an installation or a removal: messages, and commands for the user to run."""

    lines: list[str]
    next_commands: list[str] = field(default_factory=list)


class Manager:
    """Base class of the service managers: the services of one user on this machine."""

    def __init__(self, environ: Mapping[str, str], home: Path) -> None:
        self._environ = environ
        self._home = home

    render: Callable[[Service], str]

    @property
    def file(self) -> Path:
        raise NotImplementedError

    def install(self, service: Service) -> Outcome:
        """Write the file and start the daemon. Raises SetupError."""
        text = self.render(service)
        before = self._read()
        lines = [f"{self.file} exists already and is up to date"]
        if before != text:
            self._write(text)
            lines = [f"{self.file} {'written' if before is None else 'replaced, since it was different'}"]
        if service.environment:
            lines.append(f"It contains these variables of your environment: {', '.join(service.environment)}")
        return Outcome([*lines, *self._start(is_new=before != text)], self._next_commands())

    def remove(self) -> Outcome:
        """Stop the daemon and remove the file. Raises SetupError."""
        if self._read() is None:
            return Outcome([f"There is no {self.file}: nothing to remove"])
        lines = self._stop()
        self.file.unlink()
        self._after_removal()
        return Outcome([*lines, f"{self.file} removed; the home folder and running containers stay"])

    def would_start_another(self) -> bool:
        """Whether `install` would start a daemon, because the service is not running."""
        raise NotImplementedError

    def status(self) -> str:
        """The file and the state of the service, in one line."""
        if self._read() is None:
            return f"not installed; `polylocal service install` writes {self.file}"
        return f"{self.file}: {self._state()}"

    def _start(self, is_new: bool) -> list[str]:
        raise NotImplementedError

    def _stop(self) -> list[str]:
        raise NotImplementedError

    def _after_removal(self) -> None:
        """Called after the file was removed."""

    def _state(self) -> str:
        raise NotImplementedError

    def _next_commands(self) -> list[str]:
        return []

    def _read(self) -> str | None:
        try:
            return self.file.read_text()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise SetupError(f"{self.file} can't be read: {error}") from error

    def _write(self, text: str) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_private(self.file, text)
        except (OSError, UnicodeError) as error:
            raise SetupError(f"{self.file} can't be written: {error}") from error

    def _call(self, *command: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command, env=dict(self._environ), capture_output=True, text=True, check=False, timeout=_CALL_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(command, 127, "", str(error))

    def _check_call(self, *command: str) -> None:
        done = self._call(*command)
        if done.returncode:
            words = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
            raise SetupError(f"`{' '.join(command)}` failed: {words}")


class Systemd(Manager):
    @property
    def file(self) -> Path:
        config = self._environ.get("XDG_CONFIG_HOME") or ""
        # the XDG specification: ignore relative paths
        return (Path(config) if config.startswith("/") else self._home / ".config") / "systemd" / "user" / UNIT

    render = staticmethod(render_unit)

    def would_start_another(self) -> bool:
        return self._answers() and self._call("systemctl", "--user", "is-active", "--quiet", UNIT).returncode != 0

    def _start(self, is_new: bool) -> list[str]:
        if not self._answers():
            return []
        self._check_call("systemctl", "--user", "daemon-reload")
        self._check_call("systemctl", "--user", "enable", "--now", UNIT)
        if is_new:
            self._check_call("systemctl", "--user", "restart", UNIT)  # it may have run with the old file
        return ["The daemon is started, now and whenever you log in"]

    def _next_commands(self) -> list[str]:
        if not self._answers():
            return ["systemctl --user daemon-reload", f"systemctl --user enable --now {UNIT}"]
        return ["loginctl enable-linger    # to run it while you are not logged in"]

    def _stop(self) -> list[str]:
        if not self._answers():
            return ["Your systemd user instance does not answer here: a running daemon continues"]
        self._check_call("systemctl", "--user", "disable", "--now", UNIT)
        return ["The daemon has ended"]

    def _after_removal(self) -> None:
        if self._answers():
            self._check_call("systemctl", "--user", "daemon-reload")

    def _state(self) -> str:
        if not self._answers():
            return "your systemd user instance does not answer here"
        words = (self._call("systemctl", "--user", verb, UNIT).stdout.strip() for verb in ("is-enabled", "is-active"))
        return ", ".join(word or "unknown" for word in words)

    def _answers(self) -> bool:
        """Whether a systemd instance of the user is running; in containers and with `su` there is none."""
        return self._call("systemctl", "--user", "show-environment").returncode == 0


class Launchd(Manager):
    @property
    def file(self) -> Path:
        return self._home / "Library" / "LaunchAgents" / f"{LABEL}.plist"

    render = staticmethod(render_plist)

    def would_start_another(self) -> bool:
        return not self._is_loaded()

    def _start(self, is_new: bool) -> list[str]:
        is_loaded = self._is_loaded()
        if is_loaded and is_new:
            self._check_call("launchctl", "bootout", f"{self._domain}/{LABEL}")
        if is_new or not is_loaded:
            self._check_call("launchctl", "bootstrap", self._domain, str(self.file))
        return ["The daemon is started, now and whenever you log in"]

    def _stop(self) -> list[str]:
        if not self._is_loaded():
            return []
        self._check_call("launchctl", "bootout", f"{self._domain}/{LABEL}")
        return ["The daemon has ended"]

    def _state(self) -> str:
        found = self._call("launchctl", "print", f"{self._domain}/{LABEL}")
        states = [line.strip() for line in found.stdout.splitlines() if line.strip().startswith("state = ")]
        return "not loaded" if found.returncode else (states or ["loaded"])[0].removeprefix("state = ")

    def _is_loaded(self) -> bool:
        return self._call("launchctl", "print", f"{self._domain}/{LABEL}").returncode == 0

    @property
    def _domain(self) -> str:
        return f"gui/{os.getuid()}"


def manager(environ: Mapping[str, str], platform: str = sys.platform) -> Manager:
    """The service manager of this platform. Raises SetupError if it is not supported."""
    kinds: dict[str, Callable[[Mapping[str, str], Path], Manager]] = {"linux": Systemd, "darwin": Launchd}
    if platform not in kinds:
        raise SetupError(f"on {platform} polylocal knows no service manager; `polylocal start` starts the daemon")
    return kinds[platform](environ, Path(environ.get("HOME") or Path.home()))
