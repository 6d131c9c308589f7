"""What a daemon before this one left half done under a home folder, to be removed by the next start."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from polylocal.files.folders import remove_tree
from polylocal.paths import Home

log = logging.getLogger(__name__)


def set_aside(home: Home) -> list[Path]:
    """Move what is left of work that was cut off out of the way, and return where it lies.

    Only while no daemon works on the home folder. Work that begins later meets nothing of it, however long its removal
    takes.
    """
    home.scratch.mkdir(exist_ok=True, mode=0o700)
    for number, path in enumerate([*_left(home)]):
        try:
            path.rename(home.scratch / f"left-{os.urandom(6).hex()}-{number}")
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning("%s is left over and can't be moved: %s", path, error)
    return [*home.scratch.iterdir()]


def remove(paths: Iterable[Path]) -> None:
    """What can't be removed is said, and stays."""
    for path in paths:
        try:
            remove_tree(path)
        except OSError as error:
            log.warning("%s is left over and can't be removed: %s", path, error)


def _left(home: Home) -> Iterator[Path]:
    yield from (home.root / "code").glob("upload-*")
    yield from (home.root / "code").glob("commit-*")
    notebooks = home.root / "notebooks"
    yield from notebooks.glob("*.new")  # a checkout that did not come to its end: it is begun anew
    yield from notebooks.glob("*.gone")  # committed, and on its way out
    yield from home.files.glob(".new-*")
    # files that are written beside those that they replace; some hold secrets
    yield home.token.with_name(f"{home.token.name}.new")
    yield from home.secrets.glob("*/*.new")
    yield from home.signing.glob("*.new")
    yield from (home.root / "contexts").glob("*/.*.new")
