"""What experiments measured."""

from __future__ import annotations

import json
import uuid as uuids
from collections.abc import Callable, Mapping, Sequence

from polylocal import clock
from polylocal.store.database import Database
from polylocal.store.queries import VISIBLE
from polylocal.store.rows import MetricRow, Run, row_of

_SELECT = "select m.*, r.id as experiment from metrics m join runs r on r.pk = m.run_pk"


class Metrics:
    def __init__(self, database: Database, hint: Callable[[int], None]) -> None:
        self._database = database
        self._hint = hint

    def add(self, run: Run, entries: Sequence[tuple[Mapping[str, float], str | None]]) -> list[MetricRow]:
        """Keep measured values, each with its time (None: now); the newest of each name are the run's last ones."""
        with self._database.write() as db:
            row = db.execute("select last_metric from runs where pk = ?", (run.pk,)).fetchone()
            last: dict[str, float] = json.loads(row["last_metric"] or "{}") if row else {}
            pks = []
            for values, created_at in entries:
                last.update(values)
                moment = created_at or clock.now()
                insert = 'insert into metrics (uuid, run_pk, created_at, "values") values (?, ?, ?, ?) returning id'
                found = db.execute(insert, (uuids.uuid4().hex, run.pk, moment, json.dumps(dict(values)))).fetchone()
                pks.append(found["id"])
            db.execute(
                "update runs set last_metric = ?, updated_at = ? where pk = ?", (json.dumps(last), clock.now(), run.pk)
            )
            among = "m.id in (select value from json_each(?))"
            rows = db.execute(f"{_SELECT} where {among} order by m.id", (json.dumps(pks),)).fetchall()
        self._hint(run.pk)
        return [row_of(MetricRow, row) for row in rows]

    def page(self, run: Run, *, limit: int, offset: int) -> tuple[int, list[MetricRow]]:
        """Count and one page of an experiment's metrics, or of all experiments of a group; the oldest first."""
        where = "m.run_pk = :pk"
        if run.kind == "group":
            where = f"m.run_pk in (select pk from runs r where group_pk = :pk and kind = 'experiment' and {VISIBLE}"
            where += " union select r.pk from selections s join runs r on r.pk = s.experiment_pk"
            where += f" where s.group_pk = :pk and {VISIBLE})"
        values = {"pk": run.pk, "limit": limit, "offset": offset}
        with self._database.read() as db:
            count = db.execute(f"select count(*) from metrics m where {where}", values).fetchone()[0]
            found = f"{_SELECT} where {where} order by m.created_at, m.id limit :limit offset :offset"
            return count, [row_of(MetricRow, row) for row in db.execute(found, values)]

    def newest(self) -> int:
        """Grows with every value that anybody reports."""
        with self._database.read() as db:
            return int(db.execute("select coalesce(max(id), 0) from metrics").fetchone()[0])

    def series(self, group: Run, name: str) -> dict[int, list[float]]:
        """The values of one metric of each experiment of a group, by pk, the oldest first."""
        query = (
            'select m.run_pk, j.value from metrics m join runs r on r.pk = m.run_pk, json_each(m."values") j'
            f" where r.group_pk = ? and r.kind = 'experiment' and {VISIBLE} and j.key = ?"
            " order by m.run_pk, m.created_at, m.id"
        )
        found: dict[int, list[float]] = {}
        with self._database.read() as db:
            for row in db.execute(query, (group.pk, name)):
                found.setdefault(row["run_pk"], []).append(float(row["value"]))
        return found
