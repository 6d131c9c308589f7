"""Builds, pulls, inspects and removes the images of a Docker engine."""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import requests
from docker.errors import APIError
from docker.types import CancellableStream

from polylocal.engine import references
from polylocal.engine.docker import buildkit, history
from polylocal.engine.docker.build_log import BuildLog
from polylocal.engine.docker.client import Client
from polylocal.engine.docker.connection import CALL_TIMEOUT_S, CUT, Connection
from polylocal.engine.docker.host import DockerHost
from polylocal.engine.images import BuildRequest, BuildResult, Cancellation, Image, ImageConfig, LocalImage, OnLine
from polylocal.engine.ledger import NOTHING_BUILT, Ledger, short_id
from polylocal.engine.plan import HOME_LABEL
from polylocal.errors import ContainerMissing, EngineError, EngineUnreachable, ImageMissing

log = logging.getLogger(__name__)

_MAX_CONFIGS = 256  # in the cache; each has some KiB
_POLL_S = 0.2  # between two looks at the cancellation of a pull that waits for another one


class DockerImages:
    """See `engine.images.Images`. `pull_timeout_s`: a pull ends after this time without progress."""

    def __init__(self, connection: Connection, host: DockerHost, *, use_buildkit: bool, pull_timeout_s: float) -> None:
        self._connection = connection
        self._host = host
        self._buildkit = buildkit.find(connection.address) if use_buildkit else None
        if use_buildkit and not self._buildkit:
            log.warning("builder = buildkit, but no docker command here has buildx: the classic builder is used")
        self._pull_timeout_s = pull_timeout_s
        self._pulls: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._configs: dict[str, ImageConfig] = {}  # by image id; the image of an id never changes

    def builder(self) -> str:
        if self._buildkit:
            return self._buildkit.name
        about = self._host.known()
        return f"classic ({about.name} {about.version})"

    def platform(self) -> str:
        with self._connection.call() as client:
            version = client.version()
        return f"{version['Os']}/{version['Arch']}"

    def image_id(self, name: str) -> str | None:
        try:
            with self._connection.call() as client:
                found: str = client.inspect_image(name)["Id"]
        except ImageMissing:
            return None
        return found

    def image(self, name: str) -> LocalImage | None:
        if not references.is_name(name):
            return None
        try:
            with self._connection.call() as client:
                found = client.inspect_image(name)
                names = [*(found.get("RepoTags") or []), *(found.get("RepoDigests") or [])]
                if not _is_among(name, names):
                    return None  # the engine takes the prefix of an id for a name
                past = client.history(found["Id"])
        except ImageMissing:
            return None
        except EngineError as error:
            if "invalid reference" not in str(error):
                raise
            return None
        given, config = found.get("Config") or {}, _config(found)
        return LocalImage(
            id=found["Id"],
            names=names,
            labels=given.get("Labels") or {},
            env=config.env,
            triggers=given.get("OnBuild") or [],
            ancestors=history.ancestors(past),
            user=config.user,
            made_by=history.instruction(past[0]) if past else "",
        )

    def image_config(self, image: str) -> ImageConfig:
        known = self._configs.get(image)
        if known is None:
            with self._connection.call() as client:
                found = client.inspect_image(image)
            known = _config(found)
            if found["Id"] == image:  # a name may belong to another image the next time
                if len(self._configs) >= _MAX_CONFIGS:
                    self._configs.clear()
                self._configs[image] = known
        return known

    def pull(self, name: str, on_line: OnLine, cancel: Cancellation, *, anew: bool = False) -> None:
        with self._pull_lock(name, cancel):
            if not anew and self.image(name):
                return
            repository, tag = references.repository_and_tag(name)
            with self._connection.new_client(self._pull_timeout_s, _StreamClient) as client:
                events = client.pull(repository, tag=tag, stream=True, decode=True)
                cancel.on_call(CancellableStream(events, client.response).close)
                _report_problems(client, on_line)
                try:
                    _show_pull(events, on_line)
                except CUT:
                    if not cancel.called:
                        raise
        if cancel.called:
            raise EngineError("the pull was stopped")

    @contextmanager
    def _pull_lock(self, name: str, cancel: Cancellation) -> Iterator[None]:
        """One pull of a name at a time. Raises EngineError: `cancel` was called before this one began."""
        lock = self._pulls[name]
        while not lock.acquire(timeout=_POLL_S):
            if cancel.called:
                raise EngineError("the pull was stopped")
        try:
            yield
        finally:
            lock.release()

    def build(self, request: BuildRequest, on_line: OnLine, cancel: Cancellation) -> BuildResult:
        if self._buildkit:
            result = self._buildkit.build(request, on_line, cancel)
            return BuildResult(self.image_id(request.tag)) if result.image_id is not None else result
        lines = BuildLog(on_line, self._only_of_builds(request.on_image))
        with self._connection.new_client(CALL_TIMEOUT_S, _StreamClient) as client:
            try:
                _build_classic(client, request, lines, cancel, on_line)
            except APIError as error:  # refused before the first line: the engine can't parse the Dockerfile
                if cancel.called or error.status_code is None or error.status_code >= 500:
                    raise
                return lines.result(error.explanation or str(error))
            except CUT:
                if not cancel.called:
                    raise
        if cancel.called:
            return lines.result("The build was stopped.")
        if not lines.is_whole:
            raise EngineUnreachable("the engine's answer ended in the middle of the build")
        return lines.result()

    def _only_of_builds(self, on_image: Callable[[str], None]) -> Callable[[str], None]:
        """Passes on ids of images that a build made, each once: a step may print any image's id like the builder."""
        made = set[str]()

        def check(image_id: str) -> None:
            if image_id not in made and self._is_of_a_build(image_id):
                made.add(image_id)
                on_image(image_id)

        return check

    def _is_of_a_build(self, image_id: str) -> bool:
        try:
            with self._connection.call() as client:
                past = client.history(image_id)
        except (ImageMissing, ContainerMissing):  # the image is missing
            return False
        return history.is_made_by_a_build(past)

    def remove_image(self, name: str) -> bool:
        try:
            with self._connection.call() as client:
                client.remove_image(name)
        except ImageMissing:
            return True
        except EngineError as error:  # a conflict: another image, a user's name or a container needs it
            return "container" not in str(error)
        return True

    def images(self, installation: str, ledger: Ledger = NOTHING_BUILT) -> Sequence[Image]:
        with self._connection.call() as client:
            # not `df`: it knows which layers are shared, but it measures every volume and container, too
            found = client.images()
        candidates = [image for image in found if history.may_be_ours(image, installation, ledger)]
        return [ours for image in candidates if (ours := self._as_ours(image, installation, ledger))]

    def _as_ours(self, image: Mapping[str, Any], installation: str, ledger: Ledger) -> Image | None:
        try:
            with self._connection.call() as client:
                past = client.history(image["Id"])
        except ImageMissing:  # it was removed since
            return None
        return history.own_image(image, past, installation, ledger)

    def image_ids(self) -> Sequence[str]:
        with self._connection.call() as client:
            return [image["Id"] for image in client.images(all=True)]

    def build_containers(self, ledger: Ledger) -> Sequence[str]:
        with self._connection.call() as client:
            found = client.containers(all=True)
        return [
            item["Id"]
            for item in found
            if item["State"] in ("created", "exited", "dead")
            and short_id(item["ImageID"]) in ledger.steps
            and short_id(item["ImageID"]) not in ledger.images  # users start containers of these
            and HOME_LABEL not in (item["Labels"] or {})
        ]


