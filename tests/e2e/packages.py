"""A client of the build lists API, sources and packages to build, and containers that install them."""

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
ARCH = arches.native()
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
        """The path of its packages below `downloads`."""
        return f"{self.platform}/repository/{arch}/main/release"


@dataclass(frozen=True)
class Source:
    """A project and its code on this machine, which `Abf.push` pushes."""

    project_id: int
    name: str
    folder: Path

    def write(self, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


class Abf:
    """A client of one daemon, as its first user. `work`: the folder for code."""

    def __init__(self, daemon: Daemon, work: Path) -> None:
        self.work = work
        self._connect(daemon)

    def _connect(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._http = httpx2.Client(base_url=daemon.url, auth=("root", daemon.token), timeout=30)

    def switch_to(self, daemon: Daemon) -> None:
        """Use another daemon from now on."""
        self.close()
        self._connect(daemon)

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, status: int = 200) -> Any:
        answer = self._http.request(method, f"/api/v1/{path}.json", **({} if body is None else {"json": body}))
        assert answer.status_code == status, answer.text
        return answer.json()

    # -- platforms and sources ------------------------------------------------------------------------------------

    def target(self, kind: str, image: str = BUSYBOX, *, has_qa: bool = False, **more: Any) -> Target:
        """A new platform with a repository."""
        name = f"{kind}{next(_numbers)}"
        said = {"name": name, "distrib_type": kind, "build_image": image, **more}
        platform = self.call("POST", "platforms", {"platform": said})["platform"]["id"]
        wanted = {"platform_id": platform, "name": "main", "publish_without_qa": not has_qa}
        repository = self.call("POST", "repositories", {"repository": wanted})["repository"]["id"]
        return Target(name, platform, repository)

    def personal_repository(self) -> int:
        """The personal repository of the first user."""
        platforms = self.call("GET", "platforms")["platforms"]
        [platform] = [found for found in platforms if found["name"] == "root_personal"]
        found = self.call("GET", f"platforms/{platform['id']}")["platform"]
        return int(found["repositories"][0]["id"])

    def source(self, *targets: Target, example: str | None = None) -> Source:
        """Create a project that may publish into these repositories, with the code of an example or without code."""
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
        """Commit and push with git. Returns the commit. `tag` is set on it."""
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
        """Create a build of the newest commit, by default for the target's repository and without publication."""
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

    def wait_until_ended(self, build_list: int, within_s: float = 60) -> dict[str, Any]:
        """Wait for the end of a build, and return it."""
        return eventually(lambda: (found := self.show(build_list))["status"] not in BUSY and found, within_s)

    def build_and_wait(self, source: Source, target: Target, expected: int = 0, **more: Any) -> dict[str, Any]:
        """Build, and check the final status."""
        found = self.wait_until_ended(self.build(source, target, **more))
        assert found["status"] == expected, self.log(found["id"])
        return found

    def do(self, build_list: int, action: str, status: int = 200) -> None:
        self.call("PUT", f"build_lists/{build_list}/{action}", status=status)

    def publish(self, build_list: int) -> dict[str, Any]:
        self.do(build_list, "publish")
        return self.wait_until_ended(build_list)

    def create_container(self, build_list: int) -> dict[str, Any]:
        """Create the container of a build, and wait until it is published."""
        self.do(build_list, "create_container")
        return eventually(lambda: (found := self.show(build_list))["container_status"] == 6000 and found)

    def log(self, build_list: int) -> str:
        """The log of the build so far. Empty if it has not begun."""
        answer = self._http.get(f"/build_lists/{build_list}/log")
        return answer.text if answer.status_code == 200 else ""

    def result(self, build_list: int, file_name: str) -> str:
        """The content of one of the build's result files or logs."""
        [found] = [found for found in self.show(build_list)["logs"] if found["file_name"] == file_name]
        answer = self._http.get(found["url"])
        assert answer.status_code == 200, answer.text
        return answer.text

    # -- files ----------------------------------------------------------------------------------------------------

    def upload(self, name: str, content: bytes) -> str:
        """Upload to the file store. Returns the sha1."""
        answer = self._http.post("/api/v1/upload", files={"file_store[file]": (name, content)})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["sha1_hash"])

    def url(self, below: str) -> str:
        return f"{self.daemon.url}/downloads/{below}"

    def fetch(self, path: str) -> httpx2.Response:
        """Download without credentials, as package managers do. `path`: below `downloads`, or a URL."""
        return httpx2.get(path if "://" in path else self.url(path), timeout=30)

    def list_folder(self, folder: str) -> set[str]:
        """The names in the listing of a folder. Empty if the folder does not exist."""
        answer = self.fetch(f"{folder}/")
        return (
            {unquote(part.split('"')[0]) for part in answer.text.split('href="')[1:]}
            if answer.status_code == 200
            else set()
        )

    def index(self, target: Target) -> str:
        """The index that apt reads."""
        answer = self.fetch(f"{target.folder()}/Packages")
        return answer.text if answer.status_code == 200 else ""

    def folder_of(self, target: Target, arch: str = ARCH) -> Path:
        """The path of a repository on the disk."""
        return self.daemon.home / "downloads" / target.folder(arch)


@contextmanager
def connect_to(daemon: Daemon, work: Path) -> Iterator[Abf]:
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
    """An `.abf.yml` with the build command, and the files of the file store that belong to the code."""
    text = "".join(f"  {line}\n" for line in command.splitlines())
    lines = "".join(f"  {name}: '{sha1}'\n" for name, sha1 in (sources or {}).items())
    return {".abf.yml": f"build:\n command: |\n{text}" + (f"sources:\n{lines}" if sources else "")}


READY_MADE = recipe('cp *.deb "$RESULTS_PATH"')  # takes a second instead of three, since the code is the package


def deb(name: str, version: str) -> dict[str, str | bytes]:
    """A package with a program that prints its version: file name → content."""
    program = f"#!/bin/sh\necho {name} {version}\n"
    return {f"{name}_{version}_all.deb": packages_support.deb(name, version, program)}


def content(folder: Path) -> dict[str, bytes]:
    """All files below a folder: path → content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def apt(url: str, *names: str) -> str:
    """A shell command that installs from a repository of the daemon."""
    listed = f"echo 'deb [trusted=yes] {url}/ ./' >/etc/apt/sources.list.d/test.list"
    return f"{listed} && apt-get update && apt-get install -y {' '.join(names)}"


def run_in_container(
    engine: docker.DockerClient, script: str, folders: Mapping[Path, str] | None = None, within_s: float = _INSTALL_S
) -> str:
    """The output of a script in a container on the host's network. The script must succeed.

    `folders`: path on this machine → path in the container, mounted read-only.
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
