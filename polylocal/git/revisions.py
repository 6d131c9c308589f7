"""Names of commits that callers may use: a hash, a branch, a tag or HEAD. Pure.

git's revision syntax (`HEAD~2`, `:/text`, `a..b`, `@{-1}`, `commit:path`) is not supported: parts of it need unlimited
time and memory.
"""

import re

MAX_REF = 255  # bytes; the limit of file systems
SYNTAX = "a hash (at least 7 of its digits), a branch, a tag, or HEAD"

_HASH = re.compile(r"[0-9a-f]{7,40}", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)
_OBJECT = re.compile(r"[0-9a-f]{40}")
_NOT_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)")


def is_hash(text: str) -> bool:
    """Whether a text is a hash, or its first digits (at least 7)."""
    return _HASH.fullmatch(text) is not None


def is_commit(text: str) -> bool:
    """Whether a text is a full SHA-1 hash, as git writes it."""
    return _OBJECT.fullmatch(text) is not None


def is_foreign_hash(text: str) -> bool:
    """Whether a text is a hash of any repository, including those with SHA-256."""
    return is_hash(text) or _SHA256.fullmatch(text) is not None


def is_ref(text: str) -> bool:
    """Whether a branch or a tag may have this name, by the rules of `git check-ref-format --branch`."""
    if not text or text == "@" or text[0] in "-./" or text[-1] in "./" or _NOT_IN_REF.search(text):
        return False
    try:
        return len(text.encode()) <= MAX_REF
    except UnicodeEncodeError:
        return False


def candidates(name: str) -> list[str]:
    """Full names to try for a caller's name, in git's order; empty for an invalid name.

    A full hash is always the object. Otherwise a tag comes before a branch, and both before the first digits of a hash.
    """
    if is_commit(name.lower()):
        return [name.lower()]
    if name == "HEAD":
        return ["HEAD"]
    if not is_ref(name):
        return []
    if name.startswith(("refs/heads/", "refs/tags/")):
        return [name]
    return [f"refs/tags/{name}", f"refs/heads/{name}", *([name.lower()] if is_hash(name) else [])]
