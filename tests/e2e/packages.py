"""The build lists API as a client sees it; sources and packages to build; containers that install them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import docker
import httpx2
import packages_support
from support import BUSYBOX, Daemon, eventually

from polylocal.packages import arches

BUILDER = "polylocal/package-builder:12"  # made by scripts/base-images --packages
EXAMPLES = Path(__file__).parents[2] / "examples/packages"
ARCH = arches.own()
BUSY = (2000, 3000, 4000, 7000, 10000)
_INSTALL_S = 60
_GIT = {f"GIT_{who}_{what}": f"{who}@polylocal" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
_numbers = count(1)


@dataclass(frozen=True)
class Target:
    """A platform and its repository `main`."""

    platform: str
    platform_id: int
    repository_id: int

    def folder(self, arch: str = ARCH) -> str:
        """Where its packages lie, below `downloads`."""
        return f"{self.platform}/repository/{arch}/main/release"


@dataclass(frozen=True)
class Source:
    """A project and its code on this machine, which `Abf.push` sends."""

    project_id: int
    name: str
    folder: Path

    def write(self, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


class Abf:
    """One daemon, asked as its first user. `work`: a folder for what is pushed."""

    def __init__(self, daemon: Daemon, work: Path) -> None:
        self.work = work
        self._connect(daemon)

    def _connect(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._http = httpx2.Client(base_url=daemon.url, auth=("root", daemon.token), timeout=30)

    def turn_to(self, daemon: Daemon) -> None:
        """The one that came after it."""
        self.close()
        self._connect(daemon)

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, status: int = 200) -> Any:
        answer = self._http.request(method, f"/api/v1/{path}.json", **({} if body is None else {"json": body}))
        assert answer.status_code == status, answer.text
        return answer.json()

    # -- what is there to build -----------------------------------------------------------------------------------

    def target(self, kind: str, image: str = BUSYBOX, *, has_qa: bool = False, **more: Any) -> Target:
        """A new platform with a repository."""
        name = f"{kind}{next(_numbers)}"
        said = {"name": name, "distrib_type": kind, "build_image": image, **more}
        platform = self.call("POST", "platforms", {"platform": said})["platform"]["id"]
        wanted = {"platform_id": platform, "name": "main", "publish_without_qa": not has_qa}
        repository = self.call("POST", "repositories", {"repository": wanted})["repository"]["id"]
        return Target(name, platform, repository)

    def personal_repository(self) -> int:
        """That of the first user."""
        platforms = self.call("GET", "platforms")["platforms"]
        [platform] = [found for found in platforms if found["name"] == "root_personal"]
        found = self.call("GET", f"platforms/{platform['id']}")["platform"]
        return int(found["repositories"][0]["id"])

    def source(self, *targets: Target, example: str | None = None) -> Source:
        """A new project, which may publish into these, with the code of an example or with none yet."""
        name = f"source{next(_numbers)}"
        project = self.call("POST", "projects", {"project": {"name": name}})["project"]["id"]
        for target in targets:
            self.call("PUT", f"repositories/{target.repository_id}/add_project", {"project_id": project})
        folder = self.work / name
        if example:
            shutil.copytree(EXAMPLES / example, folder)
        folder.mkdir(exist_ok=True)
        git("init", "--quiet", "--initial-branch=master", folder=folder)
        return Source(project, name, folder)

    def push(self, source: Source, files: Mapping[str, str | bytes] | None = None, tag: str | None = None) -> str:
        """With the real client; the commit, which gets this tag."""
        source.write(files or {})
        git("add", "--all", "--force", folder=source.folder)
        git("commit", "--quiet", "--message=x", folder=source.folder)
        address = self.daemon.url.replace("http://", f"http://root:{self.daemon.token}@")
        if tag:
            git("tag", tag, folder=source.folder)
        references = ["master", *([tag] if tag else [])]
        git("push", "--quiet", f"{address}/root/{source.name}.git", *references, folder=source.folder)
        return git("rev-parse", "HEAD", folder=source.folder).strip()

    # -- build lists ----------------------------------------------------------------------------------------------

    def build(self, source: Source, target: Target, **more: Any) -> int:
        """Of what was pushed last; into the target's repository if nothing else is said. Published only if asked."""
        said = {
            "project_id": source.project_id,
            "project_version": "master",
            "update_type": "bugfix",
            "save_to_repository_id": target.repository_id,
            "build_for_platform_id": target.platform_id,
            "arch_id": self.call("GET", "arches")["architectures"][0]["id"],
            "include_repos": [target.repository_id],
            "auto_publish": False,
            **more,
        }
        return int(self.call("POST", "build_lists", {"build_list": said})["build_list"]["id"])

    def show(self, build_list: int) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"build_lists/{build_list}")["build_list"]
        return found

    def status(self, build_list: int) -> int:
        return int(self.show(build_list)["status"])

    def ended(self, build_list: int, within_s: float = 60) -> dict[str, Any]:
        """As it is when nothing more comes by itself."""
        return eventually(lambda: (found := self.show(build_list))["status"] not in BUSY and found, within_s)

    def built(self, source: Source, target: Target, expected: int = 0, **more: Any) -> dict[str, Any]:
        """A build that came to this status."""
        found = self.ended(self.build(source, target, **more))
        assert found["status"] == expected, self.log(found["id"])
        return found

    def do(self, build_list: int, action: str, status: int = 200) -> None:
        self.call("PUT", f"build_lists/{build_list}/{action}", status=status)

    def publish(self, build_list: int) -> dict[str, Any]:
        self.do(build_list, "publish")
        return self.ended(build_list)

    def contained(self, build_list: int) -> dict[str, Any]:
        """With its container."""
        self.do(build_list, "create_container")
        return eventually(lambda: (found := self.show(build_list))["container_status"] == 6000 and found)

    def log(self, build_list: int) -> str:
        """What the build has written so far; nothing if it has not begun."""
        answer = self._http.get(f"/build_lists/{build_list}/log")
        return answer.text if answer.status_code == 200 else ""

    def result(self, build_list: int, file_name: str) -> str:
        """What is in a file that a build left, or that says what became of it."""
        [found] = [found for found in self.show(build_list)["logs"] if found["file_name"] == file_name]
        answer = self._http.get(found["url"])
        assert answer.status_code == 200, answer.text
        return answer.text

    # -- files ----------------------------------------------------------------------------------------------------

    def upload(self, name: str, content: bytes) -> str:
        """Into the file store; its sha1."""
        answer = self._http.post("/api/v1/upload", files={"file_store[file]": (name, content)})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["sha1_hash"])

    def url(self, below: str) -> str:
        return f"{self.daemon.url}/downloads/{below}"

    def fetch(self, path: str) -> httpx2.Response:
        """Without saying who asks, as package managers do. `path`: below `downloads`, or an address."""
        return httpx2.get(path if "://" in path else self.url(path), timeout=30)

    def served(self, folder: str) -> set[str]:
        """The names that the list of a folder has; none where there is no such folder."""
        answer = self.fetch(f"{folder}/")
        return (
            {unquote(part.split('"')[0]) for part in answer.text.split('href="')[1:]}
            if answer.status_code == 200
            else set()
        )

    def index(self, target: Target) -> str:
        """What apt reads of a repository."""
        answer = self.fetch(f"{target.folder()}/Packages")
        return answer.text if answer.status_code == 200 else ""

    def disk(self, target: Target, arch: str = ARCH) -> Path:
        """Where a repository lies on the disk."""
        return self.daemon.home / "downloads" / target.folder(arch)


