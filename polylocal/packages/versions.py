"""Which of two versions is the newer one, by the rules of their kind. Pure."""

from __future__ import annotations

Version = tuple[int | None, str, str]  # epoch, version, release


def is_newer(kind: str | None, mine: Version, published: Version, equal_is_enough: bool) -> bool:
    """`kind` is a platform's `distrib_type`. What can't be compared is taken for new: only its name decides then."""
    # univers takes a quarter of a second to import: who builds no packages never waits for it
    from univers.versions import DebianVersion, InvalidVersion, PypiVersion, RpmVersion

    compared = {"deb": DebianVersion, "pypi": PypiVersion}.get(kind or "", RpmVersion)
    texts = [mine[1], published[1]] if kind == "pypi" else [text(mine), text(published)]
    try:
        left, right = (compared(text) for text in texts)
        # not `==`: 1.01 and 1.1 are the same to dpkg, neither is greater, and their texts differ
        return bool(left > right or (equal_is_enough and not right > left))
    except (InvalidVersion, ValueError, TypeError):
        return equal_is_enough or texts[0] != texts[1]


def text(version: Version) -> str:
    """As a Debian or rpm package writes it: `epoch:version-release`."""
    epoch, upstream, release = version
    return (f"{epoch}:" if epoch else "") + upstream + (f"-{release}" if release else "")
