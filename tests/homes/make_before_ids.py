"""Creates `before_ids.home.tar.gz` and `before_ids.backup.tar.gz`: a home folder and a backup of polylocal 0.1.

In that version outputs were stored under the names of users and projects. The script needs that version and a real
engine. It is kept as a description of the two files:

    PYTHONPATH=tests python tests/homes/make_before_ids.py tests/homes

Two users, root and ann. The project ann/ry was called rx until it was hidden; a public ann/rx was created afterwards,
and stored its outputs in the same folder. root/zoo has experiments, a group, clones, a notebook and secrets.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from support import BUSYBOX, Daemon, eventually, job, running_daemon, sweep

from polylocal.client import packing
from polylocal.client.http import Client, RunReference
from polylocal.store import Store

KEEP = "echo {0} > $POLYAXON_RUN_OUTPUTS_PATH/kept; echo said {0}"
ODD = (
    "cd $POLYAXON_RUN_OUTPUTS_PATH; mkdir -p sub/deep; echo model > sub/deep/model.bin; ln -s sub/deep/model.bin last;"
    " ln -s /etc/passwd out; printf odd > \"$(printf 'n\\377me')\"; chmod 4755 sub/deep/model.bin; echo said odd"
)


def main(to: Path) -> None:
    with tempfile.TemporaryDirectory() as work:
        home = Path(work) / "home"
        home.mkdir()
        (home / "polylocal.toml").write_text("max_runs = 4\n")
        with running_daemon(home, env={"POLYLOCAL_GRACE_S": "1"}) as daemon:
            fill(daemon)
        polylocal(home, "backup", str(to / "before_ids.backup.tar.gz"), "--force")
        store = Store(home / "polylocal.db")
        installation = store.installation()
        with store.database.write() as db:
            db.execute("insert or replace into facts values ('installation', 'beforeids000')")
        store.close()
        for name in ("test-daemon.log", "daemon.log", "daemon.out", "daemon.lock"):
            (home / name).unlink(missing_ok=True)
        with tarfile.open(to / "before_ids.home.tar.gz", "w:gz") as tar:
            tar.add(home, arcname="home", filter=without_numbers)
        sweep(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"), installation)


def without_numbers(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def fill(daemon: Daemon) -> None:
    home = daemon.home
    polylocal(home, "secret", "set", "aws", "AWS_KEY", given="of root")
    ann_token = polylocal(home, "user", "add", "ann").strip()
    polylocal(home, "secret", "set", "aws", "AWS_KEY", "--user", "ann", given="of ann")
    root, ann = daemon.client(), Client(daemon.url, ann_token)

    ann.create_project({"name": "rx"})
    run(ann, "ann", "rx", "job", job(KEEP.format("hidden-job")))
    run(ann, "ann", "rx", "experiment", job(KEEP.format("hidden-experiment"), kind="experiment"))
    ann.update_project("ann", "rx", {"name": "ry", "is_public": False})
    run(ann, "ann", "ry", "job", job(KEEP.format("hidden-later")))
    ann.create_project({"name": "rx"})
    run(ann, "ann", "rx", "job", job(KEEP.format("public-job")))
    run(ann, "ann", "rx", "experiment", job(KEEP.format("public-experiment"), kind="experiment"))

    root.create_project({"name": "zoo"})
    root.upload("root", "zoo", code())
    first = run(root, "root", "zoo", "job", job(ODD, environment={"secret_refs": ["aws"]}))
    for how in ("resume", "copy", "restart"):
        finished(root, reference("root", "zoo", "job", root.clone(first, how, {})))
    tracked = 'wget -q -O- --header "Authorization: token $POLYAXON_USER_TOKEN" --post-data x=1 $POLYAXON_API; '
    run(root, "root", "zoo", "experiment", job(f"{tracked}{KEEP.format('alone')}", kind="experiment", name="alone"))
    root.call("POST", "/api/v1/root/zoo/experiments/3/metrics/", json={"values": {"loss": 0.5}})
    tuning = {"concurrency": 2, "matrix": {"lr": {"values": [0.1, 0.2]}}}
    run(root, "root", "zoo", "group", job(KEEP.format("lr-{{ lr }}"), kind="group", hptuning=tuning))
    run(root, "root", "zoo", "job", job("echo gone; exit 3"))
    root.create_project({"name": "empty"})
    root.create_project({"name": "shelf"})
    run(root, "root", "shelf", "job", job(KEEP.format("shelved")))
    root.call("POST", "/api/v1/root/shelf/archive/")
    left = home / "notebooks" / ("0" * 32)
    left.mkdir(parents=True)
    (left / "work.ipynb").write_text("{}")


def code() -> io.BytesIO:
    packed = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "train.py").write_text("print(1)\n")
        packing.pack(Path(folder), packed)
    packed.seek(0)
    return packed


def run(client: Client, owner: str, project: str, kind: str, content: dict[str, Any]) -> RunReference:
    made = reference(owner, project, kind, client.create_run(owner, project, kind, {"content": json.dumps(content)}))
    finished(client, made)
    return made


def reference(owner: str, project: str, kind: str, made: dict[str, Any]) -> RunReference:
    return RunReference(kind=kind, id=made["id"], owner=owner, project=project)


def finished(client: Client, made: RunReference) -> None:
    eventually(lambda: client.run(made)["finished_at"], 120)


def polylocal(home: Path, *arguments: str, given: str = "") -> str:
    command = [sys.executable, "-m", "polylocal", *arguments, "--home", str(home)]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    assert BUSYBOX
    main(Path(sys.argv[1]))
