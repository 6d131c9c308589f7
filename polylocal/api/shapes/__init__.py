"""Rows as JSON objects. Pure. The documents' keys come first, in the documents' order."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
