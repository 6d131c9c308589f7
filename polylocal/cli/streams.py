"""Guards standard output and standard error: escapes control characters, reports write errors, degrades encodings."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from polylocal.text import visible

_DEGRADED = "polylocal.degraded"
_NEAREST = {"…": "...", "·": "-", "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " "}


class OutputError(Exception):
    """Writing to standard output failed. The message is a sentence."""


class _Stream:
    """A stream in front of another one, which has all attributes that are not defined here."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, value: Any) -> int:
        raise NotImplementedError

    def writelines(self, values: Iterable[Any]) -> None:
        for value in values:
            self.write(value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Output(_Stream):
    """Standard output as text, or through `buffer` as bytes.

    Raises OutputError, and BrokenPipeError if the reader has closed the pipe.
    """

    def write(self, value: Any) -> int:
        try:
            written: int = self._stream.write(value)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _output_error(error) from error
        return written

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _output_error(error) from error

    @property
    def buffer(self) -> Output:
        return Output(self._stream.buffer)


class ErrorStream(_Stream):
    """Standard error. Write errors are ignored, because there is no other stream to report them on."""

    def write(self, value: str) -> int:
        with suppress(OSError):
            self._stream.write(value)
        return len(value)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def open_missing() -> None:
    """Open standard streams that the caller has closed.

    Otherwise the next file that is opened gets the number of a standard stream, and output is written into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def degrade(stream: IO[str]) -> None:
    """Replace characters that the encoding of a stream lacks, instead of raising an error."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        codecs.register_error(_DEGRADED, _replace_unencodable)
        stream.reconfigure(errors=_DEGRADED)


def discard(stream: Any) -> None:
    """Redirect a stream to the null device: Python flushes it again at exit, which would fail again."""
    with suppress(OSError, ValueError):  # the stream has no file descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()


class _EscapedStream(_Stream):
    """A stream that escapes control characters, also in output of libraries, warnings and failing threads.

    `console` has already escaped the texts that rich writes, so rich writes to the stream behind this one.
    """

    def __init__(self, stream: Output | ErrorStream) -> None:
        super().__init__(stream)
        self.rich_proxied_file = stream  # the name under which rich looks for the stream behind a proxy

    def write(self, value: str) -> int:
        self._stream.write(visible.stream(value))
        return len(value)


@contextmanager
def guard() -> Iterator[_EscapedStream]:
    """Guard the standard streams while the block runs. Yields standard output.

    Raises OutputError if writing fails, including the final flush.
    """
    open_missing()
    before = sys.stdout, sys.stderr
    for stream in before:
        degrade(stream)
    output, messages = Output(before[0]), ErrorStream(before[1])
    sys.stdout, sys.stderr = guards = _EscapedStream(output), _EscapedStream(messages)
    try:
        try:
            yield guards[0]
        finally:
            output.flush()
    except (OutputError, BrokenPipeError):
        discard(before[0])
        raise
    finally:
        try:
            before[1].flush()
        except OSError:  # later messages may succeed, so nothing is discarded before the end
            discard(before[1])
        # typer replaces the streams when the reader has closed the pipe; keep its replacement
        sys.stdout = before[0] if sys.stdout is guards[0] else sys.stdout
        sys.stderr = before[1] if sys.stderr is guards[1] else sys.stderr


def _output_error(error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(f"the output could not be written: {reason[:1].lower()}{reason[1:]}")


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    escaped = (_NEAREST.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in found)
    return "".join(escaped), error.end
