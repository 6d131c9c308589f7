"""Every file in examples/search/ runs with the real engine, and finds the results of expect.json, with one build."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from programs import run_polylocal
from support import Daemon, eventually

from polylocal.client.http import Client, RunReference
from polylocal.statuses import is_done

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

FOLDER = Path(__file__).parents[2] / "examples" / "search"
PROJECT = "search"
EXPECTED: dict[str, dict[str, Any]] = json.loads((FOLDER / "expect.json").read_text())


def polylocal(env: dict[str, str], *arguments: str) -> str:
    done = run_polylocal(*arguments, environment=env, folder=FOLDER, timeout_s=900)
    assert not done.stderr.count("Traceback"), done.stderr
    return done.stdout


def newest(client: Client) -> RunReference:
    found = client.runs(project=f"root/{PROJECT}", kind="group", is_open=False, sort="-created_at", limit=1)[0]
    return RunReference("root", PROJECT, "group", found["id"])


def members(client: Client, group: RunReference) -> list[dict[str, Any]]:
    """The experiments of the group once all are done. After an early stop, running ones may still finish."""

    def all_done() -> list[dict[str, Any]] | None:
        found = client.group_results(group, None, False)["results"]
        return found if all(is_done(row["status"]) for row in found) else None

    return eventually(all_done, 120) or []


@pytest.mark.parametrize("file", EXPECTED)
def test_a_search_finds_its_expected_result(file: str, cli_env: dict[str, str], client: Client) -> None:
    expected = EXPECTED[file]
    polylocal(cli_env, "run", "-f", file, "-u", "-l", "--create", "--project", PROJECT)
    group = newest(client)
    rows = members(client, group)
    found = client.run(group)
    assert found["last_status"] == expected["status"], client.statuses(group)
    assert found["num_experiments"] == len(rows) == expected["experiments"]
    per_iteration = Counter(row["iteration"] for row in rows)
    assert [per_iteration[n] for n in sorted(per_iteration)] == expected["iterations"]
    if expected["status"] == "stopped":
        assert client.statuses(group)[-1]["message"] == "Early stopping"
        assert any(row["status"] == "stopped" for row in rows)
    else:
        assert {row["status"] for row in rows} == {"succeeded"}, rows
    table_says_it_all(cli_env, group, rows)
    best = client.group_results(group, "accuracy", False)["best_experiment"]
    print(f"{file}: {best['value']} {best['params']}")
    assert best["value"] >= expected["accuracy"]
    if file.startswith(("hyperband", "bo", "early")):  # the others have no metric
        assert found["best_experiment"] == best


def table_says_it_all(env: dict[str, str], group: RunReference, rows: list[dict[str, Any]]) -> None:
    name = f"group/{group.id}"
    told = json.loads(polylocal(env, "group", "results", name, "--metric", "accuracy", "--json"))
    values = [row["metrics"]["accuracy"] for row in told["results"] if row["status"] == "succeeded"]
    assert values == sorted(values, reverse=True)
    assert told["best_experiment"]["value"] == values[0]
    lines = list(csv.DictReader(io.StringIO(polylocal(env, "group", "results", name, "-m", "accuracy", "--csv"))))
    assert [int(line["id"]) for line in lines] == [row["id"] for row in told["results"]]
    assert [float(line["metric.accuracy"]) for line in lines if line["status"] == "succeeded"] == values
    assert all(f"params.{param}" in lines[0] for param in rows[0]["params"])
    shown = polylocal(env, "group", "results", str(group.id), "--metric", "accuracy")
    assert all(f"experiment/{row['id']} " in shown for row in rows)
    assert ("Influence of each param on accuracy" in shown) == bool(told["importance"])
    assert told["importance"] or len(values) < 4  # fewer values have no importance


def test_all_searches_share_one_build(daemon: Daemon, client: Client) -> None:
    assert len(client.runs(project=f"root/{PROJECT}", kind="build", is_open=False, limit=9)) == 1


def test_every_file_is_expected_to_find_something() -> None:
    assert {path.name for path in FOLDER.glob("*.yml")} == set(EXPECTED)
