"""The two small languages inside a pipeline: `${parameters.x}` in values, and conditions in `when`.

A condition is parsed with Python's grammar and interpreted here over a short list of nodes: comparisons, and / or /
not, `in`, numbers, strings, lists, `parameters.NAME` and `steps.STEP.METRIC`. Nothing is evaluated as Python.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from espalier.core.errors import InvalidInput, did_you_mean

_REFERENCE = re.compile(r"\$\{\s*parameters\.([A-Za-z_][A-Za-z0-9_]*)\s*\}")
_ANY_REFERENCE = re.compile(r"\$\{[^}]*\}?")

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


def substitute(value: Any, parameters: Mapping[str, Any]) -> Any:
    """`value` with every `${parameters.x}` replaced: alone in a string it keeps its type, inside one it becomes text.

    Raises InvalidInput for an unknown parameter or any other `${...}`.
    """
    if isinstance(value, Mapping):
        return {key: substitute(item, parameters) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [substitute(item, parameters) for item in value]
    if not isinstance(value, str):
        return value
    whole = _REFERENCE.fullmatch(value.strip())
    if whole:
        return _look_up(whole[1], parameters)
    replaced = _REFERENCE.sub(lambda match: str(_look_up(match[1], parameters)), value)
    odd = _ANY_REFERENCE.search(_REFERENCE.sub("", value))
    if odd:
        raise InvalidInput(f"{odd[0]!r} is no reference", hint="write ${parameters.NAME}")
    return replaced


def parameters_in(value: Any) -> set[str]:
    """Names of the parameters a value refers to."""
    if isinstance(value, Mapping):
        return {name for item in value.values() for name in parameters_in(item)}
    if isinstance(value, list | tuple):
        return {name for item in value for name in parameters_in(item)}
    return set(_REFERENCE.findall(value)) if isinstance(value, str) else set()


def names_in(condition: str) -> set[str]:
    """Dotted names a condition reads. Raises InvalidInput when it cannot be read."""
    found: set[str] = set()
    if condition:
        _evaluate(_parse(condition), lambda name: found.add(name), every=True)
    return found


def holds(condition: str, parameters: Mapping[str, Any], metrics: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether a `when` is true. `metrics` is by step, then by name. Raises InvalidInput for an unknown name."""

    def look_up(name: str) -> Any:
        root, _, rest = name.partition(".")
        if root == "parameters":
            return _look_up(rest, parameters)
        step, _, metric = rest.partition(".")
        measured = metrics.get(step, {})
        if metric not in measured:
            raise InvalidInput(f"step {step} measured no {metric!r}", hint=did_you_mean(metric, measured))
        return measured[metric]

    return not condition or bool(_evaluate(_parse(condition), look_up))


def _look_up(name: str, parameters: Mapping[str, Any]) -> Any:
    if name not in parameters:
        raise InvalidInput(f"there is no parameter {name!r}", hint=did_you_mean(name, parameters))
    return parameters[name]


def _parse(condition: str) -> ast.expr:
    try:
        return ast.parse(condition.strip(), mode="eval").body
    except SyntaxError as error:
        raise _unreadable(condition, error.msg or "syntax") from None


def _evaluate(node: ast.expr, look_up: Callable[[str], Any], every: bool = False) -> Any:
    """The value of an expression. With `every`, all names are looked up and no comparison is made."""

    def value_of(part: ast.expr) -> Any:
        return _evaluate(part, look_up, every)

    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None):
            return node.value
        case ast.List() | ast.Tuple():
            return [value_of(item) for item in node.elts]
        case ast.UnaryOp(op=ast.Not()):
            return not value_of(node.operand)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float())):
            return -value_of(node.operand)
        case ast.BoolOp():
            both = isinstance(node.op, ast.And)
            if every:
                return [value_of(part) for part in node.values]
            return (all if both else any)(value_of(part) for part in node.values)
        case ast.Compare():
            return _compare(node, value_of, every)
        case ast.Attribute():
            return look_up(_dotted(node))
    raise _unreadable(ast.unparse(node), "only comparisons, and, or, not, parameters.NAME and steps.STEP.METRIC")


def _compare(node: ast.Compare, value_of: Callable[[ast.expr], Any], every: bool) -> bool:
    values = [value_of(part) for part in (node.left, *node.comparators)]
    for sign, left, right in zip(node.ops, values, values[1:], strict=False):
        if type(sign) not in _COMPARE:
            raise _unreadable(ast.unparse(node), "is and is not are no comparisons here")
        if every:
            continue
        try:
            if not _COMPARE[type(sign)](left, right):
                return False
        except TypeError:
            raise _unreadable(ast.unparse(node), f"{left!r} and {right!r} cannot be compared") from None
    return True


def _dotted(node: ast.Attribute) -> str:
    name = ast.unparse(node)
    root, *rest = name.split(".")
    if (root == "parameters" and len(rest) == 1) or (root == "steps" and len(rest) >= 2):
        return name
    raise _unreadable(name, "names are parameters.NAME and steps.STEP.METRIC")


def _unreadable(condition: str, why: str) -> InvalidInput:
    return InvalidInput(f"cannot read the condition `{condition}`: {why}", hint="e.g. parameters.epochs > 0")
