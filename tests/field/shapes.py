"""The polyaxonfiles of this folder, and their expected results (`expect.toml`)."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polylocal.cli.files import Options, Written, combine
from polylocal.polyaxonfile import SourceFile, Specification, of_member, parse
from polylocal.runner.search import next_suggestions
from polylocal.statuses import Kind

FOLDER = Path(__file__).parent
BASH, SH = "/bin/bash", "/bin/sh"
OUTPUTS = "/made/1"  # the outputs folder of runs in these tests

_RECORDER = """#!/bin/sh
printf '%s\\0' "$#" "${0#$BIN/}" "$@" >> "$RECORD"
"""


@dataclass(frozen=True)
class Shape:
    """One file with its expected results. The fields are explained in `expect.toml`."""

    path: Path
    kind: str | None = None
    options: list[str] = field(default_factory=list)
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: list[str] | None = None
    name: str | None = None
    commands: list[list[str]] = field(default_factory=list)
    from_json: list[list[str]] | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    shells: Sequence[str] = (BASH, SH)
    exit: int = 0
    prints: str = ""
    is_unordered: bool = False
    instructions: list[str] = field(default_factory=list)
    dockerfile: str | None = None
    point: Mapping[str, Any] | None = None
    points: int | None = None
    notes: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    without_env: list[str] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)
    runs: bool = True
    refused: list[str] = field(default_factory=list)
    refused_like: str | None = None

    @property
    def is_refused(self) -> bool:
        return bool(self.refused or self.refused_like)

    @property
    def has_command(self) -> bool:
        return self.kind in (Kind.JOB, Kind.EXPERIMENT, Kind.GROUP)

    @property
    def written(self) -> Written:
        """The file as the command line sends it."""
        return combine([self.path], Options(params=self.options))

    @property
    def specification(self) -> Specification:
        written = self.written
        return self.parsed(written.text, [SourceFile(name, line) for name, line in written.files])

    def parsed(self, source: object, files: Sequence[SourceFile] = ()) -> Specification:
        return parse(source, Kind(self.kind or ""), files=files)

    def run(self, specification: Specification) -> Specification:
        """The specification with a command: the file itself, or an experiment of its group."""
        return of_member(specification, self._first_point(specification)) if self.kind == Kind.GROUP else specification

    def _first_point(self, group: Specification) -> Mapping[str, Any]:
        return self.point or first_iteration(group)[0]


def first_iteration(group: Specification) -> list[Mapping[str, Any]]:
    """The params of a search's first experiments."""

    def nothing(*_: object) -> None:
        raise AssertionError("the first iteration asks for no model")

    return [suggestion.params for suggestion in next_suggestions(group.hptuning, "seed", [], nothing)]


def _shapes() -> list[Shape]:
    expected = tomllib.loads((FOLDER / "expect.toml").read_text("utf-8"))
    return [Shape(_path(name), **about) for name, about in expected.items()]


def _path(name: str) -> Path:
    return next((path for path in map(FOLDER.joinpath, (f"{name}.yml", f"{name}.json")) if path.exists()), FOLDER)


SHAPES = _shapes()


def by_name(name: str) -> Shape:
    return next(shape for shape in SHAPES if shape.path.stem == name)


@dataclass(frozen=True)
class CommandResult:
    """The result of a command line in a shell."""

    commands: list[list[str]]
    exit: int
    prints: str


def run_command(
    arguments: Sequence[str], folder: Path, programs: Sequence[str], files: Mapping[str, str]
) -> CommandResult:
    """Run a command line on this machine, with programs that only record their arguments."""
    work, programs_folder, record = folder / "work", folder / "bin", folder / "record"
    work.mkdir()
    record.touch()
    for name, text in files.items():
        (work / name).write_text(text)
    for program in programs:
        path = (work if "/" in program else programs_folder) / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_RECORDER)
        path.chmod(0o755)
    env = {
        "PATH": f"{programs_folder}:/usr/bin:/bin",
        "BIN": str(programs_folder),
        "RECORD": str(record),
        "POLYAXON_RUN_OUTPUTS_PATH": OUTPUTS,
    }
    # background processes hold the pipe, so this waits for them, too
    done = subprocess.run(arguments, cwd=work, env=env, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    return CommandResult(_parse_record(record.read_text("utf-8")), done.returncode, done.stdout)


def _parse_record(text: str) -> list[list[str]]:
    """Each record contains the number of arguments, the program and the arguments."""
    words, found = text.split("\0"), []
    while len(words) > 1:
        count = int(words[0])
        found.append(words[1 : count + 2])
        words = words[count + 2 :]
    return found
