"""Parses a Dockerfile into its instructions, as the builders do. Pure.

The builders use moby/buildkit's `frontend/dockerfile/parser` and `frontend/dockerfile/shell`. Versions differ in two
points: older ones know no here-documents, and they continue a line that ends in a doubled escape character. `read`
returns every reading that some builder accepts, so that no image can hide in one of them.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# the spaces of Go's unicode.IsSpace; Python's own list is longer
_SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
# the parser reads flags byte by byte, so that some bytes of non-ASCII letters count as spaces
_BYTE_SPACES = "\t\n\v\f\r \x85\xa0"
UNKNOWN = "\0"  # replaces a value that is unknown before the build
_BETWEEN = re.compile(r"[\t\v\f\r ]+")
# bounds on the time and memory that a text can cost
MAX_TEXT = 1 << 18  # characters
MAX_INSTRUCTIONS = 2000
_MAX_VALUE = 1 << 16  # characters; the kernel allows twice that for a variable
_MAX_DEPTH = 20  # nested substitutions
_KEYWORDS = frozenset(
    "add arg cmd copy entrypoint env expose from healthcheck label maintainer onbuild run shell stopsignal user"
    " volume workdir".split()
)
_TAKES_DOCUMENTS = frozenset(("add", "copy", "run"))
_DOCUMENT = re.compile(r"\d*<<(-?)([^<]*)")
_DELIMITER = re.compile(r"[\w.+-]+")
_DIRECTIVE = re.compile(r"#[\t\v\f\r ]*([a-zA-Z][a-zA-Z0-9]*)[\t\v\f\r ]*=[\t\v\f\r ]*(.+)")
_JSON_SYNTAX = re.compile(r'"syntax"\s*:\s*"([^"]*)"', re.IGNORECASE)
_SIMPLE_NAME = re.compile(r"[A-Za-z_]\w*|[0-9]+|[@*#?$!0-]", re.ASCII)


class Unreadable(ValueError):
    """The text is wrong or ambiguous. The message is a sentence with the line."""


class Excessive(Unreadable):
    """A value exceeds the bounds on memory."""


@dataclass(frozen=True)
class Instruction:
    """An instruction on the lines `first` to `last`, counted from 0. `text` is the whole of it on one line."""

    first: int
    last: int
    text: str
    body_end: int  # the last line of its here-documents; `last` without any

    @property
    def keyword(self) -> str:
        return _lower(_split_keyword(self.text)[0])

    @property
    def flags(self) -> list[str]:
        """`--name=value`, without quotes and escapes."""
        return split_flags(_split_keyword(self.text)[1])[0]

    @property
    def rest(self) -> str:
        """The text after the flags."""
        return split_flags(_split_keyword(self.text)[1])[1].strip(_SPACES)

    @property
    def before_rest(self) -> str:
        """The text before `rest`."""
        text = self.text.rstrip(_SPACES)
        return text[: len(text) - len(self.rest)]

    @property
    def words(self) -> list[str]:
        """The words of `rest`."""
        return [word for word in _BETWEEN.split(self.rest) if word]

    @property
    def trigger(self) -> Instruction | None:
        """The instruction after ONBUILD; None: this is another instruction."""
        if self.keyword != "onbuild":
            return None
        return Instruction(self.first, self.last, _split_keyword(self.text)[1].strip(_SPACES), self.body_end)


@dataclass(frozen=True)
class Reading:
    instructions: Sequence[Instruction]
    escape: str

    @property
    def is_possible(self) -> bool:
        return all(each.keyword in _KEYWORDS for each in self.instructions)


def read(text: str) -> list[Reading]:
    """The possible readings, that of current builders first. Raises Unreadable."""
    if len(text) > MAX_TEXT:
        raise Unreadable(f"it has more than {MAX_TEXT >> 10} thousand characters")
    lines = text.removeprefix("\ufeff").split("\n")
    variants = itertools.product(_escapes(lines), (True, False), (True, False))
    readings = [Reading(_instructions(lines, *variant), variant[0]) for variant in variants]
    possible = [reading for reading in readings if reading.is_possible]
    found: list[Reading] = []
    for reading in possible or readings[:1]:
        if reading not in found:
            found.append(reading)
    return found


def parse_trigger(text: str) -> list[Instruction]:
    """The instruction of an image's trigger, in each reading. Builders parse it as a Dockerfile. Raises Unreadable."""
    readings = [reading.instructions for reading in read(text)]
    if any(len(found) != 1 for found in readings):
        raise Unreadable(f"the base image has a trigger that is not one instruction: {text[:100]!r}")
    return [found for reading in readings for found in reading]


def syntaxes(text: str) -> list[str]:
    """The images of frontends that the text names, by `# syntax=` and the other forms that BuildKit accepts."""
    found: list[str] = []
    for line in text.removeprefix("\ufeff").split("\n"):
        plain = line.strip(_SPACES)
        if plain.startswith("{"):
            return [*found, *_JSON_SYNTAX.findall(text)]
        if plain.startswith("//"):
            plain = f"#{plain[2:]}"
        if plain and not plain.startswith("#"):
            break
        if (match := _DIRECTIVE.fullmatch(plain)) and match[1].lower() == "syntax":
            found.append(match[2].strip(_SPACES))
    return found


