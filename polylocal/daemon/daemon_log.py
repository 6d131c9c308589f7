"""The daemon's own log: one line of JSON per event, in rotating files. Runs have log files of their own.

The daemon continues if the log can't be written. Events are then dropped silently.
"""

import logging
import os
import re
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
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
_NAMES = {"levelname": "level", "name": "logger", "exc_info": "exception", "stack_info": "stack"}


def configure(settings: Settings, *, on_screen: bool = True) -> None:
    """Log to the daemon's log file and, if `on_screen`, as text to standard error."""
    logging.raiseExceptions = False  # on a full disk, each event would print a traceback
    path = settings.folders.daemon_log
    handlers: list[logging.Handler] = [_file_handler(path, settings.daemon_log_mib << 20, settings.daemon_log_files)]
    if on_screen:
        handlers.append(logging.StreamHandler(sys.stderr))
        handlers[-1].setFormatter(_TextFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=handlers, force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel("WARNING")


def _file_handler(path: Path, size: int, files: int) -> logging.Handler:
    handler = _PrivateFileHandler(path, maxBytes=size, backupCount=files - 1, encoding="utf-8", delay=True)
    handler.setFormatter(
        _LineFormatter(["time", "levelname", "name", "message"], rename_fields=_NAMES, json_ensure_ascii=False)
    )
    return handler


class _TextFormatter(logging.Formatter):
    """An event as text. Control characters and line ends in messages are escaped, tracebacks are indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return visible.one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return "    " + visible.message(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return "    " + visible.message(super().formatStack(stack_info))


class _LineFormatter(JsonFormatter):
    """An event as JSON. A run at the start of a message becomes a field, for searches."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        if run := _RUN.match(log_data["message"]):
            log_data["run"] = run[1]
        return log_data

    def format(self, record: logging.LogRecord) -> str:
        record.__dict__["time"] = clock.stamp(datetime.fromtimestamp(record.created, UTC))
        # names may contain invalid text and control characters, and people read this file on terminals
        return visible.in_json(super().format(record))


class _PrivateFileHandler(RotatingFileHandler):
    """Log files that only their owner can read: messages contain projects, paths and addresses."""

    def _open(self) -> TextIOWrapper:
        opener = partial(os.open, mode=0o600)
        opened = open(self.baseFilename, self.mode, encoding=self.encoding, opener=opener)  # noqa: SIM115
        os.fchmod(opened.fileno(), 0o600)
        return cast(TextIOWrapper, opened)

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the event and close the file: the next event opens it again, when the disk may have space."""
        if self.stream:
            with suppress(OSError, ValueError):  # unwritten data fails again
                self.stream.close()
            self.stream = None
