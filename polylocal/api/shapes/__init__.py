"""Rows → JSON. Pure. The documents' keys in the documents' order, then the keys of later versions."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