def expand(word: str, values: Mapping[str, str], escape: str = "\\", depth: int = 0) -> str:
    """The word with its variables expanded and its quotes removed. An UNKNOWN value stays in the result.

    `depth`: the number of substitutions around it. Raises Unreadable: only some builders know a substitution, or a
    value is too large.
    """
    if depth > _MAX_DEPTH:
        raise Excessive(f"`{word[:100]}` has too many substitutions inside each other")
    out, index, quote = "", 0, ""
    while index < len(word):
        if len(out) > _MAX_VALUE:
            raise Excessive(f"`{word[:100]}` results in more than {_MAX_VALUE >> 10} thousand characters")
        char = word[index]
        if quote == "'":
            quote, index = ("", index + 1) if char == "'" else (quote, index + 1)
            out += "" if char == "'" else char
        elif char == escape and index + 1 < len(word):
            following = word[index + 1]
            out += following if not quote or following in ('"', "$", escape) else char + following
            index += 2
        elif char == '"' or (char == "'" and not quote):
            quote = "" if quote else char
            index += 1
        elif char == "$":
            value, index = _expand_variable(word, index, values, escape, depth)
            out += value
        else:
            out += char
            index += 1
    if quote:
        raise Unreadable(f"`{word}` has a quote without an end")
    return out


def assignments(rest: str, escape: str) -> list[tuple[str, str | None]]:
    """The names and the unexpanded values of an ARG or ENV; None: a name has no value."""
    found = []
    for word in _split_words(rest, escape):
        name, equals, value = word.partition("=")
        found.append((name, value if equals else None))
    return found


def sources(instruction: Instruction) -> list[str]:
    """The sources of an ADD or COPY."""
    return (_parse_json_list(instruction.rest) or instruction.words)[:-1]


def split_flags(line: str) -> tuple[list[str], str]:
    """The flags at the start of a line, and the rest, as `extractBuilderFlags` of the parser splits it: by bytes.

    Raises Unreadable.
    """
    letters = line.encode("utf-8", "surrogatepass").decode("latin-1")
    flags, end = _parse_flags(letters)
    try:
        return flags, letters[end:].encode("latin-1").decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        message = f"`{line[:100]}` has a letter that the builder splits in two; write its flags in ASCII"
        raise Unreadable(message) from error


def _instructions(lines: Sequence[str], escape: str, documents: bool, doubled: bool) -> list[Instruction]:
    found: list[Instruction] = []
    number = 0
    while number < len(lines):
        first = number
        line = _strip_cr(lines[number]).lstrip(_SPACES)
        line, goes_on = _strip_continuation("" if line.startswith("#") else line, escape, doubled)
        number += 1
        if not goes_on and not line:
            continue
        while goes_on and number < len(lines):
            following = _strip_cr(lines[number])
            number += 1
            if following.lstrip(_SPACES).startswith("#") or not following.strip(_SPACES):
                continue
            more, goes_on = _strip_continuation(following, escape, doubled)
            line += more
        last = number - 1
        if not line.strip(_SPACES):
            continue
        if documents:
            for delimiter, is_indented in _here_documents(line, first):
                number = _skip_document(lines, number, delimiter, is_indented)
        found.append(Instruction(first, last, line, number - 1))
        if len(found) > MAX_INSTRUCTIONS:
            raise Unreadable(f"it has more than {MAX_INSTRUCTIONS} instructions")
    return found


def _strip_cr(line: str) -> str:
    return line.removesuffix("\r")


def _strip_continuation(line: str, escape: str, doubled: bool) -> tuple[str, bool]:
    """The line without its last escape character, and whether the next line continues it.

    `doubled`: two escape characters do not continue a line.
    """
    bare = line.rstrip(" \t")
    if not bare.endswith(escape) or (doubled and bare.endswith(escape * 2)):
        return line, False
    return bare[:-1], True


def _here_documents(line: str, number: int) -> list[tuple[str, bool]]:
    """The delimiters of the here-documents of an instruction, each with whether tabs before it are ignored.

    Raises Unreadable.
    """
    keyword, rest = _split_keyword(line)
    if _lower(keyword) == "onbuild":
        keyword, rest = _split_keyword(rest.strip(_SPACES))
    if _lower(keyword) not in _TAKES_DOCUMENTS or _parse_json_list(split_flags(rest)[1].strip(_SPACES)) is not None:
        return []
    found = []
    for word in _split_words(line, "\\") if "<<" in line else ():
        match = _DOCUMENT.fullmatch(word)
        if not match or not match[2]:
            continue
        delimiter = match[2]
        if len(delimiter) > 2 and delimiter[0] == delimiter[-1] and delimiter[0] in "\"'":
            delimiter = delimiter[1:-1]
        if not _DELIMITER.fullmatch(delimiter):
            raise Unreadable(f"line {number + 1}: a here-document needs a plain word as its end, not `{match[2]}`")
        found.append((delimiter, bool(match[1])))
    return found


