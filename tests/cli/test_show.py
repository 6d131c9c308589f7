"""How tables look on a screen of 80 columns."""

from __future__ import annotations

import io
import sys

import pytest
import typer

from polylocal.cli import show


def test_a_long_message_takes_nothing_from_the_other_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(show.out, "_width", 80)
    rows = [["job/1", None, "failed", "x" * 200], ["build/12", None, "succeeded", "Completed"]]
    show.table(["RUN", "NAME", "STATUS", "MESSAGE"], rows, empty="", one_line=True)
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["RUN", "STATUS", "MESSAGE"]
    assert first.startswith("job/1     failed     xxx")
    assert first.rstrip().endswith("…")
    assert len(first) <= 80
    assert second.split() == ["build/12", "succeeded", "Completed"]


def test_the_return_key_deletes_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with pytest.raises(typer.Abort):
        show.confirm("Delete it?", abort=True)
    assert "Delete it? [y/N]" in capsys.readouterr().out
