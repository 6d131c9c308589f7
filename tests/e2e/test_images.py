"""The image of a private project, which another user tries to use by each of its names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import docker
import httpx2
import pytest
from support import BUSYBOX, Daemon, eventually

from polylocal.statuses import is_done
from polylocal.store import Store

pytestmark = pytest.mark.engine


class Person:
    def __init__(self, daemon: Daemon, name: str) -> None:
        store = Store(daemon.home / "polylocal.db")
        token = store.users.new_token(store.users.add(name))
        store.close()
        self.name = name
        self.http = httpx2.Client(base_url=daemon.url, headers={"Authorization": f"Token {token}"}, timeout=60)

    def project(self, name: str, *, is_public: bool = True) -> None:
        self.http.post("/api/v1/projects", json={"name": name, "is_public": is_public}).raise_for_status()

    def build(self, project: str, image: str) -> dict[str, Any]:
        """A finished build, with the last message of its history."""
        path = f"/api/v1/{self.name}/{project}/builds"
        made = self.http.post(path, json={"config": {"version": 1, "kind": "build", "build": {"image": image}}})
        if made.status_code == 400:
            return {"last_status": "refused", "message": made.text}
        number = made.raise_for_status().json()["id"]

        def done() -> dict[str, Any] | None:
            found: dict[str, Any] = self.http.get(f"{path}/{number}").raise_for_status().json()
            return found if is_done(found["last_status"]) else None

        found = eventually(done, 60)
        statuses = self.http.get(f"{path}/{number}/statuses").raise_for_status().json()["results"]
        return {**found, "message": statuses[-1]["message"]}


@pytest.fixture(scope="module")
def people(daemon: Daemon) -> Iterator[tuple[Person, Person]]:
    ann, ben = Person(daemon, "ann"), Person(daemon, "ben")
    ann.project("mine")
    ben.project("hidden", is_public=False)
    yield ann, ben
    ann.http.close()
    ben.http.close()


def test_no_name_of_the_image_of_a_hidden_project_is_of_use(
    people: tuple[Person, Person], raw_engine: docker.DockerClient
) -> None:
    ann, ben = people
    built = ben.build("hidden", BUSYBOX)
    assert built["last_status"] == "succeeded", built["message"]
    (image,) = raw_engine.images.list(filters={"label": f"polylocal.build={built['uuid']}"})
    digits = image.id.removeprefix("sha256:")
    later = f"127.0.0.1/{built['uuid']}:later"
    image.tag(later)
    try:
        for name in (*image.tags, later, image.id, digits, digits[:12], digits[:5], f"sha256:{digits[:12]}"):
            tried = ann.build("mine", name)
            assert tried["last_status"] in ("failed", "refused"), name
        assert ben.build("hidden", later)["last_status"] == "succeeded"
    finally:
        raw_engine.images.remove(later)


def test_the_refusal_does_not_say_whether_there_is_such_an_image(
    people: tuple[Person, Person], raw_engine: docker.DockerClient
) -> None:
    ann, ben = people
    built = ben.build("hidden", BUSYBOX)
    (image,) = raw_engine.images.list(filters={"label": f"polylocal.build={built['uuid']}"})
    name, start = image.tags[0], image.id.removeprefix("sha256:")[:8]
    for there, nowhere in ((name, name[:-1] + ("0" if name[-1] != "0" else "1")), (start, "0" * 8)):
        said = [ann.build("mine", each)["message"].replace(each, "NAME") for each in (there, nowhere)]
        assert said[0] == said[1]
