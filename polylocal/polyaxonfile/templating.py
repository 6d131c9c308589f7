"""Renders `{{ name }}`, `for` and `if` in polyaxonfiles. Pure. See `expressions` for what templates may do."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polylocal.polyaxonfile.expressions import Budget

MAX_TEMPLATE = 20_000  # characters
MAX_REPEATED = 10_000  # repetitions by all `for` operators of one file
MAX_UNDEFINED = 20  # undefined names in messages
MAX_LITERAL = 100_000  # characters of a text that is parsed as a value


_WHOLE = re.compile(r"^\s*\{\{[^{}]*\}\}\s*$")


Path = tuple[str | int, ...]
Problems = list[tuple[Path, str]]


def has_template(text: str) -> bool:
    return "{{" in text or "{%" in text


class Rendering:
    """Renders the templates of one file with a common budget.

    A template that can't be rendered stays unchanged; its path and the reason are added to `problems`.
    """

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.undefined: Problems = []  # undefined names, with the path of the template
        self._repeated = 0

    @cached_property
    def _budget(self) -> Budget:
        from polylocal.polyaxonfile.expressions import Budget  # imports jinja2, which few processes use

        return Budget()

    def render(self, value: Any, variables: Mapping[str, Any], path: Path) -> Any:
        """Render every template in a value. An undefined name renders as an empty text."""
        if isinstance(value, str):
            return self._text(value, variables, path)
        if isinstance(value, list):
            return [self.render(item, variables, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, dict):
            if set(value) == {"for"} and isinstance(value["for"], dict):
                return self._repeat(value["for"], variables, (*path, "for"))
            if set(value) == {"if"} and isinstance(value["if"], dict):
                return self._choose(value["if"], variables, (*path, "if"))
            return {key: self.render(item, variables, (*path, key)) for key, item in value.items()}
        return value

    def _text(self, text: str, variables: Mapping[str, Any], path: Path) -> Any:
        if not has_template(text):
            return text
        if len(text) > MAX_TEMPLATE:
            self.problems.append((path, f"a text with templates has at most {MAX_TEMPLATE} characters"))
            return text
        from polylocal.polyaxonfile import expressions

        try:
            found = expressions.render(text, variables, self._budget)
        except Exception as error:  # filters raise any exception; the template is at fault
            self.problems.append((path, f"the template can't be rendered: {_reason(error)}"))
            return text
        finally:
            self._note_undefined(path)
        return _parse_literal(found) if _WHOLE.match(text) else found

    def _note_undefined(self, path: Path) -> None:
        """Record undefined names, each path and name once."""
        for name in self._budget.undefined:
            if (path, name) not in self.undefined and len(self.undefined) < MAX_UNDEFINED:
                self.undefined.append((path, name))
        self._budget.undefined.clear()

    def _repeat(self, loop: dict[str, Any], variables: Mapping[str, Any], path: Path) -> list[Any]:
        length = self.render(loop.get("len"), variables, (*path, "len"))
        if not isinstance(length, int) or not 0 <= length <= MAX_REPEATED:
            self.problems.append(((*path, "len"), f"`for` needs `len`, a whole number up to {MAX_REPEATED}"))
            return []
        index = str(loop.get("index", "index"))
        made: list[Any] = []
        for number in range(length):
            self._repeated += 1 + _values(loop.get("do")) // 20
            if self._repeated > MAX_REPEATED:
                text = f"the `for` of this file repeat more than {MAX_REPEATED} times, or too large a part"
                self.problems.append(((*path, "len"), text))
                return made
            before = len(self.problems)
            made.append(self.render(loop.get("do"), {**variables, index: number}, (*path, "do")))
            if len(self.problems) > before:
                return made  # the next repetition would have the same problem
        return made

    def _choose(self, branch: dict[str, Any], variables: Mapping[str, Any], path: Path) -> Any:
        from polylocal.polyaxonfile import expressions

        condition = str(branch.get("cond", ""))
        try:
            if len(condition) > MAX_TEMPLATE:
                raise expressions.NotAllowed(f"it has more than {MAX_TEMPLATE} characters")
            true = bool(expressions.evaluate(condition, variables, self._budget))
            self._budget.undefined.clear()  # conditions may test for undefined names
        except Exception as error:  # see above
            self.problems.append(((*path, "cond"), f"the condition can't be read: {_reason(error)}"))
            return None
        taken = "do" if true else "else_do"
        return self.render(branch.get(taken), variables, (*path, taken))


def render(value: Any, variables: Mapping[str, Any], path: Path, problems: Problems) -> Any:
    """Render one value with a separate budget."""
    return Rendering(problems).render(value, variables, path)


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:500]


def _values(value: Any) -> int:
    """The number of values in a value, including itself."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_values, children))


def _parse_literal(text: str) -> Any:
    """The typed value of a text that is a single expression: `{{ lr }}` with lr = 0.1 becomes the number 0.1.

    Texts that YAML can't express as values stay texts: `0,1` and `(256, 256)` are tuples in Python only. So do texts
    whose value has another spelling: `1.10`, `1e-3`, `0x10`.
    """
    if len(text) > MAX_LITERAL:
        return text
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text
    from polylocal.polyaxonfile.expressions import MAX_BITS

    if not isinstance(found, int | float | list | dict | None) or str(found) != text.strip():
        return text
    return text if isinstance(found, int) and found.bit_length() > MAX_BITS else found
