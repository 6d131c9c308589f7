"""An experiment in a container that reports metrics like the tracking client."""

from __future__ import annotations

import json

import pytest
from support import BUSYBOX, eventually

from polylocal.client.http import Client, RunReference
from polylocal.statuses import is_done

pytestmark = pytest.mark.engine

SCRIPT = (
    'auth="Authorization: Token $POLYAXON_SECRET_USER_TOKEN";'
    " url=$POLYAXON_API_HTTP_HOST/api/v1/root/trials/experiments/${POLYAXON_RUN_OUTPUTS_PATH##*/};"
    " echo $POLYAXON_EXPERIMENT_INFO; echo $POLYAXON_PARAMS; echo $POLYAXON_TASK_INFO;"
    ' wget -q -O - --header "$auth" --header "Content-Type: application/json"'
    ' --post-data "[{\\"values\\": {\\"loss\\": 0.25}}]" $url/metrics/;'
    ' wget -q -O - --header "$auth" $url/'
)


def test_an_experiment_reports_its_metrics_from_inside(client: Client) -> None:
    client.create_project({"name": "trials"})
    config = {
        "version": 1,
        "kind": "experiment",
        "params": {"lr": 0.1},
        "build": {"image": BUSYBOX},
        "run": {"cmd": "echo lr={{ lr }}; " + SCRIPT},
    }
    made = client.create_run("root", "trials", "experiment", {"config": config})
    run = RunReference("root", "trials", "experiment", made["id"])
    found = eventually(lambda: (found := client.run(run)) and is_done(found["last_status"]) and found, 60)
    with client.logs(run) as chunks:
        lines = b"".join(chunks).decode().splitlines()
    assert found["last_status"] == "succeeded", lines
    assert lines[0] == "lr=0.1"
    assert json.loads(lines[1])["experiment_name"] == f"root.trials.{run.id}"
    assert json.loads(lines[2]) == {"lr": 0.1}
    assert json.loads(lines[3]) == {"type": "master", "index": 0}
    assert json.loads(lines[4])["last_metric"] == {"loss": 0.25}
    assert found["last_metric"] == {"loss": 0.25}
    assert [status["status"] for status in client.statuses(run)][-1] == "succeeded"
