"""The content of the build farm of these tests, and its users."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from polylocal.api.api_context import ApiContext
from polylocal.store import Store

from ..conftest import Json, tar_of

PASSWORD = "correct horse"
PEOPLE = {
    "root": "everything",
    "ivan": "his projects",
    "olga": "the platform rosa_lts",
    "petr": "nothing",
}  # the objects that each user may change
CODE = {"debian/control": "Source: evil-tools\n", ".abf.yml": "build:\n  command: 'true'\n"}
FORBIDDEN = {"message": "Access violation to this page!"}
NOT_FOUND = {"status": 404, "message": "Error 404. Resource not found!"}
NO_CREDENTIALS = {"error": "You need to sign in or sign up before continuing."}
WRONG_CREDENTIALS = {"error": "Invalid email or password."}


def basic(name: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


class Person:
    """A user who sends a name and a token with each request. Paths are relative to /api/v1/."""

    def __init__(self, http: httpx2.Client, headers: Mapping[str, str], name: str = "", user_id: int = 0) -> None:
        self.http = http
        self.headers = headers
        self.name = name
        self.id = user_id

    def __call__(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None, **more: Any
    ) -> httpx2.Response:
        content = {"json": body} if body is not None else {}
        return self.http.request(
            method, f"/api/v1/{path}", headers={**self.headers, **(headers or {})}, **content, **more
        )

    def get(self, path: str, **more: Any) -> httpx2.Response:
        return self("GET", path, **more)

    def post(self, path: str, body: object = None, **more: Any) -> httpx2.Response:
        return self("POST", path, body, **more)

    def put(self, path: str, body: object = None, **more: Any) -> httpx2.Response:
        return self("PUT", path, body, **more)

    def delete(self, path: str, body: object = None, **more: Any) -> httpx2.Response:
        return self("DELETE", path, body, **more)

    def create(self, path: str, subject: str, **values: Any) -> int:
        """Create an object, and return its id."""
        answer = self.post(path, {subject: values})
        assert answer.status_code == 200, answer.text
        found: int = answer.json()[subject]["id"]
        return found

    def change(self, method: str, path: str, body: object = None) -> Json:
        answer = self(method, path, body)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found


@dataclass(frozen=True)
class Ids:
    """Ids of the farm's objects. The repository `lts` has QA on, the others have it off."""

    people: Mapping[str, int]
    tokens: Mapping[str, str]
    arch: int
    arch_name: str
    evil_tools: int  # ivan's, public, in the repositories personal, rosa and lts
    commit: str  # the newest commit of evil_tools
    secret_tools: int  # ivan's, private, in the repository personal
    secret_commit: str
    rosa_platform: int  # rosa2012, owned by root
    rosa: int  # its repository main
    contrib: int  # its other repository, empty
    lts_platform: int  # rosa_lts, owned by olga
    lts: int
    personal_platform: int  # ivan_personal
    personal: int


@dataclass(frozen=True)
class Farm:
    context: ApiContext
    store: Store
    ids: Ids
    root: Person
    ivan: Person
    olga: Person
    petr: Person
    nobody: Person

    def person(self, name: str) -> Person:
        found: Person = getattr(self, name)
        return found

    def body(self, **changes: Any) -> Json:
        """The body of a request to build evil_tools for the repository main of rosa2012. `...` leaves a field out."""
        values = {
            "project_id": self.ids.evil_tools,
            "commit_hash": self.ids.commit,
            "project_version": "master",
            "update_type": "bugfix",
            "save_to_repository_id": self.ids.rosa,
            "build_for_platform_id": self.ids.rosa_platform,
            "arch_id": self.ids.arch,
            "include_repos": [self.ids.rosa],
            "auto_publish": True,
            "use_save_to_repository": True,
            **changes,
        }
        return {"build_list": {name: value for name, value in values.items() if value is not ...}}

    def for_personal(self, **changes: Any) -> Json:
        return self.body(save_to_repository_id=self.ids.personal, **changes)

    def for_lts(self, **changes: Any) -> Json:
        places = {"save_to_repository_id": self.ids.lts, "build_for_platform_id": self.ids.lts_platform}
        return self.body(**places, include_repos=[self.ids.lts], **changes)

    def of_secret_tools(self, **changes: Any) -> Json:
        return self.for_personal(project_id=self.ids.secret_tools, commit_hash=self.ids.secret_commit, **changes)

    def new(self, body: Json | None = None, by: Person | None = None, **state: Any) -> int:
        """Create a build list in any state. Returns its id."""
        answer = (by or self.ivan).post("build_lists.json", body or self.body())
        assert answer.status_code == 200, answer.text
        made: int = answer.json()["build_list"]["id"]
        if state:
            self.set(made, **state)
        return made

    def set(self, build_list: int, **columns: Any) -> None:
        """Set columns that only a worker could set."""
        sets = ", ".join(f"{name} = ?" for name in columns)
        with self.store.database.write() as db:
            db.execute(
                f"update build_lists set {sets} where run_pk = (select pk from runs where kind = 'package' and id = ?)",
                (*columns.values(), build_list),
            )

    def row(self, build_list: int) -> Json:
        """The row of a build list."""
        query = "select b.* from build_lists b join runs r on r.pk = b.run_pk where r.kind = 'package' and r.id = ?"
        with self.store.database.read() as db:
            return dict(db.execute(query, (build_list,)).fetchone())

    def foreign_arch(self) -> int:
        """An architecture that an earlier machine executed and this one does not."""
        with self.store.database.write() as db:
            db.execute("insert into arches (name) values ('pdp11') on conflict do nothing")
            found: int = db.execute("select id from arches where name = 'pdp11'").fetchone()[0]
        return found

    def count(self) -> int:
        with self.store.database.read() as db:
            found: int = db.execute("select count(*) from build_lists").fetchone()[0]
            return found

    def show(self, build_list: int, by: Person | None = None) -> Json:
        answer = (by or self.root).get(f"build_lists/{build_list}.json")
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()["build_list"]
        return found

    def put_code(self, project: int, files: Mapping[str, str]) -> str:
        """Commit these files to the project's branch master."""
        repository = self.context.repository(self.store.projects.by_id(project))
        return repository.upload(io.BytesIO(tar_of(files)), "ivan")


def people(http: httpx2.Client, ids: Mapping[str, int], tokens: Mapping[str, str]) -> dict[str, Person]:
    known = {name: Person(http, basic(name, tokens[name]), name, ids[name]) for name in PEOPLE}
    return {**known, "nobody": Person(http, {})}