def _skip_document(lines: Sequence[str], number: int, delimiter: str, is_indented: bool) -> int:
    while number < len(lines):
        line = _strip_cr(lines[number])
        number += 1
        if (line.lstrip("\t") if is_indented else line) == delimiter:
            break
    return number


def _escapes(lines: Sequence[str]) -> list[str]:
    """The escape character; two where it depends on the builder."""
    for number, line in enumerate(lines):
        plain = _strip_cr(line).lstrip(_SPACES)
        if not plain.startswith("#"):
            break
        match = _DIRECTIVE.fullmatch(plain)
        if not match:
            break
        if match[1].lower() == "escape":
            wanted = match[2][:1]
            return [wanted] if wanted == "\\" or number == 0 else [wanted, "\\"]
    return ["\\"]


def _lower(word: str) -> str:
    """Lowers the case as Go does: two non-ASCII letters become ASCII letters."""
    return word.translate({0x130: "i", 0x212A: "k"}).lower()


def _split_keyword(text: str) -> tuple[str, str]:
    parts = _BETWEEN.split(text.strip(_SPACES), maxsplit=1)
    return parts[0], parts[1] if len(parts) > 1 else ""


def _parse_json_list(text: str) -> list[str] | None:
    """The words of a JSON list; None: the text is not a list. Like the parser, it ignores the text after the list."""
    try:
        found = json.JSONDecoder().raw_decode(text)[0] if text.startswith("[") else None
    except (ValueError, RecursionError):
        return None
    is_list = isinstance(found, list) and all(isinstance(word, str) for word in found)
    return found if is_list else None


def _parse_flags(line: str) -> tuple[list[str], int]:
    flags: list[str] = []
    index = 0
    while index < len(line):
        if line[index] in _BYTE_SPACES:
            index += 1
            continue
        if not line.startswith("--", index):
            return flags, index
        word, index = _parse_flag(line, index)
        if word == "--":
            return flags, index
        flags.append(word)
    return flags, index


def _parse_flag(line: str, index: int) -> tuple[str, int]:
    word, quote = "", ""
    while index < len(line):
        char = line[index]
        if not quote and char in _BYTE_SPACES:
            break
        index += 1
        if char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        elif char == "\\":
            word += line[index : index + 1]
            index += 1
        else:
            word += char
    return word, index


def _split_words(text: str, escape: str) -> list[str]:
    """The words, split at unquoted spaces, with their quotes and escapes. Empty: a quote is not closed."""
    words, word, quote, index = [], "", "", 0
    while index < len(text):
        char = text[index]
        if char == escape and quote != "'":
            word += text[index : index + 2]
            index += 2
            continue
        index += 1
        if not quote and char in _SPACES:
            if word:
                words.append(word)
            word = ""
            continue
        if char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        word += char
    return [] if quote else [*words, *([word] if word else [])]


def _expand_variable(word: str, index: int, values: Mapping[str, str], escape: str, depth: int) -> tuple[str, int]:
    """The value of `$…` at `index`, and the index after it. Raises Unreadable."""
    if not word.startswith("${", index):
        match = _SIMPLE_NAME.match(word, index + 1)
        return (values.get(match[0], ""), match.end()) if match else ("$", index + 1)
    end = _find_closing(word, index + 2, escape)
    inner = word[index + 2 : end]
    match = _SIMPLE_NAME.match(inner)
    if not match:
        raise Unreadable(f"`{word}` has a substitution that can't be read")
    value, modifier = values.get(match[0]), inner[match.end() :]
    if not modifier:
        return value or "", end + 1
    if value and UNKNOWN in value:
        return UNKNOWN, end + 1
    is_strict = modifier[0] == ":"
    operator, default = modifier[is_strict : is_strict + 1], modifier[is_strict + 1 :]
    if operator not in ("-", "+", "?"):
        raise Unreadable(f"`{word}` has a substitution that not every builder knows; use `:-` or `:+`")
    is_set = bool(value) if is_strict else value is not None
    if operator == "+":
        return expand(default, values, escape, depth + 1) if is_set else "", end + 1
    if operator == "-" and not is_set:
        return expand(default, values, escape, depth + 1), end + 1
    return value or "", end + 1


def _find_closing(word: str, index: int, escape: str) -> int:
    depth, quote = 1, ""
    while index < len(word):
        char = word[index]
        if char == escape and quote != "'":
            index += 2
            continue
        if char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        elif not quote and word.startswith("${", index):
            depth += 1
        elif not quote and char == "}":
            depth -= 1
            if not depth:
                return index
        index += 1
    raise Unreadable(f"`{word}` has a substitution without an end")
