"""Commands and live tables for groups of experiments."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from polylocal.cli import console
from polylocal.cli.context import HomeOption, JsonOption, connection, run_of
from polylocal.client.http import Client, Json, RunReference
from polylocal.errors import InvalidInput
from polylocal.statuses import is_done

app = typer.Typer(help="Compare the experiments of a group.", no_args_is_help=True)

POLL_S = 0.5
_MAX_ROWS = 15  # rows of a live table: running experiments, then the best finished ones

MetricOption = Annotated[
    str | None, typer.Option("--metric", "-m", help="Compare by this metric; default: the search's metric.")
]


@app.command("results")
def results(
    group: Annotated[str, typer.Argument(help="`3` or `group/3`.", metavar="GROUP")],
    metric: MetricOption = None,
    minimize: Annotated[bool, typer.Option("--minimize", help="Lower values of the metric are better.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for use by other programs.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show the params and last metrics of a group's experiments, the best first."""
    with connection(home) as api:
        found_at = run_of(api, f"group/{group}" if group.isdigit() else group)
        if found_at.kind != "group":
            raise InvalidInput([f"{found_at} is not a group"])
        if csv:
            console.as_csv(api.group_table(found_at, metric, minimize))
            return
        found = api.group_results(found_at, metric, minimize)
    if json:
        return console.as_json(found)
    if found["results"]:
        console.show(_table(found["results"], found["metric"]))
    else:
        console.line("No experiments yet.")
    if found["importance"]:
        shares = ", ".join(f"{name} {share:.2f}" for name, share in found["importance"].items())
        console.line(f"Influence of each param on {found['metric']}: {shares}", "dim")


def follow(api: Client, group: RunReference) -> Json:
    """Show a group until it is done: a live table on a terminal, else one line for each experiment that ends."""
    return _follow_live(api, group) if console.err.is_terminal else _follow_by_line(api, group)


def _follow_live(api: Client, group: RunReference) -> Json:
    with console.live() as screen:
        while True:
            found = api.run(group)  # read before the results, so that the last table is complete
            results = api.group_results(group, None, False)
            over = is_done(found["last_status"])
            rows = results["results"] if over else _select_rows(results["results"])
            screen.update(console.stack(_table(rows, results["metric"]), _summary(found, results["results"])))
            if over:
                return found
            time.sleep(POLL_S)


def _follow_by_line(api: Client, group: RunReference) -> Json:
    ended = set[int]()
    while True:
        found = api.run(group)
        for item in sorted(api.group_results(group, None, False)["results"], key=lambda row: int(row["id"])):
            if is_done(item["status"]) and item["id"] not in ended:
                ended.add(item["id"])
                words = f"  {name_values(item['params'])}  {name_values(last_metrics(item))}".rstrip()
                console.say(console.join(f"experiment/{item['id']} ", console.status(item["status"]), words))
        if is_done(found["last_status"]):
            return found
        time.sleep(POLL_S)


def _select_rows(rows: Sequence[Json]) -> list[Json]:
    """Running experiments, then the best finished ones."""
    running = [row for row in rows if not is_done(row["status"]) and row["status"] != "created"]
    done = [row for row in rows if is_done(row["status"])]
    return [*running, *done][:_MAX_ROWS]


def _summary(found: Json, rows: Sequence[Json]) -> console.Words:
    best = found["best_experiment"]
    parts = [f"{found['num_experiments']} experiments: {counts(found)}"]
    if best:
        params = name_values(best["params"])
        parts.append(f"best {best['metric']} {best['value']:g} by experiment/{best['id']} ({params})")
    if left := _time_left(found, rows):
        parts.append(f"about {left} left")
    return console.text(" · ".join(parts), "bold")


def counts(found: Json) -> str:
    """The number of a group's experiments in each state: `5 succeeded, 2 running, 1 pending`."""
    words = ("succeeded", "failed", "stopped", "running", "pending")
    numbers = ((found[f"num_{word}_experiments"], word) for word in words)
    return ", ".join(f"{number} {word}" for number, word in numbers if number) or "none yet"


def _time_left(found: Json, rows: Sequence[Json]) -> str:
    """The estimated time left at the speed so far, for the experiments that exist; adaptive searches add more."""
    open_ones = sum(not is_done(row["status"]) for row in rows)
    done = len(rows) - open_ones
    if not done or not open_ones or not found["started_at"]:
        return ""
    so_far = (datetime.now(UTC) - datetime.fromisoformat(found["started_at"])).total_seconds()
    seconds = round(so_far / done * open_ones)
    return f"{seconds} s" if seconds < 60 else f"{seconds // 60} min {seconds % 60:02} s"


def _table(rows: Sequence[Json], metric: str | None) -> console.Grid:
    params = list(dict.fromkeys(name for row in rows for name in row["params"]))
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    metrics.sort(key=lambda name: name != metric)  # the compared metric comes first
    shown: list[list[console.Cell]] = []
    for row in rows:
        took = f"{row['seconds']:.1f} s" if row["seconds"] is not None else ""
        last = last_metrics(row)
        values = [*(row["params"].get(name) for name in params), *(last.get(name) for name in metrics)]
        shown.append([f"experiment/{row['id']}", console.status(row["status"]), took, *map(_value, values)])
    return console.grid(["EXPERIMENT", "STATUS", "TOOK", *params, *metrics], shown)


def last_metrics(found: Json) -> Json:
    """The last metrics of an experiment or of a row of a table, with `nan` and `inf` put back in place of null."""
    last = found.get("last_metric") or found.get("metrics") or {}
    return {**last, **(found.get("last_metric_not_finite") or found.get("not_finite") or {})}


def name_values(values: Mapping[str, object]) -> str:
    return "  ".join(f"{name}={_value(value)}" for name, value in values.items())


def _value(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
