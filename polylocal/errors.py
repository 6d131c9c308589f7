"""All errors that polylocal raises deliberately.

    PolylocalError
    ├── InvalidInput            400  the caller sent invalid input; the error carries all messages at once
    │   └── InvalidPolyaxonfile 400  … in a polyaxonfile; with the line and path of each problem
    ├── NotAuthenticated        401
    ├── NotAllowed              403
    ├── NotFound                404
    ├── EngineError             502  the engine refused a request; the message is the engine's
    │   ├── ImageMissing             … because the image does not exist
    │   └── ContainerMissing         … because the container does not exist
    ├── EngineUnreachable       503  the engine does not answer: wait and try again
    ├── StoreError              503  the database or a log can't be read or written: the disk is full, …
    └── SetupError              500  the machine or the home folder is not ready; the message says what to do

A failure of the user's program (a non-zero exit code, a failed build step) is a value, not an error.
"""

from collections.abc import Mapping, Sequence

Messages = Mapping[str, Sequence[str]] | Sequence[str]


class PolylocalError(Exception):
    """The base class. `http_status` is the status code of the API's response."""

    http_status = 500

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__


class InvalidInput(PolylocalError):
    """`messages` is the body of the response: `{field: [message, …]}`, or a list of messages that concern no field."""

    http_status = 400

    def __init__(self, messages: Messages) -> None:
        self.messages: Messages = messages
        super().__init__(flatten(messages))


class InvalidPolyaxonfile(InvalidInput):
    """`problems` are whole sentences, each with a line number and a path in the file."""

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
    """A package can't be read, or a repository can't be written. The message addresses the packager."""


def flatten(messages: Messages) -> str:
    """All messages in one line: `name: This field is required.; is_public: Must be a valid boolean.`"""
    if isinstance(messages, Mapping):
        return "; ".join(f"{field}: {text}" for field, texts in messages.items() for text in texts)
    return "; ".join(messages)
