"""Reads the lines, the current step and the outcome from the events of the classic builder. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from polylocal.engine.images import BuildResult, OnLine

_STEP = re.compile(r"Step \d+/\d+ : .*")
_FROM = re.compile(r"Step \d+/\d+ : FROM\b", re.IGNORECASE)
_MADE = re.compile(r" ---> ([0-9a-f]{12})")


class BuildLog:
    def __init__(self, on_line: OnLine, on_image: Callable[[str], None] = lambda image_id: None) -> None:
        self._on_line = on_line
        self._on_image = on_image
        self._unfinished = ""
        self._image_id: str | None = None
        self._error = ""
        self._step = ""
        self._is_built = False
        self._pulled = set[str]()

    def read(self, events: Iterable[Mapping[str, Any]]) -> None:
        for event in events:
            if "stream" in event:
                self._add_text(event["stream"])
            elif "error" in event:
                self._error = str(event["error"]).strip()
            elif "ID" in (event.get("aux") or {}):
                self._image_id = event["aux"]["ID"]  # one for each stage; the last one is the result
                self._report_image(event["aux"]["ID"])
            elif "status" in event:
                self._add_progress(event)
        if self._unfinished:
            self._add_line(self._unfinished)

    @property
    def is_whole(self) -> bool:
        """Whether the stream has its end: a finished image, or an error. A cut connection ends it without either, even
        between two stages that each have an image."""
        return bool((self._image_id and self._is_built) or self._error)

    def result(self, error: str | None = None) -> BuildResult:
        problem = error if error is not None else self._error
        if problem:
            self._on_line(problem)
            return BuildResult(None, problem, self._step)
        return BuildResult(self._image_id)

    def _add_text(self, text: str) -> None:
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in lines:
            self._add_line(line)

    def _add_line(self, line: str) -> None:
        line = line.rstrip("\r")
        if _STEP.fullmatch(line):
            self._step = line
        elif found := _MADE.fullmatch(line):
            self._report_image(found[1])
        elif line.startswith("Successfully built "):  # the last line of every engine
            self._is_built = True
        self._on_line(line)

    def _report_image(self, image_id: str) -> None:
        if not _FROM.match(self._step):  # FROM names an image that existed before
            self._on_image(image_id)

    def _add_progress(self, event: Mapping[str, Any]) -> None:
        text = " ".join(str(event[key]) for key in ("id", "status") if event.get(key))
        if text not in self._pulled:
            self._pulled.add(text)
            self._on_line(text)
