"""Users, tokens and browser sessions. Tokens are stored as sha256 digests, passwords as argon2 hashes."""

import hashlib
import hmac
import re
import secrets
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from polylocal import clock
from polylocal.errors import InvalidInput
from polylocal.store.database import Tables, insert, update
from polylocal.store.queries import Page
from polylocal.store.rows import User, read_row

_USERNAME = re.compile(r"[-a-zA-Z0-9_]{1,156}")
_EMAIL = re.compile(r"[^\s@:]{1,64}@[^\s@:]{1,190}")
# first words of paths under /api/v1, which would hide the pages of a user of that name
RESERVED = frozenset(
    "activitylogs archives arches bookmarks build_lists catalogs cluster downloads experiments file_stores"
    " historylogs log_handler nodes openapi options platforms projects repositories search searches superusers upload"
    " user users versions".split()
)
# the cookies of one server in one session, which gets another one whenever the browser opens the page
_MAX_PAGE_SESSIONS = 20
SESSION_S = 30 * 86400  # the length of a browser session
_hasher = PasswordHasher()
_verifying = threading.BoundedSemaphore(4)  # each verification takes 64 MiB for a moment


@dataclass(frozen=True)
class Credentials:
    """The user of a request. `run_pk`: the token belongs to this run, and permits only what the run needs."""

    user: User
    run_pk: int | None


