"""The endpoints and calls of the ABF API, its authentication, and its responses.

Clients expect an ETag on every response that is not an error, and compare the texts of errors.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from polylocal.api import access, rights
from polylocal.api.abf.values import MAX_ID, Json, integer
from polylocal.api.api_context import ApiContext
from polylocal.api.file_responses import OpenFileResponse
from polylocal.api.kernel import BaseCall, BaseEndpoint
from polylocal.api.quotas import client_address
from polylocal.errors import NotAllowed, NotAuthenticated, NotFound
from polylocal.store.queries import Page
from polylocal.store.rows import Platform, Project, User
from polylocal.store.users import Credentials

NO_CREDENTIALS = "You need to sign in or sign up before continuing."
WRONG_CREDENTIALS = "Invalid email or password."
NO_RIGHT = "Access violation to this page!"
NOT_FOUND = "Error 404. Resource not found!"
BROKEN = "Something went wrong. We've been notified about this issue and we'll take a look at it shortly."
PER_PAGE, MAX_PER_PAGE = 20, 100
MAX_BODY = 2**20  # bytes of a body that is not an upload
_REMEMBERED_S = 300.0
_BY_PASSWORD = "polylocal.by-password"  # in the scope of requests that were admitted by a password


@dataclass(frozen=True)
class Endpoint(BaseEndpoint):
    handler: Callable[[AbfCall], Any]
    right: str  # for the documentation: handlers check it
    is_anonymous: bool = False  # the handler decides whether it needs credentials

    @property
    def max_body(self) -> int:
        return MAX_BODY


class AbfCall(BaseCall[Endpoint]):
    """One request to the ABF API. `data` is the body: JSON, or a form with nested values."""

    request: Request
    no_credentials = NO_CREDENTIALS

    def __init__(self, request: Request, endpoint: Endpoint, context: ApiContext, authenticator: Authenticator) -> None:
        super().__init__(request, endpoint, context)
        self._authenticator = authenticator
        self.relied_on: list[Project | Platform] = []  # the rows whose visibility or owner gives the caller access

    @property
    def base(self) -> str:
        """How the caller names this server: `http://host:port`."""
        return str(self.request.base_url).rstrip("/")

    def id(self, name: str = "id") -> int:
        return self.number(name)

    def query(self, name: str) -> str | None:
        return super().query(name) or None

    def filters(self) -> dict[str, str]:
        """`filter[status]=6000` → {"status": "6000"}, without empty values."""
        pairs = self.request.query_params.multi_items()
        return {key[7:-1]: value for key, value in pairs if key.startswith("filter[") and key.endswith("]") and value}

    @property
    def page(self) -> Page:
        number = max(1, integer(self.query("page")) or 1)
        size = integer(self.query("per_page"))
        size = PER_PAGE if size is None or size < 1 else min(size, MAX_PER_PAGE)
        return Page(size, min((number - 1) * size, MAX_ID))

    def section(self, subject: str) -> Json:
        """The section of the body with this name, as in `{"build_list": {…}}`; empty if there is none."""
        found = self.data.get(subject) if isinstance(self.data, dict) else None
        return found if isinstance(found, dict) else {}

    def value(self, name: str) -> object:
        return self.data.get(name) if isinstance(self.data, dict) else None

    def named_owner(self, fields: Json) -> User | None:
        """The user of the field `owner_id`, or the caller if there is no such field; None: the user does not exist."""
        number = integer(fields.get("owner_id"))
        try:
            return self.user if number is None else self.store.users.by_id(number)
        except NotFound:
            return None

    # -- rights ---------------------------------------------------------------------------------------------------

    def project(self, project_id: int | None) -> Project:
        """A project that is neither deleted nor archived. Raises NotFound."""
        if project_id is None:
            raise NotFound
        return self.store.projects.visible(project_id)

    def may_read(self, project: Project) -> bool:
        self.relied_on.append(project)
        return project.is_public or self.may_write(project)

    def may_write(self, project: Project) -> bool:
        return rights.may_write(self.user, project)

    def may_see(self, platform: Platform) -> bool:
        self.relied_on.append(platform)
        return platform.is_open or self.may_manage(platform)

    def may_manage(self, platform: Platform) -> bool:
        return rights.may_manage(self.user, platform)

    def require(self, right: bool) -> None:
        """Raises NotAllowed."""
        if not right:
            raise NotAllowed

    def admit(self) -> None:
        user = self._authenticator.identify(self.request)
        if user is not None:
            self.set_credentials(Credentials(user, None))
        elif not self.endpoint.is_anonymous:
            raise NotAuthenticated(NO_CREDENTIALS)

    def check_again(self) -> None:
        user = self._authenticator.identify_again(self.request, self.user_or_none)
        again = AbfCall(self.request, self.endpoint, self.context, self._authenticator)
        again.credentials = Credentials(user, None) if user else None
        if again.holders != self.holders:
            raise NotAuthenticated(WRONG_CREDENTIALS)
        for thing in self.relied_on:
            if isinstance(thing, Project):
                again.require(again.may_read(again.project(thing.id)))
            else:
                again.require(again.may_see(self.store.platforms.get(thing.id)))

    @property
    def permission_key(self) -> Hashable:
        things = tuple((type(thing), thing.id) for thing in self.relied_on)
        request = self.request
        return request.headers.get("authorization"), request.query_params.get("authentication_token"), things


# -- answers ---------------------------------------------------------------------------------------------------------


def success(subject: str, row_id: int, message: str) -> Json:
    return {subject: {"id": row_id, "message": message}}


def failure(subject: str, *messages: str) -> Response:
    return json_response({subject: {"id": None, "message": ". ".join(messages)}}, 422)


def json_response(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(content, status, headers, "application/json; charset=utf-8")


def with_etag(request: Request, response: Response) -> Response:
    """The response with an ETag of its content; a 304 without a body if the client has that content."""
    if not 200 <= response.status_code < 300:
        return response
    if "etag" not in response.headers:
        content = getattr(response, "body", None)  # None: the response is streamed
        tag = secrets.token_hex(20) if content is None else hashlib.sha256(bytes(content)).hexdigest()[:40]
        response.headers["ETag"] = f'"{tag}"'
    if request.method in ("GET", "HEAD") and _matches(request.headers.get("if-none-match"), response.headers["etag"]):
        if isinstance(response, OpenFileResponse):
            response.file.close()
        kept = {name: response.headers[name] for name in ("etag", "vary") if name in response.headers}
        return Response(status_code=304, headers=kept)
    return response


def _matches(known: str | None, tag: str) -> bool:
    return known is not None and any(
        word.strip().removeprefix("W/") in (tag.removeprefix("W/"), "*") for word in known.split(",")
    )


def unauthorized(words: str) -> Response:
    return json_response({"error": words}, 401, {"WWW-Authenticate": 'Basic realm="polylocal"'})


# -- authentication --------------------------------------------------------------------------------------------------


class Authenticator:
    """Identifies users by name or e-mail address with a password or a token, or by a token alone. Thread-safe.

    Clients send the password with every request, and its hash takes 50 ms of a core. So the digest of a correct
    password, with a key of this process, is remembered for a while.
    """

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._key = secrets.token_bytes(32)
        self._verified: dict[bytes, float] = {}
        self._lock = threading.Lock()

    def identify(self, request: Request) -> User | None:
        """The user of a request; None: it has no credentials. Raises NotAuthenticated, TooManyAttempts."""
        users = self._context.store.users
        header = request.headers.get("authorization", "")
        scheme, _, rest = header.partition(" ")
        if scheme.lower() == "basic":
            name, secret = _parse_basic(rest)
            return self._by_secret(request, name, secret)
        if header:
            return self._check_user(request, access.authenticate(request, users))
        if token := request.query_params.get("authentication_token"):
            return self._by_token(request, token)
        return None

    def identify_again(self, request: Request, user: User | None) -> User | None:
        """The user of a request that was identified as `user` before. Raises NotAuthenticated, NotFound.

        Computes no hash again: a password is correct until the user's changes.
        """
        if user is None or not request.scope.get(_BY_PASSWORD):
            return self.identify(request)
        found = self._context.store.users.by_id(user.id)
        if not found.is_active or found.password != user.password:
            raise NotAuthenticated(WRONG_CREDENTIALS)
        return found

    def _by_secret(self, request: Request, name: str, secret: str) -> User:
        users = self._context.store.users
        if not secret:
            return self._by_token(request, name)
        user = users.by_name_or_address(name)
        by_token = users.by_token(secret)
        if by_token and user and by_token.user.id == user.id:
            return self._check_user(request, by_token)
        if request.scope.get(access.BRIDGE):
            raise NotAuthenticated(WRONG_CREDENTIALS)
        return self._by_password(request, user, name, secret)

    def _by_password(self, request: Request, user: User | None, name: str, secret: str) -> User:
        attempts = self._context.login_throttle
        known_as = user.username if user else name.lower()  # in any case of letters
        key = f"{known_as[:256]} {client_address(request)}"
        attempts.check(key)
        digest = self._digest(user, secret)
        request.scope[_BY_PASSWORD] = True
        if user and user.is_active and self._is_known(digest):
            return user
        with self._context.quotas.logins.slot(("name", key)), attempts.slot():
            found = self._context.store.users.check_password(user.username if user else name, secret)
        if found is None:
            attempts.record_failure(key)
            raise NotAuthenticated(WRONG_CREDENTIALS)
        attempts.record_success(key)
        self._remember(digest)
        return found

    def _by_token(self, request: Request, token: str) -> User:
        try:
            return self._check_user(request, access.by_token(request, self._context.store.users, token))
        except NotAuthenticated as error:
            raise NotAuthenticated(WRONG_CREDENTIALS) from error

    def _check_user(self, request: Request, credentials: Credentials) -> User:
        """Refuse a run's own token, which is for the Polyaxon API."""
        if credentials.run_pk is not None or not credentials.user.is_active or request.scope.get(access.BRIDGE):
            raise NotAuthenticated(WRONG_CREDENTIALS)
        return credentials.user

    def _digest(self, user: User | None, secret: str) -> bytes:
        about = f"{user.id if user else 0}\0{user.password if user else ''}\0{secret}"
        return hmac.digest(self._key, about.encode("utf-8", "surrogatepass"), "sha256")

    def _is_known(self, digest: bytes) -> bool:
        with self._lock:
            return self._verified.get(digest, 0.0) > time.monotonic()

    def _remember(self, digest: bytes) -> None:
        now = time.monotonic()
        with self._lock:
            self._verified = {known: until for known, until in self._verified.items() if until > now}
            self._verified[digest] = now + _REMEMBERED_S


def _parse_basic(encoded: str) -> tuple[str, str]:
    try:
        name, colon, secret = b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError as error:
        raise NotAuthenticated(WRONG_CREDENTIALS) from error
    if not name:
        raise NotAuthenticated(WRONG_CREDENTIALS)
    return name, secret
