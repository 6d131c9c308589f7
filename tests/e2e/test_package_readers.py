"""Package managers that update in a loop while a repository is published repeatedly."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest
from api.conftest import on_loopback
from api_support import api_context
from fake_engine import FakeEngine
from packages_support import Ground, deb, package, whole_wheel
from rpms_support import rpm
from runner.conftest import Rig
from support import eventually

from e2e.packages import run_in_container
from polylocal.packages.file_store import FileStore
from polylocal.runner.publisher import Publisher
from polylocal.runner.runner_context import RunnerContext
from polylocal.settings import Settings
from polylocal.store import Store
from polylocal.store.rows import Project, User

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PUBLICATIONS = 100
AT_A_TIME = 2  # publications after each request
WITHIN_S = 240.0  # takes a tenth of it on an idle machine, since each loop starts slow programs

# Each loop gets the newest package of the index, and checks that it is not older than the last one published before.
# `update` must fail on any error, and must not retry. It leaves one package in $PWD.
LOOP = """
fail() { echo "$1"; exit 1; }
mkdir /tmp/got && cd /tmp/got
loops=0 last=
until [ "$last" ]; do
  [ ! -e /sync/over ] || last=yes
  before=$(cat /sync/published)
  update >/tmp/said 2>&1 || fail "after $loops loops: $(cat /tmp/said)"
  set -- *
  found=$(echo "$1" | sed 's/[^0-9]*\\([0-9]*\\).*/\\1/')
  [ $# = 1 ] && [ "$found" -ge "$before" ] || fail "after $loops loops: $* where $before had been published"
  rm "$1"
  loops=$((loops + 1))
done
echo "$loops loops, the last one found $found"
"""
GET_KEY = """
python3 -c 'import sys, urllib.request; sys.stdout.write(urllib.request.urlopen("KEY").read().decode())' >/tmp/key.asc
"""
APT = f"""{GET_KEY}
echo 'deb [signed-by=/tmp/key.asc] URL/ ./' >/etc/apt/sources.list.d/test.list
update() {{ apt update && apt download tool; }}
apt() {{ apt-get -q -o Acquire::Retries=0 -o APT::Update::Error-Mode=any "$@"; }}
"""
PIP = """
update() { pip download -q --no-cache-dir --no-deps --retries 0 --index-url URL/simple/ tool; }
"""
DNF = """
mkdir -p /etc/yum.repos.d
cat >/etc/yum.repos.d/test.repo <<'END'
[test]
name=test
baseurl=URL/
repo_gpgcheck=1
gpgkey=KEY
gpgcheck=0
skip_if_unavailable=0
END
update() { dnf -y --disableplugin=local --releasever=1 --setopt=retries=1 --refresh download tool; }
"""


def a_deb(version: str) -> tuple[str, bytes]:
    return f"tool_{version}_all.deb", deb("tool", version)


def a_wheel(version: str) -> tuple[str, bytes]:
    return f"tool-{version}-py3-none-any.whl", whole_wheel("tool", version)


def an_rpm(version: str) -> tuple[str, bytes]:
    return f"tool-{version}-1.noarch.rpm", rpm("tool", version)


@dataclass
class RepeatedPublisher:
    """Publishes into a repository by a daemon without an engine. `sync`: the folder where it reports its progress."""

    ground: Ground
    context: RunnerContext
    made: Callable[[str], tuple[str, bytes]]
    sync: Path
    requested: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    is_left: threading.Event = field(default_factory=threading.Event)

    @property
    def path(self) -> str:
        return f"{self.ground.platform.name}/repository/{self.ground.arch.name}/main/release"

    def publish(self, number: int) -> None:
        """Publish version `number`, which replaces the previous version."""
        name, content = self.made(str(number))
        FileStore(self.context.home.files).save(io.BytesIO(content))
        made = self.ground.queue()
        self.ground.end(made, 0, package("tool", str(number), content, file_name=name))
        assert self.ground.store.build_lists.publish(made, self.ground.user, again=False)
        Publisher(self.context).publish()
        assert self.ground.again(made).status == 6000
        self._report("published", str(number))

    def publish_all(self) -> None:
        """Publish some versions after each request, so that publications separate any two requests of a reader."""
        for first in range(2, PUBLICATIONS + 1, AT_A_TIME):
            eventually(lambda: self.requested.acquire(blocking=False) or self.is_left.is_set(), WITHIN_S)
            if self.is_left.is_set():
                return
            for number in range(first, min(first + AT_A_TIME, PUBLICATIONS + 1)):
                self.publish(number)
        self._report("over", "")

    def _report(self, name: str, text: str) -> None:
        new = self.sync / f"{name}.new"
        new.write_text(text)
        new.replace(self.sync / name)

    def around(self, app: Any) -> Any:
        async def told(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                self.requested.release()
            await app(scope, receive, send)

        return told


@pytest.fixture
def publishers(
    settings: Settings, store: Store, root: User, project: Project, tmp_path: Path
) -> Callable[..., RepeatedPublisher]:
    def make(kind: str, made: Callable[[str], tuple[str, bytes]]) -> RepeatedPublisher:
        sync = tmp_path / "sync"
        sync.mkdir()
        context = Rig(settings, store, FakeEngine(), project, root).context()
        return RepeatedPublisher(Ground.of(store, root, project, kind), context, made, sync)

    return make


@contextmanager
def publishing(publisher: RepeatedPublisher) -> Iterator[None]:
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(publisher.publish_all)
        try:
            yield
        finally:
            publisher.is_left.set()
        done.result()


@pytest.mark.parametrize(
    ("kind", "made", "client"),
    [("deb", a_deb, APT), ("pypi", a_wheel, PIP), ("dnf", an_rpm, DNF)],
    ids=["apt", "pip", "dnf"],
)
def test_a_reader_meets_no_error_and_no_old_index(
    publishers: Callable[..., RepeatedPublisher],
    raw_engine: docker.DockerClient,
    kind: str,
    made: Callable[[str], tuple[str, bytes]],
    client: str,
) -> None:
    publisher = publishers(kind, made)
    publisher.publish(1)
    context = api_context(publisher.context.settings, publisher.ground.store)
    with on_loopback(context, publisher.around) as url, publishing(publisher):
        key = f"{url}/downloads/{publisher.ground.platform.name}/key.asc"
        script = client.replace("URL", f"{url}/downloads/{publisher.path}").replace("KEY", key) + LOOP
        said = run_in_container(raw_engine, script, {publisher.sync: "/sync"}, WITHIN_S)
    loops, found = (int(word) for word in said.replace(",", "").split() if word.isdecimal())
    assert found == PUBLICATIONS
    assert loops >= PUBLICATIONS // AT_A_TIME // 10
