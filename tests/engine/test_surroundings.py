"""Builds and containers work with settings of other programs and with unusual paths."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import pytest
from support import eventually

from polylocal.engine.docker.engine import DockerEngine
from polylocal.engine.plan import Mount

from .conftest import Bench
from .test_contract import build

pytestmark = pytest.mark.engine


def output(bench: Bench, cmd: str, **more: object) -> str:
    container_id = bench.started(cmd, **more)
    eventually(lambda: bench.engine.inspect(container_id).is_finished)
    with bench.engine.logs(container_id, follow=False) as frames:
        return b"".join(frame.data for frame in frames).decode()


@pytest.mark.parametrize("name", ["a:b", "a:b:ro", "with, comma", "quote\"s ' ", "ünïcode", "back\\slash$x"])
def test_a_folder_of_any_name_is_mounted(docker_bench: Bench, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "in").write_text("there\n")
    mounts = [Mount(folder, PurePosixPath("/d")), Mount(folder, PurePosixPath("/r:o"), read_only=True)]
    said = output(docker_bench, "cat /d/in; echo back > /d/out; touch /r:o/x 2> /d/error || echo fails", mounts=mounts)
    assert said == "there\nfails\n"
    assert "Read-only" in (folder / "error").read_text()
    assert (folder / "out").read_text() == "back\n"


def test_a_missing_credential_helper_is_a_line_of_the_build(
    docker_bench: Bench, engine_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text('{"credsStore": "desktop.exe"}')
    engine, lines = DockerEngine(engine_address), list[str]()
    bench = Bench(engine, docker_bench.image, docker_bench.installation)
    made = build(bench, f"FROM {bench.image}\nLABEL a=b\n", f"{bench.installation}:it", lines.append)
    engine.close()
    assert made.image_id, lines
    assert lines[0].startswith("polylocal: the helper docker-credential-desktop.exe")
    assert sum("docker-credential" in line for line in lines) == 1


def test_the_api_is_reached_without_the_proxy_that_a_container_is_given(
    docker_bench: Bench, engine_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    proxies = {"default": {"httpProxy": "http://proxy.example:3128", "noProxy": ".corp"}}
    (tmp_path / "config.json").write_text(json.dumps({"proxies": proxies}))
    engine = DockerEngine(engine_address)
    bench = Bench(engine, docker_bench.image, docker_bench.installation)
    made = build(bench, f"FROM {bench.image}\nENV no_proxy=of.the.image\n", f"{bench.installation}:it")
    bench.image = made.image_id or ""
    said = output(bench, "echo $http_proxy $NO_PROXY $no_proxy", direct_hosts=("172.17.0.1",))
    assert said == "http://proxy.example:3128 .corp,172.17.0.1 .corp,172.17.0.1\n"
    said = output(bench, "echo $NO_PROXY $no_proxy", direct_hosts=("172.17.0.1",), env={"NO_PROXY": "mine"})
    assert said == "mine,172.17.0.1 .corp,172.17.0.1\n"
    engine.close()


def test_the_api_is_reached_without_the_proxy_of_an_image(docker_bench: Bench) -> None:
    text = f"FROM {docker_bench.image}\nENV HTTP_PROXY=http://proxy.example NO_PROXY=of.the.image\n"
    made = build(docker_bench, text, f"{docker_bench.installation}:it")
    docker_bench.image = made.image_id or ""
    said = output(docker_bench, "echo $NO_PROXY $no_proxy", direct_hosts=("172.17.0.1",))
    assert said == "of.the.image,172.17.0.1 of.the.image,172.17.0.1\n"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
def test_an_engine_on_this_machine_is_asked_directly(
    engine_address: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    engine = DockerEngine(engine_address)
    assert engine.info().version
    engine.close()
