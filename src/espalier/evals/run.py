"""Evaluate: ask every example, measure every answer, sum up with intervals.

    examples -> render -> generate (in batches, journalled) -> metrics -> cases -> scores

Asking is dear and resumes; measuring is cheap and pure, so it is done anew from the answers. Knows no model and no
prompt: it is given a `Generate` and a `Render`.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from espalier.core.errors import EspalierError, InvalidInput
from espalier.core.events import Emit, Event, ignore
from espalier.core.ports import Generate
from espalier.core.types import EvalReport, Example, Generation, Message, SamplingSpec, Score
from espalier.evals.cases import (
    Case,
    Evaluation,
    cluster_of,
    has_value,
    list_parts,
    question_digest,
    split_example,
    values_of,
)
from espalier.evals.intervals import interval_of
from espalier.metrics.metric import Answered, Metric
from espalier.store.journal import Journal, answer_key

Render = Callable[[Example, Sequence[Example]], list[Message]]
BATCH = 16


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is evaluated, and on what: the head of the report."""

    subject: str  # "builtin:seedling", "adapter:<digest>", "model:support@v3"
    label: str  # how a table names it: "base, few-shot"
    dataset: str  # artifact digest
    split: str = "test"
    prompt: str = ""  # artifact digest or ref


def evaluate(
    examples: Iterable[Example],
    generate: Generate,
    metrics: Sequence[Metric],
    subject: Subject,
    *,
    render: Render | None = None,
    shots: Sequence[Example] = (),
    sampling: SamplingSpec | None = None,
    batch_size: int = BATCH,
    journal: Path | None = None,
    emit: Emit = ignore,
) -> Evaluation:
    """Score `subject` on `examples`; `render(example, shots)` makes the messages (default: the example's own turns).

    With `journal`, answers are appended to that file as they come, and found there again after a crash.
    Emits eval.started, eval.progress (done, total, eta_ms, running means) and eval.finished (scores, intervals).
    Raises InvalidInput for no examples, two with one id, one without an answer, or shots that are among the examples;
    EspalierError for a metric or model that does not keep its promises.
    """
    rows = list(examples)
    _check(rows, shots, metrics, subject)
    sampling = sampling or SamplingSpec()
    questions = [(render or ask_as_written)(row, shots) for row in rows]
    emit(Event("eval.started", {"label": subject.label, "total": len(rows), "shots": len(shots)}))
    cases: list[Case] = []
    started = time.monotonic()
    answers = _answer(questions, generate, subject.subject, sampling, Journal(journal), batch_size)
    for row, question, answer in zip(rows, questions, answers, strict=True):
        cases.append(_measure(row, question, answer, metrics))
        if len(cases) % batch_size == 0 or len(cases) == len(rows):
            emit(_progress(subject.label, cases, len(rows), time.monotonic() - started))
    scores = score_cases(cases, metrics)
    report = EvalReport(
        subject=subject.subject, label=subject.label, dataset=subject.dataset, split=subject.split,
        prompt=subject.prompt, scores=tuple(scores),
    )  # fmt: skip
    emit(_finished(subject.label, len(rows), scores))
    return Evaluation(report, cases)


def ask_as_written(example: Example, shots: Sequence[Example]) -> list[Message]:
    """The default `Render`: the example's own turns, after those of the shots; one system turn, the example's."""
    question, _ = split_example(example)
    system = [turn for turn in question[:1] if turn.role == "system"]
    shown = [turn for shot in shots for turn in shot.messages if turn.role != "system"]
    return [*system, *shown, *question[len(system) :]]


def draw_examples(examples: Iterable[Example], count: int, seed: int) -> list[Example]:
    """`count` examples (or all), the same for the same ids and seed whatever their order; kept in the order given.

    Each id is ranked by its hash, so a set that grows keeps most of its draw. For shots, and for a smaller test set.
    """
    rows = list(examples)
    rank = sorted(range(len(rows)), key=lambda i: hashlib.sha256(f"{seed}:{rows[i].id}".encode()).digest())
    return [rows[i] for i in sorted(rank[:count])]