class _StreamClient(Client):
    """Keeps the response of a pull or a build, so that it can be cancelled: docker-py returns only the lines."""

    response: requests.Response

    def _post(self, url: str, **kwargs: Any) -> requests.Response:
        self.response = super()._post(url, **kwargs)
        return self.response


def _build_classic(
    client: _StreamClient, request: BuildRequest, lines: BuildLog, cancel: Cancellation, on_line: OnLine
) -> None:
    client.credentials.get_all_credentials()  # docker-py calls each helper here, so problems are known before the build
    _report_problems(client, on_line)
    # the low-level call: images.build() holds the log back until the end
    stream = client.build(
        fileobj=request.context,
        custom_context=True,
        tag=request.tag,
        labels=dict(request.labels),
        nocache=request.nocache,
        buildargs=dict(request.arguments) or None,
        rm=True,
        forcerm=True,
        decode=True,
    )
    # the classic builder stops when its client closes the connection
    cancel.on_call(CancellableStream(stream, client.response).close)
    if not cancel.called:
        lines.read(stream)


def _report_problems(client: Client, on_line: OnLine) -> None:
    for problem in client.credentials.problems:
        on_line(f"polylocal: {problem}")


def _show_pull(events: Iterable[Any], on_line: OnLine) -> None:
    said = set[str]()
    for event in events:
        if "error" in event:
            raise EngineError(event["error"])
        text = " ".join(str(event[key]) for key in ("id", "status") if event.get(key))
        if text and text not in said:  # each layer repeats its state with every bit of progress
            said.add(text)
            on_line(text)


def _config(image: Mapping[str, Any]) -> ImageConfig:
    config = image.get("Config") or {}
    env = dict(text.split("=", 1) for text in config.get("Env") or [] if "=" in text)
    return ImageConfig(env, config.get("User") or "")


def _is_among(name: str, listed: Sequence[str]) -> bool:
    """Podman lists the images that it built under `localhost/`, and finds them without this prefix."""
    wanted = references.familiar_name(name)
    if not wanted.startswith("localhost/"):
        listed = [each.removeprefix("localhost/") for each in listed]
    return wanted in map(references.familiar_name, listed)
