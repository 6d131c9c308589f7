"""Users, and the search by a part of a name."""

from urllib.parse import urlencode

from polylocal.api.abf import shapes
from polylocal.api.abf.calls import AbfCall, Endpoint
from polylocal.api.abf.values import Json
from polylocal.errors import NotFound
from polylocal.store import Store
from polylocal.store.rows import User

_KINDS = ("projects", "users", "groups", "platforms")


def me(call: AbfCall) -> Json:
    return {"user": {**_person(call.user, call.base, call.store), "role": "admin" if call.user.is_superuser else ""}}


def show(call: AbfCall) -> Json:
    """A user by number or by name."""
    word = call.parameter("user")
    if word.isascii() and word.isdigit():
        return {"user": _person(call.store.users.by_id(int(word[:18])), call.base, call.store)}
    found = call.store.users.by_name_or_address(word)
    if found is None or found.username.lower() != word.lower():
        raise NotFound
    return {"user": _person(found, call.base, call.store)}


def _person(user: User, base: str, store: Store) -> Json:
    count, _ = store.projects.page(user.username, public_only=False, limit=0, offset=0)
    return shapes.person(user, count, base)


def search(call: AbfCall) -> Json:
    """Find things by a part of their name, in any case; `type` limits the search to one kind."""
    word, kind = call.query("query") or "", call.query("type")
    kinds = (kind,) if kind in _KINDS else _KINDS
    query = urlencode([(name, value) for name in ("query", "type") if (value := call.query(name))])
    url = "/api/v1/search.json" + (f"?{query}" if query else "")
    return {"results": {found: _search(call, found, word) for found in kinds}, "url": url}


def _search(call: AbfCall, kind: str, word: str) -> list[Json]:
    if kind == "groups":
        return []
    if kind == "users":
        return [shapes.member(user) for user in call.store.users.search(word, call.page)]
    if kind == "platforms":
        return list(map(shapes.platform_block, call.store.platforms.page(call.user, call.page, name_like=word)))
    projects = call.store.projects.readable(call.user, call.page, name_like=word)
    return [shapes.project_block(found, call.store.users.by_id(found.user_id), call.base) for found in projects]


ENDPOINTS = [
    Endpoint("GET", "/api/v1/user", me, "The caller", "any user"),
    Endpoint("GET", "/api/v1/users/{user}", show, "A user, by number or by name", "any user"),
    Endpoint("GET", "/api/v1/search", search, "Find things by a part of their name", "any user: readable things"),
]
