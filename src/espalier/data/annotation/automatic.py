"""`AnnotateSpec`: an annotator that is no person, written down. Knows types and defaults; annotates nothing.

name: mentions-money
control: {kind: label, name: topic, labels: [billing, other]}
rules:
  - {pattern: '(?i)invoice|refund', says: billing}
otherwise: other
"""

from __future__ import annotations

from pydantic import Field, ValidationError, model_validator

from espalier.core.types import SamplingSpec, Spec
from espalier.core.types.examples import Split
from espalier.data.annotation.record import Part, Rating
from espalier.data.annotation.review import Control, LabelControl, RatingControl, SpanControl
from espalier.data.generate.spec import BudgetSpec, ModelSpec


class RuleSpec(Spec):
    """When it holds, the annotator says so; of several rules the first that holds counts, for spans every match."""

    pattern: str = Field("", description="regular expression (re2) that the part must hold")
    expression: str = Field("", description="or a Jinja expression over question, answer, text and tags")
    part: Part = Field("answer", description="where the pattern is looked for")
    says: str = Field(description="the label, or the mark, it stands for")

    @model_validator(mode="after")
    def _check_one(self) -> RuleSpec:
        if bool(self.pattern) == bool(self.expression):
            raise ValueError("a rule is a pattern or an expression")
        return self


class AnnotateSpec(Spec):
    """An annotator that is no person: rules, or a model."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="the annotator's name in records")
    control: Control = Field(description="what is asked: a rating, labels or spans")
    rules: tuple[RuleSpec, ...] = Field((), description="in order; or else a model")
    otherwise: str = Field("", description="what is said where no rule holds; empty = nothing")
    model: ModelSpec | None = Field(None, description="who is asked, where there are no rules")
    sampling: SamplingSpec = Field(SamplingSpec(max_tokens=256), description="how it is asked")
    budget: BudgetSpec = BudgetSpec()
    splits: tuple[Split, ...] = Field(("train", "validation", "test"), description="examples of these splits")

    @model_validator(mode="after")
    def _check_annotator(self) -> AnnotateSpec:
        if bool(self.rules) == (self.model is not None):
            raise ValueError("an annotator has rules or a model")
        if self.control.kind in ("pairwise", "repair"):
            raise ValueError(f"a {self.control.kind} is for people; use rating, label or span")
        if self.model and self.control.kind == "span":
            raise ValueError("a model gives ratings or labels; spans are for rules and people")
        if self.control.kind == "span" and (self.otherwise or any(rule.expression for rule in self.rules)):
            raise ValueError("spans come from patterns alone")
        said = [rule.says for rule in self.rules] + ([self.otherwise] if self.otherwise else [])
        for word in said:
            _check_word(self.control, word)
        return self


def _check_word(control: Control, word: str) -> None:
    """Raises ValueError, for pydantic to say where."""
    if isinstance(control, RatingControl):
        try:
            Rating(value=int(word), scale=control.scale)
        except (ValueError, ValidationError):
            raise ValueError(f"{word!r} is no mark from 1 to {control.scale}") from None
    elif isinstance(control, LabelControl | SpanControl) and word not in control.labels:
        raise ValueError(f"{word!r} is not among the labels {', '.join(control.labels)}")
