"""The original command lines and clients, unmodified, on the Python that runs the tests."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from programs import ForkedProcess, ForkServer, fork_server
from support import eventually

from polylocal.client.http import RunReference

T = TypeVar("T")

VERSIONS = ("0.2.9", "0.6.1")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_SHIM = HERE / "shim.py"


# Environments


def environment(version: str) -> Path:
    """The virtual environment with polyaxon-cli of this version; made when it is not there, or is another one."""
    folder = ROOT / ".venv-clients" / version
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / "polylocal-stamp"
        wanted = _recipe(version, folder)
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            _make(version, folder)
            stamp.write_text(wanted)
    return folder


def _recipe(version: str, folder: Path) -> str:
    """Changes with what is installed, with the Python, and when the folder was moved."""
    parts = [(HERE / f"{kind}-{version}.txt").read_bytes() for kind in ("cli", "client")]
    return hashlib.sha256(b"\0".join([*parts, _SHIM.read_bytes(), f"{folder} {sys.version}".encode()])).hexdigest()


def _make(version: str, folder: Path) -> None:
    requirements = ["--no-deps", "--quiet", "--requirement", str(HERE / f"cli-{version}.txt")]
    python = folder / "bin/python"
    if uv := _uv():
        # uv brings its own list of certificates, and trusts what the machine trusts only when told to.
        env = {**os.environ, "UV_SYSTEM_CERTS": "1"}
        _call([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], env)
        _call([uv, "pip", "install", "--python", str(python), "--compile-bytecode", *requirements], env)
    else:
        venv.create(folder, with_pip=True, symlinks=True)
        _call([str(python), "-m", "pip", "install", "--disable-pip-version-check", *requirements], dict(os.environ))
    # not a sitecustomize, since the Python of some systems has one already, and that one wins
    packages = next(folder.glob("lib/python3*/site-packages"))
    shutil.copy(_SHIM, packages / "polylocal_shim.py")
    (packages / "polylocal_shim.pth").write_text("import polylocal_shim\n")


def _uv() -> str | None:
    own = ROOT / ".venv-tools/bin/uv"  # put there by scripts/setup
    return str(own) if own.exists() else shutil.which("uv")


def _call(command: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# Programs


@dataclass
class Command:
    """A started command. Its standard output and error go into one file, as on a terminal."""

    arguments: tuple[str, ...]
    printed: Path
    process: ForkedProcess

    @property
    def text(self) -> str:
        return self.printed.read_text(errors="replace")

    def shows(self, text: str, times: int = 1) -> None:
        """Wait until it has printed this."""
        try:
            eventually(lambda: self.text.count(text) >= times, 90)
        except AssertionError:
            raise AssertionError(f"{' '.join(self.arguments)} printed, without {text!r}:\n{self.text}") from None

    def wait(self) -> int:
        """The exit code; the test's own time limit is the limit."""
        return self.process.wait()

    def end(self) -> None:
        """Kill it, if it has not ended by itself."""
        self.process.kill()
        self.process.wait()


@dataclass
class Program:
    """The polyaxon command of one version."""

    version: str
    folder: Path
    server: ForkServer

    def begin(
        self, arguments: tuple[str, ...], *, folder: Path, environment: dict[str, str], printed: Path, answers: str = ""
    ) -> Command:
        program = ["-m", "polyaxon", *arguments]
        with tempfile.TemporaryFile() as stdin, printed.open("wb") as out:
            stdin.write(answers.encode())
            stdin.flush()
            stdin.seek(0)
            process = self.server.start(
                program, environment=environment, folder=folder, stdin=stdin, stdout=out, stderr=out
            )
        return Command(arguments, printed, process)


@contextmanager
def resident(version: str, folder: Path) -> Iterator[Program]:
    """The program of an environment, ready for commands."""
    python, environment = str(folder / "bin/python"), surroundings(Path("/nonexistent"))
    with (
        (folder / "polylocal-resident.log").open("wb") as log,
        fork_server(python, "polyaxon_cli.main:cli", environment=environment, log=log) as server,
    ):
        yield Program(version, folder, server)


def surroundings(home: Path) -> dict[str, str]:
    """The environment of a person with this home, in which nothing speaks of Polyaxon yet."""
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "NO_PROXY": "127.0.0.1",
        "PYTHONWARNINGS": "ignore",
    }


