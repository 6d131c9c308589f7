"""Decides how a run ended: status, message and reason, from the facts about its container. Pure.

Only exit code 0 is a success.
"""

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polylocal.statuses import Kind, Status

DISK_FULL = "disk-full"  # the reason of a failure for lack of space on a disk of this machine
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
DELETED = {kind: f"{kind.capitalize()} is scheduled for deletion." for kind in Kind}
DELETED[Kind.PACKAGE] = "Package build is scheduled for deletion."


@dataclass(frozen=True)
class Outcome:
    status: Status
    message: str
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Ending:
    """The facts about a container that ended."""

    exit_code: int
    out_of_memory: bool = False  # as the engine reports
    stop_requested: bool = False
    deleted: bool = False
    engine_was_away: bool = False  # the engine did not answer for a while during the run
    was_signalled: bool = False  # a client of the engine sent it a signal
    was_terminated: bool = False  # a stop request terminated its processes
    was_unseen: bool = False  # no daemon was running when it ended
    was_rebooted: bool = False  # the machine was restarted after the run had begun
    engine_was_restarted: bool = False  # the engine recorded this end at its own start
    memory_limit_mib: float | None = None
    time_limit_s: float | None = None  # the limit that it was stopped for
    disk_was_full: bool = False  # the home folder's disk, at the end of the run
    last_line: str = ""

    @property
    def is_lost(self) -> bool:
        """Whether the container ended with the engine, or another client of the engine ended it."""
        if self.exit_code not in KILLS or self.stop_requested or self.deleted:
            return False
        if self.engine_was_away or self.was_signalled or self.was_rebooted:
            return True
        if self.engine_was_restarted and not self.out_of_memory:
            return True
        # an engine that does not record its own start; 255 and memory limits have other causes
        return self.was_unseen and self.exit_code != 255 and not self.memory_limit_mib


TIME_LIMIT = "time-limit"
GONE = "its container is gone"
KILLS = (137, 143, 255)  # exit codes of killed programs
START_UNKNOWN = "the engine went away while its container was being started"
KILLED_WITH_ENGINE = "the engine went away while it ran and its container was killed"
REBOOTED = "the machine was restarted while it ran"
KILLED = "its container was stopped through the engine, by the engine's end or by another client"


def loss(ending: Ending) -> str:
    """The cause of a loss. Call it for an ending that `is_lost`."""
    if ending.was_rebooted:
        return REBOOTED
    return KILLED_WITH_ENGINE if ending.engine_was_away or ending.engine_was_restarted else KILLED


def of(kind: Kind, ending: Ending) -> Outcome:
    code = ending.exit_code
    if ending.deleted:
        return Outcome(Status.STOPPED, DELETED[kind], {"exit_code": code})
    if ending.time_limit_s is not None and (code or ending.was_terminated):  # 0 after a stop is not a success
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
        # some hosts don't report the lack of memory; with a limit set, it is the likely cause of a kill
        return _failed(code, "memory", f"Exit code 137: killed, most likely out of memory{_limit(ending)}")
    if ending.disk_was_full:
        return _failed(code, DISK_FULL, f"Exit code {code} while the disk was full{_said(ending.last_line)}")
    return _failed(code, "program", f"Exit code {code}{_signal(code)}{_said(ending.last_line)}")


def lost(how: str, exit_code: int | None = None) -> Outcome:
    """The engine lost the run. That is not the program's fault, and never a success."""
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
    """The machine or a bug of polylocal is the cause, not the run."""
    return Outcome(Status.FAILED, f"polylocal could not carry on: {words}", {"reason": _fault(words, "host")})


def should_restart(ending: Ending, restarts: int, max_restarts: int) -> bool:
    wanted = ending.stop_requested or ending.deleted
    return ending.exit_code != 0 and not wanted and restarts < max_restarts


def _fault(words: str, otherwise: str) -> str:
    """The reason. The engine reports a full disk only in the text of an error."""
    return DISK_FULL if "no space left on device" in words.lower() else otherwise


def _failed(code: int, reason: str, message: str) -> Outcome:
    return Outcome(Status.FAILED, message, {"reason": reason, "exit_code": code})


def _limit(ending: Ending) -> str:
    return f" (limit {ending.memory_limit_mib:g} MiB)" if ending.memory_limit_mib else ""


def _signal(code: int) -> str:
    """The name of the signal that ended the program: shells exit with 128 + its number."""
    try:
        return f" ({signal.Signals(code - 128).name})" if code > 128 else ""
    except ValueError:
        return ""


def _said(line: str) -> str:
    line = " ".join(line.split())
    return f": {line[:_SHOWN]}" if line else ""