class Figure(Protocol):
    """What a score needs of a metric."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def higher_is_better(self) -> bool: ...


def score_cases(cases: Sequence[Case], metrics: Sequence[Figure]) -> list[Score]:
    """A score for every metric, then for every part of it, named `metric/part`, both with their intervals."""
    scores = []
    for metric in metrics:
        scores.append(_score(cases, metric.name, metric.unit, metric.higher_is_better))
        scores.extend(_score(cases, f"{metric.name}/{part}", "ratio", True) for part in list_parts(cases, metric.name))
    return scores


def _score(cases: Sequence[Case], name: str, unit: str, higher_is_better: bool) -> Score:
    held = [case for case in cases if has_value(case, name)]
    values = values_of(held, name)
    found = interval_of(values, [case.cluster for case in held], ratio=unit == "ratio")
    return Score(
        name=name, value=math.fsum(values) / len(values), unit=unit, higher_is_better=higher_is_better, n=len(values),
        ci_low=found.low, ci_high=found.high,
    )  # fmt: skip


def _check(rows: Sequence[Example], shots: Sequence[Example], metrics: Sequence[Metric], subject: Subject) -> None:
    if not rows:
        raise InvalidInput(f"there is no example to evaluate in split {subject.split}", hint="`espalier data show`")
    if not metrics:
        raise InvalidInput("there is no metric to evaluate with", hint="add `metrics:`, e.g. exact_match")
    names = [metric.name for metric in metrics]
    if len(set(names)) < len(names) or any("/" in name for name in names):
        raise InvalidInput(f"metrics need names of their own, without a slash: {', '.join(names)}")
    ids = {row.id for row in rows}
    if len(ids) < len(rows):
        raise InvalidInput("two examples have the same id", hint="build the dataset again")
    shown = {shot.id for shot in shots} & ids
    if shown:
        raise InvalidInput(
            f"example {min(shown)} is both shown and asked",
            hint="draw shots from the train split: a score would be false",
        )
    for row in rows:
        split_example(row)


def _answer(
    questions: Sequence[Sequence[Message]], generate: Generate, subject: str, sampling: SamplingSpec,
    journal: Journal, batch_size: int,
) -> Iterator[Generation]:  # fmt: skip
    """The answers in order, a batch at a time; what the journal knows is not asked again."""
    keys = [answer_key(subject, question_digest(question), sampling) for question in questions]
    for start in range(0, len(questions), batch_size):
        batch = range(start, min(start + batch_size, len(questions)))
        unknown = [i for i in batch if journal.find(keys[i]) is None]
        if unknown:
            generations = generate([questions[i] for i in unknown], sampling)
            if len(generations) != len(unknown):
                raise EspalierError(f"{len(unknown)} questions got {len(generations)} answers")
            journal.add([(keys[i], generation) for i, generation in zip(unknown, generations, strict=True)])
        for i in batch:
            found = journal.find(keys[i])
            if found is not None:
                yield found


def _measure(row: Example, question: Sequence[Message], answer: Generation, metrics: Sequence[Metric]) -> Case:
    reference = split_example(row)[1]
    case = Case(
        id=row.id, question=question_digest(question), answer=answer.text, reference=reference,
        cluster=cluster_of(row), finish_reason=answer.finish_reason,
        prompt_tokens=answer.usage.prompt_tokens, completion_tokens=answer.usage.completion_tokens,
    )  # fmt: skip
    for metric in metrics:
        measured = metric.measure(Answered(row.id, answer.text, reference, question, row.tags))
        case.values[metric.name] = _check_value(metric, measured.value, row.id)
        if measured.parts:
            case.parts[metric.name] = dict(measured.parts)
        if measured.why:
            case.why[metric.name] = measured.why
    return case


def _check_value(metric: Metric, value: float, id: str) -> float:
    if not math.isfinite(value) or (metric.unit == "ratio" and not 0 <= value <= 1):
        raise EspalierError(
            f"metric {metric.name} gave {value}", where=f"example {id}", hint="a ratio is from 0 to 1, and never NaN"
        )
    return value


def _finished(label: str, total: int, scores: Sequence[Score]) -> Event:
    whole = [score for score in scores if "/" not in score.name]
    means = {score.name: score.value for score in whole}
    intervals = {score.name: [score.ci_low, score.ci_high] for score in whole}
    return Event("eval.finished", {"label": label, "total": total, "scores": means, "intervals": intervals})


def _progress(label: str, cases: Sequence[Case], total: int, elapsed_s: float) -> Event:
    done = len(cases)
    means = {name: sum(case.values[name] for case in cases) / done for name in cases[0].values}
    eta_ms = round(1000 * elapsed_s / done * (total - done))
    return Event("eval.progress", {"label": label, "done": done, "total": total, "eta_ms": eta_ms, "means": means})
