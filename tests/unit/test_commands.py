"""Commands as shells run them, with the real bash and the real sh of this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from polylocal.polyaxonfile import commands
from polylocal.polyaxonfile.commands import BASH, SH, add_backslashes, arguments, run_instruction, unfold

SHOW = "printf '[%s]'"
A_AND_B = '["/bin/sh", "-e", "-c", "a\\nb"]'


def ran(cmd: str | list[str], shell: str, folder: Path) -> tuple[int, str]:
    done = subprocess.run(arguments(cmd, shell), capture_output=True, text=True, cwd=folder, timeout=30, check=False)
    return done.returncode, done.stdout


SAME = [
    pytest.param("# step 1\nexit 7\n", 7, "", id="a comment ends with its line"),
    pytest.param(["echo a # note", "exit 5"], 5, "a\n", id="a comment ends with its item"),
    pytest.param("echo a\necho b\n", 0, "a\nb\n", id="lines are commands"),
    pytest.param("echo a; false; echo b", 0, "a\nb\n", id="one line is one command"),
    pytest.param("false\necho no", 1, "", id="a script ends at its first failure"),
    pytest.param("(exit 9)\necho no", 9, "", id="with its exit code"),
    pytest.param("if false; then echo no; fi\necho b", 0, "b\n", id="a condition is no failure"),
    pytest.param(f"{SHOW} t.py\n  --lr=1\n  -b 2\n", 0, "[t.py][--lr=1][-b][2]", id="options on lines of their own"),
    pytest.param(f"{SHOW} a \\\n  b \\\n\tc", 0, "[a][b][c]", id="lines behind a backslash"),
    pytest.param(f"{SHOW} a \\  \n  b", 0, "[a][b]", id="a backslash with blanks behind it"),
    pytest.param(f"{SHOW} a\\\n  --b", 0, "[a][--b]", id="a backslash without a blank before it"),
    pytest.param(f"{SHOW} a\n\n  # the rate\n  --lr=1", 0, "[a][--lr=1]", id="an option behind a comment"),
    pytest.param(f"{SHOW} a  # note\n  --lr=1", 0, "[a][--lr=1]", id="an option behind a note"),
    pytest.param(f"{SHOW} a \\\n  # --old \\\n  --new", 0, "[a][--new]", id="an option that was taken out"),
    pytest.param("echo a # b \\\nexit 7", 7, "a\n", id="a backslash in a comment continues nothing"),
    pytest.param("false\n|| echo b\n&& echo c", 0, "b\nc\n", id="operators at the beginning of a line"),
    pytest.param("echo abc\n| tr b x", 0, "axc\n", id="a pipe at the beginning of a line"),
    pytest.param(f"{SHOW} 'a  b' \"c   d\"", 0, "[a  b][c   d]", id="blanks in quotes"),
    pytest.param(f"{SHOW} 'a\n  - b\n  || c'", 0, "[a\n  - b\n  || c]", id="lines in quotes"),
    pytest.param(f'{SHOW} "a\n  - b\n # c"', 0, "[a\n  - b\n # c]", id="lines in double quotes"),
    pytest.param("cat <<EOF\n- a\n  -b\n| c\n\nEOF\necho z", 0, "- a\n  -b\n| c\n\nz\n", id="a here-document"),
    pytest.param("cat <<-'E F'\n\t- $HOME\n\tE F\necho z", 0, "- $HOME\nz\n", id="a here-document with tabs"),
    pytest.param("cat <<A; cat <<B\n-a\nA\n-b\nB\necho z", 0, "-a\n-b\nz\n", id="two here-documents"),
    pytest.param("echo $((1 << 2))\necho b", 0, "4\nb\n", id="a shift is no here-document"),
    pytest.param("for i in 1 2\ndo\n  echo $i\ndone", 0, "1\n2\n", id="a loop over lines"),
    pytest.param(["for i in 1 2; do", "echo $i", "done"], 0, "1\n2\n", id="a loop over items"),
    pytest.param("case -a in\n  -a) echo A;;\n  *) echo other;;\nesac", 0, "A\n", id="cases"),
    pytest.param("f() {\n  echo $#\n}\nf a b", 0, "2\n", id="a function"),
    pytest.param("x=abc\necho ${#x}\necho ${x#a} # b\nexit 3", 3, "3\nbc\n", id="signs that begin no comment"),
    pytest.param("echo a#b\nexit 4", 4, "a#b\n", id="a sign in a word"),
    pytest.param("echo $(echo a\n  echo b)", 0, "a b\n", id="a substitution over lines"),
    pytest.param("echo \"it is $(echo 'a  b')\"\nexit 2", 2, "it is a  b\n", id="quotes in a substitution in quotes"),
    pytest.param("echo it\\'s\nexit 6", 6, "it's\n", id="an escaped quote"),
    pytest.param("echo a\r\necho b\r\n", 0, "a\nb\n", id="line ends of Windows"),
    pytest.param(["test -f /no-such-file && echo a", "echo no"], 1, "", id="an item that fails before its end"),
    pytest.param(["false; echo no", "echo no"], 1, "", id="an item ends at its first failure"),
    pytest.param(["cd /", "pwd"], 0, "/\n", id="items share their shell"),
    pytest.param(["A=1", "echo $A # b", "(exit 8)"], 8, "1\n", id="the last item gives the exit code"),
    pytest.param(["false | cat", "echo b"], 0, "b\n", id="a pipe in an item fails with its last part"),
    pytest.param(["echo a \\", "echo b"], 0, "a\nb\n", id="a backslash at the end of an item"),
    pytest.param(["echo a", "echo b\n  -n c"], 0, "a\nb -n c\n", id="an item over lines"),
    pytest.param("echo a \\", 0, "a\n", id="a backslash at the end"),
    pytest.param("  echo 'a' \n\n", 0, "a\n", id="blanks around"),
    pytest.param(r"echo a\ b \$HOME", 0, "a b $HOME\n", id="escapes"),
]


@pytest.mark.parametrize("shell", [BASH, SH])
@pytest.mark.parametrize(("cmd", "code", "output"), SAME)
def test_a_shell_runs_what_was_written(
    shell: str, cmd: str | list[str], code: int, output: str, tmp_path: Path
) -> None:
    assert ran(cmd, shell, tmp_path) == (code, output)


@pytest.mark.parametrize(
    ("cmd", "code", "output"),
    [
        ("false | cat\necho no", 1, ""),
        ("false | cat", 0, ""),
        (["false | cat\n", "echo b"], 0, "b\n"),
        (["echo a\nfalse | cat", "echo no"], 1, "a\n"),
        (["echo a\necho b", "false | cat", "echo c"], 0, "a\nb\nc\n"),
        ("ARGS=(\n  --a\n  'b  c'\n)\nprintf '[%s]' \"${ARGS[@]}\"", 0, "[--a][b  c]"),
        ("echo $'it\\'s # no'\nexit 3", 3, "it's # no\n"),
        ("cat <<< 'a\n- b'\nexit 3", 3, "a\n- b\n"),
        ("(( 1 << 2 ))\necho b", 0, "b\n"),
    ],
)
def test_bash_runs_what_was_written(cmd: str | list[str], code: int, output: str, tmp_path: Path) -> None:
    assert ran(cmd, BASH, tmp_path) == (code, output)


def test_lines_keep_their_numbers(tmp_path: Path) -> None:
    """An error message of the shell contains the line number of the user's text."""
    cmd = "echo a\n  # note\n  -n\n\nno-such-program"
    done = subprocess.run(arguments(cmd, BASH), capture_output=True, text=True, cwd=tmp_path, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (127, "a -n\n")
    assert "line 5: no-such-program" in done.stderr


def test_a_single_command_is_handed_over_as_it_is() -> None:
    assert arguments("python3  t.py --a='b  c'", BASH) == [BASH, "-c", "python3  t.py --a='b  c'"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r"prog --a=1\ --b=2\ --c=3", "prog --a=1 --b=2 --c=3"),
        (r"prog \ --a \ b", "prog --a b"),
        (r"prog \   --a", "prog --a"),
        (r"cat My\ File", r"cat My\ File"),
        (r"echo 'a \ b' \ c", "echo 'a \\ b' c"),
        (r'echo "a\ -b" \ c', 'echo "a\\ -b" c'),
        (r"find . -exec rm {} \;", r"find . -exec rm {} \;"),
        (r"echo a\\ -b", r"echo a\\ -b"),
        ("echo a \\ b\necho c", "echo a \\ b\necho c"),
    ],
)
def test_backslashes_that_a_reader_left_are_taken_out(text: str, wanted: str) -> None:
    assert unfold(text) == wanted


