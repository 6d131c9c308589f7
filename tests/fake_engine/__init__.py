"""An engine without containers, for tests and benchmarks: the same contract, in memory.

Its shell knows `echo TEXT`, `printf TEXT` (with ` >&2` for stderr), `sleep SECONDS`, `exit N`, `true` and `false`,
joined by `;`. A container with a port is a server and runs until it is stopped. The engine asserts the
protocol: it starts only what was created, and no run has two containers.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from fake_engine.containers import FakeContainer, FakeContainers
from polylocal.engine.host import EngineInfo, GpuSupport, Isolation
from polylocal.engine.machine import Machine

__all__ = ["FakeContainer", "FakeEngine"]


class FakeEngine(FakeContainers):
    """See `engine.base.Engine`. `shells` are files that every image has; `node` "" is the name of this machine."""

    def __init__(
        self,
        images: Sequence[str] = ("base",),
        shells: Sequence[str] = ("/bin/bash", "/bin/sh"),
        node: str = "",
    ) -> None:
        super().__init__(images, shells, node or platform.node())
        self.cards = 0  # GPUs

    @contextmanager
    def away(self) -> Iterator[None]:
        """The engine does not answer in this block. Its containers keep running."""
        self.is_away = True
        self.cut()
        try:
            yield
        finally:
            self.is_away = False

    def info(self) -> EngineInfo:
        self._answer()
        return EngineInfo("Fake", "1.0", "1.41", "fake://", 4, 4096.0, "/", False, False)

    def machine(self) -> Machine:
        return Machine(self.node, 4, 4096, "Fake OS", "1.0", "Fake 1.0", "1.41")

    def gpus(self) -> GpuSupport:
        return GpuSupport(self.cards, "" if self.cards else "the fake engine has no cards")

    def buildkit(self) -> str | None:
        return None

    def time(self) -> datetime:
        self._answer()
        return datetime.now(UTC)

    def gateway(self, network: str) -> str | None:
        self._answer()
        return None

    def unsupported(self) -> str:
        return ""

    def isolation(self) -> Isolation:
        self._answer()
        return Isolation()

    def close(self) -> None:
        self.cut()
