"""kill -9 of the daemon ten times during a search: it tries what it would have tried, and finds what it would find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support import BUSYBOX, Daemon, eventually

from polylocal.client import RunReference
from polylocal.statuses import is_done

from .test_kill import history, look, submit

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

KILLS = 10
SCORE = "$(({{ x }} * 37 % 101 * 10 + {{ epochs }}))"  # by the params alone
# the daemon may be dead when it is told: the next one listens at the same address
TELL = (
    "url=$POLYAXON_API_HTTP_HOST/api/v1/root/crash/experiments/${POLYAXON_RUN_OUTPUTS_PATH##*/}/metrics/;"
    ' for n in $(seq 300); do wget -q -O /dev/null --header "Authorization: Token $POLYAXON_SECRET_USER_TOKEN"'
    ' --header "Content-Type: application/json"'
    f' --post-data "{{{{ \'{{\' }}}}\\"values\\": {{{{ \'{{\' }}}}\\"score\\": {SCORE}}}}}" $url && exit 0; sleep 0.2; done;'
    " exit 1"
)


def search(concurrency: int) -> dict[str, Any]:
    return {
        "version": 1,
        "kind": "group",
        "hptuning": {
            "seed": 11,
            "concurrency": concurrency,
            "matrix": {"x": {"range": [0, 100, 1]}},
            "hyperband": {
                "max_iter": 9,
                "eta": 3,
                "resource": {"name": "epochs", "type": "int"},
                "metric": {"name": "score", "optimization": "maximize"},
            },
        },
        "build": {"image": BUSYBOX},
        "run": {"cmd": TELL},
    }


Results = dict[str, Any]


def results(daemon: Daemon, group: RunReference) -> Results:
    found: Results = look(daemon, lambda client: client.group_results(group, None, False))
    return found


def tried(found: Results) -> list[tuple[Any, ...]]:
    """In the order in which it was made."""
    rows = sorted(found["results"], key=lambda row: int(row["id"]))
    return [(row["iteration"], row["params"], row["status"], row["metrics"]) for row in rows]


def ended(daemon: Daemon, group: RunReference) -> str:
    found = eventually(
        lambda: (
            (status := look(daemon, lambda client: client.run(group)["last_status"])) and is_done(status) and status
        ),
        200,
    )
    return str(found)


def moments(daemon: Daemon, group: RunReference) -> list[Callable[[], bool]]:
    """When to kill: at once; when something runs that had not begun; when something has ended that had not."""

    def having(*statuses: str) -> set[int]:
        return {row["id"] for row in results(daemon, group)["results"] if row["status"] in statuses}

    begun, done = ("scheduled", "running", "succeeded"), ("succeeded",)
    before, before_done = having(*begun), having(*done)
    return [lambda: True, lambda: bool(having(*begun) - before), lambda: bool(having(*done) - before_done)]


def test_ten_deaths_change_nothing_of_a_search(start: Callable[..., Daemon]) -> None:
    daemon = start("--max-runs", "4")
    plain = submit(daemon, search(4), "group")
    assert ended(daemon, plain) == "succeeded"
    expected = results(daemon, plain)
    assert [row[0] for row in tried(expected)] == [0] * 9 + [1] * 3 + [2] + [3] * 5 + [4] + [5] * 3

    group = submit(daemon, search(2), "group")
    for number in range(KILLS):
        eventually(moments(daemon, group)[number % 3], 100)
        assert look(daemon, lambda client: client.run(group)["last_status"]) in ("created", "running"), number
        daemon.kill()
        daemon = start("--max-runs", "4")
    assert ended(daemon, group) == "succeeded"

    found = results(daemon, group)
    assert tried(found) == tried(expected)
    best, wanted = found["best_experiment"], expected["best_experiment"]
    assert (best["value"], best["params"]) == (wanted["value"], wanted["params"])
    assert history(daemon, group) == ["created", "running", "succeeded"]
    for row in found["results"]:
        run = RunReference("root", "crash", "experiment", row["id"])
        assert history(daemon, run).count("created") == 1
        assert history(daemon, run).count("succeeded") == 1
