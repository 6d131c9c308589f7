"""Makes untrusted text safe for terminals: control and invisible characters are escaped. Pure.

Names, messages and errors come from other users, from programs in containers and from the engine. Some characters could
control a terminal or disguise text. They are escaped, not removed, so that readers see them: ESC becomes `\\x1b`.
"""

import re
import unicodedata
from functools import lru_cache

# invisible format characters that scripts need within words: joiners, and signs around digits
_NEEDED = frozenset(
    "\u200c\u200d\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)
# controls (C0, DEL, C1), lone surrogates, line and paragraph separators, formats (bidi, zero-width)
_HIDDEN = frozenset(("Cc", "Cs", "Zl", "Zp", "Cf"))
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_TAB = 8
_BEYOND_ASCII = re.compile(r"[\x7f-\x9f\xad\u0600-\U0010ffff]")


def one_line(text: str) -> str:
    """Escape a text for one line, including line ends and tabs, which could forge a row."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_escape_character, text))


def lines(text: str) -> str:
    """Escape a text of several lines: line ends stay, tabs become spaces."""
    return "\n".join(map(one_line, text.replace("\r\n", "\n").expandtabs(_TAB).split("\n")))


def stream(text: str) -> str:
    """Like `lines`, but keeps tabs, which the output of shell completion needs."""
    return "\t".join(lines(part) for part in text.split("\t"))


def message(text: str) -> str:
    """Escape an error message, and indent all lines but the first, so that none imitates ours."""
    return lines(text).replace("\n", "\n    ")


def in_json(text: str) -> str:
    """Escape control characters beyond ASCII in JSON text, without changing its value.

    JSON already escapes controls below 0x20 in strings.
    """
    return text if text.isascii() and "\x7f" not in text else _BEYOND_ASCII.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if not _is_hidden(character):
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


@lru_cache(4096)
def _escape_character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if not _is_hidden(character):
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


@lru_cache(4096)
def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN and character not in _NEEDED
