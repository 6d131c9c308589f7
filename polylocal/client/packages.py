"""The HTTP client of `polylocal package`: requests to the ABF API over a `Client`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import quote

from polylocal.client.http import Client, Json
from polylocal.errors import InvalidInput, NotFound
from polylocal.packages import refusals
from polylocal.packages.statuses import UPDATE_TYPES, BuildStatus

_BASE = "/api/v1"
_PAGE = 100
_NO_BUILD_LIST = "there is no build list {}; `polylocal package ls --all` lists the build lists"


@dataclass(frozen=True)
class BuildOptions:
    """The options of `polylocal package build`. None stands for the default of an option."""

    repository: str | None = None  # `platform/repository`
    platform: str | None = None
    arch: str | None = None
    ref: str | None = None  # without one, the caller uploads the code
    update_type: str = "bugfix"
    publish: bool = True
    container: bool = False


@dataclass(frozen=True)
class BuildPlan:
    """A checked build. `values` are the fields of the build list."""

    repository: str
    platform: str
    values: Json
    is_member: bool  # whether the project may publish in the repository already


class PackagesClient:
    """Sends requests to the ABF API. Raises the errors of `polylocal.errors` with the server's messages."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def platforms(self) -> list[Json]:
        """The platforms that the user may build for, with their repositories."""
        return self._list("platforms/platforms_for_build", "platforms")

    def platform(self, name: str) -> Json:
        """A platform by name, including personal ones. Raises NotFound."""
        for item in self._named_like(name):
            if item["name"].lower() == name.lower():
                return self.platform_by_id(item["id"])
        raise NotFound(f"there is no platform `{name}`; `polylocal package platform ls` lists the platforms")

    def platform_by_id(self, number: int) -> Json:
        """Raises NotFound."""
        return self._get(f"platforms/{number}", "platform")

    def key_url(self, platform: str) -> str | None:
        """The URL of the public key of a platform's repositories; None if they are not signed."""
        path = f"/downloads/{quote(platform)}/key.asc"
        try:
            self._client.call("GET", path)
        except NotFound:
            return None
        return f"{self._client.url.rstrip('/')}{path}"

    def _named_like(self, name: str) -> Iterator[Json]:
        for page in count(1):
            parameters = {"type": "platforms", "query": name, "per_page": str(_PAGE), "page": str(page)}
            found: list[Json] = self._get("search", "results", **parameters)["platforms"]
            yield from found
            if len(found) < _PAGE:
                return

    def create_platform(self, values: Json) -> Json:
        return self._create("POST", "platforms", platform=values)

    def platform_key(self, name: str) -> Json:
        """`fingerprint`, and `key`: the armored public key. Raises NotFound."""
        return self._get(f"platforms/{self.platform(name)['id']}/key", "platform")

    def repository(self, named: str) -> Json:
        """A repository by `platform/repository`, or `platform` for its `main`. Raises NotFound."""
        platform, _, name = named.partition("/")
        name = name or "main"
        found = next((r for r in self.platform(platform)["repositories"] if r["name"].lower() == name.lower()), None)
        if found is None:
            raise NotFound(f"the platform `{platform}` has no repository `{name}`")
        return self._get(f"repositories/{found['id']}", "repository")

    def create_repository(self, values: Json) -> Json:
        return self._create("POST", "repositories", repository=values)

    def add_project(self, repository_id: int, project_id: int) -> None:
        self._send("PUT", f"repositories/{repository_id}/add_project", project_id=project_id)

    def remove_project(self, repository_id: int, project_id: int) -> None:
        self._send("DELETE", f"repositories/{repository_id}/remove_project", project_id=project_id)

    def lock(self, repository_id: int) -> None:
        self._send("PUT", f"repositories/{repository_id}/add_repo_lock_file")

    def unlock(self, repository_id: int) -> None:
        self._send("DELETE", f"repositories/{repository_id}/remove_repo_lock_file")

    def arches(self) -> list[Json]:
        return self._list("arches", "architectures")

    def project(self, owner: str, name: str) -> Json:
        """Raises NotFound."""
        with _missing_as(f"there is no project `{owner}/{name}`"):
            found = self._get("projects/get_id", "project", owner=owner, name=name)
        return self._get(f"projects/{found['id']}", "project")

    def create_project(self, name: str) -> Json:
        return self._create("POST", "projects", project={"name": name})

    def plan_build(self, owner: str, name: str, options: BuildOptions) -> BuildPlan:
        """Check the options of a build and look up the objects that they name. Creates the project before an upload.

        Raises NotFound and InvalidInput.
        """
        if options.update_type not in UPDATE_TYPES:
            allowed = ", ".join(UPDATE_TYPES)
            raise InvalidInput([f"--update-type: must be one of {allowed}, not `{options.update_type}`"])
        user = self._client.whoami()["username"]
        repository = options.repository or f"{user}_personal/main"
        save_to = self.repository(repository)
        build_for = self.platform(options.platform or save_to["platform"]["name"])
        if build_for["platform_type"] != "main":
            raise InvalidInput(["--for: name the platform to build for; `polylocal package platform ls` lists them"])
        arch_id = self._arch_id(options.arch)
        project = self._project_to_build(owner, name, may_create=options.ref is None and owner == user)
        values = {
            "project_id": project["id"],
            "commit_hash": None,
            "project_version": options.ref or "master",
            "update_type": options.update_type,
            "save_to_repository_id": save_to["id"],
            "build_for_platform_id": build_for["id"],
            "arch_id": arch_id,
            "include_repos": [item["id"] for item in build_for["repositories"]],
            "auto_publish_status": "default" if options.publish else "none",
            "auto_create_container": options.container,
        }
        is_member = save_to["id"] in [item["id"] for item in project["repositories"]]
        return BuildPlan(repository, build_for["name"], values, is_member)

    def start_build(self, plan: BuildPlan, git_describe: str | None) -> int:
        """Create a build list, and let its project publish in the repository. Returns the number of the build list."""
        values = {**plan.values, **({"git_describe": git_describe} if git_describe else {})}
        if not plan.is_member:
            self.add_project(values["save_to_repository_id"], values["project_id"])
        return int(self._send("POST", "build_lists", build_list=values)["build_list"]["id"])

    def _project_to_build(self, owner: str, name: str, *, may_create: bool) -> Json:
        try:
            return self.project(owner, name)
        except NotFound:
            if not may_create:
                raise
        self.create_project(name)
        return self.project(owner, name)

    def _arch_id(self, name: str | None) -> int:
        found = self.arches()
        number = next((item["id"] for item in found if name in (None, item["name"])), None)
        if number is None:
            raise InvalidInput([f"--arch: this machine builds for {', '.join(item['name'] for item in found)}"])
        return int(number)

    def build_lists(self, limit: int, **filters: str) -> list[Json]:
        parameters = {f"filter[{name}]": value for name, value in filters.items()}
        return self._list("build_lists", "build_lists", per_page=str(limit), **parameters)

    def build_list(self, number: int) -> Json:
        with _missing_as(_NO_BUILD_LIST.format(number)):
            return self._get(f"build_lists/{number}", "build_list")

    def act(self, number: int, action: str) -> str:
        """Send cancel, publish, create_container or reject_publish. Returns the server's message."""
        with _missing_as(_NO_BUILD_LIST.format(number)):
            return str(self._send("PUT", f"build_lists/{number}/{action}")["build_list"]["message"])

    def yank(self, number: int, reason: str) -> str:
        """Withdraw the published packages of a build list. Returns the server's message."""
        return self._yank("PUT", number, json={"reason": reason})

    def undo_yank(self, number: int) -> str:
        """Undo `yank`. Returns the server's message."""
        return self._yank("DELETE", number)

    def _yank(self, method: str, number: int, **content: Any) -> str:
        self.build_list(number)  # raises NotFound if there is none
        with _missing_as(
            "the daemon does not know `yank`: it is older than this command; update polylocal on its machine"
        ):
            answer = self._client.json(method, f"/polylocal/v1/build_lists/{number}/yank", **content)
        return str(answer["build_list"]["message"])

    def log(self, number: int, offset: int = 0) -> bytes:
        """The log from byte `offset` on; empty if there is no log yet."""
        try:
            return self._client.call("GET", f"/build_lists/{number}/log", params={"offset": str(offset)}).content
        except NotFound:
            return b""

    def _get(self, path: str, key: str, **parameters: str) -> Json:
        found: Json = self._client.json("GET", f"{_BASE}/{path}.json", params=parameters)[key]
        return found

    def _list(self, path: str, key: str, **parameters: str) -> list[Json]:
        found: Any = self._get(path, key, **parameters)
        return list(found)

    def _create(self, method: str, path: str, **body: Any) -> Json:
        """The number of the new object, and the server's message."""
        made: Json = next(iter(self._send(method, path, **body).values()))
        return made

    def _send(self, method: str, path: str, **body: Any) -> Json:
        return self._client.json(method, f"{_BASE}/{path}.json", json=body)


def has_succeeded(found: Json, is_to_publish: bool) -> bool:
    """Whether a finished build list completed all its steps. A publication that waits for QA counts as completed."""
    if found["status"] != BuildStatus.COMPLETE:
        return bool(found["status"] == BuildStatus.PUBLISHED)
    refusal = found.get("not_published")
    return not is_to_publish or (refusal is not None and refusal["reason"] == refusals.QA)


@contextmanager
def _missing_as(words: str) -> Iterator[None]:
    """Replace the server's general NotFound by a specific message."""
    try:
        yield
    except NotFound as error:
        raise NotFound(words) from error
