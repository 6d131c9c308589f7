"""`{{ name }}`, `for` and `if` in a polyaxonfile. Pure; sandboxed: templates reach values, never attributes."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEMPLATE = 20_000  # characters
_MOST = 100_000  # of anything that a template multiplies


class _Sandbox(ImmutableSandboxedEnvironment):
    """Sums only as large as they can be meant."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and isinstance(left, int) and isinstance(right, int) and right * left.bit_length() > _MOST:
            raise ValueError(f"{left}**{right} is too large")
        if operator == "*":
            size, factor = (left, right) if hasattr(left, "__len__") else (right, left)
            if hasattr(size, "__len__") and isinstance(factor, int) and len(size) * factor > _MOST:
                raise ValueError(f"more than {_MOST} repeated")
        return super().call_binop(context, operator, left, right)


# not optimized: folding constants while a template is compiled takes exponential time for long sums
_JINJA = _Sandbox(optimized=False)
_WHOLE = re.compile(r"^\s*\{\{[^{}]*\}\}\s*$")


Path = tuple[str | int, ...]
Problems = list[tuple[Path, str]]


def render(value: Any, variables: Mapping[str, Any], path: Path, problems: Problems) -> Any:
    """`value` with every template in it rendered. An undefined name renders as empty text, as it always did.

    A template that can't be rendered stays as it is, and its path and the reason are added to `problems`.
    """
    if isinstance(value, str):
        return _render_text(value, variables, path, problems)
    if isinstance(value, list):
        return [render(item, variables, (*path, index), problems) for index, item in enumerate(value)]
    if isinstance(value, dict):
        if set(value) == {"for"} and isinstance(value["for"], dict):
            return _repeat(value["for"], variables, (*path, "for"), problems)
        if set(value) == {"if"} and isinstance(value["if"], dict):
            return _choose(value["if"], variables, (*path, "if"), problems)
        return {key: render(item, variables, (*path, key), problems) for key, item in value.items()}
    return value


def _render_text(text: str, variables: Mapping[str, Any], path: Path, problems: Problems) -> Any:
    if "{{" not in text and "{%" not in text:
        return text
    if len(text) > MAX_TEMPLATE:
        problems.append((path, f"a text with templates has at most {MAX_TEMPLATE} characters"))
        return text
    try:
        rendered = _JINJA.from_string(text).render(variables)
    except Exception as error:  # filters raise whatever they meet: all of it is the template's fault
        problems.append((path, f"the template can't be rendered: {error or type(error).__name__}"))
        return text
    return _literal(rendered) if _WHOLE.match(text) else rendered


def _literal(text: str) -> Any:
    """A text that is one expression keeps the value's own type: `{{ lr }}` with lr = 0.1 is the number."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _repeat(loop: dict[str, Any], variables: Mapping[str, Any], path: Path, problems: Problems) -> list[Any]:
    length = render(loop.get("len"), variables, (*path, "len"), problems)
    if not isinstance(length, int) or not 0 <= length <= 10_000:
        problems.append(((*path, "len"), "`for` needs `len`, a whole number up to 10000"))
        return []
    index = str(loop.get("index", "index"))
    return [render(loop.get("do"), {**variables, index: i}, (*path, "do"), problems) for i in range(length)]


def _choose(branch: dict[str, Any], variables: Mapping[str, Any], path: Path, problems: Problems) -> Any:
    condition = str(branch.get("cond", ""))
    try:
        true = bool(_JINJA.compile_expression(condition)(**variables))
    except Exception as error:  # as above
        problems.append(((*path, "cond"), f"the condition can't be read: {error or type(error).__name__}"))
        return None
    taken = "do" if true else "else_do"
    return render(branch.get(taken), variables, (*path, taken), problems)
