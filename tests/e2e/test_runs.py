"""Runs with the real daemon and the real engine, through the API."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import docker
import pytest
from support import build, eventually, job

from polylocal.client import packing
from polylocal.client.http import Client, RunReference
from polylocal.engine.machine import count_gpus
from polylocal.errors import InvalidInput
from polylocal.statuses import is_done

pytestmark = pytest.mark.engine

PROJECT = "runs"


@pytest.fixture(autouse=True)
def _project(client: Client) -> None:
    if PROJECT not in [found["name"] for found in client.projects("root")]:
        client.create_project({"name": PROJECT})


def submit(client: Client, config: dict[str, Any], kind: str = "job", **more: Any) -> RunReference:
    made = client.create_run("root", PROJECT, kind, {"config": config, **more})
    return RunReference("root", PROJECT, kind, made["id"])


def finished(client: Client, run: RunReference, within_s: float = 90) -> dict[str, Any]:
    return eventually(lambda: (found := client.run(run)) and is_done(found["last_status"]) and found, within_s)


def log(client: Client, run: RunReference) -> bytes:
    with client.logs(run) as chunks:
        return b"".join(chunks)


def upload(client: Client, folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    archive = io.BytesIO()
    packing.pack(folder, archive)
    archive.seek(0)
    client.upload("root", PROJECT, archive)


def test_ten_jobs_at_once_make_one_image(client, raw_engine: docker.DockerClient):
    config = job("echo $POLYAXON_RUN_OUTPUTS_PATH")
    config["build"]["env_vars"] = [["TEN", "jobs"]]
    runs = [submit(client, config) for _ in range(10)]
    done = [finished(client, run) for run in runs]
    assert {found["last_status"] for found in done} == {"succeeded"}
    assert len({found["build_job"] for found in done}) == 1
    made = RunReference("root", PROJECT, "build", int(done[0]["build_job"].rpartition(".")[2]))
    assert client.run(made)["num_jobs"] == 10
    label = f"polylocal.build={client.run(made)['uuid']}"
    assert len(raw_engine.images.list(filters={"label": label})) == 1


def test_inside_a_run(client, data_folder: Path):
    """The environment, the mounts, the API and the token that a program finds in its container."""
    script = (
        "env | sort; cat /plx-data/training/train.csv; cat /plx-context/.authtoken; echo;"
        ' wget -q -O - --header "Authorization: Token $POLYAXON_SECRET_USER_TOKEN"'
        " $POLYAXON_API_HTTP_HOST/api/v1/root/runs/jobs/$ID/ ; echo; echo kept > $POLYAXON_RUN_OUTPUTS_PATH/result"
    )
    run = submit(
        client, job(script.replace("$ID", "${POLYAXON_RUN_OUTPUTS_PATH##*/}"), environment={"data_refs": ["training"]})
    )
    found = finished(client, run)
    text = log(client, run).decode()
    assert found["last_status"] == "succeeded", text
    environment = dict(line.split("=", 1) for line in text.splitlines() if line.startswith("POLYAXON_"))
    assert environment["POLYAXON_RUN_OUTPUTS_PATH"] == f"/plx-outputs/root/runs/jobs/{run.id}"
    info = json.loads(environment["POLYAXON_JOB_INFO"])
    assert (info["project_name"], info["job_name"]) == ("root.runs", f"root.runs.jobs.{run.id}")
    assert json.loads(environment["POLYAXON_RUN_DATA_PATHS"]) == {"training": "/plx-data/training"}
    assert "NVIDIA_VISIBLE_DEVICES=none" in text
    assert "1,2,3" in text
    assert environment["POLYAXON_SECRET_USER_TOKEN"] in text.partition('POLYAXON_SECRET_USER_TOKEN": ')[2]
    assert f'"unique_name":"root.runs.jobs.{run.id}"' in text
    result = Path(found["outputs_path"]) / "result"
    assert result.read_text() == "kept\n"
    assert result.stat().st_uid == os.getuid()


def test_data_at_a_path_of_its_own_and_variables_without_a_new_build(client):
    script = (
        "cat /mnt/of/its/own/train.csv; touch /mnt/of/its/own/x 2>/dev/null || echo read-only;"
        ' printf "%s|" "$LINES" "$EMPTY" "${EMPTY-unset}" "$PRICE"'
    )
    logs, builds = [], set()
    for lines in ("a\nb", " 'c' "):
        variables = {"LINES": lines, "EMPTY": "", "PRICE": "5$ $HOME"}
        run = submit(client, job(script, environment={"data_refs": ["elsewhere"], "env_vars": variables}))
        builds.add(finished(client, run)["build_job"])
        logs.append(log(client, run).decode())
    wanted = "1,2,3\nread-only\n{}|||5$ $HOME|"
    assert logs == [wanted.format("a\nb"), wanted.format(" 'c' ")]
    assert len(builds) == 1


def test_the_token_of_a_run_is_worth_nothing_afterwards_and_little_before(client, daemon):
    script = (
        'for path in users root root/runs/jobs projects; do wget -q -O /dev/null --header "Authorization: Token'
        ' $POLYAXON_SECRET_USER_TOKEN" $POLYAXON_API/api/v1/$path && echo $path yes || echo $path no; done;'
        ' wget -q -O /dev/null --post-data "" --header "Authorization: Token $POLYAXON_SECRET_USER_TOKEN"'
        " $POLYAXON_API/api/v1/root/runs/jobs/1/stop/ && echo stop yes || echo stop no;"
        " echo $POLYAXON_SECRET_USER_TOKEN"
    )
    run = submit(client, job(script))
    finished(client, run)
    lines = log(client, run).decode().split("\n")
    assert "root/runs/jobs yes" in lines
    assert "stop no" in lines
    token = lines[-2]
    dead = Client(daemon.url, token)
    with pytest.raises(Exception, match="Invalid token"):
        dead.whoami()
    dead.close()


def test_code_requirements_and_setup_reach_the_image(client, tmp_path):
    upload(
        client,
        tmp_path,
        {
            "requirements.txt": "nothing\n",
            "setup.sh": "#!/bin/sh\necho set up > /made-by-setup\n",
            "src/main.sh": "echo main of the code\n",
        },
    )
    config = job("cat /made-by-setup; sh src/main.sh; ls requirements.txt")
    config["build"]["build_steps"] = ["./setup.sh", "cat requirements.txt"]
    run = submit(client, config)
    found = finished(client, run)
    assert found["last_status"] == "succeeded", log(client, run)
    assert log(client, run) == b"set up\nmain of the code\nrequirements.txt\n"
    made = client.run(RunReference("root", PROJECT, "build", int(found["build_job"].rpartition(".")[2])))
    assert "COPY build/requirements.txt /code\nCOPY build/setup.sh /code\nRUN ./setup.sh\n" in made["dockerfile"]
    assert made["commit"] == found["commit"]
    assert len(made["commit"]) == 40


def test_a_dockerfile_and_a_context_of_the_code(client, tmp_path):
    dockerfile = "FROM polylocal/busybox:test\nCOPY build /srv\nWORKDIR /srv\n"
    upload(
        client, tmp_path, {"docker/Dockerfile": dockerfile, "app/main.sh": "echo in the context\n", "other.txt": "x"}
    )
    config = job("sh main.sh; ls /srv")
    config["build"] = {"dockerfile": "docker/Dockerfile", "context": "app"}
    run = submit(client, config)
    assert finished(client, run)["last_status"] == "succeeded", log(client, run)
    assert log(client, run) == b"in the context\nmain.sh\n"


def test_only_new_code_is_built_again(client, tmp_path):
    config = job("cat version")
    upload(client, tmp_path, {"version": "one\n"})
    first = finished(client, submit(client, config))
    again = finished(client, submit(client, config))
    upload(client, tmp_path, {"version": "one\n"})
    same = finished(client, submit(client, config))
    upload(client, tmp_path, {"version": "two\n"})
    changed = finished(client, submit(client, config))
    assert first["build_job"] == again["build_job"] == same["build_job"] != changed["build_job"]
    assert log(client, RunReference("root", PROJECT, "job", changed["id"])) == b"two\n"


def test_the_dockerfile_and_the_log_can_be_read_while_the_image_is_being_made(client):
    run = submit(client, build(build_steps=["echo first; sleep 3"]), "build")
    seen = eventually(lambda: (found := client.run(run))["dockerfile"] and found)
    assert not is_done(seen["last_status"])
    assert "RUN echo first; sleep 3\n" in seen["dockerfile"]
    eventually(lambda: b"\nfirst\n" in log(client, run))
    assert not is_done(client.run(run)["last_status"])
    found = finished(client, run)
    assert found["builder"].startswith("classic")


def test_stopping_a_build_and_what_it_means_for_the_job(client):
    config = job("true")
    config["build"]["build_steps"] = ["sleep 60"]
    run = submit(client, config)
    found = eventually(lambda: (found := client.run(run))["build_job"] and found)
    made = RunReference("root", PROJECT, "build", int(found["build_job"].rpartition(".")[2]))
    eventually(lambda: b"RUN sleep" in log(client, made))
    client.stop(made)
    assert finished(client, made, 15)["last_status"] == "stopped"
    assert finished(client, run, 5)["last_status"] == "stopped"
    assert client.statuses(run)[-1]["message"] == "Build stopped"


def test_a_failed_build_keeps_its_log_and_names_the_step(client):
    config = job("true")
    config["build"]["build_steps"] = ["echo so far so good", "echo oh no; exit 3"]
    run = submit(client, config)
    found = finished(client, run)
    assert found["last_status"] == "failed"
    made = RunReference("root", PROJECT, "build", int(found["build_job"].rpartition(".")[2]))
    last = client.statuses(made)[-1]
    assert "RUN echo oh no; exit 3" in last["message"]
    assert last["details"]["reason"] == "build"
    assert b"so far so good" in log(client, made)
    details = client.statuses(run)[-1]["details"]
    assert details["build_job"] == found["build_job"]


def test_a_program_that_ignores_the_stop_signal_is_killed_after_the_grace(client):
    run = submit(client, job("trap '' TERM; echo begun; while true; do sleep 1; done"))
    eventually(lambda: b"begun" in log(client, run))
    client.stop(run)
    assert finished(client, run, 20)["last_status"] == "stopped"


def test_too_much_memory_is_reported_as_memory(client):
    """The kernel ends the program. Some engines report that; with others, the exit code and the limit decide."""
    script = "x=a; while true; do x=$x$x; done"
    run = submit(client, job(script, environment={"resources": {"memory": {"limits": 32}}}))
    found = finished(client, run)
    last = client.statuses(run)[-1]
    assert found["last_status"] == "failed"
    assert last["details"]["reason"] == "memory", last
    assert "32 MiB" in last["message"]


@pytest.mark.skipif(count_gpus() > 0, reason="this machine has a GPU")
def test_a_missing_gpu_is_refused_with_a_plain_message(client):
    with pytest.raises(
        InvalidInput, match=r"gpu\.limits: The run asks for 1 GPU; this machine has none that the engine"
    ):
        submit(client, job("true", environment={"resources": {"gpu": {"limits": 1}}}))


def test_a_limit_above_the_machine_is_cut_to_it(client):
    """The engine refuses a container with more cores than the machine has."""
    resources = {"cpu": {"requests": 0.1, "limits": 4096}, "memory": {"requests": 16, "limits": 2**30}}
    run = submit(client, job("true", environment={"resources": resources}))
    assert finished(client, run)["last_status"] == "succeeded"
    told = [status["message"] or "" for status in client.statuses(run)]
    assert [message for message in told if "The limit of 4096 cores is cut to what this machine has" in message]


def test_restart_resume_and_copy(client):
    run = submit(client, job("echo line >> $POLYAXON_RUN_OUTPUTS_PATH/lines; cat $POLYAXON_RUN_OUTPUTS_PATH/lines"))
    first = finished(client, run)
    logs = {}
    for how in ("restart", "resume", "copy"):
        made = client.clone(run, how, {})
        cloned = RunReference("root", PROJECT, "job", made["id"])
        found = finished(client, cloned)
        assert (found["original"], found["cloning_strategy"], found["is_clone"]) == (first["unique_name"], how, True)
        logs[how] = log(client, cloned)
    assert logs == {"restart": b"line\n", "resume": b"line\nline\n", "copy": b"line\nline\nline\n"}


def test_outputs_as_an_archive(client, tmp_path):
    run = submit(client, job("mkdir $POLYAXON_RUN_OUTPUTS_PATH/d; echo x > $POLYAXON_RUN_OUTPUTS_PATH/d/f"))
    finished(client, run)
    client.download_outputs(run, tmp_path / "outputs.tar.gz")
    with tarfile.open(tmp_path / "outputs.tar.gz") as tar:
        assert sorted(tar.getnames()) == ["d", "d/f"]


def test_deleting_a_running_job_leaves_nothing(client, raw_engine: docker.DockerClient):
    run = submit(client, job("echo begun; sleep 60"))
    eventually(lambda: b"begun" in log(client, run))
    found = client.run(run)
    client.delete(run)
    with pytest.raises(Exception, match="Not found"):
        client.run(run)
    label = {"label": f"polylocal.run=job/{found['uuid']}"}
    eventually(lambda: not raw_engine.containers.list(all=True, ignore_removed=True, filters=label))
    eventually(lambda: not Path(found["outputs_path"]).exists())


def test_a_project_of_any_name_has_images(client):
    client.create_project({"name": "_odd-"})
    made = client.create_run("root", "_odd-", "job", {"config": job("echo fine")})
    run = RunReference("root", "_odd-", "job", made["id"])
    assert finished(client, run)["last_status"] == "succeeded"
    assert log(client, run) == b"fine\n"
