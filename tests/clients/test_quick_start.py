"""The files of examples/polyaxon-quick-start, through the original command lines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from clients.originals import ROOT, Person, rows
from clients.stored import finished, log
from polylocal.client.http import Client

pytestmark = pytest.mark.engine

FOLDER = ROOT / "examples/polyaxon-quick-start"
FILES = sorted(path.name for path in FOLDER.glob("*.yml"))


def copy_files(person: Person) -> None:
    shutil.copytree(FOLDER, person.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("outputs", "__pycache__"))


def test_every_file_is_valid(person: Person) -> None:
    copy_files(person)
    assert len(FILES) == 9
    for name in FILES:
        is_other = name == ("build.yml" if person.is_old else "build-0.2.yml")
        said = person.polyaxon("check", "-f", name, "-v", code=int(is_other))
        assert ("Polyaxonfile valid" in said) != is_other, name


def test_every_file_runs(person: Person, client: Client) -> None:
    """All side by side, as far as the daemon has places; what serves pages is tried elsewhere."""
    build = "build-0.2.yml" if person.is_old else "build.yml"
    names = [build, "experiment.yml", "declarations.yml", "job.yml", "grid.yml", "random.yml"]
    person.begin_project("moons")
    copy_files(person)
    person.polyaxon("upload")
    runs = {name: person.run("-f", name) for name in names}
    for name, run in runs.items():
        assert finished(client, run)["last_status"] == "succeeded", (name, run.kind != "group" and log(client, run))

    for name in ("experiment.yml", "declarations.yml"):
        stored = client.run(runs[name])
        metrics = json.loads((Path(stored["outputs_path"]) / "metrics.json").read_text())
        assert stored["last_metric"] == metrics
        assert metrics["accuracy"] > 0.9
    assert client.run(runs["declarations.yml"])["params"] == {"lr": 0.05, "units": 12, "epochs": 40}
    assert b"600 points to learn from" in log(client, runs["job.yml"])

    for name, count in (("grid.yml", 4), ("random.yml", 3)):
        said = person.polyaxon("group", "-g", str(runs[name].id), "experiments", "-m", "-s", "metric.loss")
        found = rows(said, "Experiments:")
        assert len(found) == count
        losses = [float(row["loss"]) for row in found]
        assert losses == sorted(losses)
    said = person.polyaxon(
        "group", "-g", str(runs["grid.yml"].id), "experiments", *(["-d"] if person.is_old else ["-p"])
    )
    pairs = {(float(row["lr"]), int(row["units"])) for row in rows(said, "Experiments:")}
    assert pairs == {(lr, units) for lr in (0.02, 0.2) for units in (4, 12)}
