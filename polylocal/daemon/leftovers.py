"""Removes incomplete files that an earlier daemon left in a home folder."""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from polylocal.files.folders import remove_tree
from polylocal.paths import Home

log = logging.getLogger(__name__)


def set_aside(home: Home) -> list[Path]:
    """Move the leftovers of interrupted work to the scratch folder. Returns the paths of everything in it.

    Requires that no daemon uses the home folder. New work can begin at once, even if the removal takes long.
    """
    home.scratch.mkdir(exist_ok=True, mode=0o700)
    for number, path in enumerate([*_find_leftovers(home)]):
        try:
            path.rename(home.scratch / f"left-{os.urandom(6).hex()}-{number}")
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning("the leftover %s can't be moved: %s", path, error)
    return [*home.scratch.iterdir()]


def remove(paths: Iterable[Path]) -> None:
    """Remove files and folders. Logs a warning for those that can't be removed."""
    for path in paths:
        try:
            remove_tree(path)
        except OSError as error:
            log.warning("the leftover %s can't be removed: %s", path, error)


def _find_leftovers(home: Home) -> Iterator[Path]:
    yield from (home.root / "code").glob("upload-*")
    yield from (home.root / "code").glob("commit-*")
    notebooks = home.root / "notebooks"
    yield from notebooks.glob("*.new")  # incomplete checkouts
    yield from notebooks.glob("*.gone")  # committed, removal interrupted
    yield from home.files.glob(".new-*")
    # files written to replace others; some contain secrets
    yield home.token.with_name(f"{home.token.name}.new")
    yield from home.secrets.glob("*/*.new")
    yield from home.signing.glob("*.new")
    yield from (home.root / "contexts").glob("*/.*.new")
