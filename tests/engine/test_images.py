"""Names and owners of images on the real engine."""

from __future__ import annotations

import io
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from support import BUSYBOX

from polylocal.engine.images import BuildRequest, BuildResult
from polylocal.engine.ledger import Ledger, short_id
from polylocal.engine.plan import BUILD_LABEL, HOME_LABEL, IMAGE_LABEL, RUN_LABEL, ContainerPlan
from polylocal.planning import dockerfile
from polylocal.system.cancellation import Cancel

from .conftest import Bench

pytestmark = pytest.mark.engine


class Yard:
    """Builds images with the engine of a bench and records their steps; also creates images of other users."""

    def __init__(self, bench: Bench, raw: docker.DockerClient) -> None:
        self.bench = bench
        self.raw = raw
        self.noted: list[str] = []
        self._others: list[str] = []
        self._containers: list[Any] = []

    def build(self, text: str, build_uuid: str) -> BuildResult:
        """Build an image as polylocal does."""
        text = dockerfile.with_label(text, IMAGE_LABEL, self.bench.installation)
        with tempfile.TemporaryFile() as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                entry = tarfile.TarInfo("Dockerfile")
                entry.size = len(text)
                tar.addfile(entry, io.BytesIO(text.encode()))
            file.seek(0)
            labels = {BUILD_LABEL: build_uuid}
            request = BuildRequest(file, f"p_1:{build_uuid}", labels, on_image=self.noted.append)
            return self.bench.engine.build(request, lambda line: None, Cancel())

    def others(self, text: str, tag: str | None = None, **labels: str) -> str:
        """Create an image as another user. Returns its id."""
        image, _ = self.raw.images.build(fileobj=io.BytesIO(text.encode()), labels=labels, tag=tag, rm=True)
        self._others.append(tag or image.id)
        found: str = image.id
        return found

    def container(self, image: str, **more: Any) -> str:
        made = self.raw.containers.create(image, "true", **more)
        self._containers.append(made)
        found: str = made.id
        return found

    def owned(self, ledger: Ledger) -> dict[str, tuple[str, bool]]:
        """The build of each image by its id, and whether the ledger proves it."""
        found = self.bench.engine.images(self.bench.installation, ledger)
        return {image.id: (image.build, image.is_proven) for image in found}

    def close(self) -> None:
        for made in self._containers:
            made.remove(force=True)
        for name in reversed(self._others):
            self.raw.images.remove(name, force=True)


@pytest.fixture
def yard(docker_bench: Bench, raw_engine: docker.DockerClient) -> Iterator[Yard]:
    made = Yard(docker_bench, raw_engine)
    yield made
    made.close()


def unique() -> str:
    return f"echo {uuid.uuid4().hex} > /about"


def test_an_id_and_the_start_of_one_are_no_names(yard: Yard) -> None:
    engine = yard.bench.engine
    found = engine.image(BUSYBOX)
    assert found
    assert found.id == engine.image_id(BUSYBOX)
    assert BUSYBOX in found.names
    assert engine.image(f"docker.io/{BUSYBOX}")
    hexadecimal = found.id.removeprefix("sha256:")
    for name in (found.id, hexadecimal, hexadecimal[:12], hexadecimal[:4], f"sha256:{hexadecimal[:12]}", "No!name", ""):
        assert engine.image(name) is None


def test_what_an_image_hands_on_is_known(yard: Yard) -> None:
    tag = f"somebody/else:{uuid.uuid4().hex}"
    text = f"FROM {BUSYBOX}\nENV A=b=c\nLABEL x=y\nONBUILD COPY --from=z / /\n"
    yard.others(text, tag)
    found = yard.bench.engine.image(tag)
    assert found
    assert (found.env["A"], found.labels["x"], list(found.triggers)) == ("b=c", "y", ["COPY --from=z / /"])
    assert found.ancestors
    assert found.ancestors[-1] == yard.bench.engine.image_id(BUSYBOX)


def test_labels_that_a_dockerfile_overwrites_do_not_hide_its_images(yard: Yard) -> None:
    build = uuid.uuid4().hex
    lines = [
        f"LABEL {IMAGE_LABEL}=x {BUILD_LABEL}=y",
        f'LABEL "{IMAGE_LABEL}"="" \\\n  \'{BUILD_LABEL}\'=z',
        f"ENV K={IMAGE_LABEL}",
        "LABEL $K=other",
    ]
    made = yard.build(f"FROM {BUSYBOX}\nRUN {unique()}\n" + "\n".join(lines) + "\n", build)
    assert made.image_id
    ledger = Ledger({short_id(made.image_id): build}, {short_id(each): build for each in yard.noted})
    assert yard.owned(ledger) == {made.image_id: (build, True)}
    assert yard.bench.engine.remove_image(f"p_1:{build}")
    assert yard.bench.engine.image_id(made.image_id) is None


def test_the_steps_of_a_build_that_fails_are_ours_whatever_labels_they_have(yard: Yard) -> None:
    build = uuid.uuid4().hex
    made = yard.build(f"FROM {BUSYBOX}\nRUN {unique()}\nLABEL {IMAGE_LABEL}=x\nRUN exit 3\n", build)
    assert made.image_id is None
    ledger = Ledger({}, {short_id(each): build for each in yard.noted})
    ((step, owner),) = yard.owned(ledger).items()
    assert owner == ("", True)
    # one that was not noted any more lies over one that was
    notes = [short_id(each) for each in yard.noted if short_id(each) != short_id(step)]
    assert yard.owned(Ledger({}, dict.fromkeys(notes, build))) == {step: ("", True)}
    assert yard.bench.engine.remove_image(step)


