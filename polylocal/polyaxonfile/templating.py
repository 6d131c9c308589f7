"""`{{ name }}`, `for` and `if` in a polyaxonfile. Pure; sandboxed: templates reach values, never attributes."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

_JINJA = ImmutableSandboxedEnvironment()
_WHOLE = re.compile(r"^\s*\{\{[^{}]*\}\}\s*$")


class TemplateProblem(ValueError):
    """A template that can't be rendered; the message is the template engine's."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        self.path = path
        super().__init__(message)


def render(value: Any, variables: Mapping[str, Any], path: tuple[str | int, ...] = ()) -> Any:
    """`value` with every template in it rendered. An undefined name renders as empty text, as it always did."""
    if isinstance(value, str):
        return _render_text(value, variables, path)
    if isinstance(value, list):
        return [render(item, variables, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, dict):
        if set(value) == {"for"} and isinstance(value["for"], dict):
            return _repeat(value["for"], variables, (*path, "for"))
        if set(value) == {"if"} and isinstance(value["if"], dict):
            return _choose(value["if"], variables, (*path, "if"))
        return {key: render(item, variables, (*path, key)) for key, item in value.items()}
    return value


def _render_text(text: str, variables: Mapping[str, Any], path: tuple[str | int, ...]) -> Any:
    if "{{" not in text and "{%" not in text:
        return text
    try:
        rendered = _JINJA.from_string(text).render(variables)
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise TemplateProblem(path, f"the template can't be rendered: {error}") from error
    return _literal(rendered) if _WHOLE.match(text) else rendered


def _literal(text: str) -> Any:
    """A text that is one expression keeps the value's own type: `{{ lr }}` with lr = 0.1 is the number."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _repeat(loop: dict[str, Any], variables: Mapping[str, Any], path: tuple[str | int, ...]) -> list[Any]:
    length = render(loop.get("len"), variables, (*path, "len"))
    if not isinstance(length, int) or not 0 <= length <= 10_000:
        raise TemplateProblem((*path, "len"), "`for` needs `len`, a whole number up to 10000")
    index = str(loop.get("index", "index"))
    return [render(loop.get("do"), {**variables, index: i}, (*path, "do")) for i in range(length)]


def _choose(branch: dict[str, Any], variables: Mapping[str, Any], path: tuple[str | int, ...]) -> Any:
    condition = str(branch.get("cond", ""))
    try:
        true = bool(_JINJA.compile_expression(condition)(**variables))
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise TemplateProblem((*path, "cond"), f"the condition can't be read: {error}") from error
    taken = "do" if true else "else_do"
    return render(branch.get(taken), variables, (*path, taken))
