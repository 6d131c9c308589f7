"""Saved queries and charts."""

import sqlite3
import uuid as uuids
from collections.abc import Mapping
from typing import Any

from polylocal import clock
from polylocal.errors import InvalidInput, NotFound
from polylocal.statuses import Kind
from polylocal.store.database import Tables, insert, update
from polylocal.store.rows import ChartView, Project, Run, Search, User, to_json

MAX_SEARCHES = 500  # of one user, in one project and of one kind
MAX_CHART_VIEWS = 200  # of one run
_SAVED = "user_id = ? and project_id = ? and kind = ?"
_COUNT = f"select count(*) from searches where {_SAVED}"
_COUNT_VIEWS = "select count(*) from chart_views where run_pk = ?"


class Searches(Tables):
    """Saved queries of one user, by project and kind of run."""

    def page(self, user: User, project: Project, kind: Kind, *, limit: int, offset: int) -> tuple[int, list[Search]]:
        found = f"select id, name, query, meta from searches where {_SAVED} order by id desc"
        return self._database.page(Search, _COUNT, found, (user.id, project.id, str(kind)), limit, offset)

    def add(self, user: User, project: Project, kind: Kind, values: Mapping[str, Any]) -> Search:
        """Save a query. `values`: query (required), name and meta. Names are unique."""
        row = {"user_id": user.id, "project_id": project.id, "kind": str(kind), "name": values.get("name")}
        row |= {"query": to_json(values["query"]), "meta": to_json(values.get("meta")), "created_at": clock.now()}
        try:
            with self._database.write() as db:
                if db.execute(_COUNT, (user.id, project.id, str(kind))).fetchone()[0] >= MAX_SEARCHES:
                    raise InvalidInput([f"You have {MAX_SEARCHES} searches of {kind.plural} here: delete one first."])
                search_id = insert(db, "searches", row)
        except sqlite3.IntegrityError as error:
            raise InvalidInput({"name": [f"You have a search `{values.get('name')}` already."]}) from error
        return Search(search_id, values.get("name"), values["query"], values.get("meta"))

    def delete(self, user: User, project: Project, kind: Kind, search_id: int) -> None:
        delete = f"delete from searches where {_SAVED} and id = ?"
        if not self._database.execute(delete, (user.id, project.id, str(kind), search_id)):
            raise NotFound


class ChartViews(Tables):
    """Charts of an experiment or a group."""

    def page(self, run: Run, *, limit: int, offset: int) -> tuple[int, list[ChartView]]:
        found = "select * from chart_views where run_pk = ? order by id"
        return self._database.page(ChartView, _COUNT_VIEWS, found, (run.pk,), limit, offset)

    def get(self, run: Run, view_id: int) -> ChartView:
        query = "select * from chart_views where run_pk = ? and id = ?"
        return self._database.one(ChartView, query, (run.pk, view_id))

    def add(self, run: Run, values: Mapping[str, Any]) -> ChartView:
        """Save charts. `values`: charts (required), name and meta."""
        now = clock.now()
        row = {"uuid": uuids.uuid4().hex, "run_pk": run.pk, "name": values.get("name"), "created_at": now}
        row |= {"charts": to_json(values["charts"]), "meta": to_json(values.get("meta")), "updated_at": now}
        with self._database.write() as db:
            if db.execute(_COUNT_VIEWS, (run.pk,)).fetchone()[0] >= MAX_CHART_VIEWS:
                raise InvalidInput([f"The {run.kind} has {MAX_CHART_VIEWS} chart views: delete one first."])
            view_id = insert(db, "chart_views", row)
        return self.get(run, view_id)

    def update(self, run: Run, view_id: int, values: Mapping[str, Any]) -> ChartView:
        self.get(run, view_id)
        row = {name: value if name == "name" else to_json(value) for name, value in values.items()}
        with self._database.write() as db:
            update(db, "chart_views", row | {"updated_at": clock.now()}, id=view_id)
        return self.get(run, view_id)

    def delete(self, run: Run, view_id: int) -> None:
        self.get(run, view_id)
        self._database.execute("delete from chart_views where id = ?", (view_id,))