@pytest.mark.parametrize(
    ("step", "instruction"),
    [
        ("pip install -r requirements.txt", "RUN pip install -r requirements.txt"),
        ("  a   b ", "RUN   a   b "),
        ("a && \\\n  b", "RUN a && \\\n  b"),
        ("pip install\n  -r a.txt\n  --no-cache-dir\n", "RUN pip install \\\n  -r a.txt \\\n  --no-cache-dir"),
        ("a \\", "RUN a "),
        ("a\nb", 'RUN ["/bin/sh", "-e", "-c", "a\\nb"]'),
        ('cat <<E > /x\n- "a"\nE', 'RUN ["/bin/sh", "-e", "-c", "cat <<E > /x\\n- \\"a\\"\\nE"]'),
        ("echo 'a\\\nb'", 'RUN ["/bin/sh", "-e", "-c", "echo \'a\\\\\\nb\'"]'),
        ("a # b \\\nc", 'RUN ["/bin/sh", "-e", "-c", "a # b \\\\\\nc"]'),
        # comments and empty lines after a backslash, as in Dockerfiles
        ("apt-get install \\\n  # it's for plots\n\n  git \\\n  vim\n", None),
        ("a \\\n  # b", 'RUN ["/bin/sh", "-e", "-c", "a \\\\\\n  # b"]'),  # else it swallows the next instruction
        ("a \\\n  b\n# c\nd", 'RUN ["/bin/sh", "-e", "-c", "a \\\\\\n  b\\n# c\\nd"]'),
        ("<<EOF\na\nb\nEOF", None),  # the builder's own syntax, which a shell would ignore
        ("--mount=type=cache,target=/x \\\n  pip install a\n", None),
        (
            "--mount=type=cache,target=/x --network=none a\nb",
            f"RUN --mount=type=cache,target=/x --network=none {A_AND_B}",
        ),
        ("--mount=type=cache,target=/x \\\n  a\nb", f"RUN --mount=type=cache,target=/x {A_AND_B}"),
        ("# a \\\nb", 'RUN ["/bin/sh", "-e", "-c", "# a \\\\\\nb"]'),
    ],
)
def test_a_build_step_is_one_instruction(step: str, instruction: str | None) -> None:
    assert run_instruction(step) == (instruction or f"RUN {step.strip()}")


def test_a_preamble_goes_into_scripts_alone() -> None:
    flagged = run_instruction("--network=none a\nb")
    assert commands.with_preamble(flagged, "x; ") == 'RUN --network=none ["/bin/sh", "-e", "-c", "x; a\\nb"]'
    assert commands.with_preamble(run_instruction("a\nb"), "x; ") == 'RUN ["/bin/sh", "-e", "-c", "x; a\\nb"]'
    for other in ("RUN a", 'RUN ["a"]', 'RUN ["/bin/sh", "-c", "a"]', "RUN [ -f x ]"):
        assert commands.with_preamble(other, "x; ") is None


@pytest.mark.parametrize(
    "piece",
    ["\\ -", "(", '"$(', "<<a\n", "#\n", "a\n-b\n", "${", "((", "'", "`", "\\\n", "\\ \n", "\n", "$'\\'", "<<-'"],
)
def test_no_text_takes_long(piece: str) -> None:
    """Twice the text takes about twice the time. A much larger factor means quadratic time."""
    text = piece * (100_000 // len(piece))
    add_backslashes(text), unfold(text), run_instruction(text)  # otherwise the time limit of each test ends it
