"""A command of several lines arrives complete in every style of YAML."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import inputs

from polylocal.polyaxonfile import commands, parse
from polylocal.statuses import Kind

from .shapes import BASH

# the text of the file, and the arguments that a program gets
WORDS = {
    "--step=0.1": "--step=0.1",
    "-b": "-b",
    "rows": "rows",
    "wandb=server": "wandb=server",
    "./path/to": "./path/to",
    "'two  blanks'": "two  blanks",
    '"two  blanks"': "two  blanks",
    "--name='left right'": "--name=left right",
    "a\\ b": "a b",
    "'#'": "#",
    "a#b": "a#b",
    "'a \\ -b'": "a \\ -b",
    '"\\$HOME"': "$HOME",
    "''": "",
    "2": "2",
}
IN = "    "
STYLES = {
    "plain": lambda lines: "  cmd: " + f"\n{IN}".join(lines),
    "plain in a list": lambda lines: "  cmd:\n  - " + f"\n{IN}".join(lines),
    "quoted": lambda lines: "  cmd: '" + f"\n{IN}".join(line.replace("'", "''") for line in lines) + "'",
    "quoted twice": lambda lines: (
        '  cmd: "' + f"\n{IN}".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"'
    ),
    "folded": lambda lines: "  cmd: >\n" + "\n".join(IN + line for line in lines),
    "folded, ends cut": lambda lines: "  cmd: >-\n" + "\n".join(IN + line for line in lines),
    "folded, deeper": lambda lines: (
        "  cmd: >\n" + "\n".join(IN + "  " * (n > 0) + line for n, line in enumerate(lines))
    ),
    "literal": lambda lines: "  cmd: |\n" + "\n".join(IN + "  " * (n > 0) + line for n, line in enumerate(lines)),
}
KEEPS_LINES = ("folded, deeper", "literal")  # need a backslash, since nothing else joins their lines
ENDS = (" \\", "\\", " \\ ", "\\  ", "")


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=inputs(25))
@given(
    lines=st.lists(st.lists(st.sampled_from(sorted(WORDS)), min_size=1, max_size=4), min_size=1, max_size=5),
    end=st.sampled_from(ENDS),
    line_end=st.sampled_from(("\n", "\r\n")),
)
def test_every_argument_arrives(style: str, lines: list[list[str]], end: str, line_end: str) -> None:
    if style in KEEPS_LINES and not end:
        end = ENDS[0]
    written = [["printf", "'%s\\0'"], *lines]
    texts = [" ".join(words) + (end if number < len(written) - 1 else "") for number, words in enumerate(written)]
    text = f"version: 1\nkind: job\nbuild: {{image: base}}\nrun:\n{STYLES[style](texts)}\n"
    cmd = parse(text.replace("\n", line_end), Kind.JOB).command
    assert cmd is not None
    done = subprocess.run(commands.arguments(cmd, BASH), capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split("\0")[:-1] == [WORDS[word] for words in lines for word in words]
