"""Remembers which `repomd.xml` a client read last, so that the client gets the signature of that very file.

dnf reads the file and its signature in two requests, on two connections. A publication in between would make the
signature wrong, which dnf takes for an attack. The address of the client connects the two requests.
"""

import threading
import time
from collections import OrderedDict
from pathlib import Path

_KEEP_S = 60.0
_MAX_ENTRIES = 1000


class IndexReaders:
    """The last content that each client read at each path. Thread-safe."""

    def __init__(self) -> None:
        self._read: OrderedDict[tuple[str, Path], tuple[float, str]] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, client: str, path: Path, sha256: str) -> None:
        with self._lock:
            self._read[client, path] = (time.monotonic(), sha256)
            self._read.move_to_end((client, path))
            if len(self._read) > _MAX_ENTRIES:
                self._read.popitem(last=False)

    def recall(self, client: str, path: Path) -> str | None:
        """The SHA-256 of the content; None: the client read none within the last minute."""
        with self._lock:
            when, sha256 = self._read.get((client, path), (0.0, ""))
        return sha256 if sha256 and time.monotonic() - when < _KEEP_S else None
