"""Folders in containers, by the engine's calls for archives: they need no program in the image, and no user of it."""

from __future__ import annotations

import io
import tarfile
from copy import copy
from pathlib import PurePosixPath
from typing import Any

_MOST_S = 120.0


def first_member(client: Any, container_id: str, path: PurePosixPath) -> tarfile.TarInfo | None:
    """What stands at a path; None: nothing does. Not read: what is in a folder. Raises docker's errors."""
    url = f"{client.base_url}/v{client.api_version}/containers/{container_id}/archive"
    headers = {"Accept-Encoding": "identity"}  # the engine would compress all that is in the folder
    with client.get(url, params={"path": str(path)}, headers=headers, stream=True, timeout=_MOST_S) as answer:
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        with tarfile.open(fileobj=answer.raw, mode="r|") as tar:
            return tar.next()


def set_mode(client: Any, container_id: str, path: PurePosixPath, folder: tarfile.TarInfo, mode: int) -> bool:
    """Give a folder another mode; what is in it and all else about it stays. Raises docker's errors."""
    wanted = copy(folder)
    wanted.name, wanted.mode = path.name, mode
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(wanted)
    done: bool = client.put_archive(container_id, str(path.parent), packed.getvalue())
    return done
