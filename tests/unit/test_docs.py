"""Tests and pages named in the documentation exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
_TEST = re.compile(r"`(?:tests/)?([\w/]+/test_\w+\.py)(?:::(test_\w+))?`")
_PAGE = re.compile(r"\]\(([\w./-]+\.md)(?:#([\w-]+))?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names(page: Path) -> None:
    for file, name in _TEST.findall(page.read_text()):
        text = (ROOT / "tests" / file).read_text()
        assert not name or re.search(rf"def {name}\(", text), f"{file}::{name}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_every_page_that_a_page_leads_to(page: Path) -> None:
    for name, section in _PAGE.findall(page.read_text()):
        text = (page.parent / name).read_text()
        headings = {re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-") for line in text.splitlines()}
        assert not section or section in headings, f"{name}#{section}"
