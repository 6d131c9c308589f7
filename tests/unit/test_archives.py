"""The engine's calls for archives and images, against a fake client with given answers."""

from __future__ import annotations

import io
import tarfile
from pathlib import PurePosixPath
from typing import Any

import docker.errors
import pytest
import requests

from polylocal.engine.docker.engine import DockerEngine
from polylocal.engine.images import ImageConfig
from polylocal.errors import ContainerMissing, EngineError, EngineUnreachable

IMAGE_ID = "sha256:" + "1" * 64


class Client:
    """Returns the next of `answers` for each call."""

    base_url, api_version = "http://engine", "1.41"

    def __init__(self, *answers: requests.Response) -> None:
        self._answers = list(answers)
        self.inspected: list[str] = []
        self.containers = {"there"}

    def get(self, url: str, **more: Any) -> requests.Response:
        return self._answers.pop(0)

    head = get

    def inspect_container(self, container_id: str) -> dict[str, Any]:
        if container_id not in self.containers:
            raise docker.errors.NotFound("No such container")
        return {}

    def inspect_image(self, name: str) -> dict[str, Any]:
        self.inspected.append(name)
        return {"Id": IMAGE_ID, "Config": {"Env": ["A=1", "odd"], "User": "app"}}


def engine(*answers: requests.Response) -> DockerEngine:
    made = DockerEngine("tcp://127.0.0.1:1")
    made._connection._client = Client(*answers)  # type: ignore[assignment]
    return made


def answer(status: int, body: bytes = b"") -> requests.Response:
    made = requests.Response()
    made.status_code, made.raw, made.url = status, io.BytesIO(body), "http://engine/archive?path=/x"
    return made


def archive(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def test_the_beginning_of_a_file() -> None:
    assert engine(answer(200, archive("x", b"content"))).read_file("there", "/x", 4) == b"cont"


def test_a_missing_path_differs_from_a_missing_container() -> None:
    assert engine(answer(404)).read_file("there", "/x", 4) is None
    with pytest.raises(ContainerMissing):
        engine(answer(404)).read_file("gone", "/x", 4)
    with pytest.raises(ContainerMissing):
        engine(answer(404)).open_folder("gone", PurePosixPath("/x"))


def test_a_refusal_is_not_a_lost_engine() -> None:
    """A client would otherwise repeat the request for ever."""
    refusal = answer(500, b'{"message": "no such driver"}')
    with pytest.raises(EngineError, match="^no such driver$"):
        engine(refusal).open_folder("there", PurePosixPath("/x"))
    with pytest.raises(EngineError, match="whether /x is in the container: 500"):
        engine(answer(500)).has_file("there", "/x")


@pytest.mark.parametrize("length", [0, 100, 700])
def test_an_answer_that_is_cut_is_asked_for_again(length: int) -> None:
    cut = archive("x", b"content" * 100)[:length]
    with pytest.raises(EngineUnreachable):
        engine(answer(200, cut)).read_file("there", "/x", 1000)


def test_the_configuration_of_an_image_is_asked_for_once_where_its_id_is_known() -> None:
    made = engine()
    for name in (IMAGE_ID, IMAGE_ID, "name:tag", "name:tag"):
        assert made.image_config(name) == ImageConfig({"A": "1"}, "app")
    assert made._connection._client.inspected == [IMAGE_ID, "name:tag", "name:tag"]  # type: ignore[union-attr]
