"""Every error that polylocal raises on purpose.

    PolylocalError
    ├── InvalidInput            400  the caller sent something that can't be used; carries all messages at once
    │   └── InvalidPolyaxonfile 400  … a polyaxonfile, with line and path of each problem
    ├── NotAuthenticated        401
    ├── NotAllowed              403
    ├── NotFound                404
    ├── EngineError             502  the engine refused one request; its own words are the message
    │   ├── ImageMissing             … because the image is not there
    │   └── ContainerMissing         … because the container is not there
    ├── EngineUnreachable       503  nobody answers at the engine's address: wait and try again
    ├── StoreError              503  the database or a log can't be read or written: disk full, locked, damaged
    └── SetupError              500  the machine or the home folder is not fit to start; the message says what to do

A user's failure (a non-zero exit, a broken build step) is a value, never one of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Messages = Mapping[str, Sequence[str]] | Sequence[str]


class PolylocalError(Exception):
    """The root: `http_status` says how the API answers it."""

    http_status = 500

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__


class InvalidInput(PolylocalError):
    """`messages` is what the API sends: `{field: [message, …]}`, or a plain list where no field is to blame."""

    http_status = 400

    def __init__(self, messages: Messages) -> None:
        self.messages: Messages = messages
        super().__init__(flatten(messages))


class InvalidPolyaxonfile(InvalidInput):
    """`problems` are whole sentences, each with the line and the path of what is wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__(self.problems)


class NotAuthenticated(PolylocalError):
    http_status = 401


class NotAllowed(PolylocalError):
    http_status = 403

    def __init__(self, message: str = "You do not have permission to perform this action.") -> None:
        super().__init__(message)


class NotFound(PolylocalError):
    http_status = 404

    def __init__(self, message: str = "Not found.") -> None:
        super().__init__(message)


class EngineError(PolylocalError):
    http_status = 502


class ImageMissing(EngineError):
    pass


class ContainerMissing(EngineError):
    pass


class EngineUnreachable(PolylocalError):
    http_status = 503


class StoreError(PolylocalError):
    http_status = 503


class SetupError(PolylocalError):
    pass


class PackageError(PolylocalError):
    """A package can't be read, or a repository can't be written. The message is for the packager."""


def flatten(messages: Messages) -> str:
    """One line for people: `name: This field is required.; is_public: Must be a valid boolean.`"""
    if isinstance(messages, Mapping):
        return "; ".join(f"{field}: {text}" for field, texts in messages.items() for text in texts)
    return "; ".join(messages)
