"""Polyaxonfiles that both versions of the original command lines take, unless it is said which."""

from __future__ import annotations

import json

from support import BUSYBOX


def job(cmd: str, steps: tuple[str, ...] = ()) -> str:
    return f"version: 1\nkind: job\n{_build(steps)}run:\n  cmd: {json.dumps(cmd)}\n"


def experiment(cmd: str, **declarations: object) -> str:
    """With `declarations`, which the later version still reads as `params`."""
    given = "".join(f"  {name}: {value}\n" for name, value in declarations.items())
    declared = f"declarations:\n{given}" if given else ""
    return f"version: 1\nkind: experiment\n{declared}{_build(())}run:\n  cmd: {json.dumps(cmd)}\n"


def build(*steps: str, is_old: bool) -> str:
    """The old program wants the section, the new one its content at the top."""
    if is_old:
        return f"version: 1\nkind: build\n{_build(steps)}"
    return f"version: 1\nkind: build\nimage: {BUSYBOX}\n{_steps(steps, '')}"


def _build(steps: tuple[str, ...]) -> str:
    return f"build:\n  image: {BUSYBOX}\n{_steps(steps, '  ')}"


def _steps(steps: tuple[str, ...], indent: str) -> str:
    lines = "".join(f"{indent}  - {json.dumps(step)}\n" for step in steps)
    return f"{indent}build_steps:\n{lines}" if steps else ""
