"""Files and folders in containers, by the engine's calls for archives: they need no program and no user of the image.

Raises docker's and requests' errors, and EngineUnreachable where an answer ends in its middle.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import PurePosixPath
from typing import Any

from polylocal.errors import EngineError, EngineUnreachable

_MOST_S = 120.0


def has(client: Any, container_id: str, path: str) -> bool:
    """Whether something stands at a path."""
    answer = client.head(_url(client, container_id), params={"path": path}, timeout=_MOST_S)
    if not answer.ok and answer.status_code != 404:  # it has no words of the engine
        raise EngineError(f"the engine could not say whether {path} is in the container: {answer.status_code}")
    return bool(answer.ok)


def first_member(client: Any, container_id: str, path: PurePosixPath) -> tarfile.TarInfo | None:
    """What stands at a path; None: nothing does. Not read: what is in a folder."""
    with _opened(client, container_id, str(path)) as tar:
        return tar.next() if tar else None


def beginning(client: Any, container_id: str, path: str, most_bytes: int) -> bytes | None:
    """The beginning of a file; None: there is none."""
    with _opened(client, container_id, path) as tar:
        member = tar.next() if tar else None
        file = tar.extractfile(member) if tar and member and member.isfile() else None
        return file.read(most_bytes) if file else None


def set_mode(client: Any, container_id: str, path: PurePosixPath, folder: tarfile.TarInfo, mode: int) -> bool:
    """Give a folder another mode; what is in it and all else about it stays."""
    wanted = copy(folder)
    wanted.name, wanted.mode = path.name, mode
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(wanted)
    done: bool = client.put_archive(container_id, str(path.parent), packed.getvalue())
    return done


@contextmanager
def _opened(client: Any, container_id: str, path: str) -> Iterator[tarfile.TarFile | None]:
    """The archive of what stands at a path, as it comes; None: nothing stands there."""
    headers = {"Accept-Encoding": "identity"}  # the engine would compress all that is in a folder
    with client.get(
        _url(client, container_id), params={"path": path}, headers=headers, stream=True, timeout=_MOST_S
    ) as answer:
        if answer.status_code == 404:
            client.inspect_container(container_id)  # is it there?
            yield None
            return
        if not answer.ok:
            _ = answer.content  # the engine's words, while they can be read
            answer.raise_for_status()
        try:
            with tarfile.open(fileobj=answer.raw, mode="r|") as tar:
                yield tar
        except tarfile.TarError as error:
            raise EngineUnreachable(f"the engine's answer ended in the middle: {error}") from error


def _url(client: Any, container_id: str) -> str:
    return f"{client.base_url}/v{client.api_version}/containers/{container_id}/archive"
