"""Resolves links by their targets as texts. Pure, except for the functions that callers pass in."""

from collections.abc import Callable

MAX_LINKS = 40  # followed to resolve one path; the kernel has the same limit


def leads_out(path: str, target_of: Callable[[str], str | None], visit: Callable[[], None] = lambda: None) -> bool:
    """Whether a path leads out of its folder, directly or through links. A cycle of links does not.

    `target_of`: the target of the link at a path; None: there is no link. `visit` is called for each component.
    """
    here, ahead, links = list[str](), path.split("/")[::-1], 0
    while ahead:
        visit()
        part = ahead.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not here:
                return True
            here.pop()
            continue
        target = target_of("/".join([*here, part]))
        if target is None:
            here.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            return False
        if target.startswith("/"):
            return True
        ahead += target.split("/")[::-1]
    return False
