"""Values of `env_vars` reach a container's environment through a real build."""

from __future__ import annotations

import io
import tarfile
import tempfile
from dataclasses import replace

import pytest
from support import eventually

from polylocal.engine.docker import buildkit
from polylocal.engine.docker.engine import DockerEngine
from polylocal.engine.images import BuildRequest
from polylocal.planning.dockerfile import render
from polylocal.polyaxonfile import Build, build_variables
from polylocal.system.cancellation import Cancel

from .conftest import Bench

pytestmark = pytest.mark.engine

# each is a step of a build, which takes its time: so each has several signs in it
VALUES = [
    *(" x 'y' ", "", 'say "hi" # no', "C:\\new\\", "5$ pa$$word $1 ${ ${} $", "${PATH}é$PATHé", "a  b=c <<EOF --x"),
    *("\\$PATH \\\\$PATH", '${NONE:-"a" \\ it\'s}$V3', "${NONE:-${V1}x}}${PATH:+'}", "\ufeff\tü\u2028\u00a0", "\\"),
]


def outcome(engine: DockerEngine, bench: Bench, text: str) -> str:
    """The image of a Dockerfile that needs no files."""
    lines: list[str] = []
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for name, content in (("Dockerfile", text.encode()), ("build/x", b"")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        file.seek(0)
        labels = {"polylocal.image": bench.installation}
        result = engine.build(BuildRequest(file, f"{bench.installation}:it", labels), lines.append, Cancel())
    assert result.image_id, lines
    return result.image_id


def environment(bench: Bench, image: str) -> dict[str, str]:
    plan = replace(bench.plan(), image=image, command=["env", "-0"])
    container_id = bench.engine.create(plan)
    bench.engine.start(container_id)
    eventually(lambda: bench.engine.inspect(container_id).is_finished)
    with bench.engine.logs(container_id, follow=False) as frames:
        output = b"".join(frame.data for frame in frames)
    return dict(text.split("=", 1) for text in output.decode().split("\0") if "=" in text)


@pytest.mark.parametrize("builder", ["classic", "buildkit"])
def test_a_builder_reads_values_as_a_container_gets_them(
    engine_address: str, docker_bench: Bench, builder: str
) -> None:
    if builder == "buildkit" and not buildkit.find(engine_address):
        pytest.skip("no docker command here can drive BuildKit")
    before = environment(docker_bench, docker_bench.image)
    pairs = [[f"V{number}", value] for number, value in enumerate(VALUES)] + [["odd.\"$'\\name", "v w"]]
    engine = DockerEngine(engine_address, use_buildkit=builder == "buildkit")
    try:
        image = outcome(engine, docker_bench, render(Build(image=docker_bench.image, env_vars=pairs), (), ""))
    finally:
        engine.close()
    found = environment(docker_bench, image)
    assert {name: found[name] for name, _ in pairs} == build_variables.expand(pairs, before)
