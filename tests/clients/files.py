"""Polyaxonfiles that both versions of the original command lines take, unless it is said which."""

from __future__ import annotations

import json
import shutil

import yaml
from support import BUSYBOX

from clients.originals import HERE, Person
from polylocal.client.http import RunReference


def job(cmd: str, steps: tuple[str, ...] = ()) -> str:
    return f"version: 1\nkind: job\n{_build(steps)}run:\n  cmd: {json.dumps(cmd)}\n"


def experiment(cmd: str, **declarations: object) -> str:
    """With `declarations`, which the later version still reads as `params`."""
    given = "".join(f"  {name}: {value}\n" for name, value in declarations.items())
    declared = f"declarations:\n{given}" if given else ""
    return f"version: 1\nkind: experiment\n{declared}{_build(())}run:\n  cmd: {json.dumps(cmd)}\n"


def build(*steps: str, is_old: bool) -> str:
    """The old program wants the section, the new one its content at the top."""
    if is_old:
        return f"version: 1\nkind: build\n{_build(steps)}"
    return f"version: 1\nkind: build\nimage: {BUSYBOX}\n{_steps(steps, '')}"


def group(cmd: str, **hptuning: object) -> str:
    spec = {"version": 1, "kind": "group", "hptuning": hptuning, "build": {"image": BUSYBOX}, "run": {"cmd": cmd}}
    return yaml.safe_dump(spec)


def server(kind: str, program: str, port: int) -> str:
    """A notebook or a tensorboard whose program serves a page of its own; the path is the one it is told, if any."""
    page = f"mkdir -p /www$path && echo page of {program} > /www$path/index.html"
    script = f"""for each; do case $each in --*.base_url=*) path=${{each#*=}};; esac; done; {page}"""
    lines = f"#!/bin/sh\\n{script}; echo $@; exec httpd -f -p {port} -h /www\\n"
    steps = [f"printf '{lines}' > /bin/{program}", f"chmod +x /bin/{program}"]
    return yaml.safe_dump({"version": 1, "kind": kind, "build": {"image": BUSYBOX, "build_steps": steps}})


def run_with_client(person: Person) -> dict[str, RunReference]:
    """An experiment and a job that are told by the client of the person's version; they share an image."""
    section = {
        "image": "python:3.11-slim",
        "build_steps": ["pip3 install --no-cache-dir --no-compile --no-deps -r requirements.txt"],
        # there sitecustomize.py is found as Python starts, before any that a system has of its own
        "env_vars": [["PYTHONPATH", "/code"]],
    }
    for name in ("train.py", "job.py"):
        shutil.copy(HERE / "code" / name, person.folder)
    shutil.copy(HERE / "shim.py", person.folder / "sitecustomize.py")
    shutil.copy(HERE / f"client-{person.version}.txt", person.folder / "requirements.txt")
    head = {"version": 1, "build": section}
    train = {"kind": "experiment", "declarations": {"lr": 0.1, "activation": "relu"}}
    person.write(
        {
            "xp.yml": yaml.safe_dump({**head, **train, "run": {"cmd": "python3 -u train.py --lr {{ lr }}"}}),
            "job.yml": yaml.safe_dump({**head, "kind": "job", "run": {"cmd": "python3 -u job.py"}}),
        }
    )
    return {"experiment": person.run("-f", "xp.yml", "-u"), "job": person.run("-f", "job.yml")}


def _build(steps: tuple[str, ...]) -> str:
    return f"build:\n  image: {BUSYBOX}\n{_steps(steps, '  ')}"


def _steps(steps: tuple[str, ...], indent: str) -> str:
    lines = "".join(f"{indent}  - {json.dumps(step)}\n" for step in steps)
    return f"{indent}build_steps:\n{lines}" if steps else ""
