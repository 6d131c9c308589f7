"""The daemon's own log: a line of JSON an event, in files that take turns. The logs of runs are files of their own.

A log that can't be written must not keep the daemon from its work: what can't be kept is dropped, in silence.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from contextlib import suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, cast

from pythonjsonlogger.json import JsonFormatter

from polylocal import clock
from polylocal.settings import Settings
from polylocal.text import visible

_NOISY = ("uvicorn", "urllib3", "docker", "watchfiles", "httpx2")
_RUN = re.compile(r"run=(\w+/\d+)")


def configure(settings: Settings, *, on_screen: bool = True) -> None:
    """Send what the daemon has to say to its log, and, for whoever watches, to standard error as text."""
    logging.raiseExceptions = False  # a full disk would put a traceback an event on standard error
    path = settings.folders.daemon_log
    handlers: list[logging.Handler] = [_file(path, settings.daemon_log_mib << 20, settings.daemon_log_files)]
    if on_screen:
        handlers.append(_screen())
    logging.basicConfig(level=settings.log_level, handlers=handlers, force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel("WARNING")


def _file(path: Path, size: int, files: int) -> logging.Handler:
    handler = _Private(path, maxBytes=size, backupCount=files - 1, encoding="utf-8", delay=True)
    handler.setFormatter(_Line(["time", "levelname", "name", "message"], rename_fields=_NAMES, json_ensure_ascii=False))
    return handler


def _screen() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain("%(asctime)s %(levelname)s %(message)s"))
    return handler


class _Plain(logging.Formatter):
    """An event as text. Messages name what others have named: nothing in them steers a terminal or looks like a line
    of its own, and tracebacks are indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return visible.one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return "    " + visible.message(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return "    " + visible.message(super().formatStack(stack_info))


_NAMES = {"levelname": "level", "name": "logger", "exc_info": "exception", "stack_info": "stack"}


class _Line(JsonFormatter):
    """An event as JSON; the run that a message begins with is a field as well, to find all that was said of it."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        if run := _RUN.match(log_data["message"]):
            log_data["run"] = run[1]
        return log_data

    def format(self, record: logging.LogRecord) -> str:
        record.__dict__["time"] = clock.stamp(datetime.fromtimestamp(record.created, UTC))
        # a name of a file may hold bytes that are no text, and somebody may look at this file on a terminal
        return visible.in_json(super().format(record))


class _Private(RotatingFileHandler):
    """Files that only their owner can read: messages name projects, folders and addresses."""

    def _open(self) -> TextIOWrapper:
        opened = open(self.baseFilename, self.mode, encoding=self.encoding, opener=_open_private)  # noqa: SIM115
        os.fchmod(opened.fileno(), 0o600)
        return cast(TextIOWrapper, opened)

    def handleError(self, record: logging.LogRecord) -> None:
        """The event is lost; the next one finds the file opened anew: of one whose disk was full, not all may work."""
        if self.stream:
            with suppress(OSError, ValueError):  # what could not be written can't be written now
                self.stream.close()
            self.stream = None


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
