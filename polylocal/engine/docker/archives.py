"""Files and folders in containers, by the engine's archive calls, which need no program and no user of the image.

Raises the errors of docker-py and requests, and EngineUnreachable if an answer ends in the middle.
"""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import PurePosixPath
from typing import Any

from polylocal.errors import EngineError, EngineUnreachable

_TIMEOUT_S = 120.0


def exists(client: Any, container_id: str, path: str) -> bool:
    """Whether a path exists."""
    answer = client.head(_url(client, container_id), params={"path": path}, timeout=_TIMEOUT_S)
    if not answer.ok and answer.status_code != 404:  # a HEAD answer has no body with the engine's words
        raise EngineError(f"the engine could not say whether {path} is in the container: {answer.status_code}")
    return bool(answer.ok)


def first_member(client: Any, container_id: str, path: PurePosixPath) -> tarfile.TarInfo | None:
    """The file or folder at a path, without the content of a folder; None: the path does not exist."""
    with _open(client, container_id, str(path)) as tar:
        return tar.next() if tar else None


def read_start(client: Any, container_id: str, path: str, most_bytes: int) -> bytes | None:
    """The first bytes of a file; None: it does not exist."""
    with _open(client, container_id, path) as tar:
        member = tar.next() if tar else None
        file = tar.extractfile(member) if tar and member and member.isfile() else None
        return file.read(most_bytes) if file else None


def set_mode(client: Any, container_id: str, path: PurePosixPath, folder: tarfile.TarInfo, mode: int) -> bool:
    """Give a folder another mode. Its content and its other properties stay. False: the engine refused."""
    wanted = copy(folder)
    wanted.name, wanted.mode = path.name, mode
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(wanted)
    done: bool = client.put_archive(container_id, str(path.parent), packed.getvalue())
    return done


@contextmanager
def _open(client: Any, container_id: str, path: str) -> Iterator[tarfile.TarFile | None]:
    """The archive of the file or folder at a path, as a stream; None: the path does not exist."""
    headers = {"Accept-Encoding": "identity"}  # else the engine compresses the whole folder
    with client.get(
        _url(client, container_id), params={"path": path}, headers=headers, stream=True, timeout=_TIMEOUT_S
    ) as answer:
        if answer.status_code == 404:
            client.inspect_container(container_id)  # raises if the container itself is missing
            yield None
            return
        if not answer.ok:
            _ = answer.content  # read the engine's words while the connection is open
            answer.raise_for_status()
        try:
            with tarfile.open(fileobj=answer.raw, mode="r|") as tar:
                yield tar
        except tarfile.TarError as error:
            raise EngineUnreachable(f"the engine's answer ended in the middle: {error}") from error


def _url(client: Any, container_id: str) -> str:
    return f"{client.base_url}/v{client.api_version}/containers/{container_id}/archive"
