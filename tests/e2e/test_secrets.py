"""Secret values with the real engine: builds and runs get them, and no trace remains."""

from __future__ import annotations

import subprocess
from typing import Any

import docker
import pytest
from programs import run_polylocal
from support import BUSYBOX, Daemon, eventually, list_tree

from polylocal.client.http import Client, RunReference
from polylocal.engine.plan import BUILD_LABEL
from polylocal.errors import InvalidInput
from polylocal.files.secrets import SecretStore
from polylocal.statuses import is_done

pytestmark = pytest.mark.engine

TOKEN = "pypi-AgEIcHlwaS5vcmcCJ'$HOME"
KEY = "-----BEGIN KEY-----\nMIIEowIBAAKCAQEAn4\n-----END KEY-----"
HIDDEN = "*" * len(TOKEN)
FILE = {
    "version": 1,
    "kind": "job",
    "environment": {"secret_refs": ["pip", {"name": "deploy", "items": ["DEPLOY_KEY"]}]},
    "build": {
        "image": BUSYBOX,
        "build_steps": [
            'test -n "$PIP_TOKEN" && test -z "$FTP_PROXY" && echo "using $PIP_TOKEN here" && echo made > /made',
            "echo \\\n  ${#PIP_TOKEN} > /length",
        ],
    },
    "run": {"cmd": 'cat /made /length; echo "token=$PIP_TOKEN;"; echo "$DEPLOY_KEY"; echo ${OTHER:-none}; echo plain'},
}


@pytest.fixture(scope="module")
def done(daemon: Daemon) -> dict[str, Any]:
    """A finished job with secrets."""
    secret_store = SecretStore(daemon.home / "secrets")
    secret_store.write("root", "pip", {"PIP_TOKEN": TOKEN})
    secret_store.write("root", "deploy", {"DEPLOY_KEY": KEY, "OTHER": "not asked for"})
    client = daemon.client()
    client.create_project({"name": "secrets"})
    made = client.create_run("root", "secrets", "job", {"config": FILE})
    run = RunReference("root", "secrets", "job", made["id"])
    found = eventually(lambda: (seen := client.run(run)) and is_done(seen["last_status"]) and seen, 90)
    with client.logs(run) as chunks:
        found["log"] = b"".join(chunks).decode()
    found["history"] = client.statuses(run)
    build = RunReference("root", "secrets", "build", int(found["build_job"].rpartition(".")[2]))
    with client.logs(build) as chunks:
        found["build_log"] = b"".join(chunks).decode()
    found["build"] = client.run(build)
    client.close()
    return found


def test_builds_and_runs_have_the_values(done: dict[str, Any]) -> None:
    assert done["last_status"] == "succeeded", done["history"]
    lines = done["log"].splitlines()
    assert lines[:2] == ["made", str(len(TOKEN))]
    assert lines[-2:] == ["none", "plain"]  # only the requested part of `deploy`


def test_logs_hide_them_and_nothing_else(done: dict[str, Any]) -> None:
    assert f"token={HIDDEN};\n" in done["log"]
    assert "MIIEowIBAAKCAQEAn4" not in done["log"]
    assert f"using {HIDDEN} here" in done["build_log"]
    assert "eval" not in done["build_log"]


def test_no_image_holds_them(done: dict[str, Any], raw_engine: docker.DockerClient) -> None:
    label = f"{BUILD_LABEL}={done['build']['uuid']}"
    (image,) = raw_engine.images.list(filters={"label": label})
    saved = b"".join(image.save())
    for said in (TOKEN.encode(), b"AgEIcHlwaS5vcmcCJ"):
        assert said not in saved
    assert "AgEIcHlwaS5vcmcCJ" not in str(image.history()) + str(image.attrs)
    assert b"using" in saved  # the step itself is visible


def test_no_file_of_the_home_folder_contains_them(done: dict[str, Any], daemon: Daemon) -> None:
    eventually(lambda: not (daemon.home / "contexts" / done["uuid"]).exists())
    holding = [
        path.relative_to(daemon.home)
        for path in list_tree(daemon.home)
        if path.is_file() and (b"AgEIcHlwaS5vcmcCJ" in (data := path.read_bytes()) or b"MIIEowIBAAKCAQEAn4" in data)
    ]
    assert sorted(map(str, holding)) == ["secrets/root/deploy", "secrets/root/pip"]


def test_a_missing_secret_is_reported_before_the_run_exists(client: Client, done: dict[str, Any]) -> None:
    wanted = {**FILE, "environment": {"secret_refs": ["nope"]}}
    with pytest.raises(InvalidInput, match="root has no secret `nope`; make it with `polylocal secret set nope"):
        client.create_run("root", "secrets", "job", {"config": wanted})


def test_the_command_line_takes_values_from_standard_input_only(cli_env: dict[str, str]) -> None:
    def polylocal(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return run_polylocal("secret", *arguments, environment=cli_env, input=text)

    assert polylocal("set", "cloud", "ID", "KEY", text="some-long-id\nsome-long-key\n").returncode == 0
    assert "cloud   ID, KEY" in polylocal("ls").stdout
    refused = polylocal("set", "cloud", "ID=some-long-id")
    assert refused.returncode == 1
    assert "name `ID` alone" in refused.stderr
    assert "some-long-id" not in refused.stderr
    assert "standard input has 1 lines for 2 variables" in polylocal("set", "cloud", "ID", "KEY", text="x\n").stderr
    assert "not hidden" in polylocal("set", "short", "PIN", text="1234\n").stderr
    assert polylocal("rm", "cloud").returncode == 0
    assert "has no secret `cloud`" in polylocal("rm", "cloud").stderr