# People


@dataclass
class Person:
    """A user at a desk: one version of the program, a home where it keeps its settings, a folder to work in."""

    name: str
    password: str
    token: str
    program: Program
    home: Path
    folder: Path
    project: str = ""
    begun: list[Command] = field(default_factory=list)

    @property
    def version(self) -> str:
        return self.program.version

    @property
    def is_old(self) -> bool:
        return self.version.startswith("0.2.")

    def begin(self, *arguments: str, answers: str = "") -> Command:
        """Start `polyaxon …` and go on; what still runs at the end of the test is killed."""
        command = self.program.begin(
            arguments,
            folder=self.folder,
            environment=surroundings(self.home),
            printed=self.home / f"printed-{len(self.begun)}",
            answers=answers,
        )
        self.begun.append(command)
        return command

    def polyaxon(self, *arguments: str, answers: str = "", code: int = 0) -> str:
        """What `polyaxon …` prints. It must end with this exit code, and never crash."""
        command = self.begin(*arguments, answers=answers)
        found = command.wait()
        text = command.text
        assert found == code, f"polyaxon {' '.join(arguments)} ended with {found}:\n{text}"
        assert "Traceback" not in text, f"polyaxon {' '.join(arguments)} crashed:\n{text}"
        return text

    def configure(self, url: str) -> None:
        """Tell the program where the daemon is."""
        port = url.rpartition(":")[2]
        ports = [f"--http_port={port}", f"--ws_port={port}"] if self.is_old else [f"--port={port}"]
        self.polyaxon("config", "set", "--host=127.0.0.1", *ports, "--use_https=false")

    def init(self, project: str) -> str:
        """Make the working folder one of this project. The old program ends with 1 although all is well."""
        return self.polyaxon("init", project, code=int(self.is_old))

    def begin_project(self, name: str) -> None:
        """Make a project, and the working folder one of it."""
        self.polyaxon("project", "create", f"--name={name}")
        self.init(name)
        self.project = name

    def run(self, *arguments: str) -> RunReference:
        """`polyaxon run …`, and where the run is then found."""
        return self.made(self.polyaxon("run", *arguments))

    def made(self, said: str) -> RunReference:
        """The run whose making was announced."""
        found = re.search(r"(Job|Build|Experiment)(?: group)? `?(\d+)`? was (?:created|started)", said)
        assert found, said
        kind = "group" if " group " in found[0] else found[1].lower()
        return RunReference(self.name, self.project, kind, int(found[2]))

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)

    def leave(self) -> None:
        """End what still runs."""
        for command in self.begun:
            command.end()


@dataclass
class SideBySide:
    """One person for each version."""

    people: dict[str, Person]

    def each(self, work: Callable[[Person], T]) -> dict[str, T]:
        """Let all of them do this, at the same time. What goes wrong says with which version it did."""
        with ThreadPoolExecutor(len(self.people)) as pool:
            begun = {version: pool.submit(work, person) for version, person in self.people.items()}
            try:
                wait(begun.values())
            except BaseException:  # the test's time is over: don't wait for the rest
                for person in self.people.values():
                    person.leave()
                raise
        for version, done in begun.items():
            if error := done.exception():
                error.add_note(f"with polyaxon-cli {version}")
        wrong = [error for done in begun.values() if (error := done.exception())]
        if len(wrong) > 1:
            raise BaseExceptionGroup("with every version", wrong)
        return {version: done.result() for version, done in begun.items()}


# What is printed


def facts(text: str) -> dict[str, str]:
    """The two columns in which one thing is shown."""
    pairs = (re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in text.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and not pair[0].startswith("---")}


def rows(text: str, heading: str) -> list[dict[str, str]]:
    """The table below a heading. Its columns are cut where its rulers are, since cells may be empty or hold spaces."""
    lines = text.partition(f"{heading}\n")[2].lstrip("\n").splitlines()
    if len(lines) < 2:
        return []
    columns = [(match.start(), match.end()) for match in re.finditer("-+", lines[1])]
    ends = [start for start, _ in columns[1:]] + [None]
    cells = [[line[start:end].strip() for (start, _), end in zip(columns, ends, strict=True)] for line in lines]
    body = cells[2:]
    return [dict(zip(cells[0], row, strict=True)) for row in body if any(row)]
