"""Filters, orders and pages of lists, through the original command lines."""

from __future__ import annotations

import pytest
from support import job

from clients import files
from clients.originals import Person, facts, rows
from clients.stored import finished
from polylocal.client.http import Client

pytestmark = pytest.mark.engine


def test_jobs_and_builds_are_filtered_and_sorted(person: Person, client: Client) -> None:
    person.begin_project("lists")
    person.write({"good.yml": files.job("true"), "bad.yml": files.job("exit 1", ("true",))})
    good, bad, late = (person.run("-f", name) for name in ("good.yml", "bad.yml", "good.yml"))
    for run in (good, bad, late):
        finished(client, run)

    def listed(what: str, *options: str) -> list[str]:
        heading = f"{what.capitalize()}:"
        return [row["id"] for row in rows(person.polyaxon("project", what, *options), heading)]

    newest_first = [str(run.id) for run in (late, bad, good)]
    assert set(listed("jobs")) == set(newest_first)
    assert listed("jobs", "-s", "created_at") == [str(good.id), str(bad.id), str(late.id)]
    assert listed("jobs", "-s", "-created_at") == newest_first
    assert listed("jobs", "-q", "status:failed") == [str(bad.id)]
    assert listed("jobs", "-q", "status:~failed, id:>0", "-s", "created_at") == [str(good.id), str(late.id)]
    assert listed("jobs", "-q", "status:succeeded|failed", "-s", "-created_at") == [
        str(late.id),
        str(bad.id),
        str(good.id),
    ]
    assert listed("jobs", "-q", "created_at:<2018-01-01") == []
    assert len(listed("builds", "-q", "status:succeeded", "-s", "-created_at")) == 2
    assert "No builds found" in person.polyaxon("project", "builds", "-q", "status:failed")
    assert "Could not get jobs for project `lists`" in person.polyaxon("project", "jobs", "-q", "what:ever", code=1)


def test_jobs_come_in_pages(person: Person, client: Client) -> None:
    person.begin_project("paged")
    for _ in range(21):
        client.create_run(person.name, "paged", "job", {"config": job("true")})
    # in an order that stays while they run: they are listed by their last change otherwise
    listed = ("project", "jobs", "-s", "-created_at")
    first, second = person.polyaxon(*listed), person.polyaxon(*listed, "--page=2")
    assert facts(first)["next"] == "--page=2"
    assert facts(second)["previous"] == "--page=1"
    ids = [row["id"] for said in (first, second) for row in rows(said, "Jobs:")]
    assert len(ids) == len(set(ids)) == 21
