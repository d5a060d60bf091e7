"""Cases: an example asked, answered and measured; and how they lie on disk, one JSON line each.

`cases.jsonl` of a report holds no prompt text but its digest, and no time: the same answers give the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from espalier.core.errors import DigestMismatch, InvalidInput, NotFound
from espalier.core.faults import refuse
from espalier.core.ids import canonical_json, digest_of
from espalier.core.types import EvalReport, Example, Message
from espalier.core.types.inference import FinishReason
from espalier.store.disk import write_file

REPORT_FILE = "report.json"
CASES_FILE = "cases.jsonl"


@dataclass(slots=True)
class Case:
    """One row of a report. `values`, `parts` and `why` are keyed by metric; `cluster` names what it depends on."""

    id: str
    question: str  # digest of the messages asked
    answer: str
    reference: str
    cluster: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    values: dict[str, float] = field(default_factory=dict)
    parts: dict[str, dict[str, float]] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A report with the cases it rests on, in the order of the dataset."""

    report: EvalReport
    cases: Sequence[Case]


def split_example(example: Example) -> tuple[list[Message], str]:
    """(question, reference answer). Raises InvalidInput for an example that does not end with an answer to a turn."""
    if len(example.messages) < 2 or example.messages[-1].role != "assistant":
        raise InvalidInput(
            "there is no reference answer to score against", where=f"example {example.id}",
            hint="an example to evaluate ends with an assistant turn after a user turn",
        )  # fmt: skip
    return example.messages[:-1], example.messages[-1].content


def question_digest(messages: Sequence[Message]) -> str:
    """sha256 of what a model was asked: roles and contents, in order."""
    return digest_of([[message.role, message.content] for message in messages])


def cluster_of(example: Example) -> str:
    """Examples made from the same documents are not independent; one without documents stands for itself."""
    return "+".join(sorted(example.documents)) or example.id


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write `report.json` and `cases.jsonl`. Raises StorageFull."""
    report = evaluation.report.model_copy(update={"outputs": CASES_FILE})
    write_file(folder / CASES_FILE, b"".join(canonical_json(asdict(case)) + b"\n" for case in evaluation.cases))
    write_file(folder / REPORT_FILE, json.dumps(report.model_dump(), indent=1, ensure_ascii=False).encode() + b"\n")


def read_report(folder: Path) -> EvalReport:
    """The report of an artifact's folder. Raises NotFound, InvalidInput."""
    path = folder / REPORT_FILE
    if not path.is_file():
        raise NotFound(f"no evaluation report at {folder}", hint="`espalier eval` makes one")
    try:
        return EvalReport.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise InvalidInput(f"not an evaluation report: {error}", where=str(path)) from None


def read_evaluation(folder: Path) -> Evaluation:
    """The report and its cases. Raises NotFound, InvalidInput, or DigestMismatch when the rows do not add up to it."""
    report = read_report(folder)
    cases = list(_read_cases(folder / CASES_FILE))
    for score in report.scores:
        values = values_of(cases, score.name)
        if len(values) != score.n or not math.isclose(math.fsum(values) / score.n, score.value, abs_tol=1e-9):
            raise DigestMismatch(
                f"{score.name} of {report.label} does not follow from its cases", where=str(folder),
                hint="one of report.json and cases.jsonl was changed; evaluate again",
            )  # fmt: skip
    return Evaluation(report, cases)


def has_value(case: Case, score: str) -> bool:
    """Whether the case was measured by a metric, or has a part of it (`metric/part`)."""
    metric, slash, part = score.partition("/")
    return part in case.parts.get(metric, {}) if slash else metric in case.values


def values_of(cases: Iterable[Case], score: str) -> list[float]:
    """The values behind a score, in the order of the cases that have one."""
    metric, slash, part = score.partition("/")
    return [case.parts[metric][part] if slash else case.values[metric] for case in cases if has_value(case, score)]


def list_parts(cases: Iterable[Case], metric: str) -> list[str]:
    """The names of every part of a metric, as they first appear."""
    return list(dict.fromkeys(part for case in cases for part in case.parts.get(metric, {})))


def _read_cases(path: Path) -> Iterator[Case]:
    if not path.is_file():
        raise NotFound(f"no case rows at {path}", hint="evaluate again")
    rows = TypeAdapter(Case)
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            yield rows.validate_json(line)
        except ValidationError as error:
            raise refuse(error, None, what="not a case", where=f"{path}:{number}", hint="evaluate again") from None
