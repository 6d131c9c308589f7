"""BuildKit through the docker command, since docker-py does not support it (docker-py#2230)."""

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polylocal.engine.images import BuildRequest, BuildResult, Cancellation, OnLine

_STEP = re.compile(r"#\d+ (\[[^\]]*\d+/\d+\] .*)")
_ERROR = re.compile(r"^ERROR: (.*)")


@dataclass(frozen=True)
class BuildKit:
    """`command` reads a tar from its standard input and builds it."""

    name: str
    command: Sequence[str]
    address: str

    def build(self, request: BuildRequest, on_line: OnLine, cancel: Cancellation) -> BuildResult:
        """The image id of the result is "": ask the engine for the id of the tag."""
        arguments = [*self.command, "--progress=plain", f"--tag={request.tag}"]
        arguments += [f"--label={name}={value}" for name, value in request.labels.items()]
        arguments += ["--no-cache"] if request.nocache else []
        # the values are in the environment, since every user can read a command line
        arguments += [f"--build-arg={name}" for name in request.arguments]
        process = subprocess.Popen(
            [*arguments, "-"],
            stdin=request.context,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "DOCKER_HOST": self.address, "DOCKER_BUILDKIT": "1", **request.arguments},
            encoding="utf-8",
            errors="replace",
        )
        with process:
            cancel.on_call(process.terminate)
            step, error = _follow(process, on_line)
        if cancel.called:
            return BuildResult(None, "The build was stopped.", step)
        if process.returncode:
            return BuildResult(None, error or f"{self.name} ended with exit code {process.returncode}", step)
        return BuildResult("")


def find(address: str) -> BuildKit | None:
    """The first docker command on PATH that supports BuildKit: one with buildx, or a version before 23."""
    for folder in os.get_exec_path():
        docker = Path(folder) / "docker"
        if not os.access(docker, os.X_OK):
            continue
        if version := _output([str(docker), "buildx", "version"]):
            name = f"buildkit ({' '.join(version.split()[:2])})"
            return BuildKit(name, [str(docker), "buildx", "build", "--load"], address)
        found = re.search(r"version ((\d+)\.[\d.]+)", _output([str(docker), "--version"]))
        if found and int(found[2]) < 23:
            return BuildKit(f"buildkit (docker {found[1]})", [str(docker), "build"], address)
    return None


def _follow(process: subprocess.Popen[str], on_line: OnLine) -> tuple[str, str]:
    step = error = ""
    assert process.stdout is not None  # Popen made the pipe
    for line in process.stdout:
        line = line.rstrip("\r\n")
        if found := _STEP.match(line):
            step = found[1]
        if found := _ERROR.match(line):
            error = found[1]
        on_line(line)
    return step, error


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
