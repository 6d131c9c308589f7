"""Tables and fields on a screen of 80 columns: truncation and folding."""

from __future__ import annotations

import io
import sys

import pytest
import typer

from polylocal.cli import console


def test_a_long_message_takes_nothing_from_the_other_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console.out, "_width", 80)
    rows = [["job/1", None, "failed", "x" * 200], ["build/12", None, "succeeded", "Completed"]]
    console.table(["RUN", "NAME", "STATUS", "MESSAGE"], rows, empty="", one_line=True)
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["RUN", "STATUS", "MESSAGE"]
    assert first.startswith("job/1     failed     xxx")
    assert first.rstrip().endswith("…")
    assert len(first) <= 80
    assert second.split() == ["build/12", "succeeded", "Completed"]


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_the_name_of_a_run_is_never_cut(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`experiment/12` without its last character is another run."""
    monkeypatch.setattr(console.out, "_width", width)
    columns = ["RUN", "NAME", "STATUS", "CREATED", "TOOK", "MESSAGE"]
    long_words = ["train-the-whole-network-on-all-of-it", "upstream_failed", "2026-11-29", "1 min 05 s", "x" * 200]
    rows = [["experiment/123456", *long_words], ["job/1", *long_words]]
    console.table(columns, rows, empty="", one_line=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["RUN", "experiment/123456", "job/1"]
    assert max(map(len, lines)) <= width
    if width >= 80:
        assert all("2026-11-29" in line and "1 min 05 s" in line and line.count("…") >= 2 for line in lines[1:])


PATH = "/".join(["http://127.0.0.1:8000", "x" * 40, "y" * 40])
SENTENCE = " ".join(["word"] * 30)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_an_address_among_the_fields_of_a_thing_is_never_folded(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folded address can't be copied. On a screen, sentences are folded."""
    monkeypatch.setattr(console.out, "_width", 80)
    monkeypatch.setattr(console.out, "_force_terminal", is_terminal)
    monkeypatch.setattr(console.out, "_color_system", None)
    console.fields(
        [("at", PATH), ("none", None), ("message", SENTENCE), ("lines", console.text("a\n\nb", has_lines=True))]
    )
    first, *folded, second, empty, third = capsys.readouterr().out.splitlines()
    assert first == f"at       {PATH}"
    assert ([second, empty.strip(), third]) == ["lines    a", "", "         b"]
    assert max(map(len, folded)) <= (80 if is_terminal else 200)
    assert len(folded) == (3 if is_terminal else 1)
    assert " ".join(line[9:].rstrip() for line in folded) == SENTENCE
    assert [line[:9] for line in folded] == ["message  ", *[" " * 9] * (len(folded) - 1)]


def test_the_return_key_deletes_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with pytest.raises(typer.Abort):
        console.confirm("Delete it?", abort=True)
    assert "Delete it? [y/N]" in capsys.readouterr().out
