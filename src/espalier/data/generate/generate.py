"""`generate_rows`: a spec, input examples and askers -> rows, kept and refused. The conductor of this package.

    examples of the chosen splits -> method (asks, reads, checks) -> judge -> rows with their provenance

Pure over what the models answer: the same answers give the same rows, in whatever order they came. Knows no network,
no store and no file.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from espalier.core.errors import InvalidInput
from espalier.core.events import Emit, Event, ignore
from espalier.core.types import Example
from espalier.data.generate.asking import Asker
from espalier.data.generate.critique import judge_rows, take_rows
from espalier.data.generate.instruct import make_instructions
from espalier.data.generate.paraphrase import make_paraphrases
from espalier.data.generate.questions import make_questions
from espalier.data.generate.row import Row
from espalier.data.generate.spec import (
    CritiqueMethod,
    GenerateSpec,
    InstructMethod,
    QuestionsMethod,
)
from espalier.data.generate.templates import PromptVersion
from espalier.data.manifest import name_reason


@dataclass(frozen=True, slots=True)
class Seat:
    """Who is asked, and with which prompt: one for the method, one for the judge."""

    asker: Asker
    prompt: PromptVersion


def generate_rows(
    examples: Sequence[Example], spec: GenerateSpec, writer: Seat, judge: Seat | None = None, emit: Emit = ignore
) -> list[Row]:
    """All rows in a fixed order, each kept or refused with a reason.

    writer: asked by the method; for `critique`, which writes nothing, the judge again. judge: where `spec.judge` is.
    Raises InvalidInput when there is nothing to make rows from, or none is kept; what asking raises.
    """
    parents = draw_parents(examples, spec)
    if not parents:
        raise InvalidInput(f"no example in {', '.join(spec.splits)}", hint="`espalier data show` tells the splits")
    rows = _write_rows(parents, spec, writer)
    if judge is not None and spec.judge is not None:
        judge_rows(rows, spec.judge, judge.prompt, judge.asker)
    drops = count_drops(rows)
    kept = sum(row.kept for row in rows)
    emit(Event("generate.finished", {"method": spec.method.kind, "rows": len(rows), "kept": kept, "drops": drops}))
    if not kept and not spec.keep_input:
        reasons = ", ".join(f"{count} {reason}" for reason, count in drops.items())
        first = f"the first: {rows[0].refused_because}; " if rows else ""
        raise InvalidInput(
            f"no row was kept: {reasons or 'none came'}", hint=f"{first}look at prompt, model and max_tokens"
        )
    return rows


def draw_parents(examples: Sequence[Example], spec: GenerateSpec) -> list[Example]:
    """The examples rows are made from: of the chosen splits, at most `spec.limit`, drawn by the hash of their ids."""
    chosen = [example for example in examples if example.split in spec.splits]
    if not spec.limit or len(chosen) <= spec.limit:
        return chosen
    ranked = sorted(chosen, key=lambda each: hashlib.sha256(f"{spec.seed}:{each.id}".encode()).digest())
    drawn = {example.id for example in ranked[: spec.limit]}
    return [example for example in chosen if example.id in drawn]


def count_drops(rows: Sequence[Row]) -> dict[str, int]:
    """How many rows were refused, by the kind of reason."""
    counts = Counter(name_reason(row.refused_because) for row in rows if row.refused_because)
    return dict(sorted(counts.items()))


def _write_rows(parents: list[Example], spec: GenerateSpec, writer: Seat) -> list[Row]:
    method, prompt, asker = spec.method, writer.prompt, writer.asker
    if isinstance(method, CritiqueMethod):
        return take_rows(parents, prompt, asker, spec.sampling)
    if isinstance(method, QuestionsMethod):
        rows = make_questions(parents, method, prompt, asker, spec.sampling)
    elif isinstance(method, InstructMethod):
        rows = make_instructions(parents, method, prompt, asker, spec.sampling, seed=spec.seed)
    else:
        rows = make_paraphrases(parents, method, prompt, asker, spec.sampling)
    _refuse_repeated(rows)
    return rows


def _refuse_repeated(rows: Sequence[Row]) -> None:
    """Of made rows that say the same to the letter, the first stays."""
    first: dict[tuple[tuple[str, str], ...], str] = {}
    for row in rows:
        if row.example is None or row.refused_because:
            continue
        said = tuple((turn.role, turn.content) for turn in row.example.messages)
        if said in first:
            row.refused_because = f"duplicate of {first[said]}"
        else:
            first[said] = row.example.id
