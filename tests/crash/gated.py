"""`polylocal` with publications that wait at a gate: gated.py FOLDER serve …

While FOLDER/shut exists, the publication of each repository folder whose path contains the text of that file waits
before it writes the indexes. FOLDER/waiting then contains a file.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from polylocal.cli import main
from polylocal.packages import repositories
from polylocal.packages.facts import IndexedFile
from polylocal.packages.repositories import FolderContent

_POLL_S = 0.02


def put_gate(folder: Path) -> None:
    write_indexes = repositories._indexes
    never = threading.Event()

    def is_shut(shelf: FolderContent) -> bool:
        try:
            return (folder / "shut").read_text() in str(shelf.path)
        except FileNotFoundError:
            return False

    def gated(shelf: FolderContent, files: Sequence[IndexedFile]) -> Mapping[str, bytes]:
        if is_shut(shelf):
            (folder / "waiting" / shelf.path.parent.parent.name).touch()
            while is_shut(shelf):
                never.wait(_POLL_S)
        return write_indexes(shelf, files)

    repositories._indexes = gated


if __name__ == "__main__":
    put_gate(Path(sys.argv.pop(1)))
    main()
