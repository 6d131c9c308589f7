"""Converts a `cmd` or a build step of a polyaxonfile to shell code. Pure.

A text without line ends is one command. A text with line ends is a script that stops at its first failure. The items of
a list run one after the other. A reader of the shell's grammar (POSIX.1-2017, Shell Command Language, 2.2 Quoting,
2.3 Token Recognition, 2.7.4 Here-Document) finds continued lines, so quotes, comments and here-documents stay as they
are.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

BASH, SH = "/bin/bash", "/bin/sh"
# bytes of one argument, or of one variable with its name, on Linux (execve(2): MAX_ARG_STRLEN without the final NUL)
MAX_ARGUMENT = 131_071

# the start of a line that continues the line above: no command starts like this
_CONTINUATION = re.compile(r"[ \t]*(?:-|&&|\|)")
_FLAGS = re.compile(r"(?:--[a-z][^\s\\]*(?:[ \t]|\\\n)+)*")  # of RUN: `--mount=type=cache,target=/x`
_BLANKS = " \t"
_WORD_STARTS = frozenset(" \t\n;&|()<>`")
# ends a shell with `-e` if the item above failed: without it, the shell would continue after a failed `a && b`
_END_OF_ITEM = "(exit $?)"


_Edit = tuple[int, int, str]  # start, end, replacement
_SIGNS = re.compile(r"""[\\\n'"`#$(){}<]""")
_OPENINGS = re.compile(r"""\$\(\(|\(\(|\$\(|\(|\$\{|\$'|'|"|`|<<""")
_CLOSINGS = {"$((": "))", "((": "))", "$(": ")", "(": ")", "${": "}", '"': '"', "`": "`"}
_IN_QUOTES = frozenset({"$((", "$(", "${", "`"})
_LITERAL, _ANSI = re.compile(r"[^']*+"), re.compile(r"(?:[^'\\]|\\.)*+", re.DOTALL)
_DELIMITER = re.compile(r"""(?:\\.|'[^'\n]*'|"[^"\n]*"|[^\s;&|()<>'"\\])+""")
_QUOTING = re.compile(r"""\\(.)|['"]""")


@dataclass(frozen=True)
class _Token:
    """A part of a text with a meaning: the characters from `start` up to, but not including, `end`.

    A `newline` ends a command. Line ends in quotes, in here-documents or after a backslash are not tokens.
    """

    kind: Literal["escape", "comment", "newline", "document"]
    start: int
    end: int


def arguments(cmd: str | Sequence[str], shell: str) -> list[str]:
    """The argument list that runs a `cmd`. `shell`: the path of bash, or of another POSIX shell."""
    if isinstance(cmd, str):
        text = add_backslashes(cmd)
        flags = ("-e", "-o", "pipefail") if shell == BASH else ("-e",)
        return [shell, *(flags if "\n" in text else ()), "-c", text]
    return [shell, "-e", "-c", _list(cmd, shell)]


def add_backslashes(text: str) -> str:
    """Return the text with a backslash at the end of each continued line. Lines keep their numbers.

    A line continues the line above if it begins with `-`, `&&`, `||` or `|`, or if the line above ends with a
    backslash, optionally followed by blanks. Comments and empty lines between the two lines are dropped.
    """
    text = text.replace("\r\n", "\n").strip()
    edits: list[_Edit] = []
    # the last line with a command, and the lines below it: end of the code, end of the line
    above: list[tuple[int, int]] = []
    begin, comment, is_joined = 0, -1, False
    for token in _Tokens(text):
        if token.kind == "comment":
            comment = token.start
        elif token.kind == "document":
            above, begin, comment = [], token.end, -1
        elif token.kind == "escape":
            removed = _line_end_edits(text, token)
            edits += removed
            is_joined = is_joined or bool(removed)
        elif is_joined:
            is_joined = False
        else:
            code_end = comment if comment >= 0 else token.start
            if text[begin:code_end].strip():
                above = []
            elif not above:  # there is no command to continue
                begin, comment = token.end, -1
                continue
            above.append((code_end, token.start))
            if _CONTINUATION.match(text, token.end):
                edits += [(code_end, end, " \\") for code_end, end in above]
                above = []
            begin, comment = token.end, -1
    return _apply_edits(text, edits)


def unfold(text: str) -> str:
    """Remove the backslashes that are left in a text after a YAML reader has folded its continued lines.

    These are, outside of quotes, a backslash between blanks, and a backslash before blanks and a `-`.
    """
    if "\\" not in text or "\n" in text.strip():
        return text
    return _apply_edits(
        text, [edit for token in _Tokens(text) if token.kind == "escape" for edit in _leftover_edits(text, token)]
    )


def run_instruction(step: str) -> str:
    """The RUN instruction of a build step.

    A single command, on one or more lines, gets the shell form. A script gets the exec form, the only form that keeps
    line ends for all builders. Flags of RUN, and a step that is only a here-document, stay as they are.
    """
    text = step if _is_one_line(step) else add_backslashes(step)
    flags, script = _split_run(text)
    if _is_one_instruction(text) or script.startswith("<<"):
        return f"RUN {text}"
    return f"RUN {flags}{json.dumps([SH, '-e', '-c', script])}"


def with_preamble(instruction: str, preamble: str) -> str | None:
    """Insert a text before the script of a RUN instruction of `run_instruction`. None: it is not in the exec form."""
    flags, form = _split_run(instruction.removeprefix("RUN "))
    try:
        argv = json.loads(form)
    except ValueError:
        return None
    if not isinstance(argv, list) or argv[:3] != [SH, "-e", "-c"] or len(argv) != 4 or not isinstance(argv[3], str):
        return None
    return f"RUN {flags}{json.dumps([*argv[:3], preamble + argv[3]])}"


def _split_run(text: str) -> tuple[str, str]:
    """Split the arguments of RUN into its flags, each with a blank after it, and the rest."""
    found = _FLAGS.match(text)
    end = found.end() if found else 0
    return "".join(f"{flag} " for flag in text[:end].replace("\\\n", " ").split()), text[end:]


def _is_one_line(text: str) -> bool:
    return "\n" not in text and not text.rstrip(_BLANKS).endswith("\\")


def _is_one_instruction(text: str) -> bool:
    """Whether a Dockerfile parser reads the text as one command: each line except the last ends with a backslash.

    The parser skips comments and empty lines after a backslash. In a shell, they end the command.
    """
    first, *below = text.split("\n")
    *between, last = (line for line in (first, *below) if line is first or not _is_skipped(line))
    ends = sum(token.kind == "escape" and text[token.end - 1] == "\n" for token in _Tokens(text))
    is_whole = not below or not _is_skipped(below[-1])
    return is_whole and ends == len(between) and all(line.endswith("\\") for line in between)


def _is_skipped(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _list(items: Sequence[str], shell: str) -> str:
    """Join the items of a list into one script. `pipefail` is on only for items that are scripts themselves."""
    parts, fails_with_pipe = list[str](), False
    for item in items:
        text = add_backslashes(item)
        if shell == BASH and ("\n" in text) != fails_with_pipe:
            fails_with_pipe = not fails_with_pipe
            text = f"set {'-' if fails_with_pipe else '+'}o pipefail\n{text}"
        parts.append(text)
    return f"\n{_END_OF_ITEM}\n".join(parts)


def _line_end_edits(text: str, token: _Token) -> list[_Edit]:
    """The edit that removes blanks after a backslash at the end of a line, or a backslash at the end of the text."""
    rest = _blanks_end(text, token.start + 1)
    if rest == len(text):
        return [(token.start, rest, "")]
    return [(token.start + 1, rest, "")] if text[rest] == "\n" and rest > token.start + 1 else []


def _leftover_edits(text: str, token: _Token) -> list[_Edit]:
    begin, rest = token.start, _blanks_end(text, token.start + 1)
    is_alone = begin > 0 and text[begin - 1] in _BLANKS
    if rest == begin + 1 or not (is_alone or text.startswith("-", rest)):
        return []
    while begin and text[begin - 1] in _BLANKS:
        begin -= 1
    return [(begin, rest, " ")]


def _blanks_end(text: str, place: int) -> int:
    while place < len(text) and text[place] in _BLANKS:
        place += 1
    return place


def _apply_edits(text: str, edits: Sequence[_Edit]) -> str:
    """Apply edits to a text. If two edits overlap, only the first in the text applies."""
    made, place = list[str](), 0
    for start, end, instead in sorted(edits):
        if start >= place:
            made += [text[place:start], instead]
            place = end
    return "".join([*made, text[place:]])


@dataclass
class _Document:
    """A here-document whose text begins after the current line."""

    delimiter: str
    strips_tabs: bool


class _Tokens:
    """Splits a text into tokens as a shell does, with regard to quotes, comments and line ends. Takes linear time."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self._inside: list[str] = []  # the closing signs of the open constructs, the innermost last
        self._open = Counter[str]()  # the number of each sign in `_inside`
        self._documents: list[_Document] = []

    def __iter__(self) -> Iterator[_Token]:
        text = self._text
        while found := _SIGNS.search(text, self._place):
            start, sign = found.start(), found[0]
            self._place = start + 1
            inner = self._inside[-1] if self._inside else ""
            if sign == "\\":
                self._place = min(start + 2, len(text))
                if not self._open['"']:
                    yield _Token("escape", start, self._place)
            elif inner and text.startswith(inner, start):
                self._close(inner, start)
            elif sign == "\n":
                if self._documents:
                    self._skip_documents()
                    yield _Token("document", start, self._place)
                elif not self._open['"']:
                    yield _Token("newline", start, self._place)
            elif sign == "#":
                if inner not in ("}", '"') and self._begins_word(start):
                    self._place = self._end_of_line(start)
                    if not self._open['"']:
                        yield _Token("comment", start, self._place)
            else:
                self._enter(start, inner)

    def _begins_word(self, place: int) -> bool:
        return not self._open["))"] and (place == 0 or self._text[place - 1] in _WORD_STARTS)

    def _end_of_line(self, place: int) -> int:
        end = self._text.find("\n", place)
        return len(self._text) if end < 0 else end

    def _close(self, inner: str, place: int) -> None:
        self._inside.pop()
        self._open[inner] -= 1
        self._place = place + len(inner)

    def _enter(self, place: int, inner: str) -> None:
        """Skip a sign that can open a construct, and open the construct if the current one allows it."""
        opened = _OPENINGS.match(self._text, place)
        sign = opened[0] if opened else ""
        if (inner == '"' and sign not in _IN_QUOTES) or (inner == "}" and sign in ("(", "((", "<<", "")):
            return
        if sign == "((" and not self._begins_word(place):
            sign = "("
        self._place = place + max(1, len(sign))
        if sign in ("'", "$'"):
            literal = (_ANSI if sign == "$'" else _LITERAL).match(self._text, self._place)
            self._place = (literal.end() if literal else self._place) + 1
        elif sign == "<<":
            if not self._open["))"]:
                self._read_document_start()
        elif sign:
            self._inside.append(_CLOSINGS[sign])
            self._open[_CLOSINGS[sign]] += 1

    def _read_document_start(self) -> None:
        """Read the start of a here-document: `<<word` or `<<-word`. `<<<` is a here-string."""
        text = self._text
        if text.startswith("<", self._place):
            self._place += 1
            return
        strips_tabs = text.startswith("-", self._place)
        self._place = _blanks_end(text, self._place + strips_tabs)
        if word := _DELIMITER.match(text, self._place):
            self._place = word.end()
            self._documents.append(_Document(_QUOTING.sub(r"\1", word[0]), strips_tabs))

    def _skip_documents(self) -> None:
        for document in self._documents:
            while self._place < len(self._text):
                end = self._end_of_line(self._place)
                line = self._text[self._place : end]
                self._place = min(end + 1, len(self._text))
                if (line.lstrip("\t") if document.strips_tabs else line) == document.delimiter:
                    break
        self._documents = []
