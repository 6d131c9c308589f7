"""The programs that run during random faults. They record their output separately, to compare it with their logs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import BUSYBOX

_MARK = re.compile(rb"(?m)^polylocal: [^\n]*(\n|\Z)")
_INSIDE = "/plx-data/truth"
STREAMS = {"out": 1, "err": 2}

# Each attempt begins its lines with its number. A line is recorded first, then printed
_BEGIN = (
    "T={folder}; mkdir -p $T; cat /proc/sys/kernel/random/uuid >> $T/starts; A=$(wc -l < $T/starts);"
    ' say() {{ printf "%s\\n" "$A:$1" >> $T/out.$A; printf "%s\\n" "$A:$1"; }};'
    ' cry() {{ printf "%s\\n" "$A:$1" >> $T/err.$A; printf "%s\\n" "$A:$1" >&2; }};'
    ' end() {{ echo "$A $1" >> $T/ends; exit $1; }}; '
)
_LINES = "i=0; while [ $i -lt {count} ]; do say $i; i=$((i+1)); sleep 0.05; done; "


@dataclass(frozen=True)
class Shape:
    """A kind of program. `unit`: the maximum of bytes that it records before it prints them."""

    program: str
    unit: int = 32
    expected: str = "succeeded"
    max_restarts: int = 0
    is_endless: bool = False
    kind: str = "job"
    steps: tuple[str, ...] = ()


SHAPES = {
    "short": Shape("say hello; end 0"),
    "lines": Shape(_LINES + "end 0"),
    "big line": Shape("say $(head -c 200000 /dev/zero | tr '\\000' x); end 0", unit=200_100),
    "burst": Shape(
        "seq 1 45000 | sed s/^/$A:/ > /tmp/b; cat /tmp/b >> $T/out.$A; cat /tmp/b; sleep 0.5; say done; end 0",
        unit=400_000,
    ),
    "both": Shape("i=0; while [ $i -lt {count} ]; do say o$i; cry e$i; i=$((i+1)); sleep 0.03; done; end 0"),
    "failing": Shape("say before; sleep 0.3; cry trouble; end 3", expected="failed"),
    "stubborn": Shape("trap '' TERM; i=0; while :; do say $i; i=$((i+1)); sleep 0.1; done", is_endless=True),
    "restarted": Shape(
        "say first; sleep 0.5; if [ $A -ge 2 ]; then say again; end 0; fi; say failing; end 3", max_restarts=1
    ),
    "lasting": Shape(_LINES + "end 0", max_restarts=1),
    "built": Shape("say built; end 0", steps=("echo step of {name}; sleep 0.5",)),
    "build": Shape("", kind="build", steps=("echo step of {name}; sleep 1", "echo done")),
    "bad build": Shape("", kind="build", steps=("echo step of {name}; sleep 0.3", "exit 3"), expected="failed"),
}
_GATED = {  # programs that print lines until their gate, a file in the folder of all records, exists
    "until": Shape(
        f"i=0; while [ ! -e {_INSIDE}/gate-{{count}} ]; do say o$i; cry e$i; i=$((i+1)); sleep 0.05; done; end 0"
    )
}
STOPPABLE = ("lines", "both", "stubborn", "build")


@dataclass(frozen=True)
class Work:
    """A run to be submitted. Its unique name finds it even if the response of its creation was lost."""

    name: str
    shape_name: str
    count: int

    @property
    def shape(self) -> Shape:
        return {**SHAPES, **_GATED}[self.shape_name]

    @property
    def gate(self) -> str:
        """The name of the file that ends a program which is "until"."""
        return f"gate-{self.count}"

    @property
    def config(self) -> dict[str, Any]:
        shape = self.shape
        steps = [step.format(name=self.name) for step in shape.steps]
        config: dict[str, Any] = {"version": 1, "kind": shape.kind, "build": {"image": BUSYBOX}}
        if steps:
            config["build"]["build_steps"] = steps
        if shape.kind == "job":
            program = shape.program.replace("{count}", str(self.count))
            config["run"] = {"cmd": _BEGIN.format(folder=f"{_INSIDE}/{self.name}") + program}
            config["environment"] = {"data_refs": ["truth"]}
            if shape.max_restarts:
                config["environment"]["max_restarts"] = shape.max_restarts
        return config


@dataclass(frozen=True)
class Truth:
    """The records of a program, independent of the engine and the daemon."""

    folder: Path

    @property
    def starts(self) -> int:
        """The number of starts: every start appends a line."""
        return len(self._text("starts").split())

    @property
    def ends(self) -> dict[int, int]:
        """Attempt → the exit code that it was about to return."""
        pairs = (line.split() for line in self._text("ends").splitlines())
        return {int(attempt): int(code) for attempt, code in pairs}

    def output(self, stream: str) -> list[bytes]:
        """The output of each attempt."""
        return [self._bytes(f"{stream}.{attempt}") for attempt in range(1, self.starts + 1)]

    def _text(self, name: str) -> str:
        return self._bytes(name).decode()

    def _bytes(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return b""


def has_gap_marker(log: bytes) -> bool:
    return _MARK.search(log) is not None


def compare(log: bytes, said: Sequence[bytes], may_lack: Callable[[int, int], bool]) -> str | None:
    """The error in one stream of a log. `may_lack`: (attempt, bytes) → whether such a gap is allowed."""
    parts = _MARK.sub(b"\0", log).split(b"\0")
    left = list(said)
    for number, part in enumerate(parts):
        rest = part
        while rest and any(left):
            attempt = next(n for n, text in enumerate(left) if text)
            length = _common(left[attempt], rest)
            left[attempt], rest = left[attempt][length:], rest[length:]
            if not rest or (rest == b"\n" and number + 1 < len(parts)):  # a marker begins a separate line
                rest = b""
                break
            if left[attempt] and not may_lack(attempt + 1, len(left[attempt])):
                break
            left[attempt] = b""
        if rest and not (rest == b"\n" and number + 1 < len(parts)):
            return f"has {len(rest)} bytes that its program did not write there, from {rest[:40]!r} on"
    for attempt, text in enumerate(left, start=1):
        if text and not may_lack(attempt, len(text)):
            return f"lacks {len(text)} bytes of attempt {attempt}, from {text[:40]!r} on, and says nothing of it"
    return None


def _common(one: bytes, other: bytes) -> int:
    """The length of the common prefix."""
    limit = min(len(one), len(other))
    if one[:limit] == other[:limit]:
        return limit
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle)
    return low
