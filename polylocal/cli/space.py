"""The command `gc`: shows disk usage and frees disk space."""

import math
from typing import Annotated

import typer

from polylocal.cli import console
from polylocal.cli.context import HomeOption, JsonOption, connection


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a number of GiB.")
    return value


BudgetOption = Annotated[
    float | None,
    typer.Option(min=0, callback=_finite, help="GiB that images may use; default: the setting image_budget_gib."),
]


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would be removed.")] = False,
    budget_gib: BudgetOption = None,
    every: Annotated[bool, typer.Option("--all", help="Also list every log that is kept.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Remove leftovers and the least recently used images. Only removes what polylocal made."""
    with connection(home) as api:
        found = api.disk_usage(budget_gib) if dry_run else api.gc(budget_gib)
    if json:
        return console.as_json(found)
    logs = [item for item in found["results"] if item["kind"] == "log" and not item["goes"]]
    listed = [item for item in found["results"] if every or item not in logs]
    rows: list[list[console.Cell]] = [
        [
            ("would go" if dry_run else "removed") if item["goes"] else "stays",
            item["kind"],
            console.size(item["size_bytes"]) if item["size_bytes"] else "",
            console.local_time(item["last_used"]),
            item["name"],
            item["reason"],
        ]
        for item in sorted(listed, key=lambda item: not item["goes"])
    ]
    console.table(["", "WHAT", "SIZE", "LAST USED", "NAME", "WHY"], rows, empty="polylocal has made nothing yet.")
    if logs and not every:
        taken = console.size(sum(item["size_bytes"] for item in logs))
        console.line(f"{len(logs)} log files ({taken}) are kept until their runs are deleted (--all lists them)")
    verb = "would be freed" if dry_run else "freed"
    console.line(f"{console.size(found['freed_bytes'])} {verb}. Bookmark a build or run to keep its image")