def test_the_image_that_a_build_starts_from_is_not_noted(yard: Yard) -> None:
    yard.build(f"FROM {BUSYBOX}\nRUN {unique()}\n", uuid.uuid4().hex)
    base = yard.bench.engine.image_id(BUSYBOX)
    assert yard.noted
    assert short_id(base or "") not in {short_id(each) for each in yard.noted}


def test_what_a_step_prints_makes_nobodys_image_ours(yard: Yard) -> None:
    other = yard.others(f"FROM {BUSYBOX}\nRUN {unique()}\n")
    build = uuid.uuid4().hex
    yard.build(f'FROM {BUSYBOX}\nRUN {unique()} && echo " ---> {short_id(other)}"\n', build)
    assert short_id(other) not in {short_id(each) for each in yard.noted}
    assert other not in yard.owned(Ledger({}, {short_id(other): build}))


def test_what_a_step_prints_makes_no_image_that_others_made_of_ours_a_step(yard: Yard) -> None:
    first, build = uuid.uuid4().hex, uuid.uuid4().hex
    made = yard.build(f"FROM {BUSYBOX}\nRUN {unique()}\n", first)
    assert made.image_id
    other = yard.others(f"FROM p_1:{first}\nRUN {unique()}\n")
    yard.noted.clear()
    yard.build(
        f'FROM {BUSYBOX}\nRUN {unique()} && echo " ---> {short_id(other)}" && echo " ---> 0123456789ab"\n', build
    )
    assert not {short_id(each) for each in yard.noted} & {short_id(other), "0123456789ab"}


def test_a_container_that_a_person_made_of_a_builds_image_is_none_of_a_step(yard: Yard) -> None:
    build = uuid.uuid4().hex
    made = yard.build(f"FROM {BUSYBOX}\nRUN {unique()}\n", build)
    assert made.image_id
    yard.container(made.image_id)
    ledger = Ledger({short_id(made.image_id): build}, {short_id(made.image_id): "another"})
    assert list(yard.bench.engine.build_containers(ledger)) == []


def test_images_of_others_with_our_labels_are_proven_by_nothing(yard: Yard) -> None:
    build = uuid.uuid4().hex
    made = yard.build(f"FROM {BUSYBOX}\nRUN {unique()}\n", build)
    assert made.image_id
    ledger = Ledger({short_id(made.image_id): build}, {short_id(each): build for each in yard.noted})
    labels = {IMAGE_LABEL: yard.bench.installation, BUILD_LABEL: build}
    forged = [
        yard.others(f"FROM {BUSYBOX}\nRUN {unique()}\n", **labels),
        yard.others(f"FROM {BUSYBOX}\nRUN {unique()}\n", f"somebody:{build}", **labels),
        yard.others(f"FROM {BUSYBOX}\nRUN {unique()}\n", **{IMAGE_LABEL: yard.bench.installation}),
        yard.others(f"FROM p_1:{build}\nRUN {unique()}\n"),
        yard.others(f"FROM p_1:{build}\nRUN {unique()}\n", f"somebody/else:{build[:8]}"),
    ]
    found = yard.owned(ledger)
    assert not [image for image in forged if found.get(image, ("", False))[1]]
    assert made.image_id not in found or found[made.image_id][1]


def test_an_image_that_a_container_is_made_of_is_not_removed(yard: Yard) -> None:
    build = uuid.uuid4().hex
    made = yard.build(f"FROM {BUSYBOX}\nRUN {unique()}\n", build)
    container = yard.bench.engine.create(ContainerPlan(f"plx-job-{build}", f"p_1:{build}", ["true"], {}))
    assert not yard.bench.engine.remove_image(f"p_1:{build}")
    yard.bench.engine.remove(container)
    assert yard.bench.engine.remove_image(f"p_1:{build}")
    assert yard.bench.engine.image_id(made.image_id or "") is None
    assert yard.bench.engine.remove_image(f"p_1:{build}")


# -- containers --------------------------------------------------------------------------------------------------


def test_a_container_of_others_is_not_ours_by_the_labels_of_its_image(yard: Yard) -> None:
    run, tag = uuid.uuid4().hex, f"somebody/else:{uuid.uuid4().hex}"
    labels = {HOME_LABEL: yard.bench.installation, RUN_LABEL: f"job/{run}"}
    yard.others(f"FROM {BUSYBOX}\nRUN {unique()}\n", tag, **labels)
    yard.container(tag)
    yard.container(tag, name=f"somebody-{run}")
    assert not yard.bench.engine.containers(yard.bench.installation)


def test_a_helper_does_not_take_the_run_of_its_image_for_its_own(yard: Yard) -> None:
    run, tag = uuid.uuid4().hex, f"somebody/else:{uuid.uuid4().hex}"
    yard.others(f"FROM {BUSYBOX}\nRUN {unique()}\n", tag, **{RUN_LABEL: f"job/{run}"})
    plan = ContainerPlan(f"plx-chown-{run}", tag, ["true"], {HOME_LABEL: yard.bench.installation})
    made = yard.bench.engine.create(plan)
    (found,) = yard.bench.engine.containers(yard.bench.installation)
    assert (found.id, found.run) == (made, "")
    yard.bench.engine.remove(made)


def test_containers_that_a_build_left_are_found_by_their_image(yard: Yard) -> None:
    """An engine that ends in the middle of a step leaves them stopped, with a generated name."""
    build = uuid.uuid4().hex
    made = yard.build(f"FROM {BUSYBOX}\nRUN {unique()}\nRUN exit 3\n", build)
    assert made.image_id is None
    ledger = Ledger({}, {short_id(each): build for each in yard.noted})
    (step,) = yard.owned(ledger)
    left = yard.container(step)
    yard.container(BUSYBOX)
    assert list(yard.bench.engine.build_containers(ledger)) == [left]
