"""The clients of the load test, in a separate process, so that they do not share the daemon's interpreter.

    python crowd.py follow|ask|flood < plan.json

A plan has url, token and the parameters of the part. The last line of the output has the results as JSON.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import sys
import time
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

Json = dict[str, Any]
_RETRY_S = 0.2  # after a refusal
_RETRY_STREAM_S = 2.0  # the frame of a websocket has no Retry-After
_CONNECT_S = 15.0  # in which a refused follower connects again
_ADMISSION_S = 2.0  # until all held requests have been admitted


class Line:
    """A persistent connection with a minimal HTTP client."""

    def __init__(self, plan: Json) -> None:
        parts = urlsplit(plan["url"])
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._head = f"Host: {parts.netloc}\r\nAuthorization: Token {plan['token']}\r\n"
        self.reader: StreamReader | None = None
        self._writer: StreamWriter | None = None

    async def open(self) -> tuple[StreamReader, StreamWriter]:
        if self.reader is None or self._writer is None:
            self.reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self.reader, self._writer

    async def send(self, method: str, path: str, body: bytes = b"", announced: int | None = None) -> None:
        _, writer = await self.open()
        length = len(body) if announced is None else announced
        more = f"Content-Type: application/json\r\nContent-Length: {length}\r\n" if method == "POST" else ""
        writer.write(f"{method} {path} HTTP/1.1\r\n{self._head}{more}\r\n".encode() + body)
        await writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        reader, _ = await self.open()
        first, *others = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in others if line)
        return int(first.split()[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, str]]:
        """Read a complete response. Returns (status, headers)."""
        await self.send(method, path, body)
        status, headers = await self.head()
        reader, _ = await self.open()
        await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            self.close()
        return status, headers

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self.reader = self._writer = None


class Received:
    """The lines that a follower received, with their times."""

    def __init__(self, wanted: Json) -> None:
        self.wanted = wanted
        self.arrivals: list[tuple[int, float]] = []  # (lines so far, time)
        self.refusals = 0
        self._digest = hashlib.sha256()
        self._lines = 0
        self._began = asyncio.Event()

    def add(self, data: bytes) -> None:
        self._digest.update(data)
        self._lines += data.count(b"\n")
        self.arrivals.append((self._lines, time.time()))
        self._began.set()

    async def wait_for_data(self) -> None:
        await self._began.wait()

    def as_json(self, problem: str | None) -> Json:
        digest = self._digest.hexdigest()
        return {
            **self.wanted,
            "sha256": digest,
            "lines": self._lines,
            "arrivals": self.arrivals,
            "refusals": self.refusals,
            "problem": problem,
        }


async def follow(plan: Json) -> Json:
    """Follow every log to its end. Prints `ready` when each follower has received data."""
    seen = [Received(wanted) for wanted in plan["followers"]]
    tasks = [asyncio.create_task(_follow_one(plan, each)) for each in seen]
    began = asyncio.create_task(_wait_for_all(seen))
    await asyncio.wait([began, *tasks], return_when=asyncio.FIRST_COMPLETED)
    print("ready", flush=True)
    problems = await asyncio.gather(*tasks)
    began.cancel()
    return {"followers": [each.as_json(problem) for each, problem in zip(seen, problems, strict=True)]}


async def _wait_for_all(seen: list[Received]) -> None:
    await asyncio.gather(*(each.wait_for_data() for each in seen))


async def _follow_one(plan: Json, seen: Received) -> str | None:
    """The error of a follower, or None. Waits and connects again when it is refused before the first line."""
    read = _read_http if seen.wanted["how"] == "http" else _read_frames
    until = time.monotonic() + _CONNECT_S
    while True:
        try:
            await read(plan, seen)
        except Refused as error:
            if seen.arrivals or time.monotonic() > until:
                return str(error)
            seen.refusals += 1
            await asyncio.sleep(error.retry_s)
        except Exception as error:  # reported for each follower
            return f"{type(error).__name__}: {error}"
        else:
            return None


class Refused(Exception):
    """The daemon has no slot for this client yet. `retry_s` is from the answer's `Retry-After`."""

    def __init__(self, reason: str, retry_s: float) -> None:
        super().__init__(reason)
        self.retry_s = retry_s


async def _read_http(plan: Json, seen: Received) -> None:
    line = Line(plan)
    await line.send("GET", seen.wanted["path"])
    status, headers = await line.head()
    if status == 503:
        line.close()
        raise Refused("answered 503", float(headers["retry-after"]))
    if status != 200:
        raise RuntimeError(f"answered {status}")
    reader, _ = await line.open()
    while size := int(await reader.readuntil(b"\r\n"), 16):
        seen.add((await reader.readexactly(size + 2))[:-2])
    line.close()


