"""No module outside `polylocal/store` composes SQL."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import polylocal

PACKAGE = Path(polylocal.__file__).parent
SQL = re.compile(
    r"\b(?:select\b.+\bfrom|insert (?:or \w+ )?into|update \w+ set|delete from|order by|group by) "
    r"|\blimit [?:]|\bis (?:not )?null\b|\bjson_each\(|\(\? or |[=<>] ?[?:]\w*$"
    r"|\b\w\.\w+ (?:=|<>|[<>]=?|in|is|like)(?: |$)",
    re.IGNORECASE | re.DOTALL,
)


def texts(source: str) -> Iterator[str]:
    """The string constants of a module, including parts of f-strings, without docstrings."""
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def with_sql() -> dict[str, list[str]]:
    """{module: its texts that look like SQL}"""
    return {
        str(path.relative_to(PACKAGE)): found
        for path in sorted(PACKAGE.rglob("*.py"))
        if (found := [text for text in texts(path.read_text()) if SQL.search(text)])
    }


def test_only_the_store_has_sql() -> None:
    found = with_sql()
    assert {name: texts for name, texts in found.items() if not name.startswith("store/")} == {}
    assert {"store/build_lists.py", "store/runs.py", "store/projects.py", "store/queries.py"} <= found.keys()


def test_parts_of_conditions_are_recognized() -> None:
    for fragment in ("l.status = ?", "(? or j.is_public)", "r.archived_at is null", "r.id = :id", "s.name in (?)"):
        assert SQL.search(fragment), fragment
