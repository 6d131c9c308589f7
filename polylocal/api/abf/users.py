"""Who there is, and what can be found by a word."""

from __future__ import annotations

from urllib.parse import urlencode

from polylocal.api.abf import shapes
from polylocal.api.abf.calls import Ask, Endpoint, Json
from polylocal.errors import NotFound
from polylocal.store.rows import User

_KINDS = ("projects", "users", "groups", "platforms")


def me(ask: Ask) -> Json:
    return {"user": {**_person(ask, ask.user), "role": "admin" if ask.user.is_superuser else ""}}


def show(ask: Ask) -> Json:
    """By number or by name."""
    word = ask.parameter("user")
    if word.isascii() and word.isdigit():
        return {"user": _person(ask, ask.store.users.by_id(int(word[:18])))}
    found = ask.store.users.known_as(word)
    if found is None or found.username.lower() != word.lower():
        raise NotFound
    return {"user": _person(ask, found)}


def _person(ask: Ask, user: User) -> Json:
    count, _ = ask.store.projects.page(user.username, public_only=False, limit=0, offset=0)
    return shapes.person(user, count, ask.base)


def search(ask: Ask) -> Json:
    """A part of a name, whatever the case of its letters; of one kind of thing, or of all."""
    word, kind = ask.query("query") or "", ask.query("type")
    kinds = (kind,) if kind in _KINDS else _KINDS
    asked = urlencode([(name, value) for name in ("query", "type") if (value := ask.query(name))])
    url = "/api/v1/search.json" + (f"?{asked}" if asked else "")
    return {"results": {found: _found(ask, found, word) for found in kinds}, "url": url}


def _found(ask: Ask, kind: str, word: str) -> list[Json]:
    if kind == "groups":
        return []
    if kind == "users":
        return [shapes.member(user) for user in ask.store.users.like(word, ask.page)]
    if kind == "platforms":
        return [shapes.platform_block(found) for found in ask.store.platforms.page(ask.user, ask.page, name_like=word)]
    projects = ask.store.projects.readable(ask.user, ask.page, name_like=word)
    return [shapes.project_block(found, ask.store.users.by_id(found.user_id), ask.base) for found in projects]


ENDPOINTS = [
    Endpoint("GET", "/api/v1/user", me, "Who one is", "anybody"),
    Endpoint("GET", "/api/v1/users/{user}", show, "A user, by number or by name", "anybody"),
    Endpoint("GET", "/api/v1/search", search, "Find things by a part of their name", "anybody: what they may read"),
]
