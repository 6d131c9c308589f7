"""The results of a build: packages, logs, its duration."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from ..conftest import write
from .farm import Farm

HOST = "http://127.0.0.1"


def keep(farm: Farm, content: bytes, name: str) -> str:
    """Store a file in the file store, and return its sha1."""
    kept = farm.context.file_store.save(io.BytesIO(content))
    farm.store.files.add(kept.sha1, name, kept.size, farm.store.users.get("ivan"))
    return kept.sha1


def test_the_packages_of_a_build(farm: Farm) -> None:
    build_list, sha1 = farm.new(status=0), keep(farm, b"package", "evil_2.02-1_all.deb")
    with farm.store.database.write() as db:
        for kind, epoch in (("source", None), ("binary", 3)):
            db.execute(
                "insert into packages (run_pk, sha1, file_name, name, type, epoch, version, release, size, updated_at)"
                " values (?, ?, 'evil_2.02-1_all.deb', 'evil', ?, ?, '2.02', '1', 7, ?)",
                (farm.row(build_list)["run_pk"], sha1, kind, epoch, "2012-09-19T13:21:30.000000+00:00"),
            )
    found = farm.show(build_list)["packages"]
    assert [(item["type"], item["epoch"]) for item in found] == [("source", None), ("binary", 3)]
    first = found[0]
    assert isinstance(first.pop("id"), int)
    assert first == {
        "name": "evil",
        "type": "source",
        "epoch": None,
        "version": "2.02",
        "release": "1",
        "updated_at": 1348060890,
        "url": f"{HOST}/api/v1/file_stores/{sha1}",
        "dependent_projects": [],
    }


def test_the_logs_of_a_build(farm: Farm) -> None:
    """A client appends a suffix and a query to the log's URL."""
    build_list, name = farm.new(status=0), "abfworker::rpm-worker-1.log"
    sha1 = keep(farm, b"hello\n", name)
    with farm.store.database.write() as db:
        db.execute(
            "insert into results (run_pk, sha1, file_name, size, created_at) values (?, ?, ?, 6, ?)",
            (farm.row(build_list)["run_pk"], sha1, name, "2012-09-19T13:21:30.000000+00:00"),
        )
    found = farm.show(build_list)["logs"]
    assert found == [{"file_name": name, "size": 6, "url": f"{HOST}/api/v1/file_stores/{sha1}"}]
    shown = farm.nobody.http.get(found[0]["url"] + ".log?show=True")
    assert (shown.status_code, shown.text) == (200, "hello\n")
    assert shown.headers["content-type"].startswith("text/plain")


def test_the_duration_of_a_build(farm: Farm) -> None:
    build_list = farm.new(status=3000)
    pk = farm.row(build_list)["run_pk"]
    for column, moment, expected in (
        ("started_at", "2024-01-01T00:00:00.000000+00:00", None),
        ("finished_at", "2024-01-01T00:05:10.000000+00:00", 310),
    ):
        assert farm.show(build_list)["duration"] is None
        with farm.store.database.write() as db:
            db.execute(f"update runs set {column} = ? where pk = ?", (moment, pk))
        assert farm.show(build_list)["duration"] == expected


def test_the_log_while_it_is_written(farm: Farm) -> None:
    build_list = farm.new(farm.of_secret_tools(), status=3000)
    http, path = farm.nobody.http, farm.show(build_list)["build_log_url"]
    assert http.get(path, headers=farm.ivan.headers).status_code == 404
    write(log_of(farm, build_list), "checking out\n")
    found = http.get(path, headers=farm.ivan.headers)
    assert (found.status_code, found.text) == (200, "checking out\n")
    assert found.headers["content-type"].startswith("text/plain")
    assert http.get(path, headers=farm.petr.headers).status_code == 403
    assert http.get(path).status_code == 401


@pytest.mark.parametrize(
    ("offset", "rest"),
    [
        ("0", "checking out\n"),
        ("9", "out\n"),
        ("13", ""),
        ("1000", ""),
        ("", "checking out\n"),
        ("-5", "checking out\n"),
        (str(2**63 - 1), ""),
    ],
)
def test_the_rest_of_a_log(offset: str, rest: str, farm: Farm) -> None:
    build_list = farm.new(status=3000)
    write(log_of(farm, build_list), "checking out\n")
    path = f"{farm.show(build_list)['build_log_url']}?offset={offset}"
    found = farm.nobody.http.get(path, headers=farm.ivan.headers)
    assert (found.status_code, found.text) == (200, rest)


def log_of(farm: Farm, build_list: int) -> Path:
    with farm.store.database.read() as db:
        row = db.execute("select uuid from runs where pk = ?", (farm.row(build_list)["run_pk"],)).fetchone()
    return farm.context.home.log("package", row["uuid"])
