"""kill -9 of the daemon ten times during a search: the same experiments and result as without kills."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support import BUSYBOX, Daemon, eventually

from polylocal.client.http import RunReference
from polylocal.statuses import Kind, is_done
from polylocal.store import Store

from .conftest import OWN_NETWORK
from .test_kill import history, look, submit

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

KILLS = 10
# the daemon may be dead when metrics are reported; the next one listens at the same address
# the score depends on the params only
TELL = """
score=$(({{ x }} * 37 % 101 * 10 + {{ epochs }}));
url=$POLYAXON_API_HTTP_HOST/api/v1/root/crash/experiments/${POLYAXON_RUN_OUTPUTS_PATH##*/}/metrics/;
for n in $(seq 300); do
wget -q -O /dev/null --header "Authorization: Token $POLYAXON_SECRET_USER_TOKEN"
--header "Content-Type: application/json" --post-data "{\\"values\\": {\\"score\\": $score}}" $url
&& exit 0; sleep 0.2; done; exit 1
"""


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
    """The experiments in the order of their creation."""
    rows = sorted(found["results"], key=lambda row: int(row["id"]))
    return [(row["iteration"], row["params"], row["status"], row["metrics"]) for row in rows]


@contextmanager
def reading(daemon: Daemon) -> Iterator[Store]:
    """Reads the database directly: frequent reads cost the daemon nothing, and work while it is dead."""
    store = Store(daemon.home / "polylocal.db")
    try:
        yield store
    finally:
        store.close()


def ended(store: Store, group: RunReference) -> str:
    return eventually(lambda: is_done(found := store.runs.find(Kind.GROUP, group.id).status) and found, 200) or ""


def moments(store: Store, group: RunReference) -> list[Callable[[], bool]]:
    """When to kill: at once; when another experiment has begun; when another one has ended."""
    row = store.runs.find(Kind.GROUP, group.id)

    def having(*statuses: str) -> set[int]:
        return {each.pk for each in store.groups.members(row) if each.status in statuses}

    begun, done = ("scheduled", "running", "succeeded"), ("succeeded",)
    before, before_done = having(*begun), having(*done)
    return [lambda: True, lambda: bool(having(*begun) - before), lambda: bool(having(*done) - before_done)]


def test_ten_deaths_change_nothing_of_a_search(start: Callable[..., Daemon]) -> None:
    daemon = start("--max-runs", "4", **OWN_NETWORK)
    with reading(daemon) as store:
        plain = submit(daemon, search(4), "group")
        assert ended(store, plain) == "succeeded"
        group = submit(daemon, search(2), "group")
        for number in range(KILLS):
            eventually(moments(store, group)[number % 3], 100)
            assert not is_done(store.runs.find(Kind.GROUP, group.id).status), f"it was over after {number} deaths"
            daemon.kill()
            daemon = start("--max-runs", "4", **OWN_NETWORK)
        assert ended(store, group) == "succeeded"

    expected, found = results(daemon, plain), results(daemon, group)
    assert [row[0] for row in tried(expected)] == [0] * 9 + [1] * 3 + [2] + [3] * 5 + [4] + [5] * 3
    assert tried(found) == tried(expected)
    best, wanted = found["best_experiment"], expected["best_experiment"]
    assert (best["value"], best["params"]) == (wanted["value"], wanted["params"])
    assert history(daemon, group) == ["created", "running", "succeeded"]
    for row in found["results"]:
        run = RunReference("root", "crash", "experiment", row["id"])
        assert history(daemon, run).count("created") == 1
        assert history(daemon, run).count("succeeded") == 1
