"""Rows as JSON objects. Pure. The documents' keys come first, in the documents' order."""

from typing import Any

Json = dict[str, Any]