async def _read_frames(plan: Json, seen: Received) -> None:
    """Read frames: lists of lines in the old websocket API, one line a frame in the new one."""
    url = f"ws{plan['url'].removeprefix('http')}{seen.wanted['path']}?token={plan['token']}"
    async with connect(url, proxy=None, compression=None, open_timeout=60) as socket:
        try:
            while True:
                frame = json.loads(await socket.recv())
                if frame.get("status") == "error":
                    reason = " ".join(frame["log_lines"])
                    raise Refused(reason, _RETRY_STREAM_S) if "try again" in reason else RuntimeError(reason)
                found = frame["log_lines"] or []
                for text in [found] if isinstance(found, str) else found:
                    seen.add(text.encode() + b"\n")
        except ConnectionClosed as error:
            if error.rcvd is None or error.rcvd.code not in (1000, 1005):
                raise


class Answers:
    """Duration and status of each response, by the kind of request."""

    def __init__(self) -> None:
        self.took: dict[str, list[float]] = {}
        self.statuses: Counter[str] = Counter()
        self.without_word = 0  # refusals without Retry-After
        self.silence_s = 0.0  # the longest time without a response for any client
        self._last = time.perf_counter()

    async def ask(self, line: Line, what: str, method: str, path: str, body: bytes = b"") -> None:
        began = time.perf_counter()
        try:
            status, headers = await line.ask(method, path, body)
        except (OSError, asyncio.IncompleteReadError) as error:
            line.close()
            self.statuses[type(error).__name__] += 1
            await asyncio.sleep(_RETRY_S)
            return
        now = time.perf_counter()
        self.silence_s, self._last = max(self.silence_s, now - self._last), now
        self.statuses[str(status)] += 1
        if status < 400:
            self.took.setdefault(what, []).append(now - began)
            return
        self.without_word += "retry-after" not in headers
        await asyncio.sleep(_RETRY_S)


async def ask(plan: Json) -> Json:
    """Clients that list without a pause, one that submits, and one that asks /healthz."""
    answers = Answers()
    until = time.perf_counter() + plan["seconds"]

    async def repeat(what: str, method: str, path: str, body: bytes, pause_s: float) -> None:
        line = Line(plan)
        while time.perf_counter() < until:
            await answers.ask(line, what, method, path, body)
            await asyncio.sleep(pause_s)
        line.close()

    clients = [repeat("list", "GET", path, b"", 0) for path in plan["lists"]]
    clients.append(repeat("submit", "POST", plan["submit"], json.dumps(plan["body"]).encode(), plan["pause_s"]))
    clients.append(repeat("healthz", "GET", "/healthz", b"", plan["pause_s"]))
    await asyncio.gather(*clients)
    return {
        "took": answers.took,
        "statuses": answers.statuses,
        "without_word": answers.without_word,
        "silence_s": answers.silence_s,
    }


async def flood(plan: Json) -> Json:
    """Idle connections, then requests beside others whose bodies do not come, then all at the same time."""
    found: Json = {}
    idle = await asyncio.gather(*(_open_line(plan) for _ in range(plan["idle"])))
    found["idle"] = await _time_health(plan, 5.0)
    for line in idle:
        line.close()
    held = await _hold_slots(plan, plan["slots"])
    found["beyond"] = await _ask_at_once(plan, plan["beyond"])
    for line in held:
        line.close()
    found["after_held"] = await _time_health(plan, 5.0)
    found["burst"] = await _ask_at_once(plan, plan["slots"] + plan["beyond"])
    found["after_burst"] = await _time_health(plan, 5.0)
    return found


async def _open_line(plan: Json) -> Line:
    line = Line(plan)
    await line.open()
    return line


async def _hold_slots(plan: Json, slots: int) -> list[Line]:
    """Requests that never send their bodies."""
    lines = [Line(plan) for _ in range(slots)]
    await asyncio.gather(*(line.send("POST", plan["submit"], announced=1000) for line in lines))
    await asyncio.sleep(_ADMISSION_S)
    return lines


async def _ask_at_once(plan: Json, count: int) -> Json:
    """Counts of answers by status, and the number of refusals without Retry-After."""
    answers = Answers()
    lines = await asyncio.gather(*(_open_line(plan) for _ in range(count)))
    await asyncio.gather(*(answers.ask(line, "list", "GET", plan["list"]) for line in lines))
    for line in lines:
        line.close()
    took = [each for of_kind in answers.took.values() for each in of_kind]
    return {"statuses": answers.statuses, "without_word": answers.without_word, "slowest_s": max(took, default=0.0)}


async def _time_health(plan: Json, within_s: float) -> float | None:
    """Seconds until /healthz answers 200, or None if it does not."""
    began = time.perf_counter()
    while time.perf_counter() - began < within_s:
        line = Line(plan)
        status, _ = await line.ask("GET", "/healthz")
        line.close()
        if status == 200:
            return time.perf_counter() - began
        await asyncio.sleep(0.02)
    return None


PARTS: dict[str, Callable[[Json], Awaitable[Json]]] = {"follow": follow, "ask": ask, "flood": flood}


def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(asyncio.run(_run_part(sys.argv[1]))), flush=True)


async def _run_part(part: str) -> Json:
    return await PARTS[part](json.load(sys.stdin))


if __name__ == "__main__":
    main()
