"""The part of the fake engine that its images and its containers share."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence

from polylocal.errors import EngineUnreachable


class FakeState:
    def __init__(self, images: Sequence[str], shells: Sequence[str], node: str) -> None:
        self.shells = set(shells)  # files that every image has
        self.node = node
        self.local = {name: f"sha256:{name}" for name in images}
        self.is_away = False
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)

    def _answer(self) -> None:
        if self.is_away:
            raise EngineUnreachable("the fake engine is away")

    def _is_in_use(self, image_id: str) -> bool:
        """Whether a container needs this image."""
        return False
