"""The frames by which the engine sends stdout and stderr over one connection. Pure.

Source: Docker Engine API, "Stream format" of ContainerAttach: [stream, 0, 0, 0, size as 4 bytes, big-endian], payload.
"""

import re
from collections.abc import Iterator
from datetime import datetime

from polylocal.engine.containers import Frame

_HEADER = 8
_STAMP = re.compile(r"(?P<whole>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(?P<part>\d+))?(?P<zone>Z|[+-]\d\d:\d\d)?")


class Demultiplexer:
    """Takes bytes and returns whole frames. The rest of a frame that was cut off is never returned."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        while end - at >= _HEADER:
            size = int.from_bytes(data[at + 4 : at + _HEADER], "big")
            if end - at - _HEADER < size:
                break
            yield Frame(data[at], data[at + _HEADER : at + _HEADER + size])
            at += _HEADER + size
        self._rest = data[at:]


def join_frames(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Join neighbouring frames of one stream, so that there are fewer and larger writes."""
    stream, parts = 0, list[bytes]()
    for frame in frames:
        if parts and frame.stream != stream:
            yield Frame(stream, b"".join(parts))
            parts.clear()
        stream = frame.stream
        parts.append(frame.data)
    if parts:
        yield Frame(stream, b"".join(parts))


def with_time(frame: Frame) -> Frame:
    """Move the time stamp of a log's frame from the data to `time_us`."""
    stamp, space, data = frame.data.partition(b" ")
    if not space:
        return frame
    return Frame(frame.stream, data, time_us(stamp.decode("ascii", "replace")))


def time_us(stamp: str) -> int | None:
    """`2026-11-21T22:18:28.315178840Z` → microseconds since 1970. Some engines give whole seconds."""
    found = _STAMP.fullmatch(stamp)
    try:
        whole = (
            datetime.fromisoformat(found["whole"] + (found["zone"] or "+00:00").replace("Z", "+00:00"))
            if found
            else None
        )
    except ValueError:
        return None
    if found is None or whole is None:
        return None
    return int(whole.timestamp()) * 1_000_000 + int((found["part"] or "")[:6].ljust(6, "0"))
