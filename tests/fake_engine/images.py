"""The images of the fake engine. A build reads the Dockerfile and executes `RUN sleep` and `RUN exit` only."""

from __future__ import annotations

import itertools
import re
import tarfile
import threading
from collections.abc import Sequence
from dataclasses import replace

from polylocal import clock
from polylocal.engine.images import BuildRequest, BuildResult, Cancellation, Image, ImageConfig, LocalImage, OnLine
from polylocal.engine.ledger import NOTHING_BUILT, Ledger
from polylocal.engine.plan import BUILD_LABEL, IMAGE_LABEL
from polylocal.errors import EngineError, EngineUnreachable, ImageMissing

IMAGE_BYTES = 1 << 20  # of each built image


class FakeImages:
    """See `engine.images.Images`. `images` are the names of the local images."""

    def __init__(self, images: Sequence[str]) -> None:
        self.is_away = False
        self.local = {name: f"sha256:{name}" for name in images}
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._built: dict[str, tuple[str, Image]] = {}  # by id: the installation, and the image
        self.labels: dict[str, dict[str, str]] = {}  # by image id
        self.triggers: dict[str, list[str]] = {}  # ONBUILD instructions, by image id
        self.users: dict[str, str] = {}  # by image id
        self.texts: list[str] = []  # the Dockerfiles of all builds
        self.remote: set[str] = set()  # names that a pull finds
        self.environment: dict[str, str] = {}  # of every image
        self.builds = 0

    def builder(self) -> str:
        return "classic (Fake 1.0)"

    def platform(self) -> str:
        return "linux/amd64"

    def image_id(self, name: str) -> str | None:
        self._answer()
        return self.local.get(name) or (name if name in self.local.values() else None)

    def image(self, name: str) -> LocalImage | None:
        self._answer()
        found = self.local.get(name)
        if found is None:
            return None
        names = [tag for tag, image_id in self.local.items() if image_id == found]
        made = self._built.get(found)
        labels = {IMAGE_LABEL: made[0], BUILD_LABEL: made[1].build} if made else self.labels.get(found, {})
        made_by = f"LABEL {BUILD_LABEL}={made[1].build}" if made else ""
        triggers, user = self.triggers.get(found, []), self.users.get(found, "")
        return LocalImage(found, names, labels, triggers=triggers, made_by=made_by, user=user)

    def image_config(self, image: str) -> ImageConfig:
        image_id = self.image_id(image)
        if image_id is None:
            raise ImageMissing(f"No such image: {image}")
        return ImageConfig(self.environment, self.users.get(image_id, ""))

    def pull(self, name: str, on_line: OnLine, cancel: Cancellation, *, anew: bool = False) -> None:
        self._answer()
        if name in self.local and not anew:
            return
        if name not in self.remote:
            raise EngineError(f"pull access denied for {name}")
        on_line(f"{name} pulled")
        self.local[name] = f"sha256:{name}"

    def build(self, request: BuildRequest, on_line: OnLine, cancel: Cancellation) -> BuildResult:
        self._answer()
        self.builds += 1
        with tarfile.open(fileobj=request.context) as tar:
            member = tar.extractfile("Dockerfile")
            text = member.read().decode() if member else ""
        self.texts.append(text)
        lines = [line for line in text.splitlines() if line and not line.startswith(("#", "LABEL "))]
        for number, line in enumerate(lines, 1):
            step = f"Step {number}/{len(lines)} : {line}"
            on_line(step)
            if cancel.called:
                return BuildResult(None, "The build was stopped.", step)
            if line.startswith("RUN sleep "):
                _sleep_until_cancelled(float(line.split()[2]), cancel)
            if line.startswith("RUN exit ") and line != "RUN exit 0":
                error = f"The command '/bin/sh -c {line[4:]}' returned a non-zero code: {line.split()[2]}"
                on_line(error)
                return BuildResult(None, error, step)
        if cancel.called:
            return BuildResult(None, "The build was stopped.", step)
        return self._add(request, text)

    def _add(self, request: BuildRequest, dockerfile: str) -> BuildResult:
        made = f"sha256:{next(self._numbers):012x}{'0' * 52}"
        request.on_image(made)
        self.local[request.tag] = made
        owner = re.search(rf"^LABEL {re.escape(IMAGE_LABEL)}=(.*)$", dockerfile, re.MULTILINE)
        installation, uuid = owner[1] if owner else "", request.labels.get(BUILD_LABEL, "")
        self._built[made] = (installation, Image(made, uuid, [request.tag], {made: IMAGE_BYTES}, clock.now()))
        return BuildResult(made)

    def remove_image(self, name: str) -> bool:
        self._answer()
        if self._is_in_use(self.local.get(name, name)):
            return False
        for tag in [tag for tag, known in self.local.items() if name in (tag, known)]:
            del self.local[tag]
        return True

    def images(self, installation: str, ledger: Ledger = NOTHING_BUILT) -> Sequence[Image]:
        self._answer()
        here = set(self.local.values())
        found = []
        for of, image in self._built.values():
            maker = ledger.find_build(image.id, image.names, ())
            if image.id in here and (maker or of == installation):
                build = maker or image.build
                found.append(replace(image, build=build, is_proven=maker is not None))
        return found

    def image_ids(self) -> Sequence[str]:
        self._answer()
        return list(self.local.values())

    def build_containers(self, ledger: Ledger) -> Sequence[str]:
        self._answer()
        return []

    def _answer(self) -> None:
        if self.is_away:
            raise EngineUnreachable("the fake engine is away")

    def _is_in_use(self, image_id: str) -> bool:
        """Whether a container needs this image."""
        return False


def _sleep_until_cancelled(seconds: float, cancel: Cancellation) -> None:
    called = threading.Event()
    cancel.on_call(called.set)
    called.wait(seconds)
