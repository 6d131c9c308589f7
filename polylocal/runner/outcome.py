"""How a run ended: what the engine saw → status, message, whose fault. Pure. No exit code of 0, no success."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polylocal.statuses import Kind, Status

DISK_FULL = "disk-full"  # the reason of what failed because a disk of this machine had no room
_SHOWN = 160  # characters of the log's last line that fit into a message

STOPPED = {
    Kind.BUILD: "BuildJob was stopped.",
    Kind.JOB: "Job was stopped.",
    Kind.EXPERIMENT: "Experiment was stopped",
    Kind.GROUP: "User stopped experiment group",
    Kind.NOTEBOOK: "Notebook was stopped",
    Kind.TENSORBOARD: "Tensorboard was stopped",
    Kind.PACKAGE: "Package build was stopped.",
}
DELETED = {
    Kind.BUILD: "Build is scheduled for deletion.",
    Kind.JOB: "Job is scheduled for deletion.",
    Kind.EXPERIMENT: "Experiment is scheduled for deletion.",
    Kind.GROUP: "Group is scheduled for deletion.",
    Kind.NOTEBOOK: "Notebook is scheduled for deletion.",
    Kind.TENSORBOARD: "Tensorboard is scheduled for deletion.",
    Kind.PACKAGE: "Package build is scheduled for deletion.",
}


@dataclass(frozen=True)
class Outcome:
    status: Status
    message: str
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Ending:
    """The facts about a container that ended."""

    exit_code: int
    out_of_memory: bool = False  # the engine says so
    stop_requested: bool = False
    deleted: bool = False
    engine_was_away: bool = False  # the engine did not answer for a while during the run
    was_signalled: bool = False  # the engine was told to send it a signal
    was_told: bool = False  # its processes were told to end, because a stop was asked for
    was_unseen: bool = False  # it ended while no daemon was there to see how
    was_rebooted: bool = False  # the machine was started anew since the run began
    memory_limit_mib: float | None = None
    time_limit_s: float | None = None  # set: it was stopped because of this limit
    disk_was_full: bool = False  # the home folder's disk, at the end of the run
    last_line: str = ""

    @property
    def is_lost(self) -> bool:
        """The engine took the container with it when it ended, or somebody ended it behind our back."""
        if self.exit_code not in KILLS or self.stop_requested or self.deleted:
            return False
        if self.engine_was_away or self.was_signalled or self.was_rebooted:
            return True
        # an engine that comes up kills what it finds; 255 and a limit of memory have reasons of their own
        return self.was_unseen and self.exit_code != 255 and not self.memory_limit_mib


TIME_LIMIT = "time-limit"
GONE = "its container is gone"
KILLS = (137, 143, 255)  # exit codes of what was killed
KILLED_WITH_ENGINE = "the engine went away while it ran and its container was killed"
REBOOTED = "the machine was started anew while it ran"
KILLED = "its container was stopped through the engine, by its end or by somebody else"


def loss(ending: Ending) -> str:
    """How a run was lost that `is_lost`."""
    if ending.was_rebooted:
        return REBOOTED
    return KILLED_WITH_ENGINE if ending.engine_was_away else KILLED


def of(kind: Kind, ending: Ending) -> Outcome:
    code = ending.exit_code
    if ending.deleted:
        return Outcome(Status.STOPPED, DELETED[kind], {"exit_code": code})
    if ending.time_limit_s is not None and (code or ending.was_told):  # it saved its work, and did not complete it
        return timed_out(ending.time_limit_s, code)
    if ending.stop_requested and ending.time_limit_s is None:
        return Outcome(Status.STOPPED, STOPPED[kind], {"exit_code": code})
    if code == 0:
        return Outcome(Status.SUCCEEDED, "Completed", {"exit_code": 0})
    if ending.is_lost:
        return lost(loss(ending), code)
    if ending.out_of_memory:
        return _failed(code, "memory", f"Out of memory{_limit(ending)}: killed (exit code {code})")
    if code == 137 and ending.memory_limit_mib:
        # some hosts never tell that memory was the reason; nobody else kills with a limit set
        return _failed(code, "memory", f"Exit code 137: killed, most likely out of memory{_limit(ending)}")
    if ending.disk_was_full:
        return _failed(code, DISK_FULL, f"Exit code {code} while the disk was full{_said(ending.last_line)}")
    return _failed(code, "program", f"Exit code {code}{_signal(code)}{_said(ending.last_line)}")


def lost(how: str, exit_code: int | None = None) -> Outcome:
    """The engine lost the run: not the program's fault, and never taken for a success."""
    return Outcome(Status.FAILED, f"engine-lost: {how}", {"reason": "engine-lost", "exit_code": exit_code})


def timed_out(limit_s: float, exit_code: int | None = None) -> Outcome:
    message = f"Stopped after {limit_s:g} s, the limit that is set (time_limit_s)"
    return Outcome(Status.FAILED, message, {"reason": TIME_LIMIT, "exit_code": exit_code})


def not_started(words: str) -> Outcome:
    return Outcome(Status.FAILED, f"Could not start: {words}", {"reason": _fault(words, "start")})


def build_failed(error: str, step: str) -> Outcome:
    where = f" at {step}" if step else ""
    details = {"reason": _fault(error, "build"), "step": step, "error": error}
    return Outcome(Status.FAILED, f"Build failed{where}: {error}", details)


def host_failed(words: str) -> Outcome:
    """The machine, or a bug of ours: nothing that the run did."""
    return Outcome(Status.FAILED, f"polylocal could not carry on: {words}", {"reason": _fault(words, "host")})


def should_restart(ending: Ending, restarts: int, max_restarts: int) -> bool:
    wanted = ending.stop_requested or ending.deleted
    return ending.exit_code != 0 and not wanted and restarts < max_restarts


def _fault(words: str, otherwise: str) -> str:
    """The engine says a full disk in words only."""
    return DISK_FULL if "no space left on device" in words.lower() else otherwise


def _failed(code: int, reason: str, message: str) -> Outcome:
    return Outcome(Status.FAILED, message, {"reason": reason, "exit_code": code})


def _limit(ending: Ending) -> str:
    return f" (limit {ending.memory_limit_mib:g} MiB)" if ending.memory_limit_mib else ""


def _signal(code: int) -> str:
    """128 + n is how a shell says that signal n ended the program."""
    try:
        return f" ({signal.Signals(code - 128).name})" if code > 128 else ""
    except ValueError:
        return ""


def _said(line: str) -> str:
    line = " ".join(line.split())
    return f": {line[:_SHOWN]}" if line else ""