@contextmanager
def asking(daemon: Daemon, work: Path) -> Iterator[Abf]:
    work.mkdir(parents=True, exist_ok=True)
    made = Abf(daemon, work)
    try:
        yield made
    finally:
        made.close()


def git(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env={**os.environ, **_GIT}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def recipe(command: str, sources: Mapping[str, str] | None = None) -> dict[str, str | bytes]:
    """An `.abf.yml`: how to build, and which files of the file store belong to the code."""
    text = "".join(f"  {line}\n" for line in command.splitlines())
    lines = "".join(f"  {name}: '{sha1}'\n" for name, sha1 in (sources or {}).items())
    return {".abf.yml": f"build:\n command: |\n{text}" + (f"sources:\n{lines}" if sources else "")}


READY_MADE = recipe('cp *.deb "$RESULTS_PATH"')  # a second instead of three: the code is the package


def deb(name: str, version: str) -> dict[str, str | bytes]:
    """A package that says its version: file name → content."""
    program = f"#!/bin/sh\necho {name} {version}\n"
    return {f"{name}_{version}_all.deb": packages_support.deb(name, version, program)}


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def apt(url: str, *names: str) -> str:
    """A line that installs from a repository that is served."""
    listed = f"echo 'deb [trusted=yes] {url}/ ./' >/etc/apt/sources.list.d/test.list"
    return f"{listed} && apt-get update && apt-get install -y {' '.join(names)}"


def inside(
    engine: docker.DockerClient, script: str, folders: Mapping[Path, str] | None = None, within_s: float = _INSTALL_S
) -> str:
    """What a program says in a container that reaches this machine's loopback; it must succeed.

    `folders`: of this machine, and where they are in the container, which can't change them.
    """
    volumes = {str(path): {"bind": at, "mode": "ro"} for path, at in (folders or {}).items()}
    command = ["sh", "-c", f"{{ {script}\n}} 2>&1"]
    made = engine.containers.create(BUILDER, command, network_mode="host", volumes=volumes)
    try:
        made.start()
        code = made.wait(timeout=within_s)["StatusCode"]
        said = made.logs().decode(errors="replace")
    finally:
        made.remove(force=True)
    assert code == 0, said
    return said
