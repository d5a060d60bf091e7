"""Rules as annotators: regular expressions (re2: in time linear in the text) and sandboxed Jinja expressions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import re2
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from espalier.core.errors import InvalidInput
from espalier.core.types import Example
from espalier.data.annotation.automatic import AnnotateSpec, RuleSpec
from espalier.data.annotation.record import Annotations, Labels, Rating, Spans, TextSpan, Value, make_record
from espalier.data.annotation.review import RatingControl, SpanControl, parts_of

_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
for _random in ("lipsum", "random"):  # the same example, the same word
    _environment.globals.pop(_random, None)
    _environment.filters.pop(_random, None)

Holds = Callable[[Example], bool]


def annotate_by_rules(examples: Sequence[Example], dataset: str, spec: AnnotateSpec) -> Annotations:
    """What the rules say of each example, in order. Raises InvalidInput for a pattern or expression that is none."""
    rules = [_prepare(rule, f"rules.{number}") for number, rule in enumerate(spec.rules)]
    found = Annotations()
    for example in examples:
        value = _mark_spans(example, spec) if isinstance(spec.control, SpanControl) else _decide(example, rules, spec)
        if value is None:
            found.refused[example.id] = "no rule holds"
        else:
            found.records.append(
                make_record(dataset, example.id, spec.control.name, value, spec.name, at_ms=0, by="rule")
            )
    return found


def _prepare(rule: RuleSpec, where: str) -> tuple[Holds, str]:
    if rule.pattern:
        pattern = _compile(rule.pattern, f"{where}.pattern")
        return (lambda example: bool(pattern.search(parts_of(example).get(rule.part, "")))), rule.says
    try:
        expression = _environment.compile_expression(rule.expression, undefined_to_none=False)
    except TemplateError as error:
        raise InvalidInput(f"no expression: {error}", where=f"{where}.expression") from None

    def holds(example: Example) -> bool:
        parts = {"question": "", "answer": "", "text": "", **parts_of(example)}
        try:
            return bool(expression(tags=example.tags, **parts))
        except (TemplateError, TypeError, ArithmeticError, ValueError, OverflowError) as error:
            raise InvalidInput(
                f"{error}", where=f"{where}.expression, example {example.id}", hint="mend the expression"
            ) from None

    return holds, rule.says


def _compile(pattern: str, where: str) -> Any:
    try:
        return re2.compile(pattern)
    except re2.error as error:
        raise InvalidInput(
            f"no regular expression: {error}", where=where, hint="https://github.com/google/re2/wiki/Syntax"
        ) from None


def _decide(example: Example, rules: Sequence[tuple[Holds, str]], spec: AnnotateSpec) -> Value | None:
    word = next((says for holds, says in rules if holds(example)), spec.otherwise)
    if not word:
        return None
    if isinstance(spec.control, RatingControl):
        return Rating(value=int(word), scale=spec.control.scale)
    return Labels(labels=(word,))


def _mark_spans(example: Example, spec: AnnotateSpec) -> Value:
    part = spec.control.part if isinstance(spec.control, SpanControl) else "answer"
    text = parts_of(example).get(part, "")
    spans = {
        (match.start(), match.end(), rule.says)
        for number, rule in enumerate(spec.rules)
        for match in _compile(rule.pattern, f"rules.{number}.pattern").finditer(text)
        if match.end() > match.start()
    }
    marked = (TextSpan(start=start, end=end, label=label, text=text[start:end]) for start, end, label in sorted(spans))
    return Spans(part=part, spans=tuple(marked))