class Users(Tables):
    def add(
        self, username: str, *, is_superuser: bool = False, password: str | None = None, email: str | None = None
    ) -> User:
        """Create a user. Raises InvalidInput for a name that is taken, or that clients can't handle."""
        if not _USERNAME.fullmatch(username):
            message = f"`{username}` must be 1 to 156 letters, digits, underscores or hyphens."
            raise InvalidInput({"username": [message]})
        if username.lower() in RESERVED:
            raise InvalidInput({"username": [f"`{username}` is a word of the API's own paths."]})
        if password is not None and len(password) < 8:
            raise InvalidInput({"password": ["A password has at least 8 characters."]})
        if email is not None and not _EMAIL.fullmatch(email):
            raise InvalidInput({"email": [f"`{email}` is not an address of the form name@host."]})
        hashed = _hasher.hash(password) if password is not None else None
        columns: Mapping[str, Any] = {"email": email, "password": hashed, "is_superuser": is_superuser}
        try:
            with self._database.write() as db:
                insert(db, "users", {"username": username, **columns, "created_at": clock.now()})
        except sqlite3.IntegrityError as error:
            if "users_email" in str(error):
                raise InvalidInput({"email": [f"A user with the address `{email}` already exists."]}) from error
            if "platforms" in str(error):
                message = f"There is a platform `{personal_platform(username)}` already."
                raise InvalidInput({"username": [message]}) from error
            raise InvalidInput({"username": [f"A user with name `{username}` already exists."]}) from error
        return self.get(username)

    def get(self, username: str) -> User:
        return self._database.one(User, "select * from users where username = ?", (username,))

    def by_id(self, user_id: int) -> User:
        return self._database.one(User, "select * from users where id = ?", (user_id,))

    def by_name_or_address(self, name: str) -> User | None:
        """Find a user by name or address, in any case; the exact name first."""
        query = "select * from users where lower(username) = lower(:name) or lower(email) = lower(:name)"
        return self._database.first(User, f"{query} order by username = :name desc, id limit 1", {"name": name})

    def search(self, word: str, page: Page) -> list[User]:
        """Active users whose names contain this text, in any case; oldest first."""
        query = "select * from users where is_active and instr(lower(username), lower(?)) order by id limit ? offset ?"
        return self._database.rows(User, query, (word, page.limit, page.offset))

    def all(self) -> list[User]:
        return self._database.rows(User, "select * from users order by id")

    def check_password(self, username: str, password: str) -> User | None:
        """The user, or None for a wrong name or password. Both take the same time."""
        user = self._database.first(User, "select * from users where username = ? and is_active", (username,))
        try:
            with _verifying:
                _hasher.verify((user and user.password) or _unused_hash(), password)
        except VerificationError:
            return None
        return user if user and user.password else None

    def new_token(self, user: User, run_pk: int | None = None) -> str:
        """A new token of 40 hex digits. Only its hash is stored."""
        token = secrets.token_hex(20)
        with self._database.write() as db:
            if run_pk is not None:
                db.execute("delete from tokens where run_pk = ?", (run_pk,))
            _store_token(db, token, user, run_pk)
        return token

    def save_token(self, user: User, token: str) -> None:
        """Store a token that was read from a file. Idempotent."""
        with self._database.write() as db:
            if db.execute("select 1 from tokens where hash = ?", (hash_of(token),)).fetchone() is None:
                _store_token(db, token, user)

    def by_token(self, token: str, *, is_session: bool = False) -> Credentials | None:
        query = "select u.*, t.hash, t.run_pk, t.created_at as made_at from tokens t join users u on u.id = t.user_id"
        hashed = hash_of(token)
        with self._database.read() as db:
            row = db.execute(f"{query} where t.hash = ? and t.is_session = ?", (hashed, is_session)).fetchone()
        if (
            row is None
            or not hmac.compare_digest(row["hash"], hashed)
            or (is_session and clock.seconds_between(row["made_at"], clock.now()) > SESSION_S)
        ):
            return None
        return Credentials(read_row(User, row), row["run_pk"])

    def new_session(self, user: User) -> str:
        """A new session for a browser's cookie. It opens pages, and is not a token of the API."""
        token = secrets.token_hex(20)
        now = clock.now()
        with self._database.write() as db:
            old = "(julianday(?) - julianday(created_at)) * 86400 > ?"
            db.execute(f"delete from tokens where is_session and {old}", (now, SESSION_S))
            _store_token(db, token, user, is_session=True)
        return token

    def new_page_session(self, session: str, run_pk: int) -> str | None:
        """A new value for the cookie of a server's own origin. It opens this server, as long as the session lasts.

        `session`: the value of the browser's session cookie. Returns None if that session has ended.
        """
        token = secrets.token_hex(20)
        try:
            with self._database.write() as db:
                about = {"session": hash_of(session), "pk": run_pk, "most": _MAX_PAGE_SESSIONS}
                db.execute(
                    "insert into page_sessions (hash, session, run_pk, created_at) values (:hash, :session, :pk, :now)",
                    {**about, "hash": hash_of(token), "now": clock.now()},
                )
                held = "from page_sessions where session = :session and run_pk = :pk"
                newest = f"select rowid {held} order by rowid desc limit :most"
                db.execute(f"delete {held} and rowid not in ({newest})", about)
        except sqlite3.IntegrityError:
            return None
        return token

    def by_page_session(self, token: str, run_pk: int) -> Credentials | None:
        """The user of such a cookie. None: it is invalid, or of another server."""
        query = (
            "select u.*, t.created_at as made_at from page_sessions s join tokens t on t.hash = s.session"
            " join users u on u.id = t.user_id where s.hash = ? and s.run_pk = ? and t.is_session"
        )
        with self._database.read() as db:
            row = db.execute(query, (hash_of(token), run_pk)).fetchone()
        if row is None or clock.seconds_between(row["made_at"], clock.now()) > SESSION_S:
            return None
        return Credentials(read_row(User, row), None)

    def end_session(self, token: str) -> None:
        """End a browser's session, with the cookies of the servers that it opened. Idempotent."""
        self._database.execute("delete from tokens where hash = ? and is_session", (hash_of(token),))

    def revoke(self, user: User) -> int:
        """Revoke all tokens and sessions of a user, except the tokens of runs. Returns their number."""
        return self._database.execute("delete from tokens where user_id = ? and run_pk is null", (user.id,))

    def update(self, user: User, **columns: bool) -> None:
        """Set is_active or is_superuser. Raises InvalidInput for the last active admin."""
        unknown = columns.keys() - {"is_active", "is_superuser"}
        if unknown:
            raise TypeError(f"not to be set: {sorted(unknown)}")
        with self._database.write() as db:
            update(db, "users", columns, id=user.id)
            _check_admins(db)

    def delete(self, user: User) -> None:
        """Delete a user. Raises InvalidInput: they still have projects, or runs in projects of others."""
        held = (
            "select (select count(*) from projects where user_id = :id)"
            " + (select count(*) from runs where user_id = :id)"
            " + (select count(*) from platforms where owner_id = :id and platform_type = 'main')"
            " + (select count(*) from build_lists join repositories t on t.id = save_to_repository_id"
            " join platforms p on p.id = t.platform_id where p.owner_id = :id)"
        )
        with self._database.write() as db:
            if db.execute(held, {"id": user.id}).fetchone()[0]:
                message = f"`{user.username}` has projects or runs: delete these first."
                raise InvalidInput([message])
            db.execute("delete from users where id = ?", (user.id,))
            _check_admins(db)


def _store_token(
    db: sqlite3.Connection, token: str, user: User, run_pk: int | None = None, *, is_session: bool = False
) -> None:
    row = {"hash": hash_of(token), "user_id": user.id, "run_pk": run_pk, "is_session": is_session}
    insert(db, "tokens", row | {"created_at": clock.now()})


def _check_admins(db: sqlite3.Connection) -> None:
    """Raise InvalidInput for the last active admin. In the transaction that would remove the role."""
    if not db.execute("select 1 from users where is_superuser and is_active").fetchone():
        raise InvalidInput(["This is the last active admin: without one, no user could manage the others."])


def personal_platform(username: str) -> str:
    """The name of the personal platform of a user, which a trigger of the database creates."""
    return f"{username}_personal"


def hash_of(token: str) -> str:
    """The digest of a token. A plain one is enough, since tokens are long and random."""
    return hashlib.sha256(token.encode()).hexdigest()


@cache
def _unused_hash() -> str:
    """A hash that no password has. Its verification takes as long as that of a real one."""
    return _hasher.hash(secrets.token_hex(8))
