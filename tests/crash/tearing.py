"""A unix socket in front of an engine that can cut connections and refuse new ones."""

from __future__ import annotations

import asyncio
import random
import re
import threading
from collections.abc import Callable
from pathlib import Path

_CHUNK = 1 << 16
_START = re.compile(rb"POST /v[0-9.]+/containers/[0-9a-f]+/start ")


class TearingProxy:
    """Passes bytes on, on a separate thread, until it is told to cut or refuse connections."""

    def __init__(self, path: Path, target: Path, seed: int) -> None:
        self.path = path
        self._target = target
        self._dice = random.Random(seed)
        self._open: set[asyncio.StreamWriter] = set()
        self._pipes: set[asyncio.Task[None]] = set()
        self._refuses = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="tearing-proxy", daemon=True)
        self.cuts = 0
        self.before_start: Callable[[], None] = lambda: None  # called before the start of a container is passed on

    @property
    def address(self) -> str:
        return f"unix://{self.path}"

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def cut(self) -> None:
        """Cut every open connection at once."""
        self._loop.call_soon_threadsafe(self._cut, 1.0)

    def tear(self, seconds: float, over: threading.Event) -> None:
        """Cut some connections and refuse some for a while, then pass everything on again."""

        async def tear() -> None:
            end = self._loop.time() + seconds
            while self._loop.time() < end and not over.is_set():
                self._refuses = self._dice.random() < 0.5
                self._cut(self._dice.random())
                await asyncio.sleep(self._dice.uniform(0.02, 0.3))
            self._refuses = False

        asyncio.run_coroutine_threadsafe(tear(), self._loop).result(seconds + 10)

    def close(self) -> None:
        if not self._thread.is_alive():
            return

        async def end() -> None:
            self._refuses = True
            self._server.close()
            await asyncio.sleep(0)  # lets accepted connections begin
            self._cut(1.0)
            if self._pipes:  # not cancelled at once, since a pipe that is connecting would leave its connection open
                _, late = await asyncio.wait(self._pipes, timeout=5)
                for pipe in late:
                    pipe.cancel()
                await asyncio.gather(*late, return_exceptions=True)
            await asyncio.sleep(0.05)  # transports close in the next rounds of the loop

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self.path.unlink(missing_ok=True)

    # -- helpers, on the loop -------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path), backlog=256)

    def _cut(self, share: float) -> None:
        for writer in list(self._open):
            if self._dice.random() < share:
                self.cuts += 1
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        task.add_done_callback(self._pipes.discard)
        self._open.add(writer)
        try:
            if self._refuses:
                return
            engine_reader, engine_writer = await asyncio.open_unix_connection(str(self._target))
            await self._pass_on((reader, engine_writer), (engine_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass  # if one side is closed, the other one is closed, too
        finally:
            self._open.discard(writer)
            writer.close()  # bytes that were passed on still arrive; a cut connection delivers none

    async def _pass_on(self, *ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        """Pass on until either side closes. No client of an engine closes only one direction."""
        pumps = [asyncio.ensure_future(self._pump(source, sink)) for source, sink in ways]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            ways[0][1].transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(_CHUNK):
            if _START.match(data):
                self.before_start()
            sink.write(data)
            await sink.drain()
