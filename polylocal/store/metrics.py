"""Metrics that experiments report."""

import json
import sqlite3
import uuid as uuids
from collections.abc import Mapping, Sequence

from polylocal import clock
from polylocal.errors import InvalidInput, NotFound
from polylocal.statuses import Kind
from polylocal.store import run_values
from polylocal.store.database import Tables
from polylocal.store.queries import MAX_METRIC_NAMES, VISIBLE
from polylocal.store.rows import MetricRow, Run
from polylocal.text import non_finite

MAX_ENTRIES = 1_000_000  # of one run
MAX_VALUES = 50_000_000  # in all entries of one run

_SELECT = """
select m.id, m.uuid, m.created_at, m."values" as measured, r.id as experiment
from metrics m join runs r on r.pk = m.run_pk
"""
_INSERT = 'insert into metrics (uuid, run_pk, created_at, "values") values (?, ?, ?, ?) returning id'
_COUNT = """
update runs set updated_at = ?, metric_entries = metric_entries + ?, metric_values = metric_values + ? where pk = ?
"""


class Metrics(Tables):
    def add(self, run: Run, entries: Sequence[tuple[Mapping[str, float], str | None]]) -> list[MetricRow]:
        """Add measured values, each with its time (None: now). The newest of each name becomes the run's last value.

        A value that is not finite is stored as a word: it can be the last one, but is never compared as a number. The
        time is proportional to the number of new values. Raises InvalidInput: the run has too many values.
        """
        now = clock.now()
        last: dict[str, float] = {}
        for values, _ in entries:
            last.update(values)
        kept = [non_finite.with_words(values) for values, _ in entries]
        made = [
            (uuids.uuid4().hex, run.pk, moment or now, json.dumps(values, allow_nan=False))
            for values, (_, moment) in zip(kept, entries, strict=True)
        ]
        count = sum(len(values) for values, _ in entries)
        with self._changing(run.pk) as db:
            _check(db, run.pk, last, len(entries), count)
            ids = [db.execute(_INSERT, row).fetchone()["id"] for row in made]
            run_values.set_metrics(db, run.pk, last)
            db.execute(_COUNT, (now, len(entries), count, run.pk))
        return [
            MetricRow(id=number, uuid=uuid, created_at=moment, measured=values, experiment=run.id)
            for number, (uuid, _, moment, _), values in zip(ids, made, kept, strict=True)
        ]

    def page(self, run: Run, *, limit: int, offset: int) -> tuple[int, list[MetricRow]]:
        """Count and one page of the metrics of an experiment, or of all experiments of a group; the oldest first."""
        where, values = "m.run_pk = ?", [run.pk]
        if run.kind is Kind.GROUP:
            where = f"m.run_pk in (select pk from runs r where group_pk = ? and kind = 'experiment' and {VISIBLE}"
            where += " union select r.pk from selections s join runs r on r.pk = s.experiment_pk"
            where += f" where s.group_pk = ? and {VISIBLE})"
            values *= 2
        count, found = f"select count(*) from metrics m where {where}", f"{_SELECT} where {where}"
        return self._database.page(MetricRow, count, f"{found} order by m.created_at, m.id", values, limit, offset)

    def last_id(self) -> int:
        """A counter that grows with every reported value."""
        return int(self._database.value("select coalesce(max(id), 0) from metrics"))

    def series(self, group: Run, name: str) -> dict[int, list[float]]:
        """The finite values of one metric, the oldest first, by the pks of a group's experiments."""
        query = (
            'select m.run_pk, j.value from metrics m join runs r on r.pk = m.run_pk, json_each(m."values") j'
            f" where r.group_pk = ? and r.kind = 'experiment' and {VISIBLE} and j.key = ? and j.type <> 'text'"
            " order by m.run_pk, m.created_at, m.id"
        )
        found: dict[int, list[float]] = {}
        with self._database.read() as db:
            for row in db.execute(query, (group.pk, name)):
                found.setdefault(row["run_pk"], []).append(float(row["value"]))
        return found


def _check(db: sqlite3.Connection, pk: int, last: Mapping[str, float], entries: int, values: int) -> None:
    row = db.execute("select metric_entries, metric_values from runs where pk = ?", (pk,)).fetchone()
    if row is None:
        raise NotFound  # the run was removed since it was read
    if row["metric_entries"] + entries > MAX_ENTRIES:
        raise InvalidInput([f"An experiment keeps at most {MAX_ENTRIES} entries of metrics."])
    if row["metric_values"] + values > MAX_VALUES:
        raise InvalidInput([f"An experiment keeps at most {MAX_VALUES} values of metrics."])
    known = "select 1 from run_values where run_pk = ? and space = 'metric' and name = ?"
    fresh = sum(db.execute(known, (pk, name)).fetchone() is None for name in last)
    if not fresh:
        return
    there = "select count(*) from (select 1 from run_values where run_pk = ? and space = 'metric' limit ?)"
    if fresh + db.execute(there, (pk, MAX_METRIC_NAMES)).fetchone()[0] > MAX_METRIC_NAMES:
        raise InvalidInput({"values": [f"An experiment has at most {MAX_METRIC_NAMES} names of metrics."]})
