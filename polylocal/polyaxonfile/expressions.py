"""Evaluates Jinja templates with an allow-list and a budget. Pure.

Jinja parses a template; this module evaluates its nodes one by one. Templates that Jinja compiles can't be interrupted
or measured, and a few characters of a nested loop or of a format width could keep a machine busy.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from jinja2 import Undefined, UndefinedError, nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

MAX_STEPS = 200_000  # nodes evaluated for one file
MAX_TEMPLATES = 250_000  # characters of templates in one file
MAX_RENDERED = 1_000_000  # characters of the results of one file's templates
_MAX_WIDTH = 999  # width in a format, and with it the largest formatted number
MAX_TEXT = 100_000  # characters of a new text, items of a new list
MAX_BITS = 4096  # of an integer
MAX_RANGE = 10_000
MAX_NESTED = 50
_MAX_UNDEFINED = 20  # undefined names in messages
_OVERHEAD = 100  # characters that each template counts besides its own, for the time to parse it
_CACHED = 64  # parsed templates of one file: loops render the same ones again

JINJA = ImmutableSandboxedEnvironment(optimized=False, cache_size=0)
_SHELL_LENGTH = "${#"  # a shell expression, not the start of a Jinja comment
_WIDTH = re.compile(r"%[^a-zA-Z%]*?(\*|[0-9]{4})")

FILTERS = frozenset(
    """abs capitalize count d default first float format int items join last length list lower map max min
    replace reverse round sort string sum title tojson trim truncate unique upper""".split()
)
TESTS = frozenset(
    """boolean defined divisibleby eq equalto even false float ge greaterthan gt in integer iterable le lessthan lower
    lt mapping ne none number odd sameas sequence string true undefined upper""".split()
)
METHODS: dict[type, frozenset[str]] = {
    str: frozenset("capitalize endswith lower lstrip replace rstrip split startswith strip title upper".split()),
    dict: frozenset("get items keys values".split()),
}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gteq": operator.ge,
    "lt": operator.lt,
    "lteq": operator.le,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}


class NotAllowed(Exception):
    """A template does something that is not allowed."""


class Budget:
    """The remaining budget for the templates of one file."""

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.templates = MAX_TEMPLATES
        self.rendered = MAX_RENDERED
        self.parsed: dict[str, nodes.Template] = {}
        self.undefined: dict[str, None] = {}  # names without a value, in the order of their use

    def count_template(self, text: str) -> None:
        self.templates -= len(text) + _OVERHEAD
        if self.templates < 0:
            raise NotAllowed(f"the templates of this file have more than {MAX_TEMPLATES} characters")

    def count_rendered(self, characters: int) -> None:
        self.rendered -= characters
        if self.rendered < 0:
            raise NotAllowed(f"the templates of this file produce more than {MAX_RENDERED} characters")

    def spend(self, steps: int = 1) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise NotAllowed(f"the templates of this file need more than {MAX_STEPS} steps")


def render(text: str, variables: Mapping[str, Any], budget: Budget) -> str:
    """Render the templates in a text. Raises NotAllowed, and any exception that an expression causes."""
    stand_in = ""
    if _SHELL_LENGTH in text:
        stand_in = next(sign for sign in map(chr, range(0xE000, 0xF8FF)) if sign not in text)
    shown = _Scope(variables, budget).text(_parse(text.replace(_SHELL_LENGTH, f"${{{stand_in}"), budget))
    return shown.replace(stand_in, "#") if stand_in else shown


def evaluate(expression: str, variables: Mapping[str, Any], budget: Budget) -> Any:
    """Evaluate an expression without braces. Raises as `render`."""
    budget.count_template(expression)
    try:
        parser = Parser(JINJA, expression, state="variable")
        node = parser.parse_expression()
    except RecursionError as error:
        raise NotAllowed("it is nested too deep") from error
    if not parser.stream.eos:
        raise ValueError("unexpected text after the expression")
    return _Scope(variables, budget).value(node)


def _parse(text: str, budget: Budget) -> nodes.Template:
    if text in budget.parsed:
        budget.spend(1)
        return budget.parsed[text]
    budget.count_template(text)
    try:
        found = JINJA.parse(text)
    except RecursionError as error:
        raise NotAllowed("it is nested too deep") from error
    if len(budget.parsed) < _CACHED:
        budget.parsed[text] = found
    return found


class _Scope:
    """The variables inside a template or one of its loops."""

    def __init__(self, variables: Mapping[str, Any], budget: Budget, depth: int = 0) -> None:
        self._names = dict(variables)
        self._budget = budget
        self._depth = depth
        self._may_be_undefined = 0  # number of enclosing expressions that accept undefined names

    def text(self, template: nodes.Template) -> str:
        return "".join(self._run(template.body))

    def _run(self, body: Iterable[nodes.Node]) -> list[str]:
        made: list[str] = []
        for node in body:
            self._budget.spend()
            if isinstance(node, nodes.Output):
                made += [self._output(part) for part in node.nodes]
            elif isinstance(node, nodes.If):
                made += self._run(self._chosen_branch(node))
            elif isinstance(node, nodes.For):
                made += self._repeat(node)
            elif isinstance(node, nodes.Assign) and isinstance(node.target, nodes.Name):
                self._names[node.target.name] = self.value(node.node)
            else:
                raise NotAllowed(f"`{_tag(node)}` is not allowed in a template")
        return made

    def _output(self, node: nodes.Node) -> str:
        if isinstance(node, nodes.TemplateData):
            found = node.data
        else:
            value = self.value(node)
            found = value if isinstance(value, str) else self._as_text(value)
        self._budget.count_rendered(len(found))
        return found

    def _as_text(self, value: Any) -> str:
        if self._weigh(value) > MAX_TEXT:
            raise NotAllowed(f"a template may create texts of at most {MAX_TEXT} characters")
        return str(value)

    def _weigh(self, *values: Any) -> int:
        """The approximate length of the values as text. Spends the steps that a pass over all of them costs."""
        size, stack = 0, list(values)
        while stack:
            value = stack.pop()
            self._budget.spend()
            if isinstance(value, str):
                size += len(value)
                self._budget.spend(len(value) // 500)
            elif isinstance(value, dict):
                self._budget.spend(len(value))
                stack += [*value.keys(), *value.values()]
            elif isinstance(value, list | tuple):
                self._budget.spend(len(value))
                stack += value
            size += 4
        return size

    def _chosen_branch(self, node: nodes.If) -> list[nodes.Node]:
        if self._value_or_undefined(node.test):
            return node.body
        for other in node.elif_:
            if self._value_or_undefined(other.test):
                return other.body
        return node.else_

    def _repeat(self, node: nodes.For) -> list[str]:
        if node.recursive:
            raise NotAllowed("`recursive` is not allowed in a template")
        items = []
        for item in self._items(self.value(node.iter)):
            self._budget.spend()
            inner = self._inner_scope(self._bind(node.target, item))
            if node.test is None or inner.value(node.test):
                items.append(item)
        made: list[str] = []
        for index, item in enumerate(items):
            loop = _loop_variable(index, items)
            made += self._inner_scope({"loop": loop, **self._bind(node.target, item)})._run(node.body)
        return made if items else self._inner_scope({})._run(node.else_)

    def _inner_scope(self, names: Mapping[str, Any]) -> _Scope:
        if self._depth >= MAX_NESTED:
            raise NotAllowed(f"it is nested more than {MAX_NESTED} levels deep")
        self._budget.spend(1 + len(self._names) // 10)  # the names are copied
        return _Scope({**self._names, **names}, self._budget, self._depth + 1)

    def _bind(self, target: nodes.Node, item: Any) -> dict[str, Any]:
        if isinstance(target, nodes.Name):
            return {target.name: item}
        if not isinstance(target, nodes.Tuple) or not all(isinstance(name, nodes.Name) for name in target.items):
            raise NotAllowed("`for` takes a name, or names with commas between")
        values = self._items(item)
        if len(values) != len(target.items):
            raise ValueError(f"{len(target.items)} names for {len(values)} values")
        return {cast(nodes.Name, name).name: value for name, value in zip(target.items, values, strict=True)}

    def _items(self, value: Any) -> list[Any]:
        if isinstance(value, Undefined):
            return []
        if not isinstance(value, str | list | tuple | dict | range):
            raise TypeError(f"a {type(value).__name__} is not a list")
        self._budget.spend(len(value) // 10)
        return list(value)

    def value(self, node: nodes.Node) -> Any:
        self._budget.spend()
        evaluate = _EXPRESSIONS.get(type(node))
        if evaluate is None:
            raise NotAllowed(f"`{_tag(node)}` is not allowed in a template")
        return self._check_number(evaluate(self, node))

    def _value_or_undefined(self, node: nodes.Node) -> Any:
        self._may_be_undefined += 1
        try:
            return self.value(node)
        finally:
            self._may_be_undefined -= 1

    def _note_undefined(self, name: str) -> None:
        if not self._may_be_undefined and len(self._budget.undefined) < _MAX_UNDEFINED:
            self._budget.undefined[name[:100]] = None

    def _check_number(self, value: Any) -> Any:
        """Check the size of a number. Raises NotAllowed."""
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise NotAllowed("a number is too large")
        return value

    def _check_new(self, value: Any) -> Any:
        """Check the size of a new value and spend its steps. Raises NotAllowed."""
        if isinstance(value, str | list | tuple | dict):
            _check_length(len(value))
            self._budget.spend(len(value) // 100)
        return str(value) if isinstance(value, Markup) else value

    def _name(self, node: nodes.Name) -> Any:
        if node.name in self._names:
            return self._names[node.name]
        self._note_undefined(node.name)
        return JINJA.undefined(name=node.name)

    def _values(self, parts: Iterable[nodes.Node]) -> list[Any]:
        return [self.value(part) for part in parts]

    def _dict(self, node: nodes.Dict) -> dict[Any, Any]:
        pairs = [(self.value(pair.key), self.value(pair.value)) for pair in node.items]
        self._weigh(*(key for key, _ in pairs))
        return dict(pairs)

    def _cond(self, node: nodes.CondExpr) -> Any:
        if self._value_or_undefined(node.test):
            return self.value(node.expr1)
        return self.value(node.expr2) if node.expr2 else JINJA.undefined("there is no else")

    def _binary(self, node: nodes.BinExpr) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node, nodes.Mul):
            _check_product(left, right)
        elif isinstance(node, nodes.Pow):
            _check_power(left, right)
        elif isinstance(node, nodes.Mod) and isinstance(left, str):
            self._check_format(left, right)
        return self._check_new(_OPERATORS[type(node)](left, right))

    def _concat(self, node: nodes.Concat) -> Any:
        values = self._values(node.nodes)
        parts = [value if isinstance(value, str) else self._as_text(value) for value in values]
        _check_length(sum(map(len, parts)))
        return self._check_new("".join(parts))

    def _compare(self, node: nodes.Compare) -> bool:
        left = self.value(node.expr)
        for operand in node.ops:
            right = self.value(operand.expr)
            self._weigh(left, right)
            if not _COMPARISONS[operand.op](left, right):
                return False
            left = right
        return True

    def _item(self, node: nodes.Getitem) -> Any:
        value = self.value(node.node)
        if isinstance(node.arg, nodes.Slice):
            if not isinstance(value, str | list | tuple):
                raise TypeError(f"a {type(value).__name__} has no parts")
            parts = (node.arg.start, node.arg.stop, node.arg.step)
            return self._check_new(value[slice(*(None if part is None else self.value(part) for part in parts))])
        return self._member(value, self.value(node.arg))

    def _member(self, value: Any, key: Any) -> Any:
        """An item of a value. Attributes are never accessed."""
        if isinstance(value, Undefined):
            raise UndefinedError(value._undefined_message)
        self._weigh(key)
        try:
            if isinstance(value, dict) or (isinstance(value, str | list | tuple) and isinstance(key, int)):
                return value[key]
        except LookupError:
            self._note_undefined(str(key))
            return JINJA.undefined(obj=value, name=key)
        raise NotAllowed(f"`{str(key)[:50]}` of a {type(value).__name__} is not accessible")

    def _filter(self, node: nodes.Filter) -> Any:
        if node.node is None or node.dyn_args or node.dyn_kwargs:
            raise NotAllowed(f"the filter `{node.name}` can't be used like this")
        evaluate = self._value_or_undefined if node.name in ("default", "d") else self.value
        value, arguments = evaluate(node.node), self._values(node.args)
        named = {str(pair.key): self.value(pair.value) for pair in node.kwargs}
        if node.name != "map":
            return self._apply_filter(node.name, value, arguments, named)
        if not arguments or named:
            raise NotAllowed("`map` takes the name of a filter")
        return [self._apply_filter(str(arguments[0]), item, arguments[1:], {}) for item in self._items(value)]

    def _apply_filter(self, name: str, value: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
        if name not in FILTERS or "attribute" in named:
            raise NotAllowed(f"the filter `{name}` is not allowed in a template")
        if name not in _UNCHECKED_FILTERS:
            self._check_filter(name, value, [*arguments, *named.values()])
        found = JINJA.call_filter(name, value, arguments, named, eval_ctx=nodes.EvalContext(JINJA))
        if hasattr(found, "__next__"):
            found = list(found)
        return self._check_number(found if name in _UNCHECKED_FILTERS else self._check_new(found))

    def _check_filter(self, name: str, value: Any, arguments: list[Any]) -> None:
        size = self._weigh(value, *arguments)
        if name == "replace":
            self._check_replaced(str(value), arguments)
        elif name == "join":
            parts = len(value) if hasattr(value, "__len__") else 0
            _check_length(size + parts * (len(str(arguments[0])) if arguments else 0))
            if len(arguments) > 1:
                raise NotAllowed("`join` takes a text")
        elif name == "format":
            self._check_format(str(value), arguments)
        elif name == "sum" and isinstance(value, list | tuple):
            if not all(isinstance(item, int | float) for item in (*value, *arguments)):
                raise NotAllowed("`sum` is for numbers")
        elif name in ("round", "int") and any(isinstance(n, int | float) and abs(n) > 300 for n in arguments[:1]):
            raise NotAllowed(f"`{name}` takes a number up to 300")
        elif name in ("min", "max", "unique", "sort") and any(isinstance(argument, str) for argument in arguments):
            raise NotAllowed(f"`{name}` takes no attribute")

    def _check_replaced(self, text: str, arguments: list[Any]) -> None:
        old, new = (str(argument) for argument in arguments[:2])
        _check_length(len(text) + (text.count(old)) * len(new))

    def _check_format(self, text: str, values: Any) -> None:
        if _WIDTH.search(text):
            raise NotAllowed("a width in a format has at most three digits")
        _check_length(len(text) + text.count("%") * (_MAX_WIDTH + self._weigh(values)))

    def _test(self, node: nodes.Test) -> Any:
        if node.name not in TESTS or node.dyn_args or node.dyn_kwargs or node.kwargs:
            raise NotAllowed(f"the test `{node.name}` is not allowed in a template")
        value, arguments = self._value_or_undefined(node.node), self._values(node.args)
        self._weigh(value, *arguments)
        return JINJA.call_test(node.name, value, arguments)

    def _call(self, node: nodes.Call) -> Any:
        if node.dyn_args or node.dyn_kwargs or node.kwargs:
            raise NotAllowed("functions take plain values in a template")
        arguments = self._values(node.args)
        if isinstance(node.node, nodes.Getattr):
            return self._method(self.value(node.node.node), node.node.attr, arguments)
        if isinstance(node.node, nodes.Name) and node.node.name == "range" and "range" not in self._names:
            found = range(*arguments)
            if len(found) > MAX_RANGE:
                raise NotAllowed(f"`range` gives at most {MAX_RANGE} numbers")
            return found
        raise NotAllowed("the only function of a template is `range`")

    def _method(self, value: Any, name: str, arguments: list[Any]) -> Any:
        if isinstance(value, Undefined):
            raise UndefinedError(value._undefined_message)
        if name not in METHODS.get(type(value), ()):
            raise NotAllowed(f"`{name}` of a {type(value).__name__} is not accessible")
        self._weigh(value, *arguments)
        if name == "replace" and len(arguments) > 1:
            self._check_replaced(value, arguments)
        found = getattr(value, name)(*arguments)
        return self._check_new(list(found) if name in ("keys", "values", "items") else found)


_UNCHECKED_FILTERS = frozenset({"default", "d", "first", "last", "length", "count"})
_OPERATORS: dict[type[nodes.BinExpr], Callable[[Any, Any], Any]] = {
    nodes.Add: operator.add,
    nodes.Sub: operator.sub,
    nodes.Mul: operator.mul,
    nodes.Div: operator.truediv,
    nodes.FloorDiv: operator.floordiv,
    nodes.Mod: operator.mod,
    nodes.Pow: operator.pow,
}
_EXPRESSIONS: dict[type[nodes.Node], Callable[[_Scope, Any], Any]] = {
    nodes.Const: lambda scope, node: node.value,
    nodes.Name: _Scope._name,
    nodes.List: lambda scope, node: scope._values(node.items),
    nodes.Tuple: lambda scope, node: tuple(scope._values(node.items)),
    nodes.Dict: _Scope._dict,
    nodes.CondExpr: _Scope._cond,
    nodes.And: lambda scope, node: scope._value_or_undefined(node.left) and scope.value(node.right),
    nodes.Or: lambda scope, node: scope._value_or_undefined(node.left) or scope.value(node.right),
    nodes.Not: lambda scope, node: not scope._value_or_undefined(node.node),
    nodes.Neg: lambda scope, node: -scope.value(node.node),
    nodes.Pos: lambda scope, node: +scope.value(node.node),
    **dict.fromkeys(_OPERATORS, _Scope._binary),
    nodes.Concat: _Scope._concat,
    nodes.Compare: _Scope._compare,
    nodes.Getitem: _Scope._item,
    nodes.Getattr: lambda scope, node: scope._member(scope.value(node.node), node.attr),
    nodes.Filter: _Scope._filter,
    nodes.Test: _Scope._test,
    nodes.Call: _Scope._call,
}


def _check_length(length: int) -> None:
    if length > MAX_TEXT:
        raise NotAllowed(f"a template may create texts and lists of at most {MAX_TEXT} characters or items")


def _check_product(left: Any, right: Any) -> None:
    several, times = (left, right) if hasattr(left, "__len__") else (right, left)
    if hasattr(several, "__len__") and isinstance(times, int):
        _check_length(len(several) * times)


def _check_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > MAX_BITS:
        raise NotAllowed("a number is too large")


def _loop_variable(index: int, items: list[Any]) -> dict[str, Any]:
    count = len(items)
    around = {"previtem": items[index - 1]} if index else {}
    around |= {"nextitem": items[index + 1]} if index + 1 < count else {}
    return {
        **{"index": index + 1, "index0": index, "revindex": count - index, "revindex0": count - index - 1},
        **{"first": index == 0, "last": index == count - 1, "length": count, **around},
    }


def _tag(node: nodes.Node) -> str:
    return {"Macro": "macro", "CallBlock": "call", "AssignBlock": "set", "Assign": "set of several names"}.get(
        type(node).__name__, type(node).__name__.lower()
    )
