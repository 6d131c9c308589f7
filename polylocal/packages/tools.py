"""The error of whatever reads packages or writes repositories."""

from __future__ import annotations

from polylocal.errors import PolylocalError


class ToolError(PolylocalError):
    """A package, a key or a repository is not as it must be; the message says what is wrong."""
