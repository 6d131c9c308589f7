"""Saved queries and charts."""

import sqlite3
import uuid as uuids
from collections.abc import Mapping
from typing import Any

from polylocal import clock
from polylocal.errors import InvalidInput, NotFound
from polylocal.statuses import Kind
from polylocal.store.database import Database
from polylocal.store.rows import ChartView, Project, Run, Search, User, row_of, to_json

MAX_SEARCHES = 500  # of one user, in one project and of one kind
MAX_CHART_VIEWS = 200  # of one run


class Searches:
    """Saved queries of one user, by project and kind of run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, user: User, project: Project, kind: Kind, *, limit: int, offset: int) -> tuple[int, list[Search]]:
        where, values = "user_id = ? and project_id = ? and kind = ?", (user.id, project.id, str(kind))
        with self._database.read() as db:
            count = db.execute(f"select count(*) from searches where {where}", values).fetchone()[0]
            found = f"select id, name, query, meta from searches where {where} order by id desc limit ? offset ?"
            return count, [row_of(Search, row) for row in db.execute(found, (*values, limit, offset))]

    def add(self, user: User, project: Project, kind: Kind, values: Mapping[str, Any]) -> Search:
        """Save a query. `values`: query (required), name and meta. Names are unique."""
        row = (
            user.id,
            project.id,
            str(kind),
            values.get("name"),
            to_json(values["query"]),
            to_json(values.get("meta")),
        )
        insert = (
            "insert into searches (user_id, project_id, kind, name, query, meta, created_at)"
            " values (?, ?, ?, ?, ?, ?, ?) returning id, name, query, meta"
        )
        try:
            with self._database.write() as db:
                there = "select count(*) from searches where user_id = ? and project_id = ? and kind = ?"
                if db.execute(there, row[:3]).fetchone()[0] >= MAX_SEARCHES:
                    raise InvalidInput([f"You have {MAX_SEARCHES} searches of {kind.plural} here: delete one first."])
                return row_of(Search, db.execute(insert, (*row, clock.now())).fetchone())
        except sqlite3.IntegrityError as error:
            raise InvalidInput({"name": [f"You have a search `{values.get('name')}` already."]}) from error

    def delete(self, user: User, project: Project, kind: Kind, search_id: int) -> None:
        where = "id = ? and user_id = ? and project_id = ? and kind = ?"
        with self._database.write() as db:
            values = (search_id, user.id, project.id, str(kind))
            if not db.execute(f"delete from searches where {where}", values).rowcount:
                raise NotFound


class ChartViews:
    """Charts of an experiment or a group."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, run: Run, *, limit: int, offset: int) -> tuple[int, list[ChartView]]:
        with self._database.read() as db:
            count = db.execute("select count(*) from chart_views where run_pk = ?", (run.pk,)).fetchone()[0]
            found = "select * from chart_views where run_pk = ? order by id limit ? offset ?"
            return count, [row_of(ChartView, row) for row in db.execute(found, (run.pk, limit, offset))]

    def get(self, run: Run, view_id: int) -> ChartView:
        with self._database.read() as db:
            row = db.execute("select * from chart_views where run_pk = ? and id = ?", (run.pk, view_id)).fetchone()
        if row is None:
            raise NotFound
        return row_of(ChartView, row)

    def add(self, run: Run, values: Mapping[str, Any]) -> ChartView:
        """Save charts. `values`: charts (required), name and meta."""
        now = clock.now()
        row = (uuids.uuid4().hex, run.pk, values.get("name"), to_json(values["charts"]), to_json(values.get("meta")))
        insert = (
            "insert into chart_views (uuid, run_pk, name, charts, meta, created_at, updated_at)"
            " values (?, ?, ?, ?, ?, ?, ?) returning *"
        )
        with self._database.write() as db:
            there = db.execute("select count(*) from chart_views where run_pk = ?", (run.pk,)).fetchone()[0]
            if there >= MAX_CHART_VIEWS:
                raise InvalidInput([f"The {run.kind} has {MAX_CHART_VIEWS} chart views: delete one first."])
            return row_of(ChartView, db.execute(insert, (*row, now, now)).fetchone())

    def update(self, run: Run, view_id: int, values: Mapping[str, Any]) -> ChartView:
        self.get(run, view_id)
        row = {name: value if name == "name" else to_json(value) for name, value in values.items()}
        sets = "".join(f"{column} = :{column}, " for column in row)
        with self._database.write() as db:
            db.execute(
                f"update chart_views set {sets} updated_at = :now where id = :id",
                {**row, "now": clock.now(), "id": view_id},
            )
        return self.get(run, view_id)

    def delete(self, run: Run, view_id: int) -> None:
        self.get(run, view_id)
        with self._database.write() as db:
            db.execute("delete from chart_views where id = ?", (view_id,))
